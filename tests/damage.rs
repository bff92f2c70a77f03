//! Damage at a known place, and how `snf-customize` ends: the exit code and the sentence.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cli_support::{Guest, Run, snf_customize};

/// The code for an image that contradicts itself.
const CORRUPT: i32 = 4;

/// Runs a program that must succeed, and gives its output.
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&text));
    String::from_utf8_lossy(&text).into_owned()
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn flip(image: &Path, places: &[u64]) {
    let mut bytes = fs::read(image).unwrap();
    for place in places {
        bytes[usize::try_from(*place).unwrap()] ^= 0x55;
    }
    fs::write(image, bytes).unwrap();
}

/// Runs `apply`, which must end as corrupt, name every part and leave the image as it was.
fn corrupt(what: &str, image: &Path, options: &[&str], parts: &[&str]) {
    let before = fs::read(image).unwrap();
    let run = Run::of(snf_customize().arg("apply").arg(image).args(options));
    assert_eq!(run.code, CORRUPT, "{what}: {}", run.stderr);
    for part in parts {
        assert!(run.stderr.contains(part), "{what}: {part}: {}", run.stderr);
    }
    assert_eq!(run.stderr.lines().count(), 1, "{what}: {}", run.stderr);
    assert_eq!(fs::read(image).unwrap(), before, "{what}: the image changed");
}

fn block_size(image: &Path) -> u64 {
    1024 << number(&fs::read(image).unwrap()[1024 + 24..1024 + 28])
}

/// The byte at which an inode begins, as debugfs knows it.
fn inode(guest: &Guest, name: &str) -> u64 {
    let text = tool("debugfs", &["-R", &format!("imap {name}"), &guest.image.to_string_lossy()]);
    let after = |word: &str| {
        let rest = text.split_once(word).unwrap_or_else(|| panic!("{text}")).1;
        rest.split([',', '\n', ' ']).next().unwrap().to_owned()
    };
    let block: u64 = after("located at block ").parse().unwrap();
    let offset = after("offset 0x");
    block * block_size(&guest.image) + u64::from_str_radix(&offset, 16).unwrap()
}

#[test]
fn ext4_structures() {
    let hostname: &[&str] = &["--hostname", "vm1"];
    let guest = Guest::debian();
    let size = block_size(&guest.image);
    let cases: [(&str, u64, &[&str]); 5] = [
        ("superblock", 1024 + 0x78, &["no operating system was found", "superblock", "s_checksum"]),
        ("group descriptor", (1024 / size + 1) * size + 8, &["group descriptor"]),
        ("root inode", inode(&guest, "<2>") + 16, &["inode", "checksum"]),
        ("os-release", inode(&guest, "/usr/lib/os-release") + 16, &["inode", "checksum"]),
        ("hostname", inode(&guest, "/etc/hostname") + 16, &["--hostname: ", "inode", "checksum"]),
    ];
    for (what, place, parts) in cases {
        flip(&guest.image, &[place]);
        corrupt(what, &guest.image, hostname, parts);
        flip(&guest.image, &[place]);
    }
    guest.apply(&["--hostname", "vm1"]).works();
}

#[test]
fn a_partition_table() {
    let disk = Guest::debian().on_gpt();
    let end = fs::metadata(&disk.image).unwrap().len();
    // The disk's GUID, in the primary header and in the backup.
    flip(&disk.image, &[512 + 56, end - 512 + 56]);
    corrupt(
        "partition table",
        &disk.image,
        &["--hostname", "vm1"],
        &["cannot read the partition table: ", "GPT"],
    );
}

#[test]
fn ntfs_structures() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("ntfs.raw");
    let text = dir.path().join("x");
    fs::write(&text, "x").unwrap();
    fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    tool("mkntfs", &["-q", "-F", "-Q", "-f", &image.to_string_lossy()]);
    let bytes = fs::read(&image).unwrap();
    let cluster = number(&bytes[11..13]) * number(&bytes[13..14]);
    let mft = number(&bytes[0x30..0x38]) * cluster;
    let write = format!("/x:file:{}", text.display());
    // The start of the MFT, and the last two bytes of a sector of the root directory's record,
    // which the update sequence covers.
    for (what, place, part) in
        [("boot sector", 0x36, "boot"), ("MFT record", mft + 5 * 1024 + 510, "record")]
    {
        flip(&image, &[place]);
        corrupt(what, &image, &["--write", &write], &[part]);
        flip(&image, &[place]);
    }
    Run::of(snf_customize().arg("apply").arg(&image).args(["--write", &write])).works();
}

#[test]
fn a_file_allocation_table() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("fat.raw");
    let text = dir.path().join("x");
    fs::write(&text, "x").unwrap();
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    tool("mkfs.vfat", &["-F", "32", "-s", "1", &image.to_string_lossy()]);
    let mut bytes = fs::read(&image).unwrap();
    let table = usize::try_from(number(&bytes[14..16]) * 512).unwrap();
    let length = usize::try_from(number(&bytes[36..40]) * 512).unwrap();
    // The root directory's chain leads back to its own first cluster.
    for copy in [table, table + length] {
        bytes[copy + 8..copy + 12].copy_from_slice(&2u32.to_le_bytes());
    }
    fs::write(&image, bytes).unwrap();
    let write = format!("/x:file:{}", text.display());
    corrupt("FAT", &image, &["--write", &write], &["cluster"]);
}
