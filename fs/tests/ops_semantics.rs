//! The promises and refusals of each operation, with the kernel as the model where it has an opinion.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use crate::oracle::{Disk, NOW, at, commit, compare, shell};
use snf_fs::{Attributes, Error, FileSystem, Times, Timestamp};

const FILE: Attributes = Attributes { mode: 0o644, uid: 1, gid: 2 };
const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

fn debugfs_write(disk: &Disk, request: &str) {
    let output = Command::new("debugfs").args(["-w", "-R", request]).arg(&disk.path).output();
    let said = String::from_utf8_lossy(&output.unwrap().stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{request}: {said}");
}

#[test]
fn names_come_and_go() {
    let disk = Disk::make("-t ext4", 48);
    let mut fs = disk.open();
    let root = fs.root();
    let a = fs.mkdir(root, b"a", DIR).unwrap();
    let b = fs.mkdir(root, b"b", DIR).unwrap();
    let sub = fs.mkdir(a, b"sub", DIR).unwrap();
    let file = fs.create(a, b"file", FILE).unwrap();
    fs.replace(file, b"one").unwrap();

    assert!(matches!(fs.create(a, b"file", FILE), Err(Error::Exists(_))));
    assert!(matches!(fs.mkdir(a, b"sub", DIR), Err(Error::Exists(_))));
    assert!(matches!(fs.create(file, b"x", FILE), Err(Error::NotADirectory(_))));
    assert!(matches!(fs.unlink(a, b"sub"), Err(Error::IsADirectory(_))));
    assert!(matches!(fs.rmdir(a, b"file"), Err(Error::NotADirectory(_))));
    assert!(matches!(fs.rmdir(root, b"a"), Err(Error::NotEmpty(_))));
    assert!(matches!(fs.unlink(a, b"none"), Err(Error::NotFound(_))));
    assert!(matches!(fs.create(a, &[b'x'; 256], FILE), Err(Error::NameTooLong(_))));
    for name in [b"".as_slice(), b".", b"..", b"a/b", b"a\0b"] {
        assert!(matches!(fs.create(a, name, FILE), Err(Error::Invalid(_))), "{name:?}");
        assert!(fs.lookup(a, name).unwrap().is_none());
    }
    fs.create(a, &[b'x'; 255], FILE).unwrap();

    // rename(2): a directory does not go into itself, over a file, or over a full directory.
    assert!(matches!(fs.rename(root, b"a", sub, b"x"), Err(Error::Invalid(_))));
    assert!(matches!(fs.rename(root, b"a", a, b"x"), Err(Error::Invalid(_))));
    assert!(matches!(fs.rename(root, b"b", a, b"file"), Err(Error::NotADirectory(_))));
    assert!(matches!(fs.rename(a, b"file", root, b"b"), Err(Error::IsADirectory(_))));
    assert!(matches!(fs.rename(root, b"b", root, b"a"), Err(Error::NotEmpty(_))));
    assert!(matches!(fs.rename(root, b"none", root, b"a"), Err(Error::NotFound(_))));
    let links = |fs: &dyn FileSystem, node| fs.stat(node).unwrap().links;
    assert_eq!((links(&fs, root), links(&fs, a), links(&fs, b)), (5, 3, 2));
    fs.rename(a, b"sub", b, b"moved").unwrap();
    assert_eq!((links(&fs, root), links(&fs, a), links(&fs, b)), (5, 2, 3));
    let empty = fs.mkdir(root, b"empty", DIR).unwrap();
    fs.rename(b, b"moved", root, b"empty").unwrap();
    assert_eq!((links(&fs, root), links(&fs, b)), (6, 2));
    assert!(fs.stat(empty).is_err(), "the directory that was there is gone");
    fs.rename(root, b"a", root, b"a").unwrap();
    let other = fs.create(b, b"other", FILE).unwrap();
    fs.rename(a, b"file", b, b"other").unwrap();
    assert_eq!(fs.lookup(b, b"other").unwrap(), Some(file));
    assert!(fs.stat(other).is_err());
    commit(&mut fs);
    disk.fsck("renames");
    compare(&disk, "renames");
}

#[test]
fn hard_links_and_attributes() {
    let disk = Disk::make("-t ext4", 48);
    let mount = disk.mount("rw");
    shell(
        &mount.at,
        "echo content > one; ln one two; ln one three; chattr +i one; mkdir d; chattr +a d; chattr +A d",
    );
    drop(mount);
    let mut fs = disk.open();
    let root = fs.root();
    let one = at(&fs, "one");
    // Immutable: edited all the same, and still immutable.
    fs.replace(one, b"other").unwrap();
    fs.append(one, b" words").unwrap();
    fs.unlink(root, b"two").unwrap();
    assert_eq!(fs.stat(one).unwrap().links, 2);
    // Two names of one file: rename does nothing.
    fs.rename(root, b"one", root, b"three").unwrap();
    assert!(fs.lookup(root, b"one").unwrap().is_some());
    fs.chmod(one, 0o4751).unwrap();
    fs.chown(one, 70_000, 80_000).unwrap();
    let late = Timestamp { seconds: 1 << 33, nanoseconds: 999_999_999 };
    fs.set_times(one, Times { atime: Some(NOW), mtime: Some(late) }).unwrap();
    let stat = fs.stat(one).unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid, stat.mtime), (0o4751, 70_000, 80_000, late));
    assert_eq!(stat.ctime, NOW);
    let d = at(&fs, "d");
    let inside = fs.create(d, b"inside", FILE).unwrap();
    assert_eq!(fs.stat(inside).unwrap().mtime, NOW);
    commit(&mut fs);
    disk.fsck("attributes");
    compare(&disk, "attributes");
    let mount = disk.mount("rw");
    shell(
        &mount.at,
        "lsattr one | grep -q -- '-i-'; lsattr d/inside | grep -q A; ! lsattr d/inside | grep -q -- -a-; chattr -i one; chattr -a d",
    );
    drop(mount);
    assert!(disk.debugfs("stat d/inside").contains("crtime"));
}

