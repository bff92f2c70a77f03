//! Containers of virtual disks, read and changed in place: today qcow2, versions 2 and 3.
//!
//! A container is a [`BlockDevice`](snf_fs::BlockDevice) over a file that can grow
//! ([`GrowableDevice`]). The file systems and partition tables above do not see a difference to a
//! raw disk.
//!
//! ```
//! use snf_container::{MemoryFile, qcow2::{CreateOptions, Options, Qcow2, create}};
//! use snf_fs::BlockDevice;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = std::sync::Arc::new(MemoryFile::new(Vec::new()));
//! create(&file, 1 << 30, &CreateOptions::default())?;
//! let disk = Qcow2::open(file.clone(), Options::writable())?;
//! disk.write_at(1 << 29, b"hello")?;
//! disk.flush()?;
//! assert!(file.len() < 1 << 20);
//! # Ok(())
//! # }
//! ```
//!
//! Writes become durable with [`flush`](snf_fs::BlockDevice::flush). When the power is
//! cut at any moment, the file holds the old or the new content of all that was not flushed, and
//! at worst clusters that nothing uses ("leaked"). [`qcow2`] says how.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod file;
pub mod qcow2;

pub use file::{GrowableDevice, GrowableFile, MemoryFile, ReadOnlyDevice};
