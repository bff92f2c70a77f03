//! `--lock-user`, `--unlock-user` and `--expire-password`: one field of `/etc/shadow`.

use serde::{Deserialize, Serialize};
use snf_fs::Attributes;

use super::{Act, Action, BadEdit, How, Verb};
use crate::ask::properties::OsFamily;
use crate::guest::Guest;
use crate::guest::passwd::{self, EditError, Lock};
use crate::task::{Needs, Session, TaskError};

const SHADOW: &str = "/etc/shadow";

/// Makes the value and the option of an edit of one user's password field.
macro_rules! edit_of_user {
    ($(#[$doc:meta])* $kind:ident, $name:literal, $help:literal, $lock:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields)]
        pub struct $kind {
            /// The name of the user.
            user: String,
        }

        impl $kind {
            fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
                check_name(text)?;
                Ok(Action::$kind(Self { user: text.to_owned() }))
            }
        }

        impl Act for $kind {
            const VERBS: &'static [Verb] = &[Verb {
                name: $name,
                metavar: "NAME",
                help: $help,
                follows: false,
                parse: Self::parse,
            }];
            const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

            fn subject(&self) -> String {
                self.user.clone()
            }

            fn check(&self) -> Result<(), BadEdit> {
                check_name(&self.user)
            }

            fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
                change(&self.user, $lock, guest, session)
            }
        }
    };
}

edit_of_user!(
    /// A user whose password does not let in.
    LockUser,
    "lock-user",
    "Lock a user's password and keep its hash, as passwd -l does. Keys still let the user in.",
    Lock::Lock
);
edit_of_user!(
    /// A user whose password lets in again.
    UnlockUser,
    "unlock-user",
    "Unlock a user's password, as passwd -u does.",
    Lock::Unlock
);
edit_of_user!(
    /// A user who has to choose a new password.
    ExpirePassword,
    "expire-password",
    "Have a user choose a new password at the next login, as passwd -e does.",
    Lock::Expire
);

fn check_name(user: &str) -> Result<(), BadEdit> {
    if user.is_empty() || user.contains([':', '\n', '\0', '/']) {
        return Err(BadEdit::new(format!("'{}' is no name of a user", user.escape_debug())));
    }
    Ok(())
}

fn change(
    user: &str,
    lock: Lock,
    guest: &mut Guest,
    session: &mut Session<'_>,
) -> Result<(), TaskError> {
    let users = guest.config("/etc/passwd")?.unwrap_or_default();
    if passwd::find_user(&users, user.as_bytes()).is_none() {
        let known = passwd::list_users(&users, 10);
        return Err(TaskError::Request(format!("the guest has no user {user}; it has {known}")));
    }
    let missing =
        || TaskError::Request(format!("{SHADOW} has no line for {user}; set a password first"));
    let content = guest.config(SHADOW)?.ok_or_else(missing)?;
    let before = passwd::password_of(&content, user.as_bytes()).map(<[u8]>::to_vec);
    let new = passwd::lock_shadow(&content, user.as_bytes(), lock).map_err(|error| match error {
        EditError::NoSuchUser => missing(),
        EditError::Malformed => TaskError::Request(format!("the line of {user} in {SHADOW} is too short")),
        EditError::BadValue => TaskError::Request(format!(
            "{user} would have no password and could log in without one; set a password with --user-password"
        )),
    })?;
    let locked = before.is_some_and(|hash| matches!(hash.first(), Some(b'!' | b'*')));
    if lock == Lock::Expire && locked {
        session.warn(format!(
            "--expire-password {user}: no password of {user} lets in, so none is asked for"
        ));
    }
    // The file keeps its owner and mode.
    guest.tree.write(SHADOW, &new, Attributes { mode: 0o640, uid: 0, gid: 0 })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};

    fn shadow(guest: &mut Guest) -> String {
        String::from_utf8(guest.tree().read("/etc/shadow", 1000).unwrap()).unwrap()
    }

    #[test]
    fn locks_keep_the_hash() {
        let mut guest = Guest::debian();
        guest.write("/etc/shadow", "root:$y$x:19000:0:99999:7:::\nann:!:19000:0:99999:7:::\n");
        runs(&mut guest, "lock-user", "root");
        runs(&mut guest, "lock-user", "root");
        assert!(shadow(&mut guest).starts_with("root:!$y$x:19000:0"));
        runs(&mut guest, "unlock-user", "root");
        runs(&mut guest, "unlock-user", "root");
        assert!(shadow(&mut guest).starts_with("root:$y$x:19000:0"));
        runs(&mut guest, "expire-password", "root");
        assert!(shadow(&mut guest).starts_with("root:$y$x:0:0:99999"));
        assert!(fails(&mut guest, "unlock-user", "ann").contains("would have no password"));
        runs(&mut guest, "expire-password", "ann");
        assert!(guest.warnings()[0].contains("no password of ann lets in"));
        assert!(fails(&mut guest, "lock-user", "bob").contains("no user bob; it has root, ann"));
        assert!(parse("lock-user", "a:b").is_err());
    }
}
