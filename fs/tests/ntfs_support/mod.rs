//! Helpers of the NTFS tests: volumes made by mkntfs, filled through ntfs-3g's FUSE mount.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod edit;
pub mod linux;
pub mod walk;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{XattrFlags, lsetxattr};
use snf_fs::FileDevice;
use snf_fs::ntfs::check::{Report, check};
use snf_fs::testing::Random;
use tempfile::TempDir;

/// A volume in a temporary file.
pub struct Image {
    dir: TempDir,
    pub path: PathBuf,
}

pub fn run(program: &str, args: &[&OsStr]) -> (Option<i32>, String) {
    let mut command = Command::new("timeout");
    let output = command.args(["-s", "KILL", "300", program]).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

impl Image {
    /// Makes an empty volume of `mib` MiB.
    pub fn make(args: &str, mib: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("image");
        File::create(&path).unwrap().set_len(mib << 20).unwrap();
        let mut all: Vec<&OsStr> = ["-q", "-F", "-f"].map(OsStr::new).to_vec();
        all.extend(args.split_whitespace().map(OsStr::new));
        all.push(path.as_os_str());
        let (code, text) = run("mkntfs", &all);
        assert_eq!(code, Some(0), "mkntfs {args}: {text}");
        Self { dir, path }
    }

    /// The same volume in another file.
    pub fn copy(&self) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("image");
        let args = ["--sparse=always".as_ref(), self.path.as_os_str(), path.as_os_str()];
        let (code, text) = run("cp", &args);
        assert_eq!(code, Some(0), "{text}");
        Self { dir, path }
    }

    pub fn device(&self) -> Arc<FileDevice> {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        Arc::new(FileDevice::from_file(file).unwrap())
    }

    pub fn check(&self) -> Report {
        check(&*self.device()).unwrap()
    }

    /// The checker finds nothing at all.
    pub fn must_be_clean(&self, what: &str) -> Report {
        let report = self.check();
        assert!(report.findings.is_empty(), "{what}: {:#?}", report.findings);
        report
    }

    /// Runs one of ntfs-3g's programs on it, which must succeed.
    pub fn tool(&self, program: &str, args: &[&str]) -> String {
        let mut all: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        all.push(self.path.as_os_str());
        let (code, text) = run(program, &all);
        assert_eq!(code, Some(0), "{program} {args:?}: {text}");
        text
    }

    /// ntfsfix finds nothing that it would mend.
    pub fn fix_finds_nothing(&self, what: &str) {
        let text = self.tool("ntfsfix", &["-n"]);
        assert!(text.contains("was processed successfully"), "{what}: {text}");
        assert!(!text.contains("FAILED") && !text.contains("rror"), "{what}: {text}");
    }

    /// A checker that shares no code with any driver (`oracle/ntfs-lint.py`) finds no errors but
    /// of the kinds `allowed`.
    pub fn lint(&self, allowed: &[&str], what: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oracle/ntfs-lint.py");
        let (_, text) = run("python3", &[script.as_ref(), self.path.as_os_str()]);
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("CLEAN") || last.starts_with("ERRORS"), "{what}: {text}");
        for line in text.lines().filter(|line| line.starts_with("E: ")) {
            let code = line.split(": ").nth(1).unwrap_or_default();
            assert!(allowed.contains(&code), "{what}: {text}");
        }
    }

    pub fn mount(&self) -> Mount {
        let at = self.dir.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        let child = Command::new("ntfs-3g")
            .args(["-o", "no_detach,compression,silent,permissions"])
            .arg(&self.path)
            .arg(&at)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ntfs-3g is needed");
        let mut mount = Mount { at, child };
        let start = Instant::now();
        while !mount.is_there() {
            let gone = mount.child.try_wait().unwrap();
            assert!(gone.is_none(), "ntfs-3g does not mount {}: {gone:?}", self.path.display());
            assert!(start.elapsed() < Duration::from_secs(60), "ntfs-3g does not mount");
            std::thread::sleep(Duration::from_millis(10));
        }
        mount
    }
}

/// A FUSE mount, gone when dropped, with all that ntfs-3g had yet to write written.
pub struct Mount {
    pub at: PathBuf,
    child: Child,
}

