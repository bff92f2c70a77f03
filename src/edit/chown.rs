//! `--chown`: owner and group.

use serde::{Deserialize, Serialize};

use super::flag;
use super::path::pair;
use super::{Access, Act, Action, BadEdit, GuestPath, How, Verb, place};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// Owner and group of a file or directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Chown {
    /// The file or directory.
    path: GuestPath,
    /// A user of the guest, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// A group of the guest, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Whether a symbolic link is followed.
    #[serde(default = "flag::yes", skip_serializing_if = "flag::is_yes")]
    follow: bool,
}

impl Chown {
    fn parse(text: &str, how: How) -> Result<Action, BadEdit> {
        let (names, path) = pair(text, "OWNER[:GROUP]:GUESTPATH or :GROUP:GUESTPATH")?;
        let (owner, group) = match names.split_once(':') {
            Some(("", group)) => (None, Some(group.to_owned())),
            Some((owner, group)) => (Some(owner.to_owned()), Some(group.to_owned())),
            None => (Some(names.to_owned()), None),
        };
        let Access { owner, group, .. } = Access { owner, group, mode: None }.checked()?;
        Ok(Action::Chown(Self { path, owner, group, follow: how.follow }))
    }
}

impl Act for Chown {
    const VERBS: &'static [Verb] = &[Verb {
        name: "chown",
        metavar: "OWNER[:GROUP]:GUESTPATH",
        help: "Set owner and group, by names that the guest has or by numbers.",
        follows: true,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        let (owner, group) = (self.owner.clone(), self.group.clone());
        let access = Access { owner, group, mode: None }.checked()?;
        if access.is_empty() {
            return Err(BadEdit::new("one of owner and group is needed"));
        }
        Ok(())
    }

    fn subject(&self) -> String {
        self.path.to_string()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        if self.owner.is_none() && self.group.is_none() {
            return Err(TaskError::request("owner or group is needed"));
        }
        if guest.is_windows() {
            session.warn(format!("--chown {} has no effect on Windows", self.path));
            return Ok(());
        }
        let spot = place::find(guest, &self.path, self.follow)?;
        let stat = guest.tree.lstat(&spot.path)?;
        let access = Access { owner: self.owner.clone(), group: self.group.clone(), mode: None };
        place::warn_unowned(guest, session, &spot.path, &self.path, "--chown has");
        let wanted = access.on(guest, Some(&stat), stat.mode)?;
        guest.tree.lchown(&spot.path, wanted.uid, wanted.gid)?;
        // As chown(2) does: another owner's rights are not handed on.
        super::write::drop_privileges(&mut guest.tree, &spot.path, &stat, false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};

    #[test]
    fn owners_and_groups() {
        let mut guest = Guest::debian();
        guest.tree().chmod("/etc/hostname", 0o4755).unwrap();
        runs(&mut guest, "chown", "ann:shadow:/etc/hostname");
        assert_eq!(guest.attributes("/etc/hostname"), (0o755, 1000, 42));
        runs(&mut guest, "chown", "root:/etc/hostname");
        assert_eq!(guest.attributes("/etc/hostname"), (0o755, 0, 42));
        runs(&mut guest, "chown", ":7:/etc/hostname");
        assert_eq!(guest.attributes("/etc/hostname"), (0o755, 0, 7));
        assert!(fails(&mut guest, "chown", "bob:/etc/hostname").contains("no user \"bob\""));
        assert!(parse("chown", "/etc").is_err() && parse("chown", "a::/etc").is_err());
    }
}
