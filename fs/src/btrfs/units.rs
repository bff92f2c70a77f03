//! Numbers of btrfs that must not be taken for each other.

use std::fmt;

/// An address in the file system's own space, which chunks map to devices; in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Logical(pub u64);

/// The number of a tree: one of [`super::layout::objectid`], or a subvolume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeId(pub u64);

/// A byte of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Physical(pub u64);

impl fmt::Display for Logical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "address {}", self.0)
    }
}

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tree {}", self.0)
    }
}

impl TreeId {
    /// Whether it is a subvolume: a tree of files that may share blocks with others.
    pub fn is_subvolume(self) -> bool {
        use super::layout::objectid;
        self.0 == objectid::FS_TREE
            || (objectid::FIRST_FREE..=objectid::LAST_FREE).contains(&self.0)
    }
}
