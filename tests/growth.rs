//! An image on a larger disk: the partition table, the file system and swap, as one run of
//! [`snf_image::customize`] leaves them, judged by sgdisk, sfdisk, e2fsck, blkid and swaplabel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::deployed::*;
use snf_fs::testing::{Event, Fault, FaultDevice, RecordingDevice};
use snf_fs::{BlockDevice, FileDevice, MemoryDevice};
use snf_image::customize::Mode;
use snf_image::disk_adapter::DiskAdapter;
use snf_image::failure::sentence;
use snf_image::plan::{Grow, Growth};

#[test]
fn every_layout_grows_with_its_file_system() {
    for layout in [Layout::Gpt, Layout::Mbr, Layout::Logical, Layout::Bare] {
        let image = Image::new(layout, 200);
        let report = customize(&image, &plan(None));
        check_table(&image, layout);
        let expected = match layout {
            Layout::Bare => 200 * MIB,
            _ => 200 * MIB - 2048 * 512 - image.start * 512,
        };
        assert_eq!(image.size(), expected, "{layout:?}: {:?}", report.partition_table);
        let root = image.root();
        assert_eq!(fs_size(&root), expected / 4096 * 4096, "{layout:?}");
        assert_eq!(cat(&root, "/etc/hostname"), "grown\n", "{layout:?}");
        // A second run finds nothing to do.
        let again = customize(&image, &plan(None));
        assert!(again.changes.is_empty());
        assert!(again.partition_table.iter().all(|line| line.contains("stays as it is")));
    }
}

#[test]
fn swap_in_a_partition() {
    for (layout, swap) in [
        (Layout::Gpt, "2:64"),
        (Layout::Mbr, "2:64"),
        (Layout::Mbr, "5:64"),
        (Layout::Logical, "6:64"),
        (Layout::Logical, "3:64"),
    ] {
        let image = Image::new(layout, 200);
        customize(&image, &plan(Some(swap)));
        check_table(&image, layout);
        let number: u32 = swap.split(':').next().unwrap().parse().unwrap();
        let table = image.table().unwrap();
        let partition = table.partition(number).unwrap();
        assert_eq!(partition.size, 64 * 2048);
        let offset = (partition.start * 512).to_string();
        let size = (partition.size * 512).to_string();
        let said = run("blkid", &["-p", "-O", &offset, "-S", &size, image.str()]);
        assert!(said.contains("TYPE=\"swap\""), "{said}");
        let uuid = said.split(" UUID=\"").nth(1).unwrap().split('"').next().unwrap();
        let root = image.root();
        assert!(fs_size(&root) > 100 * MIB);
        let fstab = cat(&root, "/etc/fstab");
        assert!(fstab.ends_with(&format!("UUID={uuid} none swap sw 0 0\n")), "{fstab}");
        let again = customize(&image, &plan(Some(swap)));
        assert!(again.changes.is_empty(), "{swap}: {:?}", again.changes);
        assert!(again.partition_table.iter().all(|line| line.contains("stays as it is")));
    }
}

/// A loop device, detached when dropped.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        command("losetup", &["-d", &self.0]);
    }
}

