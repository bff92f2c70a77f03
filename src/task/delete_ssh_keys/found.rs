//! The host keys of sshd that are there: by the name of the file or by a line of the configuration,
//! their kind by their content.

use snf_fs::FileType;
use snf_fs::error::display_name;

use super::super::{Guest, Session, TaskError};
use super::SSH_DIR;
use crate::craft::sshkey::{KeyContent, KeyType};
use crate::guest::sshd::SshdConfig;

/// No key file is larger: 16 KiB of RSA in base64 would be 90,000 bits.
const KEY_BYTES: u64 = 64 << 10;

/// A file that goes.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) path: Vec<u8>,
    pub(super) file_type: FileType,
    pub(super) links: u32,
}

/// All host keys, public and private, and certificates: `ssh_host_*`, and what `HostKey` and
/// `HostCertificate` name.
pub(super) fn find(
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
    let named = |list: &[Vec<u8>]| {
        list.iter().filter(|path| path.starts_with(b"/")).cloned().collect::<Vec<_>>()
    };
    let mut wanted: Vec<(Vec<u8>, bool)> = Vec::new();
    for path in named(&sshd.host_keys) {
        let public = [path.as_slice(), b".pub"].concat();
        wanted.extend([(path, true), (public, true)]);
    }
    wanted.extend(named(&sshd.host_certificates).into_iter().map(|path| (path, false)));
    for (path, said) in wanted {
        if found.iter().any(|old| old.path == path) {
            continue;
        }
        // The configuration may name anything: only what is a key is removed.
        match content(guest, &path)? {
            Some(KeyContent::NotAKey) if said => session.warn(format!(
                "sshd_config names the host key {}, but that file is not a key; it was left alone",
                display_name(&path)
            )),
            Some(KeyContent::NotAKey) | None => {}
            Some(_) => look(guest, session, path, &mut found)?,
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
    let certificate = path.ends_with(b"-cert.pub")
        || matches!(content(guest, &path), Ok(Some(KeyContent::Certificate)));
    if certificate {
        session.warn(format!(
            "{} is a certificate of the old host key; it was removed: have the new key signed, or \
             remove HostCertificate from sshd_config",
            display_name(&path)
        ));
    }
    found.push(Old { path, file_type: stat.file_type, links: stat.links });
    Ok(())
}

/// The content of a file; `None` when there is no file.
fn content(guest: &Guest, path: &[u8]) -> snf_fs::Result<Option<KeyContent>> {
    let Some(stat) = guest.tree.stat_optional(path)? else { return Ok(None) };
    if stat.file_type != FileType::Regular || stat.size > KEY_BYTES {
        return Ok(Some(KeyContent::NotAKey));
    }
    Ok(Some(KeyContent::of(&guest.tree.read(path, KEY_BYTES)?)))
}

/// The kind of key that a private file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One that we make.
    Of(KeyType),
    /// A key of another kind, such as DSA.
    Other,
    /// Neither the file, its public half nor its name says so.
    Unknown,
}

/// The kind by the file, by its public half, or, where both are missing, by the file's name.
pub(super) fn kind(guest: &Guest, path: &[u8]) -> Kind {
    let read = |path: &[u8]| content(guest, path).ok().flatten();
    match read(path) {
        Some(KeyContent::Private(Some(key_type))) => return Kind::Of(key_type),
        Some(KeyContent::Private(None)) => {
            return match read(&[path, b".pub"].concat()) {
                Some(KeyContent::Public(Some(key_type))) => Kind::Of(key_type),
                _ => by_name(path).unwrap_or(Kind::Other),
            };
        }
        _ => {}
    }
    by_name(path).unwrap_or(Kind::Unknown)
}

fn by_name(path: &[u8]) -> Option<Kind> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    // "ed25519" before "ecdsa" and "dsa": each name must match its own kind only.
    [
        ("ed25519", Kind::Of(KeyType::Ed25519)),
        ("ecdsa", Kind::Of(KeyType::Ecdsa)),
        ("dsa", Kind::Other),
        ("rsa", Kind::Of(KeyType::Rsa)),
    ]
    .into_iter()
    .find(|(part, _)| name.contains(part))
    .map(|(_, kind)| kind)
}
