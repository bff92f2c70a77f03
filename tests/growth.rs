//! An image on a larger disk: the partition table, the file system and swap, as one run of
//! [`snf_image::customize`] leaves them, judged by sgdisk, sfdisk, e2fsck, blkid and swaplabel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use snf_fs::{BlockDevice, DeviceError, FileDevice, MemoryDevice};
use snf_image::customize::{CustomizeError, Mode, Report, customize_instance};
use snf_image::disk_adapter::DiskAdapter;
use snf_image::event::Event;
use snf_image::plan::{HostKeys, MachineId, Plan};
use snf_image::properties::Properties;
use snf_image::random::{Clock, Entropy};

const MIB: u64 = 1 << 20;

fn command(program: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// Runs a program that must succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let (code, text) = command(program, arguments);
    assert_eq!(code, 0, "{program} {arguments:?}: {text}");
    text
}

/// How the image's disk is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Layout {
    Gpt,
    Mbr,
    Logical,
    Bare,
}

struct Image {
    dir: tempfile::TempDir,
    path: PathBuf,
    /// First sector and number of the root partition.
    start: u64,
    number: Option<u32>,
}

impl Image {
    /// A small Debian in the last partition of a disk of 64 MiB, on a disk of `mib`.
    fn new(layout: Layout, mib: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        for (path, text) in [
            ("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian 12\"\n"),
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
            ("etc/hostname", "image\n"),
            ("etc/fstab", "/dev/vda1 / ext4 errors=remount-ro 0 1\n"),
            ("usr/lib/systemd/systemd", ""),
            ("bin/sh", ""),
        ] {
            fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), text).unwrap();
        }
        let part = dir.path().join("part");
        let sectors = 40 * MIB / 512;
        File::create(&part).unwrap().set_len(sectors * 512).unwrap();
        let (part, tree) = (part.to_str().unwrap(), tree.to_str().unwrap());
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-d", tree, part]);
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(64 * MIB).unwrap();
        let disk = path.to_str().unwrap();
        let sfdisk = |script: &str| {
            let file = dir.path().join("script");
            fs::write(&file, script).unwrap();
            run("sh", &["-c", &format!("sfdisk -q {disk} < {}", file.display())]);
        };
        let (start, number) = match layout {
            Layout::Gpt => {
                let end = format!("1:20480:{}", 20480 + sectors - 1);
                run("sgdisk", &["-n", "15:2048:10239", "-t", "15:ef00", "-n", &end, disk]);
                (20480, Some(1))
            }
            Layout::Mbr => {
                sfdisk(&format!("label: dos\nstart=2048, size={sectors}, type=83, bootable\n"));
                (2048, Some(1))
            }
            Layout::Logical => {
                sfdisk(&format!(
                    "label: dos\n1: start=2048, size=2048, type=83\n\
                     2: start=8192, size=110000, type=5\n5: start=10240, size={sectors}, type=83\n"
                ));
                (10240, Some(5))
            }
            Layout::Bare => (0, None),
        };
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for (index, chunk) in fs::read(part).unwrap().chunks(1 << 16).enumerate() {
            if chunk.iter().any(|byte| *byte != 0) {
                file.write_all_at(chunk, start * 512 + ((index as u64) << 16)).unwrap();
            }
        }
        file.set_len(mib * MIB).unwrap();
        Self { dir, path, start, number }
    }

    fn device(&self) -> Arc<dyn BlockDevice> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        Arc::new(FileDevice::from_file(file).unwrap())
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    fn str(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn table(&self) -> Option<snf_partition::Table> {
        snf_partition::read(&DiskAdapter(&*self.device())).unwrap()
    }

    /// Size of the root partition in bytes.
    fn size(&self) -> u64 {
        match self.number {
            None => fs::metadata(&self.path).unwrap().len(),
            Some(number) => self.table().unwrap().partition(number).unwrap().size * 512,
        }
    }

    /// The root partition, as e2fsprogs' tools name it; e2fsck has no complaint about it.
    fn root(&self) -> String {
        let name = format!("{}?offset={}", self.str(), self.start * 512);
        let (code, text) = fsck("-fn", &name);
        assert_eq!(code, 0, "{text}");
        name
    }
}

fn fsck(mode: &str, name: &str) -> (i32, String) {
    command("timeout", &["-s", "KILL", "60", "e2fsck", mode, name])
}

/// Writes a file and leaves holes where it is zero: the tests spend their time on the disk.
fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (index, chunk) in bytes.chunks(1 << 16).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            file.write_all_at(chunk, (index as u64) << 16).unwrap();
        }
    }
}

/// Bytes of the file system, as dumpe2fs says.
fn fs_size(image: &str) -> u64 {
    let text = run("dumpe2fs", &["-h", image]);
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].trim().parse().unwrap()
    };
    field("Block count:") * field("Block size:")
}

