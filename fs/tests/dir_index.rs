//! Directories with thousands of names, made by the kernel and edited by us, and the other way
//! round: e2fsck and the kernel find nothing wrong, and debugfs finds every name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use crate::oracle::{Disk, at, commit, compare};
use snf_fs::{Attributes, FileSystem};

const FILE: Attributes = Attributes { mode: 0o644, uid: 1, gid: 2 };
const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

const SHAPES: &[(&str, &str)] = &[
    ("debian 12", "-t ext4 -O metadata_csum,64bit,^orphan_file,^metadata_csum_seed -N 60000"),
    ("debian 13 1k", "-t ext4 -b 1024 -O metadata_csum,orphan_file,metadata_csum_seed -N 60000"),
    ("no checksums", "-t ext4 -O ^metadata_csum,uninit_bg -b 1024 -N 60000"),
    ("large_dir 1k", "-t ext4 -b 1024 -O large_dir -N 60000"),
    ("ext3", "-t ext3 -I 128 -N 60000"),
    ("ext2 1k", "-t ext2 -b 1024 -N 60000"),
    ("no index", "-t ext4 -O ^dir_index -N 60000"),
    ("no filetype", "-t ext4 -b 1024 -O ^filetype,^metadata_csum -N 60000"),
];

fn name(i: usize) -> String {
    match i % 3 {
        0 => format!("{i}"),
        1 => format!("name-of-some-length-{i}-{}", i * 7919),
        _ => format!("{i}{}", "x".repeat(i % 200)),
    }
}

#[test]
fn made_by_the_kernel_edited_by_us() {
    for (what, args) in SHAPES {
        let disk = Disk::make(args, 96);
        let mount = disk.mount("rw");
        for (dir, count) in [("few", 40), ("some", 3000), ("many", 5000)] {
            std::fs::create_dir(mount.path(dir)).unwrap();
            for i in 0..count {
                std::fs::write(mount.path(dir).join(name(i)), "").unwrap();
            }
        }
        drop(mount);
        let mut fs = disk.open();
        for (dir, count) in [("few", 40), ("some", 3000), ("many", 5000)] {
            let node = at(&fs, dir);
            assert_eq!(fs.readdir(node).unwrap().len(), count, "{what}");
            for i in (0..count).step_by(7) {
                assert!(fs.lookup(node, name(i).as_bytes()).unwrap().is_some(), "{what} {i}");
                fs.unlink(node, name(i).as_bytes()).unwrap();
                assert!(fs.lookup(node, name(i).as_bytes()).unwrap().is_none(), "{what} {i}");
            }
            for i in count..count + count / 2 {
                fs.create(node, name(i).as_bytes(), FILE).unwrap();
            }
            for i in (1..count).step_by(7) {
                let to = format!("renamed {i}");
                fs.rename(node, name(i).as_bytes(), node, to.as_bytes()).unwrap();
            }
            assert!(fs.lookup(node, b"not there").unwrap().is_none());
        }
        // An indexed directory moves: its root block changes.
        let some = at(&fs, "some");
        fs.rename(fs.root(), b"many", some, b"moved").unwrap();
        commit(&mut fs);
        disk.fsck(what);
        compare(&disk, what);
    }
}

#[test]
fn made_by_us_edited_by_the_kernel() {
    for (what, args) in SHAPES {
        let disk = Disk::make(args, 96);
        let mut fs = disk.open();
        let root = fs.root();
        let dir = fs.mkdir(root, b"many", DIR).unwrap();
        // Two levels of index need 20,000 names only where blocks are small.
        let count = if what.contains("13 1k") { 20_000 } else { 6000 };
        for i in 0..count {
            fs.create(dir, name(i).as_bytes(), FILE).unwrap();
            if i % 500 == 0 {
                fs.seal().unwrap();
            }
        }
        commit(&mut fs);
        disk.fsck(what);
        for i in (0..6000).step_by(997) {
            let said = disk.debugfs(format!("stat \"/many/{}\"", name(i)));
            assert!(said.contains("Inode: "), "{what} {i}: {said}");
        }
        let mount = disk.mount("rw");
        for i in (0..6000).step_by(3) {
            std::fs::remove_file(mount.path("many").join(name(i))).unwrap();
        }
        for i in 30_000..31_000 {
            std::fs::write(mount.path("many").join(name(i)), "").unwrap();
        }
        drop(mount);
        disk.fsck(what);
        let mut fs = disk.open();
        for i in 31_000..32_000 {
            fs.create(dir, name(i).as_bytes(), FILE).unwrap();
        }
        commit(&mut fs);
        disk.fsck(what);
        compare(&disk, what);
    }
}

