//! vmdk, vhdx, vhd and vdi in place, through QEMU's storage daemon; judged by qemu-img and e2fsck.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli_support::{Guest, Run, snf_customize};

/// A format, its driver in QEMU, and options of qemu-img create.
const KINDS: &[(&str, &str, &str)] = &[
    ("vmdk", "vmdk", "subformat=monolithicSparse"),
    ("vhdx", "vhdx", "subformat=dynamic"),
    ("vhdx", "vhdx", "subformat=fixed"),
    ("vhd", "vpc", "subformat=dynamic,force_size=on"),
    ("vdi", "vdi", "static=off"),
];

fn qemu_img(words: &[&str]) -> std::process::Output {
    Command::new("qemu-img").args(words).output().expect("this test needs qemu-img (qemu-utils)")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn convert(guest: &Guest, driver: &str, options: &str) -> PathBuf {
    let image = guest.dir.path().join(format!("image.{driver}"));
    let _ = fs::remove_file(&image);
    let words = ["convert", "-f", "raw", "-O", driver, "-o", options];
    let made = qemu_img(&[&words[..], &[text(&guest.image), text(&image)]].concat());
    assert!(made.status.success(), "{made:?}");
    image
}

/// The disk in an image, as qemu-img reads it.
fn content(image: &Path, driver: &str) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    let read = qemu_img(&["convert", "-f", driver, "-O", "raw", text(image), text(&raw)]);
    assert!(read.status.success(), "{read:?}");
    Guest { dir, image: raw }
}

fn on(verb: &str, image: &Path, options: &[&str]) -> Run {
    Run::of(snf_customize().arg(verb).arg(image).args(options))
}

#[test]
fn every_format_in_place() {
    let guest = Guest::debian();
    for &(format, driver, options) in KINDS {
        let image = convert(&guest, driver, options);
        let before = fs::read(&image).unwrap();
        let run = on("apply", &image, &["--hostname", "vm", "--dry-run"]);
        assert!(run.works().stderr.is_empty(), "{format}: {run:?}");
        let found = on("inspect", &image, &["--json"]);
        let found: Value = serde_json::from_str(&found.works().stdout).unwrap();
        assert_eq!(found["format"], format);
        assert_eq!(found["inspection"]["guest"]["hostname"], "image");
        on("check", &image, &[]).works();
        assert_eq!(on("cat", &image, &["/etc/motd"]).works().stdout, "welcome\n");
        assert!(fs::read(&image).unwrap() == before, "{format}: reading changed it");

        let run = on("apply", &image, &["--hostname", "vm", "--seed", "1"]);
        assert!(run.works().stderr.is_empty(), "{format}: {run:?}");
        // vhd has no checker in qemu-img.
        let check = qemu_img(&["check", "-f", driver, text(&image)]);
        assert!(matches!(check.status.code(), Some(0 | 63)), "{format}: {check:?}");
        let after = content(&image, driver);
        after.check();
        assert_eq!(after.cat("/etc/hostname"), "vm\n");
        on("apply", &image, &["--size", "1G"])
            .fails(3, "only raw and qcow2 are made larger in place");
        on("apply", &image, &["--hostname", "x", "--vm"]).fails(3, "--vm takes raw disks only");
        on("apply", &image, &["--hostname", "x", "--format", "raw"]).fails(3, "and no raw disk");
    }
}

/// The same edit gives the disk that it gives on a raw one.
#[test]
fn the_bytes_are_those_of_a_raw_disk() {
    let guest = Guest::debian();
    let image = convert(&guest, "vmdk", "subformat=monolithicSparse");
    let run = |disk: &Path| {
        let mut command = snf_customize();
        command.env("SOURCE_DATE_EPOCH", "1700000000").arg("apply").arg(disk);
        command.args([
            "--hostname",
            "vm",
            "--machine-id",
            "new",
            "--host-keys",
            "new",
            "--seed",
            "3",
        ]);
        Run::of(&mut command)
    };
    run(&guest.image).works();
    run(&image).works();
    assert!(content(&image, "vmdk").bytes() == guest.bytes());
}

#[test]
fn what_names_other_files_is_refused() {
    let guest = Guest::debian();
    let dir = guest.dir.path();
    let secret = dir.join("flat.vmdk");
    let made = qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        text(&guest.image),
        text(&secret),
    ]);
    assert!(made.status.success(), "{made:?}");
    on("inspect", &secret, &[]).fails(3, "describes a disk in further files");
    on("apply", &secret, &["--hostname", "vm", "--format", "vmdk"]).fails(3, "further files");
    let base = convert(&guest, "vmdk", "subformat=monolithicSparse");
    let child = dir.join("child.vmdk");
    let made =
        qemu_img(&["create", "-q", "-f", "vmdk", "-b", text(&base), "-F", "vmdk", text(&child)]);
    assert!(made.status.success(), "{made:?}");
    on("apply", &child, &["--hostname", "vm"]).fails(3, "a difference to another image");
    // One that QEMU itself finds wrong.
    let broken = dir.join("broken");
    fs::write(&broken, [b"vhdxfile".as_slice(), &vec![0; 1 << 20]].concat()).unwrap();
    on("apply", &broken, &["--hostname", "vm"]).fails(3, "does not open it as vhdx");
}

