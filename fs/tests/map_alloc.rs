//! Allocation and block maps against mke2fs, debugfs and e2fsck.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use snf_fs::ext::inode::Inode;
use snf_fs::ext::map::{self, Mapping};
use snf_fs::ext::{Options, Volume, alloc};
use snf_fs::{BlockDevice, Error, FileDevice, Timestamp};
use tempfile::TempDir;

/// What each file system is made with: label, mke2fs arguments, size in MiB.
const SHAPES: &[(&str, &str, u64)] = &[
    ("ext2 1k", "-t ext2 -b 1024", 48),
    ("ext2 4k", "-t ext2 -b 4096", 64),
    ("ext2 rev0", "-t ext2 -r 0 -b 1024", 32),
    ("ext3 1k", "-t ext3 -b 1024 -I 128", 64),
    ("ext3 4k", "-t ext3 -b 4096", 64),
    ("debian 11", "-t ext4 -O metadata_csum,64bit,^orphan_file,^metadata_csum_seed", 96),
    ("debian 13", "-t ext4 -O metadata_csum,64bit,orphan_file,metadata_csum_seed", 96),
    ("ext4 1k", "-t ext4 -b 1024", 64),
    ("ext4 2k", "-t ext4 -b 2048", 64),
    ("ext4 no flex_bg", "-t ext4 -b 1024 -O ^flex_bg", 64),
    ("ext4 uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg", 64),
    ("ext4 32 bit", "-t ext4 -b 1024 -O ^64bit", 64),
    ("ext4 32 bit uninit_bg", "-t ext4 -O ^64bit,^metadata_csum,uninit_bg", 96),
    ("ext4 meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode", 64),
    ("ext4 block maps", "-t ext4 -b 1024 -O ^extents,^64bit", 64),
    ("ext4 no journal", "-t ext4 -O ^has_journal", 64),
    ("ext4 sparse_super2", "-t ext4 -b 1024 -O sparse_super2", 64),
    ("ext4 small inodes", "-t ext4 -I 128", 64),
    ("bigalloc 4k/64k", "-t ext4 -b 4096 -C 65536 -O bigalloc", 160),
    ("bigalloc 1k/16k", "-t ext4 -b 1024 -C 16384 -O bigalloc", 96),
    ("64k blocks", "-t ext4 -b 65536", 160),
];

struct Image {
    _dir: TempDir,
    path: PathBuf,
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.env("MKE2FS_CONFIG", "/dev/null").output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

impl Image {
    /// Makes a file system that holds `files` (name, content) in its root.
    fn make(args: &str, mib: u64, files: &[(String, Vec<u8>)]) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("image");
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        for (name, content) in files {
            std::fs::write(tree.join(name), content).unwrap();
        }
        let mut command = Command::new("mke2fs");
        command.args(["-q", "-F", "-d"]).arg(&tree).args(args.split_whitespace());
        command.arg(&path).arg(format!("{mib}m"));
        let output = command.output().expect("mke2fs is needed (package e2fsprogs)");
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        let image = Self { _dir: dir, path };
        image.fsck(args);
        image
    }

    fn open(&self) -> Volume {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        let device = Arc::new(FileDevice::from_file(file).unwrap());
        let now = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
        Volume::open(device, Options { now, seed: 1 }).unwrap()
    }

    fn fsck(&self, what: &str) {
        let mut command = Command::new("timeout");
        let (code, text) = run(command.args(["-s", "KILL", "60", "e2fsck", "-fn"]).arg(&self.path));
        let odd = text.contains("IGNORED") || text.contains("could be");
        assert!(code == Some(0) && !odd, "{what}: e2fsck -fn says {code:?}\n{text}");
    }

    fn debugfs(&self, request: &str) -> String {
        run(Command::new("debugfs").args(["-R", request]).arg(&self.path)).1
    }

    fn ino(&self, name: &str) -> u32 {
        let text = self.debugfs(&format!("stat /{name}"));
        let word = text.lines().find_map(|line| line.strip_prefix("Inode: "));
        word.and_then(|word| word.split_whitespace().next()).unwrap().parse().unwrap()
    }

    /// The file's content as debugfs reads it.
    fn dump(&self, name: &str) -> Vec<u8> {
        let out = self.path.with_extension("dump");
        self.debugfs(&format!("dump /{name} {}", out.display()));
        std::fs::read(out).unwrap()
    }
}

/// Writes everything pending straight to its place.
fn commit(vol: &mut Volume) {
    vol.store_superblock().unwrap();
    let size = vol.block_size() as u64;
    let device = vol.store.device().clone();
    for transaction in vol.store.transactions() {
        for (number, block) in transaction.data.iter().chain(&transaction.meta) {
            device.write_at(number * size, block).unwrap();
        }
    }
    vol.store.committed();
}

/// splitmix64: the same stress every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(n + 8);
        while out.len() < n {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(n);
        out
    }
}

fn content(vol: &Volume, inode: &Inode) -> Vec<u8> {
    let mut out = vec![0xAA; inode.size() as usize + 1];
    let n = map::read(vol, inode, 0, &mut out).unwrap();
    assert_eq!(n as u64, inode.size());
    out.truncate(n);
    out
}

