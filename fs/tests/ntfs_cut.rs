//! The power is cut at every write of a commit to NTFS: the old volume is there then, or the new
//! one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use crate::ntfs_support::edit::same;
use crate::ntfs_support::walk::{through_mount, through_us};
use crate::ntfs_support::{Image, bytes};
use snf_fs::ntfs::check::check;
use snf_fs::ntfs::{Ntfs, RecordNumber};
use snf_fs::testing::{Event, Fault, FaultDevice, Random, RecordingDevice};
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, MemoryDevice, NodeId};

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

/// A volume with `left` free clusters, filled by ntfs-3g.
fn filled(args: &str, mib: u64, left: u64) -> Vec<u8> {
    let image = Image::make(args, mib);
    std::fs::write(&image.path, volume(args, mib)).unwrap();
    std::fs::write(image.mount().path("filler"), b"").unwrap();
    let shape = || {
        let fs = Ntfs::open(image.device()).unwrap();
        (fs.volume().free_clusters().unwrap(), fs.volume().geometry.cluster)
    };
    let (free, cluster) = shape();
    std::fs::write(image.mount().path("filler"), vec![1; ((free - left) * cluster) as usize])
        .unwrap();
    assert_eq!(shape().0, left);
    std::fs::read(&image.path).unwrap()
}

/// The room of a volume that is nearly full.
fn small_edit(fs: &mut dyn FileSystem) -> Result<(), Error> {
    let dir = fs.lookup(fs.root(), b"changed")?.unwrap();
    for (index, entry) in fs.readdir(dir)?.into_iter().enumerate() {
        match index % 3 {
            0 => fs.unlink(dir, &entry.name)?,
            1 => fs.replace(entry.node, b"short")?,
            _ => fs.rename(dir, &entry.name, fs.root(), &entry.name)?,
        }
    }
    Ok(())
}

/// Every cut of a commit, torn and reordered, leaves the old tree or the new one; ntfs-3g agrees with
/// every `step`th.
fn old_or_new(image: &[u8], args: &str, mib: u64, step: usize, work: impl Fn(&mut Ntfs)) {
    let device = Arc::new(RecordingDevice::new(image.to_vec()));
    let mut fs = Ntfs::open(device.clone()).unwrap();
    let old = through_us(&fs);
    work(&mut fs);
    let new = through_us(&fs);
    fs.check_commit().unwrap();
    assert!(device.events().is_empty());
    fs.commit().unwrap();
    assert!(check(&MemoryDevice::new(device.to_vec())).unwrap().findings.is_empty());
    assert_eq!(device.to_vec()[..512], image[..512]);
    let scratch = Image::make(args, mib);
    let events = device.events().len();
    let (mut olds, mut news) = (0, 0);
    for count in 0..=events {
        for seed in 0..3 {
            let cut = device.torn(count, seed * 1000 + count as u64);
            let what = format!("{args}: cut {count} of {events}, seed {seed}");
            let report = check(&MemoryDevice::new(cut.clone())).unwrap();
            let is_marked = report.counts.contains_key("volume-dirty");
            for code in report.counts.keys().filter(|code| **code != "volume-dirty") {
                let known = LEAKS.contains(code) || is_marked && *code == "boot-copy";
                assert!(known, "{what}: {:?}", report.findings);
            }
            let seen = through_us(&Ntfs::open(Arc::new(MemoryDevice::new(cut.clone()))).unwrap());
            olds += u32::from(seen == old);
            news += u32::from(seen == new);
            assert!(seen == old || seen == new, "{what}: neither old nor new");
            if seed == 0 && count % step == 0 {
                std::fs::write(&scratch.path, &cut).unwrap();
                scratch.lint(&["bitmap-leak", "mftbitmap", "boot-backup"], &what);
                same(&through_mount(&scratch.mount().at), &seen, &what);
            }
        }
    }
    assert!(olds > 2 && news > 2, "{args}: {olds}, {news}");
}

