//! Helper VMs that go on from a snapshot: each is its own machine with its own keys and the right time,
//! and where the snapshot does not fit, or is no good, the helper boots. Needs root, qemu-system-x86_64
//! and the kernels that `cargo xtask setup` fetches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod vm_support;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use snf_image_host::helper::{
    Acceleration, HelperConfig, HelperError, VmDisk, VmRequest, guest_disk, make_snapshot,
    run_helper, update,
};
use snf_image_host::node::cancel::Cancel;

use vm_support::*;

/// Has update-helper build a helper, and returns what it said.
fn build(directory: &Path, config: &HelperConfig, more: &[&str]) -> String {
    let mut arguments: Vec<OsString> = vec!["--dir".into(), directory.into()];
    arguments.extend(["--root".into(), kernel_root("cloud-amd64").into()]);
    arguments.extend(["--init".into(), init().into()]);
    arguments.extend(more.iter().map(OsString::from));
    let said = update::command(arguments, config).unwrap();
    println!("{said}");
    assert_no_children();
    said
}

/// A helper with a snapshot, built once.
fn saved() -> &'static Path {
    static HELPER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let said = build(dir.path(), &config(dir.path()), &[]);
        assert!(said.contains("MiB; runs without KVM go on from there"), "{said}");
        dir
    };
    HELPER.get_or_init(make).path()
}

/// A copy of that helper, to be spoiled.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(saved()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn snapshot_of(helper: &Path) -> PathBuf {
    let mut entries = fs::read_dir(helper).unwrap().map(|entry| entry.unwrap().path());
    let is_one =
        |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("snapshot-");
    entries.find(is_one).unwrap()
}

#[test]
fn two_machines_from_one_snapshot_have_nothing_in_common() {
    let mut secrets = Vec::new();
    for hostname in ["one.example.org", "two.example.org"] {
        let dir = tempfile::tempdir().unwrap();
        let path = guest_with(dir.path(), &[("ssh/ssh_host_ed25519_key", "old\n")]);
        let properties = r#"{"PASSWD_HASHING_METHOD":"sha512"}"#;
        let rules = rules(&guest_disk(0), hostname).replace(PROPERTIES, properties);
        let rules = format!("{rules}export SNF_IMAGE_PASSWD=secret\n");
        let mut heard = Heard::default();
        let report = run(&config(saved()), open(&path), &rules, &mut heard).unwrap();
        println!("{report:?}");
        assert!(report.resumed && report.acceleration == Acceleration::Tcg);
        assert_eq!(heard.warnings, Vec::<String>::new());
        let names = ["etc/machine-id", "etc/ssh/ssh_host_ed25519_key", "etc/shadow"];
        secrets.push(names.map(|name| read_guest(&path, name)));
        assert_no_children();
    }
    for (one, other) in secrets[0].iter().zip(&secrets[1]) {
        assert_ne!(one, other);
    }
}

#[test]
fn the_time_is_the_time_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    // The saved state is some seconds old at least.
    saved();
    std::thread::sleep(Duration::from_secs(3));
    let epoch = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let before = epoch(SystemTime::now());
    let rules = rules("/dev/vda", "time.example.org");
    assert!(run(&config(saved()), open(&path), &rules, &mut Heard::default()).unwrap().resumed);
    let after = epoch(SystemTime::now());
    let mount = tempfile::tempdir().unwrap();
    let fuse = |program: &str, arguments: &[&std::ffi::OsStr]| {
        assert!(std::process::Command::new(program).args(arguments).status().unwrap().success());
    };
    fuse("mount", &["-o".as_ref(), "loop,ro".as_ref(), path.as_ref(), mount.path().as_ref()]);
    let changed = fs::metadata(mount.path().join("etc/hostname")).unwrap().mtime();
    fuse("umount", &[mount.path().as_ref()]);
    let changed = u64::try_from(changed).unwrap();
    assert!((before..=after).contains(&changed), "{before} <= {changed} <= {after}");
}

