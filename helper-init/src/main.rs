//! PID 1 of the helper VM.

fn main() {}
