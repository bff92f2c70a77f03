//! Damaged btrfs whose checksums are right: an error or an answer, never a panic, never without end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::btrfs_support::{Disk, NOW};
use snf_fs::btrfs::Btrfs;
use snf_fs::testing::Random;
use snf_fs::{Attributes, Error, FileSystem, FileType, MemoryDevice, NodeId};

const ANY: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

fn image(args: &str, mib: u64) -> Vec<u8> {
    let disk = Disk::make(args, mib);
    disk.fill(
        "noatime,compress=zstd",
        r#"
        mkdir -p etc many; for i in $(seq 0 200); do echo $i > many/newfile$i; done
        echo web1 > etc/hostname; setfattr -n user.x -v y etc/hostname; ln etc/hostname etc/other
        head -c 300000 /dev/urandom > big; yes | head -c 300000 > packed; ln -s big link
        btrfs -q subvolume create sub; echo 1 > sub/f; btrfs -q subvolume snapshot sub snap
        "#,
    );
    std::fs::read(&disk.path).unwrap()
}

/// The places of the tree blocks, and the size of each.
fn blocks(bytes: &[u8]) -> (Vec<usize>, usize) {
    let size = u32::from_le_bytes(bytes[65_536 + 148..65_536 + 152].try_into().unwrap()) as usize;
    let fsid = &bytes[65_536 + 32..65_536 + 48];
    let is_block = |at: &usize| &bytes[at + 32..at + 48] == fsid && *at != 65_536;
    ((0..bytes.len()).step_by(size).filter(is_block).collect(), size)
}

fn seal(block: &mut [u8]) {
    let sum = crc32c::crc32c(&block[32..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
}

/// Looks at everything, within limits; gives the number of nodes seen.
fn look(fs: &dyn FileSystem) -> usize {
    let mut todo: Vec<NodeId> = vec![fs.root()];
    let mut seen = 0;
    let mut buf = vec![0; 100_000];
    while let Some(node) = todo.pop() {
        seen += 1;
        if seen > 3000 {
            break;
        }
        let Ok(stat) = fs.stat(node) else { continue };
        let _ = fs.xattrs(node);
        match stat.file_type {
            FileType::Directory => {
                let entries = fs.readdir(node).unwrap_or_default();
                todo.extend(entries.into_iter().map(|entry| entry.node));
            }
            FileType::Symlink => drop(fs.read_link(node)),
            _ => drop(fs.read(node, stat.size.saturating_sub(70_000), &mut buf)),
        }
    }
    seen
}

fn edit(fs: &mut dyn FileSystem) -> Result<(), Error> {
    let root = fs.root();
    for entry in fs.readdir(root)?.into_iter().take(6) {
        match entry.file_type {
            Some(FileType::Regular) => fs.append(entry.node, b"more")?,
            Some(FileType::Directory) => {
                let node = fs.create(entry.node, b"new", ANY)?;
                fs.replace(node, &[1; 20_000])?;
                for inner in fs.readdir(entry.node)?.into_iter().take(3) {
                    fs.unlink(entry.node, &inner.name)?;
                }
            }
            _ => fs.unlink(root, &entry.name)?,
        }
    }
    Ok(())
}

/// Names the round that panics: `SNF_FUZZ_ONLY` repeats it.
struct Round(u64);

impl Drop for Round {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat it with SNF_FUZZ_ONLY={}", self.0);
        }
    }
}

fn attack(image: &[u8], rounds: u64, budget: Duration) -> (u64, u64) {
    let (blocks, size) = blocks(image);
    assert!(blocks.len() > 10);
    let begin = Instant::now();
    let (mut opened, mut committed) = (0, 0);
    let only = std::env::var("SNF_FUZZ_ONLY").ok().and_then(|text| text.parse::<u64>().ok());
    for round in only.map_or(0..rounds, |only| only..only + 1) {
        let _named = Round(round);
        if begin.elapsed() > budget {
            break;
        }
        let mut random = Random(round);
        let mut bytes = image.to_vec();
        for _ in 0..1 + random.below(3) {
            if random.below(12) == 0 {
                let at = 65_536 + 48 + random.below(900);
                bytes[at] ^= 1 << random.below(8);
                seal(&mut bytes[65_536..65_536 + 4096]);
                continue;
            }
            let at = blocks[random.below(blocks.len())];
            let block = &mut bytes[at..at + size];
            // The header and the items' places, or their content, which is at the end.
            let count = u32::from_le_bytes(block[96..100].try_into().unwrap()) as usize;
            let place = match random.below(4) {
                0 => 80 + random.below(21),
                1 => 101 + random.below((count * 25).clamp(1, size - 110)),
                2 => size - 1 - random.below(size / 2),
                _ => 101 + random.below(size - 101),
            };
            match random.below(3) {
                0 => block[place] ^= 1 << random.below(8),
                1 => block[place] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                _ => block[place] = random.next_u64() as u8,
            }
            seal(block);
        }
        let started = Instant::now();
        let Ok(mut fs) = Btrfs::open(Arc::new(MemoryDevice::new(bytes)), NOW) else { continue };
        opened += 1;
        look(&fs);
        if let Ok(Some(view)) = fs.subvolume(b"snap") {
            look(&*view);
        }
        if edit(&mut fs).is_ok() && fs.commit().is_ok() {
            committed += 1;
            look(&fs);
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "round {round} took {took:?}");
    }
    (opened, committed)
}

#[test]
fn damage_with_right_checksums() {
    let seconds = std::env::var("SNF_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let budget = Duration::from_secs(seconds.unwrap_or(10u64).min(600));
    for (args, mib) in [("--mixed", 24), ("-m single -O ^no-holes,^skinny-metadata", 48)] {
        let (opened, committed) = attack(&image(args, mib), 100_000, budget / 2);
        let one = std::env::var_os("SNF_FUZZ_ONLY").is_some();
        assert!(
            one || opened > 5 && committed > 0,
            "{args}: {opened} opened, {committed} committed"
        );
    }
}