fn files(count: usize, largest: u64, seed: u64) -> Vec<(String, Vec<u8>)> {
    let mut random = Random(seed);
    (0..count)
        .map(|i| {
            let size = random.below(largest) as usize;
            (format!("file{i}"), random.bytes(size))
        })
        .collect()
}

fn free_and_kb(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn every_shape_reads_and_changes() {
    for (name, args, mib) in SHAPES {
        let mut expected = files(6, 600_000, 7);
        expected.push(("empty".into(), Vec::new()));
        expected.push(("tiny".into(), b"root:x:0:0\n".to_vec()));
        let image = Image::make(args, *mib, &expected);
        assert_eq!(free_and_kb(&image.path), mib << 20);
        let mut vol = image.open();
        let mut random = Random(99);
        for round in 0..3 {
            for (file, bytes) in &mut expected {
                let ino = image.ino(file);
                let mut inode = vol.live_inode(ino).unwrap();
                assert!(content(&vol, &inode) == *bytes, "{name}: {file} differs");
                match (round + ino) % 3 {
                    0 => {
                        let size = random.below(300_000) as usize;
                        *bytes = random.bytes(size);
                        map::replace(&mut vol, &mut inode, bytes).unwrap();
                    }
                    1 => {
                        let size = random.below(9_000) as usize;
                        let more = random.bytes(size);
                        map::append(&mut vol, &mut inode, &more).unwrap();
                        bytes.extend_from_slice(&more);
                    }
                    _ => {
                        let size = random.below(bytes.len() as u64 * 3 / 2 + 1);
                        map::truncate(&mut vol, &mut inode, size).unwrap();
                        bytes.resize(size as usize, 0);
                    }
                }
                vol.write_inode(&inode).unwrap();
                assert!(content(&vol, &inode) == *bytes, "{name}: {file} differs after a change");
            }
            commit(&mut vol);
            image.fsck(name);
        }
        for (file, bytes) in &expected {
            assert!(image.dump(file) == *bytes, "{name}: debugfs reads {file} differently");
        }
    }
}

#[test]
fn inodes_come_and_go() {
    for (name, args, mib) in SHAPES {
        let image = Image::make(args, *mib, &[]);
        let mut vol = image.open();
        let groups = vol.sb.group_count();
        let free = vol.sb.raw.s_free_inodes_count.get();
        let mut made = Vec::new();
        for group in [0, groups - 1, groups / 2, groups - 1] {
            for is_dir in [false, true] {
                let ino = alloc::alloc_inode(&mut vol, group, is_dir).unwrap();
                assert!(ino > vol.sb.first_ino());
                assert!(!made.contains(&(ino, is_dir)));
                made.push((ino, is_dir));
            }
        }
        assert_eq!(vol.sb.raw.s_free_inodes_count.get(), free - made.len() as u32);
        for (ino, is_dir) in made {
            alloc::free_inode(&mut vol, ino, is_dir).unwrap();
            assert!(matches!(alloc::free_inode(&mut vol, ino, is_dir), Err(Error::Corrupt { .. })));
        }
        assert!(alloc::free_inode(&mut vol, 2, true).is_err());
        commit(&mut vol);
        image.fsck(name);
    }
}

#[test]
fn metadata_and_free_blocks_are_not_freed() {
    let image = Image::make("-t ext4", 64, &[]);
    let mut vol = image.open();
    let table = vol.group(0).unwrap().inode_table();
    for (block, len) in
        [(0, 1), (1, 1), (table + 3, 1), (vol.sb.blocks_count() - 1, 2), (u64::MAX, 1)]
    {
        let error = alloc::free_blocks(&mut vol, block, len).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{block}: {error}");
    }
    let (start, len) = alloc::alloc_blocks(&mut vol, 0, 100).unwrap();
    alloc::free_blocks(&mut vol, start, len).unwrap();
    assert!(alloc::free_blocks(&mut vol, start, len).is_err());
    // What this transaction freed is not given out while there is anything else.
    let (again, _) = alloc::alloc_blocks(&mut vol, start, 1).unwrap();
    assert!(!(start..start + u64::from(len)).contains(&again));
}

#[test]
fn mappings_tell_holes() {
    let image = Image::make("-t ext4 -b 1024", 64, &[("f".into(), vec![1; 5000])]);
    let mut vol = image.open();
    let mut inode = vol.live_inode(image.ino("f")).unwrap();
    map::truncate(&mut vol, &mut inode, 10 << 30).unwrap();
    map::append(&mut vol, &mut inode, b"end").unwrap();
    let mut lblk = 0;
    let mut holes = 0;
    while lblk < (10 << 20) {
        lblk += match map::map(&vol, &inode, lblk).unwrap() {
            Mapping::Hole { len } => {
                holes += 1;
                len
            }
            Mapping::Data { len, .. } => len,
        };
    }
    assert!(holes <= 2);
    let mut buf = [0; 10];
    assert_eq!(map::read(&vol, &inode, 10 << 30, &mut buf).unwrap(), 3);
    assert_eq!(&buf[..3], b"end");
    vol.write_inode(&inode).unwrap();
    commit(&mut vol);
    image.fsck("sparse");
}