/// A block device whose sectors are of 4096 bytes: a real one, as the kernel sees it.
#[test]
fn sectors_of_4096_bytes() {
    for (label, swap) in [("gpt", "2:32"), ("dos", "2:32"), ("dos", "5:32")] {
        let bare = Image::new(Layout::Bare, 64);
        let disk = bare.dir.path().join("disk4k");
        let file = File::create(&disk).unwrap();
        file.set_len(200 * MIB).unwrap();
        file.write_all_at(&bare.bytes()[..40 * MIB as usize], 10 * MIB).unwrap();
        let name = run("losetup", &["-f", "--show", "-b", "4096", disk.to_str().unwrap()]);
        let device = Loop(name.trim().to_owned());
        let script = format!("label: {label}\\nstart=2560, size=10240, type=L\\n");
        run("sh", &["-c", &format!("printf '{script}' | sfdisk -q --no-reread {}", device.0)]);
        let opened = || -> Arc<dyn BlockDevice> {
            let file = File::options().read(true).write(true).open(&device.0).unwrap();
            Arc::new(FileDevice::new(file, 200 * MIB, 4096))
        };
        customize_on(opened(), Vec::new(), &plan(Some(swap)), Mode::Commit).unwrap();
        let said = run("sfdisk", &["-V", &device.0]);
        assert!(said.contains("No errors detected."), "{label} {swap}: {said}");
        let table = snf_partition::read(&DiskAdapter(&*opened())).unwrap().unwrap();
        let root = table.partition(1).unwrap();
        assert_eq!(root.start, 2560);
        let number = swap.split(':').next().unwrap().parse().unwrap();
        let (start, size) = table.byte_range(table.partition(number).unwrap());
        assert_eq!(size, 32 * MIB, "{label} {swap}");
        let said = run(
            "blkid",
            &["-p", "-O", &start.to_string(), "-S", &size.to_string(), disk.to_str().unwrap()],
        );
        assert!(said.contains("TYPE=\"swap\""), "{said}");
        drop(device);
        let name = format!("{}?offset={}", disk.display(), 10 * MIB);
        let (code, text) = fsck("-fn", &name);
        assert_eq!(code, 0, "{label} {swap}: {text}");
        assert_eq!(fs_size(&name), root.size * 4096, "{label} {swap}");
        assert_eq!(cat(&name, "/etc/hostname"), "grown\n");
    }
}

#[test]
fn swap_on_another_disk() {
    let image = Image::new(Layout::Gpt, 100);
    let other = Arc::new(MemoryDevice::new(vec![0xee; 20 << 20]));
    let third: Arc<dyn BlockDevice> = other.clone();
    let second: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(vec![7; 1 << 20]));
    let wanted = plan(Some("c"));
    customize_on(image.device(), vec![second, third], &wanted, Mode::Commit).unwrap();
    let path = image.dir.path().join("swap");
    fs::write(&path, other.to_vec()).unwrap();
    let said = run("swaplabel", &[path.to_str().unwrap()]);
    let uuid = said.lines().find_map(|line| line.strip_prefix("UUID:")).unwrap().trim();
    assert!(cat(&image.root(), "/etc/fstab").contains(&format!("UUID={uuid} none swap")));
    let error = customize_on(image.device(), Vec::new(), &wanted, Mode::Commit).unwrap_err();
    assert!(sentence(&error).contains("the instance has 1 disk;"), "{error}");
}

#[test]
fn exclusions_and_requests_that_cannot_be_met_leave_the_disk() {
    let image = Image::new(Layout::Mbr, 200);
    let before = image.bytes();
    let mut excluded = plan(None);
    excluded.properties.set("EXCLUDE_ALL_TASKS", "yes");
    let (report, _) = customize_on(image.device(), vec![], &excluded, Mode::Commit).unwrap();
    assert!(
        report.tasks.is_empty() && report.excluded.iter().any(|name| name == "FixPartitionTable")
    );
    assert!(image.bytes() == before);
    for (swap, expected) in [
        ("1:64", "partition 1"),
        ("7:64", "is 5; ask for that one"),
        ("2:4000", "no room"),
        ("a", "holds the image"),
        ("512", "SWAP"),
    ] {
        let error = customize_on(image.device(), vec![], &plan(Some(swap)), Mode::Commit);
        let error = sentence(&error.unwrap_err());
        assert!(error.contains(expected), "{swap}: {error}");
        assert!(image.bytes() == before, "{swap}: the disk changed");
    }
    // Without the mounted tasks the disk's own still run.
    let mut unmounted = plan(None);
    unmounted.properties.set("EXCLUDE_MOUNTED_TASKS", "yes");
    let (report, _) = customize_on(image.device(), vec![], &unmounted, Mode::Commit).unwrap();
    let names: Vec<&str> = report.tasks.iter().map(|task| &*task.name).collect();
    assert_eq!(names, ["FixPartitionTable", "FilesystemResizeUnmounted"]);
    assert_eq!(image.size(), 200 * MIB - 4096 * 512);
    assert_eq!(fs_size(&image.root()), 200 * MIB - 4096 * 512);
}

