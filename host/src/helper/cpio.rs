//! An initramfs archive: the "newc" format of cpio, written in process.
//!
//! Field names and layout follow the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

/// Builds an archive in memory. All owners are root and all times 0, so that the same input
/// gives the same bytes.
#[derive(Debug, Default)]
pub struct CpioWriter {
    out: Vec<u8>,
    next_ino: u32,
}

/// An entry that the format cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {size} bytes are too many for a cpio archive")]
pub struct TooLarge {
    name: String,
    size: usize,
}

impl CpioWriter {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    pub fn directory(&mut self, name: &str, permissions: u32) {
        self.entry(name, S_IFDIR | permissions, (0, 0), 0);
    }

    /// Adds a character device node.
    pub fn char_device(&mut self, name: &str, permissions: u32, major: u32, minor: u32) {
        self.entry(name, S_IFCHR | permissions, (major, minor), 0);
    }

    /// Adds a regular file.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> Result<(), TooLarge> {
        let size = u32::try_from(content.len())
            .map_err(|_| TooLarge { name: name.to_owned(), size: content.len() })?;
        self.entry(name, S_IFREG | permissions, (0, 0), size);
        self.out.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.next_ino = 0;
        self.entry("TRAILER!!!", 0, (0, 0), 0);
        self.out
    }

    fn entry(&mut self, name: &str, c_mode: u32, c_rdev: (u32, u32), c_filesize: u32) {
        let c_ino = self.next_ino;
        self.next_ino = self.next_ino.wrapping_add(1);
        let c_nlink = if c_mode & 0o170_000 == S_IFDIR { 2 } else { 1 };
        // Names are our own and short.
        let c_namesize = name.len() as u32 + 1;
        let fields =
            [c_ino, c_mode, 0, 0, c_nlink, 0, c_filesize, 0, 0, c_rdev.0, c_rdev.1, c_namesize, 0];
        self.out.extend_from_slice(b"070701");
        for field in fields {
            self.out.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(0);
        self.pad();
    }

    /// Header with name, and content, each end on a multiple of four bytes.
    fn pad(&mut self) {
        while !self.out.len().is_multiple_of(4) {
            self.out.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_lists_what_was_written() {
        let mut writer = CpioWriter::new();
        writer.directory("dev", 0o755);
        writer.char_device("dev/console", 0o600, 5, 1);
        writer.file("init", 0o755, b"#!/bin/true\n").unwrap();
        writer.file("empty", 0o644, b"").unwrap();
        let archive = writer.finish();

        let mut cpio = Command::new("cpio")
            .args(["-itv", "--numeric-uid-gid", "--quiet"])
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio must be installed");
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<&str>> =
            listing.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 4, "{listing}");
        assert_eq!(lines[0][0], "drwxr-xr-x");
        assert_eq!(lines[1][0], "crw-------");
        assert_eq!(lines[1][4..6], ["5,", "1"]);
        assert_eq!(lines[2][0], "-rwxr-xr-x");
        assert_eq!(lines[2][4], "12");
        assert_eq!(*lines[3].last().unwrap(), "empty");
    }
}
