//! The helper VM for real: built from Debian's kernels, run by QEMU (TCG), in good and bad times.
//! Needs root, qemu-system-x86_64 and the kernels that `cargo xtask setup` fetches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use snf_image_host::cancel::Cancel;
use snf_image_host::helper::update::{self, Options};
use snf_image_host::helper::{
    Acceleration, HelperConfig, HelperError, HelperReport, HelperSink, MonitorMessage,
    ParameterDisk, VmDisk, VmRequest, guest_disk, run_helper,
};

/// What a run said.
#[derive(Debug, Default)]
struct Heard {
    console: Vec<String>,
    warnings: Vec<String>,
    monitor: Vec<MonitorMessage>,
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
fn init() -> &'static Path {
    static INIT: OnceLock<PathBuf> = OnceLock::new();
    INIT.get_or_init(|| {
        if let Some(path) = std::env::var_os("SNF_HELPER_INIT") {
            return path.into();
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        // With glibc where rustup cannot give the musl target.
        for (triple, flags) in [
            ("x86_64-unknown-linux-musl", ""),
            ("x86_64-unknown-linux-gnu", "-Ctarget-feature=+crt-static"),
        ] {
            let status = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "-p", "snf-helper-init", "--profile", "helper"])
                .args(["--target", triple, "--target-dir"])
                .arg(target)
                .env("RUSTFLAGS", flags)
                .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
                .status()
                .expect("cargo must run");
            if status.success() {
                return target.join(triple).join("helper/snf-helper-init");
            }
        }
        panic!("cannot build snf-helper-init; run cargo xtask setup");
    })
}

/// Where `cargo xtask setup` has unpacked a kernel.
fn kernel_root(flavour: &str) -> PathBuf {
    let cache = std::env::var_os("SNF_TEST_CACHE").unwrap_or_else(|| "/var/cache/snf-image".into());
    let kernels = Path::new(&cache).join("kernels");
    let version = fs::read_to_string(kernels.join(format!("current-{flavour}")))
        .expect("no kernel; run cargo xtask setup");
    kernels.join(format!("linux-image-{version}"))
}

/// A helper of the cloud kernel, built once.
fn helper() -> &'static Path {
    static HELPER: OnceLock<tempfile::TempDir> = OnceLock::new();
    HELPER
        .get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let built = update::build(&Options {
                directory: dir.path().to_owned(),
                root: Some(kernel_root("cloud-amd64")),
                init: Some(init().to_owned()),
                ..Options::default()
            })
            .unwrap();
            assert!(built.description.pvh);
            assert_eq!(built.description.parameter_disk, ParameterDisk::Virtio);
            assert!(built.initramfs_size < 5 << 20, "{} bytes", built.initramfs_size);
            dir
        })
        .path()
}

fn config(directory: &Path) -> HelperConfig {
    HelperConfig {
        directory: directory.to_owned(),
        acceleration: Acceleration::Tcg,
        soft_timeout: Duration::from_secs(60),
        ..HelperConfig::default()
    }
}