/// A disk of 24 MiB, or, in a larger one, of 48: a root, swap, and a small partition after it. In an
/// MBR swap is in an extended partition, as Debian's installer has it.
fn with_something_after_the_root(label: &str) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let (tree, part) = (dir.path().join("tree"), dir.path().join("part"));
    for (path, text) in [
        ("etc/os-release", "ID=debian\n"),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
        ("etc/hostname", "image\n"),
        ("usr/lib/systemd/systemd", ""),
        ("bin/sh", ""),
    ] {
        fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
        fs::write(tree.join(path), text).unwrap();
    }
    File::create(&part).unwrap().set_len(16 * MIB).unwrap();
    let (tree, part) = (tree.to_str().unwrap(), part.to_str().unwrap());
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", tree, part]);
    let disk = dir.path().join("disk");
    File::create(&disk).unwrap().set_len(24 * MIB).unwrap();
    let script = match label {
        "gpt" => {
            "label: gpt\nstart=2048, size=32768, type=L\nstart=36864, size=4096, type=S\n\
             start=40960, size=4096, type=L\n"
        }
        _ => {
            "label: dos\n1: start=2048, size=32768, type=83\n2: start=34816, size=6144, type=5\n\
             5: start=36864, size=4096, type=82\n3: start=40960, size=4096, type=27\n"
        }
    };
    let text = dir.path().join("script");
    fs::write(&text, script).unwrap();
    run("sh", &["-c", &format!("sfdisk -q {} < {}", disk.display(), text.display())]);
    let mut bytes = fs::read(&disk).unwrap();
    let mut put = |sector: usize, content: &[u8]| {
        bytes[sector * 512..sector * 512 + content.len()].copy_from_slice(content);
    };
    put(2048, &fs::read(part).unwrap());
    put(36864, &snf_partition::swap::first_page(2 * MIB, [7; 16], b"swp").unwrap());
    let content: Vec<u8> = (0..2 * MIB).map(|i| (i * 7 / 512 % 251) as u8).collect();
    put(40960, &content);
    bytes.resize(48 * MIB as usize, 0);
    (bytes, content)
}

/// With the table of any moment, moved partitions are whole, and swap is swap.
fn check_cut(label: &str, bytes: Vec<u8>, content: &[u8], what: &str) -> bool {
    let device = MemoryDevice::new(bytes);
    let table = snf_partition::read(&DiskAdapter(&device)).unwrap().unwrap();
    let (swap, last) = if label == "gpt" { (2, 3) } else { (5, 3) };
    let range = |number: u32| table.byte_range(table.partition(number).unwrap());
    let (start, size) = range(last);
    assert_eq!(size, 2 * MIB, "{what}");
    let mut moved = vec![0; size as usize];
    device.read_at(start, &mut moved).unwrap();
    assert!(moved == content, "{what}: the content of partition {last} at {start}");
    let mut page = vec![0; 4096];
    device.read_at(range(swap).0, &mut page).unwrap();
    let area = snf_partition::swap::parse(&page).unwrap_or_else(|| panic!("{what}: no swap"));
    assert_eq!((area.size, &area.label[..]), (2 * MIB, &b"swp"[..]), "{what}");
    assert_eq!(range(1).0, MIB, "{what}");
    range(1).1 > 16 * MIB
}

