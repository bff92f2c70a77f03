//! Commits through the journal: clean afterwards, and old or new whenever the power goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use crate::journal_support::*;
use snf_fs::ext::internals::journal::{commit, open_volume, transaction_capacity};
use snf_fs::ext::internals::units::FsBlock;
use snf_fs::testing::{Event, Fault, FaultDevice, RecordingDevice};
use snf_fs::{BlockDevice, Error, MemoryDevice};

#[test]
fn a_commit_leaves_nothing_to_say() {
    let dir = scratch();
    for flavour in FLAVOURS {
        let old = make(dir.path(), flavour, 8192, 1024);
        let new = customize(dir.path(), &old);
        let difference = difference(&old, &new);
        assert!(difference.meta.len() > 4 && difference.data.len() > 8);
        let device = Arc::new(MemoryDevice::new(old.clone()));
        let (mut vol, dirty) = open_on(device.clone());
        assert!(!dirty);
        stage(&mut vol, &new, &difference);
        let report = commit(&mut vol).unwrap();
        assert_eq!(report.transactions, 1);
        let after = device.to_vec();
        assert!(which(&after, &old, &new, &difference, flavour.name));
        assert_clean(dir.path(), &after, flavour.name);
        // Nothing is left to do, and the same volume can go on.
        assert_eq!(commit(&mut vol).unwrap().transactions, 0);
        let block = FsBlock::new(*difference.meta.first().unwrap());
        let content = vol.store.read(block).unwrap().to_vec();
        vol.store.write_meta(block, content).unwrap();
        assert_eq!(commit(&mut vol).unwrap().transactions, 1);
        assert_clean(dir.path(), &device.to_vec(), flavour.name);
    }
}

#[test]
fn cut_power_leaves_old_or_new() {
    let dir = scratch();
    for flavour in FLAVOURS {
        let size = if flavour.args.contains(&"-J") { 6144 } else { 4096 };
        let Committed { old, new, difference, device, .. } = committed(dir.path(), flavour, size);
        let events = device.events();
        assert_eq!(events.iter().filter(|event| **event == Event::Flush).count(), 5);
        let mut seen_new = false;
        for count in 0..=events.len() {
            let what = format!("{} after {count} of {} events", flavour.name, events.len());
            let image = device.prefix(count);
            let repaired = repair(dir.path(), &image, &what);
            let is_new = which(&repaired, &old, &new, &difference, &what);
            assert!(is_new || !seen_new, "{what}: new went back to old");
            seen_new = is_new;
            // Our own replay sees the same as e2fsck's.
            let (vol, _) = open(image);
            for &n in &difference.meta {
                let at = n as usize * difference.block_size;
                let theirs = &repaired[at..at + difference.block_size];
                assert!(*vol.store.read(FsBlock::new(n)).unwrap() == *theirs, "{what}: block {n}");
            }
        }
        assert!(seen_new);
        for seed in 0..24 {
            let count = 1 + seed as usize * 7 % events.len();
            let what = format!("{} cut after {count}, seed {seed}", flavour.name);
            let repaired = repair(dir.path(), &device.cut(count, seed, true), &what);
            which(&repaired, &old, &new, &difference, &what);
        }
    }
}

/// A guest boots after any cut: what was not flushed is lost, reordered and torn at 512 bytes between
/// every two flushes, and `e2fsck -p` never asks for a person.
#[test]
fn a_boot_after_any_cut_mends_by_itself() {
    let dir = scratch();
    for flavour in FLAVOURS {
        let size = if flavour.args.contains(&"-J") { 6144 } else { 4096 };
        let Committed { old, new, difference, device, .. } = committed(dir.path(), flavour, size);
        let (mut olds, mut news) = (0, 0);
        device.losses(&SUPERBLOCK, 6, |state, image| {
            let what = format!("{}: {state}", flavour.name);
            let repaired = preen(dir.path(), &image, &what);
            let is_new = which(&repaired, &old, &new, &difference, &what);
            *if is_new { &mut news } else { &mut olds } += 1;
        });
        assert!(olds > 5 && news > 5, "{}: {olds} old, {news} new", flavour.name);
    }
}

#[test]
fn several_transactions_are_committed_one_after_the_other() {
    let dir = scratch();
    let flavour = &FLAVOURS[3];
    let old = make(dir.path(), flavour, 4096, 1024);
    let middle = customize(dir.path(), &old);
    let new = edit(dir.path(), &middle, "rm /etc/shadow\nrm /home/user/file-30\nmkdir /var\n");
    let (first, second) = (difference(&old, &middle), difference(&middle, &new));
    let device = Arc::new(RecordingDevice::new(old.clone()));
    let (mut vol, _) = open_on(device.clone());
    stage(&mut vol, &middle, &first);
    snf_fs::ext::internals::journal::seal(&mut vol).unwrap();
    stage(&mut vol, &new, &second);
    assert_eq!(commit(&mut vol).unwrap().transactions, 2);
    assert_clean(dir.path(), &device.to_vec(), "two transactions");
    let events = device.events();
    for count in 0..=events.len() {
        let what = format!("after {count} of {}", events.len());
        let images = [device.prefix(count), device.cut(count, count as u64, true)];
        for image in images {
            let repaired = repair(dir.path(), &image, &what);
            // Old, the state between, or new.
            let at_least_middle = first
                .meta
                .difference(&second.meta)
                .next()
                .map(|&n| {
                    let at = n as usize * 1024;
                    repaired[at..at + 1024] == middle[at..at + 1024]
                })
                .unwrap();
            if at_least_middle {
                which(&repaired, &middle, &new, &second, &what);
            } else {
                which(&repaired, &old, &middle, &first, &what);
            }
        }
    }
}

