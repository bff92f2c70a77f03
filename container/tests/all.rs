//! qcow2 images against qemu-img, qemu-io and imago, cut power, failing devices, hostile images.
//!
//! One binary, because linking takes longer than compiling them. A test is named after its file:
//! `cargo test -p snf-container FILE` runs one file.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backing;
#[path = "../../fs/tests/fuzz/choices.rs"]
#[allow(dead_code)]
mod choices;
mod cut;
mod damaged;
mod grow;
mod hostile;
mod kinds;
#[path = "../../fs/tests/fuzz/memory.rs"]
mod memory;
mod peers;
mod recording;
mod refused;
#[path = "../../fs/tests/fuzz/run.rs"]
#[allow(dead_code)]
mod run;
mod snapshots;
mod support;
