//! The tests of the node's part with a stand-in for QEMU.
//!
//! One binary, because linking takes longer than compiling them. A test is named after its file:
//! `cargo test -p PACKAGE FILE` runs one file. The tests with a binary of their own are in Cargo.toml.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backends;
mod common;
mod create;
mod http;
mod https;
mod owner;
mod qcow2;
mod robust;
mod scripts;
mod uri_disk;