/// As a source, also compressed, and onto what is larger.
#[test]
fn every_format_is_deployed() {
    let disk = Guest::debian().on_gpt();
    let host = Path::new(snf_customize().get_program()).with_file_name("snf-image-host");
    assert!(host.exists(), "this test needs snf-image-host: cargo build -p snf-image-host");
    for &(format, driver, options) in KINDS {
        let image = convert(&disk, driver, options);
        let named = disk.dir.path().join(format!("source.{format}"));
        fs::rename(&image, &named).unwrap();
        let target = disk.dir.path().join("new.raw");
        let run = on(
            "deploy",
            &named,
            &[text(&target), "--size", "200M", "--hostname", "vm", "--overwrite"],
        );
        assert!(run.works().stderr.is_empty(), "{format}: {run:?}");
        assert_eq!(fs::metadata(&target).unwrap().len(), 200 << 20);
        assert_eq!(on("cat", &target, &["/etc/hostname"]).works().stdout, "vm\n");
        on("check", &target, &[]).works();
    }
    let image = convert(&disk, "vdi", "static=off");
    let script = "gzip -1 -c \"$0\" > \"$1\"";
    let packed = disk.dir.path().join("x.vdi.gz");
    assert!(
        Command::new("sh")
            .args(["-c", script, text(&image), text(&packed)])
            .status()
            .unwrap()
            .success()
    );
    let target = disk.dir.path().join("unpacked.qcow2");
    on("deploy", &packed, &[text(&target), "--hostname", "vm"]).works();
    assert_eq!(on("cat", &target, &["/etc/hostname"]).works().stdout, "vm\n");
    let missing = disk.dir.path().join("target.vmdk");
    on("deploy", &image, &[text(&missing)])
        .fails(2, "deploy makes raw and qcow2 files and no vmdk");
    assert!(!missing.exists());
}

#[test]
fn without_the_daemon_a_sentence_names_the_package() {
    let guest = Guest::debian();
    let image = convert(&guest, "vdi", "static=off");
    let before = fs::read(&image).unwrap();
    let mut command = snf_customize();
    command.env("PATH", guest.dir.path()).arg("apply").arg(&image).args(["--hostname", "vm"]);
    Run::of(&mut command)
        .fails(3, "a vdi image, which needs qemu-storage-daemon, and that is not installed");
    assert!(fs::read(&image).unwrap() == before);
}

/// Somebody of QEMU's who has the image open.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_image_that_somebody_holds_is_left_alone() {
    let guest = Guest::debian();
    let image = convert(&guest, "vhdx", "subformat=dynamic");
    let before = fs::read(&image).unwrap();
    let socket = guest.dir.path().join("socket");
    let mut nbd = Command::new("qemu-nbd");
    nbd.args(["--persistent", "--format=vhdx", "--socket"]).arg(&socket).arg(&image);
    let holder = Holder(nbd.stdout(Stdio::null()).spawn().expect("this test needs qemu-nbd"));
    let address = format!("nbd+unix:///?socket={}", socket.display());
    let deadline = Instant::now() + Duration::from_secs(30);
    while !qemu_img(&["info", &address]).status.success() {
        assert!(Instant::now() < deadline, "qemu-nbd does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    on("apply", &image, &["--hostname", "vm"]).fails(7, "virtual machine");
    on("inspect", &image, &[]).works();
    assert!(fs::read(&image).unwrap() == before);
    drop(holder);
    let held = fs::OpenOptions::new().read(true).write(true).open(&image).unwrap();
    snf_claim::claim_among_us(&held, snf_claim::Purpose::Write).unwrap();
    on("apply", &image, &["--hostname", "vm"]).fails(7, "another snf-image");
    drop(held);
    // The name may be a link, and odd.
    let link = guest.dir.path().join("a,b=c:d \"e");
    symlink(&image, &link).unwrap();
    on("apply", &link, &["--hostname", "vm"]).works();
    assert_eq!(content(&image, "vhdx").cat("/etc/hostname"), "vm\n");
}

/// A compressed file is named with the program that unpacks it.
#[test]
fn compressed_disks_are_refused_with_what_unpacks() {
    let guest = Guest::debian();
    for (program, ending, unpacks) in [
        ("gzip", "gz", "gunzip"),
        ("xz", "xz", "unxz"),
        ("zstd", "zst", "unzstd"),
        ("bzip2", "bz2", "bunzip2"),
    ] {
        let packed = guest.dir.path().join(format!("disk.raw.{ending}"));
        let script = "\"$0\" -q -1 -c \"$1\" > \"$2\"";
        let made = Command::new("sh")
            .args(["-c", script, program, text(&guest.image), text(&packed)])
            .status()
            .unwrap();
        assert!(made.success(), "this test needs {program}");
        let before = fs::read(&packed).unwrap();
        on("apply", &packed, &["--hostname", "vm"]).fails(3, &format!("unpack it with {unpacks}"));
        let run = on("inspect", &packed, &[]);
        assert!(format!("{run:?}").contains(unpacks), "{run:?}");
        assert!(fs::read(&packed).unwrap() == before);
    }
}
