//! Damaged NTFS volumes: boot sector, MFT records, index blocks, bitmaps, security descriptors and
//! attribute lists, with right update sequences, before a walk, edits, growth and the checker. The
//! targets of cargo-fuzz (`fuzz/` in the checkout) use this file, too.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// The names are those of the targets, beside `Walk` and `Edit` of ext.
#![allow(clippy::enum_variant_names)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use snf_fs::ntfs::Ntfs;
use snf_fs::ntfs::check::raw::{Reader, fix, unfix};
use snf_fs::ntfs::check::{check, inodes, records, report};
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, FileType, Timestamp};

use crate::fuzz::choices::Choices;
use crate::fuzz::device::Patched;
use crate::fuzz::exercise::Found;
use crate::fuzz::mutate::mutate;
use crate::fuzz::run::{Outcome, Target};
use crate::ntfs_support::{Image, Mount, junction};
use crate::support::Random;

const SHAPES: &[(&str, &str)] = &[
    ("4096", "-c 4096"),
    ("512", "-c 512"),
    ("64 KiB", "-c 65536"),
    ("large sectors", "-s 4096 -c 4096"),
];
/// Bytes of a volume; the device has as much again, for growing.
const SIZE_MIB: u64 = 8;
const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
/// Entries that a walk looks at.
const MOST_NODES: usize = 1_500;

/// A part of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Open, list, look up, read content, streams and links.
    NtfsWalk,
    /// Names: insert, remove, rename in every directory.
    NtfsIndex,
    /// Attributes and content: resident, in clusters, sparse, compressed, with attribute lists.
    NtfsEdit,
    /// Enlarge.
    NtfsGrow,
    /// The checker.
    NtfsCheck,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::NtfsWalk, Self::NtfsIndex, Self::NtfsEdit, Self::NtfsGrow, Self::NtfsCheck];

    fn exercise(self, device: Arc<Patched>) -> usize {
        match self {
            Self::NtfsWalk => look(device).map_or(1, |(_, found)| found.refused),
            Self::NtfsIndex => names(device),
            Self::NtfsEdit => edit(device),
            Self::NtfsGrow => enlarge(device),
            Self::NtfsCheck => match check(&*device) {
                Ok(report) => (report.errors + report.warnings) as usize,
                Err(Error::Device(error)) => panic!("no device is at fault: {error}"),
                Err(_) => 1,
            },
        }
    }
}

/// A structure: where it is, and what protects it.
#[derive(Clone, Copy, Debug)]
enum Place {
    Boot,
    Record(u64, usize),
    Block(u64, usize),
    Plain(u64, usize),
}

struct Corpus {
    name: &'static str,
    bytes: Arc<Vec<u8>>,
    places: Vec<Place>,
}

/// A small volume with one of everything.
fn fill(mount: &Mount) {
    let mut random = Random(3);
    let root = &mount.at;
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    let mut some = |count: usize| random.bytes(count);
    for (index, size) in [0, 100, 600, 5_000, 150_000].into_iter().enumerate() {
        write(&root.join(format!("file {index}")), &some(size));
    }
    let large = root.join("large");
    std::fs::create_dir(&large).unwrap();
    for index in 0..120 {
        write(&large.join(format!("an entry whose name fills index blocks, number {index}")), b"");
    }
    std::fs::create_dir_all(root.join("a/b/c")).unwrap();
    write(&root.join("a/b/c/leaf"), b"leaf");
    let streams = root.join("streams");
    write(&streams, b"main");
    mount.set(&streams, "user.small", b"a stream");
    mount.set(&streams, "user.large", &some(9_000));
    write(&root.join("links"), &some(900));
    for index in 0..25 {
        let name = format!("link {index} of many names that need an attribute list");
        std::fs::hard_link(root.join("links"), root.join(name)).unwrap();
    }
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    // An edit makes an ordinary file of it, which must have room.
    for at in [0u64, 200 << 10, 600 << 10] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"island", at).unwrap();
    }
    let packed = root.join("compressed");
    std::fs::create_dir(&packed).unwrap();
    // Clusters of more than 4 KiB are never compressed.
    mount.set(&packed, "system.ntfs_attrib", &0x810u32.to_le_bytes());
    write(&packed.join("text"), &b"the same words again and again. ".repeat(4_000));
    std::fs::create_dir(root.join("junction")).unwrap();
    let to = junction("C:\\a\\b");
    mount.set(&root.join("junction"), "system.ntfs_reparse_data", &to);
    let short = root.join("a long name with a short one.text");
    write(&short, b"8.3");
    mount.set(&short, "system.ntfs_dos_name", b"ALONGN~1.TEX");
}

