//! File systems that no engine of ours knows: who can open them instead.

use snf_fs::{FileSystem, Result, Timestamp};

/// A file system that no engine knows, on the disk that holds the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign<'a> {
    /// Its kind, as `blkid` names it.
    pub kind: &'static str,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes, once the partition table has changed as it will.
    pub size: u64,
    /// Its UUID.
    pub uuid: Option<&'a str>,
    /// Its label.
    pub label: Option<&'a str>,
    /// The time that changes carry.
    pub now: Timestamp,
}

/// Opens file systems of the image by other means than our engines: inside the helper VM its
/// kernel does. Like an engine it writes nothing before the commit.
pub trait Mounter: Send + Sync {
    /// Opens one; `None` when this kind is none of its own.
    fn open(&self, foreign: &Foreign<'_>) -> Option<Result<Box<dyn FileSystem>>>;
}

/// Whether the helper VM can edit this kind, so that a refusal can say it.
pub fn needs_helper(kind: &str) -> bool {
    matches!(kind, "xfs" | "btrfs")
}
