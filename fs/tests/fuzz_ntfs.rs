//! The harness of `fuzz_ext.rs` for damaged NTFS volumes: walk, indexes, edits, growth and the
//! checker. The same variables of the environment hold, and it shares their time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fuzz;
mod journal_support;
mod ntfs_fuzz;
mod ntfs_support;
mod support;

use fuzz::run;

#[test]
fn damaged_volumes_are_refused_or_survived() {
    run::run_all(&ntfs_fuzz::targets(&ntfs_fuzz::Part::ALL), run::seconds(15), 12);
}
