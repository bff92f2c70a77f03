//! Cut power and failed writes while a root in a volume group grows and is edited in one run: the
//! partition, the group and the file system are each old or new, and fit in one another. lvm2 and
//! e2fsck judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::sync::Arc;

use snf_fs::testing::{Event, Fault, FaultDevice, RecordingDevice};
use snf_fs::{BlockDevice, MemoryDevice};
use snf_image::customize::Mode;
use snf_image::guest::disk::Disk;
use snf_image::guest::stack::Sources;
use snf_image::plan::{Grow, Growth, Plan};
use snf_image::random::{Clock, Entropy};

use crate::cli_support::Guest;
use crate::cli_support::volumes::{Disks, MIB};
use crate::deployed::{cat, customize_on, fs_size, fsck, plan, write_sparse};

const ROOT: u64 = 16 * MIB;

/// A disk of 48 MiB, in a larger one of 80, with a root in a group and another volume after it.
fn disk() -> (Disks, Vec<u8>) {
    let tree = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("etc/os-release", "ID=debian\n"),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
        ("etc/hostname", "image\n"),
        ("usr/lib/systemd/systemd", ""),
        ("bin/sh", ""),
    ] {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let disks = Disks::partitioned("gpt", 48);
    disks.group("rl", &[("root", 16), ("after", 2)]);
    disks.write("rl/root", &Guest::from_tree(tree.path(), "16M").bytes());
    disks.write("rl/after", &after());
    let mut bytes = fs::read(&disks.files[0]).unwrap();
    bytes.resize(80 << 20, 0);
    (disks, bytes)
}

fn after() -> Vec<u8> {
    (0..2 * MIB).map(|i| (i * 7 / 512 % 251) as u8).collect()
}

fn wanted() -> Plan {
    Plan { growth: Growth { what: Grow::Root, no_move: false }, ..plan(None) }
}

/// The sizes of the partition and of the root, and the root's content, as this program reads them;
/// the other volume is whole.
fn look(bytes: &[u8], what: &str) -> (u64, Vec<u8>) {
    let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(bytes.to_vec()));
    let (entropy, clock) = (Entropy::seeded(1), Clock::fixed(0));
    let devices = [device];
    let disk = Disk::open_with(&Sources::of(&devices, &entropy, &clock)).unwrap();
    let read = |name: &str| {
        let volume = disk.volumes.iter().find(|volume| volume.place().ends_with(name));
        let volume = volume.unwrap_or_else(|| panic!("{what}: no {name}; {:?}", disk.warnings));
        let device = volume.device.clone().unwrap_or_else(|| panic!("{what}: {name} is closed"));
        let mut content = vec![0; device.len() as usize];
        device.read_at(0, &mut content).unwrap();
        content
    };
    assert!(read("rl/after") == after(), "{what}");
    let partition = disk.volumes.iter().find(|volume| volume.number == Some(2)).unwrap();
    (partition.size, read("rl/root"))
}

/// e2fsck's verdict on the root, whose name is the old or the new one.
fn judge(root: &[u8], what: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root");
    write_sparse(&path, root);
    let name = path.to_str().unwrap();
    let (code, said) = fsck("-fy", name);
    assert!(code <= 1, "{what}: {said}");
    assert!(fs_size(name) <= root.len() as u64, "{what}: it reaches beyond its volume");
    let hostname = cat(name, "/etc/hostname");
    assert!(["image\n", "grown\n"].contains(&&*hostname), "{what}: {hostname}");
    hostname
}

/// lvm2's verdict on the group.
fn vgck(disks: &Disks, bytes: &[u8]) {
    write_sparse(&disks.files[0], bytes);
    disks.check("rl");
}

#[test]
fn a_power_cut_while_a_group_grows() {
    let (disks, bytes) = disk();
    let device = Arc::new(RecordingDevice::new(bytes));
    customize_on(device.clone(), Vec::new(), &wanted(), Mode::Commit).unwrap();
    let events = device.events().len();
    let (mut partition_grew, mut root_grew, mut renamed) = (None, None, None);
    for count in 0..=events {
        let what = format!("after {count} of {events}");
        let now = device.prefix(count);
        let (partition, root) = look(&now, &what);
        // The outer volume grows before the inner one, and nothing goes back.
        let grew = partition > 32 * MIB;
        assert!(grew || partition_grew.is_none(), "{what}: the old partition came back");
        let larger = root.len() as u64 > ROOT;
        assert!(larger || root_grew.is_none(), "{what}: the old volume came back");
        assert!(grew || !larger, "{what}: the volume is larger than its partition");
        let switched = grew && partition_grew.is_none() || larger && root_grew.is_none();
        partition_grew = partition_grew.or(grew.then_some(count));
        root_grew = root_grew.or(larger.then_some(count));
        if switched || count % (events / 6).max(1) == 0 {
            let name = judge(&root, &what);
            renamed = renamed.or((name == "grown\n").then_some(count));
            vgck(&disks, &now);
        }
        if count % 4 == 0 {
            let (_, root) = look(&device.torn(count, count as u64), &what);
            if count % 16 == 0 {
                judge(&root, &format!("{what}, torn"));
            }
        }
    }
    assert!(partition_grew.is_some() && root_grew.is_some() && renamed >= root_grew);
    let (_, root) = look(&device.to_vec(), "the end");
    assert_eq!(judge(&root, "the end"), "grown\n");
    assert!(root.len() as u64 > 40 * MIB, "{}", root.len());
    vgck(&disks, &device.to_vec());
}

#[test]
fn a_write_that_fails_while_a_group_grows() {
    let (disks, bytes) = disk();
    let recorded = Arc::new(RecordingDevice::new(bytes.clone()));
    customize_on(recorded.clone(), Vec::new(), &wanted(), Mode::Commit).unwrap();
    let writes = recorded.events().iter().filter(|e| matches!(e, Event::Write(..))).count();
    for number in 0..writes as u64 {
        let what = format!("write {number} of {writes} fails");
        let memory = Arc::new(MemoryDevice::new(bytes.clone()));
        let faulty = Arc::new(FaultDevice::new(memory.clone(), Fault::Write(number)));
        customize_on(faulty, Vec::new(), &wanted(), Mode::Commit).unwrap_err();
        let (_, root) = look(&memory.to_vec(), &what);
        if number % 8 == 0 {
            judge(&root, &what);
            vgck(&disks, &memory.to_vec());
        }
    }
}
