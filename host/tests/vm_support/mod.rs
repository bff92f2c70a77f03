//! Shared by the tests of the helper VM: the init, Debian's kernels, a small guest, one run.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use snf_image_host::helper::update::{self, Options};
use snf_image_host::helper::{
    Acceleration, HelperConfig, HelperError, HelperReport, HelperSink, MonitorMessage,
    ParameterDisk, SECTOR_SIZE, VmDisk, VmRequest, run_helper,
};
use snf_image_host::node::cancel::Cancel;

/// The words of a run.
#[derive(Debug, Default)]
pub struct Heard {
    pub console: Vec<String>,
    pub warnings: Vec<String>,
    pub monitor: Vec<MonitorMessage>,
}

impl HelperSink for Heard {
    fn console(&mut self, line: &str) {
        println!("HELPER: {line}");
        self.console.push(line.to_owned());
    }
    fn warning(&mut self, text: &str) {
        println!("warning: {text}");
        self.warnings.push(text.to_owned());
    }
    fn monitor(&mut self, message: MonitorMessage) {
        println!("monitor: {message:?}");
        self.monitor.push(message);
    }
}

/// Our init, built as update-helper wants it.
pub fn init() -> &'static Path {
    static INIT: OnceLock<PathBuf> = OnceLock::new();
    INIT.get_or_init(|| match std::env::var_os("SNF_HELPER_INIT") {
        Some(path) => path.into(),
        None => build_init("snf-helper-init", &[]),
    })
}

/// The one that fails as `snf_image_fault=` on the kernel's command line asks for.
pub fn init_with_faults() -> &'static Path {
    static INIT: OnceLock<PathBuf> = OnceLock::new();
    INIT.get_or_init(|| build_init("snf-helper-init-faults", &["--features", "faults"]))
}

fn build_init(name: &str, more: &[&str]) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // With glibc where rustup cannot give the musl target.
    for (triple, flags) in [
        ("x86_64-unknown-linux-musl", ""),
        ("x86_64-unknown-linux-gnu", "-Ctarget-feature=+crt-static"),
    ] {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "snf-helper-init", "--profile", "helper"])
            .args(["--bin", name, "--target", triple])
            .args(more)
            .arg("--target-dir")
            .arg(target)
            .env("RUSTFLAGS", flags)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo must run");
        if status.success() {
            return target.join(triple).join("helper").join(name);
        }
    }
    panic!("cannot build {name}; run cargo xtask setup");
}

/// A QEMU that asks the init for a fault.
pub fn with_fault(dir: &Path, fault: &str) -> PathBuf {
    let words = "snf_image_activate_helper";
    let with = format!("{words} snf_image_fault={fault}");
    qemu_script(dir, &format!(r#"exec qemu-system-x86_64 "${{@/{words}/{with}}}""#))
}

/// The folder into which `cargo xtask setup` has unpacked a kernel.
pub fn kernel_root(flavour: &str) -> PathBuf {
    let cache = std::env::var_os("SNF_TEST_CACHE").unwrap_or_else(|| "/var/cache/snf-image".into());
    let kernels = Path::new(&cache).join("kernels");
    let version = fs::read_to_string(kernels.join(format!("current-{flavour}")))
        .expect("no kernel; run cargo xtask setup");
    kernels.join(format!("linux-image-{version}"))
}

/// A helper of the cloud kernel, built once.
pub fn helper() -> &'static Path {
    static HELPER: OnceLock<tempfile::TempDir> = OnceLock::new();
    HELPER.get_or_init(|| build_helper(init())).path()
}

/// The same with the init that fails when it is asked to.
pub fn helper_with_faults() -> &'static Path {
    static HELPER: OnceLock<tempfile::TempDir> = OnceLock::new();
    HELPER.get_or_init(|| build_helper(init_with_faults())).path()
}

fn build_helper(init: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let built = update::build(&Options {
        directory: dir.path().to_owned(),
        root: Some(kernel_root("cloud-amd64")),
        init: Some(init.to_owned()),
        ..Options::default()
    })
    .unwrap();
    assert!(built.description.pvh);
    assert_eq!(built.description.parameter_disk, ParameterDisk::Virtio);
    assert!(built.initramfs_size < 5 << 20, "{} bytes", built.initramfs_size);
    dir
}

pub fn config(directory: &Path) -> HelperConfig {
    HelperConfig {
        directory: directory.to_owned(),
        // Taken from the node as it is: the tests name their own needs.
        user: Some("nobody".to_owned()),
        acceleration: Acceleration::Tcg,
        soft_timeout: Duration::from_secs(60),
        ..HelperConfig::default()
    }
}

/// A parameter disk with these rules.
pub fn parameters(rules: &str) -> File {
    let size = match rules.len() >> 20 {
        0 => 1440 << 10,
        1..3 => 4 << 20,
        _ => 16 << 20,
    };
    let image = snf_fs::ext::mkfs::build_ext2_image(
        size,
        &[("rules", rules.as_bytes(), 0o600)],
        snf_fs::Timestamp::default(),
        [7; 16],
        "",
    )
    .unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    file
}

