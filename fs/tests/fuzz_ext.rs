//! A stable harness that throws damaged images at the whole engine, part by part: walk, attributes,
//! indexed directories, edits, growth, journal replay. It must neither panic nor read, allocate or loop
//! without bound, and what it commits must open again.
//!
//! A few seconds by default. `SNF_FUZZ_SECONDS=120` is for all harnesses of the checkout together: this
//! one takes a third of it, the others the rest.
//! `SNF_FUZZ_SEED=n` is for other damage. A failure names target, seed and round:
//! `SNF_FUZZ_TARGET=name`, `SNF_FUZZ_SEED` and `SNF_FUZZ_ONLY=round` repeat it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fuzz;
mod journal_support;
mod support;

use fuzz::area::Area;
use fuzz::{area, journal, run};

#[test]
fn damaged_images_are_refused_or_survived() {
    let mut targets = area::targets(&Area::ALL);
    targets.extend(journal::targets());
    run::run_all(&targets, run::seconds(25), 12);
}
