//! Shared by the tests of the XFS engine: images made by mkfs.xfs, and the judges.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use snf_fs::xfs::{Options, Xfs};
use snf_fs::{BlockDevice, FileDevice, MemoryDevice, Result};
use tempfile::TempDir;

use crate::oracle::{self, Mount, NOW};

pub const OPTIONS: Options = Options { now: NOW, seed: 7 };

/// A file system in a temporary file.
pub struct Image {
    pub dir: TempDir,
    pub path: PathBuf,
}

/// Runs a command; its output when it succeeded.
pub fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// In memory where the machine has that.
fn scratch() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

impl Image {
    pub fn make(args: &str, mib: u64) -> Self {
        let dir = scratch();
        let path = dir.path().join("image");
        File::create(&path).unwrap().set_len(mib << 20).unwrap();
        let mut command = Command::new("mkfs.xfs");
        // mkfs.xfs makes file systems below 300 MiB for tests only, which say so.
        for name in ["TEST_DIR", "TEST_DEV", "QA_CHECK_FS"] {
            command.env(name, "1");
        }
        must(command.args(["-q", "-f"]).args(args.split_whitespace()).arg(&path));
        Self { dir, path }
    }

    pub fn of_bytes(bytes: &[u8]) -> Self {
        let dir = scratch();
        let path = dir.path().join("image");
        std::fs::write(&path, bytes).unwrap();
        Self { dir, path }
    }

    pub fn device(&self) -> Arc<dyn BlockDevice> {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        Arc::new(FileDevice::from_file(file).unwrap())
    }

    pub fn try_open(&self) -> Result<Xfs> {
        Xfs::open(self.device(), OPTIONS)
    }

    pub fn open(&self) -> Xfs {
        self.try_open().unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    pub fn try_mount(&self, options: &str) -> Option<Mount> {
        let at = self.dir.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "xfs", "-o"]).arg(format!("loop,{options}")).arg(&self.path).arg(&at);
        let output = command.output().expect("mount is needed");
        output.status.success().then_some(Mount { at })
    }

    pub fn mount(&self, options: &str) -> Mount {
        self.try_mount(options).unwrap_or_else(|| {
            let log = Command::new("dmesg").output().unwrap().stdout;
            let text = String::from_utf8_lossy(&log).into_owned();
            let tail: Vec<&str> = text.lines().rev().take(15).collect();
            panic!("the kernel does not mount {}: {tail:#?}", self.path.display())
        })
    }

    /// The output of xfs_repair, and whether it is content.
    pub fn judged(&self) -> (bool, String) {
        let mut command = Command::new("xfs_repair");
        let output = command.args(["-n", "-f", "-o", "force_geometry"]).arg(&self.path).output();
        let output = output.expect("xfs_repair is needed (package xfsprogs)");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        (output.status.success() && complaints(&text).is_empty(), text)
    }

    /// xfs_repair must find nothing.
    pub fn check(&self, what: &str) {
        let (ok, text) = self.judged();
        assert!(ok, "{what}: xfs_repair -n says: {:#?}\n{text}", complaints(&text));
    }
}

/// Lines of xfs_repair that are no news of its progress.
pub fn complaints(text: &str) -> Vec<String> {
    let usual = |line: &str| {
        let line = line.trim_start_matches([' ', '-', '\t']);
        line.is_empty()
            || [
                "Phase",
                "agno =",
                "found root",
                "zero log",
                "scan",
                "check",
                "set",
                "setting up",
                "process",
                "traversal",
                "traversing",
                "moving",
                "No modify",
                "verify",
                "would have",
                "Would have",
                "Cannot get host filesystem",
                "Repair may fail if",
                "the image and the host",
            ]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let odd = |line: &str| line.contains("would have") && !line.contains("would have been");
    text.lines().filter(|line| !usual(line) || odd(line)).map(str::to_owned).collect()
}

/// The walk of the kernel, without the names under which it shows ACLs a second time.
pub fn walk_mount(root: &Path) -> oracle::Tree {
    let mut tree = oracle::walk_mount(root);
    for seen in tree.values_mut() {
        seen.xattrs.retain(|name, _| !name.starts_with("trusted.SGI_ACL"));
    }
    tree
}

/// The kernel and our reader agree about everything.
pub fn compare(image: &Image, what: &str) {
    let ours = oracle::walk_ext(&image.open());
    let mount = image.mount("ro");
    let theirs = walk_mount(&mount.at);
    drop(mount);
    oracle::diff(what, &ours, &theirs);
}

pub fn memory(bytes: Vec<u8>) -> Xfs {
    Xfs::open(Arc::new(MemoryDevice::new(bytes)), OPTIONS).unwrap()
}
