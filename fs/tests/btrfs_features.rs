//! The rows of docs/btrfs.md: an image for each.

use std::sync::Arc;

use crate::btrfs_support::{Disk, NOW, compare};
use crate::btrfs_write::in_turns;
use snf_fs::btrfs::Btrfs;
use snf_fs::{Attributes, Error, FileSystem, MemoryDevice};

/// How a row is made.
enum Row {
    /// Read, written and enlarged: arguments of mkfs.btrfs.
    Whole(&'static str),
    /// Its own test has it: name of the file.
    Elsewhere(&'static str),
    /// Opening it is refused: offset in the superblock, bytes there, a part of the sentence.
    Refused(usize, u64, &'static str),
    /// Changing it is refused, likewise.
    ReadOnly(usize, u64, &'static str),
}

use Row::{Elsewhere, ReadOnly, Refused, Whole};

// Several rows share an image, because each takes a second or two.
const SINGLE: &str = "-m single -n 65536 --csum sha256";
const DUP: &str = "-d dup --csum blake2";
const SMALL: &str = "-n 4096 --csum xxhash";
const OLD: &str = "-O ^no-holes,^extref,^skinny-metadata -R ^free-space-tree";

const INCOMPAT: usize = 188;
const COMPAT_RO: usize = 180;
const FLAGS: usize = 56;
const LOG_ROOT: usize = 96;
const DEVICES: usize = 136;

const ROWS: &[(&str, Row)] = &[
    (
        "default layout (no-holes, skinny-metadata, extref, free-space-tree)",
        Elsewhere("btrfs_write"),
    ),
    ("single metadata", Whole(SINGLE)),
    ("DUP data", Whole(DUP)),
    ("mixed-bg", Whole("--mixed")),
    ("crc32c", Elsewhere("btrfs_write")),
    ("xxhash", Whole(SMALL)),
    ("sha256", Whole(SINGLE)),
    ("blake2", Whole(DUP)),
    ("nodesize 4k", Whole(SMALL)),
    ("nodesize 64k", Whole(SINGLE)),
    ("without no-holes", Whole(OLD)),
    ("without extref", Whole(OLD)),
    ("without skinny-metadata", Whole(OLD)),
    ("without free-space-tree", Whole(OLD)),
    ("quota groups", Elsewhere("btrfs_write")),
    ("compressed files (zlib, LZO, zstd)", Elsewhere("btrfs_read")),
    ("snapshots", Elsewhere("btrfs_write")),
    ("metadata-uuid", Whole("metadata-uuid")),
    ("several devices (RAID)", Refused(DEVICES, 2, "2 devices")),
    ("zoned", Refused(INCOMPAT, 1 << 12, "zoned")),
    ("raid-stripe-tree", Refused(INCOMPAT, 1 << 14, "raid-stripe-tree")),
    ("extent-tree-v2", Refused(INCOMPAT, 1 << 13, "extent-tree-v2")),
    ("block-group-tree", ReadOnly(COMPAT_RO, 8, "block-group-tree")),
    ("simple quotas", ReadOnly(INCOMPAT, 1 << 16, "simple quotas")),
    ("seed device", ReadOnly(FLAGS, 1 << 32, "seed")),
    ("log tree that waits for its replay", ReadOnly(LOG_ROOT, 1 << 20, "not unmounted")),
];

/// The image with bits of its superblock changed.
fn with(bytes: &[u8], at: usize, bits: u64) -> Arc<MemoryDevice> {
    let mut bytes = bytes.to_vec();
    let sb = &mut bytes[65_536..65_536 + 4096];
    let old = u64::from_le_bytes(sb[at..at + 8].try_into().unwrap());
    let new = if at == DEVICES { bits } else { old | bits };
    sb[at..at + 8].copy_from_slice(&new.to_le_bytes());
    let sum = crc32c::crc32c(&sb[32..]);
    sb[..4].copy_from_slice(&sum.to_le_bytes());
    Arc::new(MemoryDevice::new(bytes))
}

/// Enlarged, then changed by us and by the kernel.
fn grown(disk: &Disk, what: &str) {
    let file = std::fs::File::options().write(true).open(&disk.path).unwrap();
    file.set_len(700 << 20).unwrap();
    let mut fs = disk.open();
    assert_eq!(fs.grow(700 << 20).unwrap(), 700 << 20, "{what}");
    let any = Attributes { mode: 0o600, uid: 0, gid: 0 };
    let node = fs.create(fs.root(), b"after", any).unwrap();
    fs.replace(node, &vec![1; 100_000]).unwrap();
    fs.commit().unwrap();
    disk.check(&format!("{what}, grown"));
    compare(disk, what);
    disk.fill("noatime", "head -c 60000000 /dev/zero > more; sync; rm after");
    disk.check(&format!("{what}, grown and used"));
}

#[test]
fn every_row_is_what_it_says() {
    let plain = std::fs::read(&Disk::make("", 128).path).unwrap();
    let mut done = std::collections::BTreeSet::new();
    for (name, row) in ROWS {
        match row {
            Elsewhere(_) => {}
            Whole("metadata-uuid") => {
                let disk = Disk::make("", 256);
                disk.tune(&["-f", "-m"]);
                grown(&disk, name);
            }
            Whole(args) if !done.insert(*args) => {}
            Whole(args) => {
                in_turns(args, 300, 7..8, 20);
                grown(&Disk::make(args, 256), name);
            }
            Refused(at, bits, part) => {
                let Err(error) = Btrfs::open(with(&plain, *at, *bits), NOW) else {
                    panic!("{name} is opened")
                };
                assert!(matches!(error, Error::Unsupported { .. }), "{name}: {error}");
                assert!(error.to_string().contains(part), "{name}: {error}");
            }
            ReadOnly(at, bits, part) => {
                let mut fs = Btrfs::open(with(&plain, *at, *bits), NOW).unwrap();
                assert_eq!(fs.readdir(fs.root()).unwrap().len(), 0, "{name}");
                let any = Attributes { mode: 0o600, uid: 0, gid: 0 };
                let error = fs.create(fs.root(), b"x", any).unwrap_err();
                assert!(matches!(error, Error::ReadOnly(_)), "{name}: {error}");
                assert!(error.to_string().contains(part), "{name}: {error}");
                assert!(!fs.is_dirty());
            }
        }
    }
}

#[test]
fn the_table_of_the_docs_has_these_rows() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/btrfs.md"));
    let text = text.unwrap();
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| feature"))
        .map(|line| line[2..].split(" |").next().unwrap())
        .collect();
    let expected: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(rows, expected);
    for (line, (name, row)) in text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| feature"))
        .zip(ROWS)
    {
        let wanted = match row {
            Refused(..) => "| refused | refused | refused |",
            ReadOnly(..) => "| yes | refused | refused |",
            _ => "| yes | yes | yes |",
        };
        assert!(line.contains(wanted), "{name}: {line}");
    }
    for (name, row) in ROWS {
        let Elsewhere(file) = row else { continue };
        let path = format!("{}/tests/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        assert!(std::path::Path::new(&path).exists(), "{name}");
    }
}
