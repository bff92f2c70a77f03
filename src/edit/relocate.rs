//! `--move`: another name for a file or directory.

use serde::{Deserialize, Serialize};
use snf_fs::FileType;

use super::path::pair;
use super::place::{self, Spot};
use super::{Act, Action, BadEdit, GuestPath, How, Verb};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// A file or directory moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Relocate {
    /// Its path now.
    from: GuestPath,
    /// Its new path, or the directory that it moves into.
    to: GuestPath,
}

impl Relocate {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let (from, to) = pair(text, "GUESTPATH:NEWPATH")?;
        Ok(Action::Move(Self { from: GuestPath::new(from)?, to }))
    }
}

/// The place of something called as `from` is: `to`, or in it where it is a directory.
///
/// # Errors
/// When there is no such place.
pub(super) fn target(guest: &Guest, from: &[u8], to: &GuestPath) -> Result<Spot, TaskError> {
    let spot = place::find(guest, to, true)?;
    if !spot.existing.as_ref().is_some_and(|stat| stat.file_type == FileType::Directory) {
        return place::find(guest, to, false);
    }
    let name = from.iter().rposition(|byte| *byte == b'/').map_or(from, |at| &from[at + 1..]);
    let path = place::join(&spot.path, name);
    let existing = match guest.tree.lstat(&path) {
        Ok(stat) => Some(stat),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Spot { path, existing })
}

impl Act for Relocate {
    const VERBS: &'static [Verb] = &[Verb {
        name: "move",
        metavar: "GUESTPATH:NEWPATH",
        help: "Move a file or directory of the guest, into NEWPATH if that is a directory. A file \
               that is there is replaced.",
        follows: false,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        Ok(())
    }

    fn subject(&self) -> String {
        self.from.to_string()
    }

    fn run(&self, guest: &mut Guest, _: &mut Session<'_>) -> Result<(), TaskError> {
        let Spot { path: from, .. } = place::find(guest, &self.from, false)?;
        guest.tree.lstat(&from)?;
        let Spot { path: to, .. } = target(guest, &from, &self.to)?;
        place::make_parents(&mut guest.tree, &to)?;
        Ok(guest.tree.rename(&from, &to)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, runs};

    #[test]
    fn files_and_directories_move() {
        let mut guest = Guest::debian();
        guest.write("/srv/d/x", "x");
        runs(&mut guest, "move", "/srv/d/x:/srv/new/y");
        assert_eq!(guest.read("/srv/new/y"), "x");
        runs(&mut guest, "move", "/srv/new:/srv/d");
        assert_eq!(guest.read("/srv/d/new/y"), "x");
        guest.write("/srv/z", "z");
        runs(&mut guest, "move", "/srv/d/new/y:/srv/z");
        assert_eq!(guest.read("/srv/z"), "x");
        assert!(fails(&mut guest, "move", "/srv/d:/srv/d/new/in").contains("into itself"));
        assert!(fails(&mut guest, "move", "/none:/srv/d").contains("no such file"));
    }
}
