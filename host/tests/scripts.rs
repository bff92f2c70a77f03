//! The scripts as Ganeti runs them: through links, with its environment and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Os {
    dir: tempfile::TempDir,
}

impl Os {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_snf-image-host"))
            .arg("install-os")
            .arg(dir.path().join("snf-image"))
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        fs::create_dir(dir.path().join("images")).unwrap();
        fs::write(
            dir.path().join("default"),
            format!(
                "IMAGE_DIR=\"{0}/images\"\nHELPER_DIR=\"{0}/helper\"\nHELPER_ACCEL=tcg\n",
                dir.path().display()
            ),
        )
        .unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A script as Ganeti calls it: cwd is the OS directory, no HOME, no LANG.
    fn script(&self, name: &str) -> Command {
        let mut command = Command::new(self.path("snf-image").join(name));
        command
            .current_dir(self.path("snf-image"))
            .env_clear()
            .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
            .env("OS_API_VERSION", "20")
            .env("OS_NAME", "snf-image")
            .env("OS_VARIANT", "default")
            .env("DEBUG_LEVEL", "0")
            .env("SNF_IMAGE_CONFIG", self.path("default"))
            .stdin(Stdio::null());
        command
    }

    fn instance(&self, name: &str, disk: &Path) -> Command {
        let mut command = self.script(name);
        command
            .env("INSTANCE_NAME", "inst1.example.test")
            .env("INSTANCE_OS", "snf-image+default")
            .env("HYPERVISOR", "kvm")
            .env("NIC_COUNT", "0")
            .env("DISK_COUNT", "1")
            .env("DISK_0_PATH", disk)
            .env("DISK_0_ACCESS", "rw")
            .env("DISK_0_UUID", "x");
        command
    }
}

fn text(out: &Output) -> String {
    assert!(out.stdout.is_empty(), "{out:?}");
    String::from_utf8(out.stderr.clone()).unwrap()
}

#[test]
fn verify_names_what_is_wrong() {
    let os = Os::new();
    let out = os.script("verify").arg("parameters").env("OSP_IMG_ID", "x").output().unwrap();
    assert!(out.status.success() && text(&out).is_empty());
    let out = os
        .script("verify")
        .arg("parameters")
        .env("OSP_IMG_FORMAT", "tar")
        .env("OSP_IMG_PASSWD_HASH", "SECRET-VALUE")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out);
    assert!(said.contains("img_format") && said.contains("img_passwd_hash"), "{said}");
    assert!(!said.contains("SECRET-VALUE"), "{said}");
    assert_eq!(os.script("verify").arg("everything").output().unwrap().status.code(), Some(1));
}

#[test]
fn errors_are_one_line_of_utf8() {
    let os = Os::new();
    let disk = os.path("disk");
    fs::write(&disk, vec![0xaa; 4096]).unwrap();
    let bad = std::ffi::OsString::from_vec(vec![b'x', 0xff, b'\n', b'y']);
    for name in ["OSP_IMG_ID", "INSTANCE_NAME", "OS_VARIANT", "DISK_0_PATH", "NIC_0_NAME", "OSP_X"]
    {
        let out = os
            .instance("create", &disk)
            .env("OSP_IMG_ID", "x")
            .env("OSP_IMG_FORMAT", "diskdump")
            .env(name, &bad)
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(1), "{name}: {out:?}");
        text(&out);
    }
    let out = os.script("create").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(text(&out).lines().count(), 1, "{out:?}");
    let out = os.instance("create", &disk).output().unwrap();
    assert!(text(&out).contains("no OS parameters were given"), "{out:?}");
    assert_eq!(fs::read(&disk).unwrap(), vec![0xaa; 4096]);
}

#[test]
fn more_to_read_where_it_is_asked_for() {
    let os = Os::new();
    let disk = os.path("disk");
    fs::write(&disk, vec![0xaa; 4096]).unwrap();
    for (level, config, more) in
        [("0", "", false), ("1", "", true), ("0", "IMAGE_DEBUG=yes\n", true)]
    {
        let text_of = fs::read_to_string(os.path("default")).unwrap();
        fs::write(
            os.path("default"),
            format!("{}{config}", text_of.replace("IMAGE_DEBUG=yes\n", "")),
        )
        .unwrap();
        let out = os
            .instance("create", &disk)
            .env("DEBUG_LEVEL", level)
            .env("OSP_IMG_ID", "none")
            .env("OSP_IMG_FORMAT", "diskdump")
            .env("OSP_IMG_PASSWD", "SECRET-VALUE")
            .output()
            .unwrap();
        let said = text(&out);
        assert_eq!(
            said.contains("debug: OS parameters: img_format (Ganeti), img_id"),
            more,
            "{said}"
        );
        assert!(!said.contains("SECRET-VALUE"), "{said}");
    }
}

#[test]
fn a_wrong_configuration_names_file_line_and_key() {
    let os = Os::new();
    fs::write(os.path("default"), "IMAGE_DIR=/x\n\nHELPER_ACCEL=warp\n").unwrap();
    let out = os.instance("create", &os.path("disk")).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out);
    assert!(said.contains("default, line 3, HELPER_ACCEL: \"warp\""), "{said}");
}