/// A parameter disk with these rules.
fn parameters(rules: &str) -> File {
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
fn guest(dir: &Path) -> PathBuf {
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
    ] {
        fs::write(tree.join("etc").join(name), content).unwrap();
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

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// A file of the guest, read by our own engine; the file system is checked by e2fsck.
fn read_guest(path: &Path, name: &str) -> String {
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

fn run(
    config: &HelperConfig,
    disk: File,
    rules: &str,
    heard: &mut Heard,
) -> Result<HelperReport, HelperError> {
    let request = VmRequest {
        disks: vec![VmDisk::Open(disk)],
        parameters: parameters(rules),
        hypervisor: "kvm".into(),
    };
    run_helper(config, &request, &Cancel::new(), heard)
}

const PROPERTIES: &str = r#"{"EXCLUDE_TASK_DeleteSSHKeys":"yes"}"#;

/// Rules for the guest, which set a host name.
fn rules(device: &str, hostname: &str) -> String {
    format!(
        "export SNF_IMAGE_TYPE=diskdump\nexport SNF_IMAGE_DEV=([0]=\"{device}\")\n\
         export SNF_IMAGE_HOSTNAME={hostname}\nexport SNF_IMAGE_PROPERTIES='{PROPERTIES}'\n"
    )
}

/// A QEMU that does something else: a script that anybody may run.
fn qemu_script(dir: &Path, script: &str) -> PathBuf {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.join("qemu");
    fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A run that must fail: the error, with the disk as it was and no QEMU of ours left.
fn failure(config: &HelperConfig, rules: &str) -> (HelperError, Heard) {
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
fn assert_no_children() {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap();
    assert_eq!(children.trim(), "");
}

#[test]
fn two_virtual_machines_from_the_same_files() {
    let mut ids = Vec::new();
    for hostname in ["one.example.org", "two.example.org"] {
        let dir = tempfile::tempdir().unwrap();
        let path = guest(dir.path());
        let mut heard = Heard::default();
        let rules = rules(&guest_disk(0), hostname);
        let report = run(&config(helper()), open(&path), &rules, &mut heard).unwrap();
        println!("{report:?}");
        assert_eq!(report.acceleration, Acceleration::Tcg);
        assert_no_children();
        assert_eq!(read_guest(&path, "etc/hostname").trim(), hostname);
        assert!(heard.warnings.is_empty());
        assert!(heard.console.iter().any(|l| l.starts_with("snf-image-helper ")));
        let start = MonitorMessage::TaskStart("AssignHostname".into());
        assert!(heard.monitor.contains(&start));
        ids.push(read_guest(&path, "etc/machine-id"));
    }
    // Each has its own randomness.
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_true_floppy_where_the_kernel_has_the_driver() {
    let directory = tempfile::tempdir().unwrap();
    let built = update::build(&Options {
        directory: directory.path().to_owned(),
        root: Some(kernel_root("amd64")),
        init: Some(init().to_owned()),
        ..Options::default()
    })
    .unwrap();
    assert_eq!(built.description.parameter_disk, ParameterDisk::Floppy);
    assert!(built.initramfs_size < 5 << 20);
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let floppy_rules = rules("/dev/vda", "floppy.example.org");
    let report =
        run(&config(directory.path()), open(&path), &floppy_rules, &mut Heard::default()).unwrap();
    println!("floppy: {report:?}");
    assert_eq!(read_guest(&path, "etc/hostname").trim(), "floppy.example.org");

    let long_rules = rules("/dev/vda", "long.example.org");
    // More than a floppy holds goes another way, with the same helper.
    let long = format!("{}export SNF_IMAGE_LONG={}\n", long_rules, "x".repeat(2 << 20));
    run(&config(directory.path()), open(&path), &long, &mut Heard::default()).unwrap();
    assert_eq!(read_guest(&path, "etc/hostname").trim(), "long.example.org");
}

#[test]
fn a_kernel_of_the_next_debian() {
    // Compressed modules, virtio built in.
    let directory = tempfile::tempdir().unwrap();
    let built = update::build(&Options {
        directory: directory.path().to_owned(),
        root: Some(kernel_root("6.12-cloud-amd64")),
        init: Some(init().to_owned()),
        ..Options::default()
    })
    .unwrap();
    assert!(built.description.kernel_release.starts_with("6.12"));
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let rules = rules("/dev/vda", "next.example.org");
    run(&config(directory.path()), open(&path), &rules, &mut Heard::default()).unwrap();
    assert_eq!(read_guest(&path, "etc/hostname").trim(), "next.example.org");
}

#[test]
fn kvm_where_it_works_and_tcg_where_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let mut heard = Heard::default();
    let config = HelperConfig { acceleration: Acceleration::Auto, ..config(helper()) };
    let rules = rules("/dev/vda", "auto.example.org");
    let report = run(&config, open(&path), &rules, &mut heard).unwrap();
    let fell_back = report.acceleration == Acceleration::Tcg;
    assert_eq!(heard.warnings.len(), usize::from(fell_back), "one clear warning, or none");
    assert_eq!(read_guest(&path, "etc/hostname").trim(), "auto.example.org");
    assert_no_children();
    if fell_back {
        let config = HelperConfig { acceleration: Acceleration::Kvm, ..config };
        let (error, _) = failure(&config, &rules);
        assert!(matches!(error, HelperError::Kvm(_)), "{error}");
    }
}

#[test]
fn it_refuses_without_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"exec qemu-system-x86_64 "${@/snf_image_activate_helper/}""#;
    let config = HelperConfig { qemu: qemu_script(dir.path(), script), ..config(helper()) };
    let (error, heard) = failure(&config, &rules("/dev/vda", "x"));
    let text = error.to_string();
    assert!(matches!(error, HelperError::Failed(_)) && text.contains("refusing"), "{text}");
    assert!(heard.monitor.iter().any(|m| matches!(m, MonitorMessage::Error(_))));
}

#[test]
fn another_protocol_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"exec qemu-system-x86_64 "${@/snf_image_protocol=1/snf_image_protocol=9}""#;
    let config = HelperConfig { qemu: qemu_script(dir.path(), script), ..config(helper()) };
    let (error, _) = failure(&config, &rules("/dev/vda", "x"));
    assert!(error.to_string().contains("the host speaks protocol 9, this helper 1"), "{error}");
}

#[test]
fn a_worker_that_comes_to_a_bad_end() {
    // Its time is up before it begins.
    let dir = tempfile::tempdir().unwrap();
    let script = r#"exec qemu-system-x86_64 "${@/snf_image_timeout=54/snf_image_timeout=0}""#;
    let config = HelperConfig { qemu: qemu_script(dir.path(), script), ..config(helper()) };
    let (error, _) = failure(&config, &rules("/dev/vda", "x"));
    assert!(error.to_string().contains("did not finish within 0 s"), "{error}");

    // There is less memory than its rules take.
    qemu_script(dir.path(), r#"exec qemu-system-x86_64 "${@/224M/88M}""#);
    let long =
        format!("{}export SNF_IMAGE_LONG={}\n", rules("/dev/vda", "x"), "x".repeat(13 << 20));
    let (error, _) = failure(&config, &long);
    assert!(error.to_string().contains("ran out of memory"), "{error}");
}

#[test]
fn garbage_rules_and_a_guest_that_is_none() {
    let (error, _) = failure(&config(helper()), "\u{1}\u{2} $(reboot) `x`");
    assert!(error.to_string().starts_with("the rules cannot be read: "), "{error}");
    let (error, _) = failure(&config(helper()), &rules("/dev/vdz", "x"));
    assert!(error.to_string().contains("/dev/vdz"), "{error}");
}

#[test]
fn qemu_killed_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"(sleep 0.7; kill -KILL $$) & exec qemu-system-x86_64 "$@""#;
    let config = HelperConfig { qemu: qemu_script(dir.path(), script), ..config(helper()) };
    let (error, _) = failure(&config, &rules("/dev/vda", "x"));
    assert!(matches!(error, HelperError::QemuKilled { .. }), "{error}");
}

#[test]
fn both_time_limits() {
    let soft = HelperConfig { soft_timeout: Duration::from_millis(500), ..config(helper()) };
    let started = Instant::now();
    let (error, _) = failure(&soft, &rules("/dev/vda", "x"));
    assert!(matches!(error, HelperError::SoftTimeout(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));

    let dir = tempfile::tempdir().unwrap();
    let qemu = qemu_script(dir.path(), "trap '' TERM; sleep 77777; sleep 77777");
    let hard = HelperConfig { qemu, hard_timeout: Duration::from_millis(300), ..soft };
    let (error, _) = failure(&hard, &rules("/dev/vda", "x"));
    assert!(matches!(error, HelperError::HardTimeout(..)), "{error}");
}

#[test]
fn qemu_missing_or_broken() {
    let config = HelperConfig { qemu: "/nonexistent/qemu".into(), ..config(helper()) };
    let (error, _) = failure(&config, "");
    assert!(matches!(error, HelperError::QemuMissing { .. }), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let qemu = qemu_script(dir.path(), "echo 'qemu: no such machine' >&2; exit 1");
    let (error, _) = failure(&HelperConfig { qemu, ..config }, "");
    assert!(error.to_string().contains("no such machine"), "{error}");
}

#[test]
fn a_silent_machine_and_one_that_lies() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = qemu_script(dir.path(), "exit 0");
    let config = HelperConfig { qemu, ..config(helper()) };
    let (error, _) = failure(&config, "");
    assert!(matches!(error, HelperError::NoResult { .. }), "{error}");

    // Serial 2 says SUCCESS, but serial 3 floods.
    let script = r#"
        for arg; do case $arg in socket,id=serial*) fds+=("${arg##*fd=}");; esac; done
        printf 'SUCCESS\n' >&"${fds[1]}"
        for ((i = 0; i < 3000; i++)); do echo "WARNING:$i"; done >&"${fds[2]}""#;
    qemu_script(dir.path(), script);
    let (error, heard) = failure(&config, "");
    assert!(matches!(error, HelperError::Protocol(_)), "{error}");
    assert_eq!(heard.monitor.len(), 100);

    let script = r#"
        for arg; do case $arg in socket,id=serial*) fds+=("${arg##*fd=}");; esac; done
        head -c 1000000 /dev/urandom >&"${fds[1]}""#;
    qemu_script(dir.path(), script);
    let (error, _) = failure(&config, "");
    assert!(matches!(error, HelperError::Garbage(_)), "{error}");
}

#[test]
fn a_helper_that_is_not_built() {
    let dir = tempfile::tempdir().unwrap();
    let (error, _) = failure(&config(dir.path()), "");
    assert!(matches!(error, HelperError::NotBuilt(_)), "{error}");
}
