//! Helpers of the journal tests: images made by e2fsprogs, a change between two of them, e2fsck.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use snf_fs::ext::Options;
use snf_fs::ext::internals::journal::{commit, open_volume};
use snf_fs::ext::internals::superblock::Superblock;
use snf_fs::ext::internals::units::FsBlock;
use snf_fs::ext::internals::volume::Volume;
use snf_fs::testing::RecordingDevice;
use snf_fs::{BlockDevice, CommitReport, MemoryDevice, Timestamp};
use zerocopy::FromBytes;

/// A directory for the images of one test; it goes when the test ends. In memory where that is
/// possible: the power-cut tests write hundreds of images.
pub fn scratch() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Runs a program of e2fsprogs (or mount); its exit status and output.
pub fn run(program: &str, args: &[&str]) -> (i32, String) {
    let output = Command::new("timeout")
        .args(["-s", "KILL", "300", program])
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}

/// Runs a program that must succeed.
pub fn must(program: &str, args: &[&str]) -> String {
    let (code, text) = run(program, args);
    assert_eq!(code, 0, "{program} {args:?}: {text}");
    text
}

pub fn options() -> Options {
    Options { now: Timestamp { seconds: 1_700_000_000, nanoseconds: 0 }, seed: 1 }
}

pub fn open(bytes: Vec<u8>) -> (Volume, bool) {
    open_on(Arc::new(MemoryDevice::new(bytes)))
}

pub fn open_on(device: Arc<dyn BlockDevice>) -> (Volume, bool) {
    open_volume(device, options()).unwrap()
}

