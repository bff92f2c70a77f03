//! What the NTFS engine writes, judged by the checker, ntfsfix and ntfs-3g, which then edits it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ntfs_support;

use std::sync::Arc;

use ntfs_support::walk::{Seen, Walk, hash, through_mount, through_us};
use ntfs_support::{Image, bytes, fill};
use snf_fs::ntfs::Ntfs;
use snf_fs::testing::{Fault, FaultDevice, Random};
use snf_fs::{Attributes, Error, FileSystem, NodeId, Timestamp};

const ANY: Attributes = Attributes { mode: 0o640, uid: 1, gid: 2 };
const NOW: Timestamp = Timestamp { seconds: 1_750_000_000, nanoseconds: 123_456_700 };

const VOLUMES: [(&str, u64); 5] = [
    ("-c 4096", 120),
    ("-c 512", 120),
    ("-c 65536", 200),
    ("-s 4096 -c 4096", 120),
    ("-c 2097152", 900),
];

fn open(image: &Image) -> Ntfs {
    Ntfs::open(image.device()).unwrap().at(NOW)
}

fn at(fs: &dyn FileSystem, path: &str) -> NodeId {
    path.split('/').filter(|name| !name.is_empty()).fold(fs.root(), |dir, name| {
        fs.lookup(dir, name.as_bytes()).unwrap().unwrap_or_else(|| panic!("{path}: no {name}"))
    })
}

