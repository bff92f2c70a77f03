//! All tasks on guests whose files are anything but what they should be: no panic, and every
//! error is one sentence.

use super::testing::{DIR, FILE, Guest};
use super::{TASKS, Work};
use crate::ask::network::{Ipv4, Ipv6, Mac, Nic};
use crate::ask::plan::{HostKeys, Password, PersonalityFile, Who};
use crate::craft::random::Entropy;
use crate::craft::secret::Secret;

const FILES: [&str; 22] = [
    "/etc/fstab",
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/etc/ssh/sshd_config",
    "/etc/ssh/sshd_config.d/x.conf",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/login.defs",
    "/etc/pam.d/common-password",
    "/etc/network/interfaces",
    "/etc/cloud/cloud.cfg",
    "/etc/selinux/config",
    "/etc/selinux/targeted/contexts/files/file_contexts",
    "/root/.ssh/authorized_keys",
    "/root/.ssh",
    "/etc/ssh",
    "/etc",
    "/etc/NetworkManager/system-connections/snf-image-nic0.nmconnection",
];

const TOKENS: [&str; 40] = [
    ":",
    "\n",
    "\n\n",
    "=",
    "\"",
    "'",
    "\\",
    "#",
    " ",
    "\t",
    "\r\n",
    "\0",
    "\u{1b}[2J",
    "root",
    "x",
    "root:x:0:0:root:/root:/bin/sh\n",
    "root:*:1:::::\n",
    "UUID=",
    "/dev/sda1",
    "/ ext4 ",
    "/etc",
    "\\040",
    "Include *\n",
    "HostKey /etc/passwd\n",
    "HostKey /etc/ssh/\n",
    "Match all\n",
    "AuthorizedKeysFile %h/%u/%%\n",
    "AuthorizedKeysFile /\n",
    "127.0.1.1 ",
    "HOSTNAME=",
    "SELINUX=enforcing\n",
    "/.* a:b:c\n",
    "((((((((((",
    "[z-a]",
    "{1000}{1000}",
    "18446744073709551616",
    "-1",
    "ssh-rsa AAAA",
    "../../../..",
    "/dev/../etc/",
];

const TARGETS: [&str; 9] =
    ["/", "/dev", "/proc/self", "..", ".", "/etc/passwd", "loop", "/../../../etc", "/none/x"];

fn text(entropy: &mut Entropy, old: &[u8]) -> Vec<u8> {
    let mut out = if entropy.below(2) == 0 { old.to_vec() } else { Vec::new() };
    for _ in 0..entropy.below(30) {
        let at = entropy.below(out.len() as u32 + 1) as usize;
        match entropy.below(5) {
            0 => out.insert(at, entropy.bytes::<1>()[0]),
            1 => out.truncate(at),
            2 => {
                let long = entropy.text(b"ab:/. ", 5000);
                out.splice(at..at, long.bytes());
            }
            _ => {
                let token = TOKENS[entropy.below(TOKENS.len() as u32) as usize];
                out.splice(at..at, token.bytes());
            }
        }
    }
    out
}

/// Makes something of one path: another text, a directory, a link.
fn spoil(guest: &mut Guest, entropy: &mut Entropy) {
    let path = FILES[entropy.below(FILES.len() as u32) as usize];
    let (dir, _) = path.rsplit_once('/').unwrap();
    let tree = guest.tree();
    // An earlier change may prevent this one.
    let _ = tree.mkdir_all(format!("{dir}/"), DIR);
    let old = tree.read(path, 1 << 20).unwrap_or_default();
    match entropy.below(8) {
        0 => {
            let _ = tree.unlink(path);
            let _ = tree.mkdir(path, DIR);
        }
        1 | 2 => {
            let target = TARGETS[entropy.below(TARGETS.len() as u32) as usize];
            if tree.unlink(path).is_err() {
                let _ = tree.rename(path, "/moved");
            }
            let _ = tree.symlink(path, target.as_bytes(), FILE);
        }
        3 => {
            let _ = tree.unlink(path);
        }
        _ => {
            let _ = tree.write(path, &text(entropy, &old), FILE);
        }
    }
}

#[test]
fn no_guest_makes_a_task_panic() {
    let mut entropy = Entropy::seeded(42);
    let mut failures = 0;
    for round in 0..1500 {
        let mut guest = Guest::debian();
        guest.write("/etc/ssh/ssh_host_ed25519_key", "PRIVATE KEY");
        guest.write("/etc/network/interfaces", "auto lo\n");
        for _ in 0..=entropy.below(4) {
            spoil(&mut guest, &mut entropy);
        }
        let file = |path: &str, owner: &str| PersonalityFile {
            path: path.into(),
            contents: Secret::new("x"),
            owner: Some(owner.into()),
            group: None,
            mode: None,
            origin: "img_personality[0]".into(),
            keep_existing: false,
        };
        guest.plan.hostname = Some("vm1".into());
        guest.plan.passwords = vec![(Who::Default, Password::Hash(Secret::new("$6$a$b")))];
        if round % 50 == 0 {
            guest.plan.passwords = vec![(Who::Default, Password::Clear(Secret::new("secret")))];
        }
        guest.plan.auth_keys = vec![(Who::Default, "ssh-ed25519 AAAAC3Nz me".into())];
        guest.plan.personality = vec![
            file("/etc/new/file", "root"),
            file("/root/.ssh/x", "ann"),
            file("/etc/hosts", "0"),
        ];
        // Making RSA keys would take all the time.
        guest.plan.host_keys = HostKeys::Remove;
        guest.plan.nics = vec![Nic::new(0, Mac([2; 6]), Ipv4::Dhcp, Ipv6::SlaacDhcp)];
        for task in TASKS.into_iter().filter(|task| !matches!(task.work, Work::Disk(_))) {
            if let Err(error) = guest.run(task) {
                let error = crate::craft::sentence::sentence(&error);
                assert!(!error.is_empty() && error.lines().count() == 1, "{round}: {error}");
                assert!(!error.chars().any(char::is_control), "{round}: {error}");
                failures += 1;
            }
        }
        for warning in guest.warnings() {
            assert!(!warning.chars().any(char::is_control), "{round}: {warning}");
        }
    }
    assert!(failures > 100, "the guests were not hostile enough: {failures}");
}
