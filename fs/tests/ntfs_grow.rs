//! Growing NTFS against ntfsresize, ntfsfix, ntfs-3g and the checker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ntfs_support::{Image, bytes};
use snf_fs::ntfs::check::check;
use snf_fs::ntfs::grow::{Grown, Options, grow};
use snf_fs::testing::{Fault, FaultDevice, Random, RecordingDevice};
use snf_fs::{BlockDevice, Error, MemoryDevice, Overlay};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const QUIET: Options = Options { check: false };

fn lengthen(path: &Path, size: u64) {
    File::options().write(true).open(path).unwrap().set_len(size).unwrap();
}

/// Every file below `root` with its content.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(root).unwrap().to_path_buf();
                out.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    out
}

/// A few files, up to the last cluster when `full`.
fn some_files(image: &Image, full: bool) -> BTreeMap<PathBuf, Vec<u8>> {
    let mount = image.mount();
    let mut random = Random(3);
    for index in 0..20 {
        let size = index * 3_000;
        std::fs::write(mount.path(&format!("file {index}")), bytes(&mut random, size)).unwrap();
    }
    if full {
        let piece = bytes(&mut random, 1 << 20);
        let mut file = File::create(mount.path("all the rest")).unwrap();
        for size in [piece.len(), 65_536, 4096, 512] {
            while std::io::Write::write(&mut file, &piece[..size]).is_ok_and(|n| n > 0) {}
        }
    }
    contents(&mount.at)
}

fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.trim().starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name}: {text}"));
    line.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Clusters and free clusters, as ntfsinfo says.
fn shape(image: &Image) -> (u64, u64) {
    let text = image.tool("ntfsinfo", &["-f", "-m"]);
    (number(&text, "Volume Size in Clusters"), number(&text, "Free Clusters"))
}

#[test]
fn as_ntfsresize_does_to_the_cluster() {
    for (args, from, to, full) in [
        ("-c 4096", 32 * MIB, 33 * MIB, false),
        ("-c 4096", 32 * MIB, 300 * MIB, true),
        ("-c 4096", 32 * MIB, 100 * GIB, false),
        ("-c 512", 16 * MIB, 200 * MIB, true),
        ("-c 1024", 16 * MIB, GIB, false),
        ("-c 65536", 64 * MIB, 2048 * GIB, false),
        ("-c 2097152", 900 * MIB, 100 * GIB, false),
        ("-s 4096 -c 4096", 64 * MIB, GIB, false),
        // One cluster more, and sizes that are no whole clusters.
        ("-c 4096", 32 * MIB, 32 * MIB + 4096, false),
        ("-c 4096", 32 * MIB, 128 * MIB + 512, false),
        ("-c 65536", 64 * MIB, 128 * MIB + 3 * 512, false),
    ] {
        let what = format!("{args} {from} to {to}");
        let ours = Image::make(args, from / MIB);
        let before = some_files(&ours, full);
        ours.must_be_clean(&what);
        lengthen(&ours.path, to);
        let theirs = ours.copy();

        let grown =
            grow(&*ours.device(), to, QUIET).unwrap_or_else(|error| panic!("{what}: {error}"));
        ours.must_be_clean(&what);
        ours.fix_finds_nothing(&what);
        let text = theirs.tool("ntfsresize", &["-f", "-f"]);
        assert!(text.contains("Successfully resized"), "{what}: {text}");
        let (ours_now, theirs_now) = (shape(&ours), shape(&theirs));
        assert_eq!(ours_now.0, grown.clusters, "{what}");
        assert_eq!(ours_now, theirs_now, "{what}: clusters, free clusters");

        let mount = ours.mount();
        assert_eq!(contents(&mount.at), before, "{what}");
        let big = bytes(&mut Random(5), 3_000_000.min((to - from) as usize / 2));
        std::fs::write(mount.path("new"), &big).unwrap();
        drop(mount);
        ours.must_be_clean(&format!("{what}: after ntfs-3g"));
        assert_eq!(contents(&ours.mount().at).len(), before.len() + 1);
        // There is nothing more to do.
        let again = grow(&*ours.device(), to, Options { check: true }).unwrap();
        assert_eq!((again.before, again.marked), (grown.clusters, false), "{what}");
    }
}

