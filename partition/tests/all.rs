//! The tests of partition tables against sgdisk and sfdisk.
//!
//! One binary, because linking takes longer than compiling them. A test is named after its file:
//! `cargo test -p PACKAGE FILE` runs one file. The tests with a binary of their own are in Cargo.toml.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod fresh;
mod grow;
mod moves;
mod read;
