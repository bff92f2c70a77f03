//! Nothing that was typed is ignored: what cannot take effect is an error, or a warning where the rest stands.

use std::fs;

use crate::cli_support::{Guest, Run, snf_customize};

/// An error: exit code, and what its sentence has in it.
fn refused(guest: &Guest, code: i32, options: &[&str], part: &str) {
    let before = guest.bytes();
    let run = guest.apply(options);
    assert_eq!(run.code, code, "{options:?}: {run:?}");
    assert!(run.stderr.contains(part), "{options:?}: {part}: {}", run.stderr);
    assert!(before == guest.bytes(), "{options:?} wrote");
}

/// A warning: the run goes on.
fn warned(guest: &Guest, options: &[&str], part: &str) {
    let options: Vec<&str> = options.iter().copied().chain(["--dry-run"]).collect();
    let run = guest.apply(&options);
    assert_eq!(run.code, 0, "{options:?}: {run:?}");
    let warning = |line: &&str| line.starts_with("warning: ") && line.contains(part);
    assert!(run.stderr.lines().any(|line| warning(&line)), "{options:?}: {part}: {}", run.stderr);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let guest = Guest::debian();
    let disk = guest.image.to_str().unwrap().to_owned();
    let host = "--hostname=x";
    for (options, part) in [
        (&[host, "--no-move"][..], "--no-move has no effect"),
        (&["--no-follow", "--delete=/etc/motd"], "--no-follow has no effect"),
        (&[host, "--offline-password"], "--offline-password has no effect"),
        (&[host, "--properties={\"EXCLUDE_TASK_AssignHostname\": 1}"], "excludes it"),
        (&["--mkdir=/a", "--properties={\"EXCLUDE_TASK_EditGuest\": 1}"], "--mkdir asks for"),
        (&["--mkdir=/a", "--properties={\"EXCLUDE_TASK_MountImage\": 1}"], "MountImage"),
        (&[host, "--properties={\"EXCLUDE_ALL_TASKS\": 1}"], "excludes it"),
        (&[host, "--properties={\"EXCLUDE_TASK_Foo\": 1}"], "there is no task"),
        (&[host, "--properties={\"OSFAMILY\": \"beos\"}"], "OSFAMILY"),
        (&[host, "--properties={\"A\": 1, \"a\": 2}"], "given twice"),
        (&[host, "--properties=OSFAMILY=linux"], "--properties"),
        (&[host, "--hostname=y"], "cannot be used multiple times"),
        (&["--write=/a:text:x", "--write=/a:text:y"], "given twice"),
        (&["--write=/a:text:x:mode=0600"], "--chmod"),
        (&["--write=/a:file:/b:owner=root:mode=0644"], "with commas between"),
        (&["--write=/a:file:/b,mode=0600"], "with commas between"),
        (&["--timezone=UTC", "--timezone=Asia/Tokyo"], "set the same thing"),
        (&["--enable=ssh.service", "--disable=ssh"], "contradict each other"),
        (&["--add-user=web", "--add-user=web"], "--add-user web is given twice"),
        (&["--root-password=random", "--user-password=root:random"], "given twice"),
        (&["--root-password=hunter2"], "never as itself"),
        (&["--user-password=stdin"], "NAME:SELECTOR"),
        (&[host, "--helper=/x"], "--vm"),
        (&[host, "--diff", "--vm"], "exclude each other"),
        (&[host, "--disk", &disk], "twice"),
        (&["--machine-id=00000000000000000000000000000000"], "--machine-id"),
        (&["--machine-id=fresh"], "--machine-id"),
        (&["--grow=0"], "--grow"),
        (&["--size=big"], "--size"),
        (&["--sysprep=nosuch"], "nosuch"),
        (&[host, "--luks-key=2:random"], "--luks-key"),
        (&[host, "--root-partition=0"], "--root-partition"),
        (&["--mkdir=srv"], "does not begin with '/'"),
        (&["--mkdir=/a:mode=9"], "mode '9'"),
        (&["--mkdir=/a:colour=red"], "'colour' is no attribute"),
        (&["--write=/a:file:/b:own=x"], "'own' is no attribute"),
        (&["--chown=/etc/motd"], "--chown"),
        (&["--edit=/etc/motd:s/(/x/"], "--edit"),
        (&["--timezone=../x"], "--timezone"),
        (&["--edit=/etc/motd:s/(/x/"], "the pattern is not valid: "),
        (&["--hostname="], "--hostname: the host name \"\" is empty"),
        (&["--hostname=a_b"], "--hostname: "),
        (&["--quiet", "--verbose", host], "cannot be used with"),
        (&["--seed=1"], "nothing to change"),
        (&["--dry-run"], "nothing to change"),
    ] {
        refused(&guest, 2, options, part);
    }
}