#[test]
fn a_check_is_asked_for_where_wanted() {
    let image = Image::make("-c 4096", 16);
    lengthen(&image.path, 64 * MIB);
    assert!(grow(&*image.device(), 64 * MIB, Options { check: true }).unwrap().marked);
    let report = image.check();
    let codes: Vec<&str> = report.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["volume-dirty"]);
    // Then it must not be changed by us.
    lengthen(&image.path, 128 * MIB);
    let error = grow(&*image.device(), 128 * MIB, QUIET).unwrap_err();
    assert!(matches!(error, Error::ReadOnly(_)) && error.to_string().contains("chkdsk"), "{error}");
    image.tool("ntfsfix", &["-d"]);
    grow(&*image.device(), 128 * MIB, QUIET).unwrap();
    image.must_be_clean("after ntfsfix");
}

/// A volume of 2 MiB, on a device of 40 MiB: its bitmap needs another cluster.
fn small() -> (Vec<u8>, BTreeMap<PathBuf, Vec<u8>>) {
    let image = Image::make("-c 512", 2);
    let mount = image.mount();
    for index in 0..9usize {
        std::fs::write(mount.path(&format!("file {index}")), vec![index as u8; index * 999])
            .unwrap();
    }
    let before = contents(&mount.at);
    drop(mount);
    lengthen(&image.path, 40 * MIB);
    (std::fs::read(&image.path).unwrap(), before)
}

/// Every cut on a device that tears between sectors, and loses and reorders what was not flushed,
/// leaves the old volume or the new one. ntfs-3g mounts it and shows the files.
#[test]
fn a_cut_at_any_write_leaves_the_old_volume_or_the_new_one() {
    let (small, small_files) = small();
    // Into new space, where the bitmap grows as well; and by one cluster, through free space.
    let narrow = Image::make("-c 4096", 8);
    let narrow_files = some_files(&narrow, false);
    lengthen(&narrow.path, 8 * MIB + 4096);
    let narrow = std::fs::read(&narrow.path).unwrap();
    for (args, image, before, wanted) in [
        ("-c 512", &small, &small_files, false),
        ("-c 512", &small, &small_files, true),
        ("-c 4096", &narrow, &narrow_files, true),
    ] {
        let device = RecordingDevice::new(image.clone());
        let grown = grow(&device, image.len() as u64, Options { check: wanted }).unwrap();
        let last = check(&MemoryDevice::new(device.to_vec())).unwrap();
        let found: Vec<&str> = last.counts.keys().copied().collect();
        assert_eq!(found, if wanted { &["volume-dirty"][..] } else { &[] }, "{args}");
        let events = device.events().len();
        assert!((10..60).contains(&events), "{events}");
        let scratch = Image::make(args, 2.max(image.len() as u64 >> 20));
        let (mut olds, mut news, mut marks) = (0, 0, 0);
        for count in 0..=events {
            for seed in 0..4 {
                let cut = device.torn(count, seed * 1000 + count as u64);
                let what = format!("{args}: cut {count} of {events}, seed {seed}");
                let report = check(&MemoryDevice::new(cut.clone())).unwrap();
                let marked = report.counts.contains_key("volume-dirty");
                marks += u32::from(marked);
                for code in report.counts.keys().filter(|code| **code != "volume-dirty") {
                    // The copy of the boot sector leads to the records' own places.
                    let known = *code == "bitmap-leak" || marked && *code == "boot-copy";
                    assert!(known, "{what}: {:?}", report.findings);
                }
                if seed < 2 {
                    std::fs::write(&scratch.path, &cut).unwrap();
                    assert!(contents(&scratch.mount().at) == *before, "{what}");
                    if marked {
                        let text = scratch.tool("ntfsfix", &[]);
                        assert!(text.contains("was processed successfully"), "{what}: {text}");
                    }
                    let clusters = shape(&scratch).0;
                    assert!([grown.before, grown.clusters].contains(&clusters), "{what}");
                    olds += u32::from(clusters == grown.before);
                    news += u32::from(clusters == grown.clusters);
                }
            }
        }
        assert!(olds > 2 && news > 2 && marks > 2, "{args}: {olds}, {news}, {marks}");
    }
}

