//! Owner, group and mode, as a request gives them and as a guest keeps them.

use snf_fs::{Attributes, Stat};

use super::{BadEdit, Mode};
use crate::ask::personality;
use crate::guest::Guest;
use crate::guest::accounts::{AccountError, Accounts};

/// Owner, group and mode of a request; the verb decides those that it leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// A user of the guest, by name or number.
    pub owner: Option<String>,
    /// A group of the guest, by name or number.
    pub group: Option<String>,
    /// Permission bits.
    pub mode: Option<Mode>,
}

impl Access {
    /// Splits `TEXT[:owner=…,group=…,mode=…]`. A text may hold colons: only what begins like an
    /// attribute, with a word and `=`, ends it.
    ///
    /// # Errors
    /// When an attribute makes no sense.
    pub(super) fn split(text: &str) -> Result<(&str, Self), BadEdit> {
        match text.rsplit_once(':') {
            Some((rest, attributes)) if looks_like_one(attributes) => {
                Ok((rest, Self::parse(attributes)?))
            }
            _ => Ok((text, Self::default())),
        }
    }

    /// Reads `owner=…,group=…,mode=…`.
    fn parse(text: &str) -> Result<Self, BadEdit> {
        let mut access = Self::default();
        for attribute in text.split(',') {
            let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
            match name {
                "owner" => access.owner = Some(value.to_owned()),
                "group" => access.group = Some(value.to_owned()),
                "mode" => access.mode = Some(value.parse()?),
                _ => {
                    return Err(BadEdit::new(format!(
                        "'{}' is no attribute; valid are owner, group and mode",
                        name.escape_debug()
                    )));
                }
            }
        }
        access.checked()
    }

    /// The same, when its names can be names.
    ///
    /// # Errors
    /// When they cannot.
    pub(super) fn checked(self) -> Result<Self, BadEdit> {
        for (what, name) in [("owner", &self.owner), ("group", &self.group)] {
            if let Some(name) = name {
                personality::check_name(name)
                    .map_err(|problem| BadEdit::new(format!("{what} {problem}")))?;
            }
        }
        Ok(self)
    }

    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The numbers on this guest: what is said, else what the existing node has, else root's and
    /// `mode`.
    ///
    /// # Errors
    /// When the guest has no such user or group.
    pub(super) fn on(
        &self,
        guest: &Guest,
        existing: Option<&Stat>,
        mode: u16,
    ) -> Result<Attributes, AccountError> {
        let mut accounts = Accounts::default();
        let uid = match &self.owner {
            Some(name) => accounts.user(guest, name)?,
            None => existing.map_or(0, |stat| stat.uid),
        };
        let gid = match &self.group {
            Some(name) => accounts.group(guest, name)?,
            None => existing.map_or(0, |stat| stat.gid),
        };
        let kept = existing.map_or(mode, |stat| stat.mode);
        Ok(Attributes { mode: self.mode.map_or(kept, Mode::bits), uid, gid })
    }
}

/// Whether a text begins as an attribute does, known or not.
fn looks_like_one(text: &str) -> bool {
    let name = text.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_end_an_argument() {
        let (text, access) = Access::split("a:b:owner=me,mode=4755,group=7").unwrap();
        assert_eq!(text, "a:b");
        assert_eq!((access.owner.as_deref(), access.group.as_deref()), (Some("me"), Some("7")));
        assert_eq!(access.mode.unwrap().bits(), 0o4755);
        assert_eq!(Access::split("a:b").unwrap(), ("a:b", Access::default()));
        for bad in ["a:mode=9", "a:mode=17777", "a:owner=", "a:owner=x,colour=red", "a:own=x"] {
            assert!(Access::split(bad).is_err(), "{bad}");
        }
    }
}
