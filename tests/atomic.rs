//! A whole run on a disk whose power is cut or that fails: partition table, growth, files, in one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::sync::Arc;

use crate::deployed::*;
use crate::support::root::{hostname, place};
use snf_fs::ext::{Ext, Options};
use snf_fs::testing::{Event, Fault, FaultDevice, RecordingDevice};
use snf_fs::{BlockDevice, FileSystem, MemoryDevice, Overlay};
use snf_image::customize::{CustomizeError, Mode};
use snf_image::disk_adapter::DiskAdapter;
use snf_image::failure::sentence;
use snf_image::plan::{Password, PersonalityFile, Plan, Who};
use snf_image::secret::Secret;

/// The root partition as the disk's table has it.
fn root_of(disk: &[u8], number: u32, what: &str) -> Vec<u8> {
    let device = MemoryDevice::new(disk.to_vec());
    let (start, size) = place(&device, Some(number), what);
    disk[start as usize..(start + size) as usize].to_vec()
}

/// A cut after any write leaves a partition table and, in the root partition as the table then
/// has it, a file system that e2fsck puts in order, with the old or the new content.
#[test]
fn a_cut_at_any_write_leaves_a_working_disk() {
    for layout in [Layout::Gpt, Layout::Logical] {
        let image = Image::new(layout, 90);
        let before = image.bytes();
        let recorder = Arc::new(RecordingDevice::new(before.clone()));
        customize_on(recorder.clone(), Vec::new(), &plan(Some("6:16")), Mode::Commit).unwrap();
        let writes: Vec<(u64, Vec<u8>)> = recorder
            .events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Write(offset, bytes) => Some((offset, bytes)),
                Event::Flush => None,
            })
            .collect();
        let mut disk = before;
        let mut seen = (false, false);
        for (index, (offset, bytes)) in writes.iter().enumerate() {
            let range = *offset as usize..*offset as usize + bytes.len();
            disk[range].copy_from_slice(bytes);
            let table = snf_partition::read(&DiskAdapter(&MemoryDevice::new(disk.clone())))
                .unwrap_or_else(|error| panic!("{layout:?} after write {index}: {error}"))
                .unwrap();
            let (start, size) = table.byte_range(table.partition(image.number.unwrap()).unwrap());
            // e2fsck takes its time: every write of the table, then every sixteenth.
            if index > 12 && index % 16 != 0 && index + 3 < writes.len() {
                continue;
            }
            let path = image.dir.path().join("cut");
            write_sparse(&path, &disk[start as usize..(start + size) as usize]);
            let name = path.to_str().unwrap();
            let (code, text) = fsck("-fy", name);
            assert!(code == 0 || code == 1, "{layout:?} after write {index}: {text}");
            let (code, text) = fsck("-fn", name);
            assert_eq!(code, 0, "{layout:?} after write {index}: {text}");
            match cat(name, "/etc/hostname").as_str() {
                "image\n" => seen.0 = true,
                "grown\n" => seen.1 = true,
                other => panic!("{layout:?} after write {index}: {other:?}"),
            }
        }
        assert_eq!(seen, (true, true), "{layout:?}");
    }
}

/// The image as a run may change it: what is written stays in memory.
fn scratch(base: &Arc<MemoryDevice>) -> Arc<Overlay> {
    Arc::new(Overlay::new(base.clone()))
}

/// Every read, write and flush of a whole run fails in turn, and the disk is full from every write
/// on: an error that says so, and a disk as it was, or one with the old or the new content.
#[test]
fn a_device_that_fails_anywhere_is_an_error() {
    for (layout, swap) in [
        (Layout::Gpt, Some("2:16")),
        (Layout::Logical, Some("6:16")),
        (Layout::Mbr, Some("c")),
        (Layout::Bare, None),
    ] {
        let image = Image::new(layout, 90);
        let base = Arc::new(MemoryDevice::new(image.bytes()));
        let other = Arc::new(MemoryDevice::new(vec![0; 1 << 20]));
        let mut plan = plan(swap);
        plan.passwords = vec![(Who::Default, Password::Hash(Secret::new("$6$salt$hash")))];
        plan.auth_keys = vec![(Who::Default, "ssh-ed25519 AAAA key".into())];
        let attempt = |fault: Fault, on_other: bool| {
            let (disk, second) = (scratch(&base), scratch(&other));
            let [on_disk, on_second] =
                if on_other { [Fault::None, fault] } else { [fault, Fault::None] };
            let first = Arc::new(FaultDevice::new(disk.clone(), on_disk));
            let second = Arc::new(FaultDevice::new(second, on_second));
            let none: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(vec![0; 4096]));
            let others: Vec<Arc<dyn BlockDevice>> = vec![none, second.clone()];
            let result = customize_on(first.clone(), others, &plan, Mode::Commit);
            (result, disk, if on_other { second } else { first })
        };
        let mut seen = HashSet::new();
        for on_other in [false, true] {
            let (result, disk, counted) = attempt(Fault::None, on_other);
            result.unwrap();
            assert_eq!(hostname(&disk, image.number, "whole"), "grown\n", "{layout:?}");
            let faults = counted.counts().faults();
            let enough = if on_other { 4 * usize::from(swap == Some("c")) } else { 60 };
            assert!(faults.len() >= enough, "{layout:?}: {} faults", faults.len());
            for fault in faults {
                let what = format!("{layout:?}, other disk {on_other}, {fault:?}");
                let (result, disk, _) = attempt(fault, on_other);
                let Err(error) = result else { panic!("{what}: nobody noticed") };
                let expected = if matches!(fault, Fault::Full(_)) { "28" } else { "error 5" };
                assert!(sentence(&error).contains(expected), "{what}: {error}");
                if matches!(error, CustomizeError::Read(_)) {
                    assert_eq!(disk.held(), 0, "{what}");
                }
                let name = hostname(&disk, image.number, &what);
                assert!(name == "image\n" || name == "grown\n", "{what}: {name:?}");
                seen.insert((std::mem::discriminant(&error), name));
            }
        }
        assert!(seen.len() >= 4, "{layout:?}: {seen:?}");
    }
}

