//! Images, loop devices and mounts, all undone when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program that must succeed; its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Copies an image with its holes, sharing blocks where the file system can.
pub fn copy(from: &Path, to: &Path) {
    run(
        "cp",
        &["--sparse=always", "--reflink=auto", &from.to_string_lossy(), &to.to_string_lossy()],
    );
}

/// First byte and size in bytes of a partition of a GPT or MBR image, as sfdisk sees it.
pub fn partition(image: &Path, number: u32) -> (u64, u64) {
    let dump = run("sfdisk", &["-d", &image.to_string_lossy()]);
    let prefix = format!("{}{number} :", image.display());
    let line = dump
        .lines()
        .find(|line| {
            line.replace("p", "").starts_with(&prefix.replace("p", "")) || line.starts_with(&prefix)
        })
        .unwrap_or_else(|| panic!("no partition {number} in\n{dump}"));
    let field = |name: &str| -> u64 {
        let rest = line.split(name).nth(1).unwrap().trim_start_matches([' ', '=']);
        rest.split(',').next().unwrap().trim().parse().unwrap()
    };
    (field("start") * 512, field("size") * 512)
}

/// A loop device over a part of an image.
pub struct Loop {
    /// `/dev/loopN`.
    pub device: String,
}

impl Loop {
    /// Attaches `size` bytes at `start`.
    pub fn new(image: &Path, start: u64, size: u64, read_only: bool) -> Self {
        let mut arguments = vec!["-f".to_owned(), "--show".to_owned()];
        if read_only {
            arguments.push("-r".to_owned());
        }
        arguments.push(format!("-o{start}"));
        arguments.push(format!("--sizelimit={size}"));
        arguments.push(image.to_string_lossy().into_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self { device: run("losetup", &arguments).trim().to_owned() }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// A file system mounted by the kernel.
pub struct Mount {
    /// Where.
    pub path: PathBuf,
    _loop: Loop,
    _directory: tempfile::TempDir,
}

impl Mount {
    /// Mounts a partition read-only. `noload` leaves a journal alone, so that the image stays as
    /// it is.
    pub fn read_only(image: &Path, number: u32) -> Self {
        let (start, size) = partition(image, number);
        Self::at(image, start, size, true)
    }

    /// Mounts a part of an image.
    pub fn at(image: &Path, start: u64, size: u64, read_only: bool) -> Self {
        let device = Loop::new(image, start, size, read_only);
        let directory = tempfile::tempdir().unwrap();
        let options = if read_only { "ro" } else { "rw" };
        run("mount", &["-o", options, &device.device, &directory.path().to_string_lossy()]);
        Self { path: directory.path().to_owned(), _loop: device, _directory: directory }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A child that another test is just starting may hold a file of it for a moment.
        for _ in 0..100 {
            if Command::new("umount").arg(&self.path).status().is_ok_and(|status| status.success())
            {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// `e2fsck -fn` finds nothing to say.
pub fn assert_clean(image: &Path, number: u32) {
    let (start, size) = partition(image, number);
    assert_clean_at(image, start, size);
}

/// The same for a part of an image.
pub fn assert_clean_at(image: &Path, start: u64, size: u64) {
    let device = Loop::new(image, start, size, true);
    let output = Command::new("timeout")
        .args(["-s", "KILL", "120", "e2fsck", "-fn", &device.device])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && !said.contains("Fix?") && !said.contains("WARNING"),
        "e2fsck -fn: {}\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// SHA-256 of a part of a file.
pub fn hash_range(image: &Path, start: u64, size: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = fs::File::open(image).unwrap();
    file.seek(SeekFrom::Start(start)).unwrap();
    super::walk::sha256(file.take(size))
}
