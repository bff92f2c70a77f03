//! Fields of documents that are yes unless they say no, and the other way round.

/// The value of a field that is missing.
pub(super) fn yes() -> bool {
    true
}

/// Whether a field need not be written.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(super) fn is_yes(value: &bool) -> bool {
    *value
}

/// Whether a field that is no unless it says yes need not be written.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(super) fn is_no(value: &bool) -> bool {
    !*value
}
