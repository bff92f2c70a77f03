//! Disks as files with loop devices, and lvm2's tools on them. The tools run without
//! device-mapper and see these loop devices only.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod luks;

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use snf_fs::{BlockDevice, FileDevice};

/// Files with loop devices over them, gone when dropped.
pub struct Disks {
    directory: tempfile::TempDir,
    pub files: Vec<PathBuf>,
    pub loops: Vec<String>,
}

impl Disks {
    /// Empty disks of these sizes in MiB.
    pub fn new(sizes: &[u64]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut disks = Self { directory, files: Vec::new(), loops: Vec::new() };
        for (index, size) in sizes.iter().enumerate() {
            let path = disks.directory.path().join(format!("disk{index}"));
            File::create(&path).unwrap().set_len(size << 20).unwrap();
            disks.files.push(path);
        }
        disks.attach();
        disks
    }

    /// Disks with this content.
    pub fn of(contents: &[Vec<u8>]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut disks = Self { directory, files: Vec::new(), loops: Vec::new() };
        for (index, bytes) in contents.iter().enumerate() {
            let path = disks.directory.path().join(format!("disk{index}"));
            std::fs::write(&path, bytes).unwrap();
            disks.files.push(path);
        }
        disks.attach();
        disks
    }

    fn attach(&mut self) {
        for path in &self.files {
            let mut losetup = Command::new("losetup");
            let output = run(losetup.args(["--find", "--show"]).arg(path));
            assert!(output.status.success(), "losetup: {output:?}");
            self.loops.push(String::from_utf8(output.stdout).unwrap().trim().to_owned());
        }
    }

    fn detach(&mut self) {
        for name in self.loops.drain(..) {
            run(Command::new("losetup").args(["--detach", &name]));
        }
    }

    /// Enlarges a disk to `size` MiB.
    pub fn resize(&mut self, index: usize, size: u64) {
        self.detach();
        OpenOptions::new()
            .write(true)
            .open(&self.files[index])
            .unwrap()
            .set_len(size << 20)
            .unwrap();
        self.attach();
    }

    /// The disks, opened for this crate.
    pub fn devices(&self) -> Vec<Arc<dyn BlockDevice>> {
        let open = |path: &PathBuf| {
            let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
            Arc::new(FileDevice::from_file(file).unwrap()) as Arc<dyn BlockDevice>
        };
        self.files.iter().map(open).collect()
    }

    /// The content of each disk.
    pub fn contents(&self) -> Vec<Vec<u8>> {
        self.files.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    /// A path in the directory of the disks.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a command of lvm2, whatever becomes of it.
    pub fn try_lvm(&self, command: &[&str]) -> Output {
        let accept: String = self.loops.iter().map(|name| format!("\"a|^{name}$|\",")).collect();
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
        run(lvm.args(&command[1..]))
    }

    /// Runs a command of lvm2 that must succeed, and gives its output.
    pub fn lvm(&self, command: &[&str]) -> String {
        let output = self.try_lvm(command);
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Creates physical volumes on all disks and a group over them.
    pub fn group(&self, name: &str, pv_options: &[&str]) {
        let loops: Vec<&str> = self.loops.iter().map(String::as_str).collect();
        self.lvm(&[&["pvcreate"], pv_options, &loops].concat());
        self.lvm(&[&["vgcreate", name], &loops[..]].concat());
    }

    /// Creates a logical volume that is neither zeroed nor activated.
    pub fn lvcreate(&self, options: &[&str]) {
        self.lvm(&[&["lvcreate", "-an", "-Zn", "-Wn", "-y"], options].concat());
    }

    /// Writes logical volumes into the metadata that `lvcreate` cannot make without device-mapper.
    pub fn restore(&self, group: &str, logical_volumes: &str) {
        let path = self.path("backup");
        let path = path.to_str().unwrap();
        self.lvm(&["vgcfgbackup", "-f", path, group]);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains("logical_volumes"));
        let start = text.find(&format!("\n{group} {{")).unwrap();
        let end = start + text[start..].find("\n}").unwrap();
        let text = format!(
            "{}\nlogical_volumes {{\n{logical_volumes}\n}}\n{}",
            &text[..end],
            &text[end..]
        );
        std::fs::write(path, text).unwrap();
        self.lvm(&["vgcfgrestore", "--force", "--yes", "-f", path, group]);
    }

    /// `vgck` finds nothing to say.
    pub fn check(&self, group: &str) {
        let output = self.try_lvm(&["vgck", group]);
        let text = String::from_utf8_lossy(&output.stderr);
        let told: Vec<_> =
            text.lines().filter(|line| !line.contains("Activation disabled")).collect();
        assert!(output.status.success() && told.is_empty(), "{output:?}");
        for name in &self.loops {
            let output = self.try_lvm(&["pvck", "--dump", "headers", name]);
            let text = String::from_utf8_lossy(&output.stderr).to_string()
                + &String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && !text.contains("CHECK"), "{text}");
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.detach();
    }
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
