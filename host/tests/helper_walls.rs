//! The locked room: what a QEMU could reach, what a hostile image can make the helper say, and how
//! lines that break the protocol end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod vm_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use snf_image_host::helper::{HelperConfig, HelperError, MonitorMessage};

use vm_support::*;

/// A configuration whose QEMU is a script that has the first serial lines as descriptors `${s[0]}`
/// to `${s[2]}`.
fn stand_in(dir: &Path, script: &str) -> HelperConfig {
    let find = r#"for arg; do case $arg in socket,id=serial*) s+=("${arg##*fd=}");; esac; done"#;
    let qemu = qemu_script(dir, &format!("{find}\n{script}"));
    HelperConfig { qemu, soft_timeout: Duration::from_secs(120), ..config(helper()) }
}

#[test]
fn a_qemu_that_looks_around() {
    let dir = tempfile::tempdir().unwrap();
    let readable = dir.path().join("readable");
    fs::write(&readable, "x").unwrap();
    fs::set_permissions(&readable, fs::Permissions::from_mode(0o644)).unwrap();
    let writable = dir.path().join("writable");
    fs::create_dir(&writable).unwrap();
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o777)).unwrap();
    let script = format!(
        r#"
        say() {{ echo "$*" >&"${{s[0]}}"; }}
        cat {readable} >/dev/null 2>&1 && say reads
        cat /etc/hostname >/dev/null 2>&1 && say reads-etc
        echo > {writable}/x 2>/dev/null && say writes
        ls /proc/1/ >/dev/null 2>&1 && say lists-proc
        kill -0 {me} 2>/dev/null && say signals
        (exec 9<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && say connects
        ls /usr/bin >/dev/null && say runs-usr
        say uid $UID pid $$
        [ -e {readable} ] && say sees-tmp
        (exec 9>/usr/bin/env) 2>/dev/null && say writes-usr
        say core $(ulimit -c) files $(ulimit -n)
        echo "ERROR: done" >&"${{s[1]}}""#,
        readable = readable.display(),
        writable = writable.display(),
        me = std::process::id(),
        port = {
            // Something that would answer.
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            std::mem::forget(listener);
            port
        },
    );
    let (error, heard) = failure(&stand_in(dir.path(), &script), "");
    assert_eq!(error.to_string(), "done");
    assert_eq!(
        heard.console,
        ["runs-usr", "uid 65534 pid 1", "core 0 files 256"],
        "and nothing else is in reach"
    );
}

/// The state of the real QEMU while it runs.
#[test]
fn the_real_qemu_behind_its_walls() {
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let disk = open(&path);
    let config = config(helper());
    // Left open by a caller that forgot to close it.
    let stray = dir.path().join("stray");
    fs::write(&stray, "x").unwrap();
    let left_open = fs::File::open(&stray).unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let runner = std::thread::spawn(move || {
        run(&config, disk, &rules("/dev/vda", "walls.example.org"), &mut Heard::default()).unwrap();
    });
    let pid = qemu_with(&path);
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let status = read("status");
    for line in ["Uid:\t65534\t65534\t65534\t65534", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"]
    {
        assert!(status.contains(line), "{line} in {status}");
    }
    let limits = read("limits");
    assert!(limits.contains("Max core file size        0"), "{limits}");
    for limit in ["Max cpu time", "Max address space", "Max open files"] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        assert!(!line.contains("unlimited"), "{line}");
    }
    let cgroup = read("cgroup");
    if cgroup.contains("0::/") && Path::new("/sys/fs/cgroup/unified").exists() {
        assert!(cgroup.contains(&format!("snf-image-helper-{}-", std::process::id())), "{cgroup}");
        let own = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        // The files are there where the group above passes the controllers on.
        for limit in ["memory.max", "memory.swap.max", "pids.max"] {
            for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
                if let Ok(value) = fs::read_to_string(format!("{root}{own}/{limit}")) {
                    assert!(value.trim().parse::<u64>().is_ok(), "{limit} is {value}");
                }
            }
        }
    }
    for space in ["net", "ipc", "uts", "pid", "mnt", "user"] {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{space}")).unwrap();
        assert_ne!(of("self"), of(&pid.to_string()), "{space}");
    }
    // Nothing of a file system is open for writing but the disk.
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        assert_ne!(target, stray, "it inherits what it was not given");
        let target = target.to_string_lossy().into_owned();
        let info = read(&format!("fdinfo/{}", entry.file_name().to_str().unwrap()));
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:\t")).unwrap();
        let writes = u32::from_str_radix(flags, 8).unwrap() & 3 != 0;
        if writes && target.starts_with('/') && target != "/dev/null" {
            assert_eq!(target, path.display().to_string());
        }
    }
    runner.join().unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// Everything that a process of QEMU's user (nobody) gets hold of in process `pid`.
