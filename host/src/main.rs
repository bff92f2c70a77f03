//! The Ganeti OS scripts as one multi-call binary.

fn main() {}
