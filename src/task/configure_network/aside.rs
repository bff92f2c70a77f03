//! The network that the template had: what would compete with ours is put aside.

use std::collections::BTreeSet;

use snf_fs::error::display_name;
use snf_fs::{Attributes, FileType};

use super::super::{Guest, Session, TaskError};
use super::render::ifupdown::without_cards;
use crate::guest::{CONFIG_MAX, glob};

/// The folder for files that are put aside; below it, their own paths.
const ASIDE: &str = "/var/lib/snf-image/aside";

/// Files that cloud-init wrote for the template's network cards, and names that udev kept for them.
const STALE: [&str; 7] = [
    "/etc/network/interfaces.d/50-cloud-init*",
    "/etc/netplan/50-cloud-init*.yaml",
    "/etc/NetworkManager/system-connections/cloud-init-*.nmconnection",
    "/etc/systemd/network/10-cloud-init-*.network",
    "/etc/systemd/network/50-cloud-init-*.link",
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/etc/udev/rules.d/85-persistent-net-cloud-init.rules",
];

/// Addresses that DHCP servers gave the template.
const LEASES: [&str; 6] = [
    "/var/lib/dhcp/*.lease*",
    "/var/lib/dhclient/*.lease*",
    "/var/lib/dhcpcd/*.lease*",
    "/var/lib/NetworkManager/*.lease*",
    "/var/lib/wicked/lease-*",
    "/var/lib/systemd/network/*.lease",
];

/// Puts a file aside: it is moved to where nobody looks for it.
pub(super) fn put_aside(
    guest: &mut Guest,
    session: &mut Session<'_>,
    path: &[u8],
) -> Result<(), TaskError> {
    let stat = guest.tree.lstat(path)?;
    if stat.file_type == FileType::Directory {
        return Ok(());
    }
    if stat.file_type == FileType::Regular {
        keep_copy(guest, path)?;
    }
    guest.tree.unlink(path)?;
    session.info(format!("{} was put aside ({ASIDE})", display_name(path)));
    Ok(())
}

/// Copies a file to where nobody looks for it; only root can read the copy.
pub(super) fn keep_copy(guest: &mut Guest, path: &[u8]) -> Result<(), TaskError> {
    let content = guest.tree.read(path, CONFIG_MAX)?;
    let copy = [ASIDE.as_bytes(), path].concat();
    let slash = copy.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    guest.tree.mkdir_all("/var/lib", Attributes { mode: 0o755, uid: 0, gid: 0 })?;
    guest.tree.mkdir_all(&copy[..slash], Attributes { mode: 0o700, uid: 0, gid: 0 })?;
    guest.tree.write(&copy, &content, Attributes { mode: 0o600, uid: 0, gid: 0 })?;
    Ok(())
}

/// Puts aside what was the template's, and forgets its addresses.
pub(super) fn clear(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    for pattern in STALE {
        for path in glob::expand_links(&guest.tree, pattern.as_bytes())? {
            put_aside(guest, session, &path)?;
        }
    }
    forget_leases(guest)
}

/// Removes the addresses that DHCP servers gave the template.
pub(in crate::task) fn forget_leases(guest: &mut Guest) -> Result<(), TaskError> {
    for pattern in LEASES {
        for path in glob::expand_links(&guest.tree, pattern.as_bytes())? {
            if guest.tree.lstat(&path)?.file_type != FileType::Directory {
                guest.tree.unlink(&path)?;
            }
        }
    }
    Ok(())
}

/// Removes those of our own files that an earlier run has left and this one does not write.
pub(super) fn clear_ours(
    guest: &mut Guest,
    patterns: &[&str],
    written: &BTreeSet<String>,
) -> Result<(), TaskError> {
    for pattern in patterns {
        for path in glob::expand_links(&guest.tree, pattern.as_bytes())? {
            let is_written = written.iter().any(|other| other.as_bytes() == path);
            if !is_written && guest.tree.lstat(&path)?.file_type != FileType::Directory {
                guest.tree.unlink(&path)?;
            }
        }
    }
    Ok(())
}

/// Takes the settings of the template's network cards out of the files that `interfaces` takes in;
/// what they say of other interfaces stays.
pub(super) fn clear_included(
    guest: &mut Guest,
    session: &mut Session<'_>,
    interfaces: &str,
) -> Result<BTreeSet<String>, TaskError> {
    let mut left_out = BTreeSet::new();
    for line in interfaces.lines() {
        let mut words = line.split_whitespace();
        let pattern = match (words.next(), words.next()) {
            (Some("source"), Some(pattern)) => pattern.to_owned(),
            (Some("source-directory"), Some(dir)) => format!("{dir}/*"),
            _ => continue,
        };
        if !pattern.starts_with('/') {
            continue;
        }
        for path in glob::expand(&guest.tree, pattern.as_bytes())? {
            if !guest.tree.is_file(&path)? {
                continue;
            }
            let old = guest.tree.read(&path, CONFIG_MAX)?;
            let Ok(old) = String::from_utf8(old) else { continue };
            let edited = without_cards(&old);
            if edited.left_out.is_empty() {
                continue;
            }
            let others = edited
                .text
                .lines()
                .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
            if others {
                keep_copy(guest, &path)?;
                let attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
                guest.tree.write(&path, edited.text.as_bytes(), attributes)?;
            } else {
                put_aside(guest, session, &path)?;
            }
            left_out.extend(edited.left_out);
        }
    }
    Ok(left_out)
}

/// Puts aside the `ifcfg` files of network cards that are not among `written`.
pub(super) fn clear_ifcfg(
    guest: &mut Guest,
    session: &mut Session<'_>,
    dir: &str,
    written: &BTreeSet<String>,
) -> Result<(), TaskError> {
    for path in glob::expand_links(&guest.tree, format!("{dir}/ifcfg-e*").as_bytes())? {
        let name = &path[dir.len() + b"/ifcfg-".len()..];
        let is_card = name.iter().all(u8::is_ascii_alphanumeric);
        let is_written = written.iter().any(|other| other.as_bytes() == path);
        if is_card && !is_written && guest.tree.is_file(&path)? {
            put_aside(guest, session, &path)?;
        }
    }
    Ok(())
}