impl Mount {
    fn is_there(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let at = self.at.to_str().unwrap();
        mounts.lines().any(|line| line.split(' ').nth(1) == Some(at))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// Sets one of ntfs-3g's own attributes, or an alternate data stream (`user.NAME`).
    pub fn set(&self, path: &Path, name: &str, value: &[u8]) {
        lsetxattr(path, name, value, XattrFlags::empty())
            .unwrap_or_else(|error| panic!("{} {name}: {error}", path.display()));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for _ in 0..100 {
            let output = Command::new("umount").arg(&self.at).output();
            if output.is_ok_and(|output| output.status.success()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // It goes on writing when umount is back.
        let start = Instant::now();
        while self.child.try_wait().is_ok_and(|gone| gone.is_none()) {
            if start.elapsed() > Duration::from_secs(60) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// An alternate data stream through the mount.
pub fn stream(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 1 << 20];
    let count = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(count);
    value
}

pub fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
    (0..count).map(|_| random.next_u64() as u8).collect()
}

/// The work of [`fill`], as the walk through the mount counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Different files and directories, the root not among them.
    pub files: u64,
    pub directories: u64,
    /// Names, short ones among them.
    pub names: u64,
}

/// The value of `system.ntfs_reparse_data` of a junction.
pub fn junction(target: &str) -> Vec<u8> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let (substitute, print) = (utf16(&format!("\\??\\{target}")), utf16(target));
    let mut body = Vec::new();
    for number in [0, substitute.len(), substitute.len() + 2, print.len()] {
        body.extend((number as u16).to_le_bytes());
    }
    body.extend(&substitute);
    body.extend([0, 0]);
    body.extend(&print);
    body.extend([0, 0]);
    let mut out = 0xa000_0003u32.to_le_bytes().to_vec();
    out.extend((body.len() as u16).to_le_bytes());
    out.extend([0, 0]);
    out.extend(body);
    out
}

/// Puts one of everything into the volume, and `many` files into one directory.
pub fn fill(mount: &Mount, many: usize) -> Filled {
    let mut random = Random(11);
    let root = &mount.at;
    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).unwrap();
    for (index, size) in [0, 1, 300, 700, 5_000, 70_000, 1_500_000].into_iter().enumerate() {
        write(&root.join(format!("file {index}")), &bytes(&mut random, size));
    }
    let large = root.join("large");
    std::fs::create_dir(&large).unwrap();
    for index in 0..many {
        let name = format!("{:x} an entry whose name fills index blocks", random.next_u64());
        write(&large.join(name), format!("{index}").as_bytes());
    }
    // Some go again: blocks with room, records to be used anew.
    for (index, entry) in std::fs::read_dir(&large).unwrap().enumerate() {
        if index % 7 == 3 {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    let mut deep = root.clone();
    for level in 0..40 {
        deep.push(format!("level {level}"));
        std::fs::create_dir(&deep).unwrap();
        write(&deep.join("leaf"), &bytes(&mut random, level * 10));
    }
    let names: [&[u8]; 7] = [
        "Füße".as_bytes(),
        "日本語の名前".as_bytes(),
        "emoji \u{1f600}".as_bytes(),
        "ΑΒΓ".as_bytes(),
        "ÿ".as_bytes(),
        b"UPPER and lower",
        b"half \xed\xa0\x80 pair",
    ];
    for name in names {
        write(&root.join(OsStr::from_bytes(name)), name);
    }
    write(&root.join("x".repeat(255)), b"the longest name");

    let streams = root.join("streams");
    write(&streams, b"main");
    mount.set(&streams, "user.small", b"a stream");
    mount.set(&streams, "user.large", &bytes(&mut random, 50_000));
    let links = root.join("links");
    write(&links, &bytes(&mut random, 2_000));
    for index in 0..30 {
        std::fs::hard_link(&links, root.join(format!("link {index} of many to one file"))).unwrap();
    }
    let short = root.join("a long name with a short one.text");
    write(&short, b"8.3");
    mount.set(&short, "system.ntfs_dos_name", b"ALONGN~1.TEX");

    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(12 << 20).unwrap();
    for at in [0u64, 5 << 20, 9 << 20] {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"island", at).unwrap();
    }
    drop(sparse);
    // Two files that grow in turns lie in pieces; enough of them to need an attribute list.
    let pieces = ["pieces 1", "pieces 2"].map(|name| File::create(root.join(name)).unwrap());
    let piece = bytes(&mut random, 6_000);
    for round in 0..(many as u64).clamp(60, 300) {
        for file in &pieces {
            std::os::unix::fs::FileExt::write_all_at(file, &piece, round * 6_000).unwrap();
            file.sync_data().unwrap();
        }
    }
    drop(pieces);
    let packed = root.join("compressed");
    std::fs::create_dir(&packed).unwrap();
    mount.set(&packed, "system.ntfs_attrib", &0x810u32.to_le_bytes());
    write(&packed.join("text"), &b"the same words again and again. ".repeat(20_000));
    write(&packed.join("noise"), &bytes(&mut random, 200_000));

    std::os::unix::fs::symlink("file 1", root.join("symlink")).unwrap();
    let junctions = root.join("junction");
    std::fs::create_dir(&junctions).unwrap();
    mount.set(&junctions, "system.ntfs_reparse_data", &junction("D:\\elsewhere"));
    count(root, 1)
}

/// Counts what is below `root`; `short` names are not shown by the mount.
pub fn count(root: &Path, short: u64) -> Filled {
    use std::os::unix::fs::DirEntryExt;
    let mut filled = Filled { names: short, ..Filled::default() };
    let mut seen = std::collections::BTreeSet::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            filled.names += 1;
            filled.files += u64::from(seen.insert(entry.ino()));
            // A junction to another drive, which cannot be looked at.
            let Ok(meta) = std::fs::symlink_metadata(entry.path()) else {
                filled.directories += 1;
                continue;
            };
            if meta.is_dir() {
                filled.directories += 1;
                todo.push(entry.path());
            }
        }
    }
    filled
}
