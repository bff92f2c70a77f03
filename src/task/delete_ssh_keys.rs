//! DeleteSSHKeys: no two guests with the same host keys. The old ones go, fresh ones come.

mod choose;
mod found;
mod renewal;
mod servers;

use std::collections::BTreeMap;

use snf_fs::error::display_name;
use snf_fs::{Attributes, FileType};

use super::initialize_datasource::{CONFIG_DIR, put};
use super::{Fingerprint, Guest, LINUX, Needs, Session, Task, TaskError, TaskId, Work};
use crate::ask::plan::HostKeys;
use crate::craft::sshkey::{KeyPair, KeyType};
use crate::guest::sshd::SshdConfig;

pub(super) static TASK: Task = Task {
    id: TaskId::DeleteSSHKeys,
    summary: "replace the SSH host keys with fresh ones and tell their fingerprints",
    applies: |plan| plan.host_keys != HostKeys::Keep,
    work: Work::guest(Needs::System(LINUX), run).early(early).beginning(begin),
};

const SSH_DIR: &str = "/etc/ssh";

/// A key to make: the path of its private file, and its kind.
type Wanted = (Vec<u8>, KeyType);

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let sshd = SshdConfig::read(&guest.tree)?;
    let found = found::find(guest, session, &sshd)?;
    let is_new = session.plan.host_keys == HostKeys::New;
    let mut wanted: Vec<Wanted> = Vec::new();
    if is_new {
        wanted = choose::choose(guest, session, &sshd, &found)?;
    }
    // The slow one first: the thread works while the rest is done.
    let comment = comment(guest, session)?;
    if wanted.iter().any(|(_, key_type)| *key_type == KeyType::Rsa) {
        session.host_keys.start_rsa(&comment);
    }
    for old in &found {
        let stays = wanted.iter().any(|(path, _)| {
            *path == old.path || old.path.strip_suffix(b".pub") == Some(path.as_slice())
        });
        // A link is replaced by a file, and so is one of several names of a file.
        if !stays || old.file_type != FileType::Regular || old.links > 1 {
            guest.tree.unlink(&old.path)?;
        }
    }
    wanted.sort_by_key(|(_, key_type)| *key_type == KeyType::Rsa);
    let mut maker = Maker { is_new, comment, count: BTreeMap::new(), made: Vec::new() };
    for (path, key_type) in &wanted {
        if let Some(key) = maker.make(session, *key_type, path)? {
            write(guest, path, &key)?;
        }
    }
    let others = servers::renew(guest, session, &mut maker)?;
    let mut made = maker.made;
    made.sort_by(|a, b| a.path.cmp(&b.path));
    for key in &made {
        session.info(format!("new SSH host key: {} {} {}", key.kind, key.bits, key.fingerprint));
    }
    if is_new && made.is_empty() && !others && !session.plan.tasks.is_all() {
        session.warn("no SSH host keys were made: the image has no SSH server");
    }
    session.report.fingerprints.extend(made);
    if is_new && guest.has_cloud_init()? {
        // It would replace them at the first boot, and the fingerprints would be wrong.
        let text = "# Written by snf-image, which made new host keys.\nssh_deletekeys: false\n";
        put(guest, CONFIG_DIR, "99-snf-image-ssh.cfg", text.as_bytes(), 0o644)?;
    }
    if session.plan.host_keys == HostKeys::Remove
        && (others || !found.is_empty())
        && !renewal::makes_keys(guest)?
    {
        session.warn(
            "the SSH host keys were removed, and nothing in the image is known to make new ones at \
             boot: its SSH server will not start until somebody does",
        );
    }
    Ok(())
}

/// Makes the keys of a run and keeps what the report tells of them.
struct Maker {
    /// Whether keys are made at all, or only removed.
    is_new: bool,
    comment: String,
    /// How many of each kind there are so far.
    count: BTreeMap<KeyType, usize>,
    made: Vec<Fingerprint>,
}

impl Maker {
    /// A key for a file; `None` where keys are only removed.
    fn make(
        &mut self,
        session: &mut Session<'_>,
        key_type: KeyType,
        path: &[u8],
    ) -> Result<Option<KeyPair>, TaskError> {
        if !self.is_new {
            return Ok(None);
        }
        let count = self.count.entry(key_type).or_default();
        let key = session.host_keys.make(key_type, &self.comment, *count)?;
        *count += 1;
        self.made.push(Fingerprint {
            path: display_name(path),
            kind: key_type.label().to_owned(),
            bits: key_type.bits(),
            fingerprint: key.fingerprint.clone(),
        });
        Ok(Some(key))
    }
}

