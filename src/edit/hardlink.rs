//! `--hardlink`: one more name of a file.

use serde::{Deserialize, Serialize};

use super::path::pair;
use super::place::{self, Spot};
use super::{Act, Action, BadEdit, GuestPath, How, Verb};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// One more name of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Hardlink {
    /// The file.
    from: GuestPath,
    /// Its new name.
    to: GuestPath,
}

impl Hardlink {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let (from, to) = pair(text, "GUESTPATH:NEWPATH")?;
        Ok(Action::Hardlink(Self { from: GuestPath::new(from)?, to }))
    }
}

impl Act for Hardlink {
    const VERBS: &'static [Verb] = &[Verb {
        name: "hardlink",
        metavar: "GUESTPATH:NEWPATH",
        help: "Give a file of the guest one more name, on the same file system.",
        follows: false,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        Ok(())
    }

    fn subject(&self) -> String {
        self.to.to_string()
    }

    fn run(&self, guest: &mut Guest, _: &mut Session<'_>) -> Result<(), TaskError> {
        let Spot { path: from, existing } = place::find(guest, &self.from, false)?;
        let Spot { path: to, existing: old } = place::find(guest, &self.to, false)?;
        if let (Some(file), Some(old)) = (&existing, &old)
            && file.node == old.node
            && from != to
        {
            return Ok(());
        }
        place::make_parents(&mut guest.tree, &to)?;
        Ok(guest.tree.link(&from, &to)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, runs};

    #[test]
    fn names_are_added() {
        let mut guest = Guest::debian();
        runs(&mut guest, "hardlink", "/etc/hostname:/srv/name");
        runs(&mut guest, "hardlink", "/etc/hostname:/srv/name");
        assert_eq!(guest.tree().stat("/srv/name").unwrap().links, 2);
        assert!(fails(&mut guest, "hardlink", "/etc:/srv/etc").contains("is a directory"));
        assert!(fails(&mut guest, "hardlink", "/none:/srv/x").contains("no such file"));
        assert!(fails(&mut guest, "hardlink", "/etc/passwd:/srv/name").contains("exists"));
    }
}
