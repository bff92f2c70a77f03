//! The `[Install]` section of a unit and of its drop-ins.

use std::collections::BTreeMap;

use snf_fs::{Result, Tree};

use super::search::DIRS;
use super::{UnitError, UnitName};

/// Largest unit file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Most names in a list.
const NAMES_MAX: usize = 256;

/// The ways in which a unit is switched on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Install {
    /// Units that want it.
    pub wanted_by: Vec<String>,
    /// Units that require it.
    pub required_by: Vec<String>,
    /// Units that keep it up.
    pub upheld_by: Vec<String>,
    /// Its other names.
    pub alias: Vec<String>,
    /// Units that are switched on and off with it.
    pub also: Vec<String>,
    /// The instance of a template when none is named.
    pub default_instance: Option<String>,
}

impl Install {
    /// Reads the section from the unit's file and its drop-ins.
    ///
    /// # Errors
    /// Errors of the tree.
    pub fn read(tree: &Tree, unit: &UnitName, file: &[u8]) -> Result<Self> {
        let mut install = Self::default();
        install.add(&tree.read(file, FILE_MAX)?);
        // Of drop-ins with the same name the one in the first directory counts.
        let mut names = vec![unit.clone()];
        names.extend(unit.template());
        let mut drop_ins: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for dir in DIRS {
            for name in &names {
                let dir = format!("{dir}/{name}.d");
                for entry in tree.read_dir_optional(&dir)? {
                    if entry.name.ends_with(b".conf") {
                        let path = [dir.as_bytes(), b"/", &entry.name].concat();
                        drop_ins.entry(entry.name).or_insert(path);
                    }
                }
            }
        }
        for path in drop_ins.into_values().take(NAMES_MAX) {
            if tree.is_file(&path)? {
                install.add(&tree.read(&path, FILE_MAX)?);
            }
        }
        Ok(install)
    }

    /// Whether nothing switches the unit on.
    pub fn is_empty(&self) -> bool {
        *self == Self { default_instance: self.default_instance.clone(), ..Self::default() }
    }

    fn add(&mut self, content: &[u8]) {
        let text = String::from_utf8_lossy(content);
        let mut inside = false;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let mut line = line.trim().to_owned();
            if line.starts_with(['#', ';']) {
                continue;
            }
            while let Some(part) = line.strip_suffix('\\') {
                // Comments in between are passed over.
                let next = lines.by_ref().find(|next| !next.trim_start().starts_with(['#', ';']));
                line = format!("{part} {}", next.unwrap_or_default().trim());
            }
            if line.starts_with('[') {
                inside = line == "[Install]";
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| inside) else { continue };
            self.set(key.trim_end(), value.trim());
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let list = match key {
            "WantedBy" => &mut self.wanted_by,
            "RequiredBy" => &mut self.required_by,
            "UpheldBy" => &mut self.upheld_by,
            "Alias" => &mut self.alias,
            "Also" => &mut self.also,
            "DefaultInstance" => {
                self.default_instance = Some(value.to_owned()).filter(|value| !value.is_empty());
                return;
            }
            _ => return,
        };
        if value.is_empty() {
            list.clear();
        }
        for name in value.split_whitespace().map(|name| name.trim_matches(['"', '\''])) {
            if list.len() < NAMES_MAX && !list.iter().any(|known| known == name) {
                list.push(name.to_owned());
            }
        }
    }
}

/// Replaces the specifiers that the name of the unit gives.
///
/// # Errors
/// [`UnitError::Specifier`] for one that only the running machine knows.
pub(super) fn expand(text: &str, unit: &UnitName) -> Result<String, UnitError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push_str(unit.as_str()),
            Some('N') => out.push_str(unit.stem()),
            Some('p') => out.push_str(unit.prefix()),
            Some('i') => out.push_str(unit.instance().unwrap_or_default()),
            Some('j') => out.push_str(unit.prefix().rsplit('-').next().unwrap_or_default()),
            Some('%') => out.push('%'),
            other => {
                let specifier = other.unwrap_or(' ');
                return Err(UnitError::Specifier { unit: unit.to_string(), specifier });
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_lists_and_continuations() {
        let mut install = Install::default();
        install.add(
            b"[Unit]\nWantedBy=no.target\n# [Install]\n[Install]\nWantedBy = a.target b.target\n\
              RequiredBy=\"c.target\" \\\n# comment\n  d.target\nAlias=x.service\nAlias=\nAlias=y.service\n\
              Also=z.socket\nDefaultInstance=tty1\n[Other]\nWantedBy=e.target\n",
        );
        assert_eq!(install.wanted_by, ["a.target", "b.target"]);
        assert_eq!(install.required_by, ["c.target", "d.target"]);
        assert_eq!(install.alias, ["y.service"]);
        assert_eq!(install.also, ["z.socket"]);
        assert_eq!(install.default_instance.as_deref(), Some("tty1"));
    }

    #[test]
    fn specifiers() {
        let unit = UnitName::new("a-b@c.service").unwrap();
        assert_eq!(expand("%p|%i|%n|%N|%j|%%", &unit).unwrap(), "a-b|c|a-b@c.service|a-b@c|b|%");
        assert!(matches!(expand("%H", &unit), Err(UnitError::Specifier { specifier: 'H', .. })));
        assert!(expand("%", &unit).is_err());
    }
}
