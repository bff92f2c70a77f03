//! `create` as a process of its own, with a program in QEMU's place. Needs root, as Ganeti has.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use snf_image_host::helper::protocol::PROTOCOL_VERSION;

/// The words that the stand-in writes before the host name that it read from its parameters.
pub const MARK_AT: usize = 4096;

/// Reads the host name from the parameter disk, writes it to the first disk, says SUCCESS. It
/// runs as nobody, as QEMU does, and sees no file of the node but itself, so it must do with the
/// descriptors it is given.
const QEMU: &str = r#"#!/usr/bin/python3
import os, re, sys, time
line = ' '.join(sys.argv)
if SLEEPS:
    time.sleep(1000)
number = lambda pattern: int(re.search(pattern, line).group(1))
parameters = os.pread(number(r'fd=(\d+),set=2'), 4 << 20, 0)
name = re.search(rb'SNF_IMAGE_HOSTNAME=(\S+)', parameters).group(1)
os.pwrite(number(r'fd=(\d+),set=1'), b'customized as ' + name + b'\n', 4096)
os.write(number(r'id=serial1,fd=(\d+)'), b'SUCCESS\n')
"#;

/// Images, configuration, a helper that is none, and a place for temporary files.
pub struct Node {
    pub dir: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        let node = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["images", "helper", "tmp"] {
            fs::create_dir(node.path(name)).unwrap();
        }
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(node.dir.path(), 0o755);
        for name in ["vmlinux", "initramfs"] {
            fs::write(node.path("helper").join(name), "none").unwrap();
        }
        let description = format!(
            r#"{{"protocol":{PROTOCOL_VERSION},"version":"0","kernel_release":"0","kernel":"vmlinux",
                "initramfs":"initramfs","parameter_disk":"floppy","pvh":true,"modules":[],
                "command_line":""}}"#
        );
        fs::write(node.path("helper/helper.json"), description).unwrap();
        node.vm_sleeps(false);
        node.configure("");
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Whether the stand-in sleeps instead of doing its work.
    pub fn vm_sleeps(&self, sleeps: bool) {
        let word = if sleeps { "True" } else { "False" };
        self.program("qemu", &QEMU.replace("SLEEPS", word));
    }

    /// A program in the node's directory.
    pub fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub fn configure(&self, more: &str) {
        let dir = self.dir.path().display();
        let basis = format!(
            "IMAGE_DIR=\"{dir}/images\"\nHELPER_DIR=\"{dir}/helper\"\nHELPER_QEMU=\"{dir}/qemu\"\n\
             HELPER_ACCEL=tcg\nIMAGE_HOSTS=\"127.0.0.0/8 localhost\"\n"
        );
        fs::write(self.path("default"), format!("{basis}{more}")).unwrap();
    }

    /// `create` for an instance, with the environment that Ganeti gives. No host key is made: an RSA
    /// key takes seconds without optimisation.
    pub fn create(&self, instance: &str, img_id: &str, disk: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snf-image-host"));
        command
            .arg("create")
            .env_clear()
            .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
            .env("TMPDIR", self.path("tmp"))
            .env("SNF_IMAGE_CONFIG", self.path("default"))
            .env("OS_API_VERSION", "20")
            .env("INSTANCE_NAME", instance)
            .env("DISK_COUNT", "1")
            .env("DISK_0_PATH", disk)
            .env("NIC_COUNT", "0")
            .env("OSP_IMG_ID", img_id)
            .env("OSP_IMG_FORMAT", "diskdump")
            .env("OSP_IMG_PROPERTIES", r#"{"EXCLUDE_TASK_DeleteSSHKeys":"yes"}"#)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Nothing in the temporary directory, and no process that was started for this node.
    pub fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.path("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        let dir = self.dir.path().display().to_string();
        wait_for("the end of all processes", || {
            let found = processes().into_iter().find(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                *pid != std::process::id() && String::from_utf8_lossy(&line).contains(&dir)
            });
            found.is_none().then_some(())
        });
    }
}

/// A file of `size` bytes without any data.
pub fn sparse(path: &Path, size: u64) {
    fs::File::create(path).unwrap().set_len(size).unwrap();
}

/// Bytes that no two seeds have in common and that hold no zeros.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend((state | 0x0101_0101_0101_0101).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn processes() -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The stand-in of a node, once it is a process. It may write no file, not even its number.
pub fn running_vm(node: &Node) -> u32 {
    let program = format!("python3\0{}\0", node.path("qemu").display());
    wait_for("the stand-in", || {
        processes().into_iter().find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&program)
        })
    })
}

pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < limit, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// The log, after an end with this status (none: by a signal).
pub fn ended(out: &Output, code: Option<i32>) -> String {
    let log = String::from_utf8(out.stderr.clone()).expect("the log must be UTF-8");
    assert_eq!(out.status.code(), code, "{log}");
    log
}
