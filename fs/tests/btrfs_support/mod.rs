//! Shared by the tests of btrfs: images that mkfs.btrfs makes and the kernel mounts, and walks
//! through its eyes and ours.
#![allow(dead_code, unreachable_pub)]

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use snf_fs::btrfs::Btrfs;
use snf_fs::{BlockDevice, FileDevice, Timestamp};
use tempfile::TempDir;

pub use crate::oracle::{Mount, NOW, diff, shell, walk_ext, walk_mount};

/// A btrfs in a temporary file.
pub struct Disk {
    pub dir: TempDir,
    pub path: PathBuf,
}

impl Disk {
    /// Made by mkfs.btrfs.
    pub fn make(args: &str, mib: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("image");
        File::create(&path).unwrap().set_len(mib << 20).unwrap();
        let mut command = Command::new("mkfs.btrfs");
        command.args(["-q", "-f"]).args(args.split_whitespace()).arg(&path);
        let output = command.output().expect("mkfs.btrfs is needed (package btrfs-progs)");
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        Self { dir, path }
    }

    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, bytes).unwrap();
        Self { dir, path }
    }

    pub fn device(&self) -> Arc<dyn BlockDevice> {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        Arc::new(FileDevice::from_file(file).unwrap())
    }

    pub fn open(&self) -> Btrfs {
        Btrfs::open(self.device(), NOW).unwrap()
    }

    pub fn mount(&self, options: &str) -> Mount {
        let at = self.dir.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        let read_only = options.split(',').any(|option| option == "ro");
        for _ in 0..100 {
            let output = Command::new("mount")
                .args(["-t", "btrfs", "-o"])
                .arg(format!("loop,{options}"))
                .arg(&self.path)
                .arg(&at)
                .output()
                .expect("mount is needed");
            assert!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
            let mount = Mount { at: at.clone() };
            // The loop device of a mount before this one may be there for a moment, read-only.
            let flags = rustix::fs::statvfs(&at).unwrap().f_flag;
            if read_only || !flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                return mount;
            }
            drop(mount);
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{} is mounted read-only only", self.path.display());
    }

    /// Mounts it, runs a script in it, and unmounts it.
    pub fn fill(&self, options: &str, script: &str) {
        let mount = self.mount(options);
        shell(&mount.at, script);
        drop(mount);
    }

    /// `btrfs check` finds nothing, data checksums included.
    pub fn check(&self, what: &str) {
        let output = Command::new("btrfs")
            .args(["check", "--readonly", "--check-data-csum"])
            .arg(&self.path)
            .output()
            .expect("btrfs is needed (package btrfs-progs)");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        let clean = output.status.success() && text.contains("no error found");
        assert!(clean, "{what}: btrfs check: {:?}\n{}", output.status.code(), tail(&text));
    }

    /// Runs btrfstune.
    pub fn tune(&self, args: &[&str]) {
        let output = Command::new("btrfstune").args(args).arg(&self.path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn dump(&self, args: &str) -> String {
        let output = Command::new("btrfs")
            .arg("inspect-internal")
            .args(args.split_whitespace())
            .arg(&self.path)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

fn tail(text: &str) -> String {
    text.chars().take(3000).collect()
}

/// The kernel and our reader agree about everything.
pub fn compare(disk: &Disk, what: &str) {
    let mut ours = walk_ext(&disk.open());
    let mount = disk.mount("ro");
    let mut theirs = walk_mount(&mount.at);
    drop(mount);
    for tree in [&mut ours, &mut theirs] {
        tree.iter_mut().for_each(|(path, seen)| stub(path, seen));
    }
    diff(what, &ours, &theirs);
}

/// The placeholder of a subvolume in a snapshot has the time of the look at it.
fn stub(path: &[u8], seen: &mut crate::oracle::Seen) {
    if path.ends_with(b"/nested") && seen.size == 0 {
        (seen.mtime, seen.ctime) = ((0, 0), (0, 0));
    }
}

/// The time of the tests.
pub fn now() -> Timestamp {
    NOW
}
