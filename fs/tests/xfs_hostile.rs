//! Damaged XFS images whose checksums are right: whatever they say, the engine answers with an error or
//! a result, in bounded time, and never panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::oracle::shell;
use crate::xfs_support::{Image, OPTIONS};
use snf_fs::testing::{Fault, FaultDevice, Random};
use snf_fs::xfs::Xfs;
use snf_fs::{Attributes, BlockDevice, FileSystem, FileType, MemoryDevice, Result};

const ATTRIBUTES: Attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };
/// The most reads that one round may make; undamaged it makes about 2,000.
const MOST_READS: u64 = 200_000;

/// A structure with a checksum: where, how long, and where in it the checksum is.
#[derive(Clone, Copy, Debug)]
struct Sealed {
    at: usize,
    length: usize,
    crc: usize,
}

fn find(image: &[u8], block: usize, inode: usize) -> Vec<Sealed> {
    let mut out = Vec::new();
    let mut push = |at, length, crc| out.push(Sealed { at, length, crc });
    for at in (0..image.len()).step_by(512) {
        let b = &image[at..at + 512];
        match &b[..4] {
            b"XFSB" => push(at, 512, 224),
            b"XAGF" => push(at, 512, 216),
            b"XAGI" => push(at, 512, 312),
            b"XAFL" => push(at, 512, 32),
            b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC" => push(at, block, 52),
            b"BMA3" => push(at, block, 64),
            b"XDB3" | b"XDD3" | b"XDF3" => push(at, block, 4),
            b"XARM" | b"XSLM" => push(at, block, 12),
            _ if &b[..2] == b"IN" => push(at, inode, 100),
            _ if matches!(&b[8..10], [0x3d, 0xf1 | 0xff] | [0x3e | 0x3b, _]) && b[10] == 0 => {
                if matches!(&b[8..10], [0x3d, _] | [0x3e, 0xbe] | [0x3b, 0xee]) {
                    push(at, block, 12);
                }
            }
            _ => {}
        }
    }
    out
}

fn seal(image: &mut [u8], sealed: Sealed) {
    let bytes = &mut image[sealed.at..sealed.at + sealed.length];
    bytes[sealed.crc..sealed.crc + 4].fill(0);
    let crc = crc32c(bytes);
    bytes[sealed.crc..sealed.crc + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Bit by bit: the test has a checksum of its own.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

fn walk(fs: &Xfs) {
    let mut seen = BTreeSet::new();
    let mut todo = vec![fs.root()];
    let mut buf = vec![0; 100_000];
    while let Some(node) = todo.pop() {
        if !seen.insert(node) || seen.len() > 5000 {
            continue;
        }
        let _ = fs.xattrs(node);
        let Ok(stat) = fs.stat(node) else { continue };
        match stat.file_type {
            FileType::Directory => {
                for entry in fs.readdir(node).unwrap_or_default() {
                    let _ = fs.lookup(node, &entry.name);
                    todo.push(entry.node);
                }
            }
            FileType::Regular => {
                let _ = fs.read(node, stat.size / 2, &mut buf);
                let _ = fs.read(node, 0, &mut buf);
            }
            FileType::Symlink => drop(fs.read_link(node)),
            _ => {}
        }
    }
}

fn edit(fs: &mut Xfs, random: &mut Random) -> Result<()> {
    let root = fs.root();
    let names = ["short", "leaf", "node", "attrs", "large"];
    let find = |fs: &Xfs, name: &str| fs.lookup(root, name.as_bytes()).ok().flatten();
    let dir = find(fs, names[random.below(3)]).unwrap_or(root);
    let file = find(fs, names[3 + random.below(2)]);
    let _ = fs.create(dir, b"a new file", ATTRIBUTES).map(|node| fs.replace(node, &[7; 9000]));
    let _ = fs.mkdir(root, b"a new directory", ATTRIBUTES);
    let _ = fs.symlink(dir, b"a new link", &[b'x'; 700], ATTRIBUTES);
    let _ = fs.unlink(dir, b"entry-3");
    let _ = fs.rename(dir, b"entry-4", root, b"entry-4");
    if let Some(node) = file {
        let _ = fs.append(node, b"more");
        let _ = fs.set_xattr(node, b"user.new", Some(&[3; 3000]));
        let _ = fs.replace(node, b"new");
        let _ = fs.chmod(node, 0o600);
    }
    let _ = fs.rmdir(root, b"a new directory");
    fs.commit().map(|_| ())
}

fn image() -> Vec<u8> {
    let image = Image::make("-b size=1024 -m rmapbt=1,reflink=1", 24);
    let mount = image.mount("rw");
    shell(
        &mount.at,
        "mkdir short leaf node; touch short/entry-{1..4} leaf/entry-{1..150} node/entry-{1..500}; \
         for i in $(seq 40); do setfattr -n user.a$i -v $(printf 'v%.0s' $(seq $((i * 5)))) short/entry-1; done; \
         echo x > attrs; setfattr -n user.x -v $(printf 'v%.0s' $(seq 3000)) attrs; \
         ln -s $(printf 't%.0s' $(seq 900)) link; \
         for i in $(seq 0 2 120); do dd if=/dev/zero of=large bs=1k seek=$i count=1 conv=notrunc status=none; done; \
         cp --reflink=auto large shared",
    );
    drop(mount);
    image.bytes()
}

#[test]
fn damage_with_right_checksums_never_panics() {
    let good = image();
    let sealed = find(&good, 1024, 512);
    assert!(sealed.len() > 100, "{}", sealed.len());
    let seconds = std::env::var("SNF_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    let end = Instant::now() + Duration::from_secs(seconds);
    let only: Option<u64> = std::env::var("SNF_FUZZ_ONLY").ok().and_then(|s| s.parse().ok());
    let mut opened = 0;
    for seed in only.map_or(0..u64::MAX, |only| only..only + 1) {
        if Instant::now() > end {
            break;
        }
        let mut random = Random(seed);
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(3) {
            let place = sealed[random.below(sealed.len())];
            for _ in 0..1 + random.below(4) {
                // Headers are hit more often than the rest.
                let span = if random.below(2) == 0 { place.length.min(128) } else { place.length };
                let at = place.at + random.below(span);
                bytes[at] = match random.below(4) {
                    0 => 0,
                    1 => 0xFF,
                    2 => bytes[at].wrapping_add(1),
                    _ => random.next_u64() as u8,
                };
            }
            seal(&mut bytes, place);
        }
        println!("SNF_FUZZ_ONLY={seed}");
        let memory = Arc::new(MemoryDevice::new(bytes));
        let device = Arc::new(FaultDevice::new(memory, Fault::None));
        let shared: Arc<dyn BlockDevice> = device.clone();
        if let Ok(mut fs) = Xfs::open(shared.clone(), OPTIONS) {
            opened += 1;
            walk(&fs);
            if edit(&mut fs, &mut random).is_ok() {
                drop(Xfs::open(shared, OPTIONS).unwrap());
            }
        }
        let reads = device.counts().reads.load(Ordering::Relaxed);
        assert!(reads < MOST_READS, "seed {seed}: {reads} reads");
    }
    assert!(only.is_some() || opened > 3, "{opened} opened");
}
