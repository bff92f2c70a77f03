//! The fuzz harness: what is damaged, how, what it is put through, and the limits. The stable harness
//! (`fuzz_ext.rs`, `fuzz_ntfs.rs`) and the targets of cargo-fuzz (`fuzz/` in the checkout) share it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod area;
pub mod choices;
pub mod corpus;
pub mod device;
pub mod exercise;
pub mod fixup;
pub mod journal;
pub mod memory;
pub mod mutate;
pub mod run;
