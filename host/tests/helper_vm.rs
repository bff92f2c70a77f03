//! The helper VM for real: built from Debian's kernels, run by QEMU (TCG), in good and bad times.
//! Needs root, qemu-system-x86_64 and the kernels that `cargo xtask setup` fetches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
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
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "snf-helper-init", "--profile", "helper"])
            .args(["--target", "x86_64-unknown-linux-musl", "--target-dir"])
            .arg(target)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo must run");
        assert!(status.success(), "cannot build snf-helper-init; run cargo xtask setup");
        target.join("x86_64-unknown-linux-musl/helper/snf-helper-init")
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
    HELPER.get_or_init(|| {
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
    }).path()
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
    let image = snf_fs::ext::mkfs::build_ext2_image(
        1440 << 10,
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

/// An instance's disk in a file that only root may open.
fn disk(dir: &Path) -> (PathBuf, File) {
    let path = dir.join("disk, with a comma");
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    (path, file)
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

#[test]
fn boots_to_success() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = disk(dir.path());
    let mut heard = Heard::default();
    let started = Instant::now();
    let report = run(&config(helper()), file, "", &mut heard).unwrap();
    println!("{report:?}");
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(fs::read(path).unwrap().starts_with(b"edited"));
}
