//! Volumes that the NTFS engine wrote, judged by the checker, ntfsfix and ntfs-3g, which then edits them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::ntfs_support::edit::{ANY, NOW, at, edit, open, same, verify};
use crate::ntfs_support::walk::{Seen, hash, through_mount, through_us};
use crate::ntfs_support::{Image, bytes, fill};
use snf_fs::ntfs::{Ntfs, RecordNumber};
use snf_fs::testing::{Fault, FaultDevice, Random};
use snf_fs::{Error, FileSystem, NodeId};

/// mkntfs's options and MiB: every size of clusters on sectors of 512 bytes (records of 1 KiB), and
/// some on sectors of 4096 (records of 4 KiB).
fn volumes() -> Vec<(String, u64)> {
    let mut out = Vec::new();
    for power in 9..=21 {
        let cluster = 1u64 << power;
        // A file takes a cluster at least.
        let mib = (100 + cluster / 2600).min(900);
        out.push((format!("-c {cluster}"), mib));
        if matches!(cluster, 4096 | 65_536 | 2_097_152) {
            out.push((format!("-s 4096 -c {cluster}"), mib));
        }
    }
    out
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

#[test]
fn every_operation_on_every_kind_of_volume() {
    for (args, mib) in volumes() {
        let args = args.as_str();
        let image = Image::make(args, mib);
        let mount = image.mount();
        fill(&mount, if args == "-c 4096" { 400 } else { 60 });
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

/// Names of all lengths and alphabets, halves of surrogate pairs among them.
fn name(random: &mut Random, number: usize) -> Vec<u8> {
    let long = "y".repeat(random.below(60));
    match number % 5 {
        0 => format!("{number}").into_bytes(),
        1 => format!("{long} Größe ΑΒΓ {number}").into_bytes(),
        2 => format!("日本 {long}{number}").into_bytes(),
        3 => format!("\u{1f600} {number}").into_bytes(),
        _ => [b"half \xed\xa0\x80 ", number.to_string().as_bytes()].concat(),
    }
}

#[test]
fn ten_thousand_files_in_one_directory() {
    let image = Image::make("-c 4096", 120);
    let mount = image.mount();
    let mut random = Random(8);
    std::fs::create_dir(mount.path("many")).unwrap();
    for number in 0..10_000 {
        let path = mount.path("many").join(OsStr::from_bytes(&name(&mut random, number)));
        let size = if number % 10 == 0 { random.below(3_000) } else { 0 };
        std::fs::write(path, bytes(&mut random, size)).unwrap();
    }
    let theirs = through_mount(&mount.at);
    drop(mount);
    let mut fs = open(&image);
    same(&theirs, &through_us(&fs), "as ntfs-3g made them");
    let dir = at(&fs, "many");
    for (index, entry) in fs.readdir(dir).unwrap().iter().enumerate() {
        match index % 8 {
            0..=2 => fs.unlink(dir, &entry.name).unwrap(),
            3 => {
                let to = name(&mut random, 20_000 + index);
                fs.rename(dir, &entry.name, dir, &to).unwrap();
            }
            _ => {}
        }
    }
    for number in 40_000..43_000 {
        let node = fs.create(dir, &name(&mut random, number), ANY).unwrap();
        if number % 10 == 0 {
            fs.replace(node, &bytes(&mut random, number % 5_000)).unwrap();
        }
    }
    let expected = through_us(&fs);
    assert_eq!(expected.len(), 1 + 10_000 - 3_750 + 3_000);
    fs.commit().unwrap();
    verify(&image, &expected, "ten thousand");

    let mount = image.mount();
    // First the whole list: ntfs-3g shows names again when some go meanwhile.
    let names: Vec<_> =
        std::fs::read_dir(mount.path("many")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in names.iter().step_by(2) {
        std::fs::remove_file(path).unwrap();
    }
    for number in 60_000..62_000 {
        let path = mount.path("many").join(OsStr::from_bytes(&name(&mut random, number)));
        std::fs::write(path, b"again").unwrap();
    }
    let theirs = through_mount(&mount.at);
    drop(mount);
    image.must_be_clean("after ntfs-3g");
    same(&theirs, &through_us(&open(&image)), "after ntfs-3g");
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
    let image = Image::make("-c 4096", 16);
    let mut fs = open(&image);
    let root = fs.root();
    // Until there is room for a copy of the MFT and not for much more; then every other one goes.
    let mut names = Vec::new();
    while fs.info().unwrap().free > 4_500_000 {
        let name = format!("f{}", names.len());
        let node = fs.create(root, name.as_bytes(), ANY).unwrap();
        fs.replace(node, &[b'f'; 4_000]).unwrap();
        names.push(name);
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
    let content = bytes(&mut Random(2), free - 400_000);
    fs.replace(big, &content).unwrap();
    let inode = fs.volume().inode(RecordNumber(big.0)).unwrap();
    assert!(inode.extensions.len() > 2, "{}", inode.extensions.len());
    fs.append(big, b"and more").unwrap();
    let expected = through_us(&fs);
    fs.commit().unwrap();
    verify(&image, &expected, "a file in pieces");
    // It becomes whole again, and the MFT needs more pieces than its record names.
    fs.replace(big, b"small").unwrap();
    assert!(fs.volume().inode(RecordNumber(big.0)).unwrap().extensions.is_empty());
    fs.commit().unwrap();
    let records = fs.volume().record_count();
    let mut made = 0;
    while fs.volume().inode(RecordNumber(0)).unwrap().extensions.is_empty() && made < 5_000 {
        match fs.create(root, format!("record {made}").as_bytes(), ANY) {
            Ok(_) => made += 1,
            Err(Error::NoSpace(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(fs.volume().record_count() > records, "{made}");
    let expected = through_us(&fs);
    let before = std::fs::read(&image.path).unwrap();
    match fs.commit() {
        Ok(_) => verify(&image, &expected, "the MFT in pieces"),
        // Neither the MFT nor the free room is in pieces that are long enough.
        Err(error) => {
            assert!(error.to_string().contains("no power cut can tear"), "{error}");
            assert!(std::fs::read(&image.path).unwrap() == before);
        }
    }
}
