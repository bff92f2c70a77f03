//! The helper VM for real: built from Debian's kernels, run by QEMU (TCG), in good and bad times.
//! Needs root, qemu-system-x86_64 and the kernels that `cargo xtask setup` fetches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod vm_support;

use std::time::{Duration, Instant};

use snf_image_host::helper::update::{self, Options};
use snf_image_host::helper::{
    Acceleration, HelperConfig, HelperError, MonitorMessage, ParameterDisk, guest_disk,
};

use vm_support::*;

#[test]
fn two_virtual_machines_from_the_same_files() {
    let mut secrets = Vec::new();
    for hostname in ["one.example.org", "two.example.org"] {
        let dir = tempfile::tempdir().unwrap();
        // A key of the kind that is quickly made.
        let path = guest_with(dir.path(), &[("ssh/ssh_host_ed25519_key", "old\n")]);
        let mut heard = Heard::default();
        let properties = r#"{"PASSWD_HASHING_METHOD":"sha512"}"#;
        let rules = rules(&guest_disk(0), hostname).replace(PROPERTIES, properties);
        let rules = format!("{rules}export SNF_IMAGE_PASSWD=secret\n");
        let report = run(&config(helper()), open(&path), &rules, &mut heard).unwrap();
        println!("{report:?}");
        assert_eq!(report.acceleration, Acceleration::Tcg);
        assert_no_children();
        assert_eq!(read_guest(&path, "etc/hostname").trim(), hostname);
        assert!(heard.warnings.is_empty());
        assert!(heard.console.iter().any(|l| l.starts_with("snf-image-helper ")));
        let start = MonitorMessage::TaskStart("AssignHostname".into());
        assert!(heard.monitor.contains(&start));
        let names = ["etc/machine-id", "etc/ssh/ssh_host_ed25519_key", "etc/shadow"];
        secrets.push(names.map(|name| read_guest(&path, name)));
    }
    // Each has its own randomness: id, key, and the salt of the same password.
    for (one, other) in secrets[0].iter().zip(&secrets[1]) {
        assert_ne!(one, other);
    }
    assert!(secrets[0][1].starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
    assert!(secrets[0][2].starts_with("root:$6$"), "{}", secrets[0][2]);
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
    let script = r#"exec qemu-system-x86_64 "${@/snf_image_protocol=2/snf_image_protocol=9}""#;
    let config = HelperConfig { qemu: qemu_script(dir.path(), script), ..config(helper()) };
    let (error, _) = failure(&config, &rules("/dev/vda", "x"));
    assert!(error.to_string().contains("the host speaks protocol 9, this helper 2"), "{error}");
}

#[test]
fn whatever_breaks_in_there_is_said() {
    let dir = tempfile::tempdir().unwrap();
    for (fault, words) in [
        ("panic", "internal error, nothing was written: "),
        ("memory", "the helper VM ran out of memory; raise HELPER_MEMORY"),
        ("loop", "did not finish within 36 s and was stopped"),
        ("kernel", "ended without a result; its last words: "),
    ] {
        // The others end by themselves, and may take their time on a busy machine.
        let limit = Duration::from_secs(if fault == "loop" { 40 } else { 90 });
        let config = HelperConfig {
            qemu: with_fault(dir.path(), fault),
            soft_timeout: limit,
            ..config(helper_with_faults())
        };
        let started = Instant::now();
        let error = failure(&config, &rules("/dev/vda", "x")).0.to_string();
        assert!(error.contains(words), "{fault}: {error}");
        assert!(started.elapsed() < config.soft_timeout, "{fault}");
        match fault {
            "panic" => assert!(error.contains("a fault that was asked for"), "{error}"),
            "kernel" => assert!(error.contains("Kernel panic"), "{error}"),
            _ => {}
        }
    }
}

#[test]
fn a_worker_that_comes_to_a_bad_end() {
    // There is less memory than its rules take.
    let dir = tempfile::tempdir().unwrap();
    let script = r#"exec qemu-system-x86_64 "${@/224M/88M}""#;
    let config = HelperConfig { qemu: qemu_script(dir.path(), script), ..config(helper()) };
    let long =
        format!("{}export SNF_IMAGE_LONG={}\n", rules("/dev/vda", "x"), "x".repeat(13 << 20));
    let (error, _) = failure(&config, &long);
    assert!(error.to_string().contains("ran out of memory"), "{error}");
}

#[test]
fn a_guest_clock_that_runs_too_fast_ends_no_run() {
    // The time-stamp counter is said to tick at 100 MHz, so that the kernel's
    // clock runs some 25 times too fast. The host's limit is what counts.
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let scripts = tempfile::tempdir().unwrap();
    let script = r#"exec qemu-system-x86_64 "${@/snf_image_activate_helper/snf_image_activate_helper snf_image_times tsc_early_khz=100000}""#;
    let config = HelperConfig { qemu: qemu_script(scripts.path(), script), ..config(helper()) };
    let mut heard = Heard::default();
    let rules = rules("/dev/vda", "fast.example.org");
    let report = run(&config, open(&path), &rules, &mut heard).unwrap();
    assert_eq!(read_guest(&path, "etc/hostname").trim(), "fast.example.org");
    let guest_ms = heard.console.iter().filter_map(|line| line.strip_prefix("time ")).next_back();
    println!("{report:?}; the guest's clock: {guest_ms:?} ms");
    let ms: f64 = guest_ms.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(ms > 10.0 * report.elapsed.as_secs_f64() * 1000.0, "the clock was not fast: {ms} ms");
}

#[test]
fn the_helper_that_is_shipped_knows_no_faults() {
    let word = b"snf_image_fault";
    let has = |path: &std::path::Path| {
        std::fs::read(path).unwrap().windows(word.len()).any(|window| window == word)
    };
    assert!(!has(init()) && has(init_with_faults()));
    // Asked for a panic, it does its work.
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let scripts = tempfile::tempdir().unwrap();
    let config = HelperConfig { qemu: with_fault(scripts.path(), "panic"), ..config(helper()) };
    let rules = rules("/dev/vda", "whole.example.org");
    run(&config, open(&path), &rules, &mut Heard::default()).unwrap();
    assert_eq!(read_guest(&path, "etc/hostname").trim(), "whole.example.org");
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
    // From outside: in its own name space nobody can kill the first process.
    let name = format!("qemu-to-be-killed-{}", std::process::id());
    let script = format!(r#"exec -a {name} qemu-system-x86_64 "$@""#);
    let config = HelperConfig { qemu: qemu_script(dir.path(), &script), ..config(helper()) };
    let killer = std::thread::spawn(move || {
        let named = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with(name.as_bytes()))
        };
        let limit = Instant::now() + Duration::from_secs(60);
        let pid = loop {
            if let Some(pid) = processes().into_iter().find(named) {
                break pid;
            }
            assert!(Instant::now() < limit, "no QEMU was seen");
            std::thread::sleep(Duration::from_millis(20));
        };
        std::thread::sleep(Duration::from_millis(300));
        let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        assert!(status.unwrap().success());
    });
    let (error, _) = failure(&config, &rules("/dev/vda", "x"));
    killer.join().unwrap();
    assert!(matches!(error, HelperError::QemuKilled { .. }), "{error}");
}

#[test]
fn both_time_limits() {
    let soft = HelperConfig { soft_timeout: Duration::from_millis(500), ..config(helper()) };
    let started = Instant::now();
    let (error, _) = failure(&soft, &rules("/dev/vda", "x"));
    assert!(matches!(error, HelperError::SoftTimeout(..)), "{error}");
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
