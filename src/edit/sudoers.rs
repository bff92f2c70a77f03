//! A rule that lets a user become root: a file for sudo, or for doas where the guest has that and no
//! sudo.

use serde::{Deserialize, Serialize};
use snf_fs::Attributes;

use super::place::PARENTS;
use crate::guest::Guest;
use crate::task::{Session, TaskError};

const SUDOERS: [&str; 2] = ["/etc/sudoers", "/usr/etc/sudoers"];
const SUDOERS_DIR: &str = "/etc/sudoers.d";
const DOAS_DIR: &str = "/etc/doas.d";

/// How a user may become root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Sudo {
    /// Without being asked for a password.
    NoPassword,
    /// With the user's own password.
    Password,
}

/// Writes the rule.
///
/// # Errors
/// Errors of the tree.
pub(super) fn allow(
    guest: &mut Guest,
    session: &mut Session<'_>,
    name: &str,
    uid: u32,
    how: Sudo,
) -> Result<(), TaskError> {
    let tree = &guest.tree;
    let has = |paths: &[&str]| -> Result<bool, TaskError> {
        paths.iter().try_fold(false, |found, path| Ok(found || tree.exists(path)?))
    };
    let has_sudo = has(&["/usr/bin/sudo", "/bin/sudo", "/usr/local/bin/sudo"])?;
    if !has_sudo && has(&["/usr/bin/doas"])? {
        let nopass = if how == Sudo::NoPassword { "nopass " } else { "" };
        let text = format!("# Written by snf-image.\npermit {nopass}{name}\n");
        guest.tree.mkdir_all(DOAS_DIR, PARENTS)?;
        let path = format!("{DOAS_DIR}/90-snf-image-{}.conf", file_name(name));
        return put(guest, &path, &text, 0o600);
    }
    // An upper-case name would be an alias to sudo.
    let user = if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        name.replace('$', "\\$")
    } else {
        format!("#{uid}")
    };
    let nopasswd = if how == Sudo::NoPassword { "NOPASSWD: " } else { "" };
    let text = format!("# Written by snf-image.\n{user} ALL=(ALL:ALL) {nopasswd}ALL\n");
    if !guest.tree.exists(SUDOERS_DIR)? {
        guest.tree.mkdir_all(SUDOERS_DIR, Attributes { mode: 0o750, uid: 0, gid: 0 })?;
    }
    put(guest, &format!("{SUDOERS_DIR}/90-snf-image-{}", file_name(name)), &text, 0o440)?;
    if !has_sudo {
        session.warn(format!(
            "--add-user {name}: sudo has no effect before its package is installed: the guest has \
             no sudo"
        ));
        return Ok(());
    }
    let mut main = None;
    for path in SUDOERS {
        if main.is_none() {
            main = guest.config(path)?;
        }
    }
    if !main.is_some_and(|text| includes(&String::from_utf8_lossy(&text))) {
        session.warn(format!(
            "--add-user {name}: sudo has no effect: /etc/sudoers does not include {SUDOERS_DIR}"
        ));
    }
    Ok(())
}

/// Whether sudo reads the directory.
fn includes(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("@includedir" | "#includedir"))
            && words.next().is_some_and(|dir| dir.trim_end_matches('/') == SUDOERS_DIR)
    })
}

/// sudo passes over names with a dot.
fn file_name(name: &str) -> String {
    name.replace(['.', '$'], "_")
}

fn put(guest: &mut Guest, path: &str, text: &str, mode: u16) -> Result<(), TaskError> {
    guest.tree.write(path, text.as_bytes(), Attributes { mode, uid: 0, gid: 0 })?;
    guest.tree.chown(path, 0, 0)?;
    Ok(guest.tree.chmod(path, mode)?)
}
