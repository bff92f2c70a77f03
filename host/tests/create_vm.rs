//! `create` as Ganeti calls it, with the helper VM for real (TCG). Needs root,
//! qemu-system-x86_64 and the kernel that `cargo xtask setup` fetches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use snf_image_host::helper::update::{self, Options};

/// Of the one test that looks for it: the others run at the same time.
const SECRET: &str = "pAss-word-of-the-test";

/// Kernel, initramfs and a small Debian-like image, made once.
struct Lab {
    dir: tempfile::TempDir,
}

fn lab() -> &'static Path {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        update::build(&Options {
            directory: dir.path().join("helper"),
            root: Some(kernel_root()),
            init: Some(init()),
            ..Options::default()
        })
        .unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("etc/ssh")).unwrap();
        fs::create_dir_all(tree.join("root")).unwrap();
        for (name, text) in [
            ("os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n"),
            ("debian_version", "12.5\n"),
            ("passwd", "root:x:0:0:root:/root:/bin/bash\n"),
            ("shadow", "root:*:19000:0:99999:7:::\n"),
            ("group", "root:x:0:\n"),
            ("hostname", "old\n"),
            ("hosts", "127.0.0.1 localhost\n127.0.1.1 old\n"),
            ("fstab", "/dev/vda1 / ext4 defaults 0 1\n"),
            ("machine-id", ""),
            ("ssh/sshd_config", ""),
        ] {
            fs::write(tree.join("etc").join(name), text).unwrap();
        }
        fs::create_dir(dir.path().join("images")).unwrap();
        let image = dir.path().join("images/mini.ext4");
        fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
        let out =
            Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&image).output();
        assert!(out.unwrap().status.success());
        fs::write(
            dir.path().join("default"),
            format!(
                "IMAGE_DIR=\"{0}/images\"\nHELPER_DIR=\"{0}/helper\"\nHELPER_ACCEL=tcg\n",
                dir.path().display()
            ),
        )
        .unwrap();
        Lab { dir }
    })
    .dir
    .path()
}

fn init() -> PathBuf {
    if let Some(path) = std::env::var_os("SNF_HELPER_INIT") {
        return path.into();
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "snf-helper-init", "--profile", "helper"])
        .args(["--target", "x86_64-unknown-linux-musl", "--target-dir"])
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .unwrap();
    assert!(status.success(), "cannot build snf-helper-init; run cargo xtask setup");
    target.join("x86_64-unknown-linux-musl/helper/snf-helper-init")
}

fn kernel_root() -> PathBuf {
    let cache = std::env::var_os("SNF_TEST_CACHE").unwrap_or_else(|| "/var/cache/snf-image".into());
    let kernels = Path::new(&cache).join("kernels");
    let version = fs::read_to_string(kernels.join("current-cloud-amd64"))
        .expect("no kernel; run cargo xtask setup");
    kernels.join(format!("linux-image-{version}"))
}

/// Starts `create` onto a fresh disk of 64 MiB.
fn create(disk: &Path, extra: &[(&str, &str)]) -> Child {
    fs::File::create(disk).unwrap().set_len(64 << 20).unwrap();
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

fn processes() -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < limit, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
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
    assert_eq!(fs::metadata(&disk).unwrap().len(), 64 << 20);
}

#[test]
fn a_disk_that_has_only_a_uri() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let uri = format!("file:{}", disk.display());
    let (code, log) = said(create(&disk, &[("DISK_0_PATH", ""), ("DISK_0_URI", &uri)]));
    assert_eq!(code, Some(0), "{log}");
    assert!(guest_file(&disk, "/etc/hostname").starts_with("inst1"));
    assert_eq!(fs::metadata(&disk).unwrap().len(), 64 << 20);
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