#[test]
fn export_and_import_are_the_same_bytes() {
    let os = Os::new();
    let disk = os.path("disk");
    let file = fs::File::create(&disk).unwrap();
    file.set_len(9 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", 5 << 20).unwrap();
    let size = os.path("size");
    let dump = os.path("dump");
    let monitor = os.path("monitor");
    fs::write(&monitor, "#!/bin/sh\nexec cat >>\"$0-heard\"\n").unwrap();
    fs::set_permissions(&monitor, fs::Permissions::from_mode(0o755)).unwrap();
    let mut config = fs::OpenOptions::new().append(true).open(os.path("default")).unwrap();
    writeln!(config, "PROGRESS_MONITOR=\"{}\"", monitor.display()).unwrap();
    let heard = |kind: &str, disk: usize| {
        let text = fs::read_to_string(os.path("monitor-heard")).unwrap();
        let last: serde_json::Value =
            serde_json::from_str(text.lines().last().unwrap()).expect("JSON");
        fs::remove_file(os.path("monitor-heard")).unwrap();
        assert_eq!(last["type"], kind, "{text}");
        assert_eq!(last["disk"], disk, "{text}");
        assert_eq!((&last["position"], &last["total"]), (&last["total"], &(9u32 << 20).into()));
        assert_eq!(last["progress"], 100.0);
        assert_eq!(text.matches("100.0").count(), 1, "{text}");
    };
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("exec 11>{}; exec ./export >{}", size.display(), dump.display()));
    let export = os.instance("export", &disk);
    shell.current_dir(os.path("snf-image")).env_clear();
    for (name, value) in export.get_envs() {
        shell.env(name, value.unwrap());
    }
    let out = shell
        .env("EXPORT_DEVICE", &disk)
        .env("EXPORT_INDEX", "0")
        .env("EXP_SIZE_FD", "11")
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(fs::read_to_string(&size).unwrap(), "9437184\n");
    let bytes = fs::read(&disk).unwrap();
    assert!(fs::read(&dump).unwrap() == bytes);
    heard("disk-export-progress", 0);

    let import = |input: &[u8], size_mib: &str, extra: &[(&str, &str)]| {
        let target = os.path("target");
        fs::write(&target, vec![0xaa; 9 << 20]).unwrap();
        let mut command = os.instance("import", &target);
        command
            .env("IMPORT_DEVICE", &target)
            .env("IMPORT_INDEX", "0")
            .env("DISK_0_SIZE", size_mib)
            .envs(extra.iter().copied())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A refused import may close the pipe early.
        let _ = child.stdin.take().unwrap().write_all(input);
        (child.wait_with_output().unwrap(), fs::read(&target).unwrap())
    };
    let (out, found) = import(&bytes, "9", &[]);
    assert!(out.status.success(), "{out:?}");
    assert!(found == bytes);
    heard("disk-import-progress", 0);
    for cut in [0, 1, 5 << 20, (9 << 20) - 1] {
        let (out, _) = import(&bytes[..cut], "9", &[]);
        assert_eq!(out.status.code(), Some(1), "{cut}");
        assert!(text(&out).contains("truncated"), "{out:?}");
        let heard = fs::read_to_string(os.path("monitor-heard")).unwrap_or_default();
        assert!(!heard.contains("100.0"), "{heard}");
    }
    let (out, found) = import(&bytes[..8 << 20], "8", &[]);
    assert!(out.status.success(), "a device may be larger than Ganeti asked: {out:?}");
    assert!(found == bytes, "the rest is zeroed");
    let (out, _) = import(&[&bytes[..], b"x"].concat(), "9", &[]);
    assert!(!out.status.success() && text(&out).contains("larger than the disk"), "{out:?}");
}

#[test]
fn export_into_a_closed_pipe_is_an_error() {
    let os = Os::new();
    let disk = os.path("disk");
    fs::write(&disk, vec![1; 4 << 20]).unwrap();
    let mut child = os
        .instance("export", &disk)
        .env("EXPORT_DEVICE", &disk)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert!(text(&out).contains("cannot write the export"), "{out:?}");
}

#[test]
fn a_standard_output_that_takes_nothing_is_an_error() {
    let program = env!("CARGO_BIN_EXE_snf-image-host");
    for words in ["version", "--help", "--version", "check"] {
        for (place, why) in [(">/dev/full", "No space left"), (">&-", "it is closed")] {
            let line = format!("$1 {words} {place}");
            let out = Command::new("sh").args(["-c", &line, "sh", program]).output().unwrap();
            assert_eq!(out.status.code(), Some(1), "{line}: {out:?}");
            let said = text(&out);
            assert!(said.contains("cannot write to standard output"), "{line}: {said}");
            assert!(said.contains(why), "{line}: {said}");
        }
    }
}

