//! Growing against e2fsck, resize2fs and the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::journal_support::*;
use snf_fs::ext::internals::grow::{device_blocks, grow};
use snf_fs::ext::internals::journal::commit;
use snf_fs::testing::{Fault, FaultDevice};
use snf_fs::{BlockDevice, FileDevice};

/// One file system to grow.
struct Case {
    args: &'static [&'static str],
    from: &'static str,
    to: u64,
    /// Whether resize2fs comes to the same number of free blocks. If not, the difference is that
    /// of the copies of descriptors; the largest cases hold it to the block.
    same: bool,
}

const fn case(args: &'static [&'static str], from: &'static str, to: u64, same: bool) -> Case {
    Case { args, from, to, same }
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Blocks that superblocks, descriptors, the room kept for descriptors and its map take, from what
/// dumpe2fs -h says: all copies in all groups.
fn descriptor_blocks(text: &str) -> u64 {
    let optional = |name: &str| {
        if text.lines().any(|line| line.starts_with(name)) { field(text, name) } else { 0 }
    };
    let features = text.lines().find(|line| line.starts_with("Filesystem features:")).unwrap();
    let has = |feature: &str| features.split_whitespace().any(|word| word == feature);
    let descriptor = if has("64bit") { 64 } else { 32 };
    let first = field(text, "First block:");
    let groups = (field(text, "Block count:") - first).div_ceil(field(text, "Blocks per group:"));
    let per_block = field(text, "Block size:") / descriptor;
    let all = groups.div_ceil(per_block);
    let everywhere =
        if has("meta_bg") { field(text, "First meta block group:").min(all) } else { all };
    let backups: Vec<u64> = text
        .lines()
        .find_map(|line| line.strip_prefix("Backup block groups:"))
        .map(|groups| groups.split_whitespace().map(|word| word.parse().unwrap()).collect())
        .unwrap_or_default();
    let is_power = |mut n: u64, base: u64| {
        while n > 1 && n.is_multiple_of(base) {
            n /= base;
        }
        n == 1
    };
    let has_copy = |group: u64| {
        let powers = [3, 5, 7].iter().any(|&base| is_power(group, base));
        let sparse = group < 2 || powers || !has("sparse_super");
        if has("sparse_super2") { group == 0 || backups.contains(&group) } else { sparse }
    };
    let each = everywhere + optional("Reserved GDT blocks:");
    let copies = (0..groups).filter(|&group| has_copy(group));
    // With meta_bg there is the superblock alone.
    let copied: u64 =
        copies.map(|group| 1 + if group < everywhere * per_block { each } else { 0 }).sum();
    let meta = (everywhere..all).map(|index| (groups - index * per_block).min(3).min(per_block));
    copied + meta.sum::<u64>() + u64::from(has("resize_inode"))
}

fn device(path: &Path) -> Arc<dyn BlockDevice> {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    Arc::new(FileDevice::from_file(file).unwrap())
}