#[test]
fn a_transaction_fills_the_journal_or_is_refused() {
    let dir = scratch();
    for flavour in &FLAVOURS[..4] {
        let old = make(dir.path(), flavour, 8192, 1024);
        for extra in [0, 1] {
            let device = Arc::new(MemoryDevice::new(old.clone()));
            let (mut vol, _) = open_on(device.clone());
            let capacity = transaction_capacity(&vol).unwrap();
            assert!((900..1024).contains(&capacity), "{capacity}");
            // Free blocks of the end of the file system; one is the superblock's.
            for n in 0..(capacity - 1 + extra) as u64 {
                vol.store.write_meta(FsBlock::new(8191 - n), vec![n as u8; 1024]).unwrap();
            }
            let result = commit(&mut vol);
            if extra == 0 {
                result.unwrap();
                assert_clean(dir.path(), &device.to_vec(), flavour.name);
            } else {
                assert!(matches!(result, Err(Error::NoSpace(_))), "{result:?}");
                assert!(device.to_vec() == old);
            }
        }
    }
}

#[test]
fn every_fault_is_an_error_and_the_disk_recoverable() {
    let dir = scratch();
    for flavour in [&FLAVOURS[0], &FLAVOURS[3]] {
        let old = make(dir.path(), flavour, 4096, 1024);
        let new = customize(dir.path(), &old);
        let difference = difference(&old, &new);
        let attempt = |fault| {
            let memory = Arc::new(MemoryDevice::new(old.clone()));
            let device = Arc::new(FaultDevice::new(memory.clone(), fault));
            let result = open_volume(device.clone(), options()).and_then(|(mut vol, _)| {
                stage(&mut vol, &new, &difference);
                let result = commit(&mut vol);
                if result.is_err() && !matches!(fault, Fault::Read(_)) {
                    assert!(matches!(commit(&mut vol), Err(Error::ReadOnly(_))));
                }
                result
            });
            (result, memory.to_vec(), device)
        };
        let (result, _, device) = attempt(Fault::None);
        result.unwrap();
        let faults: Vec<Fault> = device
            .counts()
            .faults()
            .into_iter()
            .chain([0, 1024, 100 << 10, 1 << 20].map(Fault::WriteBeyond))
            .collect();
        assert!(faults.len() > 20);
        for fault in faults {
            let (result, bytes, _) = attempt(fault);
            let what = format!("{} {fault:?}", flavour.name);
            assert!(matches!(result, Err(Error::Device(_))), "{what}: {result:?}");
            if bytes == old {
                continue;
            }
            let repaired = repair(dir.path(), &bytes, &what);
            which(&repaired, &old, &new, &difference, &what);
        }
    }
}

#[test]
fn without_a_journal_a_cut_can_be_mended() {
    let dir = scratch();
    let flavours = [
        Flavour { name: "ext2", args: &["-t", "ext2"], journal: (0, 0) },
        Flavour {
            name: "ext4 without journal",
            args: &["-t", "ext4", "-O", "^has_journal"],
            journal: (0, 0),
        },
    ];
    for flavour in &flavours {
        let Committed { old, new, difference, device, report } =
            committed(dir.path(), flavour, 4096);
        assert_eq!(report.transactions, 0);
        assert_clean(dir.path(), &device.to_vec(), flavour.name);
        assert!(which(&device.to_vec(), &old, &new, &difference, flavour.name));
        let events = device.events();
        let mut cuts: Vec<(String, Vec<u8>)> = (0..=events.len())
            .map(|count| (format!("{} after {count}", flavour.name), device.prefix(count)))
            .collect();
        cuts.extend((0..30).map(|seed| {
            let count = 1 + seed as usize * 7 % events.len();
            (format!("{} cut after {count}, seed {seed}", flavour.name), {
                device.cut(count, seed, false)
            })
        }));
        for (what, image) in cuts {
            repair(dir.path(), &image, &what);
            let path = dir.path().join("repair.img");
            let out = dir.path().join("out");
            // Untouched files are whole.
            for n in [3, 38] {
                let _ = std::fs::remove_file(&out);
                let dump = format!("dump /home/user/file-{n} {}", out.display());
                must("debugfs", &["-R", &dump, path.to_str().unwrap()]);
                let want = format!("file {n}\n").repeat(1 + n * 40);
                assert!(std::fs::read(&out).unwrap() == want.as_bytes(), "{what}: file-{n}");
            }
        }
    }
}

#[test]
fn a_device_smaller_than_the_file_system_is_refused() {
    let dir = scratch();
    let mut image = make(dir.path(), &FLAVOURS[2], 8192, 1024);
    image.truncate(7 << 20);
    let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(image));
    assert!(matches!(open_volume(device, options()), Err(Error::Corrupt { .. })));
}
