//! Fields of documents that are yes unless they say no.

/// The value of a field that is missing.
pub(super) fn yes() -> bool {
    true
}

/// Whether a field need not be written.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(super) fn is_yes(value: &bool) -> bool {
    *value
}
