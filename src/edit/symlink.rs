//! `--symlink`: a symbolic link.

use serde::{Deserialize, Serialize};
use snf_fs::{Attributes, FileType};

use super::path::pair;
use super::place::{self, Spot};
use super::{Act, Action, BadEdit, GuestPath, How, Verb};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Symlink {
    /// The link.
    path: GuestPath,
    /// Its text: where it leads, from the directory of the link or from the root of the guest.
    target: String,
}

impl Symlink {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let (target, path) = pair(text, "TARGET:GUESTPATH (such as ../x:/etc/y)")?;
        Ok(Action::Symlink(Self { path, target: target.to_owned() }))
    }
}

impl Act for Symlink {
    const VERBS: &'static [Verb] = &[Verb {
        name: "symlink",
        metavar: "TARGET:GUESTPATH",
        help: "Make a symbolic link at GUESTPATH that leads to TARGET. One that is there already \
               is left; anything else there is an error.",
        follows: false,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        Ok(())
    }

    fn subject(&self) -> String {
        self.path.to_string()
    }

    fn run(&self, guest: &mut Guest, _: &mut Session<'_>) -> Result<(), TaskError> {
        let Spot { path, existing } = place::find(guest, &self.path, false)?;
        let target = self.target.as_bytes();
        if existing.is_some_and(|stat| stat.file_type == FileType::Symlink)
            && guest.tree.read_link(&path)? == target
        {
            return Ok(());
        }
        place::make_parents(&mut guest.tree, &path)?;
        let root = Attributes { mode: 0o777, uid: 0, gid: 0 };
        Ok(guest.tree.symlink(&path, target, root)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};

    #[test]
    fn links_are_made_once() {
        let mut guest = Guest::debian();
        runs(&mut guest, "symlink", "../usr/share/zoneinfo/UTC:/etc/a/localtime");
        runs(&mut guest, "symlink", "../usr/share/zoneinfo/UTC:/etc/a/localtime");
        let target = guest.tree().read_link("/etc/a/localtime").unwrap();
        assert_eq!(target, b"../usr/share/zoneinfo/UTC");
        assert!(fails(&mut guest, "symlink", "/x:/etc/a/localtime").contains("already exists"));
        assert!(fails(&mut guest, "symlink", "/x:/etc/hostname").contains("already exists"));
        assert!(parse("symlink", "/x").is_err());
    }
}
