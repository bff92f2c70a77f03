//! The fresh MBR boots the system after it, and mkswap's relatives accept the swap areas.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{ImageDisk, dump, run};
use snf_partition::{Disk, TYPE_LINUX, TYPE_NTFS, fresh_mbr, swap};

/// A boot sector that checks what it was started with (DL, SI at an active record) and says so on
/// the first serial line: mov al, c; mov dx, 0x3f8; out dx, al for each letter, then hlt.
fn talking_boot_sector() -> Vec<u8> {
    let mut code = vec![
        0x80, 0x3c, 0x80, // cmp byte [si], 0x80
        0x75, 0xfe, // jne to itself
        0x80, 0xfa, 0x80, // cmp dl, 0x80
        0x75, 0xfe, // jne to itself
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
    ];
    for letter in b"CHAINLOADED\r\n" {
        code.extend([0xb0, *letter, 0xee]);
    }
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp back
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code
}

/// Boots the disk under TCG until `expected` appears on the serial line (SeaBIOS sends screen
/// output there too).
fn boot(disk: &ImageDisk, expected: &str) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-nodefaults", "-no-user-config", "-display", "none", "-m", "32"])
        .args(["-machine", "pc,graphics=off", "-nic", "none", "-no-reboot"])
        .args(["-serial", &format!("file:{path}")])
        .args(["-drive", &format!("file={},format=raw,if=ide,snapshot=on", disk.str())])
        .stdin(Stdio::null())
        .spawn()
        .expect("qemu-system-x86_64 is needed by this test");
    let until = Instant::now() + Duration::from_secs(40);
    let mut said = String::new();
    while Instant::now() < until && !said.contains(expected) {
        std::thread::sleep(Duration::from_millis(100));
        said = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    }
    qemu.kill().unwrap();
    qemu.wait().unwrap();
    assert!(said.contains(expected), "expected {expected:?} on the serial line:\n{said}");
}

fn fresh(mib: u64, os_type: u8) -> ImageDisk {
    let disk = ImageDisk::new(mib, 512);
    fresh_mbr(disk.len(), 512, os_type, 0x1234_abcd).unwrap().write(&disk).unwrap();
    disk
}

#[test]
fn the_tools_see_one_bootable_partition() {
    let disk = fresh(100, TYPE_NTFS);
    let lines = dump(&disk);
    assert!(lines.contains(&"label-id: 0x1234abcd".to_owned()), "{lines:?}");
    let last = lines.last().unwrap();
    assert_eq!(last, "1 : start= 2048, size= 202752, type=7, bootable");
    let said = run("sfdisk", &["-V", disk.str()], "");
    assert!(said.contains("No errors detected."), "{said}");
    assert!(run("file", &[disk.str()], "").contains("DOS/MBR boot sector"));
}

#[test]
fn boots_the_active_partition() {
    let disk = fresh(20, TYPE_LINUX);
    disk.put(1 << 20, &talking_boot_sector());
    boot(&disk, "CHAINLOADED");
}

#[test]
fn says_why_it_cannot_boot() {
    let disk = fresh(20, TYPE_LINUX);
    boot(&disk, "The active partition is not bootable");
    disk.put(446, &[0]);
    boot(&disk, "No active partition");
}

#[test]
fn swap_areas_are_recognised() {
    let disk = ImageDisk::new(16, 512);
    let uuid = swap::uuid_from_random([0xab; 16]);
    let page = swap::first_page(disk.len(), uuid, b"tausch").unwrap();
    disk.put(0, &page);
    let said = run("blkid", &["-p", disk.str()], "");
    let text = swap::uuid_text(&uuid);
    for expected in [&*format!("UUID=\"{text}\""), "TYPE=\"swap\"", "LABEL=\"tausch\""] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(said.contains("VERSION=\"1\""), "{said}");
    let said = run("swaplabel", &[disk.str()], "");
    assert!(said.contains(&text) && said.contains("tausch"), "{said}");
    assert!(run("file", &[disk.str()], "").contains("Linux swap file, 4k page size"));
    // Byte for byte what mkswap writes.
    let other = ImageDisk::new(16, 512);
    run("mkswap", &["-p", "4096", "-L", "tausch", "-U", &text, other.str()], "");
    assert_eq!(disk.bytes(0, 16 << 20), other.bytes(0, 16 << 20));
    assert_eq!(swap::parse(&page).unwrap().uuid, text);
}
