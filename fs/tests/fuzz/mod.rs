//! Parts of the fuzz harness.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod corpus;
pub mod device;
pub mod exercise;
pub mod fixup;
pub mod memory;
