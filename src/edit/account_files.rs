//! The files of users and groups as one run changes them, and the numbers that are free.

use std::collections::BTreeSet;

use snf_fs::Attributes;

use crate::guest::Guest;
use crate::guest::enroll::{self, with_line};
use crate::guest::login_defs::Rules;
use crate::guest::passwd::{self, EditError, User};
use crate::task::TaskError;

pub(super) const PASSWD: &str = "/etc/passwd";
pub(super) const GROUP: &str = "/etc/group";
pub(super) const SHADOW: &str = "/etc/shadow";
pub(super) const GSHADOW: &str = "/etc/gshadow";
/// The files in which systems with a read-only `/usr` (ostree) keep those of their packages.
const MORE_PASSWD: &str = "/usr/lib/passwd";
const MORE_GROUP: &str = "/usr/lib/group";

/// The group of a request: its name or number.
#[derive(Clone, Debug)]
pub(super) struct KnownGroup {
    pub(super) name: String,
    pub(super) number: u32,
}

/// All users of the guest.
pub(super) fn users(guest: &Guest) -> Result<Vec<User>, TaskError> {
    let mut users = Vec::new();
    for path in [PASSWD, MORE_PASSWD] {
        users.extend(passwd::users(&guest.config(path)?.unwrap_or_default()));
    }
    Ok(users)
}

/// All groups of the guest.
pub(super) fn groups(guest: &Guest) -> Result<Vec<(Vec<u8>, u32)>, TaskError> {
    let mut groups = Vec::new();
    for path in [GROUP, MORE_GROUP] {
        let text = guest.config(path)?.unwrap_or_default();
        groups.extend(passwd::groups(&text).map(|(name, number)| (name.to_vec(), number)));
    }
    Ok(groups)
}

/// The group of this name or number.
pub(super) fn group(guest: &Guest, asked: &str) -> Result<KnownGroup, TaskError> {
    let groups = groups(guest)?;
    let number = asked.parse::<u32>().ok();
    let found = groups
        .iter()
        .find(|(name, _)| name == asked.as_bytes())
        .or_else(|| groups.iter().find(|(_, this)| Some(*this) == number));
    let Some((name, number)) = found else {
        return Err(TaskError::request(format!(
            "the guest has no group {asked}; make it first with --add-group {asked}"
        )));
    };
    Ok(KnownGroup { name: String::from_utf8_lossy(name).into_owned(), number: *number })
}

/// Makes a group and gives its number: the one asked for, else `preferred` where it is free, else the
/// next.
pub(super) fn make_group(
    guest: &mut Guest,
    rules: &Rules,
    name: &str,
    asked: Option<u32>,
    preferred: Option<u32>,
    system: bool,
) -> Result<u32, TaskError> {
    let groups = groups(guest)?;
    if groups.iter().any(|(known, _)| known == name.as_bytes()) {
        return Err(TaskError::request(format!("the guest has a group {name} already")));
    }
    let used: BTreeSet<u32> = groups.iter().map(|(_, number)| *number).collect();
    let range = if system { &rules.system_gids } else { &rules.gids };
    let preferred = preferred.filter(|number| range.contains(number) && !used.contains(number));
    let number = match (asked, preferred) {
        (Some(number), _) => {
            if let Some((owner, _)) = groups.iter().find(|(_, this)| *this == number) {
                return Err(TaskError::request(format!(
                    "the number {number} is that of the group {}",
                    snf_fs::error::display_name(owner)
                )));
            }
            number
        }
        (None, Some(number)) => number,
        (None, None) => enroll::free_number(&used, range, system)
            .ok_or_else(|| no_number("group", "GID", range))?,
    };
    add_line(guest, GROUP, &format!("{name}:x:{number}:"))?;
    if guest.tree.exists(GSHADOW)? {
        add_line(guest, GSHADOW, &format!("{name}:!::"))?;
    }
    Ok(number)
}

/// Puts a user into a group.
pub(super) fn join(guest: &mut Guest, group: &str, user: &str) -> Result<(), TaskError> {
    let central = guest.config(GROUP)?.unwrap_or_default();
    if passwd::find_group(&central, group.as_bytes()).is_none() {
        // A group of a package below /usr gets its line here, too, so that it can have members.
        let more = guest.config(MORE_GROUP)?.unwrap_or_default();
        let number = passwd::find_group(&more, group.as_bytes());
        if let Some(number) = number {
            add_line(guest, GROUP, &format!("{group}:x:{number}:"))?;
        }
    }
    for path in [GROUP, GSHADOW] {
        let Some(text) = guest.config(path)? else { continue };
        match enroll::add_member(&text, group, user) {
            Ok(new) => write(guest, path, &new)?,
            Err(EditError::NoSuchUser) if path == GSHADOW => {}
            Err(_) => {
                return Err(TaskError::request(format!(
                    "the line of the group {group} in {path} has too few fields"
                )));
            }
        }
    }
    Ok(())
}

/// Adds a line to a file of accounts.
pub(super) fn add_line(guest: &mut Guest, path: &str, line: &str) -> Result<(), TaskError> {
    let old = guest.config(path)?.unwrap_or_default();
    write(guest, path, &with_line(&old, line.as_bytes()))
}

/// Writes a file of accounts, which keeps its owner and mode.
pub(super) fn write(guest: &mut Guest, path: &str, content: &[u8]) -> Result<(), TaskError> {
    let mode = if matches!(path, SHADOW | GSHADOW) { 0o600 } else { 0o644 };
    guest.tree.write(path, content, Attributes { mode, uid: 0, gid: 0 })?;
    Ok(())
}

/// No number is free.
pub(super) fn no_number(
    what: &str,
    key: &str,
    range: &crate::guest::login_defs::Range,
) -> TaskError {
    TaskError::request(format!(
        "no number for a new {what} is free from {} to {}, which is what {key}_MIN and {key}_MAX of \
         /etc/login.defs allow; give one",
        range.start(),
        range.end()
    ))
}