/// e2fsck's verdict on the root, and its host name: the old one or the new one.
fn check_root(bytes: &[u8], grown: bool, what: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root");
    let device = MemoryDevice::new(bytes.to_vec());
    let table = snf_partition::read(&DiskAdapter(&device)).unwrap().unwrap();
    let (start, size) = table.byte_range(table.partition(1).unwrap());
    write_sparse(&path, &bytes[start as usize..(start + size) as usize]);
    let name = path.to_str().unwrap().to_owned();
    let (code, said) = fsck("-fy", &name);
    assert!(code <= 1, "{what}: {said}");
    // A file system never reaches beyond its partition.
    assert!(grown || fs_size(&name) == 16 * MIB, "{what}");
    let hostname = cat(&name, "/etc/hostname");
    assert!(["image\n", "grown\n"].contains(&&*hostname), "{what}: {hostname}");
    hostname
}

#[test]
fn a_power_cut_while_partitions_move() {
    for label in ["gpt", "dos"] {
        let (bytes, content) = with_something_after_the_root(label);
        let device = Arc::new(RecordingDevice::new(bytes));
        let mut wanted = plan(None);
        wanted.growth = Growth { what: Grow::Root, no_move: false };
        customize_on(device.clone(), Vec::new(), &wanted, Mode::Commit).unwrap();
        let events = device.events().len();
        let mut switched = None;
        for count in 0..=events {
            let what = format!("{label}, after {count} of {events}");
            let found = check_cut(label, device.prefix(count), &content, &what);
            assert!(found || switched.is_none(), "{what}: the old table came back");
            if found && switched.is_none() {
                switched = Some(count);
            }
            if count % 5 == 0 {
                let torn = device.torn(count, count as u64);
                check_cut(label, torn, &content, &what);
            }
            if count % (events / 4).max(1) == 0 || Some(count) == switched {
                check_root(&device.prefix(count), found, &what);
            }
        }
        assert!(switched.is_some_and(|count| count > 4), "{label}");
        assert_eq!(check_root(&device.to_vec(), true, label), "grown\n");
    }
}

#[test]
fn a_write_that_fails_while_partitions_move() {
    for label in ["gpt", "dos"] {
        let (bytes, content) = with_something_after_the_root(label);
        let mut wanted = plan(None);
        wanted.growth = Growth { what: Grow::Root, no_move: false };
        let recorded = Arc::new(RecordingDevice::new(bytes.clone()));
        customize_on(recorded.clone(), Vec::new(), &wanted, Mode::Commit).unwrap();
        let writes = recorded.events().iter().filter(|e| matches!(e, Event::Write(..))).count();
        for number in (0..writes as u64).step_by((writes / 12).max(1)) {
            let memory = Arc::new(MemoryDevice::new(bytes.clone()));
            let faulty = FaultDevice::new(memory.clone(), Fault::Write(number));
            customize_on(Arc::new(faulty), Vec::new(), &wanted, Mode::Commit).unwrap_err();
            check_cut(label, memory.to_vec(), &content, &format!("{label}, write {number}"));
        }
    }
}

/// The growth that `create` asks for: the last partition, or, if that does not grow, the root.
#[test]
fn create_gives_the_room_to_what_grows() {
    for label in ["gpt", "dos"] {
        let (bytes, content) = with_something_after_the_root(label);
        let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(bytes.clone()));
        let (report, _) =
            customize_on(device.clone(), Vec::new(), &plan(None), Mode::Commit).unwrap();
        assert_eq!(report.warnings.iter().filter(|w| !w.contains("reagentc")).count(), 0);
        let mut after = vec![0; bytes.len()];
        device.read_at(0, &mut after).unwrap();
        assert!(check_cut(label, after, &content, label));
        assert!(report.grown.unwrap().after > 36 * MIB);
        // Swap of the request comes after all of them.
        let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(bytes));
        let swap = plan(Some("4:4"));
        customize_on(device.clone(), Vec::new(), &swap, Mode::Commit).unwrap();
        let table = snf_partition::read(&DiskAdapter(&*device)).unwrap().unwrap();
        assert_eq!(table.partition(4).unwrap().end(), 47 * 2048);
        assert!(table.partition(3).unwrap().end() <= table.partition(4).unwrap().start);
        assert!(table.partition(1).unwrap().size * 512 > 30 * MIB);
    }
}
