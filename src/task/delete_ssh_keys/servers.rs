//! The host keys of dropbear and tinyssh.

use snf_fs::error::display_name;
use snf_fs::{Attributes, FileType};

use super::super::{Guest, Session, TaskError, hidden_at_boot};
use super::Maker;
use crate::craft::sshkey::{KeyPair, KeyType, dropbear_kind};
use crate::limits::HOST_KEYS;

const DROPBEAR: &str = "/etc/dropbear";
const TINYSSH: &str = "/etc/tinyssh/sshkeydir";
/// Keys that are in the initramfs, too, which nobody here makes anew.
const INITRAMFS: [&str; 2] = ["/etc/dropbear/initramfs", "/etc/dropbear-initramfs"];
const KEY_BYTES: u64 = 64 << 10;

/// Removes or replaces them; gives whether there were any.
pub(super) fn renew(
    guest: &mut Guest,
    session: &mut Session<'_>,
    maker: &mut Maker,
) -> Result<bool, TaskError> {
    let dropbear = renew_dropbear(guest, session, maker)?;
    let tinyssh = renew_tinyssh(guest, session, maker)?;
    for dir in INITRAMFS {
        let has_key = guest.tree.read_dir_optional(dir)?.iter().any(|e| is_key_file(&e.name));
        if has_key {
            session.warn(format!(
                "the host keys in {dir} are in the initramfs, too, and stay: replace them in the \
                 guest and run update-initramfs -u"
            ));
        }
    }
    Ok(dropbear || tinyssh)
}

fn is_key_file(name: &[u8]) -> bool {
    name.starts_with(b"dropbear_") && name.ends_with(b"_host_key")
}

/// Whether a directory is there and the running guest sees it.
fn is_seen(guest: &Guest, dir: &str) -> Result<bool, TaskError> {
    Ok(guest.tree.is_dir(dir)? && hidden_at_boot(&guest.tree.resolve_missing(dir)?).is_none())
}

fn renew_dropbear(
    guest: &mut Guest,
    session: &mut Session<'_>,
    maker: &mut Maker,
) -> Result<bool, TaskError> {
    if !is_seen(guest, DROPBEAR)? {
        return Ok(false);
    }
    let mut names: Vec<Vec<u8>> =
        guest.tree.read_dir(DROPBEAR)?.into_iter().map(|entry| entry.name).collect();
    names.retain(|name| is_key_file(name));
    names.sort();
    if names.len() > HOST_KEYS {
        return Err(TaskError::request(format!(
            "the image has more than {HOST_KEYS} host keys in {DROPBEAR}; remove those that its \
             dropbear does not use"
        )));
    }
    let any = !names.is_empty();
    for name in names {
        let path = [DROPBEAR.as_bytes(), b"/", &name].concat();
        let stat = guest.tree.lstat(&path)?;
        if stat.file_type == FileType::Directory {
            session.warn(format!("{} is a directory; it was left alone", display_name(&path)));
            continue;
        }
        let content = match stat.file_type {
            FileType::Regular if stat.size <= KEY_BYTES => guest.tree.read(&path, KEY_BYTES)?,
            _ => Vec::new(),
        };
        let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
        let by_name = [
            (&b"ed25519"[..], KeyType::Ed25519),
            (b"ecdsa", KeyType::Ecdsa),
            (b"rsa", KeyType::Rsa),
        ];
        let by_name = by_name.into_iter().find(|(part, _)| has(part)).map(|(_, kind)| kind);
        // A link is replaced by a file, and so is one of several names of a file.
        guest.tree.unlink(&path)?;
        if let Some(key_type) = dropbear_kind(&content).or(by_name)
            && let Some(key) = maker.make(session, key_type, &path)?
        {
            write(guest, &path, key.dropbear()?.expose(), 0o600)?;
        }
    }
    Ok(any)
}

fn renew_tinyssh(
    guest: &mut Guest,
    session: &mut Session<'_>,
    maker: &mut Maker,
) -> Result<bool, TaskError> {
    if !is_seen(guest, TINYSSH)? {
        return Ok(false);
    }
    let names: Vec<Vec<u8>> =
        guest.tree.read_dir(TINYSSH)?.into_iter().map(|entry| entry.name).collect();
    let (secret, public) = (b".ed25519.sk", b"ed25519.pk");
    let is_key = |name: &Vec<u8>| name.ends_with(b".sk") || name.ends_with(b".pk");
    let has_ed25519 = names.iter().any(|name| name == secret || name == public);
    for name in names.iter().filter(|name| is_key(name)) {
        let path = [TINYSSH.as_bytes(), b"/", name].concat();
        if guest.tree.lstat(&path)?.file_type == FileType::Directory {
            continue;
        }
        guest.tree.unlink(&path)?;
    }
    let path = format!("{TINYSSH}/ed25519.pk");
    if has_ed25519
        && let Some(key) = maker.make(session, KeyType::Ed25519, path.as_bytes())?
        && let Some((public, secret)) = KeyPair::tinyssh(&key)?
    {
        write(guest, path.as_bytes(), &public, 0o644)?;
        write(guest, format!("{TINYSSH}/.ed25519.sk").as_bytes(), secret.expose(), 0o600)?;
    }
    Ok(names.iter().any(is_key))
}

fn write(guest: &mut Guest, path: &[u8], content: &[u8], mode: u16) -> Result<(), TaskError> {
    guest.tree.write(path, content, Attributes { mode, uid: 0, gid: 0 })?;
    Ok(())
}
