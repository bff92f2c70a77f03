//! The content of the image: its disk's partitions, which of them is the root, what system it is,
//! and the files that say so.

pub mod accounts;
pub mod detect;
pub mod disk;
pub mod disk_adapter;
pub mod distro;
pub mod enroll;
pub mod fstab;
pub mod glob;
pub mod growth;
pub mod host_keys;
pub mod init;
pub mod locales;
pub mod login_defs;
mod mount;
mod mount_units;
pub mod mounter;
mod names;
mod opened;
mod ostree;
pub mod passwd;
pub mod probe;
pub mod removal;
pub mod selinux;
pub mod services;
pub mod sshd;
pub mod stack;
pub mod storage;
mod subvolumes;
mod summary;
pub mod systemd;
mod view;
pub mod windows;

pub(crate) use opened::CONFIG_MAX;
pub use opened::{Guest, Refused};

pub use crate::ask::properties::OsFamily;
