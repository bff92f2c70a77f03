//! The main job on a real Debian 12 image: through Ganeti's `create` and a helper VM, and the
//! same offline as an ordinary user; then the image boots. Needs root, QEMU and what
//! `cargo xtask test` prepares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use support::console::Console;
use support::ganeti::{config, log_of, script};
use support::{debian, disk, scratch, stage, walk};

const PASSWORD: &str = "pass w0rd'\"$&%`";
const KEY_ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2bLbRL0fQkzq3o3TRgEZHJqUGzUMfhC5e0LhbHnVqS one@example.test";
const KEY_TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE4cFAvUhs3UFcGgL6XwjQmZAs1v5fFhsRr4SNjuMM7n two@example.test";
const SECRET_FILE: &str = "a file that must not be found outside\n";

/// `contents` is base64 of SECRET_FILE, "through the symlink\n", "plain\n".
const PERSONALITY: &str = r#"[
 {"path":"/srv/new/dir/secret.txt","contents":"YSBmaWxlIHRoYXQgbXVzdCBub3QgYmUgZm91bmQgb3V0c2lkZQo=","owner":"debian","group":"debian","mode":384},
 {"path":"/var/run/through-link","contents":"dGhyb3VnaCB0aGUgc3ltbGluawo=","owner":"root","group":"adm","mode":416},
 {"path":"/etc/motd","contents":"cGxhaW4K"}
]"#;

fn image_name() -> String {
    debian().file_name().unwrap().to_string_lossy().into_owned()
}

/// The values that the two doors may write differently: salts, keys, ids.
fn is_random(path: &str) -> bool {
    path == "etc/shadow"
        || path == "etc/machine-id"
        || path == "var/lib/dbus/machine-id"
        || path.starts_with("etc/ssh/ssh_host_")
}

/// The same paths, modes, owners and attributes; times and random contents aside.
fn without_times(listing: &walk::Listing) -> walk::Listing {
    listing
        .iter()
        .map(|(path, entry)| {
            let mut entry = entry.clone();
            entry.mtime = (0, 0);
            if is_random(&String::from_utf8_lossy(path)) {
                entry.content = String::new();
                entry.size = 0;
            }
            (path.clone(), entry)
        })
        .collect()
}

