//! The command line tool before it touches an image: options, input files, locks, the disk
//! itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::cli_support::{Guest, Run, snf_customize};

#[test]
fn nothing_and_help_and_version() {
    let run = Run::of(&mut snf_customize());
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("Usage: snf-customize"));
    for arguments in [&["--help"][..], &["apply", "--help"], &["inspect", "--help"], &["-h"]] {
        let run = Run::of(snf_customize().args(arguments));
        assert_eq!(run.code, 0);
        assert!(run.stdout.contains("Exit codes:") && run.stdout.contains("70  "), "{run:?}");
    }
    let run = Run::of(snf_customize().arg("--version"));
    assert!(run.works().stdout.starts_with("snf-customize "));
}

#[test]
fn tasks_and_completions() {
    let run = Run::of(snf_customize().arg("--list-tasks"));
    run.works();
    for task in ["30  MountImage", "50  AssignHostname", "60  EnforcePersonality"] {
        assert!(run.stdout.contains(task), "{}", run.stdout);
    }
    let run = Run::of(snf_customize().arg("--list-exit-codes"));
    let codes: Vec<serde_json::Value> = serde_json::from_str(&run.works().stdout).unwrap();
    assert!(codes.iter().any(|entry| entry["code"] == 7 && entry["word"] == "busy"));
    assert!(codes.iter().all(|entry| entry["code"].as_u64().unwrap() < 100));
    for shell in ["bash", "zsh", "fish"] {
        let run = Run::of(snf_customize().args(["completions", shell]));
        // The script asks the program, which knows the options.
        assert!(run.works().stdout.contains("COMPLETE"), "{shell}");
    }
}

#[test]
fn bad_selectors_do_not_repeat_what_may_be_a_password() {
    let guest = Guest::empty();
    for (options, part) in [
        (&["--root-password", "hunter2"][..], "never as itself"),
        (&["--root-password", "hash:hunter2"], "is not a crypt(3) hash"),
        (&["--user-password", "ann:hunter2"], "--user-password ann"),
        (&["--user-password", "hunter2"], "NAME:SELECTOR"),
        (&["--ssh-key", "ann:/x.pub"], "file:PATH"),
        (&["--write", "/x"], "GUESTPATH:file:PATH"),
        (&["--write", "x:file:/y"], "does not begin with '/'"),
        (&["--machine-id", "x"], "--machine-id"),
        (&["--hostname", "x", "--properties", "{"], "--properties is not a JSON object"),
        (&[], "nothing to change"),
    ] {
        let run = guest.apply(options);
        run.fails(2, part);
        assert!(!format!("{run:?}").contains("hunter2"), "{run:?}");
    }
    for options in [&["--seed", "x"][..], &["--root-partition", "0"], &["--bogus"]] {
        assert_eq!(guest.apply(options).code, 2);
    }
}

