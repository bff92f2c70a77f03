//! The harness of `fuzz_ext.rs` for damaged XFS, btrfs and FAT: a walk and edits. The same variables of the
//! environment hold, and it shares their time. Needs root and loop devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod btrfs_support;
mod fuzz;
mod journal_support;
mod oracle;
mod others_fuzz;
mod support;
mod xfs_support;

use fuzz::run;

#[test]
fn damaged_file_systems_are_refused_or_survived() {
    run::run_all(&others_fuzz::targets(&others_fuzz::Kind::ALL), run::seconds(10), 12);
}