fn cat(image: &str, path: &str) -> String {
    let output = Command::new("/usr/sbin/debugfs")
        .args(["-R", &format!("cat {path}")])
        .arg(image)
        .output()
        .expect("debugfs is needed for this test");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn plan(swap: Option<&str>) -> Plan {
    let mut properties = Properties::default();
    if let Some(swap) = swap {
        properties.set("SWAP", swap);
    }
    Plan {
        properties,
        hostname: Some("grown".into()),
        machine_id: MachineId::Keep,
        host_keys: HostKeys::Keep,
        ..Plan::default()
    }
}

fn customize_on(
    device: Arc<dyn BlockDevice>,
    others: Vec<Arc<dyn BlockDevice>>,
    plan: &Plan,
    mode: Mode,
) -> Result<(Report, Vec<Event>), CustomizeError> {
    let mut events = Vec::new();
    let clock = Clock::fixed(86_400 * 20_000);
    let mut entropy = Entropy::seeded(7);
    customize_instance(device, others, plan, &mut entropy, &clock, &mut events, mode)
        .map(|report| (report, events))
}

fn customize(image: &Image, plan: &Plan) -> Report {
    let before = image.bytes();
    let (dry, _) = customize_on(image.device(), Vec::new(), plan, Mode::DryRun).unwrap();
    assert!(image.bytes() == before, "a dry run wrote to the disk");
    let (report, _) = customize_on(image.device(), Vec::new(), plan, Mode::Commit).unwrap();
    assert_eq!(dry.partition_table, report.partition_table);
    assert_eq!(dry.changes, report.changes);
    assert_eq!(report.warnings, Vec::<String>::new());
    report
}

fn check_table(image: &Image, layout: Layout) {
    if layout != Layout::Bare {
        let said = run("sfdisk", &["-V", image.str()]);
        assert!(said.contains("No errors detected."), "{said}");
    }
    if layout == Layout::Gpt {
        let said = run("sgdisk", &["-v", image.str()]);
        assert!(said.contains("No problems found."), "{said}");
    }
}

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
    assert!(error.to_string().contains("the instance has 1 disk;"), "{error}");
}

#[test]
fn exclusions_and_requests_that_cannot_be_met_leave_the_disk() {
    let image = Image::new(Layout::Mbr, 200);
    let before = image.bytes();
    let mut excluded = plan(None);
    excluded.properties.set("EXCLUDE_ALL_TASKS", "yes");
    let (report, _) = customize_on(image.device(), vec![], &excluded, Mode::Commit).unwrap();
    assert!(report.tasks.is_empty() && report.excluded.contains(&"FixPartitionTable"));
    assert!(image.bytes() == before);
    for (swap, expected) in [
        ("1:64", "partition 1"),
        ("7:64", "is 5; ask for that one"),
        ("2:4000", "no room"),
        ("a", "holds the image"),
        ("512", "SWAP"),
    ] {
        let error = customize_on(image.device(), vec![], &plan(Some(swap)), Mode::Commit)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{swap}: {error}");
        assert!(image.bytes() == before, "{swap}: the disk changed");
    }
    // Without the mounted tasks the disk's own still run.
    let mut unmounted = plan(None);
    unmounted.properties.set("EXCLUDE_MOUNTED_TASKS", "yes");
    let (report, _) = customize_on(image.device(), vec![], &unmounted, Mode::Commit).unwrap();
    let names: Vec<&str> = report.tasks.iter().map(|task| task.name).collect();
    assert_eq!(names, ["FixPartitionTable", "FilesystemResizeUnmounted"]);
    assert_eq!(image.size(), 200 * MIB - 4096 * 512);
    assert_eq!(fs_size(&image.root()), 200 * MIB - 4096 * 512);
}

/// Remembers every write.
struct Recorder {
    device: MemoryDevice,
    writes: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl BlockDevice for Recorder {
    fn len(&self) -> u64 {
        self.device.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.writes.lock().unwrap().push((offset, buf.to_vec()));
        self.device.write_at(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.device.flush()
    }
}

/// A cut after any write leaves a partition table and, in the root partition as the table then
/// has it, a file system that e2fsck puts in order, with the old or the new content.
#[test]
fn a_cut_at_any_write_leaves_a_working_disk() {
    for layout in [Layout::Gpt, Layout::Logical] {
        let image = Image::new(layout, 90);
        let before = image.bytes();
        let recorder = Arc::new(Recorder {
            device: MemoryDevice::new(before.clone()),
            writes: Mutex::default(),
        });
        customize_on(recorder.clone(), Vec::new(), &plan(Some("6:16")), Mode::Commit).unwrap();
        let writes = std::mem::take(&mut *recorder.writes.lock().unwrap());
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

/// Fails at the n-th write.
struct Failing {
    device: MemoryDevice,
    left: Mutex<u32>,
}

impl BlockDevice for Failing {
    fn len(&self) -> u64 {
        self.device.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        let mut left = self.left.lock().unwrap();
        if *left == 0 {
            let source = io::Error::from_raw_os_error(5);
            return Err(DeviceError { operation: "write", offset, length: buf.len(), source });
        }
        *left -= 1;
        self.device.write_at(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

#[test]
fn a_write_that_fails_is_an_error_and_the_table_stays_readable() {
    let image = Image::new(Layout::Gpt, 100);
    let before = image.bytes();
    for count in 0..8 {
        let device = Arc::new(Failing {
            device: MemoryDevice::new(before.clone()),
            left: Mutex::new(count),
        });
        let error =
            customize_on(device.clone(), Vec::new(), &plan(None), Mode::Commit).unwrap_err();
        assert!(error.to_string().contains("error 5"), "{error}");
        assert!(snf_partition::read(&DiskAdapter(&device.device)).unwrap().is_some());
    }
}
