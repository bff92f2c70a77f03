//! `--timezone`: `/etc/localtime`, and the name where a distribution keeps it.

use serde::{Deserialize, Serialize};
use snf_fs::{Attributes, FileType};

use super::place::PARENTS;
use super::{Act, Action, BadEdit, How, Verb};
use crate::ask::properties::OsFamily;
use crate::guest::Guest;
use crate::task::{Needs, Session, TaskError};

const LOCALTIME: &str = "/etc/localtime";
const ZONES: &str = "/usr/share/zoneinfo";
/// Longest name of a zone in bytes.
const NAME_MAX: usize = 255;

/// The time zone of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Timezone {
    /// Its name in the zone database, such as `Europe/Athens`.
    zone: String,
}

impl Timezone {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let this = Self { zone: text.to_owned() };
        this.check()?;
        Ok(Action::Timezone(this))
    }
}

fn check_zone(text: &str) -> Result<(), BadEdit> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-+.".contains(c))
    };
    if text.len() > NAME_MAX || !text.split('/').all(part) {
        return Err(BadEdit::form(text, "AREA/CITY, such as Europe/Athens, or UTC"));
    }
    Ok(())
}

impl Act for Timezone {
    const VERBS: &'static [Verb] = &[Verb {
        name: "timezone",
        metavar: "AREA/CITY",
        help: "Set the time zone by its name in the zone database (Europe/Athens, UTC). For Windows, use \
               --time-zone.",
        follows: false,
        parse: Self::parse,
    }];
    const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

    fn check(&self) -> Result<(), BadEdit> {
        check_zone(&self.zone)
    }

    fn subject(&self) -> String {
        self.zone.clone()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let Self { zone } = self;
        let tree = &mut guest.tree;
        let file = format!("{ZONES}/{zone}");
        let zones = tree.exists(ZONES)?;
        // Without the database, libc has UTC, whatever the link says.
        let known = if zones { tree.is_file(&file)? } else { zone == "UTC" };
        if !known {
            return Err(TaskError::Request(match zones {
                true => format!("the guest knows no time zone {zone} (no {file})"),
                false => {
                    format!("the guest has no time zones ({ZONES}); its package is called tzdata")
                }
            }));
        }
        let link = format!("..{file}").into_bytes();
        match tree.lstat(LOCALTIME) {
            Ok(stat)
                if stat.file_type == FileType::Symlink && tree.read_link(LOCALTIME)? == link => {}
            Ok(stat) if stat.file_type == FileType::Directory => {
                return Err(TaskError::Request(format!("{LOCALTIME} is a directory")));
            }
            found => {
                match found {
                    Ok(_) => tree.unlink(LOCALTIME)?,
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error.into()),
                }
                tree.mkdir_all("/etc", PARENTS)?;
                tree.symlink(LOCALTIME, &link, Attributes { mode: 0o777, uid: 0, gid: 0 })?;
            }
        }
        let named = Attributes { mode: 0o644, uid: 0, gid: 0 };
        // Debian's and Gentoo's tools write the link anew from this name.
        if tree.exists("/etc/timezone")?
            || guest.distro.id == "debian"
            || guest.distro.id == "ubuntu"
        {
            guest.tree.write("/etc/timezone", format!("{zone}\n").as_bytes(), named)?;
        }
        // So do those of old Red Hat and SUSE systems.
        for (path, key) in [("/etc/sysconfig/clock", "ZONE"), ("/etc/sysconfig/clock", "TIMEZONE")]
        {
            let Some(content) = guest.config(path)? else { continue };
            let sets = |line: &&[u8]| line.starts_with(format!("{key}=").as_bytes());
            let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
            if lines.iter().any(sets) {
                let new = format!("{key}=\"{zone}\"\n").into_bytes();
                let text: Vec<u8> = lines
                    .iter()
                    .flat_map(|line| if sets(line) { new.clone() } else { line.to_vec() })
                    .collect();
                guest.tree.write(path, &text, named)?;
            }
        }
        if guest.has_cloud_init()?
            && guest.config("/etc/cloud/cloud.cfg")?.is_some_and(|text| {
                text.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"timezone:"))
            })
        {
            session.warn(format!(
                "--timezone {zone}: /etc/cloud/cloud.cfg sets another one at the first boot"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};

    #[test]
    fn zones_are_links_and_names() {
        let mut guest = Guest::debian();
        assert!(fails(&mut guest, "timezone", "Europe/Athens").contains("tzdata"));
        guest.write("/usr/share/zoneinfo/Europe/Athens", "TZif");
        guest.write("/usr/share/zoneinfo/UTC", "TZif");
        guest.write("/etc/localtime", "an old copy");
        guest.write("/etc/sysconfig/clock", "UTC=true\nZONE=\"America/New_York\"\n");
        runs(&mut guest, "timezone", "Europe/Athens");
        let link = guest.tree().read_link("/etc/localtime").unwrap();
        assert_eq!(link, b"../usr/share/zoneinfo/Europe/Athens");
        assert_eq!(guest.tree().read("/etc/timezone", 100).unwrap(), b"Europe/Athens\n");
        let clock = guest.tree().read("/etc/sysconfig/clock", 100).unwrap();
        assert_eq!(clock, b"UTC=true\nZONE=\"Europe/Athens\"\n");
        // The target of the old link is not touched.
        runs(&mut guest, "timezone", "UTC");
        assert_eq!(guest.tree().read("/usr/share/zoneinfo/Europe/Athens", 100).unwrap(), b"TZif");
        assert!(fails(&mut guest, "timezone", "Europe/Atlantis").contains("knows no time zone"));
        for bad in ["", "../etc/passwd", "Europe/", "/Europe", "a b", "Europe/../UTC"] {
            assert!(parse("timezone", bad).is_err(), "{bad}");
        }
    }
}
