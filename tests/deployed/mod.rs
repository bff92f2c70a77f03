//! Shared by the tests of whole runs: a small Debian on a disk of each layout, one run of
//! [`snf_image::customize`], and the judges.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use snf_fs::{BlockDevice, FileDevice};
use snf_image::customize::{CustomizeError, Instance, Mode, Report, customize_instance};
use snf_image::disk_adapter::DiskAdapter;
use snf_image::event::Event;
use snf_image::plan::{HostKeys, MachineId, Plan};
use snf_image::properties::Properties;
use snf_image::random::{Clock, Entropy};

pub const MIB: u64 = 1 << 20;

pub fn command(program: &str, arguments: &[&str]) -> (i32, String) {
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
pub fn run(program: &str, arguments: &[&str]) -> String {
    let (code, text) = command(program, arguments);
    assert_eq!(code, 0, "{program} {arguments:?}: {text}");
    text
}

/// How the image's disk is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    Gpt,
    Mbr,
    Logical,
    Bare,
}

pub struct Image {
    pub dir: tempfile::TempDir,
    pub path: PathBuf,
    /// First sector and number of the root partition.
    pub start: u64,
    pub number: Option<u32>,
}

impl Image {
    /// A small Debian in the last partition of a disk of 64 MiB, on a disk of `mib`.
    pub fn new(layout: Layout, mib: u64) -> Self {
        Self::made_with(layout, mib, &["-t", "ext4"])
    }

    /// The same with a file system that mke2fs makes by these arguments.
    pub fn made_with(layout: Layout, mib: u64, mke2fs: &[&str]) -> Self {
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
            ("bin/bash", ""),
        ] {
            fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), text).unwrap();
        }
        let part = dir.path().join("part");
        let sectors = 40 * MIB / 512;
        File::create(&part).unwrap().set_len(sectors * 512).unwrap();
        let (part, tree) = (part.to_str().unwrap(), tree.to_str().unwrap());
        run("mke2fs", &[&["-q", "-F", "-d", tree], mke2fs, &[part]].concat());
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

    pub fn device(&self) -> Arc<dyn BlockDevice> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        Arc::new(FileDevice::from_file(file).unwrap())
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    pub fn str(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub fn table(&self) -> Option<snf_partition::Table> {
        snf_partition::read(&DiskAdapter(&*self.device())).unwrap()
    }

    /// Size of the root partition in bytes.
    pub fn size(&self) -> u64 {
        match self.number {
            None => fs::metadata(&self.path).unwrap().len(),
            Some(number) => self.table().unwrap().partition(number).unwrap().size * 512,
        }
    }

    /// The root partition, as e2fsprogs' tools name it; e2fsck has no complaint about it.
    pub fn root(&self) -> String {
        let name = format!("{}?offset={}", self.str(), self.start * 512);
        let (code, text) = fsck("-fn", &name);
        assert_eq!(code, 0, "{text}");
        name
    }
}

pub fn fsck(mode: &str, name: &str) -> (i32, String) {
    command("timeout", &["-s", "KILL", "60", "e2fsck", mode, name])
}

/// Writes a file and leaves holes where it is zero: the tests spend their time on the disk.
pub fn write_sparse(path: &Path, bytes: &[u8]) {
    let file = File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (index, chunk) in bytes.chunks(1 << 16).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            file.write_all_at(chunk, (index as u64) << 16).unwrap();
        }
    }
}

/// Bytes of the file system, as dumpe2fs says.
pub fn fs_size(image: &str) -> u64 {
    let text = run("dumpe2fs", &["-h", image]);
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].trim().parse().unwrap()
    };
    field("Block count:") * field("Block size:")
}

pub fn cat(image: &str, path: &str) -> String {
    let output = Command::new("/usr/sbin/debugfs")
        .args(["-R", &format!("cat {path}")])
        .arg(image)
        .output()
        .expect("debugfs is needed for this test");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn plan(swap: Option<&str>) -> Plan {
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

pub fn customize_on(
    device: Arc<dyn BlockDevice>,
    others: Vec<Arc<dyn BlockDevice>>,
    plan: &Plan,
    mode: Mode,
) -> Result<(Report, Vec<Event>), CustomizeError> {
    let mut events = Vec::new();
    let clock = Clock::fixed(86_400 * 20_000);
    let mut entropy = Entropy::seeded(7);
    let instance = Instance { disk: device, members: Vec::new(), others, mounter: None };
    customize_instance(instance, plan, &mut entropy, &clock, &mut events, mode)
        .map(|report| (report, events))
}

pub fn customize(image: &Image, plan: &Plan) -> Report {
    let before = image.bytes();
    let (dry, _) = customize_on(image.device(), Vec::new(), plan, Mode::DryRun).unwrap();
    assert!(image.bytes() == before, "a dry run wrote to the disk");
    let (report, _) = customize_on(image.device(), Vec::new(), plan, Mode::Commit).unwrap();
    assert_eq!(dry.partition_table, report.partition_table);
    assert_eq!(dry.changes, report.changes);
    assert_eq!(report.warnings, Vec::<String>::new());
    report
}

pub fn check_table(image: &Image, layout: Layout) {
    if layout != Layout::Bare {
        let said = run("sfdisk", &["-V", image.str()]);
        assert!(said.contains("No errors detected."), "{said}");
    }
    if layout == Layout::Gpt {
        let said = run("sgdisk", &["-v", image.str()]);
        assert!(said.contains("No problems found."), "{said}");
    }
}