fn check(dir: &Path, case: &Case) {
    let what = format!("{:?} {} to {}", case.args, case.from, case.to);
    let ours = dir.join("ours.img");
    let theirs = dir.join("theirs.img");
    let _ = std::fs::remove_file(&ours);
    let mut args = vec!["-q", "-F"];
    args.extend(case.args);
    let tree = dir.join("tree");
    if !tree.is_dir() {
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), vec![7; 300_000]).unwrap();
    }
    args.extend(["-d", tree.to_str().unwrap(), ours.to_str().unwrap(), case.from]);
    must("mke2fs", &args);
    // mke2fs -d leaves the quota files as they were before it copied.
    assert!(run("e2fsck", &["-fy", ours.to_str().unwrap()]).0 <= 1);
    File::options().write(true).open(&ours).unwrap().set_len(case.to).unwrap();
    must("cp", &["--sparse=always", ours.to_str().unwrap(), theirs.to_str().unwrap()]);

    let start = std::time::Instant::now();
    let (mut vol, _) = open_on(device(&ours));
    let wanted = device_blocks(&vol);
    let report = grow(&mut vol, wanted).unwrap_or_else(|error| panic!("{what}: {error}"));
    commit(&mut vol).unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(vol);
    let mine = start.elapsed();
    let (code, text) = run("e2fsck", &["-fn", ours.to_str().unwrap()]);
    assert_eq!(code, 0, "{what}: {report:?} {text}");

    run("e2fsck", &["-fy", theirs.to_str().unwrap()]);
    let start = std::time::Instant::now();
    let (code, text) = run("resize2fs", &["-f", theirs.to_str().unwrap()]);
    println!("{what}: {mine:?}, resize2fs {:?}; {report:?}", start.elapsed());
    assert_eq!(code, 0, "{what}: {text}");
    let mine_text = must("dumpe2fs", &["-h", ours.to_str().unwrap()]);
    let their_text = must("dumpe2fs", &["-h", theirs.to_str().unwrap()]);
    assert_eq!(field(&mine_text, "Free blocks:"), report.free_blocks, "{what}");
    let names = ["Block count:", "Free blocks:", "Inode count:", "Free inodes:"];
    for name in names {
        let (mine, their) = (field(&mine_text, name), field(&their_text, name));
        if case.same || name != "Free blocks:" {
            assert_eq!(mine, their, "{what}: {name}");
        } else if case.args.contains(&"bigalloc") {
            // Our metadata shares clusters, theirs begins one each.
            assert!(mine >= their && (mine - their) * 1000 < case.to / 1024, "{what}");
            println!("{what}: {name} {mine}, resize2fs {their}");
        } else {
            println!("{what}: {name} {mine}, resize2fs {their}");
            let (ours, theirs) = (descriptor_blocks(&mine_text), descriptor_blocks(&their_text));
            if case.to > TIB || case.args.contains(&"sparse_super2,^resize_inode") {
                assert_eq!(mine + ours, their + theirs, "{what}: {ours} and {theirs}");
            }
        }
    }
    // The kernel agrees. Not every kernel has quotas.
    if case.args.iter().any(|arg| arg.contains("quota")) {
        return;
    }
    let mount = Mount::new(&ours, dir.join("mnt"), "rw");
    assert!(std::fs::read(mount.0.join("file")).unwrap() == vec![7; 300_000], "{what}");
    std::fs::write(mount.0.join("new"), vec![1; 1_000_000]).unwrap();
    drop(mount);
    let (code, text) = run("e2fsck", &["-fn", ours.to_str().unwrap()]);
    assert_eq!(code, 0, "{what}: after the kernel: {text}");
}

#[test]
fn as_resize2fs_does_to_the_block() {
    let dir = scratch();
    let cases = [
        case(&["-t", "ext4"], "64M", 65 * MIB, true),
        case(&["-t", "ext4"], "64M", 300 * MIB, true),
        case(&["-t", "ext4"], "1G", 100 * GIB, true),
        case(&["-t", "ext4", "-O", "^flex_bg"], "256M", 3 * GIB, true),
        case(&["-t", "ext4", "-O", "^64bit"], "256M", 3 * GIB, true),
        case(&["-t", "ext4", "-O", "^metadata_csum,uninit_bg"], "256M", 3 * GIB, true),
        case(&["-t", "ext4", "-O", "^metadata_csum,^uninit_bg"], "256M", GIB, true),
        case(&["-t", "ext4", "-O", "orphan_file,metadata_csum_seed"], "256M", 3 * GIB, true),
        case(&["-t", "ext4", "-O", "meta_bg,^resize_inode"], "256M", 20 * GIB, true),
        case(&["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"], "64M", GIB, true),
        case(&["-t", "ext4", "-O", "sparse_super2"], "64M", GIB, true),
        case(&["-t", "ext4", "-O", "sparse_super2,^resize_inode"], "200M", GIB, false),
        case(&["-t", "ext4", "-O", "^sparse_super,^resize_inode"], "256M", GIB, false),
        case(&["-t", "ext4", "-b", "1024"], "64M", GIB, true),
        case(&["-t", "ext4", "-b", "2048", "-g", "8192"], "64M", GIB, true),
        case(&["-t", "ext4", "-G", "4", "-N", "100000"], "64M", GIB, true),
        case(&["-t", "ext4", "-O", "quota,project,inline_data,ea_inode"], "256M", GIB, true),
        case(&["-t", "ext3"], "128M", GIB, true),
        case(&["-t", "ext3", "-I", "128", "-b", "1024"], "32M", 256 * MIB, true),
        case(&["-t", "ext2"], "128M", GIB, true),
        case(&["-t", "ext2", "-O", "^resize_inode", "-b", "1024"], "32M", 200 * MIB, true),
        case(&["-t", "ext2", "-b", "1024", "-r", "0", "-O", "none"], "8M", 50 * MIB, true),
    ];
    for case in &cases {
        check(dir.path(), case);
    }
}

