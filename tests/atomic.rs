//! A whole run on a disk whose power is cut or that fails: partition table, growth, files, in one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deployed;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use deployed::*;
use snf_fs::ext::{Ext, Options};
use snf_fs::testing::{Event, Fault, FaultDevice, RecordingDevice};
use snf_fs::{FileSystem, MemoryDevice};
use snf_image::customize::Mode;
use snf_image::disk_adapter::DiskAdapter;
use snf_image::plan::{Password, PersonalityFile, Plan, Who};
use snf_image::secret::Secret;

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The root partition as the disk's table has it.
fn root_of(disk: &[u8], number: u32, what: &str) -> Vec<u8> {
    let device = MemoryDevice::new(disk.to_vec());
    let table = snf_partition::read(&DiskAdapter(&device))
        .unwrap_or_else(|error| panic!("{what}: {error}"))
        .unwrap_or_else(|| panic!("{what}: no table"));
    let (start, size) = table.byte_range(table.partition(number).unwrap());
    disk[start as usize..(start + size) as usize].to_vec()
}

/// e2fsck puts the root partition in order; the host name there.
fn repaired_host_name(image: &Image, root: &[u8], what: &str) -> String {
    let path = image.dir.path().join("cut");
    write_sparse(&path, root);
    let name = path.to_str().unwrap();
    let (code, text) = fsck("-fy", name);
    assert!(code == 0 || code == 1, "{what}: {text}");
    let (code, text) = fsck("-fn", name);
    assert_eq!(code, 0, "{what}: {text}");
    assert_eq!(cat(name, "/etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n", "{what}");
    cat(name, "/etc/hostname")
}

/// A cut leaves a partition table and, in the root partition as the table then has it, a file
/// system that e2fsck puts in order, with the old or the new content.
#[test]
fn a_cut_leaves_a_working_disk() {
    for layout in [Layout::Gpt, Layout::Logical] {
        let image = Image::new(layout, 90);
        let device = Arc::new(RecordingDevice::new(image.bytes()));
        customize_on(device.clone(), Vec::new(), &plan(Some("6:16")), Mode::Commit).unwrap();
        let events = device.events().len();
        let (mut seen, mut names) = (HashSet::new(), HashSet::new());
        for count in 0..=events {
            for reordered in [false, true] {
                let what = format!("{layout:?} after {count} of {events}, reordered {reordered}");
                let disk = match reordered {
                    false => device.prefix(count),
                    // A table's sectors do not tear; an MBR's writes may come in any order.
                    true => device.cut(count, count as u64, false),
                };
                let root = root_of(&disk, image.number.unwrap(), &what);
                if seen.insert(digest(&root)) {
                    names.insert(repaired_host_name(&image, &root, &what));
                }
            }
        }
        assert_eq!(names, HashSet::from(["image\n".to_owned(), "grown\n".to_owned()]));
    }
}

/// Each write and flush fails in turn, at a broken disk and at a full one.
#[test]
fn a_fault_is_an_error_and_leaves_a_working_disk() {
    let image = Image::new(Layout::Gpt, 90);
    let before = image.bytes();
    let attempt = |fault| {
        let memory = Arc::new(MemoryDevice::new(before.clone()));
        let device = Arc::new(FaultDevice::new(memory.clone(), fault));
        let result = customize_on(device.clone(), Vec::new(), &plan(None), Mode::Commit);
        (result.map(|_| ()), memory.to_vec(), device)
    };
    let (result, _, device) = attempt(Fault::None);
    result.unwrap();
    let mut seen = HashSet::new();
    let is_read = |fault: &Fault| matches!(fault, Fault::Read(n) if n % 8 != 0);
    for fault in device.counts().faults().into_iter().filter(|fault| !is_read(fault)) {
        let what = format!("{fault:?}");
        let (result, disk, _) = attempt(fault);
        let root = root_of(&disk, 1, &what);
        match result {
            Err(error) => {
                let text = error.to_string();
                let says = if matches!(fault, Fault::Full(_)) { "error 28" } else { "error 5" };
                assert!(text.contains(says), "{what}: {text}");
            }
            // A partition that nobody asked for need not be readable.
            Ok(()) => {
                assert!(matches!(fault, Fault::Read(_)), "{what}: no error");
                assert_eq!(repaired_host_name(&image, &root, &what), "grown\n", "{what}");
            }
        }
        if seen.insert(digest(&root)) {
            let name = repaired_host_name(&image, &root, &what);
            assert!(name == "image\n" || name == "grown\n", "{what}: {name}");
        }
    }
    assert!(seen.len() > 5, "{}", seen.len());
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
    for count in [360, 390, 420, 900] {
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
            let files = (0..count).filter(|n| has(&format!("srv/{n}/file"), "content")).count();
            let late = has("etc/late", "content") && has("etc/hostname", "grown");
            let shadow = has("etc/shadow", "$6$salt$hash");
            let keys = has("root/.ssh/authorized_keys", "ssh-ed25519 AAAA key");
            assert_eq!(shadow, keys, "{what}");
            assert!(!shadow || late && files == count, "{what}: {files} files, late {late}");
            states.push((files, shadow));
        }
        states.dedup();
        assert_eq!(states.first(), Some(&(0, false)), "{count}");
        assert_eq!(states.last(), Some(&(count, true)), "{count}");
        assert_eq!(states.len(), parts as usize + 1, "{count}: {states:?}");
        write_sparse(&image.path, &device.to_vec());
        image.root();
    }
}
