//! The keys to make: what takes the place of each old one.

use snf_fs::error::display_name;

use super::super::{Guest, Session, TaskError, hidden_at_boot};
use super::found::{Kind, Old, kind};
use super::{SSH_DIR, Wanted};
use crate::craft::sshkey::KeyType;
use crate::guest::sshd::SshdConfig;
use crate::limits::{HOST_KEYS, NAMES};

/// Chooses the keys to make: one for every key that the image had and every `HostKey`; where there
/// were none but there is an sshd, the three that it looks for.
pub(super) fn choose(
    guest: &mut Guest,
    session: &mut Session<'_>,
    sshd: &SshdConfig,
    found: &[Old],
) -> Result<Vec<Wanted>, TaskError> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let (mut dropped, mut more) = (Vec::new(), 0usize);
    for path in found.iter().map(|old| &old.path).chain(&sshd.host_keys) {
        let is_private = !path.ends_with(b".pub") && path.starts_with(b"/");
        if !is_private || wanted.iter().any(|(p, _)| p == path) {
            continue;
        }
        match kind(guest, path) {
            // A file that is not a key was left alone and stays.
            Kind::Of(key_type) if is_usable(guest, session, path, found)? => {
                if wanted.len() >= HOST_KEYS {
                    return Err(TaskError::request(format!(
                        "the image has more than {HOST_KEYS} SSH host keys; remove those that its \
                         sshd does not use"
                    )));
                }
                wanted.push((path.clone(), key_type));
            }
            Kind::Of(_) => {}
            _ if dropped.len() < NAMES => dropped.push(display_name(path)),
            _ => more += 1,
        }
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
    // sshd reads no other keys than those that it names, if it names any.
    let read = |path: &Vec<u8>| wanted.iter().any(|(p, _)| p == path);
    if !sshd.host_keys.is_empty() && !sshd.host_keys.iter().any(read) {
        for path in &sshd.host_keys {
            if path.starts_with(b"/") && is_usable(guest, session, path, found)? {
                session.warn(format!(
                    "no kind of host key that is still made is known for {}, which sshd_config \
                     names; it is an Ed25519 key now",
                    display_name(path)
                ));
                wanted.push((path.clone(), KeyType::Ed25519));
                return Ok(wanted);
            }
        }
        session.warn(
            "sshd will not start: sshd_config names host keys, and none of them could be made",
        );
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
    Ok(wanted)
}

/// Whether a key can be made there: the running guest sees the place, and no other file is in it.
fn is_usable(
    guest: &Guest,
    session: &mut Session<'_>,
    path: &[u8],
    found: &[Old],
) -> Result<bool, TaskError> {
    if is_hidden(guest, path)? {
        session.warn(format!(
            "the host key {} is where the running guest does not see it; none was made",
            display_name(path)
        ));
        return Ok(false);
    }
    let goes = found.iter().any(|old| old.path == path);
    Ok(goes || matches!(guest.tree.lstat(path), Err(error) if error.is_not_found()))
}

/// Whether the directory of a path leads to where the running guest sees something else. (It does
/// not matter where the path itself leads to: a link is replaced by a file.)
fn is_hidden(guest: &Guest, path: &[u8]) -> Result<bool, TaskError> {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    Ok(hidden_at_boot(&guest.tree.resolve_missing(&path[..=slash])?).is_some())
}
