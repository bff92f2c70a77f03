//! Helpers of the ext engine's tests: images made by mke2fs, and the judges.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use snf_fs::ext::Options;
use snf_fs::ext::internals::inode::Inode;
use snf_fs::ext::internals::map;
use snf_fs::ext::internals::units::Ino;
use snf_fs::ext::internals::volume::Volume;
use snf_fs::{BlockDevice, FileDevice, Timestamp};
use tempfile::TempDir;

/// A file system in a temporary file.
pub struct Image {
    _dir: TempDir,
    pub path: PathBuf,
}

pub fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.env("MKE2FS_CONFIG", "/dev/null").output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

impl Image {
    /// Makes a file system that holds `files` (name, content) in its root.
    pub fn make(args: &str, mib: u64, files: &[(String, Vec<u8>)]) -> Self {
        let image = Self::make_unchecked(args, mib, files);
        image.fsck(args);
        image
    }

    /// The same where mke2fs leaves something for e2fsck to mend.
    pub fn make_unchecked(args: &str, mib: u64, files: &[(String, Vec<u8>)]) -> Self {
        // In memory where the machine has that: these tests write gigabytes.
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let path = dir.path().join("image");
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        for (name, content) in files {
            std::fs::write(tree.join(name), content).unwrap();
        }
        let mut command = Command::new("mke2fs");
        command.args(["-q", "-F", "-d"]).arg(&tree).args(args.split_whitespace());
        command.arg(&path).arg(format!("{mib}m"));
        let output = command.output().expect("mke2fs is needed (package e2fsprogs)");
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        Self { _dir: dir, path }
    }

    pub fn open(&self) -> Volume {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        let device = Arc::new(FileDevice::from_file(file).unwrap());
        let now = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
        Volume::open(device, Options { now, seed: 1 }).unwrap()
    }

    /// e2fsck must find nothing wrong, and no extent tree that could be smaller.
    pub fn fsck(&self, what: &str) {
        let text = self.fsck_errors(what);
        let odd = text.contains("IGNORED") || text.contains("could be");
        assert!(!odd, "{what}: e2fsck -fn says\n{text}");
    }

    /// e2fsck must find nothing wrong.
    pub fn fsck_errors(&self, what: &str) -> String {
        let mut command = Command::new("timeout");
        let (code, text) =
            run(command.args(["-s", "KILL", "300", "e2fsck", "-fn"]).arg(&self.path));
        assert!(code == Some(0), "{what}: e2fsck -fn says {code:?}\n{text}");
        text
    }

    pub fn debugfs(&self, request: &str) -> String {
        run(Command::new("debugfs").args(["-R", request]).arg(&self.path)).1
    }

    pub fn ino(&self, name: &str) -> Ino {
        let text = self.debugfs(&format!("stat /{name}"));
        let word = text.lines().find_map(|line| line.strip_prefix("Inode: "));
        let number = word.and_then(|word| word.split_whitespace().next()).unwrap();
        Ino::new(number.parse().unwrap())
    }

    /// The file's content as debugfs reads it.
    pub fn dump(&self, name: &str) -> Vec<u8> {
        let out = self.path.with_extension("dump");
        self.debugfs(&format!("dump /{name} {}", out.display()));
        std::fs::read(out).unwrap()
    }
}

/// Writes everything pending straight to its place.
pub fn commit(vol: &mut Volume) {
    snf_fs::ext::internals::journal::seal(vol).unwrap();
    let size = vol.block_size();
    let device = vol.store.device().clone();
    vol.store.seal();
    for transaction in vol.store.transactions() {
        for (number, block) in transaction.data.iter().chain(&transaction.meta) {
            device.write_at(number.byte(size), block).unwrap();
        }
    }
    vol.store.committed();
}

/// splitmix64: the same stress every time.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(n + 8);
        while out.len() < n {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(n);
        out
    }
}

pub fn content(vol: &Volume, inode: &Inode) -> Vec<u8> {
    let mut out = vec![0xAA; inode.size() as usize + 1];
    let n = map::read(vol, inode, 0, &mut out).unwrap();
    assert_eq!(n as u64, inode.size());
    out.truncate(n);
    out
}

pub fn files(count: usize, largest: u64, seed: u64) -> Vec<(String, Vec<u8>)> {
    let mut random = Random(seed);
    (0..count)
        .map(|i| {
            let size = random.below(largest) as usize;
            (format!("file{i}"), random.bytes(size))
        })
        .collect()
}
