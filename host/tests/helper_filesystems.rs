//! Root on XFS and on btrfs under the host's way: the helper asks for the drivers, the VM's kernel
//! customizes and enlarges them; the kernel's mount here, xfs_repair and btrfs check judge. Needs
//! root, QEMU, xfsprogs, btrfs-progs and the kernel that `cargo xtask setup` fetches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod vm_support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use snf_image_host::helper::update::{self, Options};

use vm_support::*;

const MIB: u64 = 1 << 20;
/// The bytes that are added to the disk after the partition.
const SPARE: u64 = 128 * MIB;
/// The first byte of the partition.
const START: u64 = MIB;

fn command(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The partition as a loop device, mounted or not; both are undone when it is dropped.
struct Partition {
    device: String,
    directory: tempfile::TempDir,
}

impl Partition {
    fn of(disk: &Path) -> Self {
        let dump = command("sfdisk", &["-d", disk.to_str().unwrap()]);
        let size = dump.split("size=").nth(1).unwrap().split(',').next().unwrap();
        let size = size.trim().parse::<u64>().unwrap() * 512;
        let (start, size) = (format!("-o{START}"), format!("--sizelimit={size}"));
        let name = command("losetup", &["-f", "--show", &start, &size, disk.to_str().unwrap()]);
        Self { device: name.trim().to_owned(), directory: tempfile::tempdir().unwrap() }
    }

    fn mount(&self, options: &str) -> &Path {
        let directory = self.directory.path();
        command("mount", &["-o", options, &self.device, directory.to_str().unwrap()]);
        directory
    }

    fn unmount(&self) {
        command("umount", &[self.directory.path().to_str().unwrap()]);
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.directory.path()).output();
        let _ = Command::new("losetup").args(["-d", &self.device]).output();
    }
}

/// A GPT disk whose one partition has such a file system, with a guest in the subvolume `root`
/// (empty: in the root directory), and with room after it.
fn disk(dir: &Path, mkfs: &[&str], root: &str, fstab: &str) -> PathBuf {
    let path = dir.join("disk.raw");
    let file = fs::File::create(&path).unwrap();
    file.set_len(400 * MIB).unwrap();
    command("sgdisk", &["-n", "1:2048:0", "-t", "1:8300", path.to_str().unwrap()]);
    let partition = Partition::of(&path);
    let (program, options) = mkfs.split_first().unwrap();
    command(program, &[options, &[partition.device.as_str()]].concat());
    let top = partition.mount("rw");
    if !root.is_empty() {
        command("btrfs", &["subvolume", "create", top.join(root).to_str().unwrap()]);
    }
    let etc = top.join(root).join("etc");
    fs::create_dir(&etc).unwrap();
    for (name, text) in [
        ("os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
        ("passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("shadow", "root:*:19000:0:99999:7:::\n"),
        ("group", "root:x:0:\n"),
        ("hostname", "template\n"),
        ("fstab", fstab),
    ] {
        fs::write(etc.join(name), text).unwrap();
    }
    partition.unmount();
    drop(partition);
    file.set_len(400 * MIB + SPARE).unwrap();
    path
}

/// Runs the helper and looks at the guest, whose root is mounted with these options.
fn grown(path: &Path, options: &str, check: &[&str]) {
    let size = |partition: &Partition| {
        let directory = partition.mount(options);
        let stat = rustix::fs::statvfs(directory).unwrap();
        partition.unmount();
        stat.f_blocks * stat.f_frsize
    };
    let before = size(&Partition::of(path));
    let mut heard = Heard::default();
    let rules = rules("/dev/vda", "grown.example.org");
    run(&config(helper()), open(path), &rules, &mut heard).unwrap();
    assert!(
        heard.console.iter().any(|line| line.contains("starting with them")),
        "the drivers are not in the usual initramfs"
    );
    let partition = Partition::of(path);
    let (program, arguments) = check.split_first().unwrap();
    command(program, &[arguments, &[partition.device.as_str()]].concat());
    let after = size(&partition);
    // The log and the rest of an allocation group may stay out of it.
    assert!(after >= before + SPARE - 8 * MIB, "{before} to {after}");
    let directory = partition.mount(options);
    let hostname = fs::read_to_string(directory.join("etc/hostname")).unwrap();
    assert_eq!(hostname, "grown.example.org\n");
    partition.unmount();
}

#[test]
fn xfs_is_customized_and_grown() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), &["mkfs.xfs", "-q"], "", "/dev/vda1 / xfs defaults 0 1\n");
    grown(&path, "ro", &["xfs_repair", "-n"]);
}

#[test]
fn btrfs_is_customized_and_grown() {
    for (root, fstab) in [
        ("", "/dev/vda1 / btrfs defaults 0 1\n"),
        ("@", "/dev/vda1 / btrfs defaults,subvol=@ 0 1\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = disk(dir.path(), &["mkfs.btrfs", "-q"], root, fstab);
        grown(&path, &format!("ro,subvol=/{root}"), &["btrfs", "check", "--readonly"]);
    }
}

#[test]
fn without_the_drivers_such_a_guest_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), &["mkfs.xfs", "-q"], "", "");
    let before = fs::read(&path).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let built = update::build(&Options {
        directory: directory.path().to_owned(),
        root: Some(kernel_root("cloud-amd64")),
        init: Some(init().to_owned()),
        engines_only: true,
        ..Options::default()
    })
    .unwrap();
    assert_eq!((built.description.file_systems, built.file_systems_size), (None, 0));
    let rules = rules("/dev/vda", "x");
    let error =
        run(&config(directory.path()), open(&path), &rules, &mut Heard::default()).unwrap_err();
    assert!(error.to_string().contains("without --engines-only"), "{error}");
    assert!(before == fs::read(&path).unwrap(), "the disk has changed");
}

/// Breaks the sectors of the partition that `hit` chooses by place and content.
fn damage(path: &Path, hit: impl Fn(u64, &[u8]) -> bool) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut sector = [0; 512];
    let mut hits = 0;
    for at in (0..300 * MIB).step_by(sector.len()) {
        file.read_exact_at(&mut sector, START + at).unwrap();
        if hit(at, &sector) {
            file.write_all_at(&[0xff; 64], START + at + 2).unwrap();
            hits += 1;
        }
    }
    assert!(hits > 0, "nothing was damaged");
}

#[test]
fn damage_is_said_and_nothing_is_written() {
    let broken = |kind: &str, path: &Path| {
        let before = fs::read(path).unwrap();
        let rules = rules("/dev/vda", "x");
        let error = run(&config(helper()), open(path), &rules, &mut Heard::default()).unwrap_err();
        println!("{kind}: {error}");
        assert!(error.to_string().contains(kind), "{error}");
        assert!(before == fs::read(path).unwrap(), "{kind}: the disk has changed");
    };
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), &["mkfs.xfs", "-q"], "", "");
    // Every inode.
    damage(&path, |_, sector| sector.starts_with(b"IN"));
    broken("xfs", &path);

    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), &["mkfs.btrfs", "-q"], "", "");
    // Every tree, but none of the superblocks.
    damage(&path, |at, sector| {
        at >= 2 * MIB && !(64 * MIB..65 * MIB).contains(&at) && sector.iter().any(|byte| *byte != 0)
    });
    broken("btrfs", &path);
}
