//! `snf-customize`: customises a disk image in userspace.
#![forbid(unsafe_code)]

fn main() {}
