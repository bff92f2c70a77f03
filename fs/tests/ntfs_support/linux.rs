//! Linux' own NTFS driver (ntfs3) in a virtual machine of QEMU, without KVM: Debian's cloud kernel of
//! trixie, and busybox. A second opinion beside ntfs-3g's.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Image, run};

/// Modules in the order in which they are needed.
const MODULES: [&str; 3] = ["virtio_blk", "nls_utf8", "ntfs3"];
/// Bytes that a tree may have as a tar archive.
const ARCHIVE: u64 = 512 << 20;
/// How long the machine may run: it takes some ten seconds.
const SECONDS: &str = "300";

fn kernel() -> (PathBuf, String) {
    let cache = std::env::var_os("SNF_TEST_CACHE").unwrap_or_else(|| "/var/cache/snf-image".into());
    let kernels = Path::new(&cache).join("kernels");
    let version = fs::read_to_string(kernels.join("current-trixie-cloud-amd64"))
        .expect("no kernel; run cargo xtask setup");
    (kernels.join(format!("linux-image-{version}")), version)
}

fn shell(script: &str, arguments: &[&Path]) -> String {
    let mut all: Vec<&OsStr> = ["-euc", script, "sh"].map(OsStr::new).to_vec();
    all.extend(arguments.iter().map(|path| path.as_os_str()));
    let (code, text) = run("sh", &all);
    assert_eq!(code, Some(0), "{script}: {text}");
    text
}

/// The initramfs: busybox, the modules, and `/init`.
fn initramfs(dir: &Path, root: &Path, version: &str, init: &str) -> PathBuf {
    let tree = dir.join("initramfs");
    for name in ["bin", "proc", "dev", "mnt", "modules"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    for (index, module) in MODULES.iter().enumerate() {
        let script = "modprobe -d \"$1\" -S \"$2\" --show-depends \"$3\" |
            sed -n 's/^insmod \\([^ ]*\\).*/\\1/p' | while read -r file; do
                name=$(basename \"${file%.xz}\"); number=$(ls \"$5\" | wc -l)
                xz -dc \"$file\" > \"$5/$4-$number-$name\"; done";
        let index = index.to_string();
        shell(
            script,
            &[root, version.as_ref(), module.as_ref(), index.as_ref(), &tree.join("modules")],
        );
    }
    let busybox = shell("command -v busybox", &[]);
    fs::copy(busybox.trim(), tree.join("bin/busybox")).unwrap();
    fs::write(tree.join("init"), init).unwrap();
    shell("chmod 755 \"$1/init\"", &[&tree]);
    let packed = dir.join("initramfs.cpio");
    shell("cd \"$1\"; find . | cpio -o -H newc > \"$2\" 2> /dev/null", &[&tree, &packed]);
    packed
}

/// Each image as ntfs3 shows it before and after it has run `edit` (shell text, in the root of the
/// volume), as directories with copies of the two trees. One start of the machine is for all.
pub fn through_ntfs3(images: &[&Image], edit: &str, dir: &Path) -> Vec<[PathBuf; 2]> {
    let (root, version) = kernel();
    // The image, the tree before, the tree after: three disks each.
    let disks: Vec<String> = (b'a'..)
        .take(3 * images.len())
        .map(|letter| format!("/dev/vd{}", char::from(letter)))
        .collect();
    let disks = disks.join(" ");
    let init = format!(
        r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
show() {{
    mount -t ntfs3 -o ro,iocharset=utf8 "$1" /mnt || return 1
    # A junction that leads to another drive cannot be archived.
    (cd /mnt && tar cf "$2" . 2> /dev/null; echo "tar: $?")
    umount /mnt
}}
edit() {{
    mount -t ntfs3 -o rw,iocharset=utf8 "$1" /mnt || return 1
    (set -e; cd /mnt; {edit}
    ) || return 1
    umount /mnt
}}
set -- {disks}
while [ $# -gt 0 ]; do
    show "$1" "$2" && edit "$1" && show "$1" "$3" || break
    shift 3
done
[ $# -gt 0 ] || echo "ALL IS DONE"
sync
poweroff -f
"#
    );
    let initramfs = initramfs(dir, &root, &version, &init);
    let archive = |index: usize, when: &str| dir.join(format!("{index}-{when}.tar"));
    let mut paths = Vec::new();
    for (index, image) in images.iter().enumerate() {
        paths.extend([image.path.clone(), archive(index, "before"), archive(index, "after")]);
        for path in &paths[paths.len() - 2..] {
            File::create(path).unwrap().set_len(ARCHIVE).unwrap();
        }
    }
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", SECONDS, "qemu-system-x86_64", "-accel", "tcg", "-m", "512"]);
    command.args(["-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"]);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]).arg("-kernel");
    command.arg(root.join(format!("boot/vmlinuz-{version}"))).arg("-initrd").arg(&initramfs);
    for path in &paths {
        let drive = format!("if=virtio,format=raw,cache=unsafe,file={}", path.display());
        command.arg("-drive").arg(drive);
    }
    let output = command.stdin(Stdio::null()).output().expect("qemu-system-x86_64 is needed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ALL IS DONE"), "{}\n{said}{errors}", output.status);
    let tree = |index: usize, when: &str| {
        let tree = dir.join(format!("{index}-{when}"));
        fs::create_dir(&tree).unwrap();
        shell("tar xf \"$1\" -C \"$2\"", &[&archive(index, when), &tree]);
        fs::remove_file(archive(index, when)).unwrap();
        tree
    };
    (0..images.len()).map(|index| [tree(index, "before"), tree(index, "after")]).collect()
}