fn stranger(pid: u32) -> String {
    // pidfd_open, pidfd_getfd, ptrace(PTRACE_SEIZE).
    let script = r#"
        my $pid = shift() + 0;
        my $pidfd = syscall(434, $pid, 0);
        print "pidfd\n" if $pidfd >= 0;
        for my $n (0 .. 255) {
            print "pidfd_getfd $n\n" if syscall(438, $pidfd, $n, 0) >= 0;
            print "link of fd $n\n" if defined readlink("/proc/$pid/fd/$n");
            print "fd $n\n" if open(my $fd, "<", "/proc/$pid/fd/$n");
        }
        for my $name ("mem", "maps", "environ", "auxv") {
            print "$name\n" if open(my $file, "<", "/proc/$pid/$name");
        }
        for my $name ("root", "cwd", "exe", "ns/pid") {
            print "$name\n" if defined readlink("/proc/$pid/$name");
        }
        print "ptrace\n" if syscall(101, 0x4206, $pid, 0, 0) >= 0;"#;
    let out = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e", script])
        .arg(pid.to_string())
        .current_dir("/")
        .output()
        .expect("setpriv and perl must be installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_stranger_of_the_same_user_gets_nothing_of_a_run() {
    // It is able to: of a process without walls it gets all.
    let mut other = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "77777"])
        .current_dir("/")
        .spawn()
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(30);
    let is_sleep =
        || fs::read(format!("/proc/{}/cmdline", other.id())).unwrap().starts_with(b"sleep");
    while !is_sleep() {
        assert!(Instant::now() < limit);
        std::thread::sleep(Duration::from_millis(10));
    }
    let got = stranger(other.id());
    let _ = other.kill();
    other.wait().unwrap();
    for wanted in ["pidfd\n", "pidfd_getfd 0", "link of fd 0", "fd 0", "mem", "maps", "ptrace"] {
        assert!(got.contains(wanted), "{wanted}: {got}");
    }

    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let disk = open(&path);
    let runner = std::thread::spawn(move || {
        let rules = rules("/dev/vda", "alone.example.org");
        run(&config(helper()), disk, &rules, &mut Heard::default()).unwrap();
    });
    let pid = qemu_with(&path);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
    // The number of a process is no secret; anything else is.
    assert_eq!(stranger(pid), "pidfd\n");
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "it ended meanwhile: nothing was shown");
    runner.join().unwrap();
}

#[test]
fn each_run_has_a_user_of_its_own_where_there_is_a_range() {
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let disk = open(&path);
    let config = HelperConfig { uid_range: Some(761_200..=761_299), ..config(helper()) };
    let runner = std::thread::spawn(move || {
        let rules = rules("/dev/vda", "range.example.org");
        run(&config, disk, &rules, &mut Heard::default()).unwrap();
    });
    let status = fs::read_to_string(format!("/proc/{}/status", qemu_with(&path))).unwrap();
    let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    let uid: u32 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((761_200..=761_299).contains(&uid), "{line}");
    runner.join().unwrap();
}