#[test]
fn files_that_make_no_sense_are_refused() {
    let guest = Guest::debian();
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFn00000000000000000000000000000000000000000 me\n";
    for (option, content, part) in [
        ("--root-password=file:", "one\ntwo\n", "more than one line"),
        ("--root-password=file:", "\n", "is empty"),
        ("--root-password=file:", "a\0b\n", "NUL"),
        ("--ssh-key=root:file:", "", "there is no key"),
        ("--ssh-key=root:file:", "# nothing\n", "there is no key"),
        ("--ssh-key=root:file:", "hello world\n", "names no kind of key"),
        ("--ssh-key=root:file:", &key[..59], "not whole base64"),
        ("--ssh-key=root:file:", &key.replace("ssh-ed25519", "rsa"), "names no kind"),
        ("--ssh-key=root:file:", &key.replace("ssh-ed25519", "ssh-rsa"), "of another kind"),
        ("--ssh-key=root:file:", &format!("{key}broken\n"), "line 2"),
        ("--ssh-key=root:file:", "-----BEGIN OPENSSH PRIVATE KEY-----\n", "private key"),
        ("--personality=", "[{\"path\": \"x\"}]", "cannot use personality file"),
        ("--personality=", "[{\"path\": \"/x\", \"contents\": \"\", \"colour\": 1}]", "colour"),
        ("--file=", "hostnam = 'x'\n", "there is no key hostnam; did you mean hostname?"),
        ("--file=", "hostname = 3\n", "line 1, column 12: hostname is a text"),
        ("--file=", "root-password = 'hunter'\n", "line 1, column 17: root-password: a password"),
        ("--file=", "\nmachine-id = 'foo'\n", "line 2, column 14: machine-id: 'foo' is none of"),
        ("--file=", "[[edits]]\nchmod = {path = '/x', mode = 644}\n", "a mode is a text"),
        ("--file=", "[[edits]]\nmkdir = { path = '/a', mod = '0755' }\n", "unknown field `mod`"),
        ("--file=", "[[edits]]\nwrite = { path = '/a' }\n", "one of text, base64 and file"),
        ("--file=", "", "nothing to change"),
    ] {
        // A key without its end is one more kind of damage.
        let name = format!("{option}{}", guest.file("input", content));
        let code = if part == "nothing to change" { 2 } else { 8 };
        refused(&guest, code, &[&name], part);
    }
    let text = guest.file("motd", "hello\n");
    let empty = guest.file("empty", "");
    for (option, part) in [
        ("--upload=/nonexistent:/a", "content file /nonexistent: no such file"),
        ("--copy-in=/nonexistent:/srv", "local file /nonexistent: no such file"),
        ("--tar-in=/nonexistent:/srv", "archive /nonexistent: no such file"),
        ("--firstboot=/nonexistent", "/nonexistent: no such file"),
        (&format!("--tar-in={text}:/srv"), "it is not a tar archive"),
        (&format!("--firstboot={empty}"), "it is empty"),
    ] {
        refused(&guest, 8, &[option], part);
        let run = guest.apply(&[option]);
        assert!(!run.stderr.contains("os error"), "{}", run.stderr);
    }
}