fn make(name: &'static str, args: &str) -> Corpus {
    let image = Image::make(args, if args.contains("65536") { 4 * SIZE_MIB } else { SIZE_MIB });
    fill(&image.mount());
    image.must_be_clean(name);
    let mut bytes = std::fs::read(&image.path).unwrap();
    let places = places(&bytes);
    let room = bytes.len() + (4 << 20);
    bytes.resize(room, 0);
    Corpus { name, bytes: Arc::new(bytes), places }
}

/// Every record and index block by its mark, and the content of the system's own files.
fn places(image: &[u8]) -> Vec<Place> {
    let device = snf_fs::MemoryDevice::new(image.to_vec());
    let reader = Reader::open(&device).unwrap();
    let geometry = reader.geometry;
    let mut out = vec![Place::Boot; 4];
    for at in (0..image.len()).step_by(512) {
        for (magic, size) in [(b"FILE", geometry.record), (b"INDX", geometry.index)] {
            let whole = image.get(at..at + size).filter(|bytes| bytes.starts_with(magic));
            let Some(whole) = whole else { continue };
            let mut whole = whole.to_vec();
            if unfix(&mut whole, magic).is_err() {
                continue;
            }
            let in_use = whole[22] & 1 != 0;
            match magic {
                b"FILE" if in_use => out.push(Place::Record(at as u64, size)),
                b"INDX" => out.extend([Place::Block(at as u64, size); 2]),
                _ => {}
            }
        }
    }
    let mut report = report::Report::default();
    let mft = records::Mft::load(&reader, &mut report).unwrap();
    let files = inodes::assemble(&reader, &mft, &mut report).unwrap();
    for (key, value) in &files.values {
        let inodes::Value::Mapped(stream) = value else { continue };
        // Not the large ones: index blocks are above, and $LogFile and $UpCase have hardly anything
        // in them that could be wrong.
        if key.1 == 0xa0 || matches!(key.0, 2 | 7 | 8 | 10) {
            continue;
        }
        if let Some((Some(place), rest)) = stream.place(0, geometry.cluster) {
            out.push(Place::Plain(place, rest.min(stream.size).min(4096) as usize));
        }
    }
    out
}

impl Corpus {
    fn device(&self) -> Arc<Patched> {
        Arc::new(Patched::new(self.bytes.clone()))
    }

    fn damaged(&self, choices: &mut Choices<'_>) -> Arc<Patched> {
        let device = Patched::new(self.bytes.clone());
        for _ in 0..=choices.below(4) {
            let place = self.places[choices.below(self.places.len())];
            let (at, size, magic) = match place {
                Place::Boot => (0, 512, None),
                Place::Record(at, size) => (at, size, Some(b"FILE")),
                Place::Block(at, size) => (at, size, Some(b"INDX")),
                Place::Plain(at, size) => (at, size, None),
            };
            let mut bytes = device.bytes(at, size);
            let raw = choices.below(8) == 7;
            let magic = magic.filter(|magic| !raw && unfix(&mut bytes, magic).is_ok());
            // Most of a record or block is not in use.
            let used = match place {
                Place::Record(..) => 24,
                Place::Block(..) => 28,
                _ => usize::MAX,
            };
            let used = bytes.get(used..used.saturating_add(4)).map_or(size, |b| {
                (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize).clamp(64, size)
            });
            for _ in 0..=choices.below(3) {
                mutate(&mut bytes[..used], choices);
            }
            if let Some(magic) = magic {
                // The fields that protect it stay right, the rest is as damaged as it is.
                let original = device.bytes(at, 8);
                bytes[4..8].copy_from_slice(&original[4..8]);
                if bytes.starts_with(magic) {
                    fix(&mut bytes);
                }
            }
            device.write_at(at, &bytes).unwrap();
        }
        Arc::new(device)
    }
}

fn open(device: Arc<dyn BlockDevice>) -> Result<Ntfs, Error> {
    Ok(Ntfs::open(device)?.at(Timestamp { seconds: 1_760_000_000, nanoseconds: 0 }))
}

/// Opens and reads everything; `None` when that is refused.
fn look(device: Arc<dyn BlockDevice>) -> Option<(Ntfs, Found)> {
    let mut found = Found::default();
    let fs = found.note(open(device))?;
    found.note(fs.info());
    let mut todo = vec![fs.root()];
    found.dirs.push(fs.root());
    let (mut seen, mut buf) = (BTreeMap::new(), vec![0; 20_000]);
    while let Some(dir) = todo.pop() {
        let Some(entries) = found.note(fs.readdir(dir)) else { continue };
        for entry in entries {
            if seen.len() > MOST_NODES {
                break;
            }
            if let Some(None) = found.note(fs.lookup(dir, &entry.name)) {
                found.refused += 1;
            }
            if seen.insert(entry.node, ()).is_some() {
                continue;
            }
            let Some(stat) = found.note(fs.stat(entry.node)) else { continue };
            for (name, size) in found.note(fs.streams(entry.node)).unwrap_or_default() {
                let at = size.saturating_sub(100);
                found.note(fs.read_stream(entry.node, &name, at, &mut buf));
            }
            match stat.file_type {
                FileType::Directory => {
                    todo.push(entry.node);
                    found.dirs.push(entry.node);
                }
                FileType::Symlink => drop(found.note(fs.read_link(entry.node))),
                _ => {
                    for offset in [0, stat.size / 2, stat.size.saturating_sub(10)] {
                        found.note(fs.read(entry.node, offset, &mut buf));
                    }
                    found.files.push((dir, entry.node, entry.name));
                }
            }
        }
    }
    Some((fs, found))
}

