//! The harness of `fs/tests/fuzz_ext.rs` for damaged registry hives and logs. The same variables of the
//! environment hold, and it shares their time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../fs/tests/fuzz/choices.rs"]
#[allow(dead_code)]
mod choices;
mod hive_fuzz;
#[path = "../fs/tests/fuzz/memory.rs"]
mod memory;
#[path = "../fs/tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../fs/tests/fuzz/run.rs"]
#[allow(dead_code)]
mod run;

#[test]
fn damaged_hives_are_refused_or_survived() {
    run::run_all(&hive_fuzz::targets(), run::seconds(10), 200);
}