#[test]
fn a_signal_ends_it_with_a_sentence_and_no_secret_leaks() {
    let os = Os::new();
    let disk = os.path("disk");
    fs::write(&disk, vec![0xaa; 1 << 20]).unwrap();
    // import waits for its input: a signal must end it.
    for signal in ["TERM", "INT", "HUP"] {
        let mut child = os
            .instance("import", &disk)
            .env("IMPORT_DEVICE", &disk)
            .env("OSP_IMG_PASSWD", "SECRET-VALUE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        std::thread::sleep(Duration::from_millis(300));
        let cmdline = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
        assert!(!String::from_utf8_lossy(&cmdline).contains("SECRET-VALUE"));
        // The other variables are there still, and of this one the name.
        let environ = fs::read(format!("/proc/{}/environ", child.id())).unwrap();
        let environ = String::from_utf8_lossy(&environ);
        assert!(environ.contains("INSTANCE_NAME=inst1") && environ.contains("OSP_IMG_PASSWD="));
        assert!(!environ.contains("SECRET-VALUE"), "{environ}");
        let started = Instant::now();
        let pid = child.id().to_string();
        Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        let out = child.wait_with_output().unwrap();
        drop(input);
        assert_eq!(out.status.code(), Some(1), "{signal}: {out:?}");
        assert!(started.elapsed() < Duration::from_secs(3));
        let said = text(&out);
        assert!(said.contains("stopped by signal") && !said.contains("SECRET"), "{said}");
    }
}

#[test]
fn a_crash_leaves_no_core() {
    let os = Os::new();
    let disk = os.path("disk");
    fs::write(&disk, vec![0xaa; 1 << 20]).unwrap();
    // Whether a process that may dump its memory does so when it crashes.
    let dumps = |program: &str| {
        let import = os.instance("import", &disk);
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -c unlimited; exec {program}")])
            .current_dir(&os.dir)
            .env_clear()
            .envs(import.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("IMPORT_DEVICE", &disk)
            .env("OSP_IMG_PASSWD", "SECRET-VALUE")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let wiped = |pid: u32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            !environ.is_empty() && !String::from_utf8_lossy(&environ).contains("SECRET")
        };
        let limit = Instant::now() + Duration::from_secs(60);
        while program != "sleep 1000" && !wiped(child.id()) {
            assert!(Instant::now() < limit, "{program} does not wipe its environment");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(100));
        Command::new("kill").args(["-s", "ABRT", &child.id().to_string()]).status().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(6), "{program}");
        status.core_dumped()
    };
    println!("others leave one: {}", dumps("sleep 1000"));
    assert!(!dumps("snf-image/import"));
}

#[test]
fn usage_errors() {
    let program = env!("CARGO_BIN_EXE_snf-image-host");
    for args in [&[][..], &["frobnicate"], &["install-os"], &["create", "x"]] {
        let out = Command::new(program).args(args).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert_eq!(text(&out).lines().count(), 1, "{out:?}");
    }
    assert!(Command::new(program).arg("--help").output().unwrap().status.success());
}

#[test]
fn arguments_are_checked_and_output_that_is_lost_is_an_error() {
    let program = env!("CARGO_BIN_EXE_snf-image-host");
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let out = Command::new(program).current_dir(dir.path()).args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    for args in [&["--help"][..], &["help"], &["install-os", "--help"], &["check", "--help"]] {
        let (code, out, _) = run(args);
        assert!(code == Some(0) && out.contains("Usage:"), "{args:?}: {out}");
    }
    for (args, why) in [
        (&[][..], "see snf-image-host --help"),
        (&["chek"], "'chek'"),
        (&["check", "foo"], "'foo'"),
        (&["create", "foo"], "'foo'"),
        (&["install-os"], "<DIR>"),
        (&["install-os", "--variant", "x"], "'--variant'"),
        (&["verify", "images"], "'images'"),
    ] {
        let (code, out, error) = run(args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {error}");
        assert!(
            error.starts_with("snf-image: error: ") && error.contains(why),
            "{args:?}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was made");
    let shell = |line: &str| {
        let out = Command::new("sh").args(["-c", line, "sh", program]).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    for line in ["$1 version >/dev/full", "$1 --help >/dev/full"] {
        let (code, error) = shell(line);
        assert!(code == Some(1) && error.contains("No space left"), "{line}: {error}");
    }
    // The log is full: whoever keeps it should know.
    let disk = dir.path().join("disk");
    fs::write(&disk, vec![7; 8192]).unwrap();
    let config = dir.path().join("config");
    fs::write(&config, "").unwrap();
    let environment = format!(
        "export SNF_IMAGE_CONFIG={} OS_API_VERSION=20 INSTANCE_NAME=i EXPORT_INDEX=0 \
         EXPORT_DEVICE={}; ",
        config.display(),
        disk.display()
    );
    for (redirection, code) in
        [(">/dev/null", 0), (">/dev/null 2>/dev/full", 1), (">&-", 1), (">/dev/full", 1)]
    {
        let line = format!("{environment}$1 export {redirection}");
        assert_eq!(shell(&line).0, Some(code), "{line}");
    }
}
