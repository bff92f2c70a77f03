//! An image on a larger disk: the partition table, the file system and swap, as one run of
//! [`snf_image::customize`] leaves them, judged by sgdisk, sfdisk, e2fsck, blkid and swaplabel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::deployed::*;
use snf_fs::{BlockDevice, FileDevice, MemoryDevice};
use snf_image::customize::Mode;
use snf_image::disk_adapter::DiskAdapter;
use snf_image::failure::sentence;

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
