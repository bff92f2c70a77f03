//! The tests of the volumes against lvm2, cryptsetup and qemu-img.
//!
//! One binary, because linking takes longer than compiling them. A test is named after its file:
//! `cargo test -p snf-volume FILE` runs one file. The tests with a binary of their own are in Cargo.toml.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod luks;
mod lvm_grow;
mod lvm_read;
mod support;
