//! Our replay of a dirty journal against that of e2fsck and the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::journal_support::*;
use snf_fs::ext::Ext;
use snf_fs::ext::internals::journal::{commit, open_replayed, open_volume};
use snf_fs::ext::internals::units::FsBlock;
use snf_fs::testing::RecordingDevice;
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, MemoryDevice};

/// Our view of a dirty image and, block by block, e2fsck's after its replay. Returns how many
/// blocks were replayed.
fn same_as_e2fsck(dir: &Path, image: &[u8], what: &str) -> usize {
    let path = dir.join("replay.img");
    std::fs::write(&path, image).unwrap();
    // Of the programs with e2fsck's replay this one does nothing besides. Before the replay a bitmap
    // may be newer than the checksum of it in the descriptor, when the kernel has written the one to
    // its place and not yet the other: without -n debugfs refuses such an image (and exits with 0).
    let said = must("debugfs", &["-n", "-w", "-R", "journal_run", path.to_str().unwrap()]);
    assert_eq!(said.lines().count(), 1, "{what}: {said}");
    let theirs = std::fs::read(&path).unwrap();
    let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(image.to_vec()));
    let (vol, dirty) = open_replayed(device, options()).unwrap();
    assert!(dirty, "{what}");
    let size = vol.block_size();
    let journal: BTreeSet<u64> = must("debugfs", &["-R", "blocks <8>", path.to_str().unwrap()])
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let mut replayed = 0;
    for n in 0..vol.sb.blocks_count() {
        // The superblock's counters and flags are e2fsck's to change.
        if journal.contains(&n) || n == vol.superblock_position().0.get() {
            continue;
        }
        let ours = vol.store.read(FsBlock::new(n)).unwrap();
        let at = n as usize * size;
        let their = &theirs[at..at + size];
        if let Some(byte) = (0..size).find(|&byte| ours[byte] != their[byte]) {
            let part = byte..(byte + 32).min(size);
            panic!(
                "{what}: block {n} from byte {byte}: {:x?}, e2fsck {:x?}, before {:x?}",
                &ours[part.clone()],
                &their[part.clone()],
                &image[at..][part]
            );
        }
        replayed += usize::from(*ours != image[at..at + size]);
    }
    replayed
}

/// After a commit of nothing but the replay the image is clean, and the same again when the power
/// goes in between.
fn commit_the_replay(dir: &Path, image: &[u8], what: &str) -> Vec<u8> {
    let device = Arc::new(RecordingDevice::new(image.to_vec()));
    let (mut vol, dirty) = open_on(device.clone());
    assert!(dirty);
    assert!(vol.store.is_dirty());
    assert!(commit(&mut vol).unwrap().replayed, "{what}");
    drop(vol);
    let after = device.to_vec();
    let (vol, dirty) = open(after.clone());
    assert!(!dirty && !vol.store.is_dirty(), "{what}");
    let events = device.events().len();
    for count in (0..=events).step_by(1 + events / 8) {
        repair(dir, &device.cut(count, count as u64, false), what);
    }
    after
}

fn busy(image: &Path, at: &Path, options: &str, work: impl FnOnce(&Path) -> Vec<File>) -> Vec<u8> {
    let mount = Mount::new(image, at.to_path_buf(), options);
    let open_files = work(&mount.0);
    let copy = at_one_moment(image);
    drop(open_files);
    copy
}

