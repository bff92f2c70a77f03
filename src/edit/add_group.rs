//! `--add-group`: a new group, as groupadd makes it.

use serde::{Deserialize, Serialize};

use super::account_files as files;
use super::account_name::AccountName;
use super::{Act, Action, BadEdit, How, Verb, flag};
use crate::ask::properties::OsFamily;
use crate::guest::Guest;
use crate::guest::login_defs::Rules;
use crate::task::{Needs, Session, TaskError};

/// A new group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AddGroup {
    /// Its name.
    name: AccountName,
    /// Its number; without one the guest's rules choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    /// Whether its number is one of the system's.
    #[serde(default, skip_serializing_if = "flag::is_no")]
    system: bool,
}

impl AddGroup {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let (name, properties) = text.split_once(':').unwrap_or((text, ""));
        let mut new = Self { name: AccountName::new(name)?, gid: None, system: false };
        for property in properties.split(',').filter(|_| text.contains(':')) {
            match property.split_once('=').unwrap_or((property, "")) {
                ("gid", number) => new.gid = Some(number_of("gid", number)?),
                ("system", "") if property == "system" => new.system = true,
                (other, _) => {
                    return Err(BadEdit::new(format!(
                        "'{}' is no property of a group; valid are gid=NUMBER and system",
                        other.escape_debug()
                    )));
                }
            }
        }
        Ok(Action::AddGroup(new))
    }
}

/// A number of a user or group; the one of all ones means "nobody" to the kernel.
pub(super) fn number_of(what: &str, text: &str) -> Result<u32, BadEdit> {
    let number = text.parse::<u32>().ok().filter(|number| *number != u32::MAX);
    number.ok_or_else(|| {
        BadEdit::new(format!("{what} '{}' is no number up to 4294967294", text.escape_debug()))
    })
}

impl Act for AddGroup {
    const VERBS: &'static [Verb] = &[Verb {
        name: "add-group",
        metavar: "NAME[:gid=,system]",
        help: "Make a group, as groupadd does: with this number, or the next one that the guest's \
               login.defs allows for groups (with system: for those of the system).",
        follows: false,
        parse: Self::parse,
    }];
    const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

    fn check(&self) -> Result<(), BadEdit> {
        // The types of the fields have checked them.
        Ok(())
    }

    fn subject(&self) -> String {
        self.name.to_string()
    }

    fn run(&self, guest: &mut Guest, _: &mut Session<'_>) -> Result<(), TaskError> {
        let rules = Rules::of(guest)?;
        files::make_group(guest, &rules, self.name.as_str(), self.gid, None, self.system)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};

    #[test]
    fn groups_get_numbers() {
        let mut guest = Guest::debian();
        guest.write("/etc/gshadow", "root:*::\n");
        runs(&mut guest, "add-group", "docker:system");
        runs(&mut guest, "add-group", "staff");
        runs(&mut guest, "add-group", "own:gid=70000");
        let group = guest.read("/etc/group");
        assert!(group.ends_with("docker:x:999:\nstaff:x:1002:\nown:x:70000:\n"), "{group}");
        assert!(guest.read("/etc/gshadow").ends_with("docker:!::\nstaff:!::\nown:!::\n"));
        assert!(fails(&mut guest, "add-group", "staff").contains("has a group staff already"));
        assert!(fails(&mut guest, "add-group", "x:gid=42").contains("of the group shadow"));
        for bad in ["", "1", "a:", "a:gid=x", "a:gid=4294967295", "a:colour", "a:system=1"] {
            assert!(parse("add-group", bad).is_err(), "{bad}");
        }
    }
}