#[test]
fn links_of_every_length() {
    for args in ["-t ext4", "-t ext4 -b 1024", "-t ext2 -b 1024", "-t ext4 -O inline_data"] {
        let disk = Disk::make(args, 48);
        let mut fs = disk.open();
        let root = fs.root();
        for length in [1, 58, 59, 60, 61, 100, 1000, 1023] {
            let target = vec![b't'; length];
            let node = fs.symlink(root, format!("{length}").as_bytes(), &target, FILE).unwrap();
            assert_eq!(fs.read_link(node).unwrap(), target);
        }
        let too_long = fs.symlink(root, b"long", &[b't'; 4096], FILE);
        assert!(matches!(too_long, Err(Error::NameTooLong(_))));
        assert!(fs.symlink(root, b"empty", b"", FILE).is_err());
        fs.unlink(root, b"1").unwrap();
        fs.unlink(root, b"100").unwrap();
        commit(&mut fs);
        disk.fsck(args);
        compare(&disk, args);
    }
}

#[test]
fn projects_are_inherited() {
    let disk = Disk::make("-t ext4 -O project,quota -I 256", 48);
    debugfs_write(&disk, "mkdir d");
    debugfs_write(&disk, "set_inode_field d flags 0x20080000");
    debugfs_write(&disk, "set_inode_field d projid 4711");
    let status = Command::new("e2fsck").args(["-fy"]).arg(&disk.path).output().unwrap().status;
    assert!(status.code().is_some_and(|code| code <= 1));
    let mut fs = disk.open();
    let d = at(&fs, "d");
    let file = fs.create(d, b"file", FILE).unwrap();
    fs.replace(file, &[1; 10_000]).unwrap();
    fs.mkdir(d, b"dir", DIR).unwrap();
    commit(&mut fs);
    disk.fsck("project");
    assert!(
        disk.debugfs("stat d/file").contains("Project:  4711"),
        "{}",
        disk.debugfs("stat d/file")
    );
    assert!(disk.debugfs("stat d/dir").contains("Flags: 0x20080000"));
}

