//! Helpers of the tests: image files, and the tools that judge our tables.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use snf_partition::Disk;

/// An image file as a disk; the file goes when this goes.
pub(crate) struct ImageDisk {
    file: tempfile::NamedTempFile,
    sector_size: u32,
}

impl ImageDisk {
    /// A sparse file of `mib` MiB.
    pub(crate) fn new(mib: u64, sector_size: u32) -> Self {
        let file = tempfile::Builder::new().suffix(".img").tempfile().unwrap();
        file.as_file().set_len(mib << 20).unwrap();
        Self { file, sector_size }
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Enlarges (or cuts) the file.
    pub(crate) fn resize(&self, mib: u64) {
        self.file().set_len(mib << 20).unwrap();
    }

    pub(crate) fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut buf = vec![0; length];
        self.file().read_exact_at(&mut buf, offset).unwrap();
        buf
    }

    pub(crate) fn put(&self, offset: u64, bytes: &[u8]) {
        self.file().write_all_at(bytes, offset).unwrap();
    }

    /// A copy as another file.
    pub(crate) fn duplicate(&self) -> Self {
        let copy = Self::new(0, self.sector_size);
        run("cp", &["--sparse=always", self.str(), copy.str()], "");
        copy
    }

    pub(crate) fn str(&self) -> &str {
        self.path().to_str().unwrap()
    }
}

impl Disk for ImageDisk {
    fn len(&self) -> u64 {
        self.file().metadata().unwrap().len()
    }
    fn sector_size(&self) -> u32 {
        self.sector_size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file().read_exact_at(buf, offset)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        assert!(offset + buf.len() as u64 <= self.len(), "a write beyond the end");
        self.file().write_all_at(buf, offset)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The path of a tool: `/usr/sbin` is not on every user's path.
fn tool(name: &str) -> PathBuf {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is needed by this test and is not installed"))
}

/// Runs a tool with `input` on its standard input; exit status and everything it said.
pub(crate) fn try_run(name: &str, args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(tool(name))
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A tool that ends without reading all is its own business.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// Runs a tool that must succeed; what it said.
pub(crate) fn run(name: &str, args: &[&str], input: &str) -> String {
    let (good, text) = try_run(name, args, input);
    assert!(good, "{name} {args:?}:\n{text}");
    text
}

/// `sfdisk -d` without the lines that name the file.
pub(crate) fn dump(disk: &ImageDisk) -> Vec<String> {
    run("sfdisk", &["-d", disk.str()], "")
        .lines()
        .filter(|line| !line.starts_with("device:") && !line.is_empty())
        .map(|line| line.replace(disk.str(), "").split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}