fn write_synced(path: &Path, content: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

/// Lets the kernel write to their places those blocks of metadata that are in the log already.
fn write_back(at: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let here = |line: &&str| line.split(' ').nth(1) == at.to_str();
    let device = mounts.lines().find(here).unwrap().split(' ').next().unwrap();
    File::open(device).unwrap().sync_all().unwrap();
}

/// Directories come and go so that their blocks are revoked and used for files; files are written
/// through the journal and begin with its magic number; the log goes round several times, and
/// some of what is in it is in its place as well, as a busy machine leaves it.
fn hard_work(at: &Path) -> Vec<File> {
    for round in 0..60 {
        let dir = at.join(format!("dir-{}", round % 7));
        if dir.is_dir() {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        std::fs::create_dir(&dir).unwrap();
        for n in 0..30 {
            std::fs::write(dir.join(format!("{n}-{}", "x".repeat(100))), b"").unwrap();
        }
        let mut content = b"\xC0\x3B\x39\x98".repeat(1200);
        content.push(round as u8);
        write_synced(&at.join(format!("file-{}", round % 5)), &content);
        if matches!(round, 20 | 57) {
            write_back(at);
        }
    }
    std::fs::remove_dir_all(at.join("dir-3")).unwrap();
    write_synced(&at.join("last"), &b"\xC0\x3B\x39\x98last".repeat(700));
    // A file that is open and has no name.
    let orphan = OpenOptions::new().create(true).write(true).truncate(true).open(at.join("gone"));
    let mut orphan = orphan.unwrap();
    orphan.write_all(&[1; 20_000]).unwrap();
    orphan.sync_all().unwrap();
    std::fs::remove_file(at.join("gone")).unwrap();
    write_synced(&at.join("really-last"), b"x");
    vec![orphan]
}

/// A deployment's work on such a copy in one run: replay, edits, growth. The kernel takes the
/// result.
fn edit_and_grow(dir: &Path, copy: &[u8], what: &str) {
    let mut bytes = copy.to_vec();
    // Something old lies where the file system grows to.
    bytes.resize(copy.len() + (24 << 20), 0x5A);
    let device = Arc::new(MemoryDevice::new(bytes));
    let mut fs = Ext::open(device.clone(), options()).unwrap();
    assert!(fs.was_replayed(), "{what}");
    let report = fs.grow(None).unwrap();
    assert!(report.new_blocks > report.old_blocks * 2, "{what}: {report:?}");
    let root = fs.root();
    let last = fs.lookup(root, b"last").unwrap().unwrap();
    fs.replace(last, b"ours").unwrap();
    let old = fs.lookup(root, b"dir-2").unwrap().unwrap();
    for n in 0..200 {
        let name = format!("ours-{n}");
        fs.create(old, name.as_bytes(), Attributes { mode: 0o600, uid: 1, gid: 2 }).unwrap();
    }
    fs.commit().unwrap();
    let after = device.to_vec();
    assert_clean(dir, &after, what);
    let path = dir.join("grown.img");
    std::fs::write(&path, &after).unwrap();
    let mount = Mount::new(&path, dir.join("mnt"), "rw");
    assert_eq!(std::fs::read(mount.0.join("last")).unwrap(), b"ours", "{what}");
    assert_eq!(std::fs::read(mount.0.join("really-last")).unwrap(), b"x", "{what}");
    assert!(mount.0.join("dir-2/ours-199").is_file(), "{what}");
    std::fs::write(mount.0.join("filled"), vec![1; 12 << 20]).unwrap();
    drop(mount);
    assert_clean(dir, &std::fs::read(&path).unwrap(), what);
}

#[test]
fn a_copy_from_under_a_mount() {
    let dir = scratch();
    // The kernel sets the journal's features by itself at its first mount.
    let cases: [(usize, u32, &str); 6] = [
        (0, 1024, "data=ordered"),
        (0, 1024, "data=journal"),
        (1, 1024, "data=journal,journal_checksum"),
        (2, 1024, "data=journal"),
        (4, 1024, "data=ordered"),
        (2, 4096, "data=journal"),
    ];
    for (flavour, block_size, options) in cases {
        let flavour = Flavour { journal: (0, 0), ..FLAVOURS[flavour] };
        let what = format!("{} {block_size} {options}", flavour.name);
        let image = make(dir.path(), &flavour, 16384, block_size);
        let path = dir.path().join("busy.img");
        std::fs::write(&path, image).unwrap();
        let copy = busy(&path, &dir.path().join("mnt"), options, hard_work);
        let replayed = same_as_e2fsck(dir.path(), &copy, &what);
        assert!(replayed > 10, "{what}: {replayed}");
        let after = commit_the_replay(dir.path(), &copy, &what);
        // The orphan is gone as well.
        assert_clean(dir.path(), &after, &what);
        edit_and_grow(dir.path(), &copy, &what);
        // The kernel takes it from here and sees the last file.
        let path = dir.path().join("again.img");
        std::fs::write(&path, &after).unwrap();
        let mount = Mount::new(&path, dir.path().join("mnt"), "ro");
        let last = std::fs::read(mount.0.join("last")).unwrap();
        assert!(last == b"\xC0\x3B\x39\x98last".repeat(700), "{what}");
        drop(mount);
    }
}

/// Runs debugfs commands that write into the journal.
fn journal_write(dir: &Path, image: &[u8], commands: &str) -> Vec<u8> {
    let path = dir.join("jw.img");
    std::fs::write(&path, image).unwrap();
    let script = dir.join("jw");
    std::fs::write(&script, commands).unwrap();
    let text = must("debugfs", &["-w", "-f", script.to_str().unwrap(), path.to_str().unwrap()]);
    assert!(
        text.lines().all(|line| line.starts_with("debugfs") || line.starts_with("Setting")),
        "{text}"
    );
    std::fs::read(&path).unwrap()
}

#[test]
fn a_journal_written_by_debugfs() {
    let dir = scratch();
    let one = dir.path().join("one");
    let magic = dir.path().join("magic");
    std::fs::write(&one, vec![1; 40 << 10]).unwrap();
    std::fs::write(&magic, b"\xC0\x3B\x39\x98".repeat(10 << 10)).unwrap();
    let (one, magic) = (one.display(), magic.display());
    let many = (7000..7040).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    for (flavour, open_journal) in
        [(0, "jo"), (2, "jo"), (2, "jo -c"), (2, "jo -c -v 2"), (3, "jo -c")]
    {
        for first_sequence in [1u32, 0xFFFF_FFFD] {
            let flavour = Flavour { journal: (0, 0), ..FLAVOURS[flavour] };
            let what = format!("{} {open_journal} {first_sequence}", flavour.name);
            let mut image = make(dir.path(), &flavour, 8192, 1024);
            let at = journal_offset(&image) + 0x18;
            image[at..at + 4].copy_from_slice(&first_sequence.to_be_bytes());
            let commands = format!(
                "{open_journal}\njw -b {many} {one}\njw -b 7003,7004,7005 {magic}\n\
                 jw -r 7003,7010\njw -b 7010 {magic}\njw -r 7004\njw -b 7020,7039 {magic}\njc\n"
            );
            let dirty = journal_write(dir.path(), &image, &commands);
            let replayed = same_as_e2fsck(dir.path(), &dirty, &what);
            // 40 blocks, of which 7003 and 7004 were revoked after their last copy.
            assert_eq!(replayed, 38, "{what}");
            commit_the_replay(dir.path(), &dirty, &what);

            // The log ends where a block is not what it should be. Without checksums only the
            // header tells.
            let journal = dir.path().join("jw.img");
            let text = must("debugfs", &["-R", "logdump -S", journal.to_str().unwrap()]);
            assert!(text.contains("Journal starts at block"), "{text}");
            for (offset, wanted) in [(0, true), (4, true), (8, true), (50, false)] {
                let mut broken = dirty.clone();
                let commits = commit_blocks(&broken);
                let third = commits[2] + offset;
                broken[third] ^= 0x55;
                if wanted || open_journal != "jo" {
                    let fewer = same_as_e2fsck(dir.path(), &broken, &what);
                    assert!(fewer >= 38, "{what} {offset}: {fewer}");
                }
            }
        }
    }
}

/// Byte offsets of the commit blocks in the image, in order of place.
fn commit_blocks(image: &[u8]) -> Vec<usize> {
    image
        .chunks(1024)
        .enumerate()
        .filter(|(_, chunk)| chunk.starts_with(&[0xC0, 0x3B, 0x39, 0x98, 0, 0, 0, 2]))
        .map(|(index, _)| index * 1024)
        .collect()
}

#[test]
fn the_kernel_finishes_our_commit() {
    let dir = scratch();
    for flavour in [&FLAVOURS[0], &FLAVOURS[2], &FLAVOURS[3], &FLAVOURS[6]] {
        let Committed { old, new, difference, device, .. } = committed(dir.path(), flavour, 8192);
        let events = device.events().len();
        let path = dir.path().join("cut.img");
        let mut states = BTreeSet::new();
        for count in 0..=events {
            std::fs::write(&path, device.prefix(count)).unwrap();
            let mount = Mount::new(&path, dir.path().join("mnt"), "rw");
            let shadow = std::fs::read(mount.0.join("etc/shadow")).unwrap();
            drop(mount);
            let text = std::fs::read(&path).unwrap();
            let is_new = which(
                &text,
                &old,
                &new,
                &difference_without_kernel(&difference, &old, &new, &text),
                flavour.name,
            );
            let want = if is_new { "root:$6$" } else { "root:*:" };
            assert!(shadow.starts_with(want.as_bytes()));
            states.insert(is_new);
            let (code, text) = run("e2fsck", &["-fn", path.to_str().unwrap()]);
            assert_eq!(code, 0, "{} after {count}: {text}", flavour.name);
        }
        assert_eq!(states.len(), 2);
    }
}

/// The kernel writes group descriptors of its own accord (checksums, lazy initialisation): blocks
/// that are neither old nor new because of that are left out.
fn difference_without_kernel(all: &Difference, old: &[u8], new: &[u8], image: &[u8]) -> Difference {
    let same = |a: &[u8], b: &[u8], n: u64| {
        let range = n as usize * all.block_size..(n as usize + 1) * all.block_size;
        a[range.clone()] == b[range]
    };
    let odd: BTreeSet<u64> = all
        .used
        .iter()
        .copied()
        .filter(|&n| !same(image, old, n) && !same(image, new, n))
        .collect();
    assert!(odd.len() <= 2, "{odd:?}");
    Difference {
        block_size: all.block_size,
        meta: all.meta.difference(&odd).copied().collect(),
        data: all.data.clone(),
        used: all.used.difference(&odd).copied().collect(),
    }
}

#[test]
fn what_cannot_be_replayed_is_refused() {
    let dir = scratch();
    let flavour = &FLAVOURS[3];
    let old = make(dir.path(), flavour, 8192, 1024);
    let at = journal_offset(&old);
    let open = |image: Vec<u8>| {
        let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(image));
        open_volume(device, options()).map(|_| ())
    };
    assert!(open(old.clone()).is_ok());
    // One wrong field of the journal's superblock each; the checksum follows.
    let cases: [(usize, u32, &str); 8] = [
        (0x0, 0xC03B_3999, "h_magic"),
        (0x4, 9, "h_blocktype"),
        (0xC, 4096, "s_blocksize"),
        (0x10, 5000, "s_maxlen"),
        (0x10, 100, "s_maxlen"),
        (0x14, 1020, "s_first"),
        (0x1C, 1024, "s_start"),
        (0x28, 0x113, "features"),
    ];
    for (field, value, name) in cases {
        let mut image = old.clone();
        image[at + field..at + field + 4].copy_from_slice(&value.to_be_bytes());
        image[at + 0xFC..at + 0x100].fill(0);
        let crc = snf_fs::ext::internals::checksum::crc32c(!0, &image[at..at + 1024]);
        image[at + 0xFC..at + 0x100].copy_from_slice(&crc.to_be_bytes());
        let error = open(image).unwrap_err().to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
    let mut image = old.clone();
    image[at + 0x20] ^= 1;
    assert!(open(image).unwrap_err().to_string().contains("s_checksum"));
    // A fast commit that the kernel would replay.
    let flavour = FLAVOURS.iter().find(|f| f.name.contains("fast_commit")).unwrap();
    let image = make(dir.path(), flavour, 16384, 1024);
    let path = dir.path().join("fast.img");
    std::fs::write(&path, image).unwrap();
    let copy = busy(&path, &dir.path().join("mnt"), "rw", |at| {
        write_synced(&at.join("first"), b"1");
        for n in 0..5 {
            let mut file = OpenOptions::new().append(true).open(at.join("first")).unwrap();
            file.write_all(&[n; 3000]).unwrap();
            file.sync_all().unwrap();
        }
        Vec::new()
    });
    match open(copy) {
        Err(Error::Unsupported { what, .. }) => assert!(what.contains("fast"), "{what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mmp_is_respected() {
    let dir = scratch();
    let flavour = Flavour { name: "mmp", args: &["-t", "ext4", "-O", "mmp"], journal: (0, 0) };
    let image = make(dir.path(), &flavour, 8192, 1024);
    assert!(!open(image.clone()).1);
    let path = dir.path().join("mmp.img");
    std::fs::write(&path, &image).unwrap();
    let mount = Mount::new(&path, dir.path().join("mnt"), "rw");
    let copy = std::fs::read(&path).unwrap();
    let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(copy));
    let Err(Error::ReadOnly(text)) = open_volume(device, options()).map(|_| ()) else {
        panic!("it is mounted");
    };
    assert!(text.contains("clear_mmp"), "{text}");
    drop(mount);
}

/// Commits what opening alone does; the result must leave e2fsck nothing to say.
fn open_and_commit(dir: &Path, image: &[u8], what: &str) -> Vec<u8> {
    let device = Arc::new(MemoryDevice::new(image.to_vec()));
    let (mut vol, _) = open_on(device.clone());
    commit(&mut vol).unwrap();
    let after = device.to_vec();
    assert_clean(dir, &after, what);
    after
}

#[test]
fn orphans_are_finished() {
    let dir = scratch();
    // Without a name, a file is in its owner's quota until it is freed.
    let quota = Flavour {
        name: "ext4 quota",
        args: &[
            "-t",
            "ext4",
            "-O",
            "quota,project,^orphan_file",
            "-E",
            "quotatype=usrquota:grpquota:prjquota",
        ],
        journal: (0, 0),
    };
    for flavour in [&FLAVOURS[0], &FLAVOURS[2], &quota] {
        // mke2fs -d leaves quota files as they were before it copied.
        let image = repair(dir.path(), &make(dir.path(), flavour, 8192, 1024), flavour.name);
        let path = dir.path().join("orphans.img");
        std::fs::write(&path, &image).unwrap();
        let number = |name: &str| {
            let stat = format!("stat {name}");
            let text = must("debugfs", &["-R", &stat, path.to_str().unwrap()]);
            text.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
        };
        // One to be cut to 1000 bytes, then one without a name and with blocks.
        let (cut, gone) = (number("/home/user/file-39"), number("/home/user/file-38"));
        let script = format!(
            "set_inode_field <{cut}> size 1000\nset_inode_field <{cut}> dtime {gone}\n\
             unlink /home/user/file-38\nset_inode_field <{gone}> links_count 0\n\
             set_super_value last_orphan {cut}\n"
        );
        let commands = dir.path().join("script");
        std::fs::write(&commands, script).unwrap();
        must("debugfs", &["-w", "-f", commands.to_str().unwrap(), path.to_str().unwrap()]);
        let dirty = std::fs::read(&path).unwrap();
        open_and_commit(dir.path(), &dirty, flavour.name);
        // A list that cannot be followed is left alone and is no reason to refuse the image.
        let mut odd = dirty.clone();
        odd[1024 + 0xE8..1024 + 0xEC].copy_from_slice(&3u32.to_le_bytes());
        if flavour.name == "ext3" {
            assert_eq!(open(odd).0.sb.raw.s_last_orphan.get(), 3);
        }
    }
}
