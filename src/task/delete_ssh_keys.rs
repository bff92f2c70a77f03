//! DeleteSSHKeys: no two guests with the same host keys. The old ones go, fresh ones come.

use snf_fs::error::display_name;
use snf_fs::{Attributes, FileType};

use super::initialize_datasource::{CONFIG_DIR, put};
use super::{
    Fingerprint, Guest, LINUX, Needs, Session, Task, TaskError, TaskId, Work, hidden_at_boot,
};
use crate::ask::plan::HostKeys;
use crate::craft::sshkey::KeyType;
use crate::guest::CONFIG_MAX;
use crate::guest::sshd_config::SshdConfig;
use crate::limits::{HOST_KEYS, NAMES};

pub(super) static TASK: Task = Task {
    id: TaskId::DeleteSSHKeys,
    summary: "replace the SSH host keys with fresh ones and tell their fingerprints",
    applies: |plan| plan.host_keys != HostKeys::Keep,
    work: Work::guest(Needs::System(LINUX), run).early(early).beginning(begin),
};

const SSH_DIR: &str = "/etc/ssh";

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let sshd = SshdConfig::read(&guest.tree)?;
    let found = find(guest, session, &sshd)?;
    let mut wanted: Vec<(Vec<u8>, KeyType)> = Vec::new();
    if session.plan.host_keys == HostKeys::New {
        wanted = choose(guest, session, &sshd, &found)?;
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
    let mut made: Vec<Fingerprint> = Vec::new();
    for (index, (path, key_type)) in wanted.iter().enumerate() {
        let before = wanted[..index].iter().filter(|(_, other)| other == key_type).count();
        made.push(write(guest, session, path, *key_type, &comment, before)?);
    }
    made.sort_by(|a, b| a.path.cmp(&b.path));
    for key in &made {
        session.info(format!("new SSH host key: {} {} {}", key.kind, key.bits, key.fingerprint));
    }
    session.report.fingerprints.extend(made);
    if session.plan.host_keys == HostKeys::New && guest.has_cloud_init()? {
        // It would replace them at the first boot, and the fingerprints would be wrong.
        let text = "# Written by snf-image, which made new host keys.\nssh_deletekeys: false\n";
        put(guest, CONFIG_DIR, "99-snf-image-ssh.cfg", text.as_bytes(), 0o644)?;
    }
    Ok(())
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

/// A file that goes.
#[derive(Debug)]
struct Old {
    path: Vec<u8>,
    file_type: FileType,
    links: u32,
}

/// All host keys, public and private, and certificates: `ssh_host_*` and what `HostKey` names.
fn find(
    guest: &mut Guest,
    session: &mut Session<'_>,
    sshd: &SshdConfig,
) -> Result<Vec<Old>, TaskError> {
    let mut found: Vec<Old> = Vec::new();
    for entry in guest.tree.read_dir_optional(SSH_DIR)? {
        if entry.name.starts_with(b"ssh_host_") {
            let path = [SSH_DIR.as_bytes(), b"/", &entry.name].concat();
            look(guest, session, path, &mut found)?;
        }
    }
    for path in &sshd.host_keys {
        if !path.starts_with(b"/") {
            continue;
        }
        for path in [path.clone(), [path.as_slice(), b".pub"].concat()] {
            if found.iter().any(|old| old.path == path) {
                continue;
            }
            // The configuration may name anything: only what is a key is removed.
            match is_key(guest, &path) {
                Ok(Some(true)) => look(guest, session, path, &mut found)?,
                Ok(None) => {}
                Ok(Some(false)) => session.warn(format!(
                    "sshd_config names the host key {}, but that file is not a key; it was left \
                     alone",
                    display_name(&path)
                )),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(found)
}

fn look(
    guest: &mut Guest,
    session: &mut Session<'_>,
    path: Vec<u8>,
    found: &mut Vec<Old>,
) -> Result<(), TaskError> {
    let stat = match guest.tree.lstat(&path) {
        Ok(stat) => stat,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if stat.file_type == FileType::Directory {
        session.warn(format!("{} is a directory; it was left alone", display_name(&path)));
        return Ok(());
    }
    found.push(Old { path, file_type: stat.file_type, links: stat.links });
    Ok(())
}

/// Whether the file holds an SSH key; `None` when there is no file.
fn is_key(guest: &Guest, path: &[u8]) -> snf_fs::Result<Option<bool>> {
    let Some(stat) = guest.tree.stat_optional(path)? else { return Ok(None) };
    if stat.file_type != FileType::Regular || stat.size > CONFIG_MAX {
        return Ok(Some(false));
    }
    let text = guest.tree.read(path, CONFIG_MAX)?;
    let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    let public = [&b"ssh-"[..], b"ecdsa-sha2-"].iter().any(|prefix| text.starts_with(prefix));
    Ok(Some(public || text.is_empty() || has(b"PRIVATE KEY")))
}

/// Chooses the keys to make: one for every key that the image had and every `HostKey`; where there
/// were
/// none but there is an sshd, the three that it looks for.
fn choose(
    guest: &mut Guest,
    session: &mut Session<'_>,
    sshd: &SshdConfig,
    found: &[Old],
) -> Result<Vec<(Vec<u8>, KeyType)>, TaskError> {
    let mut wanted: Vec<(Vec<u8>, KeyType)> = Vec::new();
    let (mut dropped, mut more) = (Vec::new(), 0usize);
    for path in found.iter().map(|old| &old.path).chain(&sshd.host_keys) {
        let is_private = |path: &[u8]| !path.ends_with(b".pub");
        if !is_private(path) || !path.starts_with(b"/") || wanted.iter().any(|(p, _)| p == path) {
            continue;
        }
        match key_type(path) {
            Some(_) if is_hidden(guest, path)? => {
                session.warn(format!(
                    "the host key {} is where the running guest does not see it; none was made",
                    display_name(path)
                ));
            }
            Some(_) if wanted.len() >= HOST_KEYS => {
                return Err(TaskError::request(format!(
                    "the image has more than {HOST_KEYS} SSH host keys; remove those that its sshd \
                     does not use"
                )));
            }
            // A file that is not a key was left alone and stays.
            Some(key_type) if may_write(guest, path, found)? => {
                wanted.push((path.clone(), key_type));
            }
            Some(_) => {}
            None if dropped.len() < NAMES => dropped.push(display_name(path)),
            None => more += 1,
        }
    }
    let has_sshd = sshd.present
        || guest.tree.exists("/usr/sbin/sshd")?
        || guest.tree.exists("/usr/bin/sshd")?;
    if wanted.is_empty() && (has_sshd || !found.is_empty()) {
        wanted = KeyType::ALL
            .into_iter()
            .map(|key_type| {
                (format!("{SSH_DIR}/{}", key_type.host_key_file()).into_bytes(), key_type)
            })
            .collect();
    }
    if more > 0 {
        dropped.push(format!("and {more} more"));
    }
    if !dropped.is_empty() {
        session.info(format!(
            "not replaced, because sshd no longer takes such keys or their kind is not known: {}",
            dropped.join(", ")
        ));
    }
    Ok(wanted)
}

/// Whether the directory of a path leads to where the running guest sees something else. (What the
/// path itself leads to does not matter: a link is replaced by a file.)
fn is_hidden(guest: &Guest, path: &[u8]) -> Result<bool, TaskError> {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    Ok(hidden_at_boot(&guest.tree.resolve_missing(&path[..=slash])?).is_some())
}

fn may_write(guest: &Guest, path: &[u8], found: &[Old]) -> Result<bool, TaskError> {
    let goes = found.iter().any(|old| old.path == path);
    Ok(goes || matches!(guest.tree.lstat(path), Err(error) if error.is_not_found()))
}

/// The kind of key that a file is for, by its name.
fn key_type(path: &[u8]) -> Option<KeyType> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    // "ed25519" before "ecdsa" and "dsa": each name must match its own kind only.
    [
        ("ed25519", Some(KeyType::Ed25519)),
        ("ecdsa", Some(KeyType::Ecdsa)),
        ("dsa", None),
        ("rsa", Some(KeyType::Rsa)),
    ]
    .into_iter()
    .find(|(part, _)| name.contains(part))
    .and_then(|(_, key_type)| key_type)
}

/// Makes a key and writes both its files.
fn write(
    guest: &mut Guest,
    session: &mut Session<'_>,
    path: &[u8],
    key_type: KeyType,
    comment: &str,
    index: usize,
) -> Result<Fingerprint, TaskError> {
    let key = session.host_keys.make(key_type, comment, index)?;
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
    Ok(Fingerprint {
        path: display_name(path),
        kind: key_type.label().to_owned(),
        bits: key_type.bits(),
        fingerprint: key.fingerprint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