#[test]
fn create_boot_and_the_same_offline() {
    let directory = scratch();
    let config = config(directory.path());
    let target = directory.path().join("disk0.raw");
    fs::File::create(&target).unwrap().set_len(4 << 30).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    let name = image_name();
    let keys = format!("{KEY_ONE}\n{KEY_TWO}\n");

    // 1. Ganeti's create.
    let start = Instant::now();
    let output = script(
        "create",
        &config,
        &target,
        &[
            ("OSP_IMG_ID", &name),
            ("OSP_IMG_FORMAT", "diskdump"),
            ("OSP_IMG_PASSWD", PASSWORD),
            ("OSP_AUTH_KEYS", &keys),
            ("OSP_IMG_PERSONALITY", PERSONALITY),
            ("OSP_IMG_PROPERTIES", r#"{"users":"root debian"}"#),
        ],
    );
    let log = log_of(&output);
    println!("create took {:.2} s\n{log}", start.elapsed().as_secs_f64());
    assert!(output.status.success(), "create: {}\n{log}", output.status);
    assert_eq!(fs::metadata(&target).unwrap().len(), 4 << 30, "the target keeps its length");
    for secret in [PASSWORD, SECRET_FILE.trim(), "YSBmaWxlIHRoYXQg", &old_hash(&debian())] {
        assert!(!log.contains(secret), "a secret is in the log:\n{log}");
    }
    disk::run("sgdisk", &["-v", &target.to_string_lossy()]);
    disk::assert_clean(&target, 2);
    // The BIOS boot partition keeps its bytes.
    let (start, size) = disk::partition(&debian(), 1);
    assert_eq!(disk::hash_range(&debian(), start, size), disk::hash_range(&target, start, size));

    // 2. Everything not asked for is as it was, and what was asked for is there.
    let before = walk::kernel(&disk::Mount::read_only(&debian(), 2).path);
    let mount = disk::Mount::read_only(&target, 2);
    let after = walk::kernel(&mount.path);
    let changed = walk::differences(&before, &after, |_| false);
    for line in &changed {
        let path = line.split(": ").next().unwrap();
        let expected = is_random(path)
            || ["etc/hostname", "etc/hosts", "etc/motd", "run/through-link"].contains(&path)
            || path == "srv"
            || path.starts_with("srv/new")
            || path == "run"
            || path == "etc/ssh"
            || path.starts_with("root")
            || path.starts_with("home/debian")
            || path == "etc";
        assert!(expected, "{line} changed, though nobody asked");
    }
    let shadow = fs::read_to_string(mount.path.join("etc/shadow")).unwrap();
    assert_eq!(
        after[&b"etc/shadow"[..]].xattrs,
        before[&b"etc/shadow"[..]].xattrs,
        "the SELinux label survives"
    );
    assert!(shadow.contains("root:$y$"), "Debian 12 hashes with yescrypt");
    drop(mount);

    // 3. The same offline, as an ordinary user.
    let offline = directory.path().join("offline.raw");
    disk::copy(&debian(), &offline);
    let password_file = directory.path().join("password");
    fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
    let keys_file = directory.path().join("keys");
    fs::write(&keys_file, &keys).unwrap();
    let personality_file = directory.path().join("personality.json");
    fs::write(&personality_file, PERSONALITY).unwrap();
    for path in [&offline, &password_file, &keys_file, &personality_file] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        disk::run("chown", &["nobody:nogroup", &path.to_string_lossy()]);
    }
    let binary = directory.path().join("snf-customize");
    fs::copy(stage().join("bin/snf-customize"), &binary).unwrap();
    let apply = |extra: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
            .arg(&binary)
            .arg("apply")
            .arg(&offline)
            .args(["--hostname", "vm1.example.test", "--machine-id", "new", "--host-keys", "new"])
            .args(["--properties", r#"{"users":"root debian"}"#])
            .arg("--root-password")
            .arg(format!("file:{}", password_file.display()))
            .arg("--user-password")
            .arg(format!("debian:file:{}", password_file.display()))
            .arg("--ssh-key")
            .arg(format!("root:file:{}", keys_file.display()))
            .arg("--ssh-key")
            .arg(format!("debian:file:{}", keys_file.display()))
            .arg("--personality")
            .arg(&personality_file)
            .args(extra)
            .current_dir("/")
            .output()
            .unwrap()
    };
    let pristine = disk::hash_range(&offline, 0, 2 << 30);
    let dry = apply(&["--dry-run"]);
    assert!(dry.status.success(), "--dry-run: {}", log_of(&dry));
    assert!(log_of(&dry).contains("/etc/shadow"), "--dry-run names the files: {}", log_of(&dry));
    assert_eq!(disk::hash_range(&offline, 0, 2 << 30), pristine, "--dry-run writes nothing");
    let start = Instant::now();
    let output = apply(&[]);
    let log_offline = log_of(&output);
    println!("snf-customize took {:.2} s\n{log_offline}", start.elapsed().as_secs_f64());
    assert!(output.status.success(), "snf-customize: {}\n{log_offline}", output.status);
    assert!(!log_offline.contains(PASSWORD));
    disk::assert_clean(&offline, 2);
    let mount = disk::Mount::read_only(&offline, 2);
    let offline_tree = walk::kernel(&mount.path);
    drop(mount);
    let differing =
        walk::differences(&without_times(&after), &without_times(&offline_tree), |_| false);
    assert!(differing.is_empty(), "the two doors disagree:\n{}", differing.join("\n"));

    // Additions made offline take effect at the boot below.
    let (start, size) = disk::partition(&offline, 2);
    let output = Command::new(&binary)
        .arg("apply")
        .arg(&offline)
        .args(["--add-group", "team", "--add-user", "web:groups=team+adm,shell=/bin/bash,sudo"])
        .arg("--user-password")
        .arg(format!("web:file:{}", password_file.display()))
        .args(["--timezone", "Asia/Tokyo", "--locale", "C.UTF-8", "--swap", "8M"])
        .args(["--nic", "MAC=52:54:00:12:34:56,ip=192.0.2.10/24,gw=192.0.2.1,dns=192.0.2.53"])
        .args(["--mask", "apt-daily.timer", "--default-target", "multi-user"])
        .args(["--firstboot-early-command", "ip -4 addr show > /root/early"])
        .args(["--firstboot-command", "ip -4 addr show > /root/late; id -un web >> /root/late"])
        .args(["--firstboot-command", "exit 7"])
        .args(["--firstboot-command", "echo last >> /root/late"])
        .output()
        .unwrap();
    assert!(output.status.success(), "more edits: {}", log_of(&output));
    disk::assert_clean_at(&offline, start, size);

    // 4. Both boot; the new password works, the old one does not.
    for (image, log) in [(&target, &log), (&offline, &log_offline)] {
        let edited = image == &offline;
        let nic = if edited {
            "user,restrict=on,model=virtio-net-pci,mac=52:54:00:12:34:56"
        } else {
            "none"
        };
        let mut console = Console::boot_with(image, "raw", nic);
        assert!(!console.login("root", "old-password"), "the old password must fail");
        assert!(console.login("root", PASSWORD), "the new password must work");
        assert_eq!(console.ok("hostname"), "vm1.example.test");
        for kind in ["rsa", "ecdsa", "ed25519"] {
            let said = console.ok(&format!("ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub"));
            let fingerprint = said.split_whitespace().nth(1).unwrap();
            assert!(fingerprint.starts_with("SHA256:"), "{said}");
            assert!(log.contains(fingerprint), "{kind} {fingerprint} was not reported:\n{log}");
        }
        console.ok("ssh-keygen -yf /etc/ssh/ssh_host_rsa_key >/dev/null");
        assert_eq!(
            console.ok("stat -c '%U:%G:%a' /srv/new/dir/secret.txt /etc/motd"),
            "debian:debian:600\nroot:root:440"
        );
        assert_eq!(
            console.ok("stat -c '%U:%G:%a' /srv/new /srv/new/dir"),
            "debian:debian:750\ndebian:debian:750"
        );
        assert_eq!(console.ok("cat /srv/new/dir/secret.txt"), SECRET_FILE.trim());
        assert_eq!(
            console.ok("stat -c '%U:%a' /root/.ssh /root/.ssh/authorized_keys ~debian/.ssh ~debian/.ssh/authorized_keys"),
            "root:700\nroot:600\ndebian:700\ndebian:600"
        );
        assert_eq!(console.ok("cat /root/.ssh/authorized_keys"), keys.trim());
        assert_ne!(console.ok("cat /etc/machine-id"), "00112233445566778899aabbccddeeff");
        assert_eq!(console.ok("getent hosts vm1.example.test | cut -d' ' -f1"), "127.0.1.1");
        console.ok("ls -lA /run/sshd; systemctl is-active ssh");
        console.logout();
        assert!(console.login("debian", PASSWORD), "so does the other user's");
        if edited {
            console.logout();
            assert!(console.login("web", PASSWORD), "and that of the user who was added");
            assert_eq!(console.ok("id -nG; echo $HOME"), "web adm team\n/home/web");
            console.logout();
            assert!(console.login("root", PASSWORD));
            edits_are_in_force(&mut console);
        }
    }
}

/// The requests of the second offline run, in the running guest.
fn edits_are_in_force(console: &mut Console) {
    console.ok("while [ -d /var/lib/snf-image/firstboot/late ]; do sleep 1; done");
    assert!(!console.ok("cat /root/early").contains("192.0.2.10"), "early is before the network");
    let late = console.ok("cat /root/late");
    assert!(late.contains("192.0.2.10/24") && late.ends_with("web\nlast"), "{late}");
    let log = console.ok("cat /var/log/snf-image-firstboot.log");
    assert!(log.contains("0002-command ends with 7"), "{log}");
    assert_eq!(console.run("systemctl is-failed snf-image-firstboot").1.trim(), "failed");
    assert_eq!(console.ok("date +%Z; systemctl is-enabled apt-daily.timer || true"), "JST\nmasked");
    assert_eq!(console.ok("swapon --show=NAME --noheadings"), "/swapfile");
    assert_eq!(console.ok("systemctl get-default"), "multi-user.target");
    assert!(console.ok("ip route").contains("default via 192.0.2.1"));
}

/// The old hash of root, which must not be in any log either.
fn old_hash(image: &Path) -> String {
    let mount = disk::Mount::read_only(image, 2);
    let shadow = fs::read_to_string(mount.path.join("etc/shadow")).unwrap();
    shadow
        .lines()
        .find(|line| line.starts_with("root:"))
        .unwrap()
        .split(':')
        .nth(1)
        .unwrap()
        .to_owned()
}

#[test]
fn the_kernel_and_our_reader_agree_on_a_whole_debian() {
    let (start, size) = disk::partition(&debian(), 2);
    let device = snf_fs::FileDevice::from_file(fs::File::open(debian()).unwrap()).unwrap();
    let slice = snf_fs::Slice::new(std::sync::Arc::new(device), start, size).unwrap();
    let fs = snf_fs::ext::Ext::open(std::sync::Arc::new(slice), snf_fs::ext::Options::default())
        .unwrap();
    let ours = walk::ours(&fs);
    let mount = disk::Mount::read_only(&debian(), 2);
    let kernel = walk::kernel(&mount.path);
    assert!(kernel.len() > 10_000, "a real Debian has more than {} paths", kernel.len());
    let differing = walk::differences(&kernel, &ours, |_| false);
    assert!(differing.is_empty(), "{} paths differ:\n{}", differing.len(), differing.join("\n"));
}

/// The fault, the parameters, and words that the sentence must have.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn refusals_leave_the_disk_untouched() {
    let directory = scratch();
    let config = config(directory.path());
    let target = directory.path().join("small.raw");
    // Old bytes, so that a single one that changes shows.
    fs::write(&target, vec![0x5A; 8 << 20]).unwrap();
    let before = disk::hash_range(&target, 0, 8 << 20);
    let name = image_name();
    let cases: &[Case<'_>] = &[
        (
            "image larger than the disk",
            &[("OSP_IMG_ID", &name), ("OSP_IMG_FORMAT", "diskdump")],
            &["larger", "small.raw"],
        ),
        (
            "no such image",
            &[("OSP_IMG_ID", "nope.img"), ("OSP_IMG_FORMAT", "diskdump")],
            &["nope.img"],
        ),
        (
            "escape",
            &[("OSP_IMG_ID", "../../etc/passwd"), ("OSP_IMG_FORMAT", "diskdump")],
            &["etc/passwd"],
        ),
        (
            "bad format",
            &[("OSP_IMG_ID", &name), ("OSP_IMG_FORMAT", "zipdump")],
            &["img_format", "diskdump"],
        ),
        ("no parameters at all", &[], &["img_id"]),
        (
            "both kinds of password",
            &[
                ("OSP_IMG_ID", &name),
                ("OSP_IMG_FORMAT", "diskdump"),
                ("OSP_IMG_PASSWD", "a"),
                ("OSP_IMG_PASSWD_HASH", "$6$a$b"),
            ],
            &["img_passwd_hash"],
        ),
        (
            "broken personality",
            &[
                ("OSP_IMG_ID", &name),
                ("OSP_IMG_FORMAT", "diskdump"),
                ("OSP_IMG_PERSONALITY", "[{]"),
            ],
            &["img_personality"],
        ),
    ];
    for (what, extra, words) in cases {
        let output = script("create", &config, &target, extra);
        let log = log_of(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {log}");
        for word in *words {
            assert!(log.contains(word), "{what}: no {word:?} in: {log}");
        }
        assert!(!log.contains("panicked"), "{what}: {log}");
        assert_eq!(disk::hash_range(&target, 0, 8 << 20), before, "{what}: the disk changed");
    }
}
