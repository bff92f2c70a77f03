//! Volumes between a partition and its file system: LVM2 logical volumes and LUKS containers.
//!
//! Every layer takes one or more [`snf_fs::BlockDevice`]s and is a `BlockDevice` itself, so layers
//! stack in any order. Nothing here needs the kernel's device-mapper, root or a mount.
//!
//! * [`luks`] opens LUKS1 and LUKS2 containers.
//! * [`lvm`] finds physical volumes, reads the metadata of their groups, opens logical volumes, and
//!   grows both.
//!
//! * [`signature`] names volumes and containers that are not opened.
//!
//! All numbers that a disk supplies are bounded before use. Features that would need more than this
//! crate does are refused with a [`Refusal`], which has a name and a sentence.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
pub mod luks;
pub mod lvm;
pub mod signature;

pub use error::{Error, Refusal, Result};
