//! Real Debian images: debootstrap once per release, then an image in seconds from its tarball.

use std::fs;
use std::path::{Path, PathBuf};

use crate::setup::cache;
use crate::util::{Result, shell, step, text};

/// The root password of the images, before anything is customized.
pub const OLD_PASSWORD: &str = "old-password";

/// A tarball of a Debian system, made by debootstrap once.
pub fn tree(release: &str) -> Result<PathBuf> {
    let tarball = cache()?.join(format!("debian-{release}-1.tar"));
    if tarball.is_file() {
        return Ok(tarball);
    }
    step(&format!("debootstrapping Debian {release} (once; a minute or two)"), || {
        let script = r#"
            release=$1 tarball=$2 password=$3
            work=$(mktemp -d "$tarball.XXXXXX")
            trap 'rm -rf "$work"' EXIT
            debootstrap --variant=minbase --include=systemd-sysv,udev,dbus,linux-image-cloud-amd64,grub-pc-bin,grub2-common,openssh-server,ifupdown,iproute2,iputils-ping,sudo,e2fsprogs,libpam-modules,login,passwd,cron,vim-tiny,acl,attr "$release" "$work" > "$tarball.log" 2>&1 ||
                { tail -n 15 "$tarball.log" >&2; exit 1; }
            chroot "$work" useradd -m -s /bin/bash debian
            printf 'root:%s\ndebian:%s\n' "$password" "$password" | chroot "$work" chpasswd
            echo template > "$work/etc/hostname"
            printf '127.0.0.1\tlocalhost\n127.0.1.1\ttemplate\n' > "$work/etc/hosts"
            echo 00112233445566778899aabbccddeeff > "$work/etc/machine-id"
            rm -f "$work"/var/cache/apt/archives/*.deb "$tarball.log"
            tar --numeric-owner --xattrs --xattrs-include='*' --acls -C "$work" -cf "$tarball.new" .
            mv "$tarball.new" "$tarball""#;
        shell(script, &[release, &text(&tarball), OLD_PASSWORD])?;
        Ok(tarball)
    })
}

/// A bootable image of 2 GiB: GPT, a BIOS boot partition and an ext4 root that fills the rest,
/// with GRUB and a serial console. Made with the machine's own mkfs.ext4, mounted by the kernel.
pub fn image(release: &str) -> Result<PathBuf> {
    let image = cache()?.join(format!("debian-{release}-gpt-3.img"));
    if image.is_file() {
        return Ok(image);
    }
    let tarball = tree(release)?;
    step(&format!("building a bootable Debian {release} image"), || {
        build(&tarball, &image)?;
        Ok(image.clone())
    })
}

fn build(tarball: &Path, image: &Path) -> Result<()> {
    let new = image.with_extension("new");
    let _ = fs::remove_file(&new);
    let script = r#"
        tarball=$1 image=$2
        truncate -s 2G "$image"
        sgdisk -n1:2048:+1M -t1:ef02 -c1:grub -n2:0:0 -t2:8300 -c2:root "$image" >/dev/null
        loop=$(losetup -f --show "$image")
        mount=$(mktemp -d)
        finish() {
            umount -R "$mount" 2>/dev/null || true
            rmdir "$mount"
            partx -d "$loop" 2>/dev/null || true
            losetup -d "$loop"
        }
        trap finish EXIT
        partx -a "$loop"
        mkfs.ext4 -q -L root "${loop}p2"
        mount "${loop}p2" "$mount"
        tar --numeric-owner --xattrs --xattrs-include='*' --acls -C "$mount" -xf "$tarball"
        uuid=$(blkid -s UUID -o value "${loop}p2")
        echo "UUID=$uuid / ext4 errors=remount-ro 0 1" > "$mount/etc/fstab"
        # The tree was made in a directory of mktemp, which is 0700.
        chmod 755 "$mount"
        # What an edit must not lose: labels, ACLs, capabilities (ping has one), odd names.
        setfattr -n security.selinux -v system_u:object_r:shadow_t:s0 "$mount/etc/shadow"
        setfacl -m u:daemon:r-x "$mount/etc/ssh"
        kernel=$(basename "$mount"/boot/vmlinuz-*)
        initrd=$(basename "$mount"/boot/initrd.img-*)
        mkdir -p "$mount/boot/grub"
        for d in dev proc sys; do mount --rbind /$d "$mount/$d"; mount --make-rslave "$mount/$d"; done
        chroot "$mount" grub-install --target=i386-pc "$loop" >/dev/null 2>&1
        cat > "$mount/boot/grub/grub.cfg" <<CFG
set timeout=0
search --no-floppy --fs-uuid --set=root $uuid
linux /boot/$kernel root=UUID=$uuid ro console=ttyS0,115200 quiet net.ifnames=0 no_timer_check
initrd /boot/$initrd
boot
CFG
        for d in dev proc sys; do umount -R "$mount/$d"; done
        umount "$mount""#;
    shell(script, &[&text(tarball), &text(&new)])?;
    fs::rename(&new, image).map_err(|e| format!("cannot name {}: {e}", image.display()))
}
