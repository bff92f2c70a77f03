//! Disks that are block devices: loop devices over files full of old bytes. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use snf_image_host::disk::target::Target;
use snf_image_host::image::copy::{Settle, copy_image};
use snf_image_host::image::source::raw::RawImage;
use snf_image_host::node::cancel::Cancel;
use snf_image_host::node::log;

struct Loop {
    device: PathBuf,
    file: tempfile::NamedTempFile,
}

impl Loop {
    /// A device of `size` bytes, each 0xaa.
    fn new(size: usize) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), vec![0xaa; size]).unwrap();
        let out = Command::new("losetup")
            .args(["-f", "--show"])
            .arg(file.path())
            .output()
            .expect("losetup must be there and this test must run as root");
        assert!(out.status.success(), "{out:?}");
        let device = String::from_utf8(out.stdout).unwrap().trim().into();
        Self { device, file }
    }

    fn bytes(&self) -> Vec<u8> {
        // Through the file beneath: what the device holds only in caches does not count.
        fs::read(self.file.path()).unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

/// An image of `size` bytes with a few islands of data.
fn image(dir: &Path, size: u64) -> PathBuf {
    let path = dir.join("image");
    let file = File::create(&path).unwrap();
    file.set_len(size).unwrap();
    for (n, at) in (1..).zip([0, 1_000_000, 5_000_003, size - 9]) {
        file.write_all_at(&[n; 9], at).unwrap();
    }
    path
}

fn copy(image: &Path, device: &Path) -> u64 {
    let source = RawImage::new(File::open(image).unwrap(), "x").unwrap();
    let mut target = Target::open(device).unwrap();
    assert!(target.is_block_device());
    copy_image(Box::new(source), &mut target, 0, Settle::Now, &Cancel::new(), &mut |_, _| {})
        .unwrap()
        .written
}

#[test]
fn old_bytes_never_shine_through() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Loop::new(24 << 20);
    for size in [24 << 20, (10 << 20) + 777, 8 << 20] {
        fs::write(disk.file.path(), vec![0xaa; 24 << 20]).unwrap();
        Command::new("blockdev").arg("--flushbufs").arg(&disk.device).status().unwrap();
        let image = image(dir.path(), size);
        let written = copy(&image, &disk.device);
        assert!(written < 1 << 20, "{written}: zeros were written as data");
        let expected = fs::read(&image).unwrap();
        let found = disk.bytes();
        assert_eq!(found.len(), 24 << 20);
        assert!(found[..expected.len()] == expected[..], "{size}");
        assert!(!found.contains(&0xaa), "{size}: old bytes shine through");
    }
}

#[test]
fn a_disk_in_use_is_refused() {
    let disk = Loop::new(8 << 20);
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).status().unwrap();
        assert!(status.success(), "{program} {args:?}");
    };
    let device = disk.device.to_str().unwrap();
    run("mke2fs", &["-q", device]);
    let dir = tempfile::tempdir().unwrap();
    run("mount", &[device, dir.path().to_str().unwrap()]);
    let error = log::chain(&Target::open(&disk.device).map(drop).unwrap_err());
    run("umount", &[dir.path().to_str().unwrap()]);
    assert!(error.contains(&format!("is mounted at {}", dir.path().display())), "{error}");
    Target::open(&disk.device).unwrap();
}
