//! File systems in userspace: read and edit ext2/3/4, XFS, btrfs, NTFS and FAT on a block device or an
//! image file, without the kernel, without mounting, without root.
//!
//! Every change is held in memory until [`FileSystem::commit`]; a failure before that leaves the
//! device byte for byte as it was.
//!
//! ```
//! use std::sync::Arc;
//!
//! use snf_fs::ext::mkfs::build_ext2_image;
//! use snf_fs::ext::{Ext, Options};
//! use snf_fs::{Attributes, MemoryDevice, Timestamp, Tree};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let files: &[(&str, &[u8], u16)] = &[("motd", b"hello\n", 0o644)];
//! let image = build_ext2_image(1 << 20, files, Timestamp::default(), [7; 16], "demo")?;
//! let device = Arc::new(MemoryDevice::new(image));
//! let mut tree = Tree::new(Box::new(Ext::open(device, Options::default())?));
//! tree.write("/motd", b"good day\n", Attributes { mode: 0o644, uid: 0, gid: 0 })?;
//! assert_eq!(tree.read("/motd", 100)?, b"good day\n");
//! tree.commit()?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
// Numbers go through `num`; a cast says beside it why nothing is lost.
#![warn(clippy::as_conversions)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::as_conversions)
)]

pub mod btrfs;
mod bytes;
mod cache;
pub mod device;
pub mod error;
pub mod ext;
pub mod fat;
pub mod filesystem;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod ntfs;
mod num;
pub mod overlay;
mod ranges;
mod shortname;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod tree;
mod utf16;
pub mod xfs;

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

/// The example of the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
