//! Damaged XFS, btrfs and FAT file systems with right checksums, before a walk and edits. The targets of
//! cargo-fuzz (`fuzz/` in the checkout) use this file, too.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs::File;
use std::process::Command;
use std::sync::Arc;

use snf_fs::btrfs::Btrfs;
use snf_fs::fat::Fat;
use snf_fs::xfs::Xfs;
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, FileType, Timestamp};

use crate::btrfs_support::Disk;
use crate::fuzz::choices::Choices;
use crate::fuzz::device::Patched;
use crate::fuzz::exercise::Found;
use crate::fuzz::mutate::mutate;
use crate::fuzz::run::{Outcome, Target};
use crate::oracle::shell;
use crate::xfs_support::{Image, OPTIONS};

const NOW: Timestamp = Timestamp { seconds: 1_760_000_000, nanoseconds: 0 };
const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
/// Nodes that a walk looks at.
const MOST_NODES: usize = 1_200;

/// A file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// XFS, version 5.
    Xfs,
    /// btrfs.
    Btrfs,
    /// FAT.
    Fat,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Xfs, Self::Btrfs, Self::Fat];

    fn open(self, device: Arc<dyn BlockDevice>) -> Result<Box<dyn FileSystem>, Error> {
        Ok(match self {
            Self::Xfs => Box::new(Xfs::open(device, OPTIONS)?),
            Self::Btrfs => Box::new(Btrfs::open(device, NOW)?),
            Self::Fat => Box::new(Fat::open(device, snf_fs::fat::Options { now: NOW })?),
        })
    }
}

/// How a structure is protected.
#[derive(Clone, Copy, Debug)]
enum Sum {
    None,
    /// CRC-32C of the whole with four zeros at this place, where it then stands.
    Within(usize),
    /// CRC-32C of all after the first 32 bytes, at the begin.
    Before,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    at: usize,
    length: usize,
    sum: Sum,
}

