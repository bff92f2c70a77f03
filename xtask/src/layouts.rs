//! Bootable Debian images with the layouts of its installer: LVM, and a swap partition at the end.

use std::fs;
use std::path::PathBuf;

use crate::debian::tree;
use crate::setup::cache;
use crate::util::{Result, shell, step, text};

/// Shared by both scripts, for a mounted root: unpack, fstab is theirs, GRUB onto the disk.
const COMMON: &str = r#"
    set -eu
    mount=$(mktemp -d)
    loops=
    finish() {
        umount -R "$mount" 2>/dev/null || true
        rmdir "$mount"
        for l in $loops; do partx -d "$l" 2>/dev/null || true; losetup -d "$l"; done
        rm -f "$image.root"
    }
    trap finish EXIT
    attach() { l=$(losetup -f --show "$1"); loops="$l $loops"; }
    bind() { for d in dev proc sys; do mount --rbind /$d "$mount/$d"; mount --make-rslave "$mount/$d"; done; }
    unbind() { for d in dev proc sys; do umount -R "$mount/$d"; done; }
    unpack() {
        tar --numeric-owner --xattrs --xattrs-include='*' --acls -C "$mount" -xf "$tarball"
        chmod 755 "$mount"
    }
    boots() { # disk, UUID of the file system with the kernel, path of it, root=
        kernel=$(basename "$mount"/boot/vmlinuz-*)
        initrd=$(basename "$mount"/boot/initrd.img-*)
        mkdir -p "$mount/boot/grub"
        chroot "$mount" grub-install --target=i386-pc "$1" >/dev/null 2>&1
        {
            echo "set timeout=0"
            echo "search --no-floppy --fs-uuid --set=root $2"
            echo "linux $3/$kernel root=$4 ro console=ttyS0,115200 quiet net.ifnames=0 no_timer_check"
            echo "initrd $3/$initrd"
            echo boot
        } > "$mount/boot/grub/grub.cfg"
    }
"#;

fn build(name: &str, what: &str, release: &str, script: &str) -> Result<PathBuf> {
    let image = cache()?.join(name);
    if image.is_file() {
        return Ok(image);
    }
    let tarball = tree(release)?;
    step(what, || {
        let new = image.with_extension("new");
        let _ = fs::remove_file(&new);
        let whole = format!("tarball=$1 image=$2\n{COMMON}\n{script}");
        shell(&whole, &[&text(&tarball), &text(&new)])?;
        fs::rename(&new, &image).map_err(|e| format!("cannot name {}: {e}", image.display()))?;
        Ok(image.clone())
    })
}