#[test]
fn beyond_the_room_for_descriptors() {
    let dir = scratch();
    let cases = [
        case(&["-t", "ext4", "-E", "resize=524288"], "1G", 70 * GIB, false),
        case(&["-t", "ext4", "-b", "1024", "-E", "resize=200000"], "64M", 4 * GIB, false),
        case(&["-t", "ext3", "-b", "1024", "-E", "resize=200000"], "64M", GIB, false),
        case(&["-t", "ext4", "-O", "bigalloc", "-C", "65536"], "512M", 8 * GIB, false),
        case(
            &["-t", "ext4", "-O", "bigalloc", "-C", "16384", "-b", "1024"],
            "512M",
            8 * GIB,
            false,
        ),
    ];
    for case in &cases {
        check(dir.path(), case);
    }
}

#[test]
fn sixteen_tebibytes() {
    let dir = scratch();
    // e2fsck needs minutes for such a file system, so the kernel must do.
    let path = dir.path().join("large.img");
    must("mke2fs", &["-q", "-F", "-t", "ext4", path.to_str().unwrap(), "1G"]);
    File::options().write(true).open(&path).unwrap().set_len(16 << 40).unwrap();
    let (mut vol, _) = open_on(device(&path));
    let report = grow(&mut vol, 1 << 32).unwrap();
    commit(&mut vol).unwrap();
    drop(vol);
    assert!(report.became_meta_bg && report.new_blocks == 1 << 32, "{report:?}");
    // resize2fs keeps whole copies of all descriptors; but for those it has as many blocks free.
    let theirs = dir.path().join("theirs.img");
    must("mke2fs", &["-q", "-F", "-t", "ext4", theirs.to_str().unwrap(), "1G"]);
    File::options().write(true).open(&theirs).unwrap().set_len(16 << 40).unwrap();
    must("resize2fs", &["-f", theirs.to_str().unwrap()]);
    let [ours, theirs] = [&path, &theirs].map(|path| {
        let text = must("dumpe2fs", &["-h", path.to_str().unwrap()]);
        (field(&text, "Free blocks:"), descriptor_blocks(&text))
    });
    assert_eq!(ours.0, report.free_blocks);
    assert_eq!(ours.0 + ours.1, theirs.0 + theirs.1, "{ours:?} {theirs:?}");
    let mount = Mount::new(&path, dir.path().join("mnt"), "rw");
    std::fs::write(mount.0.join("new"), vec![1; 1_000_000]).unwrap();
    drop(mount);
    // A second growth, by a little more than one group.
    File::options().write(true).open(&path).unwrap().set_len((16 << 40) + (200 << 20)).unwrap();
    let (mut vol, _) = open_on(device(&path));
    let report = grow(&mut vol, (1 << 32) + 50_000).unwrap();
    commit(&mut vol).unwrap();
    assert_eq!(report.new_groups, 2, "{report:?}");
    drop(Mount::new(&path, dir.path().join("mnt"), "rw"));
}

#[test]
fn two_tebibytes_in_one_go() {
    let dir = scratch();
    check(dir.path(), &case(&["-t", "ext4"], "1G", 2 * 1024 * GIB, false));
}