#[test]
fn what_may_not_be_changed_is_said() {
    let refused = |disk: &Disk, word: &str| {
        let mut fs = disk.open();
        let root = fs.root();
        assert!(fs.readdir(root).is_ok());
        let error = fs.create(root, b"x", FILE).unwrap_err();
        assert!(matches!(error, Error::ReadOnly(_)), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(!fs.is_dirty());
        commit(&mut fs);
    };
    let disk = Disk::make("-t ext4 -O ^metadata_csum", 16);
    debugfs_write(&disk, "set_super_value feature_ro_compat 0x40000000");
    refused(&disk, "0x40000000");
    let disk = Disk::make("-t ext4 -O ^metadata_csum", 16);
    debugfs_write(&disk, "set_super_value feature_ro_compat 0x1003");
    refused(&disk, "read-only");
    let disk = Disk::make("-t ext4", 16);
    debugfs_write(&disk, "set_super_value state 3");
    refused(&disk, "e2fsck -f");
    let disk = Disk::make("-t ext2", 16);
    debugfs_write(&disk, "set_super_value state 0");
    refused(&disk, "e2fsck -f");
    let disk = Disk::make("-t ext4 -O ^metadata_csum", 16);
    debugfs_write(&disk, "set_super_value feature_incompat 0x80000000");
    let file = std::fs::File::open(&disk.path).unwrap();
    let device = std::sync::Arc::new(snf_fs::FileDevice::from_file(file).unwrap());
    let Err(error) = snf_fs::ext::Ext::open(device, snf_fs::ext::Options::default()) else {
        panic!("opened")
    };
    assert!(error.to_string().contains("0x80000000"), "{error}");
}

/// An image copied while it was in use: its journal is replayed in memory and stays as it is on the
/// device, unless something is changed.
#[test]
fn a_dirty_journal_waits_for_a_change() {
    let disk = Disk::make("-t ext4", 48);
    let mount = disk.mount("rw");
    shell(&mount.at, "mkdir d; echo content > d/file; sync");
    let copy = disk.dir.path().join("copy");
    std::fs::copy(&disk.path, &copy).unwrap();
    drop(mount);
    std::fs::rename(&copy, &disk.path).unwrap();
    let before = std::fs::read(&disk.path).unwrap();
    let mut fs = disk.open();
    assert!(fs.was_replayed());
    assert!(!fs.is_dirty());
    at(&fs, "d/file");
    assert!(before == std::fs::read(&disk.path).unwrap());
    let root = fs.root();
    fs.create(root, b"new", FILE).unwrap();
    assert!(fs.is_dirty());
    commit(&mut fs);
    disk.fsck("replayed");
    compare(&disk, "replayed");

    // Errors noted: the replay is not written either, and asking for it is no failure.
    std::fs::write(&disk.path, &before).unwrap();
    debugfs_write(&disk, "set_super_value state 2");
    let before = std::fs::read(&disk.path).unwrap();
    let mut fs = disk.open();
    assert!(matches!(fs.create(root, b"new", FILE), Err(Error::ReadOnly(_))));
    commit(&mut fs);
    assert!(before == std::fs::read(&disk.path).unwrap());
}

#[test]
fn encrypted_and_sealed_files_are_named() {
    let disk = Disk::make("-t ext4 -O encrypt,verity", 48);
    let mut fs = disk.open();
    let root = fs.root();
    let dir = fs.mkdir(root, b"dir", DIR).unwrap();
    let file = fs.create(root, b"file", FILE).unwrap();
    fs.create(dir, b"inside", FILE).unwrap();
    fs.create(root, b"sealed", FILE).unwrap();
    commit(&mut fs);
    debugfs_write(&disk, "set_inode_field dir flags 0x80800");
    debugfs_write(&disk, "set_inode_field file flags 0x80800");
    debugfs_write(&disk, "set_inode_field sealed flags 0x180000");
    let mut fs = disk.open();
    let sealed = at(&fs, "sealed");
    let mut buf = [0; 10];
    for result in [
        fs.readdir(dir).map(drop),
        fs.lookup(dir, b"inside").map(drop),
        fs.create(dir, b"new", FILE).map(drop),
        fs.read(file, 0, &mut buf).map(drop),
        fs.replace(file, b"x"),
        fs.rename(root, b"file", dir, b"x"),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("encrypt"), "{error}");
    }
    let error = fs.replace(sealed, b"x").unwrap_err();
    assert!(error.to_string().contains("verity"), "{error}");
    fs.unlink(root, b"sealed").unwrap();
    fs.create(root, b"sealed", FILE).unwrap();
}

