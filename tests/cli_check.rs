//! `snf-customize check` on NTFS and ext, whole and damaged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use crate::cli_support::{Guest, Run, snf_customize};

fn check(disk: &Path, options: &[&str]) -> Run {
    Run::of(snf_customize().arg("check").arg(disk).args(options))
}

fn ntfs(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("ntfs");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let output = Command::new("mkntfs").args(["-q", "-F", "-f"]).arg(&path).output();
    let output = output.expect("mkntfs is needed (package ntfs-3g)");
    assert!(output.status.success(), "{output:?}");
    path
}

#[test]
fn ntfs_whole_and_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = ntfs(dir.path());
    let before = fs::read(&path).unwrap();
    let run = check(&path, &[]);
    assert!(run.works().stdout.contains("no damage found in 1 file system"), "{run:?}");
    assert!(run.stdout.contains("the disk: ntfs, "), "{run:?}");
    assert_eq!(fs::read(&path).unwrap(), before);

    // The backup boot sector.
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"x", (8 << 20) - 300).unwrap();
    let run = check(&path, &["--json"]);
    assert_eq!(run.code, 4, "{run:?}");
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["result"], "corrupt");
    let volume = &document["check"]["volumes"][0];
    assert_eq!(volume["errors"], 1);
    assert_eq!(volume["findings"][0]["code"], "boot-copy");
    assert!(run.stderr.contains("1 contradiction in 1 file system"), "{run:?}");

    // No MFT at all.
    file.write_all_at(&[0xff; 8], 48).unwrap();
    let run = check(&path, &[]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stdout.contains("error unreadable"), "{run:?}");
}

#[test]
fn ext_whole_and_damaged() {
    let guest = Guest::debian();
    let run = check(&guest.image, &[]);
    assert!(run.works().stdout.contains("the disk: ext4, "), "{run:?}");
    let output = Command::new("debugfs")
        .args(["-w", "-R", "set_inode_field /etc/passwd links_count 7"])
        .arg(&guest.image)
        .output()
        .expect("debugfs is needed (package e2fsprogs)");
    assert!(output.status.success());
    let run = check(&guest.image, &[]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(run.stdout.contains("error link-count: ") && run.stdout.contains("is 7"), "{run:?}");
}

#[test]
fn nothing_that_can_be_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let run = check(&path, &[]);
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stderr.contains("no file system that can be checked"), "{run:?}");
    assert_eq!(check(&dir.path().join("missing"), &[]).code, 5);
}
