//! The disk as the command line tool meets it: block devices, mounts, other programs' locks, users
//! without rights. Needs root and loop devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cli_support::{Guest, Run, snf_customize};

/// A loop device, detached when it goes.
struct Loop(String);

impl Loop {
    fn new(image: &Path, options: &[&str]) -> Self {
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .args(options)
            .arg(image)
            .output()
            .expect("this test needs losetup (mount)");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "this test needs root and loop devices: {error}");
        Self(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

fn on(disk: &str, options: &[&str]) -> Run {
    Run::of(snf_customize().args(["apply", disk]).args(options))
}

#[test]
fn a_block_device_is_as_good_as_a_file() {
    for options in [&[][..], &["--sector-size", "4096"]] {
        let guest = Guest::debian();
        let device = Loop::new(&guest.image, options);
        // The file behind a device belongs to the device.
        guest.apply(&["--hostname", "file"]).fails(7, "is attached to /dev/loop");
        on(&device.0, &["--hostname", "device"]).works();
        let run = Run::of(snf_customize().args(["inspect", &device.0]));
        assert!(run.works().stdout.contains("device"), "{run:?}");
        drop(device);
        assert_eq!(guest.cat("/etc/hostname"), "device\n");
        guest.check();
    }
}

/// The device is found by the file it shows, whatever the file is called.
#[test]
fn a_file_behind_a_device_by_another_name() {
    let guest = Guest::debian();
    let before = guest.bytes();
    let (hard, bound) = (guest.dir.path().join("hard"), guest.dir.path().join("bound"));
    fs::hard_link(&guest.image, &hard).unwrap();
    fs::write(&bound, "").unwrap();
    let bind = Command::new("mount").arg("--bind").arg(&guest.image).arg(&bound).status();
    assert!(bind.unwrap().success(), "this test needs root and mount");
    let device = Loop::new(&guest.image, &[]);
    let runs = [&hard, &bound].map(|name| on(name.to_str().unwrap(), &["--hostname", "vm"]));
    assert!(Command::new("umount").arg(&bound).status().unwrap().success());
    for run in runs {
        run.fails(7, &format!("is attached to {}", device.0));
    }
    assert!(guest.bytes() == before);
}

/// The lock that `create` holds for its whole run.
#[test]
fn a_disk_that_another_run_holds_is_left_alone() {
    let guest = Guest::debian();
    let before = guest.bytes();
    let held = fs::OpenOptions::new().read(true).write(true).open(&guest.image).unwrap();
    snf_claim::claim(&held, snf_claim::Purpose::Write).unwrap();
    guest.apply(&["--hostname", "vm"]).fails(7, "another snf-image or snf-customize");
    Run::of(snf_customize().arg("inspect").arg(&guest.image)).fails(7, "another snf-image");
    assert!(guest.bytes() == before);
    drop(held);
    guest.apply(&["--hostname", "vm"]).works();
}

#[test]
fn a_mounted_device_is_left_alone() {
    let guest = Guest::debian();
    let device = Loop::new(&guest.image, &[]);
    let point = guest.dir.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let mount = Command::new("mount").args(["-o", "ro"]).arg(&device.0).arg(&point).status();
    assert!(mount.unwrap().success(), "this test needs root and mount");
    let run = on(&device.0, &["--hostname", "vm"]);
    let looked = Run::of(snf_customize().args(["inspect", &device.0]));
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    run.fails(7, "mounted");
    looked.works();
    on(&device.0, &["--hostname", "vm"]).works();
}

#[test]
fn a_disk_that_a_virtual_machine_holds_is_left_alone() {
    let guest = Guest::debian();
    let before = guest.bytes();
    // The kind of lock that QEMU takes: byte 100 of the file, shared.
    let script = r#"use Fcntl; open(my $f, "+<", $ARGV[0]) or die; $| = 1;
        my $lock = pack("s s x4 q q i x4", F_RDLCK, 0, 100, 1, 0);
        fcntl($f, F_SETLK, $lock) or die;
        print "ready\n"; <STDIN>;"#;
    let mut holder = Command::new("perl")
        .args(["-e", script])
        .arg(&guest.image)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    guest.apply(&["--hostname", "vm"]).fails(7, "virtual machine");
    // To look is allowed.
    Run::of(snf_customize().arg("inspect").arg(&guest.image)).works();
    guest.apply(&["--hostname", "vm", "--dry-run"]).works();
    assert!(guest.bytes() == before);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    guest.apply(&["--hostname", "vm"]).works();
}

#[test]
fn an_ordinary_user_needs_nothing_but_the_file() {
    const NOBODY: u32 = 65534;
    let guest = Guest::debian();
    // The program may lie where nobody else can go.
    let program = guest.dir.path().join("snf-customize");
    fs::copy(snf_customize().get_program(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(guest.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let run = |options: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
        command.arg(&program).arg("apply").arg(&guest.image).args(options);
        Run::of(&mut command)
    };
    run(&["--hostname", "vm"]).fails(5, "permission denied; it must be readable and writable");
    chown(&guest.image, Some(NOBODY), None).unwrap();
    run(&["--hostname", "vm", "--host-keys", "new", "--root-password", "random"]).works();
    assert_eq!(guest.cat("/etc/hostname"), "vm\n");
    // Its files are root's all the same.
    assert!(guest.stat("/etc/ssh/ssh_host_rsa_key").contains("User:     0   Group:     0"));
    guest.check();
}

/// Common formats of images are told from a raw disk, with the command that makes a raw disk of them.
#[test]
fn an_image_that_is_not_raw_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    fs::write(&raw, vec![b'x'; 1 << 20]).unwrap();
    for format in ["qcow2", "vmdk", "vhdx", "vdi", "vpc"] {
        let image = dir.path().join(format);
        let made = Command::new("qemu-img")
            .args(["convert", "-f", "raw", "-O", format])
            .args([&raw, &image])
            .status()
            .expect("this test needs qemu-img (qemu-utils)");
        assert!(made.success());
        let before = fs::read(&image).unwrap();
        let named = format!("a {format} file and no raw disk: convert it with qemu-img convert");
        // qcow2 is opened unless it is said to be raw.
        on(image.to_str().unwrap(), &["--hostname", "vm", "--format", "raw"]).fails(3, &named);
        assert!(fs::read(&image).unwrap() == before, "{format} changed");
    }
}
