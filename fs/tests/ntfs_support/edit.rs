//! Edits of ours, and all judges of what they left.

use snf_fs::ntfs::Ntfs;
use snf_fs::testing::Random;
use snf_fs::{Attributes, FileSystem, NodeId, Timestamp};

use super::walk::{Seen, Walk, through_mount, through_us};
use super::{Image, bytes};

pub const ANY: Attributes = Attributes { mode: 0o640, uid: 1, gid: 2 };
pub const NOW: Timestamp = Timestamp { seconds: 1_750_000_000, nanoseconds: 123_456_700 };

pub fn open(image: &Image) -> Ntfs {
    Ntfs::open(image.device()).unwrap().at(NOW)
}

pub fn at(fs: &dyn FileSystem, path: &str) -> NodeId {
    path.split('/').filter(|name| !name.is_empty()).fold(fs.root(), |dir, name| {
        fs.lookup(dir, name.as_bytes()).unwrap().unwrap_or_else(|| panic!("{path}: no {name}"))
    })
}

/// The two see the same of each file or directory that both see.
pub fn same(theirs: &Walk, ours: &Walk, what: &str) {
    for (path, seen) in theirs {
        let name = String::from_utf8_lossy(path);
        let other = ours.get(path).unwrap_or_else(|| panic!("{what}: we lack {name}"));
        assert!(*seen == Seen::Other || seen == other, "{what}: {name}: {seen:?}, {other:?}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");
}

/// All judges agree, and ntfs-3g shows what `expected` was in memory.
pub fn verify(image: &Image, expected: &Walk, what: &str) {
    image.must_be_clean(what);
    image.fix_finds_nothing(what);
    let mount = image.mount();
    let theirs = through_mount(&mount.at);
    drop(mount);
    same(&theirs, expected, what);
    assert_eq!(through_us(&open(image)), *expected, "{what}");
    // Looking changes nothing that matters.
    image.must_be_clean(what);
}

/// One of every operation, some of them on every kind of file that `fill` makes.
pub fn edit(fs: &mut Ntfs, random: &mut Random) {
    let root = fs.root();
    for (name, size) in
        [("file 0", 100), ("file 1", 0), ("file 2", 90_000), ("file 4", 10), ("file 6", 2_500_000)]
    {
        let node = at(fs, name);
        fs.replace(node, &bytes(random, size)).unwrap();
    }
    for (name, size) in [
        ("file 0", 10),
        ("file 1", 700),
        ("file 3", 5_000),
        ("file 5", 1),
        ("file 6", 100_000),
        ("compressed/text", 1_000),
        ("sparse", 77),
        ("pieces 1", 123_456),
    ] {
        let node = at(fs, name);
        for _ in 0..3 {
            fs.append(node, &bytes(random, size)).unwrap();
        }
    }
    let streams = at(fs, "streams");
    fs.replace(streams, &bytes(random, 3_000)).unwrap();
    let large = at(fs, "large");
    let names: Vec<Vec<u8>> = fs.readdir(large).unwrap().into_iter().map(|e| e.name).collect();
    for name in names.iter().step_by(3) {
        fs.unlink(large, name).unwrap();
    }
    for index in 0..300 {
        let name = format!("{:x} made by us, with a name of some length", random.next_u64());
        let node = fs.create(large, name.as_bytes(), ANY).unwrap();
        if index % 5 == 0 {
            let size = random.below(20_000);
            fs.replace(node, &bytes(random, size)).unwrap();
        }
    }
    let mut dir = root;
    for level in 0..12 {
        dir = fs.mkdir(dir, format!("ours {level}").as_bytes(), ANY).unwrap();
        fs.create(dir, "Blatt: nein".replace(": ", " ").as_bytes(), ANY).unwrap();
    }
    for gone in
        ["pieces 2", "link 3 of many to one file", "junction", "a long name with a short one.text"]
    {
        fs.unlink(root, gone.as_bytes()).unwrap();
    }
    fs.rename(root, b"links", dir, b"moved").unwrap();
    fs.rename(root, b"UPPER and lower", root, b"upper AND lower").unwrap();
    fs.rename(root, "Füße".as_bytes(), root, "日本語の名前".as_bytes()).unwrap();
    let deep = at(fs, "level 0/level 1/level 2");
    let level = at(fs, "level 0/level 1");
    fs.rename(level, b"level 2", root, b"no longer deep").unwrap();
    assert_eq!(at(fs, "no longer deep"), deep);
    fs.set_times(
        at(fs, "ÿ"),
        snf_fs::Times { atime: None, mtime: Some(Timestamp { seconds: 1, nanoseconds: 100 }) },
    )
    .unwrap();
    let node = at(fs, "file 3");
    fs.chmod(node, 0o400).unwrap();
    fs.chown(node, 5, 5).unwrap();
    let empty = fs.mkdir(root, b"empty", ANY).unwrap();
    assert_eq!(at(fs, "EMPTY"), empty);
    fs.rmdir(root, b"Empty").unwrap();
}
