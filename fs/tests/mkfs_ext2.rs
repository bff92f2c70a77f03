//! The small ext2 writer against e2fsck, debugfs and our own reader.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::path::Path;
use std::process::Command;

use snf_fs::Timestamp;
use snf_fs::ext::mkfs::build_ext2_image;

fn run(program: &str, args: &[&str]) -> (Option<i32>, Vec<u8>) {
    let output = Command::new("timeout")
        .args(["-s", "KILL", "300", program])
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} (e2fsprogs) is needed: {error}"));
    let mut text = output.stdout;
    text.extend(output.stderr);
    (output.status.code(), text)
}

fn e2fsck_clean(path: &Path) {
    let (code, text) = run("e2fsck", &["-fn", path.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&text));
}

fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut x = seed | 1;
    (0..length)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as u8
        })
        .collect()
}

fn check(size: u64, files: &[(&str, Vec<u8>, u16)]) {
    let given: Vec<(&str, &[u8], u16)> =
        files.iter().map(|(name, content, mode)| (*name, content.as_slice(), *mode)).collect();
    let now = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };
    let image = build_ext2_image(size, &given, now, *b"0123456789abcdef", "SNFPARAMS").unwrap();
    assert_eq!(image.len() as u64, size);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&image).unwrap();
    e2fsck_clean(file.path());
    let dir = tempfile::tempdir().unwrap();
    for (name, content, mode) in files {
        let out = dir.path().join("out");
        let dump = format!("dump \"/{name}\" {}", out.display());
        run("debugfs", &["-R", &dump, file.path().to_str().unwrap()]);
        assert!(std::fs::read(&out).unwrap() == *content, "{name} of {size}");
        std::fs::remove_file(&out).unwrap();
        let stat = format!("stat \"/{name}\"");
        let (_, text) = run("debugfs", &["-R", &stat, file.path().to_str().unwrap()]);
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains(&format!("Mode:  {mode:04o}")), "{text}");
    }
}

#[test]
fn floppy() {
    check(1440 << 10, &[]);
    check(1440 << 10, &[("rules", pattern(3000, 1), 0o600)]);
    check(
        1440 << 10,
        &[
            ("rules", pattern(700_000, 1), 0o600),
            ("unattend.xml", pattern(12 << 10, 2), 0o644),
            ("sysprep.inf", Vec::new(), 0o400),
        ],
    );
    check(1440 << 10, &[("rules", pattern(1420 << 10, 1), 0o600)]);
}

#[test]
fn larger_disks() {
    check(8 << 20, &[("rules", pattern(7_900_000, 3), 0o600)]);
    check((8 << 20) + (40 << 10), &[("rules", pattern(1000, 3), 0o600)]);
    check(64 << 20, &[("rules", pattern(63 << 20, 4), 0o600), ("b", pattern(1, 4), 0o600)]);
    check(200 << 20, &[("rules", pattern(64 << 20, 5), 0o600)]);
}

#[test]
fn many_files() {
    let names: Vec<String> =
        (0..300).map(|n| format!("file-{n}-{}", "x".repeat(n % 200))).collect();
    let files: Vec<(&str, Vec<u8>, u16)> =
        names.iter().enumerate().map(|(n, name)| (&**name, pattern(n * 10, 9), 0o600)).collect();
    // Few through debugfs, all through e2fsck.
    check(1440 << 10, &files[..20]);
    let given: Vec<(&str, &[u8], u16)> =
        files.iter().map(|(name, content, mode)| (*name, content.as_slice(), *mode)).collect();
    let image = build_ext2_image(20 << 20, &given, Timestamp::default(), [1; 16], "").unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&image).unwrap();
    e2fsck_clean(file.path());
}

#[test]
fn the_kernel_mounts_it() {
    let content = pattern(500_000, 6);
    let given = [("rules", content.as_slice(), 0o600)];
    let image = build_ext2_image(1440 << 10, &given, Timestamp::default(), [1; 16], "P").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("floppy");
    std::fs::write(&path, image).unwrap();
    let mnt = dir.path().join("mnt");
    std::fs::create_dir(&mnt).unwrap();
    let (code, text) =
        run("mount", &["-o", "loop,ro", path.to_str().unwrap(), mnt.to_str().unwrap()]);
    assert_eq!(code, Some(0), "root is needed: {}", String::from_utf8_lossy(&text));
    let read = std::fs::read(mnt.join("rules"));
    // A child that another test is just starting may hold a file of it for a moment.
    let gone = (0..100).any(|_| {
        let (code, _) = run("umount", &[mnt.to_str().unwrap()]);
        if code != Some(0) {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        code == Some(0)
    });
    assert!(gone);
    assert!(read.unwrap() == content);
}
