//! The overlay against the file system in memory: the same operations give the same tree, before
//! the commit as seen through the overlay, after it as the directory has it.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use snf_fs::testing::Random;
use snf_fs::{Attributes, FileSystem, Kind, MemoryFs, Timestamp, Tree};

use super::broker::Broker;
use super::client::Client;
use super::mounts::Mounts;
use super::overlay::{Identity, KernelFs};
use super::wire::Mounted;

const ANY: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };

/// A directory as the broker would show it, opened as file system number 0.
fn open(path: &Path) -> KernelFs {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mounts = Mounts::of_directory(path);
    std::thread::spawn(move || {
        let mut broker = Broker { mounts, ..Broker::default() };
        broker.serve(theirs).unwrap();
    });
    let identity = Identity { kind: Kind::Xfs, uuid: "u".into(), label: String::new(), now: NOW };
    let mounted = Mounted {
        mount: 0,
        block_size: 4096,
        size: 1 << 30,
        free: 1 << 29,
        default: Box::default(),
    };
    KernelFs::of_mount(Arc::new(Client::new(ours.into())), identity, &mounted).unwrap()
}

/// Every path of a tree with all that the operations below change.
fn listing(tree: &Tree, path: &str, out: &mut Vec<String>) {
    for entry in tree.read_dir(if path.is_empty() { "/" } else { path }).unwrap() {
        let full = format!("{path}/{}", String::from_utf8_lossy(&entry.name));
        let stat = tree.lstat(&full).unwrap();
        let what = match stat.file_type {
            snf_fs::FileType::Regular => {
                String::from_utf8_lossy(&tree.read(&full, 1 << 20).unwrap()).into_owned()
            }
            snf_fs::FileType::Symlink => {
                String::from_utf8_lossy(&tree.read_link(&full).unwrap()).into_owned()
            }
            _ => String::new(),
        };
        let mode = if stat.file_type == snf_fs::FileType::Symlink { 0 } else { stat.mode };
        let links = if stat.file_type == snf_fs::FileType::Regular { stat.links } else { 0 };
        let mut xattrs = tree.xattrs(&full).unwrap();
        xattrs.sort();
        out.push(format!(
            "{full} {:?} {mode:o} {} {} {links} {what:?} {xattrs:?}",
            stat.file_type, stat.uid, stat.gid
        ));
        if stat.file_type == snf_fs::FileType::Directory {
            listing(tree, &full, out);
        }
    }
}

fn all(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    listing(tree, "", &mut out);
    out
}

/// One random operation; what it says is compared, but for the words of errors.
fn operation(tree: &mut Tree, random: &mut Random, number: usize) -> bool {
    let names = ["a", "b", "c", "d/a", "d/b", "d/e/a", "e", "e/x", "l", "hard", "hard2"];
    let mut path = || format!("/{}", names[random.below(names.len())]);
    let (one, two) = (path(), path());
    let mode = [0o600, 0o644, 0o4755, 0o750][random.below(4)];
    let attributes = Attributes { mode, uid: random.below(3) as u32, gid: 7 };
    match random.below(11) {
        0 | 1 => tree.write(&one, format!("content {number}").as_bytes(), attributes).is_ok(),
        2 => tree.append(&one, b"+").is_ok(),
        3 => tree.mkdir_all(&one, attributes).is_ok(),
        4 => tree.symlink(&one, two.as_bytes(), attributes).is_ok(),
        5 => tree.unlink(&one).is_ok(),
        6 => tree.rmdir(&one).is_ok(),
        7 => tree.rename(&one, &two).is_ok(),
        8 => tree.chmod(&one, mode).is_ok(),
        9 => tree.chown(&one, attributes.uid, 3).is_ok(),
        _ => {
            let value = format!("{number}");
            let value = (!number.is_multiple_of(3)).then_some(value.as_bytes());
            // Links have no attributes of users.
            match tree.lstat(&one) {
                Ok(stat) if stat.file_type == snf_fs::FileType::Symlink => false,
                _ => tree.set_xattr(&one, b"trusted.snf", value).is_ok(),
            }
        }
    }
}

#[test]
fn the_same_operations_give_the_same_tree() {
    for seed in 0..60 {
        let dir = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
        let root = dir.path();
        let mut memory = MemoryFs::new();
        // The content at the beginning, in both.
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("a"), "first").unwrap();
        fs::write(root.join("d/a"), "second").unwrap();
        fs::hard_link(root.join("d/a"), root.join("hard")).unwrap();
        std::os::unix::fs::symlink("d/a", root.join("l")).unwrap();
        let top = memory.root();
        let d = memory.mkdir(top, b"d", ANY).unwrap();
        memory.mkdir(d, b"e", ANY).unwrap();
        let file = Attributes { mode: 0o644, ..ANY };
        let a = memory.create(top, b"a", file).unwrap();
        memory.replace(a, b"first").unwrap();
        let second = memory.create(d, b"a", file).unwrap();
        memory.replace(second, b"second").unwrap();
        memory.hard_link(second, top, b"hard").unwrap();
        memory.symlink(top, b"l", b"d/a", ANY).unwrap();
        for (path, mode) in [("d", 0o755), ("d/e", 0o755), ("a", 0o644), ("d/a", 0o644)] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(root.join(path), mode).unwrap();
        }

        let mut expected = Tree::new(Box::new(memory));
        let mut tree = Tree::new(Box::new(open(root)));
        let before = all(&Tree::new(Box::new(open(root))));
        let (mut random, mut twin) = (Random(seed), Random(seed));
        for number in 0..40 {
            let wanted = operation(&mut expected, &mut random, number);
            let got = operation(&mut tree, &mut twin, number);
            assert_eq!(got, wanted, "seed {seed}, operation {number}");
        }
        assert_eq!(all(&tree), all(&expected), "seed {seed}");
        let untouched = all(&Tree::new(Box::new(open(root))));
        assert_eq!(untouched, before, "seed {seed}: something was written too early");
        if tree.is_dirty() {
            tree.commit().unwrap();
        }
        let written = all(&Tree::new(Box::new(open(root))));
        assert_eq!(written, all(&expected), "seed {seed}, after the commit");
    }
}

#[test]
fn what_replaces_a_file_keeps_what_it_was() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shadow");
    fs::write(&path, "old").unwrap();
    fs::hard_link(&path, dir.path().join("other name")).unwrap();
    fs::write(dir.path().join("single"), "old").unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let mut tree = Tree::new(Box::new(open(dir.path())));
    tree.write("/shadow", b"new", ANY).unwrap();
    tree.write("/single", b"new", ANY).unwrap();
    tree.unlink("/other name").unwrap();
    tree.write("/other name", b"third", ANY).unwrap();
    tree.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "a file with two names stays one");
    assert_eq!(fs::read(dir.path().join("other name")).unwrap(), b"third");
    assert_eq!(fs::read(dir.path().join("single")).unwrap(), b"new");
    assert_eq!(fs::metadata(dir.path().join("single")).unwrap().mtime(), NOW.seconds);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing temporary is left");
}
