//! A stable harness that throws damaged images at the whole engine: open (and replay), walk, read,
//! attributes, edits, commit. It must neither panic nor read, allocate or loop without bound.
//!
//! A few seconds by default; `SNF_FUZZ_SECONDS=120` for longer, `SNF_FUZZ_SEED=n` for other damage.
//! A failure names corpus, seed and round: `SNF_FUZZ_SEED` and `SNF_FUZZ_ONLY=round` repeat it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fuzz;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fuzz::corpus::{self, Corpus};
use fuzz::device::Patched;
use fuzz::memory;
use snf_fs::ext::{Ext, Options};
use snf_fs::{Attributes, Error, FileSystem, FileType, NodeId, Timestamp};
use support::Random;

/// No honest image of this size needs as many; a hostile one must not either.
const MOST_READS: u64 = 400_000;
/// What a run may allocate on top of the block cache (16 MiB) and the patches.
const MOST_MEMORY: usize = 64 << 20;
/// Nodes that the walk looks at: a damaged directory may name others' children again and again, and
/// how far to follow is the caller's decision.
const MOST_NODES: usize = 2_000;

const FILE: Attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };

/// Reads everything, then changes something everywhere; how many operations were refused.
fn exercise(device: Arc<Patched>) -> usize {
    let mut refused = 0;
    let now = Timestamp { seconds: 1_760_000_000, nanoseconds: 0 };
    let Ok(mut fs) = Ext::open(device, Options { now, seed: 1 }) else { return 1 };
    let mut count = |failed: bool| refused += usize::from(failed);
    count(fs.info().is_err());
    let mut todo = vec![fs.root()];
    let mut dirs = vec![fs.root()];
    let mut files: Vec<(NodeId, NodeId, Vec<u8>)> = Vec::new();
    let mut seen = 0;
    let mut buf = vec![0; 20_000];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = fs.readdir(dir) else {
            count(true);
            continue;
        };
        for entry in entries.into_iter().take(400) {
            seen += 1;
            if seen > MOST_NODES {
                break;
            }
            match fs.lookup(dir, &entry.name) {
                Ok(found) => count(found.is_none()),
                Err(_) => count(true),
            }
            count(fs.xattrs(entry.node).is_err());
            let Ok(stat) = fs.stat(entry.node) else {
                count(true);
                continue;
            };
            match stat.file_type {
                FileType::Directory => {
                    todo.push(entry.node);
                    if dirs.len() < 20 {
                        dirs.push(entry.node);
                    }
                }
                FileType::Symlink => count(fs.read_link(entry.node).is_err()),
                FileType::Regular => {
                    for offset in [0, stat.size / 2, stat.size.saturating_sub(10)] {
                        count(fs.read(entry.node, offset, &mut buf).is_err());
                    }
                    files.push((dir, entry.node, entry.name));
                }
                _ => {}
            }
        }
    }
    for (i, (dir, node, name)) in files.iter().enumerate().take(40) {
        let failed = match i % 8 {
            0 => fs.replace(*node, &buf[..9_000]).is_err(),
            1 => fs.append(*node, &buf[..3_000]).is_err(),
            2 => fs.unlink(*dir, name).is_err(),
            3 => fs.set_xattr(*node, b"security.selinux", Some(&buf[..200])).is_err(),
            4 => fs.set_xattr(*node, b"user.big", Some(&buf[..2_500])).is_err(),
            5 => fs.rename(*dir, name, dirs[i % dirs.len()], b"renamed").is_err(),
            6 => fs.chmod(*node, 0o644).is_err() || fs.chown(*node, 1, 70_000).is_err(),
            _ => fs.set_xattr(*node, b"user.small", None).is_err(),
        };
        count(failed);
    }
    for (i, dir) in dirs.iter().enumerate() {
        for n in 0..6 {
            count(fs.create(*dir, format!("new file {n}").as_bytes(), FILE).is_err());
        }
        count(fs.mkdir(*dir, b"new directory", FILE).is_err());
        count(fs.symlink(*dir, b"new link", &[b'x'; 100], FILE).is_err());
        count(fs.rmdir(*dir, b"new directory").is_err());
        if i == 2 {
            count(fs.seal().is_err());
        }
    }
    match fs.commit() {
        Ok(_) => {}
        Err(Error::Device(error)) => panic!("a device error without a device at fault: {error}"),
        Err(_) => count(true),
    }
    refused
}

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
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| exercise(device.clone())));
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
        fuzz(corpus, seed, Instant::now() + share, if seconds.is_some() { 1 } else { 60 });
    }
}
