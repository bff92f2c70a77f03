//! `create` as Ganeti calls it, with the helper VM for real (TCG). Needs root,
//! qemu-system-x86_64 and the kernel that `cargo xtask setup` fetches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
mod vm_support;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::node::{processes, sparse, wait_for};
use vm_support::{guest_with, helper};

/// Of an instance's disk.
const SIZE: u64 = 96 << 20;
/// Of the one test that looks for it: the others run at the same time.
const SECRET: &str = "pAss-word-of-the-test";

/// Helper, configuration and a small image, made once.
fn lab() -> &'static Path {
    static LAB: OnceLock<tempfile::TempDir> = OnceLock::new();
    LAB.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let files = [("fstab", "/dev/vda1 / ext4 defaults 0 1\n"), ("ssh/sshd_config", "")];
        let image = guest_with(dir.path(), &files);
        fs::create_dir(dir.path().join("images")).unwrap();
        fs::rename(image, dir.path().join("images/mini.ext4")).unwrap();
        let config = format!(
            "IMAGE_DIR=\"{}/images\"\nHELPER_DIR=\"{}\"\nHELPER_ACCEL=tcg\nHELPER_SOFT_TIMEOUT=300\n",
            dir.path().display(),
            helper().display()
        );
        fs::write(dir.path().join("default"), config).unwrap();
        dir
    })
    .path()
}

/// Starts `create` onto a fresh disk.
fn create(disk: &Path, extra: &[(&str, &str)]) -> Child {
    sparse(disk, SIZE);
    Command::new(env!("CARGO_BIN_EXE_snf-image-host"))
        .arg("create")
        .env_clear()
        .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
        .env("SNF_IMAGE_CONFIG", lab().join("default"))
        .env("OS_API_VERSION", "20")
        .env("INSTANCE_NAME", "inst1.example.test")
        .env("DISK_COUNT", "1")
        .env("DISK_0_PATH", disk)
        .env("NIC_COUNT", "0")
        .env("OSP_IMG_ID", "mini.ext4")
        .env("OSP_IMG_FORMAT", "extdump")
        .env("OSP_IMG_PASSWD", "of the other tests")
        .envs(extra.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The QEMU that is a child of `parent`.
fn qemu_of(parent: u32) -> Option<u32> {
    processes().into_iter().find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains(&format!("\nPPid:\t{parent}\n")) && status.contains("qemu")
    })
}

fn gone(pid: u32) -> bool {
    // A zombie that nobody has waited for is gone, too.
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn said(mut child: Child) -> (Option<i32>, String) {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

fn guest_file(disk: &Path, path: &str) -> String {
    let out = Command::new("debugfs")
        .args(["-R", &format!("cat {path}")])
        .arg(format!("{}?offset=1048576", disk.display()))
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_deployment_that_tells_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk, with a comma");
    let child = create(&disk, &[("OSP_IMG_PASSWD", SECRET)]);
    let id = child.id();
    let qemu = wait_for("QEMU", || qemu_of(id));
    // While the VM runs, nobody can read the password from outside, not even root in our own
    // environment.
    for pid in processes() {
        for file in ["cmdline", "environ"] {
            let shows = || {
                let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
                bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
            };
            if pid == std::process::id() || !shows() {
                continue;
            }
            // Between fork and exec a child still is its parent, environment and all.
            std::thread::sleep(Duration::from_millis(500));
            assert!(!shows(), "the password is in /proc/{pid}/{file}");
        }
    }
    let (code, log) = said(child);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("SUCCESS") && !log.contains(SECRET), "{log}");
    assert!(gone(qemu));
    assert!(guest_file(&disk, "/etc/hostname").starts_with("inst1"));
    assert!(guest_file(&disk, "/etc/shadow").starts_with("root:$"));
    assert_eq!(fs::metadata(&disk).unwrap().len(), SIZE);
}

#[test]
fn a_disk_that_has_only_a_uri() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let uri = format!("file:{}", disk.display());
    let (code, log) = said(create(&disk, &[("DISK_0_PATH", ""), ("DISK_0_URI", &uri)]));
    assert_eq!(code, Some(0), "{log}");
    assert!(guest_file(&disk, "/etc/hostname").starts_with("inst1"));
    assert_eq!(fs::metadata(&disk).unwrap().len(), SIZE);
}

#[test]
fn twenty_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..20)
        .map(|n| {
            let (name, disk) = (format!("inst{n}.example.test"), dir.path().join(n.to_string()));
            let child = create(&disk, &[("INSTANCE_NAME", &name), ("OSP_IMG_PASSWD", &name)]);
            (name, disk, child)
        })
        .collect();
    let mut ids = Vec::new();
    for (name, disk, child) in all {
        let (code, log) = said(child);
        assert_eq!(code, Some(0), "{log}");
        let short = name.split('.').next().unwrap();
        assert!(guest_file(&disk, "/etc/hostname").starts_with(short), "{name}");
        let shadow = guest_file(&disk, "/etc/shadow");
        let hash = shadow.strip_prefix("root:").unwrap().split(':').next().unwrap();
        let script = "exit(crypt($ARGV[0], $ARGV[1]) ne $ARGV[1])";
        let status = Command::new("perl").args(["-e", script, &name, hash]).status();
        assert!(status.expect("perl must be installed").success(), "{name}: {shadow}");
        ids.push(guest_file(&disk, "/etc/machine-id"));
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20, "two instances share a machine id: {ids:?}");
}

#[test]
fn a_user_who_is_not_there_is_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let properties = r#"{"USERS": "mallory"}"#;
    let (code, log) = said(create(&disk, &[("OSP_IMG_PROPERTIES", properties)]));
    assert_eq!(code, Some(1), "{log}");
    let last = log.lines().last().unwrap();
    assert!(last.contains("mallory"), "{log}");
    assert!(guest_file(&disk, "/etc/shadow").starts_with("root:*:"), "nothing was committed");
}

#[test]
fn signals_leave_nothing_behind() {
    for signal in ["TERM", "INT", "KILL"] {
        let dir = tempfile::tempdir().unwrap();
        let child = create(&dir.path().join("disk"), &[]);
        let id = child.id();
        let qemu = wait_for("QEMU", || qemu_of(id));
        Command::new("kill").args(["-s", signal, &id.to_string()]).status().unwrap();
        let started = Instant::now();
        let (code, log) = said(child);
        assert!(started.elapsed() < Duration::from_secs(10), "{signal}");
        wait_for("the end of QEMU", || gone(qemu).then_some(()));
        if signal == "KILL" {
            assert_eq!(code, None);
        } else {
            assert_eq!(code, Some(1), "{log}");
            assert!(log.lines().last().unwrap().contains("stopped by signal"), "{log}");
        }
    }
}
