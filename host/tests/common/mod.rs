//! Shared by the tests of the scripts: everything but the helper VM is real.
#![allow(dead_code)]

pub mod lab;
pub mod node;
