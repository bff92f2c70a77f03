//! The place of a user's hash: `/etc/shadow`, or a file of the user's own (tcb).

use snf_fs::Attributes;
use snf_fs::error::display_name;

use super::super::{Guest, Session, TaskError};
use super::PASSWD;
use crate::craft::secret::Secret;
use crate::guest::passwd::{self, EditError, User};

const SHADOW: &str = "/etc/shadow";
/// ALT Linux and others with tcb(5): a directory for each user.
const TCB: &str = "/etc/tcb";

/// The file that holds the user's line, or is to hold it.
fn shadow_of(guest: &Guest, user: &User) -> Result<String, TaskError> {
    let name = std::str::from_utf8(&user.name).ok().filter(|name| !name.contains('/'));
    let Some(name) = name.filter(|name| !matches!(*name, "." | "..")) else {
        return Ok(SHADOW.into());
    };
    let own = format!("{TCB}/{name}/shadow");
    let central = guest.config(SHADOW)?.map(Secret::new);
    let in_central =
        central.is_some_and(|shadow| passwd::password_of(shadow.expose(), &user.name).is_some());
    if in_central || !guest.tree.is_dir(TCB)? {
        return Ok(SHADOW.into());
    }
    if !guest.tree.is_file(&own)? {
        return Err(TaskError::request(format!(
            "the image keeps hashes in {TCB}, and there is no {own} for the user \"{name}\"; make it \
             in the image"
        )));
    }
    Ok(own)
}

/// The hash that counts at a login; `None` where there is no line.
pub(super) fn hash_of(guest: &Guest, user: &User) -> Result<Option<Secret>, TaskError> {
    let shadow = Secret::new(guest.config(&shadow_of(guest, user)?)?.unwrap_or_default());
    let passwd = guest.config(PASSWD)?.unwrap_or_default();
    // The password field may have changed since the user was found.
    match passwd::password_of(&passwd, &user.name) {
        Some(b"x") | None => {}
        Some(field) => return Ok(Some(Secret::new(field))),
    }
    Ok(passwd::password_of(shadow.expose(), &user.name).map(Secret::new))
}

/// The day on which the account expires.
pub(super) fn expiry(guest: &Guest, user: &User) -> Result<Option<i64>, TaskError> {
    let shadow = Secret::new(guest.config(&shadow_of(guest, user)?)?.unwrap_or_default());
    Ok(passwd::expiry_of(shadow.expose(), &user.name))
}

/// Sets the hash of a user. A hash never goes into `passwd`, which everybody can read: a file or a
/// line that is missing is made.
pub(super) fn set_hash(
    guest: &mut Guest,
    session: &Session<'_>,
    user: &User,
    hash: &Secret,
) -> Result<(), TaskError> {
    let shown = display_name(&user.name);
    let path = shadow_of(guest, user)?;
    let old = guest.config(&path)?.map(Secret::new);
    let is_new = old.is_none();
    let old = old.unwrap_or_else(|| Secret::new(b""));
    let days = session.clock.days();
    let edited = match passwd::set_shadow(old.expose(), &user.name, hash.expose(), days) {
        Err(EditError::NoSuchUser) => {
            passwd::add_shadow(old.expose(), &user.name, hash.expose(), days)
        }
        edited => edited,
    };
    let edited = Secret::new(edited.map_err(|error| edit_error(error, &shown, &path))?);
    let mut attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };
    if is_new {
        let group = guest.config("/etc/group")?.unwrap_or_default();
        if let Some(gid) = passwd::find_group(&group, b"shadow") {
            attributes = Attributes { mode: 0o640, uid: 0, gid };
        }
    }
    guest.tree.write(&path, edited.expose(), attributes)?;
    // Only an "x" sends the login to the shadow file.
    if user.password != b"x" {
        let passwd = guest.config(PASSWD)?.unwrap_or_default();
        let edited = passwd::set_passwd(&passwd, &user.name, b"x")
            .map_err(|error| edit_error(error, &shown, PASSWD))?;
        guest.tree.write(PASSWD, &edited, Attributes { mode: 0o644, uid: 0, gid: 0 })?;
    }
    Ok(())
}

fn edit_error(error: EditError, user: &str, file: &str) -> TaskError {
    TaskError::request(match error {
        EditError::NoSuchUser => format!("the user \"{user}\" is not in {file}"),
        EditError::Malformed => format!("the line of \"{user}\" in {file} has no second field"),
        EditError::BadValue => {
            format!(
                "the hash for \"{user}\" has a colon or a line break in it; give one line of crypt(3)"
            )
        }
    })
}
