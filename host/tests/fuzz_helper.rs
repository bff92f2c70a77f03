//! The harness of `fs/tests/fuzz_ext.rs` for what the host reads from outside while it builds and runs
//! the helper: kernels, compressed modules, the lines of the virtual machine, QEMU's monitor and the
//! storage daemon. The same variables of the environment hold, and it shares their time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../fs/tests/fuzz/choices.rs"]
#[allow(dead_code)]
mod choices;
mod host_fuzz;
#[path = "../../fs/tests/fuzz/memory.rs"]
mod memory;
#[path = "../../fs/tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../fs/tests/fuzz/run.rs"]
#[allow(dead_code)]
mod run;

#[test]
fn damaged_kernels_and_words_are_refused_or_survived() {
    run::run_all(&host_fuzz::packed(), run::seconds(4), 60);
    run::run_all(&host_fuzz::peers(), run::seconds(2), 500);
}