#[test]
fn identity() {
    let disk = Disk::make("-t ext3 -L a-label -U 01234567-89ab-cdef-0123-456789abcdef", 16);
    let fs = disk.open();
    let info = fs.info().unwrap();
    assert_eq!(info.uuid, "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!((info.label.as_str(), info.kind.name()), ("a-label", "ext3"));
    assert_eq!(info.size, 16 << 20);
    assert_eq!(Disk::make("-t ext2", 16).open().info().unwrap().kind.name(), "ext2");
    assert_eq!(Disk::make("-t ext4", 16).open().info().unwrap().kind.name(), "ext4");
}

/// e2fsck is asked after every single operation.
#[test]
fn every_step_is_clean() {
    type Step = fn(&mut snf_fs::ext::Ext) -> Result<(), Error>;
    let steps: &[(&str, Step)] = &[
        ("mkdir", |fs| fs.mkdir(fs.root(), b"dir", DIR).map(drop)),
        ("create", |fs| fs.create(at(fs, "dir"), b"file", FILE).map(drop)),
        ("replace", |fs| fs.replace(at(fs, "dir/file"), &[1; 70_000])),
        ("append", |fs| fs.append(at(fs, "dir/file"), &[2; 70_001])),
        ("replace by less", |fs| fs.replace(at(fs, "dir/file"), b"less")),
        ("replace by nothing", |fs| fs.replace(at(fs, "dir/file"), b"")),
        ("short link", |fs| fs.symlink(fs.root(), b"short", b"dir/file", FILE).map(drop)),
        ("long link", |fs| fs.symlink(fs.root(), b"long", &[b'x'; 500], FILE).map(drop)),
        ("rename", |fs| fs.rename(at(fs, "dir"), b"file", fs.root(), b"file")),
        ("second directory", |fs| fs.mkdir(at(fs, "dir"), b"below", DIR).map(drop)),
        ("rename over", |fs| {
            let below = at(fs, "dir/below");
            fs.create(below, b"other", FILE)?;
            fs.rename(fs.root(), b"file", below, b"other")
        }),
        ("move directory", |fs| fs.rename(at(fs, "dir"), b"below", fs.root(), b"moved")),
        ("chmod", |fs| fs.chmod(at(fs, "moved/other"), 0o4711)),
        ("chown", |fs| fs.chown(at(fs, "moved/other"), 70_000, 3)),
        ("small attribute", |fs| fs.set_xattr(at(fs, "moved/other"), b"user.a", Some(b"b"))),
        ("large attribute", |fs| fs.set_xattr(at(fs, "moved"), b"user.a", Some(&[1; 600]))),
        ("remove attribute", |fs| fs.set_xattr(at(fs, "moved"), b"user.a", None)),
        ("unlink links", |fs| {
            fs.unlink(fs.root(), b"short")?;
            fs.unlink(fs.root(), b"long")
        }),
        ("unlink with attributes", |fs| fs.unlink(at(fs, "moved"), b"other")),
        ("rmdir", |fs| fs.rmdir(fs.root(), b"moved")),
        ("rmdir the other", |fs| fs.rmdir(fs.root(), b"dir")),
    ];
    for args in [
        "-t ext4",
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg",
        "-t ext3 -I 128",
        "-t ext2 -b 1024",
        "-t ext4 -O inline_data,ea_inode,quota,project -I 256",
        "-t ext4 -O bigalloc -C 16384",
    ] {
        let disk = Disk::make(args, 48);
        let before = disk.open().info().unwrap().free;
        for (what, step) in steps {
            let mut fs = disk.open();
            step(&mut fs).unwrap_or_else(|error| panic!("{args}: {what}: {error}"));
            commit(&mut fs);
            disk.fsck(&format!("{args}: {what}"));
        }
        let after = disk.open().info().unwrap().free;
        // Quota files may have got a block for a new owner; all else came back.
        assert!(
            after == before || args.contains("quota"),
            "{args}: {before} bytes free, now {after}"
        );
    }
}
