//! Disks with volume groups of Debian's lvm2 and LUKS containers of cryptsetup on them. lvm2 runs on
//! loop devices without device-mapper, and its report says where the bytes of a volume lie.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::Guest;

pub const MIB: u64 = 1 << 20;
/// Extents are this large, so that small disks hold many.
const EXTENT: u64 = MIB;

#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Disks as files. The part that holds a physical volume begins at `offset`.
pub struct Disks {
    pub dir: TempDir,
    pub files: Vec<PathBuf>,
    offset: u64,
}

impl Disks {
    /// Empty disks of these sizes in MiB, each wholly a physical volume.
    pub fn whole(sizes: &[u64]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |(index, size): (usize, &u64)| {
            let path = dir.path().join(format!("disk{}.raw", index + 1));
            File::create(&path).unwrap().set_len(size * MIB).unwrap();
            path
        };
        let files = sizes.iter().enumerate().map(file).collect();
        Self { dir, files, offset: 0 }
    }

    /// One disk with a table: a first partition of 16 MiB, and a second one for the rest.
    pub fn partitioned(label: &str, size: u64) -> Self {
        let mut disks = Self::whole(&[size]);
        let mut sfdisk = Command::new("sfdisk")
            .args(["--quiet", "--no-reread"])
            .arg(&disks.files[0])
            .stdin(Stdio::piped())
            .spawn()
            .expect("this test needs sfdisk (fdisk)");
        let table = format!("label: {label}\nstart=2048, size=32768\nstart=34816\n");
        sfdisk.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
        assert!(sfdisk.wait().unwrap().success());
        disks.offset = 17 * MIB;
        disks
    }

    pub fn attach(&self) -> Loops<'_> {
        let mut loops = Loops { disks: self, names: Vec::new() };
        for path in &self.files {
            let mut losetup = Command::new("losetup");
            losetup.args(["--find", "--show", "-o", &self.offset.to_string()]);
            if self.offset > 0 {
                // The end of the disk holds the backup of the table.
                let size = (fs::metadata(path).unwrap().len() - self.offset) / MIB * MIB - MIB;
                losetup.args(["--sizelimit", &size.to_string()]);
            }
            let output = run(losetup.arg(path));
            loops.names.push(String::from_utf8(output.stdout).unwrap().trim().to_owned());
        }
        loops
    }

    /// A group over all disks, and linear volumes: name and size in MiB.
    pub fn group(&self, name: &str, volumes: &[(&str, u64)]) {
        let loops = self.attach();
        let names: Vec<&str> = loops.names.iter().map(String::as_str).collect();
        loops.lvm(&[&["pvcreate", "-q"][..], &names].concat());
        loops.lvm(&[&["vgcreate", "-q", "-s", "1m", name][..], &names].concat());
        for (volume, size) in volumes {
            loops.create(&["-n", volume, "-L", &format!("{size}m"), name]);
        }
    }

    /// The places of a volume's bytes, from lvm2's report: disk, first byte and length, in order.
    fn places(&self, volume: &str) -> Vec<(usize, u64, u64)> {
        let loops = self.attach();
        let report = loops.lvm(&[
            "lvs",
            "--segments",
            "--noheadings",
            "--separator",
            ";",
            "--units",
            "b",
            "--nosuffix",
            "-o",
            "seg_size_pe,stripes,stripe_size,seg_pe_ranges",
            volume,
        ]);
        let mut places = Vec::new();
        for line in report.lines() {
            let fields: Vec<&str> = line.trim().split(';').collect();
            let number = |index: usize| fields[index].parse::<u64>().unwrap();
            let (length, stripes, stripe) = (number(0) * EXTENT, number(1), number(2));
            let area = |range: &str| {
                let (device, extents) = range.split_once(':').unwrap();
                let first: u64 = extents.split('-').next().unwrap().parse().unwrap();
                let disk = loops.names.iter().position(|name| name == device).unwrap();
                (disk, self.offset + MIB + first * EXTENT)
            };
            let areas: Vec<_> = fields[3].split(' ').map(area).collect();
            if stripes == 1 {
                places.push((areas[0].0, areas[0].1, length));
                continue;
            }
            for row in 0..length / stripe {
                let (disk, start) = areas[(row % stripes) as usize];
                places.push((disk, start + row / stripes * stripe, stripe));
            }
        }
        places
    }

    /// The content of a volume.
    pub fn read(&self, volume: &str) -> Vec<u8> {
        let mut content = Vec::new();
        for (disk, start, length) in self.places(volume) {
            let mut bytes = vec![0; length as usize];
            File::open(&self.files[disk]).unwrap().read_exact_at(&mut bytes, start).unwrap();
            content.extend_from_slice(&bytes);
        }
        content
    }

    /// Writes to the beginning of a volume.
    pub fn write(&self, volume: &str, mut content: &[u8]) {
        for (disk, start, length) in self.places(volume) {
            let (part, rest) = content.split_at(content.len().min(length as usize));
            let file = File::options().write(true).open(&self.files[disk]).unwrap();
            file.write_all_at(part, start).unwrap();
            content = rest;
        }
        assert!(content.is_empty(), "{volume} is too small");
    }

    /// The file system in a volume, as an image of its own.
    pub fn guest(&self, volume: &str) -> Guest {
        image(&self.read(volume))
    }

    /// The second partition, or the whole disk, as a file of its own.
    pub fn part(&self, disk: usize) -> Vec<u8> {
        fs::read(&self.files[disk]).unwrap()[self.offset as usize..].to_vec()
    }

    /// Puts bytes at the beginning of that part.
    pub fn put(&self, disk: usize, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.files[disk]).unwrap();
        file.write_all_at(bytes, self.offset).unwrap();
    }

    /// Bytes in that part.
    pub fn room(&self, disk: usize) -> u64 {
        let size = fs::metadata(&self.files[disk]).unwrap().len();
        if self.offset == 0 { size } else { (size - self.offset) / MIB * MIB - MIB }
    }

    /// lvm2 finds nothing to say about the group.
    #[track_caller]
    pub fn check(&self, group: &str) {
        let loops = self.attach();
        loops.lvm(&["vgck", group]);
    }

    pub fn path(&self, disk: usize) -> &str {
        self.files[disk].to_str().unwrap()
    }
}