/// The number of writes follows the number of new groups, whatever the file system holds.
#[test]
fn writes_grow_with_the_groups_not_with_the_data() {
    let dir = scratch();
    let written = |content: usize, to: u64| {
        let path = dir.path().join("written.img");
        let tree = dir.path().join("content");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join("file"), vec![7; content]).unwrap();
        let _ = std::fs::remove_file(&path);
        let arguments = ["-q", "-F", "-t", "ext4", "-d", tree.to_str().unwrap()];
        must("mke2fs", &[&arguments[..], &[path.to_str().unwrap(), "1G"]].concat());
        File::options().write(true).open(&path).unwrap().set_len(to).unwrap();
        let counting = Arc::new(FaultDevice::new(device(&path), Fault::None));
        let (mut vol, _) = open_on(counting.clone());
        let report = grow(&mut vol, to / 4096).unwrap();
        commit(&mut vol).unwrap();
        let counts = counting.counts();
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (u64::from(report.new_groups), number(&counts.bytes_written), number(&counts.bytes_read))
    };
    let (groups, bytes, read) = written(1, 50 * GIB);
    let full = written(300 << 20, 50 * GIB);
    assert_eq!(full.0, groups);
    assert!(full.1.abs_diff(bytes) < 64 << 10, "{bytes} bytes for {groups} groups; {full:?}");
    assert!(full.2 < read + (4 << 20), "{read} bytes read; {full:?}");
    let (twice, more, _) = written(1, 100 * GIB);
    assert!(twice > groups * 19 / 10);
    assert!(more < bytes * 5 / 2, "{bytes} for {groups} groups, {more} for {twice}");
    assert!(more < twice * 8192, "{more} for {twice}");
}

#[test]
fn features_that_growing_has_nothing_to_do_with() {
    let dir = scratch();
    let path = dir.path().join("feature.img");
    let rows: &[&[&str]] = &[
        &["-O", "mmp"],
        &["-O", "encrypt,verity,stable_inodes,large_dir,dir_nlink"],
        &["-O", "casefold", "-E", "encoding=utf8"],
        &["-O", "fast_commit"],
        &["-O", "^64bit,^has_journal,^extent,^huge_file,^large_file,^dir_index,^filetype"],
        &["-b", "8192"],
        &["-b", "65536"],
        &["-I", "1024", "-g", "4096", "-b", "1024", "-J", "size=4"],
    ];
    for args in rows {
        let _ = std::fs::remove_file(&path);
        let mut all = vec!["-q", "-F", "-t", "ext4"];
        all.extend(*args);
        all.extend([path.to_str().unwrap(), "64M"]);
        must("mke2fs", &all);
        File::options().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
        // In two steps, the first within the last group or by one group.
        for size in [70u64 << 20, 1 << 30] {
            let (mut vol, _) = open_on(device(&path));
            let blocks = size / vol.block_size() as u64;
            grow(&mut vol, blocks).unwrap_or_else(|error| panic!("{args:?}: {error}"));
            commit(&mut vol).unwrap_or_else(|error| panic!("{args:?}: {error}"));
            let (code, text) = run("e2fsck", &["-fn", path.to_str().unwrap()]);
            assert_eq!(code, 0, "{args:?} to {size}: {text}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let dir = scratch();
    let path = dir.path().join("refused.img");
    must("mke2fs", &["-q", "-F", "-t", "ext4", "-O", "^64bit", path.to_str().unwrap(), "64M"]);
    let before = std::fs::read(&path).unwrap();
    let (mut vol, _) = open_on(device(&path));
    let blocks = vol.sb.blocks_count();
    for wanted in [0, blocks - 1, blocks + 1, u64::MAX] {
        assert!(grow(&mut vol, wanted).is_err(), "{wanted}");
    }
    assert_eq!(grow(&mut vol, blocks).unwrap().new_groups, 0);
    assert!(!vol.store.is_dirty());
    commit(&mut vol).unwrap();
    assert!(std::fs::read(&path).unwrap() == before);
    // More blocks than 32 bits can count.
    File::options().write(true).open(&path).unwrap().set_len(5 << 44).unwrap();
    let (mut vol, _) = open_on(device(&path));
    let error = grow(&mut vol, 5 << 32).unwrap_err().to_string();
    assert!(error.contains("64bit"), "{error}");
    assert!(!vol.store.is_dirty());
    // A last group too small for its metadata is left out: nothing to do
    let (mut vol, _) = open_on(device(&path));
    let blocks = vol.sb.blocks_count();
    // but for the one block that its last group has yet to get.
    assert_eq!(grow(&mut vol, blocks + 100).unwrap().new_blocks, blocks + 1);
}
