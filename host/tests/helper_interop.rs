//! Our helper under a host that follows the original's conventions: no protocol version on the
//! command line, the parameter disk a floppy that mke2fs made, a disk of the host's own as vda and
//! the instance at vdb, rules as bash writes them, files for Windows beside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod vm_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use snf_image_host::helper::update::{self, Options};

use vm_support::*;

/// First byte of the guest's partition.
const START: usize = 4096 * 512;

fn must(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A disk with the guest in its second partition.
fn instance(dir: &Path) -> PathBuf {
    let file_system = guest_with(
        dir,
        &[
            ("passwd", "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/bin/false\n"),
            ("group", "root:x:0:\ndaemon:x:1:\n"),
            ("motd", "old\n"),
            ("network/interfaces", "auto lo\niface lo inet loopback\n"),
            ("ssh/sshd_config", ""),
        ],
    );
    let disk = dir.join("instance.raw");
    let mut bytes = vec![0; START];
    bytes.extend(fs::read(file_system).unwrap());
    bytes.resize(96 << 20, 0);
    fs::write(&disk, bytes).unwrap();
    let script = "printf 'label: dos\\nstart=2048,size=2048\\nstart=4096,size=131072\\n' | \
        sfdisk -q --no-reread --no-tell-kernel \"$0\"";
    must(Command::new("sh").args(["-c", script]).arg(&disk));
    disk
}

/// A floppy with these files, made as the original's host makes it.
fn floppy(dir: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    let tree = dir.join("floppy");
    fs::create_dir_all(&tree).unwrap();
    for (name, content) in files {
        fs::write(tree.join(name), content).unwrap();
    }
    let path = dir.join("floppy.img");
    fs::File::create(&path).unwrap().set_len(1440 << 10).unwrap();
    must(Command::new("mke2fs").args(["-q", "-F", "-t", "ext2", "-d"]).args([&tree, &path]));
    path
}

/// Runs QEMU as such a host would and returns what serial 2 and 3 said.
fn run_by_hand(helper: &Path, dir: &Path, instance: &Path, floppy: &Path) -> (String, String) {
    let description: serde_json::Value =
        serde_json::from_slice(&fs::read(helper.join("helper.json")).unwrap()).unwrap();
    let file = |key: &str| helper.join(description[key].as_str().unwrap());
    let own = dir.join("helper-root.raw");
    fs::write(&own, vec![0x5a; 1 << 20]).unwrap();
    let (result, monitor) = (dir.join("result"), dir.join("monitor"));
    let drive = |path: &Path, more: &str| format!("file={},format=raw,{more}", path.display());
    let mut qemu = Command::new("timeout");
    qemu.args(["-s", "KILL", "300", "qemu-system-x86_64", "-accel", "tcg", "-m", "256"]);
    qemu.args(["-display", "none", "-parallel", "none", "-monitor", "none", "-no-reboot"]);
    qemu.args(["-nic", "none", "-device", "virtio-rng-pci", "-serial", "stdio", "-serial"]);
    qemu.arg(format!("file:{}", result.display())).arg("-serial");
    qemu.arg(format!("file:{}", monitor.display()));
    qemu.arg("-kernel").arg(file("kernel")).arg("-initrd").arg(file("initramfs"));
    qemu.args([
        "-append",
        "quiet ro boot=local console=ttyS0,9600n8 console=tty0 snf_image_activate_helper \
         rules_dev=/dev/fd0 hypervisor=kvm-all panic=0",
    ]);
    qemu.arg("-drive").arg(drive(&own, "if=virtio,snapshot=on"));
    qemu.arg("-drive").arg(drive(instance, "if=virtio,cache=none"));
    qemu.arg("-drive").arg(drive(floppy, "if=floppy"));
    println!("{}", String::from_utf8_lossy(&must(&mut qemu)));
    assert_eq!(fs::read(&own).unwrap(), vec![0x5a; 1 << 20], "the host's own disk has changed");
    let text = |path| String::from_utf8(fs::read(path).unwrap()).unwrap();
    (text(result), text(monitor))
}

/// A file of the guest, by debugfs.
fn guest_file(disk: &Path, path: &str) -> Vec<u8> {
    let mut debugfs = Command::new("debugfs");
    debugfs.args(["-R", &format!("cat \"{path}\"")]);
    must(debugfs.arg(format!("{}?offset={START}", disk.display())))
}

fn check_file_system(disk: &Path) {
    must(
        Command::new("timeout")
            .args(["-s", "KILL", "300", "e2fsck", "-fn"])
            .arg(format!("{}?offset={START}", disk.display())),
    );
}

/// The hash that crypt(3) of this machine makes of a password with the salt of the guest's hash.
fn hash_matches(shadow: &[u8], password: &str) -> bool {
    let text = String::from_utf8_lossy(shadow).into_owned();
    let hash = text.split(':').nth(1).unwrap().to_owned();
    let script = "$h = crypt($ENV{P}, $ENV{H}); print $h";
    let mut perl = Command::new("perl");
    perl.args(["-e", script]).env("P", password).env("H", &hash);
    must(&mut perl) == hash.as_bytes()
}

#[test]
fn under_a_host_of_the_originals_kind() {
    let helper = tempfile::tempdir().unwrap();
    update::build(&Options {
        directory: helper.path().to_owned(),
        root: Some(kernel_root("amd64")),
        init: Some(init().to_owned()),
        ..Options::default()
    })
    .unwrap();

    // Rules that the original wrote.
    let dir = tempfile::tempdir().unwrap();
    let disk = instance(dir.path());
    let rules = include_bytes!("../../fixtures/interop/tricky.rules");
    let answers: &[(&str, &[u8])] =
        &[("rules", rules), ("unattend.xml", b"<unattend/>"), ("sysprep.inf", b"[Unattended]\r\n")];
    let floppy_image = floppy(dir.path(), answers);
    let (result, monitor) = run_by_hand(helper.path(), dir.path(), &disk, &floppy_image);
    assert_eq!(result, "SUCCESS\n");
    assert!(monitor.contains("TASK_START:EnforcePersonality\nTASK_END:EnforcePersonality\n"));
    check_file_system(&disk);
    assert_eq!(guest_file(&disk, "/etc/hostname"), b"vm1.example.test\n");
    assert_eq!(guest_file(&disk, "/etc/motd"), b"replaced\n");
    assert_eq!(guest_file(&disk, "/etc/pers/with space.txt"), b"it's \"q\" $HOME `id`\nline2\n");
    let keys = guest_file(&disk, "/root/.ssh/authorized_keys");
    let keys = String::from_utf8(keys).unwrap();
    assert!(keys.contains("ssh-ed25519 AAAAC3Nz one's@example\n"), "{keys}");
    assert!(keys.contains("ssh-rsa AAAAB3Nz \"two\" $HOME `id`\n"), "{keys}");
    let environment: serde_json::Value =
        serde_json::from_str(include_str!("../../fixtures/interop/tricky.env.json")).unwrap();
    let password = environment["OSP_IMG_PASSWD"].as_str().unwrap();
    assert!(hash_matches(&guest_file(&disk, "/etc/shadow"), password));

    // Rules that a bash of today prints, of every kind of quoting.
    let dir = tempfile::tempdir().unwrap();
    let disk = instance(dir.path());
    let password = "\u{fc}nic\u{f6}de 'q' \"d\" $x `y` \\z\tline1\nline2";
    let script = r#"
        export SNF_IMAGE_TYPE=diskdump SNF_IMAGE_HOSTNAME=bash.example.test
        export SNF_IMAGE_PASSWD="$1"
        export SNF_IMAGE_PROPERTIES='{"OSFAMILY":"linux","USERS":"root","x":"it'\''s"}'
        SNF_IMAGE_DEV=(/dev/vdb); export SNF_IMAGE_DEV
        set | grep '^SNF_IMAGE_' | sed 's/^/export /'"#;
    for locale in ["C", "C.UTF-8"] {
        let rules = must(
            Command::new("bash")
                .args(["--noprofile", "--norc", "-c", script, "bash", password])
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("LC_ALL", locale),
        );
        let files: &[(&str, &[u8])] = &[("rules", &rules)];
        let floppy_image = floppy(dir.path(), files);
        let (result, _) = run_by_hand(helper.path(), dir.path(), &disk, &floppy_image);
        assert_eq!(result, "SUCCESS\n", "{}", String::from_utf8_lossy(&rules));
        assert_eq!(guest_file(&disk, "/etc/hostname"), b"bash.example.test\n");
        assert!(hash_matches(&guest_file(&disk, "/etc/shadow"), password), "{locale}");
    }
    check_file_system(&disk);
}