/// An image in a directory of its own.
pub fn image(bytes: &[u8]) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("volume.raw");
    fs::write(&image, bytes).unwrap();
    Guest { dir, image }
}

/// Loop devices over the disks, detached when they go.
pub struct Loops<'a> {
    disks: &'a Disks,
    pub names: Vec<String>,
}

impl Loops<'_> {
    /// Runs a command of lvm2, which sees these devices only.
    #[track_caller]
    pub fn lvm(&self, command: &[&str]) -> String {
        let accept: String = self.names.iter().map(|name| format!("\"a|^{name}$|\",")).collect();
        let config = format!(
            "devices {{ use_devicesfile=0 scan_lvs=0 global_filter=[{accept}\"r|.*|\"] \
             obtain_device_list_from_udev=0 external_device_info_source=\"none\" }} \
             global {{ use_lvmlockd=0 use_lvmpolld=0 event_activation=0 }} \
             backup {{ backup=0 archive=0 }} \
             activation {{ udev_sync=0 udev_rules=0 monitoring=0 }}"
        );
        let mut lvm = Command::new("lvm");
        lvm.env("LVM_SUPPRESS_FD_WARNINGS", "1");
        lvm.args(&command[..1]).args(["--driverloaded", "n", "--config", &config]);
        String::from_utf8(run(lvm.args(&command[1..])).stdout).unwrap()
    }

    /// Creates a volume that is neither zeroed nor activated.
    #[track_caller]
    pub fn create(&self, options: &[&str]) {
        self.lvm(&[&["lvcreate", "-q", "-an", "-Zn", "-Wn", "-y"][..], options].concat());
    }

    /// Writes logical volumes into the metadata that `lvcreate` cannot make without device-mapper.
    pub fn restore(&self, group: &str, logical_volumes: &str) {
        let path = self.disks.dir.path().join("backup");
        let path = path.to_str().unwrap();
        self.lvm(&["vgcfgbackup", "-f", path, group]);
        let text = fs::read_to_string(path).unwrap();
        let start = text.find(&format!("\n{group} {{")).unwrap();
        let end = start + text[start..].find("\n}").unwrap();
        let section = format!("\nlogical_volumes {{\n{logical_volumes}\n}}\n");
        fs::write(path, format!("{}{section}{}", &text[..end], &text[end..])).unwrap();
        self.lvm(&["vgcfgrestore", "--force", "--yes", "-f", path, group]);
    }
}

impl Drop for Loops<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("losetup").args(["--detach", name]).status();
        }
    }
}

/// A file system of e2fsprogs with nothing but a directory.
pub fn ext4(dir: &Path, name: &str, size: u64, uuid: &str, label: &str) -> Vec<u8> {
    let path = dir.join(name);
    let size = format!("{size}M");
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-U", uuid, "-L", label])
        .args([path.to_str().unwrap(), &size]));
    fs::read(path).unwrap()
}
