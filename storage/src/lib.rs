//! Disks behind QEMU's storage daemon (`qemu-storage-daemon`).
//!
//! [`StorageDaemon`] starts the program on one disk, and [`NbdClient`] reads and writes the disk over a
//! socket that has no name. The daemon is a [`Program`]: it ends when its owner does. Used by `host/`
//! for disks that have only an address, and by both for formats that QEMU knows and we do not
//! ([`foreign`]).
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod child;
mod daemon;
pub mod foreign;
pub mod nbd;
#[allow(unsafe_code)]
pub mod sys;

pub use child::Program;
pub use daemon::{DaemonError, EXPORT, StorageDaemon};
pub use nbd::NbdClient;
