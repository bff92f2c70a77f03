//! Numbers that must not be mixed up.

use std::fmt;

/// A block of the file system as its structures name it: the allocation group in the high bits,
/// the block within the group in the low ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FsBlock(pub u64);

impl fmt::Display for FsBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An inode's number: the allocation group, the block in it, the inode in that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place on the device, in units of 512 bytes, as XFS counts it in its headers and log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Daddr(pub u64);

impl Daddr {
    /// The byte on the device.
    pub fn byte(self) -> u64 {
        self.0.saturating_mul(512)
    }
}

impl fmt::Display for Daddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
