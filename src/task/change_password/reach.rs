//! Whether the passwords and keys of a run let their users in: each obstacle is a warning of its own.

use std::collections::{BTreeMap, BTreeSet};

use snf_fs::error::display_name;

use super::super::{Guest, Session, TaskError};
use super::account;
use crate::guest::passwd::{self, User};
use crate::guest::sshd::{Finding, Login, Reach, SshdConfig, Who, unsafe_place};

/// Users who got a password or keys.
#[derive(Default)]
pub(super) struct Granted {
    /// Those with a new password; not those whose new hash locks the account.
    pub(super) passwords: BTreeSet<Vec<u8>>,
    /// Those with new keys.
    pub(super) keys: BTreeMap<Vec<u8>, GrantedKeys>,
}

/// The logins that a run granted. After all edits a warning names those that cannot work.
pub(crate) struct Logins {
    /// The users.
    pub(super) users: Vec<User>,
    /// Their passwords and keys.
    pub(super) granted: Granted,
}

impl Logins {
    /// Takes out the keys whose file a later edit has deleted, and says so.
    pub(super) fn without_deleted_keys(
        &mut self,
        guest: &Guest,
        session: &mut Session<'_>,
    ) -> Result<(), TaskError> {
        let mut gone = Vec::new();
        for (user, keys) in &self.granted.keys {
            if !guest.tree.exists(&keys.file)? || !guest.tree.exists(&keys.home)? {
                gone.push((user.clone(), display_name(&keys.file)));
            }
        }
        for (user, file) in gone {
            let shown = display_name(&user);
            session.warn(format!("the keys of {shown} are lost: a later edit deletes {file}"));
            self.granted.keys.remove(&user);
        }
        Ok(())
    }
}

/// The keys of one user.
pub(super) struct GrantedKeys {
    /// The file, canonical.
    pub(super) file: Vec<u8>,
    /// The home, canonical.
    pub(super) home: Vec<u8>,
    /// Whether one of them names a command.
    pub(super) has_command: bool,
}

/// The user of a connection, with all groups.
pub(super) fn who(guest: &Guest, user: &User) -> Result<Who, TaskError> {
    let group = guest.config("/etc/group")?.unwrap_or_default();
    let groups = passwd::groups_of(&group, &user.name, user.gid);
    Ok(Who { name: user.name.clone(), groups })
}

/// Says what keeps each user out.
pub(super) fn warn(
    guest: &Guest,
    session: &mut Session<'_>,
    sshd: &SshdConfig,
    Logins { users, granted }: &Logins,
) -> Result<(), TaskError> {
    let mut told = BTreeSet::new();
    for user in users.iter().filter(|user| told.insert(user.name.clone())) {
        let keys = granted.keys.get(&user.name);
        let has_password = granted.passwords.contains(&user.name);
        let what = match (has_password, keys.is_some()) {
            (true, true) => "the password and the keys",
            (true, false) => "the password",
            (false, true) => "the keys",
            (false, false) => continue,
        };
        let shown = display_name(&user.name);
        for obstacle in of_account(guest, session, user)? {
            session.warn(format!("{what} of {shown} will let nobody in: {obstacle}"));
        }
        if !sshd.present {
            if keys.is_some() && !has_ssh_server(guest)? {
                session.warn(format!(
                    "the keys of {shown} will let nobody in: the image has no SSH server"
                ));
            }
            continue;
        }
        let login = Login {
            root: user.uid == 0,
            locked: account::hash_of(guest, user)?
                .is_some_and(|hash| hash.expose().starts_with(b"!")),
            has_password,
            has_key: keys.is_some(),
            has_command: keys.is_some_and(|keys| keys.has_command),
        };
        let who = who(guest, user)?;
        let mut by_key = false;
        if let Some(keys) = keys {
            let mut obstacles: Vec<String> =
                sshd.obstacles(&who, login, Reach::Key).iter().map(text).collect();
            obstacles.extend(of_file(guest, sshd, &who, user, keys)?);
            by_key = obstacles.is_empty();
            for obstacle in obstacles {
                session.warn(format!(
                    "the keys of {shown} will not let {shown} in over ssh: {obstacle}"
                ));
            }
        }
        // A user who logs in by key has the password for the console.
        if has_password && !by_key {
            for finding in sshd.obstacles(&who, login, Reach::Password) {
                session.warn(format!(
                    "the password of {shown} works on the console, but not over ssh: {}",
                    text(&finding)
                ));
            }
        }
    }
    Ok(())
}

fn text(finding: &Finding) -> String {
    let Finding { obstacle, depends } = finding;
    if *depends {
        return format!("{obstacle} for some connections (an address or a port decides)");
    }
    obstacle.to_string()
}

fn has_ssh_server(guest: &Guest) -> Result<bool, TaskError> {
    for dir in ["/usr/sbin", "/usr/bin", "/sbin", "/usr/local/sbin"] {
        for name in ["sshd", "dropbear", "dropbearmulti", "tinysshd"] {
            if guest.tree.exists(format!("{dir}/{name}"))? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The obstacles to any login of a user.
fn of_account(guest: &Guest, session: &Session<'_>, user: &User) -> Result<Vec<String>, TaskError> {
    let mut found = Vec::new();
    let today = session.clock.days();
    if let Some(day) = account::expiry(guest, user)?.filter(|day| *day <= today) {
        found.push(format!(
            "the account expired on day {day} after 1970 (chage -E -1 in the guest undoes that)"
        ));
    }
    let shell: &[u8] = if user.shell.is_empty() { b"/bin/sh" } else { &user.shell };
    let name = shell.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if matches!(name, b"nologin" | b"false") {
        found.push(format!("the login shell is {}", display_name(shell)));
    } else if is_missing(guest, shell)? {
        found.push(format!("the login shell {} is not in the image", display_name(shell)));
    }
    if user.uid != 0 && guest.tree.exists("/etc/nologin")? {
        found.push("/etc/nologin keeps out everybody but root".to_owned());
    }
    Ok(found)
}

/// Whether a program is missing: its directory is in the image, and the program is not.
fn is_missing(guest: &Guest, path: &[u8]) -> Result<bool, TaskError> {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let exists = |path: &[u8]| match guest.tree.exists(path) {
        Ok(found) => Ok(found),
        Err(snf_fs::Error::NotADirectory(_)) => Ok(false),
        Err(error) => Err(TaskError::from(error)),
    };
    Ok(path.starts_with(b"/") && exists(&path[..=slash])? && !exists(path)?)
}

/// The reasons for which sshd does not use the file of the keys.
fn of_file(
    guest: &Guest,
    sshd: &SshdConfig,
    who: &Who,
    user: &User,
    keys: &GrantedKeys,
) -> Result<Option<String>, TaskError> {
    if !sshd.settings(who, false).strict_modes() {
        return Ok(None);
    }
    let place = unsafe_place(&guest.tree, &keys.file, &keys.home, user.uid)?;
    if let Some((path, problem)) = place {
        return Ok(Some(format!(
            "{} {problem}, which StrictModes does not accept",
            display_name(&path)
        )));
    }
    let stat = guest.tree.stat(&keys.file)?;
    let readable = user.uid == 0
        || (stat.uid == user.uid && stat.mode & 0o400 != 0)
        || (stat.gid == user.gid && stat.mode & 0o040 != 0)
        || stat.mode & 0o004 != 0;
    Ok((!readable).then(|| {
        format!("{} cannot be read by {}", display_name(&keys.file), display_name(&user.name))
    }))
}
