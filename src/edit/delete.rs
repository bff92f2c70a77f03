//! `--delete`: files and whole directories, by name or pattern.

use serde::{Deserialize, Serialize};

use super::{Act, Action, BadEdit, GuestPath, How, Verb};
use crate::guest::{Guest, glob, removal};
use crate::task::{Session, TaskError};

/// Files, links and directories with all that is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// A path; `*`, `?` and `[...]` in its names stand for what they stand for in a shell.
    path: GuestPath,
}

impl Delete {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let path = GuestPath::new(text)?;
        let this = Self { path };
        this.check()?;
        Ok(Action::Delete(this))
    }
}

impl Act for Delete {
    const VERBS: &'static [Verb] = &[Verb {
        name: "delete",
        metavar: "GUESTPATH",
        help: "Delete a file, a symbolic link (not what it leads to) or a directory with all that \
               is in it. Names may be patterns (*, ?, [a-z]); a leading dot matches only a dot.",
        follows: false,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        let text = self.path.as_str();
        let mut names = text.split('/').filter(|name| !name.is_empty());
        if names.clone().any(|name| name == "..")
            || names.next_back().is_none_or(|name| name == ".")
        {
            return Err(BadEdit::new(format!(
                "'{}' must name what is deleted, without .. in it, and not the root",
                text.escape_debug()
            )));
        }
        Ok(())
    }

    fn subject(&self) -> String {
        self.path.to_string()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        // On Windows a pattern is not looked up without regard to case.
        let path = match guest.is_windows() && !glob::is_pattern(self.path.as_str().as_bytes()) {
            true => self.path.on(guest)?,
            false => self.path.as_str().replace('\\', "/").into_bytes(),
        };
        let found = glob::expand_links(&guest.tree, &path)?;
        if found.is_empty() {
            session.warn(format!("--delete {}: there is no such file", self.path));
        }
        found.into_iter().try_for_each(|path| Ok(removal::remove(&mut guest.tree, path)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, parse, runs};

    #[test]
    fn trees_patterns_and_links() {
        let mut guest = Guest::debian();
        for path in ["/var/a/1", "/var/a/b/c/2", "/var/a/b/.3", "/var/x1", "/var/x2", "/var/.x3"] {
            guest.write(path, "x");
        }
        guest.symlink("/var/a/b/etc", "/etc");
        guest.symlink("/var/x4", "/nowhere");
        runs(&mut guest, "delete", "/var/a");
        runs(&mut guest, "delete", "/var/x*");
        assert!(guest.tree().exists("/etc/passwd").unwrap());
        let left = guest.tree().read_dir("/var").unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].name, b".x3");
        runs(&mut guest, "delete", "/var/none");
        assert!(guest.warnings()[0].contains("no such file"));
        for bad in ["/", "/etc/..", "/etc/.", "etc"] {
            assert!(parse("delete", bad).is_err(), "{bad}");
        }
    }
}
