//! What is inside the image: its disk's partitions, which of them is the root, what system it is,
//! and the files that say so.

pub mod detect;
pub mod disk;
pub mod distro;
pub mod fstab;
pub mod glob;
pub mod mounter;
pub mod passwd;
pub mod probe;
pub mod selinux;
pub mod sshd_config;
mod subvolumes;
pub mod windows;

pub use crate::properties::OsFamily;
