//! A guest on btrfs, as Fedora lays it out, edited without a VM. The
//! kernel's mount and `btrfs check` judge. Needs root and btrfs-progs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cli_support::snf_customize;
use crate::support::disk::{Loop, partition, run};

/// SHA-512 of "secret".
const HASH: &str = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1";
const SUBVOLUMES: &str = "btrfs -q subvolume create root; btrfs -q subvolume create home
mkdir -p root/etc/ssh root/bin root/root root/home root/var/lib root/tmp home/admin
btrfs -q subvolume create root/var/lib/machines";

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A GPT disk with one partition.
fn disk(dir: &Path) -> PathBuf {
    let path = dir.join("disk.raw");
    fs::File::create(&path).unwrap().set_len(384 << 20).unwrap();
    run("sgdisk", &["-n", "1:2048:0", "-t", "1:8300", &text(&path)]);
    let device = on_loop(&path, false);
    run("mkfs.btrfs", &["-q", "-L", "fedora", &device.device]);
    path
}

fn on_loop(path: &Path, read_only: bool) -> Loop {
    let (start, length) = partition(path, 1);
    Loop::new(path, start, length, read_only)
}

/// A mount that goes with its value.
struct Mounted(tempfile::TempDir, #[allow(dead_code)] Loop);

impl Mounted {
    fn new(path: &Path, options: &str) -> Self {
        let device = on_loop(path, options.starts_with("ro"));
        let directory = tempfile::tempdir().unwrap();
        run("mount", &["-o", options, &device.device, &text(directory.path())]);
        Self(directory, device)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[&text(self.0.path())]);
    }
}

fn guest(path: &Path, more: &str) {
    let mount = Mounted::new(path, "rw,subvolid=5");
    let script = format!("set -e; cd {}; {SUBVOLUMES}", mount.0.path().display());
    run("bash", &["-c", &script]);
    for (name, text) in [
        ("os-release", "ID=fedora\nVERSION_ID=42\nPRETTY_NAME=\"Fedora Linux 42 on test\"\n"),
        ("passwd", "root:x:0:0::/root:/bin/bash\nadmin:x:1000:1000::/home/admin:/bin/sh\n"),
        ("shadow", "root:*:19000:0:99999:7:::\nadmin:!:19000:0:99999:7:::\n"),
        ("group", "root:x:0:\nadmin:x:1000:\n"),
        ("hostname", "template\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("machine-id", "00112233445566778899aabbccddeeff\n"),
        (
            "fstab",
            "LABEL=fedora / btrfs subvol=root,compress=zstd:1 0 0\n\
             LABEL=fedora /home btrfs subvol=home,compress=zstd:1 0 0\n",
        ),
    ] {
        fs::write(mount.path("root/etc").join(name), text).unwrap();
    }
    fs::set_permissions(mount.path("root/etc/shadow"), fs::Permissions::from_mode(0o000)).unwrap();
    run("chown", &["-R", "1000:1000", &text(&mount.path("home/admin"))]);
    let label = "system_u:object_r:shadow_t:s0";
    run(
        "setfattr",
        &["-n", "security.selinux", "-v", label, &text(&mount.path("root/etc/shadow"))],
    );
    let script = format!("set -e; cd {}; {more}", mount.0.path().display());
    run("bash", &["-c", &script]);
}

fn check(path: &Path) {
    let device = on_loop(path, true);
    run("btrfs", &["check", "--readonly", "--check-data-csum", &device.device]);
}

#[test]
fn a_fedora_guest_is_edited_without_a_vm() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    guest(&path, "btrfs -q subvolume snapshot -r root before");
    let output = snf_customize().arg("inspect").arg(&path).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && shown.contains("Fedora Linux 42"), "{shown}");

    let key = dir.path().join("key.pub");
    let ssh =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2bLbRL0fQkzq3o3TRgEZHJqUGzUMfhC5e0LhbHnVqS one\n";
    fs::write(&key, ssh).unwrap();
    let motd = dir.path().join("motd");
    fs::write(&motd, "hello ".repeat(10_000)).unwrap();
    let output = snf_customize()
        .args(["apply", &text(&path), "--hostname", "web1", "--machine-id", "new"])
        .args(["--root-password", &format!("hash:{HASH}")])
        .args(["--ssh-key", &format!("admin:file:{}", text(&key))])
        .args(["--write", &format!("/etc/motd:file:{}:mode=0600", text(&motd))])
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{shown}");
    check(&path);
    let mount = Mounted::new(&path, "ro,subvolid=5");
    let root = mount.path("root/etc");
    assert_eq!(fs::read_to_string(root.join("hostname")).unwrap().trim_end(), "web1");
    let shadow = fs::read_to_string(root.join("shadow")).unwrap();
    assert!(shadow.starts_with(&format!("root:{HASH}:")), "{shadow}");
    assert_eq!(fs::metadata(root.join("shadow")).unwrap().mode() & 0o7777, 0);
    let label = ["--only-values", "-n", "security.selinux", &text(&root.join("shadow"))];
    assert!(run("getfattr", &label).contains("shadow_t"));
    assert_eq!(fs::read(root.join("motd")).unwrap(), fs::read(&motd).unwrap());
    assert_ne!(fs::read(root.join("machine-id")).unwrap(), b"00112233445566778899aabbccddeeff\n");
    let keys = mount.path("home/admin/.ssh/authorized_keys");
    assert_eq!(fs::read_to_string(&keys).unwrap(), ssh);
    assert_eq!(fs::metadata(&keys).unwrap().uid(), 1000);
    // The snapshot is as it was.
    let before = mount.path("before/etc");
    assert_eq!(fs::read_to_string(before.join("hostname")).unwrap(), "template\n");
    assert!(!before.join("motd").exists());
}

#[test]
fn a_dry_run_and_a_read_only_root_leave_the_disk_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    guest(&path, "sync");
    let bytes = fs::read(&path).unwrap();
    let apply = |more: &[&str]| {
        let mut command = snf_customize();
        command.args(["apply", &text(&path), "--hostname", "web1"]).args(more);
        command.output().unwrap()
    };
    assert_eq!(apply(&["--dry-run"]).status.code(), Some(0));
    assert!(fs::read(&path).unwrap() == bytes, "a dry run changed the disk");
    let mount = Mounted::new(&path, "rw,subvolid=5");
    run("btrfs", &["property", "set", "-ts", &text(&mount.path("root")), "ro", "true"]);
    drop(mount);
    let bytes = fs::read(&path).unwrap();
    let output = apply(&[]);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(0));
    assert!(shown.contains("subvolume is read-only"), "{shown}");
    assert!(fs::read(&path).unwrap() == bytes, "a refused run changed the disk");
}