/// A volume without room for the copies stays as it is, and says so before the first write. With the
/// least room that is enough, every cut is as safe as on an empty one.
#[test]
fn a_nearly_full_volume_is_refused_or_as_safe_as_an_empty_one() {
    for (args, mib) in [("-c 4096", 8), ("-c 512", 8)] {
        let mut refused = 0;
        let enough = (0..120).step_by(2).find(|&left| {
            let image = filled(args, mib, left);
            let device = Arc::new(RecordingDevice::new(image.clone()));
            let mut fs = Ntfs::open(device.clone()).unwrap();
            let result = small_edit(&mut fs).and_then(|()| fs.check_commit());
            assert!(device.events().is_empty());
            if let Err(error) = &result {
                assert!(matches!(error, Error::NoSpace(_)), "{args}: {left} left: {error}");
                refused += 1;
            } else {
                old_or_new(&image, args, mib, 9, |fs| small_edit(fs).unwrap());
            }
            result.is_ok()
        });
        assert!(enough.is_some_and(|left| left > 0) && refused > 0, "{args}: {enough:?}");
    }
    // The changes themselves have room, and the copies have not.
    let image = filled("-c 4096", 8, 1);
    let device = Arc::new(RecordingDevice::new(image.clone()));
    let mut fs = Ntfs::open(device.clone()).unwrap();
    let dir = fs.lookup(fs.root(), b"changed").unwrap().unwrap();
    let entry = fs.readdir(dir).unwrap().remove(0);
    fs.replace(entry.node, b"short").unwrap();
    for result in [fs.check_commit(), fs.commit().map(|_| ())] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("no power cut can tear") && error.contains(" are left"), "{error}");
        assert!(error.contains("enlarge the volume"), "{error}");
    }
    assert!(device.events().is_empty() && fs.is_dirty());
}

/// A volume with an MFT whose list of clusters takes several records, and with a free part that is in
/// one piece. All of it is made by ntfs-3g.
fn fragmented() -> Vec<u8> {
    let image = Image::make("-c 4096", 10);
    std::fs::write(&image.path, volume("-c 4096", 10)).unwrap();
    let mount = image.mount();
    std::fs::write(mount.path("room"), vec![b'r'; 2 << 20]).unwrap();
    let names: Vec<String> = (0..3_000).map(|number| format!("f{number}")).collect();
    let made = |name: &&String| std::fs::write(mount.path(name), [b'f'; 4_000]).is_ok();
    let made = names.iter().take_while(made).count();
    assert!(made > 500 && made < names.len(), "{made}");
    for name in names.iter().take(made).step_by(2) {
        std::fs::remove_file(mount.path(name)).unwrap();
    }
    drop(mount);
    // Records until the volume is full: the MFT takes one cluster here and one there.
    let mount = image.mount();
    let records = (0..6_000).map(|number| format!("record {number}"));
    let made = records.take_while(|name| std::fs::write(mount.path(name), b"").is_ok()).count();
    assert!(made > 1_000, "{made}");
    drop(mount);
    std::fs::remove_file(image.mount().path("room")).unwrap();
    std::fs::read(&image.path).unwrap()
}

#[test]
fn an_mft_in_many_pieces_changes_as_a_whole_too() {
    let image = fragmented();
    let fs = Ntfs::open(Arc::new(MemoryDevice::new(image.clone()))).unwrap();
    let mft = fs.volume().inode(RecordNumber(0)).unwrap();
    let runs = mft.data().unwrap().mapping().unwrap().runs.len();
    assert!(!mft.extensions.is_empty() && runs > 50, "{runs}");
    old_or_new(&image, "-c 4096", 10, 5, |fs| {
        small_edit(fs).unwrap();
        // Records at both ends of the MFT.
        let node = fs.create(fs.root(), b"one more", ANY).unwrap();
        fs.replace(node, &[b'm'; 3_000]).unwrap();
        fs.unlink(fs.root(), b"record 3").unwrap();
    });
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
        let inode = fs.volume().inode(RecordNumber(2)).unwrap();
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