/// A qcow2 image of 2 GiB as the installer lays it out with LVM: GPT, /boot on a partition, and a
/// volume group with the root and, after it, swap. No device-mapper is needed: the root is made as a
/// file system by itself and put where lvm2 says that the volume lies, at the group's first extent.
pub fn lvm(release: &str) -> Result<PathBuf> {
    let script = r#"
        truncate -s 2G "$image"
        sgdisk -n1:2048:+1M -t1:ef02 -n2:0:+160M -t2:8300 -n3:0:0 -t3:8e00 "$image" >/dev/null
        attach "$image"; disk=$l
        partx -a "$disk"
        lvm="devices { use_devicesfile=0 scan_lvs=0 global_filter=[\"a|^${disk}p3$|\",\"r|.*|\"]
            obtain_device_list_from_udev=0 external_device_info_source=\"none\" }
            global { use_lvmlockd=0 use_lvmpolld=0 event_activation=0 } backup { backup=0 archive=0 }
            activation { udev_sync=0 udev_rules=0 monitoring=0 }"
        run_lvm() { command=$1; shift; LVM_SUPPRESS_FD_WARNINGS=1 lvm "$command" --driverloaded n --config "$lvm" "$@"; }
        run_lvm pvcreate -q "${disk}p3" >/dev/null
        run_lvm vgcreate -q debian-vg "${disk}p3" >/dev/null
        run_lvm lvcreate -q -an -Zn -Wn -y -n root -L 1600M debian-vg >/dev/null
        run_lvm lvcreate -q -an -Zn -Wn -y -n swap_1 -L 96M debian-vg >/dev/null
        extent=$(run_lvm vgs --noheadings --units b --nosuffix -o vg_extent_size debian-vg | tr -d ' ')
        first=$(run_lvm pvs --noheadings --units b --nosuffix -o pe_start "${disk}p3" | tr -d ' ')
        ranges=$(run_lvm lvs --noheadings -o seg_pe_ranges debian-vg/root | tr -d ' ')
        swap=$(run_lvm lvs --noheadings -o seg_pe_ranges debian-vg/swap_1 | tr -d ' ')
        swap=${swap#*:}
        [ "$ranges" = "${disk}p3:0-399" ]
        truncate -s 1600M "$image.root"
        mkfs.ext4 -q -L root "$image.root"
        mkfs.ext4 -q -L boot "${disk}p2"
        attach "$image.root"; root=$l
        mount "$root" "$mount"
        mkdir "$mount/boot"
        mount "${disk}p2" "$mount/boot"
        unpack
        boot=$(blkid -s UUID -o value "${disk}p2")
        {
            echo "/dev/mapper/debian--vg-root / ext4 errors=remount-ro 0 1"
            echo "UUID=$boot /boot ext4 defaults 0 2"
            echo "/dev/mapper/debian--vg-swap_1 none swap sw 0 0"
        } > "$mount/etc/fstab"
        bind
        cp /etc/resolv.conf "$mount/etc/resolv.conf.new" && mv "$mount/etc/resolv.conf.new" "$mount/etc/resolv.conf"
        env DEBIAN_FRONTEND=noninteractive chroot "$mount" sh -c 'apt-get -q update && apt-get -q -y --no-install-recommends install lvm2 initramfs-tools' > "$image.log" 2>&1 ||
            { tail -n 15 "$image.log" >&2; exit 1; }
        rm -f "$image.log" "$mount"/var/cache/apt/archives/*.deb
        boots "$disk" "$boot" "" /dev/mapper/debian--vg-root
        chroot "$mount" update-initramfs -u >/dev/null 2>&1
        unbind
        umount -R "$mount"
        dd if="$image.root" of="${disk}p3" bs=4M seek="$first" oflag=seek_bytes conv=notrunc,sparse status=none
        mkdir -p "$image.dir"; truncate -s 96M "$image.root"; mkswap -q "$image.root" 2>/dev/null || mkswap "$image.root" >/dev/null
        dd if="$image.root" of="${disk}p3" bs=4096 count=1 seek=$((first + ${swap%-*} * extent)) oflag=seek_bytes conv=notrunc status=none
        rmdir "$image.dir"
        sync -f "$image"
        partx -d "$disk"; losetup -d "$root"; losetup -d "$disk"; loops=
        qemu-img convert -f raw -O qcow2 "$image" "$image.qcow2"
        mv "$image.qcow2" "$image"
    "#;
    build("debian-bookworm-lvm-1.qcow2", "building a bootable Debian on LVM", release, script)
}

/// A raw image of 2 GiB as the installer lays it out without LVM: MBR, the root, and swap as a logical
/// partition at the end of the disk.
pub fn logical_swap(release: &str) -> Result<PathBuf> {
    let script = r#"
        truncate -s 2G "$image"
        printf 'label: dos\n2048 3891200 83 *\n3895294 299010 5\n3895296 299008 82\n' | sfdisk -q "$image"
        attach "$image"; disk=$l
        partx -a "$disk"
        mkfs.ext4 -q -L root "${disk}p1"
        mkswap -L swap "${disk}p5" >/dev/null
        mount "${disk}p1" "$mount"
        unpack
        root=$(blkid -s UUID -o value "${disk}p1")
        {
            echo "UUID=$root / ext4 errors=remount-ro 0 1"
            echo "UUID=$(blkid -s UUID -o value "${disk}p5") none swap sw 0 0"
        } > "$mount/etc/fstab"
        bind
        boots "$disk" "$root" /boot "UUID=$root"
        unbind
        umount -R "$mount"
    "#;
    build(
        "debian-bookworm-logical-1.img",
        "building a bootable Debian with a logical swap partition",
        release,
        script,
    )
}
