//! The power is cut at every write of a commit to btrfs: the old tree is there then, or the new one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::btrfs_support::{Disk, NOW, diff, walk_ext, walk_mount};
use snf_fs::btrfs::Btrfs;
use snf_fs::testing::{Event, Fault, FaultDevice, RecordingDevice};
use snf_fs::{Attributes, Error, FileSystem, MemoryDevice};

const ANY: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

fn image(args: &str, mib: u64) -> Vec<u8> {
    let disk = Disk::make(args, mib);
    disk.fill(
        "noatime",
        r#"
        mkdir kept changed
        for i in $(seq 0 30); do
            head -c $((i * 97)) /dev/urandom > kept/$i; head -c $((i * 197)) /dev/urandom > changed/$i
        done
        btrfs -q subvolume snapshot -r . snap
        "#,
    );
    std::fs::read(&disk.path).unwrap()
}

/// A customization: one of everything.
fn edit(fs: &mut dyn FileSystem) -> Result<(), Error> {
    let dir = fs.lookup(fs.root(), b"changed")?.unwrap();
    for (index, entry) in fs.readdir(dir)?.into_iter().enumerate() {
        match index % 5 {
            0 => fs.replace(entry.node, &vec![b'n'; 4_000 + index])?,
            1 => fs.unlink(dir, &entry.name)?,
            2 => fs.rename(dir, &entry.name, fs.root(), &entry.name)?,
            3 => fs.append(entry.node, &[b'a'; 5_000])?,
            _ => fs.set_xattr(entry.node, b"user.x", Some(b"y"))?,
        }
    }
    for index in 0..20 {
        let node = fs.create(dir, format!("new file {index}").as_bytes(), ANY)?;
        fs.replace(node, &vec![b'c'; index * 300])?;
    }
    let sub = fs.mkdir(dir, b"new", ANY)?;
    fs.create(sub, b"leaf", ANY).map(|_| ())
}

fn open(bytes: Vec<u8>) -> Btrfs {
    Btrfs::open(Arc::new(MemoryDevice::new(bytes)), NOW).unwrap()
}

/// On a device that tears writes between sectors, and loses and reorders what was not flushed.
#[test]
fn a_cut_at_any_write_leaves_the_old_tree_or_the_new_one() {
    for (args, mib, seeds, step) in [("--mixed", 24, 3, 2), ("", 112, 1, 7)] {
        let device = Arc::new(RecordingDevice::new(image(args, mib)));
        let mut fs = Btrfs::open(device.clone(), NOW).unwrap();
        let old = walk_ext(&fs);
        edit(&mut fs).unwrap();
        let new = walk_ext(&fs);
        assert_ne!(old, new);
        fs.commit().unwrap();
        let events = device.events();
        let supers = events.iter().filter(|event| matches!(event, Event::Write(65_536, _))).count();
        assert_eq!(supers, 1, "{args}");
        let (mut olds, mut news) = (0, 0);
        for count in 0..=events.len() {
            for seed in 0..seeds {
                let bytes = device.torn(count, seed * 1000 + count as u64);
                let what = format!("{args}: cut {count} of {}, seed {seed}", events.len());
                let seen = walk_ext(&open(bytes.clone()));
                assert!(seen == old || seen == new, "{what}: neither old nor new");
                olds += u32::from(seen == old);
                news += u32::from(seen == new);
                // Programs take their time.
                if seed == 0 && (count % step == 0 || count + 6 > events.len()) {
                    let disk = Disk::of(&bytes);
                    disk.check(&what);
                    let mount = disk.mount("noatime");
                    diff(&what, &seen, &walk_mount(&mount.at));
                    drop(mount);
                    disk.check(&format!("{what}, after a mount"));
                }
            }
        }
        assert!(olds > 2 && news > 2, "{args}: {olds}, {news}");
    }
}

#[test]
fn faults_are_told_and_leave_the_old_tree_or_the_new_one() {
    let image = image("--mixed", 24);
    let old = walk_ext(&open(image.clone()));
    let run = |fault| {
        let memory = Arc::new(MemoryDevice::new(image.clone()));
        let device = Arc::new(FaultDevice::new(memory.clone(), fault));
        let result = Btrfs::open(device.clone(), NOW).and_then(|mut fs| {
            edit(&mut fs)?;
            fs.commit().map(|_| ())
        });
        let counts = device.counts();
        let done = [&counts.reads, &counts.writes, &counts.flushes];
        (result, memory.to_vec(), done.map(|count| count.load(Ordering::Relaxed)))
    };
    let (result, after, [reads, writes, flushes]) = run(Fault::None);
    result.unwrap();
    let new = walk_ext(&open(after));
    for number in 0..reads {
        let (result, after, _) = run(Fault::Read(number));
        assert!(matches!(result, Err(Error::Device(_))), "read {number}: {result:?}");
        assert!(after == image, "read {number}: nothing is written before all is known");
    }
    let faults = (0..writes).map(Fault::Write).chain((0..flushes).map(Fault::Flush));
    for fault in faults.chain((0..writes).map(Fault::Full)) {
        let (result, after, _) = run(fault);
        assert!(matches!(result, Err(Error::Device(_))), "{fault:?}: {result:?}");
        let seen = walk_ext(&open(after));
        assert!(seen == old || seen == new, "{fault:?}");
    }
}
