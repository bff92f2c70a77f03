//! `--mkdir`: a directory and those above it.

use serde::{Deserialize, Serialize};
use snf_fs::FileType;

use super::place::{self, Spot};
use super::{Access, Act, Action, BadEdit, GuestPath, How, Mode, Verb};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// Permission bits of a directory that nothing is said of.
const MODE: u16 = 0o755;

/// A directory, made where it is missing, with those above it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Mkdir {
    /// The directory.
    path: GuestPath,
    /// A user of the guest, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// A group of the guest, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Permissions, in octal as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
}

impl Mkdir {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let (path, Access { owner, group, mode }) = Access::split(text)?;
        Ok(Action::Mkdir(Self { path: GuestPath::new(path)?, owner, group, mode }))
    }

    fn access(&self) -> Access {
        Access { owner: self.owner.clone(), group: self.group.clone(), mode: self.mode }
    }
}

impl Act for Mkdir {
    const VERBS: &'static [Verb] = &[Verb {
        name: "mkdir",
        metavar: "GUESTPATH[:owner=,group=,mode=]",
        help: "Make a directory and those above it that are missing: root's, with mode 0755, \
               unless the last one is given another owner, group or mode.",
        follows: false,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        self.access().checked().map(drop)
    }

    fn subject(&self) -> String {
        self.path.to_string()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let Spot { path, existing } = place::find(guest, &self.path, true)?;
        let existing = existing.filter(|stat| stat.file_type == FileType::Directory);
        let wanted = self.access().on(guest, existing.as_ref(), MODE)?;
        guest.tree.mkdir_all(&path, place::PARENTS)?;
        if guest.is_windows() {
            if !self.access().is_empty() {
                session.warn(format!(
                    "{}: owner, group and mode have no effect: on Windows a directory has the \
                     permissions of the one above it",
                    self.path
                ));
            }
            return Ok(());
        }
        if !self.access().is_empty() {
            place::warn_unowned(guest, session, &path, &self.path, "owner, group and mode have");
        }
        guest.tree.chown(&path, wanted.uid, wanted.gid)?;
        guest.tree.chmod(&path, wanted.mode)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, runs};

    #[test]
    fn directories_are_made_once() {
        let mut guest = Guest::debian();
        runs(&mut guest, "mkdir", "/srv/a/b:owner=ann,mode=2770");
        assert_eq!(guest.attributes("/srv/a/b"), (0o2770, 1000, 0));
        assert_eq!(guest.attributes("/srv/a"), (0o755, 0, 0));
        runs(&mut guest, "mkdir", "/srv/a/b");
        assert_eq!(guest.attributes("/srv/a/b"), (0o2770, 1000, 0));
        runs(&mut guest, "mkdir", "/srv/a/b:group=shadow");
        assert_eq!(guest.attributes("/srv/a/b"), (0o2770, 1000, 42));
        assert!(fails(&mut guest, "mkdir", "/etc/hostname/x").contains("not a directory"));
        assert!(fails(&mut guest, "mkdir", "/x:owner=bob").contains("no user \"bob\""));
    }
}
