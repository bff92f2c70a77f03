//! snf-image: turns a disk image into your machine.
//!
//! A door (Ganeti's `create`, the helper VM, `snf-customize`) makes a [`plan::Plan`]; the library
//! opens the disk, finds the guest, runs the tasks on it and commits one transaction per file
//! system.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod answer;
pub mod base64;
pub mod check;
pub mod crypt;
pub mod customize;
pub mod disk_adapter;
pub mod event;
pub mod failure;
pub mod guest;
pub mod inspect;
pub mod network;
pub mod params;
pub mod personality;
pub mod plan;
pub mod prepare;
pub mod properties;
pub mod random;
pub mod registry;
pub mod report;
pub mod request;
pub mod rules;
pub mod secret;
mod sentence;
pub mod sshkey;
pub mod storage;
pub mod task;
mod task_id;
mod windows_path;
pub mod wire;
