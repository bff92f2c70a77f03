//! Images that were made to do harm, or are merely odd: one clear sentence, the disk as it was, and
//! never a path outside the image.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::cli_support::{GPT_OFFSET, Guest, Run, snf_customize};
use serde_json::Value;
use snf_fs::text::is_hidden;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFn00000000000000000000000000000000000000000 me\n";

/// Everything that touches the guest at once.
fn all_options(guest: &Guest) -> Vec<String> {
    let key = guest.file("key.pub", KEY);
    let file = guest.file("file", "content\n");
    [
        "--root-password",
        "random",
        "--ssh-key",
        &format!("root:file:{key}"),
        "--hostname",
        "vm",
        "--host-keys",
        "new",
        "--machine-id",
        "new",
        "--write",
        &format!("/etc/motd:file:{file}"),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Runs with everything; whatever comes of it, it is an orderly end, and where it fails the disk is
/// as it was.
#[track_caller]
fn orderly(guest: &Guest) -> Run {
    let before = guest.bytes();
    let options = all_options(guest);
    let run = guest.apply(&options.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(run.code < 10, "{run:?}");
    if run.code == 0 {
        guest.check();
    } else {
        let sentence = run.stderr.lines().last().unwrap();
        assert!(sentence.starts_with("error: ") && sentence.len() < 600, "{run:?}");
        assert!(guest.bytes() == before, "{run:?}");
    }
    run
}

fn replace_by_link(tree: &Path, path: &str, target: &str) {
    let path = tree.join(path);
    if path.is_dir() {
        fs::remove_dir_all(&path).unwrap();
    } else if path.symlink_metadata().is_ok() {
        fs::remove_file(&path).unwrap();
    }
    symlink(target, path).unwrap();
}

#[test]
fn links_that_point_out_of_the_image_stay_in_it() {
    // `/etc` as a link through many parents to a directory of the image's own.
    let guest = Guest::debian_with(|tree| {
        fs::rename(tree.join("etc"), tree.join("real-etc")).unwrap();
        symlink("/../../../../real-etc", tree.join("etc")).unwrap();
        fs::remove_file(tree.join("real-etc/os-release")).unwrap();
        fs::copy(tree.join("usr/lib/os-release"), tree.join("real-etc/os-release")).unwrap();
    });
    assert_eq!(orderly(&guest).code, 0);
    assert_eq!(guest.cat("/real-etc/motd"), "content\n");
    assert_eq!(guest.cat("/real-etc/hostname"), "vm\n");

    // The host has a file at the place where the link seems to lead; the image does not.
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let target = format!("/../../../..{}", victim.display());
    let guest = Guest::debian_with(|tree| replace_by_link(tree, "etc/motd", &target));
    orderly(&guest);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}

#[test]
fn etc_that_is_a_link_to_itself_or_out() {
    for target in ["/../../../../etc", "etc", "/dev", "/proc/self", "/nonexistent"] {
        let guest = Guest::debian_with(|tree| replace_by_link(tree, "etc", target));
        let run = orderly(&guest);
        assert_ne!(run.code, 0, "{target}: {run:?}");
    }
}

#[test]
fn keys_are_not_written_through_links_into_devices() {
    let guest = Guest::debian_with(|tree| replace_by_link(tree, "root/.ssh", "/dev"));
    let run = orderly(&guest);
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("/dev"), "{run:?}");
}

#[test]
fn loops_of_links() {
    for path in ["etc/motd", "etc/hostname", "etc/shadow", "etc/passwd", "root/.ssh", "etc/ssh"] {
        let guest = Guest::debian_with(|tree| {
            replace_by_link(tree, path, "loop-a");
            let parent = tree.join(path).parent().unwrap().to_owned();
            symlink("loop-b", parent.join("loop-a")).unwrap();
            symlink("loop-a", parent.join("loop-b")).unwrap();
        });
        let run = orderly(&guest);
        assert_ne!(run.code, 0, "{path}: {run:?}");
    }
}

#[test]
fn the_wrong_thing_in_the_place_of_a_file() {
    for path in ["etc/shadow", "etc/passwd", "etc/hostname", "etc/machine-id", "etc/motd"] {
        let guest = Guest::debian_with(|tree| {
            fs::remove_file(tree.join(path)).unwrap();
            fs::create_dir(tree.join(path)).unwrap();
        });
        let run = orderly(&guest);
        assert_eq!(run.code, 1, "{path}: {run:?}");
        assert!(run.stderr.contains(path), "{path}: {run:?}");
    }
    let guest = Guest::debian_with(|tree| {
        fs::write(tree.join("root/.ssh"), "a file").unwrap();
    });
    let run = orderly(&guest);
    assert!(run.code == 1 && run.stderr.contains("/root/.ssh"), "{run:?}");
}

#[test]
fn shadow_files_that_are_not_as_they_should_be() {
    let with = |shadow: Vec<u8>| {
        Guest::debian_with(|tree| fs::write(tree.join("etc/shadow"), &shadow).unwrap())
    };
    // Without the user: the line is made.
    let guest = with(b"daemon:*:19000:0:99999:7:::\n".to_vec());
    assert_eq!(orderly(&guest).code, 0);
    let shadow = guest.cat("/etc/shadow");
    assert!(shadow.starts_with("daemon:*:19000:0:99999:7:::\nroot:$"), "{shadow}");
    // A line of 5,000 characters beside the user's is kept as it is.
    let long = format!("long:{}:19000::::::\n", "x".repeat(5000));
    let guest = with(format!("{long}root:*:19000:0:99999:7:::\nroots:!:1::::::").into_bytes());
    assert_eq!(orderly(&guest).code, 0);
    let shadow = guest.cat("/etc/shadow");
    assert!(shadow.starts_with(&long) && shadow.ends_with("\nroots:!:1::::::"), "{shadow}");
    // Bytes that are no text stay too.
    let guest = with(b"\xff\xfe:x\nroot:*:19000:0:99999:7:::\n\0\0\n".to_vec());
    orderly(&guest);
    // Nothing, and only newlines.
    for shadow in [&b""[..], b"\n\n\n", b":", b"root"] {
        orderly(&with(shadow.to_vec()));
    }
}

#[test]
fn names_that_would_forge_lines() {
    let guest = Guest::debian_with(|tree| {
        let release = "PRETTY_NAME=\"x\u{1b}[2J\\nSUCCESS\"\nID=debian\n";
        fs::write(tree.join("usr/lib/os-release"), release).unwrap();
        fs::write(tree.join("etc/hostname"), "a\u{7}b\u{1b}[31m\n").unwrap();
    });
    orderly(&guest);
    let run = Run::of(snf_customize().arg("inspect").arg(&guest.image));
    assert!(!format!("{}{}", run.stdout, run.stderr).contains(['\u{1b}', '\u{7}']), "{run:?}");
}

/// An 8-bit control sequence, text from right to left, a line separator, a byte order mark.
const HIDDEN: &str = "\u{9b}31m\u{202e}\u{2028}\u{feff}";

#[test]
fn nothing_hidden_reaches_a_terminal() {
    let guest = Guest::debian_with(|tree| {
        let release = format!("PRETTY_NAME=\"x{HIDDEN}y\"\nID=debian\n");
        fs::write(tree.join("usr/lib/os-release"), release).unwrap();
        fs::write(tree.join("etc/hostname"), format!("a{HIDDEN}b\n")).unwrap();
        let fstab = format!("/dev/{HIDDEN}x / ext4 defaults 0 1\nLABEL={HIDDEN} /srv ext4 - 0 0\n");
        fs::write(tree.join("etc/fstab"), fstab).unwrap();
        let keys = tree.join("etc/ssh");
        fs::create_dir_all(&keys).unwrap();
        fs::write(keys.join(format!("ssh_host_{HIDDEN}")), "old").unwrap();
        fs::write(keys.join("sshd_config"), format!("HostKey /etc/{HIDDEN}\n")).unwrap();
    });
    let renamed = guest.image.with_file_name(format!("image{HIDDEN}"));
    fs::copy(&guest.image, &renamed).unwrap();
    for image in [&guest.image, &renamed] {
        for words in [
            &["inspect"][..],
            &["inspect", "--json"],
            &["check"],
            &["check", "--json"],
            &["apply", "--dry-run", "--host-keys=new"],
            &["apply", "--dry-run", "--host-keys=new", "--json"],
            &["apply", "--dry-run", "--hostname", HIDDEN],
        ] {
            let (command, options) = words.split_first().unwrap();
            let run = Run::of(snf_customize().arg(command).arg(image).args(options));
            let text = format!("{}{}", run.stdout, run.stderr);
            let hidden: Vec<char> =
                text.chars().filter(|&c| is_hidden(c) && !"\n\t".contains(c)).collect();
            assert!(!text.is_empty() && hidden.is_empty(), "{words:?}: {hidden:?} in {run:?}");
        }
    }
}

#[test]
fn cut_and_scribbled_images_end_orderly() {
    let guest = Guest::debian();
    let whole = guest.bytes();
    let options = all_options(&guest);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    for length in [1, 511, 1024, 1500, 2048, 4096, 65_536, 1 << 20, 32 << 20] {
        fs::write(&guest.image, &whole[..length]).unwrap();
        let run = guest.apply(&options);
        assert!((1..10).contains(&run.code), "{length}: {run:?}");
        assert!(guest.bytes() == whole[..length]);
    }
    // One byte of the first blocks at a time: superblock, group descriptors.
    let mut state = 1u64;
    for _ in 0..25 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut bytes = whole.clone();
        bytes[1024 + (state >> 33) as usize % 6000] ^= 1 << (state >> 60 & 7);
        fs::write(&guest.image, &bytes).unwrap();
        let run = guest.apply(&options);
        assert!(run.code < 10, "{run:?}");
        if run.code != 0 {
            assert!(guest.bytes() == bytes, "{run:?}");
        }
    }
}

#[test]
fn partitions_are_searched_and_named() {
    let bare = Guest::debian();
    let disk = bare.on_gpt();
    let before = disk.bytes();
    let run = disk.apply(&["--hostname", "vm"]);
    assert!(run.works().stdout.contains("on partition 2"), "{run:?}");
    let after = disk.bytes();
    let end = GPT_OFFSET as usize + bare.bytes().len();
    assert!(before[..GPT_OFFSET as usize] == after[..GPT_OFFSET as usize]);
    assert!(before[end..] == after[end..]);
    assert!(before[GPT_OFFSET as usize..end] != after[GPT_OFFSET as usize..end]);

    disk.apply(&["--hostname", "vm", "--root-partition", "1"]).fails(3, "partition 1");
    disk.apply(&["--hostname", "vm", "--root-partition", "7"]).fails(3, "no partition 7");
    disk.apply(&["--hostname", "again", "--root-partition", "2"]).works();
    let run = Run::of(snf_customize().arg("inspect").arg(&disk.image).arg("--json"));
    let document: Value = serde_json::from_str(&run.works().stdout).unwrap();
    assert_eq!(document["inspection"]["table"], "GPT");
    assert_eq!(document["inspection"]["guest"]["root_partition"], 2);
    assert_eq!(document["inspection"]["guest"]["hostname"], "again");

    // A disk with no system says what was looked at.
    let data = Guest::empty().on_gpt();
    let run = data.apply(&["--hostname", "vm"]);
    run.fails(3, "no operating system was found");
    assert!(run.stderr.contains("partition 1") && run.stderr.contains("partition 2"), "{run:?}");
    // Its table destroyed: both copies of the header.
    let mut bytes = before.clone();
    let last = bytes.len() - 512;
    bytes[512 + 8] ^= 0xff;
    bytes[last + 8] ^= 0xff;
    fs::write(&disk.image, &bytes).unwrap();
    let run = disk.apply(&["--hostname", "vm"]);
    assert_eq!(run.code, 4, "{run:?}");
    assert!(disk.bytes() == bytes);
}

/// An image that asks for 32 MiB with the first look at it, and a process that may not have as much.
#[test]
fn no_memory_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("hostile.qcow2");
    let mut qemu_img = std::process::Command::new("qemu-img");
    qemu_img.args(["create", "-q", "-f", "qcow2", "-o", "cluster_size=512"]);
    assert!(qemu_img.arg(&image).arg("128G").status().unwrap().success());
    let before = fs::read(&image).unwrap();
    let mut command = std::process::Command::new("prlimit");
    command.args(["--as=37748736", "--"]).arg(snf_customize().get_program());
    command.arg("apply").arg(&image).args(["--hostname", "x"]).env("RUST_BACKTRACE", "1");
    let run = Run::of(&mut command);
    run.fails(70, "there is no memory for");
    assert!(run.stderr.ends_with("; the disk is as it was\n"), "{}", run.stderr);
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(fs::read(&image).unwrap() == before);
}