#[test]
fn what_this_guest_cannot_have_is_refused() {
    let guest = Guest::debian();
    let key = guest.file("product", "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE\n");
    let key = format!("--product-key=file:{key}");
    let answer = format!("--answer-file={}", guest.file("answer.xml", "<unattend/>"));
    for (code, options, part) in [
        (3, &[&*answer][..], "Windows"),
        (3, &[&*key], "Windows"),
        (3, &["--time-zone=GMT Standard Time"], "Windows"),
        (1, &["--user-password=bob:hash:!"], "bob"),
        (1, &["--lock-user=bob"], "bob"),
        (1, &["--unlock-user=ann"], "ann"),
        (1, &["--chown=bob:/etc/motd"], "bob"),
        (1, &["--mkdir=/srv/x:owner=bob"], "bob"),
        (1, &["--mkdir=/srv/x:owner=web", "--add-user=web"], "--add-user web comes later"),
        (1, &["--locale=nosuch"], "nosuch is no locale"),
        (1, &["--enable=nosuch.service"], "nosuch"),
        (1, &["--default-target=nosuch.target"], "nosuch"),
        (1, &["--truncate=/nosuch"], "/nosuch"),
        (1, &["--append-line=/nosuch:x"], "/nosuch"),
        (1, &["--chmod=0644:/nosuch"], "/nosuch"),
        (1, &["--move=/nosuch:/x"], "/nosuch"),
        (1, &["--copy=/nosuch:/x"], "/nosuch"),
        (1, &["--write=/etc:text:x"], "directory"),
        (1, &["--symlink=x:/etc/motd"], "/etc/motd"),
        (3, &["--hostname=x", "--root-partition=2"], "no partition 2"),
        (1, &["--write=C:\\x:text:y"], "Windows"),
    ] {
        refused(&guest, code, options, part);
    }
}

