//! The reading commands, compared with what the kernel and the field's own tools show of the same disk.
//! Needs root and loop devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::cli_support::{Guest, Run, snf_customize};

/// A guest with everything that a walk may meet.
fn rich() -> Guest {
    Guest::debian_with(|tree| {
        let put = |path: &str, content: &[u8], mode: u32| {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        put("srv/data/big", &(0..3_000_000u32).map(|i| (i / 7) as u8).collect::<Vec<_>>(), 0o640);
        put("srv/data/empty", b"", 0o600);
        put("srv/data/tool", b"#!/bin/sh\n", 0o4755);
        put("srv/data/.hidden", b"h\n", 0o644);
        put("srv/data/Übung für Bob.txt", b"u\n", 0o644);
        put(&format!("srv/data/{}/{}", "d".repeat(120), "f".repeat(200)), b"long\n", 0o644);
        let mut sparse = vec![0; 200_000];
        sparse[150_000..150_010].fill(9);
        put("srv/data/sparse", &sparse, 0o644);
        fs::hard_link(tree.join("srv/data/big"), tree.join("srv/data/twin")).unwrap();
        symlink("../data/big", tree.join("srv/data/link")).unwrap();
        chown(tree.join("srv/data/tool"), Some(1000), Some(42)).unwrap();
        chown(tree.join("srv/data/big"), Some(70_000), Some(4_000_000_000)).unwrap();
        fs::set_permissions(tree.join("srv/data/tool"), fs::Permissions::from_mode(0o4755))
            .unwrap();
        for (name, kind) in
            [("fifo", &["p"][..]), ("null", &["c", "1", "3"]), ("disk", &["b", "8", "300"])]
        {
            let path = tree.join("srv/data").join(name);
            let made = Command::new("mknod").arg(&path).args(kind).status().unwrap();
            assert!(made.success(), "this test needs root and mknod");
        }
        let set = Command::new("setfattr")
            .args(["-n", "user.colour", "-v", "deep blue"])
            .arg(tree.join("srv/data/tool"))
            .status();
        // mke2fs -d takes attributes along where this machine's own file system has them.
        assert!(set.expect("this test needs setfattr (attr)").success());
    })
}

fn look(guest: &Guest, command: &str, arguments: &[&str]) -> Run {
    Run::of(snf_customize().arg(command).arg(&guest.image).args(arguments))
}

fn raw(guest: &Guest, command: &str, arguments: &[&str]) -> Output {
    snf_customize().arg(command).arg(&guest.image).args(arguments).output().unwrap()
}

/// The image as this machine's kernel shows it, read-only.
struct Mounted(PathBuf);

impl Mounted {
    fn new(guest: &Guest) -> Self {
        let point = guest.dir.path().join("mnt");
        fs::create_dir_all(&point).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,ro,noload"]).arg(&guest.image).arg(&point);
        assert!(mount.status().unwrap().success(), "this test needs root, mount and loop devices");
        Self(point)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn shell(script: &str, dir: &Path) -> String {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Path, kind, mode, owner, size, time of files, links and device numbers of a tree.
const LISTING: &str = r#"find . -mindepth 1 ! -name lost+found -printf '%P %y %m %U %G %l ' \
    \( -type f -printf '%s %T@ %n' -o -type d -printf ' ' -o -printf '%n' \) -printf '\n' | sort"#;

#[test]
fn find_and_ls_see_what_the_kernel_sees() {
    let guest = rich();
    let before = guest.bytes();
    let found = look(&guest, "find", &["-0"]).works().stdout.clone();
    let long = look(&guest, "ls", &["-ln", "/srv/data"]).works().stdout.clone();
    let tools = look(&guest, "find", &["--perm", "4000", "--type", "f"]).works().stdout.clone();
    let big =
        look(&guest, "find", &["/srv", "--size", "+2M", "--name", "b*"]).works().stdout.clone();
    let flat = look(&guest, "find", &["/srv", "--max-depth", "1"]).works().stdout.clone();
    let named = look(&guest, "find", &["/", "--user", "ann", "--type", "f"]).works().stdout.clone();
    assert!(guest.bytes() == before);
    let mounted = Mounted::new(&guest);
    let mut ours: Vec<&str> = found.split_terminator('\0').collect();
    ours.sort_unstable();
    let theirs = shell("find . | sed 's|^\\.$|/|; s|^\\./|/|' | LC_ALL=C sort", &mounted.0);
    assert_eq!(ours, theirs.lines().collect::<Vec<_>>());
    assert_eq!(tools, "/srv/data/tool\n");
    assert_eq!(big, "/srv/data/big\n");
    assert_eq!(flat, "/srv\n/srv/data\n");
    assert_eq!(named, "/srv/data/tool\n");
    let theirs = shell(
        "cd srv/data; TZ=UTC LC_ALL=C ls -lanN --time-style='+%Y-%m-%d %H:%M' | sed '1d; / \\.$/d; / \\.\\.$/d'",
        &mounted.0,
    );
    let squeezed = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(squeezed(&long), squeezed(&theirs));
}

#[test]
fn files_come_out_as_they_are() {
    let guest = rich();
    let target = tempfile::tempdir().unwrap();
    let all = target.path().to_str().unwrap();
    look(&guest, "get", &["--all", "/srv", "/etc", all]).works();
    let tar = target.path().join("srv.tar");
    look(&guest, "tar-out", &["/srv", tar.to_str().unwrap()]).works();
    let packed = raw(&guest, "tar-out", &["/srv"]);
    assert!(packed.status.success() && packed.stdout == fs::read(&tar).unwrap());
    let unpacked = target.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let list = shell("tar --xattrs --xattrs-include='*' -xpf ../srv.tar 2>&1", &unpacked);
    assert_eq!(list, "");
    let bytes = raw(&guest, "cat", &["/srv/data/link", "/srv/data/.hidden"]);
    let mounted = Mounted::new(&guest);
    for name in ["srv", "etc"] {
        let ours = shell(LISTING, &target.path().join(name));
        assert_eq!(ours, shell(LISTING, &mounted.0.join(name)), "get {name}");
        let sums = "find . -type f -exec sha256sum {} + | sort";
        assert_eq!(shell(sums, &target.path().join(name)), shell(sums, &mounted.0.join(name)));
    }
    assert_eq!(shell(LISTING, &unpacked), shell(LISTING, &mounted.0.join("srv")), "tar-out");
    let blue = "getfattr --only-values -n user.colour data/tool";
    assert_eq!(shell(blue, &unpacked), "deep blue");
    assert_eq!(shell(blue, &target.path().join("srv")), "deep blue");
    let twins = "stat -c %i data/big data/twin | uniq | wc -l";
    assert_eq!(shell(twins, &unpacked).trim(), "1");
    assert_eq!(shell(twins, &target.path().join("srv")).trim(), "1");
    let mut expected = fs::read(mounted.0.join("srv/data/big")).unwrap();
    expected.extend(b"h\n");
    assert!(bytes.status.success() && bytes.stdout == expected);
}

#[test]
fn what_is_not_copied_is_said() {
    let guest = rich();
    let target = tempfile::tempdir().unwrap();
    let dir = target.path().to_str().unwrap();
    let run = look(&guest, "get", &["/srv/data", dir]);
    run.fails(1, "3 special files not copied");
    assert_eq!(
        fs::metadata(target.path().join("data/tool")).unwrap().permissions().mode() & 0o7777,
        0o755
    );
    assert!(target.path().join("data/big").is_file() && !target.path().join("data/null").exists());
    // Nothing local is replaced without being asked for.
    look(&guest, "get", &["/etc/hostname", dir]).works();
    look(&guest, "get", &["/etc/hostname", dir]).fails(8, "--overwrite");
    look(&guest, "get", &["--overwrite", "/etc/hostname", dir]).works();
    let one = target.path().join("name");
    look(&guest, "get", &["/etc/hostname", one.to_str().unwrap()]).works();
    assert_eq!(fs::read_to_string(one).unwrap(), "image\n");
    look(&guest, "get", &["/etc/hostname", "/etc/hosts", "/nonexistent/x"])
        .fails(8, "is no directory");
    look(&guest, "get", &["/none", dir]).fails(1, "/none: no such file");
    look(&guest, "cat", &["/etc"]).fails(1, "is a directory");
    wrong(&look(&guest, "ls", &["etc"]), "does not begin with '/'");
    wrong(&look(&guest, "tar-out", &["etc"]), "does not begin with '/'");
    let nowhere = look(&guest, "get", &["/etc/hostname", "/nonexistent/x"]);
    nowhere.fails(8, "cannot write /nonexistent/x: there is no directory /nonexistent");
    look(&guest, "tar-out", &["/etc", "/nonexistent/x"]).fails(8, "no directory /nonexistent");
    look(&guest, "tar-out", &["/etc/hostname"]).fails(1, "not a directory");
    look(&guest, "tar-out", &["/nosuch"]).fails(1, "/nosuch: no such file");
    assert_eq!(look(&guest, "ls", &["-d", "/etc"]).works().stdout, "/etc\n");
}

/// The command line itself is wrong: clap's sentence, and its tip after that.
#[track_caller]
fn wrong(run: &Run, part: &str) {
    assert!(run.code == 2 && run.stderr.contains(part), "{part}: {run:?}");
}

/// A link of the guest never leads a copy out of its directory.
#[test]
fn a_copy_stays_in_its_directory() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    let guest = Guest::debian_with(|tree| {
        fs::create_dir_all(tree.join("srv/x")).unwrap();
        fs::write(tree.join("srv/x/file"), "theirs").unwrap();
        symlink(&victim, tree.join("srv/link")).unwrap();
    });
    let target = tempfile::tempdir().unwrap();
    fs::create_dir(target.path().join("srv")).unwrap();
    // Somebody has put links where the copy wants to go.
    symlink(outside.path(), target.path().join("srv/x")).unwrap();
    let dir = target.path().to_str().unwrap();
    look(&guest, "get", &["/srv", dir]).fails(8, "cannot write");
    look(&guest, "get", &["--overwrite", "/srv", dir]).fails(8, "cannot write");
    fs::remove_file(target.path().join("srv/x")).unwrap();
    fs::create_dir(target.path().join("srv/x")).unwrap();
    symlink(&victim, target.path().join("srv/x/file")).unwrap();
    look(&guest, "get", &["--overwrite", "/srv", dir]).works();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    assert_eq!(fs::read_to_string(target.path().join("srv/x/file")).unwrap(), "theirs");
    assert!(!outside.path().join("file").exists());
}

#[test]
fn two_disks_are_compared() {
    let (old, new) = (rich(), rich());
    fs::copy(&old.image, &new.image).unwrap();
    let compare = |options: &[&str]| {
        Run::of(snf_customize().arg("diff").arg(&old.image).arg(&new.image).args(options))
    };
    assert_eq!(compare(&["--exit-code", "--times"]).works().stdout, "");
    let motd = new.file("motd", "changed\n");
    new.apply(&[
        "--hostname",
        "other",
        "--machine-id",
        "keep",
        "--host-keys",
        "keep",
        "--write",
        &format!("/etc/motd:file:{motd}:owner=root,mode=0600"),
        "--write",
        &format!("/srv/new:file:{motd}:mode=0644"),
    ])
    .works();
    let run = compare(&[]);
    let text = &run.works().stdout;
    for line in [
        "! /etc/hostname: content",
        "! /etc/hosts: content",
        "! /etc/motd: content, mode 0644 -> 0600",
        "+ /srv/new",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert_eq!(text.lines().count(), 4, "{text}");
    assert_eq!(compare(&["--exit-code"]).code, 1);
    assert_eq!(compare(&["--path", "/usr", "--exit-code"]).works().stdout, "");
    let json = compare(&["--json", "--path", "/srv"]).works().stdout.clone();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["differences"][0]["path"], "/srv/new");
    assert_eq!(json["differences"][0]["change"], "added");
}

#[test]
fn a_disk_of_data_is_read_as_well() {
    let empty = Guest::empty();
    assert!(look(&empty, "ls", &[]).works().stdout.contains("lost+found"));
    let disk = Guest::debian().on_gpt();
    assert_eq!(look(&disk, "cat", &["/etc/hostname"]).works().stdout, "image\n");
    assert_eq!(
        look(&disk, "cat", &["--partition", "2", "/etc/hostname"]).works().stdout,
        "image\n"
    );
    look(&disk, "cat", &["--partition", "1", "/x"]).fails(3, "partition 1");
    look(&disk, "cat", &["--partition", "7", "/x"]).fails(3, "no partition 7");
    let text = look(&disk, "df", &[]).works().stdout.clone();
    assert!(text.contains("ext4") && text.contains("64 MiB"), "{text}");
    let json = look(&disk, "df", &["--json"]).works().stdout.clone();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["file_systems"][0]["mounted_on"], "/");
    let json = look(&disk, "stat", &["--json", "/etc/os-release"]).works().stdout.clone();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["files"][0]["target"], "../usr/lib/os-release");
    assert!(look(&disk, "stat", &["/etc/shadow"]).works().stdout.contains("0640 -rw-r-----"));
}

#[test]
fn fingerprints_are_those_of_ssh_keygen() {
    let guest = Guest::debian();
    guest.apply(&["--host-keys", "new"]).works();
    let ours = look(&guest, "fingerprints", &[]).works().stdout.clone();
    let theirs: String = ["ecdsa", "ed25519", "rsa"]
        .map(|name| {
            let key = guest.cat(&format!("/etc/ssh/ssh_host_{name}_key.pub"));
            let path = guest.file(name, &key);
            let output = Command::new("ssh-keygen").args(["-lf", &path]).output();
            String::from_utf8(output.expect("this test needs ssh-keygen").stdout).unwrap()
        })
        .concat();
    assert_eq!(ours, theirs);
    look(&Guest::empty(), "fingerprints", &[]).fails(1, "no SSH host keys");
}

/// The names in a hostile image give no orders to a terminal and forge no lines.
#[test]
fn names_are_shown_safely() {
    let guest = Guest::debian_with(|tree| {
        fs::create_dir_all(tree.join("srv")).unwrap();
        fs::write(tree.join("srv/a\u{1b}[31m\nb"), "").unwrap();
    });
    for arguments in [&["ls", "/srv"][..], &["ls", "-lR", "/srv"], &["find", "/srv"]] {
        let text = look(&guest, arguments[0], &arguments[1..]).works().stdout.clone();
        assert!(text.contains("a\\u{1b}[31m\\nb") && !text.contains('\u{1b}'), "{text:?}");
    }
}

/// Output that nobody gets is no success, for any command.
#[test]
fn a_lost_output_is_told_by_the_exit_code() {
    let guest = rich();
    let other = guest.file("other.img", "");
    fs::copy(&guest.image, &other).unwrap();
    let program = snf_customize().get_program().to_str().unwrap().to_owned();
    let run = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh", &program]).arg(&guest.image).arg(&other);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for words in [
        "ls $2 /etc",
        "ls --json $2 /etc",
        "ls -l -R $2 /",
        "cat $2 /srv/data/big",
        "cat $2 /etc/hostname",
        "tar-out $2 /srv -",
        "df $2",
        "df --json $2",
        "find $2 /",
        "stat $2 /etc",
        "stat --json $2 /etc",
        "fingerprints --json $2",
        "diff --json $2 $3",
        "inspect $2",
        "inspect --json $2",
        "check $2",
        "check --json $2",
        "--list-tasks",
        "--list-exit-codes",
        "completions bash",
        "--version",
    ] {
        let (code, error) = run(&format!("$1 {words} >/dev/full"));
        assert_eq!(code, Some(11), "{words}: {error}");
        assert!(error.contains("cannot write to standard output: No space left"), "{error}");
        let (code, error) = run(&format!("$1 {words} >&-"));
        assert_eq!(code, Some(11), "{words}: {error}");
        assert!(error.contains("standard output: it is closed"), "{words}: {error}");
        // The reader goes before the first byte.
        let line = format!("{{ sleep 0.1; $1 {words}; echo $? >&4; }} 4>&2 | true");
        let (_, error) = run(&line);
        assert!(error.ends_with("11\n"), "{words}: {error}");
        let (code, error) = run(&format!("$1 {words} >/dev/null"));
        assert_eq!(code, Some(0), "{words}: {error}");
    }
    // A reader that has seen enough is not worth a message.
    let (_, error) = run("{ $1 cat $2 /srv/data/big; echo $? >&4; } 4>&2 | head -c 1 >/dev/null");
    assert_eq!(error, "11\n");
    // An archive in a file has the file's name in its error.
    let (code, error) = run("$1 tar-out $2 /srv /dev/full --overwrite");
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("cannot write /dev/full: no space left"), "{error}");
    // A difference is an answer only if it is read.
    fs::write(&other, fs::read(&guest.image).unwrap()).unwrap();
    let (code, _) = run("$1 apply $3 --hostname other >/dev/null && $1 diff --exit-code $2 $3");
    assert_eq!(code, Some(1));
    let (code, error) = run("$1 diff --exit-code $2 $3 >/dev/full");
    assert_eq!(code, Some(11), "{error}");
}