#[test]
fn floods_half_lines_junk_and_silence() {
    let dir = tempfile::tempdir().unwrap();
    let run = |script: &str| {
        let (error, heard) = failure(&stand_in(dir.path(), script), "");
        (error, heard)
    };
    // Half a result is none, and half a message spoils a success.
    let (error, _) = run(r#"printf SUCCES >&"${s[1]}""#);
    assert!(matches!(error, HelperError::NoResult { .. }), "{error}");
    let (error, _) = run(r#"printf SUCCESS >&"${s[1]}""#);
    assert!(matches!(error, HelperError::NoResult { .. }), "{error}");
    let half = r#"echo SUCCESS >&"${s[1]}"; printf 'TASK_START:Mou' >&"${s[2]}""#;
    let (error, _) = run(half);
    assert!(matches!(error, HelperError::Protocol(_)), "{error}");
    let (error, _) = run(r#"echo SUCCESS >&"${s[1]}"; echo SUCCESS >&"${s[2]}""#);
    assert!(matches!(error, HelperError::Protocol(_)), "{error}");
    let (error, heard) =
        run(r#"echo SUCCESS >&"${s[1]}"; head -c 300000 /dev/urandom >&"${s[2]}""#);
    assert!(matches!(error, HelperError::Protocol(_)), "{error}");
    assert!(heard.monitor.len() <= 100);

    // 8 MiB on each line at once, with QEMU's own words.
    let (error, heard) = run(r#"flood() { yes "$1" | tr -d '\n' | head -c 8388608; }
           flood x >&"${s[0]}" & flood y >&"${s[2]}" & yes noise | head -c 8388608 >&2 &
           yes noise | head -c 8388608 >&"${s[0]}" & wait
           echo SUCCESS >&"${s[1]}"; flood z >&"${s[1]}""#);
    assert!(matches!(error, HelperError::Protocol(_)), "{error}");
    let said: usize = heard.console.iter().map(String::len).sum();
    assert!(said <= (1 << 20) + 1024, "{said} bytes of console");

    // It says nothing and closes its lines: no result, as soon as it ends; and it ends in time.
    // It is the first process of its name space, which SIGTERM ends only where it asks for that.
    let closes = r#"trap 'exit 1' TERM
        for n in "${s[@]}"; do exec {n}>&-; done; sleep 77777 & wait"#;
    let config =
        HelperConfig { soft_timeout: Duration::from_millis(700), ..stand_in(dir.path(), closes) };
    let (error, _) = failure(&config, "");
    assert!(matches!(error, HelperError::SoftTimeout(..)), "{error}");
}

#[test]
fn a_hostile_guest_cannot_forge_a_line() {
    let dir = tempfile::tempdir().unwrap();
    // Texts of the image that reach a message: the system's name, users, paths, patterns.
    let forged = "SUCCESS\rSUCCESS\u{85}SUCCESS\u{2028}TASK_END:x\u{1b}[2J";
    let os_release = format!("ID=debian\nPRETTY_NAME=$'Debian\\nSUCCESS\\n{forged}'\n");
    let path = guest_with(
        dir.path(),
        &[
            ("os-release", &os_release),
            ("ssh/sshd_config", &format!("AuthorizedKeysFile /{forged}/%u\nHostKey /{forged}\n")),
            (
                "fstab",
                &format!("/dev/vda / ext4 defaults 0 1\nUUID={forged} /{forged} ext4 d 0 2\n"),
            ),
        ],
    );
    let before = fs::read(&path).unwrap();
    let rules = rules("/dev/vda", "x").replace(PROPERTIES, r#"{"USERS":"SUCCESS\nSUCCESS"}"#);
    let rules = format!("{rules}export SNF_IMAGE_PASSWD=x\n");
    let mut heard = Heard::default();
    let error = run(&config(helper()), open(&path), &rules, &mut heard).unwrap_err();
    let HelperError::Failed(text) = &error else { panic!("{error}") };
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(before == fs::read(&path).unwrap());
    for message in &heard.monitor {
        let text = match message {
            MonitorMessage::TaskStart(name) | MonitorMessage::TaskEnd(name) => {
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name:?}");
                continue;
            }
            MonitorMessage::Warning(text) | MonitorMessage::Error(text) => text,
            MonitorMessage::Stderr(lines) => panic!("{lines:?}"),
        };
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    for line in &heard.console {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn a_worker_that_takes_too_long_is_stopped_in_its_task() {
    let dir = tempfile::tempdir().unwrap();
    // As many as USERS takes; under TCG each costs about half a second.
    let names: Vec<String> = (0..64).map(|n| format!("user{n}")).collect();
    let lines = |format: &dyn Fn(&str) -> String| -> String {
        names.iter().map(|name| format(name)).collect()
    };
    let passwd = lines(&|name| format!("{name}:x:1000:1000::/home/{name}:/bin/sh\n"));
    let shadow = lines(&|name| format!("{name}:*:19000:0:99999:7:::\n"));
    let passwd = format!("root:x:0:0:root:/root:/bin/bash\n{passwd}");
    let shadow = format!("root:*:19000:0:99999:7:::\n{shadow}");
    let path = guest_with(dir.path(), &[("passwd", &passwd), ("shadow", &shadow)]);
    let before = fs::read(&path).unwrap();
    let properties = format!(
        r#"{{"USERS":"{}","PASSWD_HASHING_METHOD":"yescrypt","EXCLUDE_TASK_DeleteSSHKeys":"yes"}}"#,
        names.join(" ")
    );
    let rules = rules("/dev/vda", "x").replace(PROPERTIES, &properties);
    let rules = format!("{rules}export SNF_IMAGE_PASSWD=x\n");
    let config = HelperConfig { soft_timeout: Duration::from_secs(20), ..config(helper()) };
    let error = run(&config, open(&path), &rules, &mut Heard::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "the customization did not finish within 18 s and was stopped in task ChangePassword"
    );
    assert!(before == fs::read(&path).unwrap(), "the disk has changed");
}
