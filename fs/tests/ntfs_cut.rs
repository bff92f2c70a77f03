//! The power is cut at every write of a commit to NTFS: what is there then can be read and mended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ntfs_support::walk::{content, hash, through_mount, through_us};
use crate::ntfs_support::{Image, bytes};
use snf_fs::ntfs::Ntfs;
use snf_fs::ntfs::check::check;
use snf_fs::testing::{Event, Fault, FaultDevice, Random, RecordingDevice};
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, FileType, MemoryDevice, NodeId};

const ANY: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

fn volume(args: &str) -> Vec<u8> {
    let image = Image::make(args, 8);
    let mount = image.mount();
    let mut random = Random(3);
    for dir in ["kept", "changed"] {
        std::fs::create_dir(mount.path(dir)).unwrap();
        for index in 0..30usize {
            let name = format!("{dir}/file {index} with a name of some length");
            let size = index * 97 * (index % 3);
            std::fs::write(mount.path(&name), bytes(&mut random, size)).unwrap();
        }
    }
    drop(mount);
    std::fs::read(&image.path).unwrap()
}

/// A customization: one of everything.
fn edit(fs: &mut dyn FileSystem) -> Result<(), Error> {
    let dir = fs.lookup(fs.root(), b"changed")?.unwrap();
    let names: Vec<(Vec<u8>, NodeId)> =
        fs.readdir(dir)?.into_iter().map(|entry| (entry.name, entry.node)).collect();
    for (index, (name, node)) in names.iter().enumerate() {
        match index % 5 {
            0 => fs.replace(*node, &vec![b'n'; 4_000 + index])?,
            1 => fs.unlink(dir, name)?,
            2 => fs.rename(dir, name, fs.root(), name)?,
            3 => fs.append(*node, &[b'a'; 5_000])?,
            _ => {}
        }
    }
    for index in 0..40 {
        let name = format!("new file {index} that needs an index block more");
        let node = fs.create(dir, name.as_bytes(), ANY)?;
        fs.replace(node, &vec![b'c'; index * 100])?;
    }
    let sub = fs.mkdir(dir, b"new", ANY)?;
    fs.create(sub, b"leaf", ANY).map(|_| ())
}

/// The content of every regular file by its record.
fn by_record(fs: &Ntfs) -> BTreeMap<u64, u64> {
    let mut out = BTreeMap::new();
    for number in 24..fs.volume().record_count() {
        let node = NodeId(number);
        // Files of the system's own have no content of that kind.
        if let Ok(stat) = fs.stat(node)
            && stat.file_type == FileType::Regular
            && fs.volume().inode(number).unwrap().data().is_some()
        {
            out.insert(number, hash(&content(fs, node, stat.size)));
        }
    }
    out
}

#[test]
fn a_cut_at_any_write_leaves_old_or_new_content_and_asks_for_a_check() {
    for args in ["-c 4096", "-c 512"] {
        let image = volume(args);
        let device = Arc::new(RecordingDevice::new(image.clone()));
        let mut fs = Ntfs::open(device.clone()).unwrap();
        let old = by_record(&fs);
        let kept: BTreeMap<Vec<u8>, _> =
            through_us(&fs).into_iter().filter(|(path, _)| path.starts_with(b"kept/")).collect();
        assert_eq!(kept.len(), 30);
        edit(&mut fs).unwrap();
        let new = by_record(&fs);
        fs.commit().unwrap();
        assert!(check(&MemoryDevice::new(device.to_vec())).unwrap().findings.is_empty());
        let events = device.events().len();
        assert!((20..600).contains(&events), "{events}");
        let scratch = Image::make(args, 8);
        let mut asked = 0;
        for count in 0..=events {
            for (seed, torn) in [(count as u64, false), (count as u64 + 1000, true)] {
                let cut = device.cut(count, seed, torn);
                let what = format!("{args}: cut {count}, seed {seed}");
                let report = check(&MemoryDevice::new(cut.clone())).unwrap();
                let codes: Vec<&str> = report.counts.keys().copied().collect();
                let marked = codes.contains(&"volume-dirty");
                // The mark is in the mirror first.
                let harmless = codes.iter().all(|code| *code == "mft-mirror");
                assert!(harmless || marked, "{what}: {codes:?}");
                asked += u32::from(marked);
                let fs = Ntfs::open(Arc::new(MemoryDevice::new(cut.clone()))).unwrap();
                if marked {
                    let error = Ntfs::open(Arc::new(MemoryDevice::new(cut.clone())))
                        .unwrap()
                        .mkdir(fs.root(), b"x", ANY)
                        .unwrap_err();
                    assert!(error.to_string().contains("chkdsk"), "{what}: {error}");
                }
                let seen = by_record(&fs);
                for (number, hash) in &old {
                    // Old or new content; a file that goes may be gone.
                    match seen.get(number) {
                        Some(now) => assert!(
                            now == hash || new.get(number) == Some(now),
                            "{what}: record {number} has neither"
                        ),
                        None => {
                            assert!(!new.contains_key(number), "{what}: record {number} is gone")
                        }
                    }
                }
                if count % 7 == 0 && !torn {
                    std::fs::write(&scratch.path, &cut).unwrap();
                    scratch.tool("ntfsfix", &["-d"]);
                    let there = through_mount(&scratch.mount().at);
                    for (path, seen) in &kept {
                        assert_eq!(there.get(path), Some(seen), "{what}");
                    }
                }
            }
        }
        assert!(asked > 10, "{asked}");
    }
}

