//! `--locale`: the language of the system, in the file where its distribution keeps it.

use serde::{Deserialize, Serialize};
use snf_fs::Attributes;

use super::{Act, Action, BadEdit, How, Verb, shell_value};
use crate::ask::properties::OsFamily;
use crate::guest::distro::Family;
use crate::guest::{Guest, locales};
use crate::task::{Needs, Session, TaskError};

const DEBIAN: &str = "/etc/default/locale";
const SYSTEMD: &str = "/etc/locale.conf";
const RED_HAT: &str = "/etc/sysconfig/i18n";
const SUSE: &str = "/etc/sysconfig/language";
const LIST: &str = "/etc/locale.gen";

/// The language of the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Locale {
    /// Its name, such as `el_GR.UTF-8`.
    locale: Name,
}

/// The name of a locale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
struct Name(String);

impl TryFrom<String> for Name {
    type Error = BadEdit;

    fn try_from(text: String) -> Result<Self, BadEdit> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-@".contains(c);
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
        if !starts || !text.chars().all(plain) || text.len() > 64 {
            return Err(BadEdit::form(
                &text,
                "LANGUAGE_COUNTRY.ENCODING, such as el_GR.UTF-8, or C.UTF-8",
            ));
        }
        Ok(Self(text))
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl Locale {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        Ok(Action::Locale(Self { locale: text.to_owned().try_into()? }))
    }
}

impl Act for Locale {
    const VERBS: &'static [Verb] = &[Verb {
        name: "locale",
        metavar: "NAME",
        help: "Set the language of the system (el_GR.UTF-8). One that the guest does not have is \
               listed in /etc/locale.gen, and a warning says how to make it.",
        follows: false,
        parse: Self::parse,
    }];
    const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

    fn check(&self) -> Result<(), BadEdit> {
        // The types of the fields have checked them.
        Ok(())
    }

    fn subject(&self) -> String {
        self.locale.0.clone()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let name = &self.locale.0;
        let (path, key) = place(guest)?;
        let there = locales::has(&guest.tree, name)?;
        if !there {
            if !locales::looks_like_one(name) {
                return Err(TaskError::request(format!(
                    "{name} is no locale that the guest has, and not of the form \
                     LANGUAGE_COUNTRY.ENCODING (such as el_GR.UTF-8)"
                )));
            }
            if let Some(list) = locales::unknown_to(&guest.tree, name)? {
                return Err(TaskError::request(format!(
                    "the guest cannot make a locale {name}: {list} does not have it"
                )));
            }
        }
        shell_value::set(guest, path, key, name)?;
        // The list of languages before it would win over it.
        if path == DEBIAN || path == SYSTEMD {
            let text = guest.config(path)?.unwrap_or_default();
            let wins = |line: &[u8]| line.starts_with(b"LC_ALL=") || line.starts_with(b"LANGUAGE=");
            for line in text.split(|byte| *byte == b'\n').filter(|line| wins(line)) {
                session.warn(format!(
                    "--locale {name}: {} in {path} counts for more",
                    String::from_utf8_lossy(line)
                ));
            }
        }
        if !there {
            let list = guest.config(LIST)?;
            let how = match &list {
                Some(_) => format!("{LIST} lists it, and --firstboot-command locale-gen makes it"),
                None if guest.distro.family == Family::RedHat => {
                    let language = name.split(['_', '.', '@']).next().unwrap_or_default();
                    format!("its package is called glibc-langpack-{language}")
                }
                None => "it is made by localedef, or comes with a package of locales".into(),
            };
            session.warn(format!(
                "--locale {name} has no effect before the guest has that locale: {how}"
            ));
            if let Some(new) = list.and_then(|list| locales::listed(&list, name)) {
                guest.tree.write(LIST, &new, Attributes { mode: 0o644, uid: 0, gid: 0 })?;
            }
        }
        if guest.has_cloud_init()?
            && guest.config("/etc/cloud/cloud.cfg")?.is_some_and(|text| {
                text.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"locale:"))
            })
        {
            session.warn(format!(
                "--locale {name}: /etc/cloud/cloud.cfg sets another one at the first boot"
            ));
        }
        Ok(())
    }
}

/// The file and the key of the language.
fn place(guest: &Guest) -> Result<(&'static str, &'static str), TaskError> {
    let tree = &guest.tree;
    if guest.distro.family == Family::Debian {
        return Ok((DEBIAN, "LANG"));
    }
    if guest.has_systemd()? || tree.exists(SYSTEMD)? {
        return Ok((SYSTEMD, "LANG"));
    }
    if tree.exists(SUSE)? {
        return Ok((SUSE, "RC_LANG"));
    }
    if guest.distro.family == Family::RedHat || tree.exists(RED_HAT)? {
        return Ok((RED_HAT, "LANG"));
    }
    if guest.distro.family == Family::Gentoo {
        return Ok(("/etc/env.d/02locale", "LANG"));
    }
    Err(TaskError::request(
        "it is not known where this guest keeps its language: it has neither systemd nor \
         /etc/locale.conf, and is no Debian, Red Hat, SUSE or Gentoo",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};
    use crate::guest::distro::Distro;

    #[test]
    fn where_distributions_keep_it() {
        let mut guest = Guest::debian();
        guest.write("/etc/default/locale", "# x\nLANG=\"C\"\nLC_ALL=C\n");
        guest.write("/etc/locale.gen", "# el_GR.UTF-8 UTF-8\n");
        runs(&mut guest, "locale", "el_GR.UTF-8");
        assert_eq!(guest.read("/etc/default/locale"), "# x\nLANG=el_GR.UTF-8\nLC_ALL=C\n");
        assert_eq!(guest.read("/etc/locale.gen"), "el_GR.UTF-8 UTF-8\n");
        assert!(guest.warnings()[0].contains("LC_ALL=C in /etc/default/locale counts for more"));
        assert!(guest.warnings()[1].contains("--firstboot-command locale-gen makes it"));
        let mut fedora = Guest::debian();
        fedora.distro = Distro::from_os_release("ID=fedora\n");
        runs(&mut fedora, "locale", "C.UTF-8");
        assert_eq!(fedora.read("/etc/locale.conf"), "LANG=C.UTF-8\n");
        assert!(fedora.warnings().is_empty());
        runs(&mut fedora, "locale", "de_DE.UTF-8");
        assert!(fedora.warnings()[0].contains("glibc-langpack-de"));
        let mut other = Guest::empty();
        assert!(fails(&mut other, "locale", "C").contains("not known where"));
        assert!(fails(&mut fedora, "locale", "nosuch").contains("not of the form"));
        guest.write("/usr/share/i18n/SUPPORTED", "el_GR.UTF-8 UTF-8\nde_DE ISO-8859-1\n");
        runs(&mut guest, "locale", "de_DE");
        assert!(fails(&mut guest, "locale", "xx_YY.UTF-8").contains("i18n/SUPPORTED"));
        for bad in ["", "de DE", "../x", "de;x", "1"] {
            assert!(parse("locale", bad).is_err(), "{bad}");
        }
    }
}
