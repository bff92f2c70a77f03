//! The command line tool on small guests: what it changes, what it leaves, how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::cli_support::{Guest, Run, snf_customize};
use serde_json::Value;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFn00000000000000000000000000000000000000000 me@example\n";

/// Whether crypt(3) of the password with the hash gives the hash.
fn verifies(password: &str, hash: &str) -> bool {
    let script = "print crypt($ARGV[0], $ARGV[1]) eq $ARGV[1] ? 'yes' : 'no'";
    let output = Command::new("perl").args(["-e", script, password, hash]).output().unwrap();
    output.stdout == b"yes"
}

fn hash_of(guest: &Guest, user: &str) -> String {
    let shadow = guest.cat("/etc/shadow");
    let line = shadow.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap();
    line.split(':').nth(1).unwrap().to_owned()
}

#[test]
fn everything_at_once() {
    let guest = Guest::debian();
    let password = guest.file("password", "correct horse\n");
    let key = guest.file("key.pub", KEY);
    let motd = guest.file("motd", "hello\n");
    let personality = guest.file(
        "personality.json",
        r#"[{"path": "/etc/new/dir/file", "contents": "aGkK", "owner": "ann", "group": "ann", "mode": 384}]"#,
    );
    let run = guest.apply(&[
        "--root-password",
        &format!("file:{password}"),
        "--user-password",
        "ann:hash:!",
        "--ssh-key",
        &format!("root:file:{key}"),
        "--ssh-key",
        &format!("ann:file:{key}"),
        "--hostname",
        "web1.example.org",
        "--write",
        &format!("/etc/motd:file:{motd}:mode=0600"),
        "--personality",
        &personality,
        "--machine-id",
        "new",
        "--host-keys",
        "new",
    ]);
    run.works();
    assert_eq!(run.stderr, "");
    assert!(run.last_line().starts_with("customized "), "{}", run.stdout);
    assert!(run.stdout.contains("Debian GNU/Linux 12"), "{}", run.stdout);
    guest.check();

    let hash = hash_of(&guest, "root");
    assert!(hash.starts_with("$y$") && verifies("correct horse", &hash), "{hash}");
    assert_eq!(hash_of(&guest, "ann"), "!");
    assert_eq!(hash_of(&guest, "daemon"), "*");
    assert!(guest.cat("/etc/hostname").starts_with("web1"));
    assert!(guest.cat("/etc/hosts").contains("127.0.1.1\tweb1.example.org"));
    assert_eq!(guest.cat("/root/.ssh/authorized_keys"), KEY);
    assert_eq!(guest.cat("/home/ann/.ssh/authorized_keys"), KEY);
    assert!(guest.stat("/home/ann/.ssh/authorized_keys").contains("User:  1000   Group:  1000"));
    assert_eq!(guest.cat("/etc/motd"), "hello\n");
    assert!(guest.stat("/etc/motd").contains("Mode:  0600"));
    assert_eq!(guest.cat("/etc/new/dir/file"), "hi\n");
    assert!(guest.stat("/etc/new/dir/file").contains("Mode:  0600"));
    assert!(guest.stat("/etc/new").contains("Mode:  0750"));
    let id = guest.cat("/etc/machine-id");
    assert!(id.len() == 33 && !id.starts_with("0123456789abcdef"), "{id}");

    for name in ["rsa", "ecdsa", "ed25519"] {
        let file = guest.file(name, &guest.cat(&format!("/etc/ssh/ssh_host_{name}_key")));
        let output = Command::new("ssh-keygen").args(["-l", "-f", &file]).output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        let fingerprint = listed.split(' ').nth(1).unwrap();
        assert!(run.stdout.contains(fingerprint), "{listed} {}", run.stdout);
    }
}