/// A disk that tears a single request of two sectors: the record's file is lost until a check, and every
/// other one has its old or its new content.
#[test]
fn a_torn_record_costs_its_own_file_only() {
    let image = volume("-c 4096");
    let device = Arc::new(RecordingDevice::new(image));
    let mut fs = Ntfs::open(device.clone()).unwrap();
    let old = by_record(&fs);
    edit(&mut fs).unwrap();
    let new = by_record(&fs);
    fs.commit().unwrap();
    let (mut torn, mut lost) = (0, 0);
    for (index, event) in device.events().iter().enumerate() {
        let Event::Write(offset, bytes) = event else { continue };
        if bytes.len() != 1024 || !bytes.starts_with(b"FILE") {
            continue;
        }
        let number = u64::from(u32::from_le_bytes(bytes[44..48].try_into().unwrap()));
        let mut cut = device.prefix(index);
        let at = *offset as usize;
        cut[at..at + 512].copy_from_slice(&bytes[..512]);
        let what = format!("write {index}, record {number}");
        let fs = match Ntfs::open(Arc::new(MemoryDevice::new(cut))) {
            Ok(fs) => fs,
            // One of the system's own, without which nothing can be read; chkdsk has the mirror.
            Err(error) => {
                assert!(number < 16 && matches!(error, Error::Corrupt { .. }), "{what}: {error}");
                continue;
            }
        };
        let seen = by_record(&fs);
        for (other, hash) in old.iter().filter(|(other, _)| **other != number) {
            match seen.get(other) {
                Some(now) => assert!(now == hash || new.get(other) == Some(now), "{what}: {other}"),
                None => assert!(!new.contains_key(other), "{what}: record {other} is gone"),
            }
        }
        torn += 1;
        lost += u32::from(old.contains_key(&number) && !seen.contains_key(&number));
    }
    assert!(torn > 50 && lost > 10, "{torn} torn, {lost} lost");
}

#[test]
fn faults_are_told_and_before_the_first_write_nothing_changes() {
    let image = volume("-c 4096");
    let run = |fault| {
        let memory = Arc::new(MemoryDevice::new(image.clone()));
        let device = Arc::new(FaultDevice::new(memory.clone(), fault));
        let result = Ntfs::open(device.clone()).and_then(|mut fs| {
            edit(&mut fs)?;
            fs.commit().map(|_| ())
        });
        use std::sync::atomic::Ordering::Relaxed;
        let counts = device.counts();
        let done =
            [counts.reads.load(Relaxed), counts.writes.load(Relaxed), counts.flushes.load(Relaxed)];
        (result, memory.to_vec(), done)
    };
    let (result, _, [reads, writes, flushes]) = run(Fault::None);
    result.unwrap();
    for number in 0..reads {
        let (result, after, [_, written, _]) = run(Fault::Read(number));
        assert!(matches!(result, Err(Error::Device(_))), "read {number}: {result:?}");
        assert!(written > 0 || after == image, "read {number}");
    }
    for number in (0..writes).step_by(3) {
        let (result, _, _) = run(Fault::Write(number));
        assert!(matches!(result, Err(Error::Device(_))), "write {number}");
    }
    for number in 0..flushes {
        let (result, _, _) = run(Fault::Flush(number));
        assert!(matches!(result, Err(Error::Device(_))), "flush {number}");
    }
}