#[test]
fn what_has_no_effect_is_said() {
    let guest = Guest::debian_with(|tree| {
        fs::write(tree.join("etc/fstab"), "tmpfs /tmp tmpfs defaults 0 0\nsrv:/x /srv nfs x 0 0\n")
            .unwrap();
        fs::create_dir_all(tree.join("srv")).unwrap();
        fs::create_dir_all(tree.join("usr/share/zoneinfo")).unwrap();
        fs::write(tree.join("usr/share/zoneinfo/UTC"), "TZif").unwrap();
        std::os::unix::fs::symlink("/usr/share/zoneinfo/UTC", tree.join("etc/localtime")).unwrap();
    });
    let host = "--hostname=x";
    for (options, part) in [
        (&[host, "--properties={\"COLOUR\": 1}"][..], "COLOUR"),
        (&[host, "--properties={\"USERS\": \"ann\"}"], "USERS has no effect"),
        (&[host, "--properties={\"SWAP\": \"b\"}"], "SWAP has no effect"),
        (&[host, "--properties={\"CLOUD_INIT\": \"yes\"}"], "CLOUD_INIT has no effect"),
        (&[host, "--properties={\"PASSWD_HASHING_METHOD\": \"sha512\"}"], "has no effect"),
        (&[host, "--backing=allow"], "--backing allow has no effect"),
        (&["--edit=/etc/motd:s/zzz/y/"], "/etc/motd"),
        (&["--write=/run/x:text:y"], "/run"),
        (&["--write=/tmp/x:text:y"], "/etc/fstab line 1 mounts tmpfs there"),
        (&["--upload=/etc/hostname:/srv/x"], "/etc/fstab line 2 mounts nfs there"),
        (&["--write=/etc/localtime:text:y"], "symbolic link"),
        (&["--delete=/nosuch"], "/nosuch"),
        (&["--expire-password=ann"], "no password of ann lets in"),
        (&["--host-keys=remove"], "host keys"),
    ] {
        warned(&guest, options, part);
    }
    let loose = guest.file("loose", "secret\n");
    fs::set_permissions(&loose, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    warned(&guest, &[&format!("--root-password=file:{loose}")], "chmod 600");
}

/// It is the configuration after the edits that tells whether a password lets its user in over ssh.
#[test]
fn what_keeps_a_user_out_is_said_after_the_edits() {
    let guest = Guest::debian_with(|tree| {
        fs::create_dir_all(tree.join("etc/ssh")).unwrap();
        fs::write(tree.join("etc/ssh/sshd_config"), "#PermitRootLogin prohibit-password\n")
            .unwrap();
    });
    let root = "--root-password=random";
    warned(&guest, &[root], "not over ssh");
    for edit in [
        "--edit=/etc/ssh/sshd_config:s/^#?PermitRootLogin.*/PermitRootLogin yes/",
        "--set-line=/etc/ssh/sshd_config:PermitRootLogin=yes",
    ] {
        let run = guest.apply(&[root, edit, "--dry-run"]);
        assert!(!run.works().stderr.contains("not over ssh"), "{edit}: {run:?}");
    }
}

/// Each selector gets the line of its place among the options.
#[test]
fn lines_of_standard_input_go_in_the_order_of_the_options() {
    use std::io::Write;
    use std::process::Stdio;
    let guest = Guest::debian();
    let mut child = snf_customize()
        .arg("apply")
        .arg(&guest.image)
        .args(["--user-password=ann:stdin", "--root-password=stdin", "--diff", "--json"])
        .args(["--properties={\"PASSWD_HASHING_METHOD\": \"sha512\"}"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"for ann\nfor root\nfor nobody\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("warning: standard input has more lines"), "{stderr}");
    let shadow = guest.cat("/etc/shadow");
    for (user, password) in [("root", "for root"), ("ann", "for ann")] {
        let line = shadow.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap();
        let hash = line.split(':').nth(1).unwrap();
        let salt = hash.split('$').nth(2).unwrap();
        let mut openssl = std::process::Command::new("openssl")
            .args(["passwd", "-6", "-salt", salt, "-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs openssl");
        openssl.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
        let made = openssl.wait_with_output().unwrap().stdout;
        assert_eq!(String::from_utf8_lossy(&made).trim(), hash, "{user}");
    }
}

/// `-q` says nothing of a run that went well, `-v` says more, `help` is a command.
#[test]
fn as_much_as_is_asked_for() {
    let guest = Guest::debian();
    let quiet = guest.apply(&["-q", "--hostname=x"]);
    assert_eq!(
        (quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()),
        (0, "", ""),
        "{quiet:?}"
    );
    let random = guest.apply(&["-q", "--root-password=random"]);
    assert!(random.works().stdout.contains("shown only here"), "{random:?}");
    let verbose = guest.apply(&["-v", "--hostname=y"]);
    assert!(verbose.works().stderr.contains("note: AssignHostname: "), "{verbose:?}");
    let help = Run::of(snf_customize().args(["help", "apply"]));
    assert!(help.works().stdout.contains("--print-plan"), "{help:?}");
    assert!(!help.stdout.contains('\u{1b}'), "{help:?}");
    let long = help.stdout.lines().find(|line| line.chars().count() > 80);
    assert!(long.is_none(), "{long:?}");
}

/// The shell asks the program: options, values, and paths in the image.
#[test]
fn completions_know_the_image() {
    let guest = Guest::debian();
    let disk = guest.image.to_str().unwrap();
    let ask = |words: &[&str]| {
        let run = Run::of(
            snf_customize()
                .env("COMPLETE", "bash")
                .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
                .arg("--")
                .args(words),
        );
        run.works().stdout.clone()
    };
    assert!(ask(&["snf-customize", "apply", disk, "--mach"]).contains("--machine-id"));
    let values = ask(&["snf-customize", "apply", disk, "--machine-id", "un"]);
    assert!(values.contains("uninitialized"), "{values}");
    let paths = ask(&["snf-customize", "cat", disk, "/etc/ho"]);
    assert!(paths.contains("/etc/hostname") && paths.contains("/etc/hosts"), "{paths}");
    let paths = ask(&["snf-customize", "apply", disk, "--delete", "/et"]);
    assert!(paths.contains("/etc/"), "{paths}");
    let script = Run::of(snf_customize().args(["completions", "zsh"]));
    assert!(script.works().stdout.contains("snf-customize"), "{script:?}");
}