/// Where the two see a file or directory, they see the same.
fn same(theirs: &Walk, ours: &Walk, what: &str) {
    for (path, seen) in theirs {
        let name = String::from_utf8_lossy(path);
        let other = ours.get(path).unwrap_or_else(|| panic!("{what}: we lack {name}"));
        assert!(*seen == Seen::Other || seen == other, "{what}: {name}: {seen:?}, {other:?}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");
}

/// All judges agree, and ntfs-3g shows what `expected` was in memory.
fn verify(image: &Image, expected: &Walk, what: &str) {
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

#[test]
fn one_file_replaced_and_one_made() {
    let image = Image::make("-c 4096", 20);
    std::fs::write(image.mount().path("hosts"), b"old").unwrap();
    let before = std::fs::read(&image.path).unwrap();
    let mut fs = open(&image);
    let hosts = at(&fs, "hosts");
    fs.replace(hosts, b"127.0.0.1 localhost").unwrap();
    let new = fs.create(fs.root(), b"a new file.txt", ANY).unwrap();
    fs.replace(new, &[7; 10_000]).unwrap();
    assert!(fs.is_dirty());
    assert_eq!(std::fs::read(&image.path).unwrap(), before);
    let expected = through_us(&fs);
    fs.commit().unwrap();
    assert!(!fs.is_dirty());
    assert_eq!(through_us(&fs), expected);
    verify(&image, &expected, "two files");
    let stat = fs.stat(new).unwrap();
    assert_eq!((stat.mtime, stat.size, stat.links), (NOW, 10_000, 1));
    assert_eq!(fs.commit().unwrap().metadata_blocks, 0);
}

/// One of every operation, some of them on every kind of file that `fill` makes.
fn edit(fs: &mut Ntfs, random: &mut Random) {
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

#[test]
fn every_operation_on_every_kind_of_volume() {
    for (args, mib) in VOLUMES {
        let image = Image::make(args, mib);
        let mount = image.mount();
        fill(&mount, 400);
        drop(mount);
        let mut fs = open(&image);
        let large = fs.streams(at(&fs, "streams")).unwrap();
        let mut random = Random(9);
        edit(&mut fs, &mut random);
        let expected = through_us(&fs);
        fs.commit().unwrap();
        assert_eq!(fs.streams(at(&fs, "streams")).unwrap(), large, "{args}");
        assert_eq!(through_us(&fs), expected, "{args}");
        verify(&image, &expected, args);

        // ntfs-3g edits what we wrote, and we edit that again.
        let mount = image.mount();
        for index in 0..200 {
            std::fs::write(mount.path(&format!("large/by ntfs-3g {index}")), [1; 700]).unwrap();
        }
        for (index, entry) in std::fs::read_dir(mount.path("large")).unwrap().enumerate() {
            if index % 2 == 0 {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
        std::fs::remove_dir_all(mount.path("ours 0/ours 1")).unwrap();
        std::fs::write(mount.path("file 6"), bytes(&mut random, 300_000)).unwrap();
        std::fs::rename(mount.path("no longer deep"), mount.path("ours 0/deep")).unwrap();
        drop(mount);
        image.must_be_clean(&format!("{args}: after ntfs-3g"));
        let mut fs = open(&image);
        let dir = at(&fs, "large");
        for entry in fs.readdir(dir).unwrap() {
            fs.unlink(dir, &entry.name).unwrap();
        }
        fs.rmdir(fs.root(), b"large").unwrap();
        let expected = through_us(&fs);
        fs.commit().unwrap();
        verify(&image, &expected, &format!("{args}: again"));
    }
}

#[test]
fn a_failed_operation_leaves_the_volume_in_memory_as_it_was() {
    let image = Image::make("-c 4096", 12);
    std::fs::write(image.mount().path("file"), b"there").unwrap();
    let mut fs = open(&image);
    let (root, file) = (fs.root(), at(&fs, "file"));
    let before = through_us(&fs);
    let free = fs.info().unwrap().free;
    let much = vec![1; 20 << 20];
    assert!(matches!(fs.replace(file, &much), Err(Error::NoSpace(_))));
    assert!(matches!(fs.append(file, &much), Err(Error::NoSpace(_))));
    assert!(matches!(fs.create(root, b"FILE", ANY), Err(Error::Exists(_))));
    assert!(matches!(fs.create(file, b"x", ANY), Err(Error::NotADirectory(_))));
    assert!(matches!(fs.rmdir(root, b"file"), Err(Error::NotADirectory(_))));
    assert!(matches!(fs.replace(root, b""), Err(Error::IsADirectory(_) | Error::Invalid(_))));
    assert!(matches!(fs.replace(NodeId(0), b""), Err(Error::Invalid(_))));
    assert!(matches!(fs.unlink(root, b"$Bitmap"), Err(Error::NotFound(_))));
    for bad in ["a:b", "a\\b", "con", "nul.txt", "dot.", "$MFT", "a?", ""] {
        assert!(fs.create(root, bad.as_bytes(), ANY).is_err(), "{bad}");
    }
    assert!(matches!(fs.create(root, &[b'x'; 256], ANY), Err(Error::NameTooLong(_))));
    assert!(!fs.is_dirty());
    assert_eq!(through_us(&fs), before);
    assert_eq!(fs.info().unwrap().free, free);
    // A full disk is full, and what fitted is there.
    let mut made = 0;
    let error = loop {
        let name = format!("piece {made}");
        let node = fs.create(root, name.as_bytes(), ANY).unwrap();
        match fs.replace(node, &vec![made as u8; 1 << 20]) {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoSpace(_)), "{error}");
    assert!(made > 3, "{made}");
    let expected = through_us(&fs);
    fs.commit().unwrap();
    verify(&image, &expected, "full");
}

#[test]
fn thousands_of_files_need_more_of_everything() {
    for (args, mib) in [("-c 512", 40), ("-s 4096 -c 4096", 100)] {
        let image = Image::make(args, mib);
        let mut fs = open(&image);
        let dir = fs.mkdir(fs.root(), b"many", ANY).unwrap();
        let mut random = Random(1);
        for index in 0..2_000 {
            let name = format!("{:x}", random.next_u64() >> random.below(60));
            match fs.create(dir, format!("{name} {index}").as_bytes(), ANY) {
                Ok(node) if index % 10 == 0 => fs.replace(node, name.as_bytes()).unwrap(),
                Ok(_) => {}
                Err(error) => panic!("{args}: {index}: {error}"),
            }
        }
        let expected = through_us(&fs);
        fs.commit().unwrap();
        verify(&image, &expected, args);
        for (index, entry) in fs.readdir(dir).unwrap().iter().enumerate() {
            if index % 50 != 0 {
                fs.unlink(dir, &entry.name).unwrap();
            }
        }
        let expected = through_us(&fs);
        fs.commit().unwrap();
        verify(&image, &expected, &format!("{args}: fewer"));
        assert_eq!(expected.values().filter(|seen| **seen == Seen::Directory).count(), 1);
        assert!(
            expected
                .values()
                .any(|seen| matches!(seen, Seen::File { hash: h, .. } if *h == hash(b"")))
        );
    }
}

#[test]
fn ten_files_cost_few_blocks() {
    let image = Image::make("-c 4096", 100);
    let mount = image.mount();
    fill(&mount, 2_000);
    drop(mount);
    let device = Arc::new(FaultDevice::new(image.device(), Fault::None));
    let mut fs = Ntfs::open(device.clone()).unwrap();
    let dir = at(&fs, "large");
    for index in 0..10usize {
        let node = fs.create(dir, format!("injected file {index}.conf").as_bytes(), ANY).unwrap();
        fs.replace(node, &vec![b'x'; index * 1_000]).unwrap();
    }
    let expected = through_us(&fs);
    let report = fs.commit().unwrap();
    let (_, written) = device.counts().blocks();
    assert!((20..200).contains(&written), "{written} {report:?}");
    verify(&image, &expected, "ten files");
}

#[test]
fn growing_waits_for_the_commit() {
    let image = Image::make("-c 4096", 20);
    std::fs::File::options().write(true).open(&image.path).unwrap().set_len(64 << 20).unwrap();
    let before = std::fs::read(&image.path).unwrap();
    let mut fs = open(&image);
    let new = fs.create(fs.root(), b"new", ANY).unwrap();
    fs.replace(new, &[1; 5_000]).unwrap();
    assert!(fs.grow(10 << 20).unwrap() < 20 << 20);
    let size = fs.grow_and(64 << 20, false).unwrap();
    assert!(size > 63 << 20 && size < 64 << 20, "{size}");
    assert_eq!(fs.info().unwrap().size, size);
    assert_eq!(std::fs::read(&image.path).unwrap(), before);
    let expected = through_us(&fs);
    fs.commit().unwrap();
    assert!(!fs.is_dirty());
    assert_eq!(fs.info().unwrap().size, size);
    assert!(fs.info().unwrap().free > 40 << 20);
    verify(&image, &expected, "grown");
    let more = fs.create(fs.root(), b"more", ANY).unwrap();
    fs.replace(more, &vec![2; 30 << 20]).unwrap();
    let expected = through_us(&fs);
    fs.commit().unwrap();
    verify(&image, &expected, "used");
    // Marked for a check, it is not ours to change any more.
    std::fs::File::options().write(true).open(&image.path).unwrap().set_len(90 << 20).unwrap();
    let mut fs = open(&image);
    fs.grow(90 << 20).unwrap();
    fs.commit().unwrap();
    assert!(matches!(fs.create(fs.root(), b"no", ANY), Err(Error::ReadOnly(_))));
}

#[test]
fn fragments_need_attribute_lists_of_files_and_of_the_mft() {
    let image = Image::make("-c 512", 10);
    let mut fs = open(&image);
    let root = fs.root();
    // Until nothing fits any more; then every other one goes.
    let mut names = Vec::new();
    loop {
        let name = format!("f{}", names.len());
        let made = fs.create(root, name.as_bytes(), ANY).and_then(|node| {
            names.push(name);
            fs.replace(node, &[b'f'; 900])
        });
        match made {
            Ok(()) => {}
            Err(Error::NoSpace(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    fs.commit().unwrap();
    for name in names.iter().step_by(2) {
        fs.unlink(root, name.as_bytes()).unwrap();
    }
    let expected = through_us(&fs);
    fs.commit().unwrap();
    verify(&image, &expected, "every other one");

    let free = fs.info().unwrap().free as usize;
    let big = fs.create(root, b"big", ANY).unwrap();
    let content = bytes(&mut Random(2), free - 40_000);
    fs.replace(big, &content).unwrap();
    let inode = fs.volume().inode(big.0).unwrap();
    assert!(inode.extensions.len() > 2, "{}", inode.extensions.len());
    fs.append(big, b"and more").unwrap();
    let expected = through_us(&fs);
    fs.commit().unwrap();
    verify(&image, &expected, "a file in pieces");
    // It becomes whole again, and the MFT needs more pieces than its record names.
    fs.replace(big, b"small").unwrap();
    assert!(fs.volume().inode(big.0).unwrap().extensions.is_empty());
    fs.commit().unwrap();
    let records = fs.volume().record_count();
    let mut made = 0;
    while fs.volume().inode(0).unwrap().extensions.is_empty() && made < 5_000 {
        match fs.create(root, format!("record {made}").as_bytes(), ANY) {
            Ok(_) => made += 1,
            Err(Error::NoSpace(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(fs.volume().record_count() > records, "{made}");
    let expected = through_us(&fs);
    fs.commit().unwrap();
    verify(&image, &expected, "the MFT in pieces");
}
