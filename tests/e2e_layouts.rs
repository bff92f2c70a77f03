//! Disks as Debian's installer lays them out, grown offline; then they boot, and the guest sees the
//! room. Needs QEMU and what `cargo xtask test` prepares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::console::Console;
use support::{disk, given, scratch, stage};

fn image(name: &str) -> PathBuf {
    let path = given("SNF_TEST_CACHE").join(name);
    assert!(path.is_file(), "{} is missing: `cargo xtask setup` makes it", path.display());
    path
}

/// Grows a copy of the image, with edits in the same run.
fn grown(directory: &Path, name: &str, size: &str) -> PathBuf {
    let target = directory.join(name);
    disk::copy(&image(name), &target);
    let password = directory.join("password");
    std::fs::write(&password, "new pass\n").unwrap();
    std::fs::set_permissions(&password, PermissionsExt::from_mode(0o600)).unwrap();
    let output = Command::new(stage().join("bin/snf-customize"))
        .args(["apply", target.to_str().unwrap(), "--size", size, "--hostname", "grown"])
        .args(["--root-password", &format!("file:{}", password.display())])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    // The one warning: sshd lets root in with a key only.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.lines().all(|line| line.contains("PermitRootLogin")), "{said}");
    target
}

/// Nothing has failed, swap is in use, and the root is this large.
fn check(mut console: Console, root_mib: u64) {
    assert!(console.login("root", "new pass"));
    assert_eq!(console.ok("hostname"), "grown");
    console.ok("systemctl is-system-running --wait || true");
    assert_eq!(console.ok("systemctl --failed --no-legend --plain"), "");
    let size: u64 = console.ok("df -B1M --output=size / | tail -n 1").trim().parse().unwrap();
    assert!(size > root_mib * 95 / 100 && size < root_mib, "the root has {size} MiB");
    let swap = console.ok("swapon --show=SIZE --noheadings --bytes").trim().parse::<u64>().unwrap();
    assert!(swap > 90 << 20, "swap has {swap} bytes");
    // The room is no promise only.
    console.ok("dd if=/dev/zero of=/room bs=1M count=32 conv=fsync status=none && rm /room");
    assert_eq!(
        console.ok("dmesg --level=err,crit,alert,emerg | grep -iE 'ext4|vd[a-z]|dm-' || true"),
        ""
    );
}

/// qcow2, GPT, /boot, and a group with the root and swap.
#[test]
fn a_group_grows_from_2_to_6_gib_in_a_qcow2() {
    let directory = scratch();
    let target = grown(directory.path(), "debian-bookworm-lvm-1.qcow2", "6G");
    disk::run("qemu-img", &["check", "-f", "qcow2", target.to_str().unwrap()]);
    let mut console = Console::boot_as(&target, "qcow2");
    // Partition 3 without the 2 MiB at its ends, less the swap.
    let root = 6144 - 161 - 2 - 96;
    assert!(console.login("root", "new pass"));
    let seen = console.ok("lvs --noheadings --units m --nosuffix -o lv_size debian-vg/root");
    let seen: f64 = seen.trim().parse().unwrap();
    assert!((seen - f64::from(root)).abs() < 8.0, "{seen}");
    assert_eq!(
        console.ok("vgck debian-vg; vgs --noheadings -o vg_free_count debian-vg").trim(),
        "0"
    );
    console.logout();
    check(console, root as u64);
}

/// MBR, the root, and swap as a logical partition after it.
#[test]
fn a_swap_partition_moves_to_the_end() {
    let directory = scratch();
    let target = grown(directory.path(), "debian-bookworm-logical-1.img", "4G");
    disk::assert_clean(&target, 1);
    let (_, size) = disk::partition(&target, 1);
    let (start, swap) = disk::partition(&target, 5);
    // The last MiB stays free for a GPT.
    assert_eq!(start + swap, (4 << 30) - (1 << 20));
    let mut console = Console::boot(&target);
    assert!(console.login("root", "new pass"));
    // By the UUID that it had.
    assert_eq!(
        console.ok(
            "readlink -f $(blkid -U $(sed -n 's/^UUID=\\([^ ]*\\) none swap.*/\\1/p' /etc/fstab))"
        ),
        "/dev/vda5"
    );
    console.logout();
    check(console, size >> 20);
}
