//! `--keymap`: the keyboard of the console, in the file where its distribution keeps it.

use serde::{Deserialize, Serialize};
use snf_fs::{FileType, Tree};

use super::{Act, Action, BadEdit, How, Verb, shell_value};
use crate::ask::properties::OsFamily;
use crate::guest::Guest;
use crate::guest::distro::Family;
use crate::task::{Needs, Session, TaskError};

/// The layouts of X, which Debian's console uses, too.
const SYMBOLS: &str = "/usr/share/X11/xkb/symbols";
const DEBIAN: &str = "/etc/default/keyboard";
/// The files with the old layout of Debian's console.
const CACHED: &str = "/etc/console-setup/cached_setup_keyboard.sh";
const KEYMAPS: [&str; 3] = ["/usr/share/kbd/keymaps", "/usr/lib/kbd/keymaps", "/usr/share/keymaps"];
/// Directories that are looked through for a keymap.
const DIRS_MAX: usize = 1000;

/// The keyboard of the console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Keymap {
    /// The name of a keymap; on Debian and its kin a layout, with its variant after a colon.
    keymap: Name,
}

/// The name of a keymap, or of a layout and its variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
struct Name(String);

impl TryFrom<String> for Name {
    type Error = BadEdit;

    fn try_from(text: String) -> Result<Self, BadEdit> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts || !text.chars().all(plain) || text.len() > 64 || text.matches(':').count() > 1 {
            return Err(BadEdit::form(
                &text,
                "the name of a keymap (de-latin1), or LAYOUT[:VARIANT] of Debian (de:nodeadkeys)",
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

impl Keymap {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        Ok(Action::Keymap(Self { keymap: text.to_owned().try_into()? }))
    }
}

impl Act for Keymap {
    const VERBS: &'static [Verb] = &[Verb {
        name: "keymap",
        metavar: "NAME",
        help: "Set the keyboard of the console: a keymap (de-latin1), on Debian and its kin a layout \
               of X with its variant if any (de:nodeadkeys).",
        follows: false,
        parse: Self::parse,
    }];
    const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

    fn check(&self) -> Result<(), BadEdit> {
        // The types of the fields have checked them.
        Ok(())
    }

    fn subject(&self) -> String {
        self.keymap.0.clone()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let name = self.keymap.0.as_str();
        if guest.distro.family == Family::Debian {
            return debian(guest, session, name);
        }
        if name.contains(':') {
            return Err(TaskError::request(format!(
                "{name} is a layout with a variant, which Debian and its kin have; this guest wants \
                 the name of a keymap"
            )));
        }
        let (path, key) = if guest.has_systemd()? || guest.tree.exists("/etc/vconsole.conf")? {
            ("/etc/vconsole.conf", "KEYMAP")
        } else if guest.tree.exists("/etc/conf.d/keymaps")? {
            ("/etc/conf.d/keymaps", "keymap")
        } else if guest.tree.exists("/etc/sysconfig/keyboard")?
            || guest.distro.family == Family::RedHat
        {
            ("/etc/sysconfig/keyboard", "KEYTABLE")
        } else {
            return Err(TaskError::request(
                "it is not known where this guest keeps its keyboard: it has neither systemd nor \
                 /etc/conf.d/keymaps nor /etc/sysconfig/keyboard, and is no Debian",
            ));
        };
        let mut there = false;
        let mut found = false;
        for dir in KEYMAPS {
            if guest.tree.is_dir(dir)? {
                there = true;
                found = found || has_keymap(&guest.tree, dir, name)?;
            }
        }
        if there && !found {
            return Err(TaskError::request(format!("the guest has no keymap {name}")));
        }
        if !there {
            session.warn(format!(
                "--keymap {name} has no effect before the guest has keymaps (the package is called kbd); \
                 without them nothing here tells whether there is one of this name"
            ));
        }
        shell_value::set(guest, path, key, name)
    }
}

fn debian(guest: &mut Guest, session: &mut Session<'_>, name: &str) -> Result<(), TaskError> {
    let (layout, variant) = name.split_once(':').unwrap_or((name, ""));
    let tree = &guest.tree;
    if tree.is_dir(SYMBOLS)? {
        let symbols = tree.read_optional(format!("{SYMBOLS}/{layout}"), 1 << 20)?;
        let Some(symbols) = symbols else {
            return Err(TaskError::request(format!("the guest has no keyboard layout {layout}")));
        };
        let named = format!("\"{variant}\"");
        if !variant.is_empty() && !String::from_utf8_lossy(&symbols).contains(&named) {
            return Err(TaskError::request(format!(
                "the keyboard layout {layout} of the guest has no variant {variant}"
            )));
        }
    }
    let listed = tree.is_dir(SYMBOLS)?;
    let unchecked = match listed {
        true => "",
        false => {
            "; the guest has no list of layouts, so nothing here tells whether there is one of this name"
        }
    };
    if !tree.exists("/bin/setupcon")? && !tree.exists("/usr/bin/setupcon")? {
        session.warn(format!(
            "--keymap {name} has no effect before the guest has a program that reads it (the package \
             is called console-setup){unchecked}"
        ));
    } else if !listed {
        session.warn(format!("--keymap {name}{unchecked}"));
    }
    let has = guest.tree.exists(DEBIAN)?;
    shell_value::set(guest, DEBIAN, "XKBLAYOUT", layout)?;
    shell_value::set(guest, DEBIAN, "XKBVARIANT", variant)?;
    if !has {
        shell_value::set(guest, DEBIAN, "XKBMODEL", "pc105")?;
        shell_value::set(guest, DEBIAN, "BACKSPACE", "guess")?;
    }
    match guest.tree.unlink(CACHED) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether a directory has this keymap, at any depth.
fn has_keymap(tree: &Tree, dir: &str, name: &str) -> Result<bool, TaskError> {
    let mut left = DIRS_MAX;
    let mut stack = vec![dir.as_bytes().to_vec()];
    while let Some(dir) = stack.pop() {
        left -= 1;
        if left == 0 {
            return Ok(true);
        }
        for entry in tree.read_dir(&dir)? {
            let path = [&dir, b"/".as_slice(), &entry.name].concat();
            if tree.lstat(&path)?.file_type == FileType::Directory {
                stack.push(path);
                continue;
            }
            let rest = entry.name.strip_prefix(name.as_bytes());
            if rest.is_some_and(|rest| rest == b".map" || rest.starts_with(b".map.")) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};
    use crate::guest::distro::Distro;

    #[test]
    fn where_distributions_keep_it() {
        let mut guest = Guest::debian();
        guest.write(
            "/etc/default/keyboard",
            "XKBMODEL=\"pc105\"\nXKBLAYOUT=\"us\"\nXKBVARIANT=\"x\"\n",
        );
        guest.write(super::CACHED, "loadkeys");
        guest.write("/bin/setupcon", "");
        guest.write("/usr/share/X11/xkb/symbols/de", "xkb_symbols \"nodeadkeys\" {\n");
        runs(&mut guest, "keymap", "de:nodeadkeys");
        assert_eq!(
            guest.read("/etc/default/keyboard"),
            "XKBMODEL=\"pc105\"\nXKBLAYOUT=de\nXKBVARIANT=nodeadkeys\n"
        );
        assert!(!guest.tree().exists(super::CACHED).unwrap());
        runs(&mut guest, "keymap", "de");
        assert!(guest.read("/etc/default/keyboard").ends_with("XKBVARIANT=\n"));
        assert!(fails(&mut guest, "keymap", "de:none").contains("no variant none"));
        assert!(fails(&mut guest, "keymap", "gr").contains("no keyboard layout gr"));
        assert!(guest.warnings().is_empty(), "{:?}", guest.warnings());

        let mut fedora = Guest::debian();
        fedora.distro = Distro::from_os_release("ID=fedora\n");
        runs(&mut fedora, "keymap", "de");
        assert_eq!(fedora.read("/etc/vconsole.conf"), "KEYMAP=de\n");
        assert!(fedora.warnings()[0].contains("called kbd"));
        fedora.write("/usr/lib/kbd/keymaps/legacy/i386/qwertz/de-latin1.map.gz", "");
        runs(&mut fedora, "keymap", "de-latin1");
        assert!(fails(&mut fedora, "keymap", "xx").contains("no keymap xx"));
        assert!(fails(&mut fedora, "keymap", "de:x").contains("with a variant"));
        for bad in ["", "a b", "../x", "a:b:c", "$x"] {
            assert!(parse("keymap", bad).is_err(), "{bad}");
        }
    }
}
