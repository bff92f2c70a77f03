//! `--truncate`: a file without content.

use serde::{Deserialize, Serialize};
use snf_fs::Attributes;

use super::flag;
use super::{Act, Action, BadEdit, GuestPath, How, Verb, place};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// A file loses its content and keeps everything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Truncate {
    /// The file.
    path: GuestPath,
    /// Whether a symbolic link is followed; it is an error otherwise.
    #[serde(default = "flag::yes", skip_serializing_if = "flag::is_yes")]
    follow: bool,
}

impl Truncate {
    fn parse(text: &str, how: How) -> Result<Action, BadEdit> {
        Ok(Action::Truncate(Self { path: GuestPath::file(text)?, follow: how.follow }))
    }
}

impl Act for Truncate {
    const VERBS: &'static [Verb] = &[Verb {
        name: "truncate",
        metavar: "GUESTPATH",
        help: "Empty a file; owner, permissions and labels stay.",
        follows: true,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        GuestPath::file(self.path.as_str()).map(drop)
    }

    fn subject(&self) -> String {
        self.path.to_string()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let spot = place::to_write(guest, session, &self.path, self.follow)?;
        let stat = guest.tree.lstat(&spot.path)?;
        if stat.file_type != snf_fs::FileType::Regular {
            return Err(TaskError::request(format!("{} is not a regular file", self.path)));
        }
        guest.tree.write(&spot.path, b"", Attributes { mode: stat.mode, uid: 0, gid: 0 })?;
        super::write::drop_privileges(&mut guest.tree, &spot.path, &stat, false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, runs};

    #[test]
    fn only_the_content_goes() {
        let mut guest = Guest::debian();
        runs(&mut guest, "truncate", "/etc/shadow");
        assert_eq!(guest.read("/etc/shadow"), "");
        assert_eq!(guest.attributes("/etc/shadow"), (0o640, 0, 42));
        assert!(fails(&mut guest, "truncate", "/etc").contains("not a regular file"));
        assert!(fails(&mut guest, "truncate", "/none").contains("no such file"));
    }
}