/// Begins the slowest part of a run, the RSA key, before the image is opened. This needs the host
/// name. A key that the host has made already is used instead.
fn early(session: &mut Session<'_>) {
    let (Some(hostname), HostKeys::New) = (&session.plan.hostname, session.plan.host_keys) else {
        return;
    };
    let comment = format!("root@{hostname}");
    for key in session.plan.prepared.keys(&comment) {
        session.host_keys.give(key.clone());
    }
    session.host_keys.start_rsa(&comment);
}

/// Begins to make the RSA key, which takes longest, before the other tasks have their turn. Whether
/// one will be needed is not known yet; if not, nobody waits for it.
fn begin(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if session.plan.host_keys == HostKeys::New && guest.tree.exists(SSH_DIR).unwrap_or(false) {
        let comment = comment(guest, session)?;
        session.host_keys.start_rsa(&comment);
    }
    Ok(())
}

/// The comment that host keys get: who made them, on which host.
fn comment(guest: &Guest, session: &Session<'_>) -> Result<String, TaskError> {
    let host = match &session.plan.hostname {
        Some(name) => Some(name.clone()),
        None => guest.hostname()?,
    };
    Ok(format!("root@{}", host.unwrap_or_else(|| "localhost".into())))
}

/// Writes both files of a key.
fn write(guest: &mut Guest, path: &[u8], key: &KeyPair) -> Result<(), TaskError> {
    if let Some(slash) = path.iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0) {
        guest.tree.mkdir_all(&path[..slash], Attributes { mode: 0o755, uid: 0, gid: 0 })?;
    }
    let public = [path, b".pub"].concat();
    for (path, content, mode) in
        [(path, key.private.expose(), 0o600), (public.as_slice(), key.public.as_bytes(), 0o644)]
    {
        guest.tree.write(path, content, Attributes { mode, uid: 0, gid: 0 })?;
        guest.tree.chown(path, 0, 0)?;
        guest.tree.chmod(path, mode)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::craft::random::Entropy;
    use crate::craft::sshkey::{KeyContent, dropbear_kind, generate};
    use crate::limits::{HOST_KEYS, NAMES};
    use crate::task::testing::Guest;

    fn paths(guest: &mut Guest) -> Vec<String> {
        let entries = guest.tree().read_dir(SSH_DIR).unwrap();
        entries.iter().map(|entry| display_name(&entry.name)).collect()
    }

    #[test]
    fn the_kinds_that_were_there_come_back() {
        let mut guest = Guest::debian();
        for name in ["ecdsa_key", "ecdsa_key.pub", "dsa_key", "ed25519_key", "old"] {
            guest.write(&format!("{SSH_DIR}/ssh_host_{name}"), "old");
        }
        let ecdsa = "/etc/ssh/ssh_host_ecdsa_key";
        let label = Some(&b"system_u:object_r:sshd_key_t:s0\0"[..]);
        guest.tree().set_xattr(ecdsa, b"security.selinux", label).unwrap();
        guest.plan.hostname = Some("vm1".into());
        guest.run(&TASK).unwrap();
        assert_eq!(
            paths(&mut guest),
            [
                "ssh_host_ecdsa_key",
                "ssh_host_ecdsa_key.pub",
                "ssh_host_ed25519_key",
                "ssh_host_ed25519_key.pub",
                "sshd_config"
            ]
        );
        assert!(guest.read(ecdsa).starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert!(guest.read("/etc/ssh/ssh_host_ed25519_key.pub").ends_with(" root@vm1\n"));
        assert_eq!(guest.attributes(ecdsa), (0o600, 0, 0));
        assert_eq!(guest.attributes("/etc/ssh/ssh_host_ecdsa_key.pub"), (0o644, 0, 0));
        assert!(guest.tree().xattr(ecdsa, b"security.selinux").unwrap().is_some());
        let kinds: Vec<&str> = guest.fingerprints.iter().map(|f| f.kind.as_str()).collect();
        assert_eq!(kinds, ["ECDSA", "ED25519"]);
        assert!(guest.fingerprints[0].fingerprint.starts_with("SHA256:"));
    }

    #[test]
    fn an_image_without_keys_gets_three() {
        let mut guest = Guest::debian();
        guest.run(&TASK).unwrap();
        assert_eq!(guest.fingerprints.len(), 3);
        assert!(guest.read("/etc/ssh/ssh_host_rsa_key.pub").ends_with(" root@image\n"));
        let mut guest = Guest::empty();
        guest.mkdir("/etc");
        guest.run(&TASK).unwrap();
        assert!(guest.fingerprints.is_empty());
    }

    #[test]
    fn an_image_with_too_many_keys_is_refused_and_names_are_few() {
        let mut guest = Guest::debian();
        for n in 0..=HOST_KEYS {
            guest.write(&format!("{SSH_DIR}/ssh_host_rsa{n}"), "old");
        }
        assert!(guest.fail(&TASK).contains("more than 16 SSH host keys"));
        let mut guest = Guest::debian();
        for n in 0..NAMES + 5 {
            guest.write(&format!("{SSH_DIR}/ssh_host_unknown{n}"), "old");
        }
        guest.run(&TASK).unwrap();
        let told = format!("{:?}", guest.events);
        assert!(told.contains("and 5 more"), "{told}");
    }

    #[test]
    fn removing_only() {
        let mut guest = Guest::debian();
        guest.write("/etc/ssh/ssh_host_rsa_key", "x");
        guest.write("/etc/ssh/ssh_host_rsa_key.pub", "x");
        guest.plan.host_keys = HostKeys::Remove;
        guest.run(&TASK).unwrap();
        assert_eq!(paths(&mut guest), ["sshd_config"]);
        assert!(guest.fingerprints.is_empty());
    }

    #[test]
    fn host_key_lines() {
        let mut guest = Guest::debian();
        guest.write(
            "/etc/ssh/sshd_config",
            "HostKey /srv/keys/my_ed25519\nHostKey /srv/keys/other_ecdsa\nHostKey /etc/passwd\n\
             HostKey /dev/host_rsa\nHostKey relative_rsa\nHostKey /srv/keys/nameless\n",
        );
        guest.write("/srv/keys/my_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
        guest.write("/srv/keys/my_ed25519.pub", "ssh-ed25519 AAAA x\n");
        guest.write("/srv/keys/nameless", "-----BEGIN PRIVATE KEY-----\n");
        guest.run(&TASK).unwrap();
        let paths: Vec<&str> = guest.fingerprints.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["/srv/keys/my_ed25519", "/srv/keys/other_ecdsa"]);
        assert!(format!("{:?}", guest.events).contains("/srv/keys/nameless"));
        assert!(guest.read("/etc/passwd").starts_with("root:"));
        assert!(!guest.tree().exists("/srv/keys/nameless").unwrap());
        let warnings = guest.warnings().join("\n");
        assert!(warnings.contains("/etc/passwd, but that file is not a key"), "{warnings}");
        assert!(warnings.contains("/dev/host_rsa is where"), "{warnings}");
    }

    #[test]
    fn hostile_guests() {
        let mut guest = Guest::debian();
        guest.symlink("/etc/ssh/ssh_host_ed25519_key", "/etc/passwd");
        guest.symlink("/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ecdsa_key");
        guest.mkdir("/etc/ssh/ssh_host_dir");
        guest.run(&TASK).unwrap();
        assert!(guest.read("/etc/passwd").starts_with("root:x:"));
        let stat = guest.tree().lstat("/etc/ssh/ssh_host_ed25519_key").unwrap();
        assert_eq!(stat.file_type, FileType::Regular);
        assert!(guest.warnings()[0].contains("/etc/ssh/ssh_host_dir is a directory"));
        let mut guest = Guest::empty();
        guest.mkdir("/etc");
        guest.symlink("/etc/ssh", "/etc/ssh");
        assert!(guest.fail(&TASK).contains("too many levels"));
    }

    #[test]
    fn a_key_of_any_name_gets_one_of_its_kind() {
        let old = |key_type| {
            let key = generate(key_type, "old", &mut Entropy::seeded(9)).unwrap();
            (String::from_utf8(key.private.expose().to_vec()).unwrap(), key.public)
        };
        let mut guest = Guest::debian();
        guest.write("/etc/ssh/sshd_config", "HostKey /persist/hk\nHostKey /persist/rsa\n");
        guest.write("/persist/hk", &old(KeyType::Ecdsa).0);
        // Its content says more than its name.
        guest.write("/persist/rsa", &old(KeyType::Ed25519).0);
        guest.run(&TASK).unwrap();
        for (path, key_type) in
            [("/persist/hk", KeyType::Ecdsa), ("/persist/rsa", KeyType::Ed25519)]
        {
            let text = guest.read(path);
            assert_eq!(KeyContent::of(text.as_bytes()), KeyContent::Private(Some(key_type)));
            assert_ne!(text, old(key_type).0);
            assert!(guest.read(&format!("{path}.pub")).starts_with(key_type.algorithm()));
        }
        assert!(!guest.tree().exists("/etc/ssh/ssh_host_rsa_key").unwrap());
        // The only key is of a kind that nobody makes any more: sshd must start all the same.
        let mut guest = Guest::debian();
        guest.write("/etc/ssh/sshd_config", "HostKey /persist/hk\n");
        guest.write("/persist/hk", "-----BEGIN DSA PRIVATE KEY-----\nx\n");
        guest.run(&TASK).unwrap();
        assert!(guest.read("/persist/hk.pub").starts_with("ssh-ed25519"));
        assert!(guest.warnings()[0].contains("it is an Ed25519 key now"));
    }

    #[test]
    fn certificates_of_the_old_key_go() {
        let mut guest = Guest::debian();
        let certificate = "ssh-ed25519-cert-v01@openssh.com AAAA\n";
        guest.write("/etc/ssh/ssh_host_ed25519_key-cert.pub", certificate);
        guest.write("/etc/ssh/sshd_config", "HostCertificate /etc/ca/host\n");
        guest.write("/etc/ca/host", certificate);
        guest.run(&TASK).unwrap();
        for path in ["/etc/ssh/ssh_host_ed25519_key-cert.pub", "/etc/ca/host"] {
            assert!(!guest.tree().exists(path).unwrap());
            assert!(guest.warnings().iter().any(|w| w.starts_with(path)), "{path}");
        }
    }

    #[test]
    fn dropbear_and_tinyssh() {
        let mut guest = Guest::empty();
        for name in ["rsa", "dss", "ed25519"] {
            guest.write(&format!("/etc/dropbear/dropbear_{name}_host_key"), "old");
        }
        for name in ["ed25519.pk", ".ed25519.sk", "nistp256ecdsa.pk"] {
            guest.write(&format!("/etc/tinyssh/sshkeydir/{name}"), "old");
        }
        guest.run(&TASK).unwrap();
        for (name, expected) in
            [("rsa", Some(KeyType::Rsa)), ("ed25519", Some(KeyType::Ed25519)), ("dss", None)]
        {
            let path = format!("/etc/dropbear/dropbear_{name}_host_key");
            let content = guest.tree().read_optional(&path, 1 << 20).unwrap();
            assert_eq!(content.as_deref().and_then(dropbear_kind), expected);
        }
        assert_eq!(guest.attributes("/etc/dropbear/dropbear_rsa_host_key"), (0o600, 0, 0));
        let secret = guest.tree().read("/etc/tinyssh/sshkeydir/.ed25519.sk", 99).unwrap();
        let public = guest.tree().read("/etc/tinyssh/sshkeydir/ed25519.pk", 99).unwrap();
        assert_eq!((secret.len(), &secret[32..]), (64, &public[..]));
        assert!(!guest.tree().exists("/etc/tinyssh/sshkeydir/nistp256ecdsa.pk").unwrap());
        let prints: std::collections::BTreeSet<&str> =
            guest.fingerprints.iter().map(|f| f.fingerprint.as_str()).collect();
        assert_eq!(prints.len(), 3);
    }

    #[test]
    fn removed_keys_that_nobody_makes_again_are_said() {
        let removed = |files: &[(&str, &str)]| {
            let mut guest = Guest::debian();
            guest.write("/etc/ssh/ssh_host_rsa_key", "x");
            files.iter().for_each(|(path, text)| guest.write(path, text));
            guest.plan.host_keys = HostKeys::Remove;
            guest.run(&TASK).unwrap();
            guest.warnings().join("")
        };
        assert!(removed(&[]).contains("nothing in the image is known to make new ones"));
        let debian = "[Service]\nExecStart=/usr/sbin/sshd -D\n# ssh-keygen\n";
        assert!(!removed(&[("/usr/lib/systemd/system/ssh.service", debian)]).is_empty());
        for (path, text) in [
            ("/usr/lib/systemd/system/sshd.service", "Wants=sshd-keygen.target\n"),
            ("/usr/lib/systemd/system/sshdgenkeys.service", "ExecStart=/usr/bin/ssh-keygen -A\n"),
            ("/etc/init.d/sshd", "\tssh-keygen -A\n"),
            ("/etc/cloud/cloud.cfg", ""),
        ] {
            assert_eq!(removed(&[(path, text)]), "", "{path}");
        }
    }
}
