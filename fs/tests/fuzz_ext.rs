//! A stable harness that throws damaged images at the whole engine: open (and replay), walk, read,
//! attributes, edits, commit. It must neither panic nor read, allocate or loop without bound.
//!
//! A few seconds by default; `SNF_FUZZ_SECONDS=120` for longer, `SNF_FUZZ_SEED=n` for other damage.
//! A failure names corpus, seed and round: `SNF_FUZZ_SEED` and `SNF_FUZZ_ONLY=round` repeat it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fuzz;
mod support;

use std::time::{Duration, Instant};

use fuzz::corpus::{self, Corpus};
use fuzz::exercise::{enlarge, exercise};
use fuzz::memory;
use support::Random;

/// No honest image of this size needs as many; a hostile one must not either.
const MOST_READS: u64 = 400_000;
/// What a run may allocate on top of the block cache (16 MiB) and the patches.
const MOST_MEMORY: usize = 64 << 20;
fn fuzz(corpus: &Corpus, seed: u64, until: Instant, rounds: u64) {
    let only: Option<u64> = std::env::var("SNF_FUZZ_ONLY").ok().and_then(|n| n.parse().ok());
    assert_eq!(exercise(corpus.device()), corpus.refusals, "{}: undamaged", corpus.name);
    let (mut hit, mut most_reads, mut most_memory, mut slowest) = (0, 0, 0, Duration::ZERO);
    let mut round = 0;
    while round < rounds || (Instant::now() < until && rounds < u64::MAX) {
        round += 1;
        if only.is_some_and(|only| only != round) {
            if round > 10_000_000 {
                break;
            }
            continue;
        }
        let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let device = corpus.damaged(&mut random);
        let start = Instant::now();
        memory::start();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if round % 5 == 0 {
                corpus.refusals + enlarge(device.clone())
            } else {
                exercise(device.clone())
            }
        }));
        let used = memory::peak();
        let at = format!("{} seed {seed} round {round}", corpus.name);
        match outcome {
            Ok(refused) => hit += usize::from(refused != corpus.refusals),
            Err(_) => panic!("panic: {at}"),
        }
        assert!(device.reads() < MOST_READS, "{at}: {} reads", device.reads());
        assert!(start.elapsed() < Duration::from_secs(20), "{at}: {:?}", start.elapsed());
        assert!(used < MOST_MEMORY + (16 << 20), "{at}: {} MiB", used >> 20);
        most_reads = most_reads.max(device.reads());
        most_memory = most_memory.max(used);
        slowest = slowest.max(start.elapsed());
        if only.is_some() {
            break;
        }
    }
    println!(
        "{}: {round} rounds, {hit} noticed; at most {most_reads} reads, {} KiB, {slowest:?}",
        corpus.name,
        most_memory >> 10
    );
    assert!(only.is_some() || hit as u64 > round / 10, "{}: {hit} of {round} noticed", corpus.name);
}

#[test]
fn damaged_images_are_refused_or_survived() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seconds = number("SNF_FUZZ_SECONDS");
    let seed = number("SNF_FUZZ_SEED").unwrap_or(1);
    let corpora = corpus::all();
    for corpus in &corpora {
        let share =
            seconds.map_or(Duration::ZERO, |n| Duration::from_secs(n) / corpora.len() as u32);
        fuzz(corpus, seed, Instant::now() + share, if seconds.is_some() { 1 } else { 40 });
    }
}