#[test]
fn faults_are_told_and_a_failure_before_the_boot_sector_leaves_the_old_volume() {
    let (image, _) = small();
    let count = |fault| {
        let memory = Arc::new(MemoryDevice::new(image.clone()));
        let device = FaultDevice::new(memory.clone(), fault);
        let result = grow(&device, 40 * MIB, QUIET);
        let counts = device.counts();
        use std::sync::atomic::Ordering::Relaxed;
        let done =
            [counts.reads.load(Relaxed), counts.writes.load(Relaxed), counts.flushes.load(Relaxed)];
        (result, memory.to_vec(), done)
    };
    let (result, _, [reads, writes, flushes]) = count(Fault::None);
    assert_eq!(result.unwrap().clusters, 81_919);
    for number in 0..reads {
        let (result, after, _) = count(Fault::Read(number));
        assert!(matches!(result, Err(Error::Device(_))), "read {number}");
        // All but the sector that is copied is read before the first write.
        assert_eq!(after[..2 << 20], image[..2 << 20], "read {number}");
    }
    for number in 0..writes {
        assert!(matches!(count(Fault::Write(number)).0, Err(Error::Device(_))), "write {number}");
    }
    for number in 0..flushes {
        assert!(matches!(count(Fault::Flush(number)).0, Err(Error::Device(_))), "flush {number}");
    }
}

#[test]
fn held_in_an_overlay_it_changes_nothing_before_the_commit() {
    let (image, _) = small();
    let memory = Arc::new(MemoryDevice::new(image.clone()));
    let overlay = Overlay::new(memory.clone());
    grow(&overlay, 40 * MIB, QUIET).unwrap();
    assert!(check(&overlay).unwrap().findings.is_empty());
    assert!(memory.to_vec() == image);
    overlay.commit().unwrap();
    assert!(check(&*memory).unwrap().findings.is_empty());
}

#[test]
fn what_is_not_clean_or_not_whole_is_refused() {
    let (image, _) = small();
    let at = |bytes: &[u8], what: &[u8]| {
        bytes.windows(what.len()).position(|window| window == what).unwrap()
    };
    // The log as a Windows leaves it that did not shut down: a client, and no clean flag.
    let mut page = vec![0u8; 4096];
    page[..8].copy_from_slice(b"RSTR\x1e\0\x09\0");
    page[24] = 0x30;
    let mut open = image.clone();
    let log = at(&open, &[0xff; 4096]);
    snf_fs::ntfs::check::raw::fix(&mut page);
    open[log..log + 4096].copy_from_slice(&page);
    let refused = |bytes: Vec<u8>| -> (Error, bool) {
        let device = MemoryDevice::new(bytes.clone());
        let error = grow(&device, 40 * MIB, QUIET).unwrap_err();
        (error, device.to_vec() == bytes)
    };
    let (error, same) = refused(open.clone());
    assert!(same && error.to_string().contains("$LogFile"), "{error}");
    // Closed, it is taken.
    let area = log + 0x30;
    open[area + 14] = 2;
    let mut closed = open;
    assert!(grow(&MemoryDevice::new(closed.clone()), 40 * MIB, QUIET).is_ok());
    // Shape and records.
    closed[48] = 0xff;
    closed[55] = 0xff;
    let (error, same) = refused(closed);
    assert!(same && matches!(error, Error::Corrupt { .. }), "{error}");
    let mut torn = image.clone();
    let mft = u64::from_le_bytes(torn[48..56].try_into().unwrap()) as usize * 512;
    torn[mft + 6 * 1024 + 510] ^= 1;
    let (error, same) = refused(torn);
    assert!(same && error.to_string().contains("record 6"), "{error}");
}

#[test]
fn from_4_gib_to_100_gib_few_bytes_are_written() {
    let image = Image::make("-c 4096", 4096);
    lengthen(&image.path, 100 * GIB);
    let device = FaultDevice::new(image.device(), Fault::None);
    let Grown { before, clusters, .. } = grow(&device, device.len(), QUIET).unwrap();
    assert_eq!((before, clusters), ((4 << 18) - 1, (100 << 18) - 1));
    let written = device.counts().bytes_written.load(std::sync::atomic::Ordering::Relaxed);
    // The bitmap of 100 GiB has 3.2 million bytes.
    assert!(written < 4_000_000, "{written}");
    image.must_be_clean("100 GiB");
}