/// `e2fsck -fn` has nothing to say.
pub fn assert_clean(dir: &Path, bytes: &[u8], what: &str) {
    let path = dir.join("clean.img");
    std::fs::write(&path, bytes).unwrap();
    let (code, text) = run("e2fsck", &["-fn", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{what}: {text}");
    assert!(!text.contains("journal"), "{what}: {text}");
}

/// Lets e2fsck replay and repair; the result, which must be clean.
pub fn repair(dir: &Path, bytes: &[u8], what: &str) -> Vec<u8> {
    let path = dir.join("repair.img");
    std::fs::write(&path, bytes).unwrap();
    let (code, text) = run("e2fsck", &["-fy", path.to_str().unwrap()]);
    assert!(code == 0 || code == 1, "{what}: e2fsck -fy says {code}: {text}");
    let (code, text) = run("e2fsck", &["-fn", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{what}: {text}");
    std::fs::read(&path).unwrap()
}

/// The check of a boot: `e2fsck -p` repairs without a question and finds nothing that a person must
/// decide. The result must be clean.
pub fn preen(dir: &Path, bytes: &[u8], what: &str) -> Vec<u8> {
    let path = dir.join("preen.img");
    std::fs::write(&path, bytes).unwrap();
    let (code, text) = run("e2fsck", &["-p", path.to_str().unwrap()]);
    assert!(code == 0 || code == 1, "{what}: e2fsck -p says {code}: {text}");
    let (code, text) = run("e2fsck", &["-fn", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{what}: {text}");
    std::fs::read(&path).unwrap()
}

/// The superblock: its two sectors are one write, and e2fsck wants a backup where only one arrived.
pub const SUPERBLOCK: std::ops::Range<u64> = 1024..2048;

/// One way to make a file system.
#[derive(Clone, Copy, Debug)]
pub struct Flavour {
    pub name: &'static str,
    pub args: &'static [&'static str],
    /// Features put into the journal's superblock, as a mount would: compat, incompat.
    pub journal: (u32, u32),
}

/// Every form of journal.
pub const FLAVOURS: &[Flavour] = &[
    Flavour { name: "ext3", args: &["-t", "ext3", "-I", "128"], journal: (0, 0) },
    Flavour { name: "ext3 csum v1", args: &["-t", "ext3"], journal: (1, 1) },
    Flavour { name: "ext4 never mounted", args: &["-t", "ext4"], journal: (0, 0) },
    Flavour { name: "ext4 csum v3", args: &["-t", "ext4", "-O", "64bit"], journal: (0, 0x13) },
    Flavour {
        name: "ext4 csum v3 orphan_file seed",
        args: &["-t", "ext4", "-O", "64bit,orphan_file,metadata_csum_seed"],
        journal: (0, 0x13),
    },
    Flavour {
        name: "ext4 csum v3 32bit",
        args: &["-t", "ext4", "-O", "^64bit"],
        journal: (0, 0x11),
    },
    Flavour { name: "ext4 csum v2", args: &["-t", "ext4", "-O", "64bit"], journal: (0, 0xB) },
    Flavour {
        name: "ext4 csum v2 32bit",
        args: &["-t", "ext4", "-O", "^64bit"],
        journal: (0, 0x9),
    },
    Flavour {
        name: "ext4 no csum async",
        args: &["-t", "ext4", "-O", "^metadata_csum,uninit_bg"],
        journal: (0, 0x7),
    },
    Flavour {
        name: "ext4 fast_commit",
        args: &["-t", "ext4", "-O", "fast_commit", "-J", "size=2,fast_commit_size=256"],
        journal: (0, 0x33),
    },
];

/// An image of `size_kib` KiB with some files, as bytes.
pub fn make(dir: &Path, flavour: &Flavour, size_kib: u32, block_size: u32) -> Vec<u8> {
    let tree = dir.join("tree");
    if !tree.is_dir() {
        std::fs::create_dir_all(tree.join("etc/ssh")).unwrap();
        std::fs::create_dir_all(tree.join("home/user")).unwrap();
        std::fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n").unwrap();
        std::fs::write(tree.join("etc/shadow"), "root:*:19000:0:99999:7:::\n".repeat(90)).unwrap();
        for n in 0..40 {
            let text = format!("file {n}\n").repeat(1 + n * 40);
            std::fs::write(tree.join(format!("home/user/file-{n}")), text).unwrap();
        }
    }
    let path = dir.join("make.img");
    let mut args = vec!["-q", "-F", "-N", "512"];
    args.extend(flavour.args);
    let journal = !flavour.args.contains(&"^has_journal") && !flavour.args.contains(&"ext2");
    if journal && !flavour.args.contains(&"-J") {
        args.extend(if block_size == 1024 { ["-J", "size=1"] } else { ["-J", "size=4"] });
    }
    let block_size = block_size.to_string();
    let size = format!("{size_kib}k");
    let uuid = "11111111-2222-3333-4444-555555555555";
    args.extend(["-b", &block_size, "-U", uuid, "-d", tree.to_str().unwrap()]);
    args.extend([path.to_str().unwrap(), &size]);
    let _ = std::fs::remove_file(&path);
    must("mke2fs", &args);
    let mut bytes = std::fs::read(&path).unwrap();
    if flavour.journal != (0, 0) {
        set_journal_features(&mut bytes, flavour.journal.0, flavour.journal.1);
    }
    bytes
}

/// Byte offset of the journal's superblock.
pub fn journal_offset(image: &[u8]) -> usize {
    image
        .chunks(1024)
        .position(|c| c.starts_with(&[0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 4]))
        .expect("the image has a journal")
        * 1024
}

/// Sets the journal's features (and its checksum, where it has one by them).
pub fn set_journal_features(image: &mut [u8], compat: u32, incompat: u32) {
    let at = journal_offset(image);
    image[at + 0x24..at + 0x28].copy_from_slice(&compat.to_be_bytes());
    image[at + 0x28..at + 0x2C].copy_from_slice(&incompat.to_be_bytes());
    if incompat & 0x18 != 0 {
        image[at + 0x50] = 4;
        image[at + 0xFC..at + 0x100].fill(0);
        let crc = snf_fs::ext::internals::checksum::crc32c(!0, &image[at..at + 1024]);
        image[at + 0xFC..at + 0x100].copy_from_slice(&crc.to_be_bytes());
    }
}

/// Edits a copy of an image with debugfs, which knows no journal, and lets e2fsck look at it.
pub fn edit(dir: &Path, image: &[u8], commands: &str) -> Vec<u8> {
    let path = dir.join("edit.img");
    std::fs::write(&path, image).unwrap();
    let script = dir.join("script");
    std::fs::write(&script, commands).unwrap();
    let text = must("debugfs", &["-w", "-f", script.to_str().unwrap(), path.to_str().unwrap()]);
    for line in text.lines() {
        assert!(
            line.starts_with("debugfs") || line.starts_with("Allocated inode") || line.is_empty(),
            "{text}"
        );
    }
    let (code, text) = run("e2fsck", &["-fy", path.to_str().unwrap()]);
    assert!(code <= 1, "{text}");
    std::fs::read(&path).unwrap()
}

/// A change like that of a customization: files replaced, made, removed, a new directory.
pub fn customize(dir: &Path, image: &[u8]) -> Vec<u8> {
    let shadow = dir.join("new-shadow");
    std::fs::write(&shadow, "root:$6$salt$hash:20000:0:99999:7:::\n".repeat(150)).unwrap();
    // Blocks that begin with the journal's magic number must be escaped; a file's first block in
    // metadata form is what a replayed directory or a data=journal file would be.
    let keys = dir.join("keys");
    let mut content = b"\xC0\x3B\x39\x98".to_vec();
    content.extend([7; 5000]);
    std::fs::write(&keys, content).unwrap();
    let commands = format!(
        "rm /etc/shadow\nwrite {} /etc/shadow\nmkdir /root\nmkdir /root/.ssh\n\
         write {} /root/.ssh/authorized_keys\nrm /home/user/file-7\nrm /home/user/file-39\n\
         symlink /etc/link /etc/passwd\nwrite {} /etc/ssh/key\n",
        shadow.display(),
        keys.display(),
        keys.display()
    );
    edit(dir, image, &commands)
}

/// The blocks in which two images differ, the superblock's left out.
pub struct Difference {
    pub block_size: usize,
    /// Blocks in use before: metadata, or content that must not be overwritten in place.
    pub meta: BTreeSet<u64>,
    /// Blocks that were free.
    pub data: BTreeSet<u64>,
    /// All blocks in use before, without superblocks and journal.
    pub used: BTreeSet<u64>,
}

/// Compares; `old` must be clean.
pub fn difference(old: &[u8], new: &[u8]) -> Difference {
    let (vol, _) = open(old.to_vec());
    let block_size = vol.block_size();
    let mut free = BTreeSet::new();
    let mut skip = BTreeSet::from([0, vol.superblock_position().0.get()]);
    for group in vol.sb.groups() {
        let descriptor = vol.group(group).unwrap();
        let first = vol.group_first_block(group).get();
        if vol.sb.group_has_super(group) && group.get() > 0 {
            skip.insert(first);
        }
        let uninit = vol.sb.has_group_csum() && descriptor.has_flag(2);
        assert!(!uninit || group.get() > 0);
        let bitmap = vol.read_block(descriptor.block_bitmap()).unwrap();
        for bit in 0..vol.group_blocks(group) as usize {
            let used = if uninit { false } else { bitmap[bit / 8] >> (bit % 8) & 1 == 1 };
            if !used {
                free.insert(first + bit as u64);
            }
        }
    }
    let journal: BTreeSet<u64> = if vol.has_journal() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), old).unwrap();
        let text = must("debugfs", &["-R", "blocks <8>", file.path().to_str().unwrap()]);
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    } else {
        BTreeSet::new()
    };
    let block = |image: &[u8], n: u64| {
        image[n as usize * block_size..(n as usize + 1) * block_size].to_vec()
    };
    let (mut meta, mut data, mut used) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for n in 0..(old.len() / block_size) as u64 {
        if skip.contains(&n) || journal.contains(&n) {
            continue;
        }
        if !free.contains(&n) {
            used.insert(n);
        }
        if block(old, n) != block(new, n) {
            if free.contains(&n) { &mut data } else { &mut meta }.insert(n);
        }
    }
    Difference { block_size, meta, data, used }
}

/// Puts a difference into an open volume. Every third free block goes through the journal: a new
/// directory or extent block would.
pub fn stage(vol: &mut Volume, new: &[u8], difference: &Difference) {
    let content = |n: u64| {
        let at = n as usize * difference.block_size;
        new[at..at + difference.block_size].to_vec()
    };
    for &n in &difference.meta {
        vol.store.write_meta(FsBlock::new(n), content(n)).unwrap();
    }
    for (index, &n) in difference.data.iter().enumerate() {
        if index % 3 == 0 {
            vol.store.write_meta(FsBlock::new(n), content(n)).unwrap();
        } else {
            vol.store.write_data(FsBlock::new(n), content(n)).unwrap();
        }
    }
    let raw = snf_fs::ext::internals::superblock::RawSuperblock::read_from_bytes(&new[1024..2048])
        .unwrap();
    vol.sb = Superblock { raw };
}

/// A change as one commit, with what the device was told.
pub struct Committed {
    pub old: Vec<u8>,
    pub new: Vec<u8>,
    pub difference: Difference,
    pub device: Arc<RecordingDevice>,
    pub report: CommitReport,
}

/// Makes an image and commits a customization of it.
pub fn committed(dir: &Path, flavour: &Flavour, size_kib: u32) -> Committed {
    let old = make(dir, flavour, size_kib, 1024);
    let new = customize(dir, &old);
    let difference = difference(&old, &new);
    let device = Arc::new(RecordingDevice::new(old.clone()));
    let (mut vol, _) = open_on(device.clone());
    stage(&mut vol, &new, &difference);
    let report = commit(&mut vol).unwrap();
    Committed { old, new, difference, device, report }
}

/// Whether a repaired image is wholly as before (`false`) or wholly as after (`true`).
pub fn which(image: &[u8], old: &[u8], new: &[u8], difference: &Difference, what: &str) -> bool {
    let same = |a: &[u8], b: &[u8], n: u64| {
        let range = n as usize * difference.block_size..(n as usize + 1) * difference.block_size;
        a[range.clone()] == b[range]
    };
    for &n in difference.used.difference(&difference.meta) {
        assert!(same(image, old, n), "{what}: block {n} has nothing to do with the change");
    }
    let newer = difference.meta.iter().filter(|&&n| same(image, new, n)).count();
    let older = difference.meta.iter().filter(|&&n| same(image, old, n)).count();
    let all = difference.meta.len();
    for &n in &difference.meta {
        if !same(image, new, n) && !same(image, old, n) {
            let at = n as usize * difference.block_size;
            let bytes: Vec<usize> = (at..at + difference.block_size)
                .filter(|&at| image[at] != new[at])
                .map(|byte| byte - at)
                .collect();
            println!("{what}: block {n} is neither; bytes that differ from the new: {bytes:?}");
        }
    }
    if older == all {
        return false;
    }
    assert_eq!(newer, all, "{what}: {older} blocks are old, {newer} new, of {all}");
    for &n in &difference.data {
        assert!(same(image, new, n), "{what}: block {n} of new content is not there");
    }
    true
}

/// A copy of an image that is mounted. The kernel may write at any time: two copies that are the
/// same are of one moment.
pub fn at_one_moment(image: &Path) -> Vec<u8> {
    let mut copy = std::fs::read(image).unwrap();
    loop {
        let again = std::fs::read(image).unwrap();
        if copy == again {
            return copy;
        }
        copy = again;
    }
}

/// A loop mount that ends with the value.
pub struct Mount(pub PathBuf);

impl Mount {
    pub fn new(image: &Path, at: PathBuf, options: &str) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("loop,{options}");
        must(
            "mount",
            &["-t", "ext4", "-o", &options, image.to_str().unwrap(), at.to_str().unwrap()],
        );
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A child that another test is just starting may hold a file of it for a moment.
        for _ in 0..100 {
            if run("umount", &[self.0.to_str().unwrap()]).0 == 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