#[test]
fn another_machine_boots() {
    let dir = tempfile::tempdir().unwrap();
    let usual = config(saved());
    let cases = [
        HelperConfig { snapshot: false, ..usual.clone() },
        HelperConfig { memory_mib: 160, ..usual.clone() },
        HelperConfig {
            qemu: qemu_script(dir.path(), "exec qemu-system-x86_64 \"$@\""),
            ..usual.clone()
        },
    ];
    for (number, config) in cases.into_iter().enumerate() {
        let path = guest(dir.path());
        let hostname = format!("vm{number}.example.org");
        let mut heard = Heard::default();
        let rules = rules("/dev/vda", &hostname);
        let report = run(&config, open(&path), &rules, &mut heard).unwrap();
        assert!(!report.resumed, "{number}");
        assert_eq!(heard.warnings, Vec::<String>::new(), "{number}");
        assert_eq!(read_guest(&path, "etc/hostname").trim(), hostname);
    }
    // Two disks are another machine, too.
    let (path, second) = (guest(dir.path()), tempfile::tempfile().unwrap());
    second.set_len(1 << 20).unwrap();
    let request = VmRequest {
        disks: vec![VmDisk::Open(open(&path)), VmDisk::Open(second)],
        parameters: parameters(&rules("/dev/vda", "two.example.org")),
        hypervisor: "kvm".into(),
        flush_later: false,
        sector_size: 512,
    };
    let report = run_helper(&usual, &request, &Cancel::new(), &mut Heard::default()).unwrap();
    assert!(!report.resumed);
    assert_eq!(read_guest(&path, "etc/hostname").trim(), "two.example.org");
}

#[test]
fn a_spoiled_snapshot_costs_a_warning() {
    type Spoil<'a> = &'a dyn Fn(&Path);
    let cut: Spoil<'_> = &|path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    let empty: Spoil<'_> = &|path| fs::write(path, "").unwrap();
    let junk: Spoil<'_> = &|path| fs::write(path, vec![0x5a; 1 << 20]).unwrap();
    for (number, spoil) in [cut, empty, junk].into_iter().enumerate() {
        let helper = copy();
        spoil(&snapshot_of(helper.path()));
        let dir = tempfile::tempdir().unwrap();
        let path = guest(dir.path());
        let mut heard = Heard::default();
        let rules = rules("/dev/vda", "spoiled.example.org");
        let report = run(&config(helper.path()), open(&path), &rules, &mut heard).unwrap();
        assert!(!report.resumed, "{number}");
        assert_eq!(heard.warnings.len(), 1, "{number}: {:?}", heard.warnings);
        let warning = &heard.warnings[0];
        assert!(
            warning.contains("cannot be used") && warning.contains("boots instead"),
            "{warning}"
        );
        assert_eq!(read_guest(&path, "etc/hostname").trim(), "spoiled.example.org");
        assert_no_children();
    }
}

#[test]
fn failures_are_told_as_ever() {
    let (error, heard) = failure(&config(saved()), "export SNF_IMAGE_TYPE=diskdump\n");
    assert!(matches!(error, HelperError::Failed(_)), "{error}");
    assert!(error.to_string().contains("SNF_IMAGE_DEV"), "{error}");
    assert_eq!(heard.warnings, Vec::<String>::new());
    let config = HelperConfig { soft_timeout: Duration::from_millis(1), ..config(saved()) };
    let (error, _) = failure(&config, &rules("/dev/vda", "x"));
    assert!(matches!(error, HelperError::SoftTimeout(..)), "{error}");
}

#[test]
fn it_is_made_where_it_is_of_use() {
    let dir = tempfile::tempdir().unwrap();
    let usual = config(dir.path());
    let snapshots = || {
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("snapshot")).count()
    };
    assert!(build(dir.path(), &usual, &[]).contains("go on from there"));
    assert_eq!(snapshots(), 2);
    // An older one does not stay behind.
    assert!(build(dir.path(), &usual, &["--no-snapshot"]).contains("none, as asked for"));
    assert_eq!(snapshots(), 0);
    let off = HelperConfig { snapshot: false, ..usual.clone() };
    assert!(build(dir.path(), &off, &[]).contains("none, as asked for"));
    let kvm = HelperConfig { acceleration: Acceleration::Kvm, ..usual.clone() };
    assert!(build(dir.path(), &kvm, &[]).contains("none: it is for TCG"));
    let missing = HelperConfig { qemu: "/nonexistent/qemu".into(), ..usual.clone() };
    let said = build(dir.path(), &missing, &[]);
    assert!(
        said.contains("none, so runs without KVM boot: cannot run /nonexistent/qemu"),
        "{said}"
    );
    assert_eq!(snapshots(), 0);
    // A QEMU that ends, one that never speaks to us, and a stop in between.
    let script = |text| qemu_script(dir.path(), text);
    let ends = HelperConfig { qemu: script("echo no such machine >&2; exit 1"), ..usual.clone() };
    let error = make_snapshot(&ends, &Cancel::new()).unwrap_err().to_string();
    assert!(error.contains("no such machine"), "{error}");
    let silent = HelperConfig { qemu: script("sleep 100"), ..usual };
    let cancel = Cancel::new();
    cancel.request(15);
    let error = make_snapshot(&silent, &cancel).unwrap_err();
    assert!(matches!(error, HelperError::Cancelled(_)), "{error}");
    assert_no_children();
    assert_eq!(snapshots(), 0);
}
