//! `--chmod`: permissions.

use serde::{Deserialize, Serialize};

use super::flag;
use super::{Act, Action, BadEdit, GuestPath, How, Mode, Verb, place};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// Permissions of a file or directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Chmod {
    /// The file or directory; a symbolic link is followed, because it has no mode.
    path: GuestPath,
    /// Its new permissions.
    mode: Mode,
    /// Whether a symbolic link is followed; it is an error otherwise.
    #[serde(default = "flag::yes", skip_serializing_if = "flag::is_yes")]
    follow: bool,
}

impl Chmod {
    fn parse(text: &str, how: How) -> Result<Action, BadEdit> {
        let Some((mode, path)) = text.split_once(':') else {
            return Err(BadEdit::form(text, "MODE:GUESTPATH (such as 0755:/usr/local/bin/x)"));
        };
        let (mode, path) = (mode.parse()?, GuestPath::new(path)?);
        Ok(Action::Chmod(Self { path, mode, follow: how.follow }))
    }
}

impl Act for Chmod {
    const VERBS: &'static [Verb] = &[Verb {
        name: "chmod",
        metavar: "MODE:GUESTPATH",
        help: "Set the permissions (octal) of a file or directory.",
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
        if guest.is_windows() {
            session.warn(format!("--chmod {} has no effect on Windows", self.path));
            return Ok(());
        }
        let spot = place::find(guest, &self.path, self.follow)?;
        if !self.follow && guest.tree.lstat(&spot.path)?.file_type == snf_fs::FileType::Symlink {
            return Err(TaskError::request(format!("{} is a link, which has no mode", self.path)));
        }
        place::warn_unowned(guest, session, &spot.path, &self.path, "--chmod has");
        Ok(guest.tree.chmod(&spot.path, self.mode.bits())?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};

    #[test]
    fn modes_are_set() {
        let mut guest = Guest::debian();
        runs(&mut guest, "chmod", "4755:/etc/hostname");
        assert_eq!(guest.attributes("/etc/hostname").0, 0o4755);
        assert!(fails(&mut guest, "chmod", "0644:/none").contains("no such file"));
        assert!(parse("chmod", "u+x:/etc").unwrap_err().to_string().contains("octal"));
        assert!(parse("chmod", "/etc").is_err());
    }
}
