//! The part of the journal that a [`Volume`](crate::ext::Volume) carries with it.

use super::area::Area;

/// The journal of a volume, and whether a commit to it failed.
#[derive(Debug, Default)]
pub(in crate::ext) struct State {
    /// The journal, once it was looked at.
    pub(super) area: Option<Area>,
    /// A commit failed half way: memory and device no longer fit together.
    pub(super) broken: bool,
}
