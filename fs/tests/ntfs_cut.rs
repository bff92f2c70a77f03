//! The power is cut at every write of a commit to NTFS: the old volume is there then, or the new
//! one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ntfs_support::edit::same;
use crate::ntfs_support::walk::{content, hash, through_mount, through_us};
use crate::ntfs_support::{Image, bytes};
use snf_fs::ntfs::Ntfs;
use snf_fs::ntfs::check::check;
use snf_fs::testing::{Event, Fault, FaultDevice, Random, RecordingDevice};
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, FileType, MemoryDevice, NodeId};

const ANY: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

fn volume(args: &str, mib: u64) -> Vec<u8> {
    let image = Image::make(args, mib);
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

/// The kinds of findings of [`check`] in a volume whose bitmaps have too much in use.
const LEAKS: [&str; 2] = ["bitmap-leak", "mft-bitmap"];

/// Every cut on a device that tears writes between sectors, and loses and reorders what was not
/// flushed, leaves the old tree or the new one. ntfs-3g mounts it and sees the same.
#[test]
fn a_cut_at_any_write_leaves_the_old_volume_or_the_new_one() {
    for (args, mib, seeds) in [("-c 4096", 8, 4), ("-c 512", 8, 2), ("-c 65536", 24, 1)] {
        let image = volume(args, mib);
        let device = Arc::new(RecordingDevice::new(image.clone()));
        let mut fs = Ntfs::open(device.clone()).unwrap();
        let old = through_us(&fs);
        edit(&mut fs).unwrap();
        let new = through_us(&fs);
        assert_ne!(old, new);
        fs.commit().unwrap();
        assert!(check(&MemoryDevice::new(device.to_vec())).unwrap().findings.is_empty());
        let boot_sector = |event: &Event| matches!(event, Event::Write(0, _));
        let events = device.events();
        assert_eq!(events.iter().filter(|event| boot_sector(event)).count(), 2, "{args}");
        assert_eq!(device.to_vec()[..512], image[..512]);
        let scratch = Image::make(args, mib);
        let (mut marked, mut olds, mut news) = (0, 0, 0);
        for count in 0..=events.len() {
            for seed in 0..seeds {
                let cut = device.torn(count, seed * 1000 + count as u64);
                let what = format!("{args}: cut {count} of {}, seed {seed}", events.len());
                let report = check(&MemoryDevice::new(cut.clone())).unwrap();
                let is_marked = report.counts.contains_key("volume-dirty");
                for (code, _) in report.counts.iter().filter(|(code, _)| **code != "volume-dirty") {
                    // The copy of the boot sector leads to the records' own places.
                    let known = LEAKS.contains(code) || is_marked && *code == "boot-copy";
                    assert!(known, "{what}: {:?}", report.findings);
                }
                let fs = Ntfs::open(Arc::new(MemoryDevice::new(cut.clone()))).unwrap();
                let seen = through_us(&fs);
                olds += u32::from(seen == old);
                news += u32::from(seen == new);
                assert!(seen == old || seen == new, "{what}: neither old nor new");
                if is_marked {
                    marked += 1;
                    let (mut fs, root) = (fs, NodeId(5));
                    let error = fs.mkdir(root, b"x", ANY).unwrap_err();
                    assert!(error.to_string().contains("chkdsk"), "{what}: {error}");
                }
                // Programs take their time.
                if seed == 0 && (args == "-c 4096" || count % 3 == 0) {
                    std::fs::write(&scratch.path, &cut).unwrap();
                    scratch.lint(&["bitmap-leak", "mftbitmap", "boot-backup"], &what);
                    let theirs = through_mount(&scratch.mount().at);
                    same(&theirs, &seen, &what);
                    // Of a volume in the middle it brings the copy of the boot sector up to date.
                    let look: &[&str] = if is_marked { &[] } else { &["-n"] };
                    let text = scratch.tool("ntfsfix", look);
                    assert!(text.contains("was processed successfully"), "{what}: {text}");
                    if is_marked {
                        scratch.lint(&["bitmap-leak", "mftbitmap"], &what);
                        same(&through_mount(&scratch.mount().at), &seen, &what);
                    }
                }
            }
        }
        assert!(marked > 2 && olds > 2 && news > 2, "{args}: {marked}, {olds}, {news}");
    }
}

/// A volume without room for copies of its records: marked while it changes, each file old or new.
/// A record that is torn costs its own file only, until a check.
#[test]
fn a_full_volume_is_marked_and_a_torn_record_costs_its_own_file_only() {
    let image = {
        let device = Arc::new(MemoryDevice::new(volume("-c 4096", 8)));
        let mut fs = Ntfs::open(device.clone()).unwrap();
        let filler = fs.create(fs.root(), b"filler", ANY).unwrap();
        let free = fs.volume().free_clusters().unwrap();
        fs.replace(filler, &vec![1; (free as usize - 1) * 4096]).unwrap();
        fs.commit().unwrap();
        device.to_vec()
    };
    let device = Arc::new(RecordingDevice::new(image));
    let mut fs = Ntfs::open(device.clone()).unwrap();
    let old = by_record(&fs);
    let dir = fs.lookup(fs.root(), b"changed").unwrap().unwrap();
    for (index, entry) in fs.readdir(dir).unwrap().into_iter().enumerate() {
        match index % 3 {
            0 => fs.unlink(dir, &entry.name).unwrap(),
            1 => fs.replace(entry.node, b"short").unwrap(),
            _ => fs.rename(dir, &entry.name, fs.root(), &entry.name).unwrap(),
        }
    }
    let new = by_record(&fs);
    fs.commit().unwrap();
    assert!(check(&MemoryDevice::new(device.to_vec())).unwrap().findings.is_empty());
    let events = device.events();
    assert!(!events.iter().any(|event| matches!(event, Event::Write(0, _))), "not in place");
    let whole = |seen: &BTreeMap<u64, u64>, but: u64, what: &str| {
        for (number, hash) in old.iter().filter(|(number, _)| **number != but) {
            match seen.get(number) {
                Some(now) => assert!(now == hash || new.get(number) == Some(now), "{what}"),
                None => assert!(!new.contains_key(number), "{what}: record {number} is gone"),
            }
        }
    };
    for count in 0..=events.len() {
        let cut = device.cut(count, count as u64, false);
        let what = format!("cut {count}");
        let report = check(&MemoryDevice::new(cut.clone())).unwrap();
        let marked = report.counts.contains_key("volume-dirty");
        // The mark is in the mirror first.
        let harmless = report.counts.keys().all(|code| *code == "mft-mirror");
        assert!(harmless || marked, "{what}: {:?}", report.findings);
        whole(&by_record(&Ntfs::open(Arc::new(MemoryDevice::new(cut))).unwrap()), 0, &what);
    }
    let (mut torn, mut lost) = (0, 0);
    for (index, event) in events.iter().enumerate() {
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
        whole(&seen, number, &what);
        torn += 1;
        lost += u32::from(old.contains_key(&number) && !seen.contains_key(&number));
    }
    assert!(torn > 20 && lost > 5, "{torn} torn, {lost} lost");
}

#[test]
fn faults_are_told_and_before_the_first_write_nothing_changes() {
    let image = volume("-c 4096", 8);
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
    let image = volume("-c 4096", 8);
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
        mapping.runs.get(0).unwrap().1.lcn.unwrap().byte(4096) as usize
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
