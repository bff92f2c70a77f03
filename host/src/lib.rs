//! The Ganeti OS provider: what the scripts `create`, `export`, `import`, `rename` and `verify`
//! do on the node.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod backend;
pub mod buffer;
pub mod cancel;
pub mod check;
pub mod child;
pub mod cli;
pub mod config;
pub mod copy;
pub mod cpio;
pub mod create;
pub mod customize_vm;
pub mod destination;
pub mod disk;
pub mod env;
pub mod fetch;
pub mod floppy;
pub mod ftp;
pub mod helper;
pub mod install_os;
mod lay;
pub mod log;
pub mod mbr;
pub mod monitor;
pub mod parameters;
pub mod percent;
pub mod rename;
pub mod scrub;
pub mod shellvars;
pub mod source;
pub mod storage;
pub mod target;
pub mod transfer;
pub mod verify;
mod within;
