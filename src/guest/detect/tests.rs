//! Disks in memory, with and without a system.

use super::*;
use crate::guest::disk::Volume;
use snf_fs::{Attributes, FileSystem, MemoryFs};

const ANY: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

fn fs(files: &[(&str, &str)]) -> Box<dyn FileSystem> {
    let mut tree = Tree::new(Box::new(MemoryFs::new()));
    for (path, text) in files {
        let (dir, _) = path.rsplit_once('/').unwrap();
        tree.mkdir_all(format!("{dir}/"), ANY).unwrap();
        tree.write(path, text.as_bytes(), ANY).unwrap();
    }
    tree.into_file_systems().pop().unwrap()
}

fn debian() -> Box<dyn FileSystem> {
    fs(&[("/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian 12\"\n")])
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    let mut properties = Properties::default();
    for (name, value) in pairs {
        properties.set(name, *value);
    }
    properties
}

fn find(volumes: Vec<Volume>, pairs: &[(&str, &str)], needs_os: bool) -> Result<Root, String> {
    let mut disk = Disk::of_volumes(volumes);
    find_root(&mut disk, &properties(pairs), needs_os).map_err(|error| sentence(&error))
}

#[test]
fn one_root_is_found() {
    let volumes =
        || vec![Volume::open(Some(1), fs(&[("/grub/x", "")])), Volume::open(Some(3), debian())];
    let root = find(volumes(), &[], true).unwrap();
    assert_eq!((root.volume, root.family), (1, Some(OsFamily::Linux)));
    assert_eq!(root.distro.name, "Debian 12");
    let root = find(volumes(), &[("ROOT_PARTITION", "1")], false).unwrap();
    assert_eq!((root.volume, root.family), (0, None));
    let error = find(volumes(), &[("ROOT_PARTITION", "1")], true).unwrap_err();
    assert!(error.contains("partition 1") && error.contains("no directory /etc"), "{error}");
    let error = find(volumes(), &[("root_partition", "2")], true).unwrap_err();
    assert!(error.ends_with("it has partition 1, partition 3"), "{error}");
    let error = find(volumes(), &[("ROOT_PARTITION", "sda1")], true).unwrap_err();
    assert!(error.contains("sda1"), "{error}");
}

#[test]
fn what_was_tried_is_said() {
    let mut swap = Volume::open(Some(2), fs(&[]));
    swap.content = Content::Foreign("swap");
    let volumes = vec![Volume::open(Some(1), fs(&[("/etc/x", "")])), swap];
    let error = find(volumes, &[], true).unwrap_err();
    assert!(error.contains("partition 1 (memory): it has /etc, but none of /etc/os-release"));
    assert!(error.contains("partition 2 (swap): swap space"), "{error}");
    assert!(error.contains("--root-partition"));
    // No advice names a place without files, and a packed disk is told as that.
    let only = |kind| {
        let mut volume = Volume::open(None, fs(&[]));
        volume.content = Content::Foreign(kind);
        find(vec![volume], &[], true).unwrap_err()
    };
    let error = only("swap");
    assert!(error.starts_with("no operating system") && !error.contains("--root"), "{error}");
    let error = only("gzip");
    assert!(error.ends_with("is a gzip file and no raw disk: unpack it with gunzip"), "{error}");
    let volumes = vec![Volume::open(Some(1), debian()), Volume::open(Some(2), debian())];
    let error = find(volumes, &[], true).unwrap_err();
    assert!(error.contains("partition 1: Debian 12; partition 2: Debian 12"), "{error}");
}

#[test]
fn without_a_system() {
    let bare = || vec![Volume::open(None, fs(&[("/data/x", "")]))];
    assert_eq!(find(bare(), &[], false).unwrap().family, None);
    assert_eq!(find(bare(), &[("ROOT_PARTITION", "1")], false).unwrap().volume, 0);
    assert!(find(bare(), &[], true).unwrap_err().contains("no directory /etc"));
    let told = find(bare(), &[("OSFAMILY", "Linux")], true).unwrap();
    assert_eq!(told.family, Some(OsFamily::Linux));
    assert!(find(bare(), &[("OSFAMILY", "beos")], true).unwrap_err().contains("beos"));
    assert!(find(vec![], &[], true).unwrap_err().contains("table is empty"));
}

#[test]
fn hostile_trees_are_only_rejected() {
    let mut tree = Tree::new(Box::new(MemoryFs::new()));
    tree.symlink("/etc", b"/../../../../etc", ANY).unwrap();
    let fs = tree.into_file_systems().pop().unwrap();
    let error = find(vec![Volume::open(None, fs)], &[], true).unwrap_err();
    assert!(error.contains("no directory /etc"), "{error}");
    let mut tree = Tree::new(Box::new(MemoryFs::new()));
    tree.mkdir_all("/etc", ANY).unwrap();
    tree.symlink("/etc/os-release", b"os-release", ANY).unwrap();
    tree.write("/etc/passwd", b"", ANY).unwrap();
    tree.symlink("/bin", b"usr/bin", ANY).unwrap();
    let fs = tree.into_file_systems().pop().unwrap();
    assert!(find(vec![Volume::open(None, fs)], &[], true).is_ok());
}