#[test]
fn input_files_that_cannot_be_used() {
    let guest = Guest::empty();
    let missing = guest.dir.path().join("missing");
    let missing = missing.to_str().unwrap();
    let directory = guest.dir.path().to_str().unwrap();
    let empty = guest.file("empty", "\n");
    let long = guest.file("long", &"x".repeat(5000));
    let private = guest.file("private", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let broken = guest.file("broken.json", "[{\"path\": \"etc/x\", \"contents\": \"\"}]");
    let before = guest.bytes();
    for (option, value, part) in [
        ("--root-password", format!("file:{missing}"), "no such file or directory"),
        ("--root-password", format!("file:{directory}"), "it is a directory"),
        ("--root-password", format!("file:{empty}"), "the password for root is empty"),
        ("--root-password", format!("file:{long}"), "4096 is the most"),
        ("--user-password", format!("ann:file:{missing}"), "no such file"),
        ("--ssh-key", format!("ann:file:{missing}"), "cannot use key file"),
        ("--ssh-key", format!("ann:file:{empty}"), "there is no key in it"),
        ("--ssh-key", format!("ann:file:{private}"), "belongs to a private key"),
        ("--write", format!("/x:file:{missing}"), "cannot use content file"),
        ("--personality", missing.to_owned(), "cannot use personality file"),
        ("--personality", broken, "personality[0]: path does not begin with '/'"),
    ] {
        guest.apply(&[option, &value]).fails(8, part);
    }
    assert!(guest.bytes() == before);
}

#[test]
fn standard_input_that_ends_too_early() {
    let guest = Guest::empty();
    let mut command = snf_customize();
    command.arg("apply").arg(&guest.image);
    command.args(["--root-password", "stdin"]).stdin(Stdio::null());
    Run::of(&mut command).fails(8, "standard input ends before the line");
}

#[test]
fn no_terminal_to_ask_on() {
    let guest = Guest::empty();
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(snf_customize().get_program());
    command.arg("apply").arg(&guest.image).args(["--root-password", "prompt"]);
    Run::of(command.stdin(Stdio::null())).fails(8, "there is no terminal");
}

#[test]
fn what_is_no_disk() {
    let guest = Guest::empty();
    let on = |path: &str| Run::of(snf_customize().args(["apply", path, "--hostname", "x"]));
    on("/nonexistent/disk").fails(5, "no such file or directory");
    on(guest.dir.path().to_str().unwrap()).fails(5, "it is a directory");
    on("/dev/null").fails(5, "neither a regular file nor a block device");
    on(&guest.file("nothing", "")).fails(5, "it is empty");
    for word in ["apply", "inspect"] {
        let mut command = snf_customize();
        command.args([word, "/nonexistent/disk"]);
        if word == "apply" {
            command.args(["--hostname", "x"]);
        }
        let run = Run::of(command.arg("--json"));
        assert_eq!(run.code, 5);
        let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(document["result"], "device");
        assert_eq!(document["exit_code"], 5);
        assert!(document["message"].as_str().unwrap().contains("no such file"), "{document}");
    }
}

#[test]
fn a_disk_in_use_is_left_alone() {
    let guest = Guest::empty();
    let file = guest.file("x", "x");
    let before = guest.bytes();
    // Held as another run of ours, or udev, holds it.
    let mut holder = Command::new("flock")
        .arg(&guest.image)
        .args(["sh", "-c", "echo ready; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs flock (util-linux)");
    let mut line = String::new();
    let mut out = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    guest.apply(&["--write", &format!("/x:file:{file}")]).fails(7, "is in use");
    holder.stdin.take().unwrap().write_all(b"\n").unwrap();
    holder.wait().unwrap();
    assert!(guest.bytes() == before);
    guest.apply(&["--write", &format!("/x:file:{file}")]).works();
}

#[test]
fn a_file_without_permission() {
    // Root may read everything: this test says something only for other users.
    let guest = Guest::empty();
    fs::set_permissions(&guest.image, fs::Permissions::from_mode(0o000)).unwrap();
    let run = guest.apply(&["--machine-id", "new"]);
    if fs::read(&guest.image).is_err() {
        run.fails(5, "permission denied");
    }
}

#[test]
fn a_bad_source_date_epoch() {
    let guest = Guest::empty();
    let mut command = snf_customize();
    command.arg("apply").arg(&guest.image).args(["--machine-id", "new"]);
    Run::of(command.env("SOURCE_DATE_EPOCH", "yesterday")).fails(2, "SOURCE_DATE_EPOCH");
}

#[test]
fn operations_of_sysprep() {
    use crate::cli_support::{Guest, Run, snf_customize};
    let list = Run::of(snf_customize().arg("--list-operations"));
    assert!(
        list.works().stdout.contains("* machine-id ") && list.stdout.contains("  firewall-rules ")
    );
    let guest = Guest::debian();
    let before = guest.bytes();
    let sysprep =
        |options: &[&str]| Run::of(snf_customize().arg("sysprep").arg(&guest.image).args(options));
    sysprep(&["--operations", "logs"]).fails(2, "no operation 'logs'");
    sysprep(&["--operations", "fs-uuids"]).fails(2, "fs-uuids cannot be done");
    sysprep(&["--sysprep", "utmp"]).fails(2, "itself has --operations");
    sysprep(&["--operations", "--dry-run"]).fails(2, "is missing before --dry-run");
    sysprep(&["--host-keys", "keep"]).fails(2, "take the operation out of the list");
    sysprep(&["--operations", "-customize", "--hostname", "x"]).fails(2, "leave out -customize");
    assert!(list.stdout.contains("new UUIDs of the file systems (not done here)"), "{list:?}");
    let help = |command: &str| Run::of(snf_customize().args([command, "--help"])).stdout;
    assert!(!help("sysprep").contains("--sysprep <"));
    let deploy = help("deploy");
    assert!(deploy.contains("<IMAGE> <TARGET>") && !deploy.contains("--dry-run\n"), "{deploy}");
    let ls = help("ls");
    assert!(ls.contains("-d, --directory") && ls.contains("--domain"), "{ls}");
    let dry = sysprep(&["--dry-run"]);
    assert!(dry.works().stdout.contains("/etc/ssh/ssh_host_rsa_key"), "{dry:?}");
    assert!(guest.bytes() == before);
    // Files that the run makes are not removed again.
    let keys =
        sysprep(&["--host-keys", "new", "--operations", "-logfiles", "--hostname", "template"]);
    assert!(!keys.works().stderr.contains("warning"), "{keys:?}");
    assert!(guest.cat("/etc/ssh/ssh_host_ed25519_key").contains("PRIVATE KEY"));
    assert_eq!(guest.cat("/etc/machine-id"), "");
    assert_eq!(guest.cat("/etc/hostname"), "template\n");
    guest.check();
    let again = sysprep(&["--operations", "machine-id,tmp-files"]);
    assert!(again.works().stdout.contains("nothing changed"), "{again:?}");
}