#[test]
fn passwords_from_a_pipe_come_in_order() {
    let guest = Guest::debian();
    let mut command = snf_customize();
    command.arg("apply").arg(&guest.image);
    command.args(["--user-password", "ann:stdin", "--root-password", "stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"first one\nsecond\r\nthird\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(verifies("first one", &hash_of(&guest, "ann")));
    assert!(verifies("second", &hash_of(&guest, "root")));
    guest.check();
}

#[test]
fn a_password_typed_on_a_terminal_is_not_shown() {
    let guest = Guest::debian();
    let program = snf_customize().get_program().to_owned();
    // script(1) gives the program a terminal; the pauses let it switch the echo off.
    let command = format!(
        "(sleep 1; printf 'one\\n'; sleep 0.3; printf 'two\\n'; sleep 0.3; printf 'type this\\n'; \
          sleep 0.3; printf 'type this\\n'; sleep 1) | \
         script -qec \"{} apply {} --root-password prompt\" /dev/null",
        program.to_str().unwrap(),
        guest.image.display()
    );
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("They differ; once more."), "{shown}");
    assert!(shown.contains("customized "), "{shown}");
    assert!(verifies("type this", &hash_of(&guest, "root")));
}

#[test]
fn a_random_password_is_shown_once_and_works() {
    let guest = Guest::debian();
    let run = guest.apply(&["--root-password", "random", "--json"]);
    let document: Value = serde_json::from_str(&run.works().stdout).unwrap();
    let password = document["passwords"][0]["password"].as_str().unwrap();
    assert_eq!(document["passwords"][0]["user"], "root");
    assert_eq!(password.len(), 20);
    assert!(verifies(password, &hash_of(&guest, "root")));
    assert_eq!(run.stdout.matches(password).count(), 1);
    assert!(!run.stderr.contains(password));
}

#[test]
fn json_says_all_there_is_to_say() {
    let guest = Guest::debian();
    let run = guest.apply(&["--hostname", "vm", "--host-keys", "new", "--json"]);
    let document: Value = serde_json::from_str(&run.works().stdout).unwrap();
    assert_eq!(document["program"], "snf-customize");
    assert_eq!(document["command"], "apply");
    assert_eq!(document["result"], "done");
    assert_eq!(document["exit_code"], 0);
    assert_eq!(document["dry_run"], false);
    assert!(document["message"].as_str().unwrap().starts_with("customized "));
    assert!(document["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(document["report"]["fingerprints"].as_array().unwrap().len(), 3);
    let changes = document["report"]["changes"].as_array().unwrap();
    assert!(changes.iter().any(|change| change["path"] == "/etc/hostname"), "{document}");

    let run = guest.apply(&["--user-password", "nobody-here:hash:!", "--json"]);
    run.fails(1, "nobody-here");
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["result"], "failed");
    assert_eq!(document["report"], Value::Null);
}

#[test]
fn a_dry_run_writes_nothing() {
    let guest = Guest::debian();
    let before = guest.bytes();
    let file = guest.file("x", "x");
    let run = guest.apply(&[
        "--dry-run",
        "--root-password",
        "random",
        "--hostname",
        "vm",
        "--host-keys",
        "new",
        "--write",
        &format!("/x:file:{file}"),
    ]);
    run.works();
    assert!(run.last_line().starts_with("dry run: "), "{}", run.stdout);
    assert!(run.stdout.contains("/etc/ssh/ssh_host_rsa_key.pub"), "{}", run.stdout);
    assert!(!run.stdout.contains("passwords"), "{}", run.stdout);
    assert!(guest.bytes() == before);
    // Nor does it need the right to.
    fs::set_permissions(&guest.image, fs::Permissions::from_mode(0o400)).unwrap();
    guest.apply(&["--dry-run", "--hostname", "vm"]).works();
}

#[test]
fn a_seed_gives_the_same_bytes_twice() {
    let guest = Guest::debian();
    let copy = guest.dir.path().join("copy.raw");
    fs::copy(&guest.image, &copy).unwrap();
    let key = guest.file("key.pub", KEY);
    let on = |image: &std::path::Path, seed: &str| {
        let mut command = snf_customize();
        command.arg("apply").arg(image).args(["--seed", seed, "--root-password", "random"]);
        command.args(["--host-keys", "new", "--machine-id", "new", "--hostname", "vm"]);
        command.args(["--ssh-key", &format!("ann:file:{key}")]);
        Run::of(command.env("SOURCE_DATE_EPOCH", "1700000000")).works().stdout.len()
    };
    on(&guest.image, "7");
    on(&copy, "7");
    assert!(guest.bytes() == fs::read(&copy).unwrap());
    on(&copy, "8");
    assert!(guest.bytes() != fs::read(&copy).unwrap());
    guest.check();
}

#[test]
fn a_file_system_without_a_system() {
    let guest = Guest::empty();
    let file = guest.file("x", "content\n");
    guest.apply(&["--write", &format!("/a/b:file:{file}:owner=7,mode=0644")]).works();
    assert_eq!(guest.cat("/a/b"), "content\n");
    assert!(guest.stat("/a/b").contains("User:     7"));
    guest.check();

    let before = guest.bytes();
    guest.apply(&["--hostname", "vm"]).fails(3, "no operating system was found");
    guest.apply(&["--root-password", "hash:!"]).fails(3, "no operating system was found");
    assert!(guest.bytes() == before);
}

#[test]
fn what_is_not_a_file_system() {
    let guest = Guest::empty();
    let file = guest.file("x", "x");
    let zeros = guest.dir.path().join("zeros");
    fs::write(&zeros, vec![0; 1 << 20]).unwrap();
    let mut command = snf_customize();
    command.arg("apply").arg(&zeros).args(["--write", &format!("/x:file:{file}")]);
    let run = Run::of(&mut command);
    assert!(run.code == 3 || run.code == 4, "{run:?}");
    let noise: Vec<u8> =
        (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(&zeros, noise).unwrap();
    let run = Run::of(&mut command);
    assert!(run.code == 3 || run.code == 4, "{run:?}");
}

#[test]
fn a_request_that_cannot_be_met_changes_nothing() {
    let guest = Guest::debian();
    let before = guest.bytes();
    guest.apply(&["--user-password", "bob:hash:!"]).fails(1, "bob");
    guest.apply(&["--ssh-key", &format!("bob:file:{}", guest.file("k", KEY))]).fails(1, "bob");
    guest.apply(&["--write", &format!("/etc:file:{}", guest.file("x", "x"))]).fails(1, "/etc");
    assert!(guest.bytes() == before);
}

#[test]
fn a_standard_output_that_takes_nothing_is_an_error() {
    let guest = Guest::debian();
    let program = snf_customize().get_program().to_str().unwrap().to_owned();
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh", &program]).arg(&guest.image);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // The edit is done; that nobody could be told is told.
    let line = "{ $1 apply $2 --hostname vm --root-password random; echo $? >&2; } | true";
    let (_, error) = shell(line);
    assert!(error.contains("\nerror: cannot write to standard output: Broken pipe"), "{error}");
    assert!(error.contains("; everything else was done\n") && error.ends_with("\n11\n"), "{error}");
    assert!(guest.cat("/etc/hostname").starts_with("vm"));
    for (line, why) in [
        ("$1 apply $2 --hostname vm >/dev/full", "No space left"),
        ("$1 apply $2 --hostname vm >&-", "it is closed"),
        ("$1 apply $2 --hostname vm --json >&-", "it is closed"),
        ("$1 inspect $2 >/dev/full", "No space left"),
        ("$1 check $2 --json >/dev/full", "No space left"),
        ("$1 --help >/dev/full", "No space left"),
        ("$1 --list-tasks >&-", "it is closed"),
        ("$1 completions bash >/dev/full", "No space left"),
    ] {
        let (code, error) = shell(line);
        assert_eq!(code, Some(11), "{line}: {error}");
        assert!(error.contains(why) && error.lines().count() == 1, "{line}: {error}");
    }
    assert_eq!(shell("$1 apply $2 --hostname vm >/dev/null").0, Some(0));
    // Opened for reading, too, as Python's `subprocess.DEVNULL` is.
    assert_eq!(shell("$1 apply $2 --hostname vm 1<>/dev/null").0, Some(0));
    // An error keeps its code.
    assert_eq!(shell("$1 apply $2 --user-password bob:hash:! >/dev/full --json").0, Some(1));
}

#[test]
fn a_full_log_is_an_error() {
    let guest = Guest::debian();
    let password = guest.file("password", "x");
    // Others can read it, which is a warning.
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let line = "$1 apply $2 --root-password file:$3 2>$4";
    let run = |log: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh"]).arg(snf_customize().get_program());
        command.arg(&guest.image).args([&password, log]).output().unwrap().status.code()
    };
    assert_eq!(run("/dev/full"), Some(11));
    assert_eq!(run("/dev/null"), Some(0));
}

#[test]
fn a_password_file_that_others_can_read_is_warned_about() {
    let guest = Guest::debian();
    let file = guest.file("password", "x");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let run = guest.apply(&["--root-password", &format!("file:{file}"), "--json"]);
    let document: Value = serde_json::from_str(&run.works().stdout).unwrap();
    let text = document["warnings"].to_string();
    assert!(text.contains("chmod 600"), "{text}");
    assert!(run.stderr.starts_with("warning: "), "{}", run.stderr);
}

#[test]
fn properties_exclude_and_choose() {
    let guest = Guest::debian();
    let file = guest.file("password", "pw");
    let run = guest.apply(&[
        "--root-password",
        &format!("file:{file}"),
        "--hostname",
        "vm",
        "--properties",
        r#"{"PASSWD_HASHING_METHOD": "sha512", "EXCLUDE_TASK_SELinuxAutorelabel": "yes"}"#,
    ]);
    assert!(run.works().stdout.contains("left out, as the properties say: SELinuxAutorelabel"));
    assert_eq!(guest.cat("/etc/hostname"), "vm\n");
    let hash = hash_of(&guest, "root");
    assert!(hash.starts_with("$6$") && verifies("pw", &hash), "{hash}");
}

#[test]
fn inspect_tells_what_is_there() {
    let guest = Guest::debian();
    let before = guest.bytes();
    let run = Run::of(snf_customize().arg("inspect").arg(&guest.image));
    for part in ["Debian GNU/Linux 12", "ext4", "image", "root (0)", "ann (1000)"] {
        assert!(run.works().stdout.contains(part), "{part}: {}", run.stdout);
    }
    let run = Run::of(snf_customize().arg("inspect").arg(&guest.image).arg("--json"));
    let document: Value = serde_json::from_str(&run.works().stdout).unwrap();
    assert_eq!(document["inspection"]["guest"]["os_family"], "linux");
    assert!(guest.bytes() == before);

    let empty = Guest::empty();
    // A disk without a system is a result, too.
    let run = Run::of(snf_customize().arg("inspect").arg(&empty.image));
    assert!(run.works().stdout.contains("ext4"), "{run:?}");
    assert!(run.last_line().starts_with("no operating system was found"), "{run:?}");
    assert_eq!(run.stderr, "");
    let run = Run::of(snf_customize().arg("inspect").arg(&empty.image).arg("--json"));
    let document: Value = serde_json::from_str(&run.works().stdout).unwrap();
    assert_eq!(document["result"], "done");
    assert_eq!(document["inspection"]["guest"], Value::Null);
    let problem = document["inspection"]["problem"].as_str().unwrap();
    assert!(problem.starts_with("no operating system was found"), "{problem}");

    // A volume that was asked for and is not there is still refused, as is a disk in another format.
    let disk = empty.on_gpt();
    let inspect =
        |options: &[&str]| Run::of(snf_customize().arg("inspect").arg(&disk.image).args(options));
    inspect(&[]).works();
    inspect(&["--root-partition", "7"]).fails(3, "no partition 7, which was asked for");
    fs::write(&disk.image, b"vhdxfile").unwrap();
    inspect(&[]).fails(3, "vhdx");
}

#[test]
fn no_secret_shows_in_proc() {
    let guest = Guest::debian();
    // While it waits for its password, and its arguments and environment can be read.
    let mut command = snf_customize();
    command.arg("apply").arg(&guest.image).args(["--root-password", "stdin"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let command_line = fs::read(format!("/proc/{}/cmdline", child.id())).unwrap();
    child.stdin.take().unwrap().write_all(b"hunter2\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let all = [command_line, output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&all).contains("hunter2"));
    assert!(!guest.bytes().windows(7).any(|window| window == b"hunter2"));
}

/// Sends a signal to a program that waits for its password, and says how it ended.
fn interrupted(guest: &Guest, signal: &str, options: &[&str]) -> Run {
    let mut command = snf_customize();
    command.arg("apply").arg(&guest.image).args(["--root-password", "stdin"]).args(options);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Held open, so that it goes on waiting.
    let stdin = child.stdin.take();
    // It is ready when it has its thread for signals.
    let tasks = format!("/proc/{}/task", child.id());
    for _ in 0..500 {
        if fs::read_dir(&tasks).unwrap().count() > 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    Run {
        code: output.status.code().expect("ended by the signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_signal_before_the_first_write_ends_the_run() {
    let guest = Guest::debian();
    let before = guest.bytes();
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        interrupted(&guest, signal, &[]).fails(9, "interrupted");
    }
    let run = interrupted(&guest, "TERM", &["--json"]);
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(document["result"], "interrupted");
    assert!(guest.bytes() == before);
}

#[test]
fn a_write_that_fails_half_way_is_told_and_can_be_mended() {
    let mut seen = false;
    for limit in [100, 12_000, 20_000, 32_000, 36_000] {
        let guest = Guest::debian();
        // The limit of file sizes, in blocks of 512 bytes: writes beyond it fail.
        let script = format!("ulimit -f {limit}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(snf_customize().get_program());
        command.arg("apply").arg(&guest.image).args(["--hostname", "vm", "--host-keys", "new"]);
        let run = Run::of(&mut command);
        match run.code {
            6 => {
                run.fails(6, "writing had begun");
                seen = true;
            }
            // All that it writes lies below the limit.
            0 => {}
            _ => panic!("{limit}: {run:?}"),
        }
        // The next run finishes or drops what this one left, and the image is whole.
        guest.apply(&["--hostname", "again"]).works();
        assert_eq!(guest.cat("/etc/hostname"), "again\n");
        guest.check();
    }
    assert!(seen, "no limit let some writes through and stopped others");
}
