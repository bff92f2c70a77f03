//! Names of units.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name in bytes.
const NAME_MAX: usize = 255;
/// The kinds of units.
const SUFFIXES: [&str; 11] = [
    "service",
    "socket",
    "target",
    "timer",
    "path",
    "mount",
    "automount",
    "swap",
    "slice",
    "scope",
    "device",
];

/// The name of a unit with its suffix: `ssh.service`, `getty@tty1.service`, `getty@.service`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UnitName(String);

/// A text that cannot be the name of a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is no name of a unit (such as ssh, ssh.service or getty@tty1.service)", .0.escape_debug())]
pub struct BadUnitName(String);

impl UnitName {
    /// Reads a name; one without a suffix is a service.
    ///
    /// # Errors
    /// When no unit can have it.
    pub fn new(text: &str) -> Result<Self, BadUnitName> {
        let bad = || BadUnitName(text.chars().take(NAME_MAX).collect());
        let has_suffix = text.rsplit_once('.').is_some_and(|(_, end)| SUFFIXES.contains(&end));
        let full = if has_suffix { text.to_owned() } else { format!("{text}.service") };
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let stem = full.rsplit_once('.').map_or("", |(stem, _)| stem);
        if full.len() > NAME_MAX
            || stem.is_empty()
            || stem.starts_with('@')
            || !full.chars().all(allowed)
        {
            return Err(bad());
        }
        Ok(Self(full))
    }

    /// The name of an entry of a directory, if a unit can have it.
    pub(super) fn of_entry(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        Self::new(name).ok().filter(|unit| unit.0 == name)
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind: `service`.
    pub fn suffix(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, suffix)| suffix)
    }

    /// The name without the suffix.
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(stem, _)| stem)
    }

    /// The name up to the `@`, or up to the suffix.
    pub fn prefix(&self) -> &str {
        self.stem().split_once('@').map_or(self.stem(), |(prefix, _)| prefix)
    }

    /// The text between `@` and the suffix; empty for a template.
    pub fn instance(&self) -> Option<&str> {
        self.stem().split_once('@').map(|(_, instance)| instance)
    }

    /// Whether it is a template: `getty@.service`.
    pub fn is_template(&self) -> bool {
        self.instance() == Some("")
    }

    /// The template of an instance.
    pub fn template(&self) -> Option<Self> {
        self.instance().filter(|instance| !instance.is_empty())?;
        Some(Self(format!("{}@.{}", self.prefix(), self.suffix())))
    }

    /// This template with an instance.
    pub fn with_instance(&self, instance: &str) -> Self {
        Self(format!("{}@{instance}.{}", self.prefix(), self.suffix()))
    }

    /// The unit of another kind with the same stem.
    pub fn sibling(&self, suffix: &str) -> Self {
        Self(format!("{}.{suffix}", self.stem()))
    }
}

impl TryFrom<String> for UnitName {
    type Error = BadUnitName;

    fn try_from(text: String) -> Result<Self, BadUnitName> {
        Self::new(&text)
    }
}

impl From<UnitName> for String {
    fn from(unit: UnitName) -> Self {
        unit.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_name() {
        let unit = UnitName::new("ssh").unwrap();
        assert_eq!((unit.as_str(), unit.prefix(), unit.instance()), ("ssh.service", "ssh", None));
        let unit = UnitName::new("getty@tty1.service").unwrap();
        assert_eq!(unit.template().unwrap().as_str(), "getty@.service");
        assert_eq!(unit.instance(), Some("tty1"));
        assert!(
            unit.template().unwrap().is_template() && unit.template().unwrap().template().is_none()
        );
        // A dot alone makes no suffix.
        assert_eq!(UnitName::new("org.example.x").unwrap().as_str(), "org.example.x.service");
        for bad in
            ["", "a/b", "a b.service", ".service", "@x.service", "ü", "../x", &"a".repeat(300)]
        {
            assert!(UnitName::new(bad).is_err(), "{bad}");
        }
    }
}
