//! The command line tool on qcow2 images: changed in place, judged by qemu-img and e2fsck.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli_support::{Guest, Run, snf_customize};

fn try_qemu_img(args: &[&str]) -> Output {
    Command::new("qemu-img").args(args).output().expect("this test needs qemu-img (qemu-utils)")
}

#[track_caller]
fn qemu_img(args: &[&str]) {
    let output = try_qemu_img(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A guest's disk as a qcow2 image.
fn qcow2(raw: &Guest, options: &str, compressed: bool) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.qcow2");
    let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
    if compressed {
        args.push("-c");
    }
    args.extend([text(&raw.image), text(&image)]);
    qemu_img(&args);
    Guest { dir, image }
}

/// The disk in an image, or in a snapshot of it, as qemu-img reads it.
fn content(image: &Guest, more: &[&str]) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("disk.raw");
    let fixed = ["-f", "qcow2", "-O", "raw", text(&image.image), text(&raw)];
    qemu_img(&[&["convert"], more, &fixed].concat());
    Guest { dir, image: raw }
}

/// qemu-img check finds neither errors nor leaks.
#[track_caller]
fn assert_clean(image: &Path) {
    let output = try_qemu_img(&["check", "-f", "qcow2", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// The same edit with the same bytes, on every disk.
fn edit(image: &Path, more: &[&str]) -> Run {
    let mut command = snf_customize();
    command.env("SOURCE_DATE_EPOCH", "1700000000").arg("apply").arg(image);
    command.args(["--hostname", "vm", "--machine-id", "new", "--seed", "7"]);
    command.args(["--root-password", "hash:!"]).args(more);
    Run::of(&mut command)
}

fn command(name: &str, image: &Path, options: &[&str]) -> Run {
    Run::of(snf_customize().arg(name).arg(image).args(options))
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

/// The disk in the image is, byte for byte, the raw disk after the same edit.
#[test]
fn every_kind_of_image() {
    let raw = Guest::debian().on_gpt();
    let kinds = [
        ("compat=0.10", false),
        ("compat=0.10,cluster_size=4096", true),
        ("compat=1.1", false),
        ("compat=1.1", true),
        ("compression_type=zstd", true),
        ("cluster_size=512", false),
        ("cluster_size=2M", false),
        ("cluster_size=2M", true),
        ("lazy_refcounts=on", false),
        ("refcount_bits=1", false),
        ("refcount_bits=64", false),
        ("extended_l2=on,cluster_size=16384", false),
        ("preallocation=metadata", false),
    ];
    let images = kinds.map(|(options, compressed)| qcow2(&raw, options, compressed));
    edit(&raw.image, &[]).works();
    for ((options, compressed), image) in kinds.into_iter().zip(images) {
        let what = format!("{options}, compressed {compressed}");
        let before = image.bytes();
        let run = edit(&image.image, &["--dry-run"]);
        assert!(run.works().last_line().starts_with("dry run: 4 paths"), "{what}: {run:?}");
        assert!(image.bytes() == before, "{what}: changed by --dry-run");
        edit(&image.image, &[]).works();
        assert_clean(&image.image);
        assert!(content(&image, &[]).bytes() == raw.bytes(), "{what}: not as the raw disk");
        let run = command("inspect", &image.image, &["--json"]);
        let found = json(run.works());
        assert_eq!(found["format"], "qcow2", "{what}");
        assert_eq!(found["inspection"]["size"], 160 << 20, "{what}");
        assert_eq!(found["inspection"]["guest"]["hostname"], "vm", "{what}");
        command("check", &image.image, &[]).works();
        assert!(edit(&image.image, &[]).works().last_line().contains("nothing changed"), "{what}");
        assert_clean(&image.image);
    }
}

#[test]
fn a_bare_file_system_and_its_page() {
    let image = qcow2(&Guest::debian(), "compat=1.1", true);
    let run = edit(&image.image, &["--json"]);
    assert_eq!(json(run.works())["format"], "qcow2");
    let page = command("inspect", &image.image, &[]);
    assert!(page.works().stdout.contains(": 64 MiB, qcow2, no partition table"), "{page:?}");
    let after = content(&image, &[]);
    after.check();
    assert_eq!(after.cat("/etc/hostname"), "vm\n");
}

/// Big content goes to free places while it is read; a run that fails after that has done nothing.
#[test]
fn a_stream_that_comes_to_nothing_leaves_the_guest() {
    let raw = Guest::debian();
    let image = qcow2(&raw, "compat=1.1", false);
    let big = image.file("big", &"0123456789abcdef".repeat(1 << 19));
    let upload = format!("{big}:/srv/big");
    let run = edit(&image.image, &["--upload", &upload, "--chown", "nobody9:/srv/big"]);
    run.fails(1, "no user \"nobody9\"");
    assert_clean(&image.image);
    let after = content(&image, &[]);
    after.check();
    assert_eq!(after.cat("/etc/hostname"), "image\n");
    edit(&image.image, &["--upload", &upload]).works();
    assert_clean(&image.image);
    let after = content(&image, &[]);
    after.check();
    assert_eq!(after.cat("/srv/big").len(), 8 << 20);
}

#[test]
fn a_snapshot_keeps_its_content() {
    let raw = Guest::debian();
    for (options, compressed) in [("compat=0.10", false), ("cluster_size=4096", true)] {
        let image = qcow2(&raw, options, compressed);
        qemu_img(&["snapshot", "-c", "before", text(&image.image)]);
        edit(&image.image, &[]).works();
        assert_clean(&image.image);
        let after = content(&image, &[]);
        assert_eq!(after.cat("/etc/hostname"), "vm\n");
        after.check();
        assert!(content(&image, &["-l", "before"]).bytes() == raw.bytes(), "{options}");
        qemu_img(&["snapshot", "-a", "before", text(&image.image)]);
        assert_eq!(content(&image, &[]).cat("/etc/hostname"), "image\n");
    }
}

/// An image over a base in the same directory.
fn over(base: &Guest, format: &str, said: bool) -> PathBuf {
    let image = base.dir.path().join("over.qcow2");
    let name = base.image.file_name().unwrap().to_str().unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", format, "-b", name, text(&image)]);
    if !said {
        // The extension with the format becomes one that nobody knows.
        let bytes = fs::read(&image).unwrap();
        let at = bytes.windows(4).position(|word| word == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
        file.write_all_at(&[0x77; 4], at as u64).unwrap();
    }
    image
}

#[test]
fn a_backing_file_is_opened_only_when_that_is_said() {
    for format in ["raw", "qcow2"] {
        let base = match format {
            "raw" => Guest::debian(),
            _ => qcow2(&Guest::debian(), "compat=1.1", true),
        };
        let before = base.bytes();
        let image = over(&base, format, true);
        let unchanged = fs::read(&image).unwrap();
        for name in ["apply", "inspect", "check"] {
            let options: &[&str] = if name == "apply" { &["--hostname", "vm"] } else { &[] };
            let run = command(name, &image, options);
            run.fails(3, "which is opened only with --backing allow");
        }
        assert!(fs::read(&image).unwrap() == unchanged);
        edit(&image, &["--backing", "allow"]).works();
        assert!(base.bytes() == before, "the {format} base changed");
        assert_clean(&image);
        let found = command("inspect", &image, &["--backing", "allow", "--json"]);
        assert_eq!(json(found.works())["inspection"]["guest"]["hostname"], "vm");
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("raw");
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw", text(&image), text(&raw)]);
        Guest { dir, image: raw }.check();

        // One of our runs that writes to the base keeps others away from it.
        let held = fs::OpenOptions::new().read(true).write(true).open(&base.image).unwrap();
        snf_claim::claim(&held, snf_claim::Purpose::Write).unwrap();
        edit(&image, &["--backing", "allow"]).fails(7, "another snf-image or snf-customize");
        drop(held);

        fs::remove_file(&image).unwrap();
        let image = over(&base, format, false);
        edit(&image, &["--backing", "allow"]).fails(3, "does not say the format");
        fs::remove_file(&base.image).unwrap();
        fs::remove_file(&image).unwrap();
    }
    let base = Guest::debian();
    let image = over(&base, "raw", true);
    fs::remove_file(&base.image).unwrap();
    edit(&image, &["--backing", "allow"]).fails(5, "cannot open the backing file disk.raw");
}

#[test]
fn the_format_can_be_said() {
    let raw = Guest::debian();
    let before = raw.bytes();
    edit(&raw.image, &["--format", "qcow2"]).fails(3, "not a qcow2 image");
    assert!(raw.bytes() == before);
    let image = qcow2(&raw, "compat=1.1", false);
    let before = image.bytes();
    edit(&image.image, &["--format", "raw"]).fails(3, "a qcow2 file and no raw disk");
    edit(&image.image, &["--vm"]).fails(3, "--vm takes raw disks only");
    assert!(image.bytes() == before);
    edit(&image.image, &["--format", "qcow2"]).works();
    edit(&raw.image, &["--format", "raw"]).works();
    assert!(content(&image, &[]).bytes() == raw.bytes());
}

/// On a block device an image cannot become longer than the device.
#[test]
fn an_image_on_a_block_device() {
    // Every change needs room: the cluster was compressed.
    let image = qcow2(&Guest::debian(), "compat=1.1", true);
    let length = image.bytes().len() as u64;
    for (more, fits) in [(0, false), (16 << 20, true)] {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("device");
        fs::copy(&image.image, &file).unwrap();
        let disk = fs::OpenOptions::new().write(true).open(&file).unwrap();
        disk.set_len((length + more).next_multiple_of(4096)).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output();
        let device = String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned();
        assert!(!device.is_empty(), "this test needs root and loop devices");
        let unsaid = edit(Path::new(&device), &[]);
        let run = edit(Path::new(&device), &["--format", "qcow2"]);
        let detached = Command::new("losetup").args(["--detach", &device]).status().unwrap();
        assert!(detached.success());
        unsaid.fails(3, "a qcow2 file and no raw disk");
        let after = Guest { image: file, dir: place };
        if fits {
            run.works();
            assert_eq!(content(&after, &[]).cat("/etc/hostname"), "vm\n");
        } else {
            run.fails(6, "writing had begun");
        }
        let check = try_qemu_img(&["check", "-f", "qcow2", text(&after.image)]);
        assert!(matches!(check.status.code(), Some(0 | 3)), "{check:?}");
        content(&after, &[]).check();
    }
}

#[test]
fn damage_has_its_code() {
    let raw = Guest::debian();
    let image = qcow2(&raw, "compat=1.1", false);
    let good = image.bytes();
    let word = |at: usize| u64::from_be_bytes(good[at..at + 8].try_into().unwrap());
    let l1 = word(40) as usize;
    let l2 = (word(l1) & 0x00ff_ffff_ffff_fe00) as usize;
    let damaged = |at: usize, bytes: &[u8]| {
        let mut all = good.clone();
        all[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&image.image, &all).unwrap();
        all
    };
    // The first L2 table, or the first cluster of the disk, is far beyond the end of the file.
    for at in [l1, l2] {
        let bytes = damaged(at, &0x8000_0100_0000_0000_u64.to_be_bytes());
        edit(&image.image, &[]).fails(4, "corrupt");
        command("inspect", &image.image, &[]).fails(4, "corrupt");
        assert_eq!(command("check", &image.image, &[]).code, 4);
        assert!(image.bytes() == bytes, "written to");
    }
    for (bit, part) in [(1, "is marked dirty; repair it"), (2, "is marked corrupt; repair it")] {
        let bytes = damaged(79, &[bit]);
        edit(&image.image, &[]).fails(4, part);
        assert!(image.bytes() == bytes, "written to");
    }
    damaged(79, &[4]);
    edit(&image.image, &[]).fails(3, "external data file");
    // One that names a huge table is refused before anything is read.
    damaged(36, &[0xff; 4]);
    let run = edit(&image.image, &[]);
    assert!(matches!(run.code, 3 | 4), "{run:?}");
    fs::write(&image.image, &good[..200]).unwrap();
    let run = edit(&image.image, &[]);
    assert_eq!(run.code, 4, "{run:?}");
}

/// A qemu-nbd, ended when it goes.
struct Nbd(Child);

impl Nbd {
    fn new(image: &Guest, read_only: bool) -> Self {
        let socket = image.dir.path().join("socket");
        let mut command = Command::new("qemu-nbd");
        command.args(["--persistent", "--format=qcow2", "--socket"]).arg(&socket);
        if read_only {
            command.arg("--read-only");
        }
        let child = command.arg(&image.image).stdout(Stdio::null()).spawn();
        let nbd = Self(child.expect("this test needs qemu-nbd (qemu-utils)"));
        // The socket is there before the image is open.
        let address = format!("nbd+unix:///?socket={}", socket.display());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !try_qemu_img(&["info", &address]).status.success() {
            assert!(Instant::now() < deadline, "qemu-nbd does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        nbd
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_image_that_qemu_holds_is_left_alone() {
    let image = qcow2(&Guest::debian(), "compat=1.1", false);
    let before = image.bytes();
    for read_only in [false, true] {
        let holder = Nbd::new(&image, read_only);
        edit(&image.image, &[]).fails(7, "virtual machine");
        // To look is allowed, as on a raw disk.
        edit(&image.image, &["--dry-run"]).works();
        assert!(image.bytes() == before);
        drop(holder);
    }
    edit(&image.image, &[]).works();
    assert_clean(&image.image);
}
