//! Damaged LVM labels, metadata areas and texts, and damaged headers of LUKS, with right checksums,
//! before everything that this crate does. It must neither panic nor read, allocate or compute
//! without bound.
//!
//! `SNF_FUZZ_SECONDS=120` is for all harnesses of the checkout together: this one takes a twentieth.
//! A failure names target, seed and round, as in the other harnesses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../fs/tests/fuzz/choices.rs"]
#[allow(dead_code)]
mod choices;
#[path = "../../fs/tests/fuzz/device.rs"]
#[allow(dead_code)]
mod device;
mod hostile;
#[path = "../../fs/tests/fuzz/memory.rs"]
mod memory;
#[path = "../../fs/tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../fs/tests/fuzz/run.rs"]
#[allow(dead_code)]
mod run;
mod support;

#[test]
fn damaged_volumes_are_refused_or_used_safely() {
    let mut targets = hostile::lvm::targets();
    targets.extend(hostile::luks::targets());
    run::run_all(&targets, run::seconds(5), 300);
}
