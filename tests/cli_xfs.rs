//! `snf-customize` on a guest whose root is XFS, without a virtual machine; the kernel's mount and
//! xfs_repair judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli_support::{Run, snf_customize};
use tempfile::TempDir;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// A loop mount, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let (image, place) = (image.to_str().unwrap(), at.to_str().unwrap());
        run("mount", &["-o", &format!("loop,{options}"), image, place]);
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn guest(dir: &Path, options: &[&str]) -> PathBuf {
    let image = dir.join("image");
    File::create(&image).unwrap().set_len(400 << 20).unwrap();
    let name = image.to_str().unwrap();
    run("mkfs.xfs", &[options, &["-q", "-L", "root", name]].concat());
    let mount = Mount::new(&image, &dir.join("mnt"), "rw");
    let write = |path: &str, text: &str| {
        let path = mount.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("etc/os-release", "ID=rocky\nVERSION_ID=\"9.4\"\nPRETTY_NAME=\"Rocky Linux 9.4\"\n");
    write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
    write("etc/group", "root:x:0:\n");
    write("etc/shadow", "root:*:19000:0:99999:7:::\n");
    write("etc/hostname", "image\n");
    write("etc/hosts", "127.0.0.1\tlocalhost\n");
    write("etc/fstab", "LABEL=root / xfs defaults 0 0\n");
    write("root/.bashrc", "");
    drop(mount);
    image
}

fn snf(verb: &str, image: &Path, options: &[&str]) -> Run {
    Run::of(snf_customize().arg(verb).arg(image).args(options))
}

#[test]
fn a_root_on_xfs_is_inspected_customized_and_checked() {
    let dir = TempDir::new().unwrap();
    let image = guest(dir.path(), &[]);
    let seen = snf("inspect", &image, &[]);
    seen.works();
    assert!(seen.stdout.contains("Rocky Linux 9.4"), "{seen:?}");
    let password = dir.path().join("password");
    fs::write(&password, "correct horse\n").unwrap();
    let password = format!("file:{}", password.display());
    let before = fs::read(&image).unwrap();
    let wishes = ["--hostname", "web1", "--root-password", &password];
    snf("apply", &image, &[&wishes[..], &["--dry-run"]].concat()).works();
    assert!(before == fs::read(&image).unwrap(), "a dry run wrote");
    snf("apply", &image, &wishes).works();
    run("xfs_repair", &["-n", "-f", image.to_str().unwrap()]);
    snf("check", &image, &[]).works();
    let mount = Mount::new(&image, &dir.path().join("mnt"), "ro");
    assert_eq!(fs::read_to_string(mount.0.join("etc/hostname")).unwrap(), "web1\n");
    let shadow = fs::read_to_string(mount.0.join("etc/shadow")).unwrap();
    assert!(shadow.starts_with("root:$"), "{shadow}");
}

#[test]
fn what_the_engine_only_reads_is_offered_to_the_vm() {
    let dir = TempDir::new().unwrap();
    let image = dir.path().join("image");
    File::create(&image).unwrap().set_len(400 << 20).unwrap();
    run("mkfs.xfs", &["-q", "-m", "crc=0", image.to_str().unwrap()]);
    let refused = snf("apply", &image, &["--hostname", "x"]);
    refused.fails(3, "xfs, which only the kernel of the helper VM can edit: use --vm");
}

#[test]
fn a_log_that_waits_is_named() {
    let dir = TempDir::new().unwrap();
    let image = guest(dir.path(), &[]);
    let mount = Mount::new(&image, &dir.path().join("mnt"), "rw");
    fs::write(mount.0.join("late"), "x").unwrap();
    run("xfs_io", &["-xc", "shutdown -f", mount.0.to_str().unwrap()]);
    drop(mount);
    let before = fs::read(&image).unwrap();
    let refused = snf("apply", &image, &["--hostname", "x"]);
    refused.fails(3, "an XFS whose log holds changes that are not replayed yet");
    assert!(refused.stderr.contains("mount and unmount it once"), "{refused:?}");
    assert!(before == fs::read(&image).unwrap());
}