#[test]
fn subdirectories_beyond_the_link_count() {
    // 65,000 links are the most that the count holds; with dir_nlink it then says 1.
    let disk = Disk::make("-t ext4 -b 1024 -O ^has_journal -N 70000 -i 1024", 128);
    let mut fs = disk.open();
    let root = fs.root();
    let dir = fs.mkdir(root, b"many", DIR).unwrap();
    for i in 0..65_010 {
        fs.mkdir(dir, format!("{i}").as_bytes(), DIR).unwrap();
    }
    assert_eq!(fs.stat(dir).unwrap().links, 1);
    for i in 0..5 {
        fs.rmdir(dir, format!("{i}").as_bytes()).unwrap();
    }
    assert_eq!(fs.stat(dir).unwrap().links, 1);
    commit(&mut fs);
    disk.fsck("65,005 subdirectories");
}

#[test]
fn hash_versions_and_signs() {
    for version in ["legacy", "half_md4", "tea"] {
        for unsigned in [false, true] {
            let what = format!("{version}, unsigned {unsigned}");
            let disk = Disk::make("-t ext4 -b 1024 -N 4096", 48);
            let flags = format!("set_super_value flags {}", 1 + u8::from(unsigned));
            for (tool, args) in [
                ("tune2fs", vec!["-E".to_owned(), format!("hash_alg={version}")]),
                ("debugfs", vec!["-w".to_owned(), "-R".to_owned(), flags]),
            ] {
                let output = Command::new(tool).args(args).arg(&disk.path).output().unwrap();
                assert!(output.status.success(), "{what}: {output:?}");
            }
            let name = |i: usize| format!("Größe {i} ü{}", "é".repeat(i % 40));
            let mount = disk.mount("rw");
            std::fs::create_dir(mount.path("dir")).unwrap();
            for i in 0..500 {
                std::fs::write(mount.path("dir").join(name(i)), "").unwrap();
            }
            drop(mount);
            let mut fs = disk.open();
            let dir = at(&fs, "dir");
            for i in 0..500 {
                assert!(fs.lookup(dir, name(i).as_bytes()).unwrap().is_some(), "{what}: {i}");
            }
            for i in 500..1000 {
                fs.create(dir, name(i).as_bytes(), FILE).unwrap();
            }
            let own = fs.mkdir(fs.root(), b"own", DIR).unwrap();
            for i in 0..500 {
                fs.create(own, name(i).as_bytes(), FILE).unwrap();
            }
            commit(&mut fs);
            disk.fsck(&what);
            compare(&disk, &what);
        }
    }
}

/// No kernel with small pages mounts these; e2fsck and debugfs judge.
#[test]
fn blocks_of_64_kib() {
    let args = "-t ext4 -b 65536 -N 8192";
    let disk = Disk::make(args, 256);
    let mut fs = disk.open();
    let dir = fs.mkdir(fs.root(), b"dir", DIR).unwrap();
    for i in 0..3000 {
        fs.create(dir, name(i).as_bytes(), FILE).unwrap();
    }
    for i in (0..3000).step_by(3) {
        fs.unlink(dir, name(i).as_bytes()).unwrap();
    }
    let node = fs.create(dir, b"file", FILE).unwrap();
    fs.set_xattr(node, b"user.large", Some(&[1; 60_000])).unwrap();
    commit(&mut fs);
    disk.fsck(args);
    for i in (1..3000).step_by(600) {
        let said = disk.debugfs(format!("stat \"/dir/{}\"", name(i)));
        assert!(said.contains("Inode: "), "{i}: {said}");
    }
    assert_eq!(disk.open().readdir(dir).unwrap().len(), 2001);
    let said = disk.debugfs("htree_dump /dir");
    assert!(said.contains("Hash Version"), "{said}");
}
