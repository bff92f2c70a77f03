//! `--touch`: an empty file, or new times of one that exists.

use serde::{Deserialize, Serialize};
use snf_fs::{Attributes, Times};

use super::flag;
use super::{Act, Action, BadEdit, GuestPath, How, Verb, place};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// An empty file, or new times of one that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Touch {
    /// The file.
    path: GuestPath,
    /// Whether a symbolic link is followed.
    #[serde(default = "flag::yes", skip_serializing_if = "flag::is_yes")]
    follow: bool,
}

impl Touch {
    fn parse(text: &str, how: How) -> Result<Action, BadEdit> {
        Ok(Action::Touch(Self { path: GuestPath::new(text)?, follow: how.follow }))
    }
}

impl Act for Touch {
    const VERBS: &'static [Verb] = &[Verb {
        name: "touch",
        metavar: "GUESTPATH",
        help: "Make an empty file (root's, 0644), or set the times of what is there to now.",
        follows: true,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        Ok(())
    }

    fn subject(&self) -> String {
        self.path.to_string()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let spot = place::find(guest, &self.path, self.follow)?;
        if spot.existing.is_some() {
            let now = Some(session.clock.now());
            return Ok(guest.tree.set_link_times(&spot.path, Times { atime: now, mtime: now })?);
        }
        let path = GuestPath::file(self.path.as_str())
            .map_err(|error| TaskError::request(error.to_string()))?;
        let spot = place::to_write(guest, session, &path, self.follow)?;
        place::make_parents(&mut guest.tree, &spot.path)?;
        guest.tree.write(&spot.path, b"", Attributes { mode: 0o644, uid: 0, gid: 0 })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, runs};

    #[test]
    fn files_appear_and_times_move() {
        let mut guest = Guest::debian();
        runs(&mut guest, "touch", "/srv/a/b");
        assert_eq!(guest.attributes("/srv/a/b"), (0o644, 0, 0));
        runs(&mut guest, "touch", "/etc/hostname");
        assert_eq!(guest.tree().stat("/etc/hostname").unwrap().mtime.seconds, 86_400 * 20_000);
        assert_eq!(guest.read("/etc/hostname"), "image\n");
        assert!(fails(&mut guest, "touch", "/srv/new/").contains("names a directory"));
    }
}