/// A small Debian-like guest on a bare ext4 file system, in a file that only root may open and
/// whose name would break a careless command line.
pub fn guest(dir: &Path) -> PathBuf {
    guest_with(dir, &[])
}

/// The same with other files in `/etc`.
pub fn guest_with(dir: &Path, files: &[(&str, &str)]) -> PathBuf {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    for (name, content) in [
        ("os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
        ("passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("shadow", "root:*:19000:0:99999:7:::\n"),
        ("group", "root:x:0:\n"),
        ("hostname", "template\n"),
        ("hosts", "127.0.0.1 localhost\n127.0.1.1 template\n"),
        ("machine-id", "00112233445566778899aabbccddeeff\n"),
        ("fstab", "/dev/vda / ext4 defaults 0 1\n"),
    ]
    .iter()
    .chain(files)
    {
        let path = tree.join("etc").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let path = dir.join("disk, with=commas,");
    File::create(&path).unwrap().set_len(64 << 20).unwrap();
    let status = Command::new("mke2fs")
        .args(["-q", "-q", "-F", "-t", "ext4", "-d"])
        .args([&tree, &path])
        .status()
        .expect("mke2fs must be installed");
    assert!(status.success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

pub fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// A file of the guest, read by our own engine; the file system is checked by e2fsck.
pub fn read_guest(path: &Path, name: &str) -> String {
    use snf_fs::FileSystem;
    let device = Arc::new(snf_fs::FileDevice::from_file(File::open(path).unwrap()).unwrap());
    let fs = snf_fs::ext::Ext::open(device, snf_fs::ext::Options::default()).unwrap();
    let mut node = fs.root();
    for part in name.split('/') {
        node = fs.lookup(node, part.as_bytes()).unwrap().unwrap();
    }
    let mut content = vec![0; 4096];
    let count = fs.read(node, 0, &mut content).unwrap();
    content.truncate(count);
    let fsck = Command::new("timeout")
        .args(["-s", "KILL", "60", "e2fsck", "-fn"])
        .arg(path)
        .output()
        .expect("e2fsck must be installed");
    assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
    String::from_utf8(content).unwrap()
}

pub fn run(
    config: &HelperConfig,
    disk: File,
    rules: &str,
    heard: &mut Heard,
) -> Result<HelperReport, HelperError> {
    run_into(config, disk, rules, heard)
}

/// The same with a listener of one's own.
pub fn run_into(
    config: &HelperConfig,
    disk: File,
    rules: &str,
    sink: &mut dyn HelperSink,
) -> Result<HelperReport, HelperError> {
    let request = VmRequest {
        disks: vec![VmDisk::Open(disk)],
        parameters: parameters(rules),
        hypervisor: "kvm".into(),
        flush_later: false,
        sector_size: SECTOR_SIZE,
    };
    run_helper(config, &request, &Cancel::new(), sink)
}

pub const PROPERTIES: &str = r#"{"EXCLUDE_TASK_DeleteSSHKeys":"yes"}"#;

/// Rules for the guest, which set a host name.
pub fn rules(device: &str, hostname: &str) -> String {
    format!(
        "export SNF_IMAGE_TYPE=diskdump\nexport SNF_IMAGE_DEV=([0]=\"{device}\")\n\
         export SNF_IMAGE_HOSTNAME={hostname}\nexport SNF_IMAGE_PROPERTIES='{PROPERTIES}'\n"
    )
}

/// A QEMU that does something else: a script that anybody may run.
pub fn qemu_script(dir: &Path, script: &str) -> PathBuf {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.join("qemu");
    fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A run that must fail: the error, with the disk as it was and no QEMU of ours left.
pub fn failure(config: &HelperConfig, rules: &str) -> (HelperError, Heard) {
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let before = fs::read(&path).unwrap();
    let mut heard = Heard::default();
    let error = run(config, open(&path), rules, &mut heard).unwrap_err();
    println!("{error}");
    assert!(before == fs::read(&path).unwrap(), "the disk has changed");
    assert_no_children();
    (error, heard)
}

/// No process that this thread started is left.
pub fn assert_no_children() {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!(children.trim(), "");
}

/// The processes of this node.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The QEMU that this process has started and that has the disk `path` open, once it runs behind
/// all its walls.
pub fn qemu_with(path: &Path) -> u32 {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let found = processes().into_iter().find(|pid| {
            let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let status = String::from_utf8_lossy(&read("status")).into_owned();
            let ours = status.contains(&format!("\nPPid:\t{}\n", std::process::id()));
            // Other tests have theirs.
            let disks = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            ours && disks.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|file| file == path)
                && read("cmdline").starts_with(b"qemu-system-x86_64")
                && status.contains("\nSeccomp:\t2")
        });
        if let Some(pid) = found {
            return pid;
        }
        assert!(Instant::now() < limit, "no QEMU was seen");
        std::thread::sleep(Duration::from_millis(5));
    }
}