impl Place {
    fn seal(self, bytes: &mut [u8]) {
        match self.sum {
            Sum::None => {}
            Sum::Within(at) => {
                bytes[at..at + 4].fill(0);
                let sum = crc32c(bytes);
                bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
            }
            Sum::Before => {
                let sum = crc32c(&bytes[32..]);
                bytes[..4].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}

/// The test has a checksum of its own.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let (mut crc, mut bit) = (index as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, &byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

struct Corpus {
    kind: Kind,
    name: &'static str,
    bytes: Arc<Vec<u8>>,
    places: Vec<Place>,
}

fn xfs() -> Corpus {
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
    let bytes = image.bytes();
    let mut places = Vec::new();
    let mut push = |at, length, crc| places.push(Place { at, length, sum: Sum::Within(crc) });
    for at in (0..bytes.len()).step_by(512) {
        let b = &bytes[at..at + 512];
        match &b[..4] {
            b"XFSB" => push(at, 512, 224),
            b"XAGF" => push(at, 512, 216),
            b"XAGI" => push(at, 512, 312),
            b"XAFL" => push(at, 512, 32),
            b"AB3B" | b"AB3C" | b"IAB3" | b"FIB3" | b"RMB3" | b"R3FC" => push(at, 1024, 52),
            b"BMA3" => push(at, 1024, 64),
            b"XDB3" | b"XDD3" | b"XDF3" => push(at, 1024, 4),
            b"XARM" | b"XSLM" => push(at, 1024, 12),
            [b'I', b'N', ..] => push(at, 512, 100),
            _ if matches!(b[8..11], [0x3d, 0xf1 | 0xff, 0] | [0x3e, 0xbe, 0] | [0x3b, 0xee, 0]) => {
                push(at, 1024, 12);
            }
            _ => {}
        }
    }
    Corpus { kind: Kind::Xfs, name: "small blocks", bytes: Arc::new(bytes), places }
}

fn btrfs(name: &'static str, args: &str, mib: u64) -> Corpus {
    let disk = Disk::make(args, mib);
    disk.fill(
        "noatime,compress=zstd",
        "mkdir -p etc many; for i in $(seq 0 200); do echo $i > many/newfile$i; done; \
         echo web1 > etc/hostname; setfattr -n user.x -v y etc/hostname; ln etc/hostname etc/other; \
         head -c 300000 /dev/urandom > big; yes | head -c 300000 > packed; ln -s big link; \
         btrfs -q subvolume create sub; echo 1 > sub/f; btrfs -q subvolume snapshot sub snap",
    );
    let bytes = std::fs::read(&disk.path).unwrap();
    let size = u32::from_le_bytes(bytes[65_684..65_688].try_into().unwrap()) as usize;
    let id = bytes[65_568..65_584].to_vec();
    let blocks = (0..bytes.len()).step_by(size).filter(|&at| bytes[at + 32..at + 48] == id);
    let mut places: Vec<Place> = blocks
        .filter(|&at| at != 65_536)
        .map(|at| Place { at, length: size, sum: Sum::Before })
        .collect();
    let superblock = Place { at: 65_536, length: 4096, sum: Sum::Before };
    places.extend([superblock; 4]);
    Corpus { kind: Kind::Btrfs, name, bytes: Arc::new(bytes), places }
}

fn fat(name: &'static str, args: &[&str], mib: u64) -> Corpus {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("image");
    File::create(&path).unwrap().set_len(mib << 20).unwrap();
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(dir.path()).output();
        let output = output.unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("mkfs.fat", &[args, &["image"]].concat());
    std::fs::write(dir.path().join("content"), [7; 40_000]).unwrap();
    run("mmd", &["-i", "image", "::a", "::a/b", "::many"]);
    run("mcopy", &["-i", "image", "content", "::a/b/a file with a long name.text"]);
    for number in 0..40 {
        let to = format!("::many/entry number {number}");
        run("mcopy", &["-i", "image", "content", &to]);
    }
    let bytes = std::fs::read(&path).unwrap();
    // The boot sector, the begins of both tables, the root directory, and clusters of directories.
    let mut places = vec![Place { at: 0, length: 512, sum: Sum::None }; 4];
    for at in (512..bytes.len().min(1 << 20)).step_by(512) {
        if bytes[at..at + 512].iter().any(|&byte| byte != 0 && byte != 7) {
            places.push(Place { at, length: 512, sum: Sum::None });
        }
    }
    Corpus { kind: Kind::Fat, name, bytes: Arc::new(bytes), places }
}

impl Corpus {
    fn device(&self) -> Arc<Patched> {
        Arc::new(Patched::new(self.bytes.clone()))
    }

    fn damaged(&self, choices: &mut Choices<'_>) -> Arc<Patched> {
        let device = Patched::new(self.bytes.clone());
        for _ in 0..=choices.below(3) {
            let place = self.places[choices.below(self.places.len())];
            let mut bytes = device.bytes(place.at as u64, place.length);
            for _ in 0..=choices.below(3) {
                // Leaves of btrfs have their content at the end.
                let from = match choices.below(3) {
                    2 => choices.below(place.length / 16) * 16,
                    _ => 0,
                };
                mutate(&mut bytes[from..], choices);
            }
            if choices.below(16) != 15 {
                place.seal(&mut bytes);
            }
            device.write_at(place.at as u64, &bytes).unwrap();
        }
        Arc::new(device)
    }
}

/// Opens, reads and edits; how much was refused.
fn exercise(kind: Kind, device: Arc<dyn BlockDevice>) -> usize {
    let mut found = Found::default();
    let Some(mut fs) = found.note(kind.open(device.clone())) else { return 1 };
    found.note(fs.info());
    let (mut seen, mut todo) = (BTreeSet::new(), vec![fs.root()]);
    found.dirs.push(fs.root());
    let mut buf = vec![0; 20_000];
    while let Some(dir) = todo.pop() {
        let Some(entries) = found.note(fs.readdir(dir)) else { continue };
        for entry in entries {
            if seen.len() > MOST_NODES || !seen.insert(entry.node) {
                continue;
            }
            found.note(fs.lookup(dir, &entry.name));
            found.note(fs.xattrs(entry.node));
            let Some(stat) = found.note(fs.stat(entry.node)) else { continue };
            match stat.file_type {
                FileType::Directory => {
                    todo.push(entry.node);
                    found.dirs.push(entry.node);
                }
                FileType::Symlink => drop(found.note(fs.read_link(entry.node))),
                FileType::Regular => {
                    for offset in [0, stat.size / 2, stat.size.saturating_sub(10)] {
                        found.note(fs.read(entry.node, offset, &mut buf));
                    }
                    found.files.push((dir, entry.node, entry.name));
                }
                _ => {}
            }
        }
    }
    let content = [9; 12_000];
    for (i, (dir, node, name)) in std::mem::take(&mut found.files).iter().enumerate().take(24) {
        let to = found.dirs[i % found.dirs.len()];
        found.note(match i % 6 {
            0 => fs.replace(*node, &content[..i * 100]),
            1 => fs.append(*node, &content[..5_000]),
            2 => fs.unlink(*dir, name),
            3 => fs.chmod(*node, 0o640),
            4 => fs.rename(*dir, name, to, format!("moved {i}").as_bytes()),
            _ => fs.set_xattr(*node, b"user.new", Some(&content[..i * 50])),
        });
    }
    for (i, dir) in found.dirs.clone().into_iter().enumerate().take(4) {
        for n in 0..6 {
            let name = format!("new file {n}");
            if let Some(node) = found.note(fs.create(dir, name.as_bytes(), FILE)) {
                found.note(fs.replace(node, &content[..n * i * 600]));
            }
        }
        found.note(fs.mkdir(dir, b"new directory", FILE));
        found.note(fs.symlink(dir, b"new link", b"target", FILE));
        found.note(fs.rmdir(dir, b"new directory"));
    }
    if found.note(fs.check_commit()).is_some() && found.note(fs.commit()).is_some() {
        drop(fs);
        if let Err(error) = kind.open(device) {
            panic!("committed, and now: {error}");
        }
    }
    found.refused
}

struct Volume {
    corpus: Corpus,
    refusals: usize,
}

impl Target for Volume {
    fn name(&self) -> String {
        format!("{:?} {}", self.corpus.kind, self.corpus.name)
    }

    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let device = self.corpus.damaged(choices);
        let refused = exercise(self.corpus.kind, device.clone());
        Outcome { reads: device.reads(), noticed: refused != self.refusals }
    }

    /// The caches of XFS and btrfs have bounds of their own.
    fn cache(&self) -> usize {
        32 << 20
    }

    fn check_undamaged(&self) {
        // Nobody sets attributes on FAT, or makes links there.
        assert!(self.refusals < 60, "{}: {} refusals", self.name(), self.refusals);
    }
}

/// Every file system of these kinds.
pub fn targets(kinds: &[Kind]) -> Vec<Box<dyn Target>> {
    let mut out: Vec<Box<dyn Target>> = Vec::new();
    for &kind in kinds {
        let corpora = match kind {
            Kind::Xfs => vec![xfs()],
            Kind::Btrfs => vec![
                btrfs("mixed", "--mixed", 24),
                btrfs("single", "-m single -O ^no-holes,^skinny-metadata", 48),
            ],
            Kind::Fat => vec![
                fat("12", &["-F", "12", "-s", "4"], 4),
                fat("16", &["-F", "16"], 16),
                fat("32", &["-F", "32", "-s", "1"], 40),
            ],
        };
        for corpus in corpora {
            let refusals = exercise(kind, corpus.device());
            out.push(Box::new(Volume { corpus, refusals }));
        }
    }
    out
}
