//! The harness of `fs/tests/fuzz_ext.rs` for damaged texts. The same variables of the
//! environment hold, and it shares their time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../fs/tests/fuzz/choices.rs"]
#[allow(dead_code)]
mod choices;
#[path = "../fs/tests/fuzz/memory.rs"]
mod memory;
#[path = "../fs/tests/fuzz/run.rs"]
#[allow(dead_code)]
mod run;
mod text_fuzz;

#[test]
fn damaged_texts_are_refused_or_survived() {
    run::run_all(&text_fuzz::targets(), run::seconds(5), 200);
}
