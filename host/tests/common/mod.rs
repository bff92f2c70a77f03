//! What tests of the scripts share: everything but the helper VM is real.
#![allow(dead_code)]

pub mod lab;
pub mod node;
