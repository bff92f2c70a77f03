//! File systems in userspace: read and edit ext2/3/4, NTFS and FAT on a block device or an
//! image file, without the kernel, without mounting, without root.
//!
//! Every change is held in memory until [`FileSystem::commit`]; a failure before that leaves the
//! device byte for byte as it was.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cache;
pub mod device;
pub mod error;
pub mod ext;
pub mod fat;
pub mod filesystem;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod ntfs;
pub mod overlay;
mod ranges;
mod shortname;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod tree;
mod utf16;

pub use device::{BlockDevice, FileDevice, MemoryDevice, Slice};
pub use error::{DeviceError, Error, Result};
pub use filesystem::{
    Attributes, CommitReport, DirEntry, FileSystem, FileType, Info, Kind, NodeId, Stat, Times,
    Timestamp,
};
#[cfg(any(test, feature = "testing"))]
pub use memory::MemoryFs;
pub use overlay::Overlay;
pub use tree::Tree;
