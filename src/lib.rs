//! snf-image: turns a disk image into your machine.
//!
//! A door (Ganeti's `create`, the helper VM, `snf-customize`) makes a [`plan::Plan`]; the library
//! opens the disk, finds the guest, runs the tasks on it and commits one transaction per file
//! system.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod ask;
pub mod craft;
pub mod door;
pub mod edit;
pub mod guest;
pub mod limits;
pub mod run;
pub mod shown;
pub mod task;

pub use ask::{cloud_seed, event, network, nic_option, params, personality, plan, properties};
pub use craft::{crypt, random, secret, sshkey};
pub use door::{lay, passwords, prepare, request, rules, wire};
pub use guest::windows::{answer, registry};
pub use guest::{disk_adapter, storage};
#[cfg(feature = "cli")]
pub use run::diff;
pub use run::{check, customize, failure, files, inspect};
