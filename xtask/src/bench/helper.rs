//! The helper VM: each step of a run, machine types, with the kernel's floppy driver and without,
//! beside an init that only powers off and beside the original's way.

use std::path::Path;

use super::Bench;
use crate::setup::{Kernel, kernel};
use crate::util::{Result, checkout, command, run, run_visible, shell, step, text};

pub fn bench(bench: &Bench) -> Result<()> {
    let stage = bench.stage()?;
    let host = text(&stage.root.join("bin/snf-image-host"));
    let init = text(&stage.root.join("bin/snf-helper-init"));
    let mut helpers = Vec::new();
    // With the floppy driver only where the name says so: no other machine than pc has a floppy.
    for (name, flavour, parameter_disk) in [
        ("cloud", "cloud-amd64", "auto"),
        ("generic", "amd64", "virtio"),
        ("generic-floppy", "amd64", "floppy"),
    ] {
        let kernel = kernel(flavour)?;
        let directory = bench.path(&format!("helper-{name}"));
        run(command(&host, ["update-helper", "--dir", &directory, "--init", &init])
            .args(["--parameter-disk", parameter_disk, "--kernel"])
            .arg(kernel.image())
            .arg("--modules")
            .arg(kernel.modules()))?;
        helpers.push(format!("{name}={directory}"));
    }
    let original = original(bench, &kernel("cloud-amd64")?)?;
    run_visible(
        command(env!("CARGO"), ["bench", "--quiet", "-p", "snf-image-host", "--bench", "helper"])
            .current_dir(checkout())
            .env("SNF_BENCH_HELPERS", helpers.join(","))
            .env("SNF_BENCH_IMAGE", &bench.image)
            .env("SNF_BENCH_WORK", &bench.work)
            .env("SNF_BENCH_ORIGINAL", original),
    )
}

/// A stand-in for the original's helper: the same kernel with an initrd of Debian's own kind, a
/// Debian with the programs that the tasks take, and the tasks as a shell script that is PID 1. It
/// reads the rules by sourcing them and does to the image what our helper does. Not measured with
/// it, in its favour: the boot loader, systemd, and the check for the version of the helper.
fn original(bench: &Bench, kernel: &Kernel) -> Result<String> {
    let place = bench.path("original");
    let tasks = bench.file("tasks", TASKS)?;
    let tree = crate::debian::tree("bookworm")?;
    step("building a stand-in for the original's helper", || {
        shell(
            ORIGINAL,
            &[
                &place,
                &text(&tree),
                &tasks,
                &text(&kernel.image()),
                &text(Path::new(&kernel.root)),
                &kernel.version,
            ],
        )
    })?;
    Ok(place)
}

const ORIGINAL: &str = r#"
    place=$1 tree=$2 tasks=$3 image=$4 root=$5 version=$6
    mkdir -p "$place/mnt"
    cp "$image" "$place/vmlinuz"
    truncate -s 2G "$place/root.img"
    mkfs.ext4 -q "$place/root.img"
    mount -o loop "$place/root.img" "$place/mnt"
    finish() { umount -R "$place/mnt" 2>/dev/null || true; rmdir "$place/mnt"; }
    trap finish EXIT
    tar --numeric-owner -C "$place/mnt" -xf "$tree"
    install -m 755 "$tasks" "$place/mnt/tasks"
    # Programs that the tree lacks: without zstd the initrd is packed with gzip, which unpacks slower.
    for program in sfdisk zstd; do
        file=$(command -v $program)
        install -D "$file" "$place/mnt$file"
        ldd "$file" | sed -n 's/.* => \([^ ]*\) .*/\1/p' | while read -r library; do
            [ -e "$place/mnt$library" ] || install -D "$library" "$place/mnt$library"
        done
    done
    cp -a "$root/lib/modules/$version" "$place/mnt/lib/modules/"
    cp "$root/boot/config-$version" "$place/mnt/boot/"
    for d in dev proc sys; do mount --rbind /$d "$place/mnt/$d"; mount --make-rslave "$place/mnt/$d"; done
    chroot "$place/mnt" update-initramfs -c -k "$version" >/dev/null
    cp "$place/mnt/boot/initrd.img-$version" "$place/initrd""#;

/// PID 1 of the stand-in. `mark` costs no process; its lines are read by the bench. There is no
/// partprobe: sfdisk has told the kernel already, and without udev it waits six seconds for nothing.
const TASKS: &str = r#"#!/bin/bash
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
end() { sync; echo o > /proc/sysrq-trigger; sleep 60; }
trap end EXIT
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sys /sys
mountpoint -q /run || mount -t tmpfs run /run
mark() { local up rest; read -r up rest < /proc/uptime; echo "time $1 $up"; }
mark "rules"
# What udev would do: without it the first password waits for entropy.
modprobe virtio_rng
disk=/dev/vdb
mount -o ro /dev/vdc /mnt
. /mnt/rules
umount /mnt
mark FixPartitionTable
echo ', +' | sfdisk -q -N 2 --no-reread $disk
root=${disk}2
mark FilesystemResizeUnmounted
e2fsck -f -y $root || [ $? = 1 ]
resize2fs $root
mark MountImage
target=/mnt
mount $root $target
mark "AssignHostname, ChangeMachineId"
echo "$SNF_IMAGE_HOSTNAME" > $target/etc/hostname
sed -i "s/^127\.0\.1\.1.*/127.0.1.1\t$SNF_IMAGE_HOSTNAME/" $target/etc/hosts
tr -d - < /proc/sys/kernel/random/uuid > $target/etc/machine-id
mark ChangePassword
echo "root:$SNF_IMAGE_PASSWD" | chroot $target chpasswd -c SHA512
mkdir -p -m 700 $target/root/.ssh
echo "$SNF_IMAGE_AUTH_KEYS" >> $target/root/.ssh/authorized_keys
chmod 600 $target/root/.ssh/authorized_keys
mark DeleteSSHKeys
rm -f $target/etc/ssh/ssh_host_*
for kind in rsa ecdsa ed25519; do
    ssh-keygen -q -t $kind -N '' -C "root@$SNF_IMAGE_HOSTNAME" -f $target/etc/ssh/ssh_host_${kind}_key
done
mark EnforcePersonality
echo RGVwbG95ZWQgYnkgc25mLWltYWdlLgo= | base64 -d > $target/etc/motd
chown root:root $target/etc/motd
chmod 644 $target/etc/motd
mark UmountImage
umount $target
sync
mark "power-off"
echo SUCCESS > /dev/ttyS1
"#;