/// Commits; what was committed must be something that opens again.
fn finish(mut fs: Ntfs, device: Arc<dyn BlockDevice>, mut found: Found) -> usize {
    if found.note(fs.commit()).is_some() {
        drop(fs);
        if let Err(error) = open(device) {
            panic!("committed, and now: {error}");
        }
    }
    found.refused
}

fn names(device: Arc<dyn BlockDevice>) -> usize {
    let Some((mut fs, mut found)) = look(device.clone()) else { return 1 };
    let files = std::mem::take(&mut found.files);
    for (i, (dir, _, name)) in files.iter().enumerate().take(90) {
        let to = found.dirs[i % found.dirs.len()];
        match i % 3 {
            0 => drop(found.note(fs.unlink(*dir, name))),
            1 => drop(found.note(fs.rename(*dir, name, *dir, format!("{i:0>200}").as_bytes()))),
            _ => drop(found.note(fs.rename(*dir, name, to, format!("moved {i}").as_bytes()))),
        }
    }
    for (i, dir) in found.dirs.clone().into_iter().enumerate().take(12) {
        for n in 0..if i < 3 { 25 } else { 4 } {
            found.note(fs.create(dir, format!("{n:x>180}").as_bytes(), FILE));
        }
        found.note(fs.mkdir(dir, b"new directory", FILE));
        found.note(fs.rmdir(dir, b"new directory"));
    }
    finish(fs, device, found)
}

fn edit(device: Arc<dyn BlockDevice>) -> usize {
    let Some((mut fs, mut found)) = look(device.clone()) else { return 1 };
    let content = [9; 30_000];
    for (i, (dir, node, name)) in std::mem::take(&mut found.files).iter().enumerate().take(60) {
        found.note(match i % 6 {
            0 => fs.replace(*node, &content[..i * 100]),
            1 => fs.append(*node, &content[..5_000]),
            2 => fs.replace(*node, &content),
            3 => fs.chmod(*node, 0o444),
            4 => fs.append(*node, b"a few bytes"),
            _ => fs.unlink(*dir, name),
        });
    }
    for (i, dir) in found.dirs.clone().into_iter().enumerate().take(8) {
        for n in 0..4 {
            let name = format!("new file {n}");
            if let Some(node) = found.note(fs.create(dir, name.as_bytes(), FILE)) {
                found.note(fs.replace(node, &content[..n * i * 900]));
            }
        }
    }
    finish(fs, device, found)
}

fn enlarge(device: Arc<dyn BlockDevice>) -> usize {
    let mut found = Found::default();
    let Some(mut fs) = found.note(open(device.clone())) else { return 1 };
    found.note(fs.grow(device.len()));
    found.note(fs.readdir(fs.root()));
    found.note(fs.create(fs.root(), b"after growing", FILE));
    finish(fs, device, found)
}

/// One part on one volume.
struct PartTarget {
    part: Part,
    corpus: Arc<Corpus>,
    refusals: usize,
}

impl Target for PartTarget {
    fn name(&self) -> String {
        format!("{:?} {}", self.part, self.corpus.name)
    }

    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let device = self.corpus.damaged(choices);
        let refused = self.part.exercise(device.clone());
        Outcome { reads: device.reads(), noticed: refused != self.refusals }
    }

    fn check_undamaged(&self) {
        assert!(self.refusals < 20, "{}: {} refusals", self.name(), self.refusals);
    }
}

/// The given parts on every volume.
pub fn targets(parts: &[Part]) -> Vec<Box<dyn Target>> {
    let make = |&(name, args): &(_, _)| Arc::new(make(name, args));
    let corpora: Vec<Arc<Corpus>> = SHAPES.iter().map(make).collect();
    let mut out: Vec<Box<dyn Target>> = Vec::new();
    for &part in parts {
        for corpus in &corpora {
            let refusals = part.exercise(corpus.device());
            out.push(Box::new(PartTarget { part, corpus: corpus.clone(), refusals }));
        }
    }
    out
}