#[test]
fn a_volume_that_was_not_left_well_is_read_and_not_changed() {
    let image = volume("-c 4096");
    let refused = |bytes: Vec<u8>| {
        let memory = Arc::new(MemoryDevice::new(bytes.clone()));
        let mut fs = Ntfs::open(memory.clone()).unwrap();
        assert!(through_us(&fs).len() > 60);
        let root = fs.root();
        let error = fs.create(root, b"new", ANY).unwrap_err();
        assert!(matches!(error, Error::ReadOnly(_)), "{error}");
        assert!(!fs.is_dirty());
        fs.commit().unwrap();
        assert_eq!(memory.to_vec(), bytes);
        error.to_string()
    };
    // The flag of $Volume, which nobody else's 16 bytes look like.
    let version = [0u8, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0];
    let places: Vec<usize> =
        (0..image.len() - 12).step_by(8).filter(|&at| image[at..at + 12] == version).collect();
    assert_eq!(places.len(), 2, "{places:?}");
    let mut dirty = image.clone();
    places.iter().for_each(|at| dirty[at + 10] = 1);
    assert!(refused(dirty).contains("dirty"));

    // Windows' own log, open and closed: a restart page at its begin.
    let log = {
        let fs = Ntfs::open(Arc::new(MemoryDevice::new(image.clone()))).unwrap();
        let inode = fs.volume().inode(2).unwrap();
        let mapping = inode.data().unwrap().mapping().unwrap().clone();
        (mapping.runs.get(0).unwrap().1.lcn.unwrap() * 4096) as usize
    };
    let restart = |client: u16, flags: u16| {
        let mut page = vec![0u8; 4096];
        page[..8].copy_from_slice(b"RSTR\x1e\0\x09\0");
        page[16..20].copy_from_slice(&4096u32.to_le_bytes());
        page[20..24].copy_from_slice(&4096u32.to_le_bytes());
        page[24..30].copy_from_slice(&[0x30, 0, 1, 0, 1, 0]);
        page[0x30 + 12..0x30 + 14].copy_from_slice(&client.to_le_bytes());
        page[0x30 + 14..0x30 + 16].copy_from_slice(&flags.to_le_bytes());
        snf_fs::ntfs::fixup::protect(&mut page).unwrap();
        let mut bytes = image.clone();
        bytes[log..log + 4096].copy_from_slice(&page);
        bytes[log + 4096..log + 8192].copy_from_slice(&page);
        bytes
    };
    assert!(refused(restart(0, 0)).contains("$LogFile"));
    for (client, flags) in [(0xffff, 0), (0, 2), (0xffff, 2)] {
        let mut fs = Ntfs::open(Arc::new(MemoryDevice::new(restart(client, flags)))).unwrap();
        let root = fs.root();
        fs.create(root, b"new", ANY).unwrap();
    }
    let mut torn = restart(0xffff, 2);
    torn[log + 511] ^= 1;
    torn[log + 4096 + 511] ^= 1;
    assert!(refused(torn).contains("$LogFile"));

    let scratch = Image::make("-c 4096", 8);
    std::fs::write(&scratch.path, &image).unwrap();
    std::fs::write(scratch.mount().path("hiberfil.sys"), b"hibr and so on").unwrap();
    assert!(refused(std::fs::read(&scratch.path).unwrap()).contains("hiberfil.sys"));
    std::fs::write(&scratch.path, &image).unwrap();
    std::fs::write(scratch.mount().path("hiberfil.sys"), b"wake and so on").unwrap();
    let device: Arc<dyn BlockDevice> = scratch.device();
    let mut fs = Ntfs::open(device).unwrap();
    let root = fs.root();
    fs.create(root, b"new", ANY).unwrap();
}