fn file(path: String, contents: &str) -> PersonalityFile {
    PersonalityFile {
        path,
        contents: Secret::new(contents),
        owner: None,
        group: None,
        mode: None,
        origin: "img_personality".into(),
        keep_existing: false,
    }
}

/// A run that does not fit into the journal: passwords and keys are in its last transaction, so
/// whoever finds them there finds everything else.
#[test]
fn a_split_run_has_passwords_and_keys_in_its_last_part() {
    let journal = ["-t", "ext4", "-b", "1024", "-J", "size=1", "-N", "4096"];
    let image = Image::made_with(Layout::Mbr, 64, &journal);
    let number = image.number.unwrap();
    let bytes = image.bytes();
    // Wherever the boundary between two parts falls.
    for count in [390, 900] {
        let mut plan = Plan {
            passwords: vec![(Who::Default, Password::Hash(Secret::new("$6$salt$hash")))],
            auth_keys: vec![(Who::Default, "ssh-ed25519 AAAA key".into())],
            ..plan(None)
        };
        plan.properties.set("EXCLUDE_TASK_FixPartitionTable", "yes");
        // A directory each, so that each costs metadata; the last one in /etc.
        let paths = (0..count).map(|n| format!("/srv/{n}/file"));
        plan.personality = paths.map(|path| file(path, "content\n")).collect();
        plan.personality.push(file("/etc/late".into(), "content\n"));
        let device = Arc::new(RecordingDevice::new(bytes.clone()));
        let (report, _) = customize_on(device.clone(), Vec::new(), &plan, Mode::Commit).unwrap();
        let parts = report.file_systems[0].transactions;
        assert!(parts > 1, "{count}: {parts}");
        let events = device.events();
        let mut states = Vec::new();
        for cut in 1..=events.len() {
            if cut < events.len() && events[cut - 1] != Event::Flush {
                continue;
            }
            let what = format!("{count} files, after {cut} of {}", events.len());
            let root = root_of(&device.prefix(cut), number, &what);
            let fs = Ext::open(Arc::new(MemoryDevice::new(root)), Options::default()).unwrap();
            let has = |path: &str, text: &str| {
                let found = path
                    .split('/')
                    .try_fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap());
                found.is_some_and(|node| {
                    let mut bytes = vec![0; 4096];
                    let n = fs.read(node, 0, &mut bytes).unwrap();
                    String::from_utf8_lossy(&bytes[..n]).contains(text)
                })
            };
            // Some of them and the last ones.
            let names = (0..count).filter(|n| n % 13 == 0 || n + 40 > count);
            let files = names.clone().filter(|n| has(&format!("srv/{n}/file"), "content")).count();
            let all = names.count();
            let late = has("etc/late", "content") && has("etc/hostname", "grown");
            let shadow = has("etc/shadow", "$6$salt$hash");
            let keys = has("root/.ssh/authorized_keys", "ssh-ed25519 AAAA key");
            assert_eq!(shadow, keys, "{what}");
            assert!(!shadow || late && files == all, "{what}: {files} files, late {late}");
            states.push((files, shadow));
        }
        states.dedup();
        assert_eq!(states.first(), Some(&(0, false)), "{count}");
        assert!(states.last().unwrap().1, "{count}");
        assert_eq!(states.len(), parts as usize + 1, "{count}: {states:?}");
        write_sparse(&image.path, &device.to_vec());
        image.root();
    }
}
