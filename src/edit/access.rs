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
        let (rest, access) = match text.rsplit_once(':') {
            Some((rest, attributes)) if looks_like_one(attributes) => {
                (rest, Self::parse(attributes)?)
            }
            _ => (text, Self::default()),
        };
        // One that would become part of the path.
        if let Some(at) = rest.rfind([':', ','])
            && names_one(&rest[at + 1..])
        {
            return Err(BadEdit::new(
                "attributes stand after one colon, with commas between them: \
                 :owner=root,group=root,mode=0644",
            ));
        }
        Ok((rest, access))
    }

    /// Refuses a content at whose end attributes stand: they would become part of it.
    ///
    /// # Errors
    /// When they do. The content itself, which may be a secret, is not repeated.
    pub(super) fn refuse_in_content(text: &str) -> Result<(), BadEdit> {
        match text.rsplit_once(':') {
            Some((_, end)) if names_one(end) && !end.contains(char::is_whitespace) => {
                Err(BadEdit::new(
                    "the text ends in attributes (:owner=, :group= or :mode=), which this form does \
                     not have; use --chmod and --chown after it, or GUESTPATH:file:PATH (a plan can \
                     have any text)",
                ))
            }
            _ => Ok(()),
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

/// Whether a text begins with the name of an attribute and `=`.
fn names_one(text: &str) -> bool {
    ["owner=", "group=", "mode="].iter().any(|name| text.starts_with(name))
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
        for bad in ["a:owner=root:mode=0644", "a,mode=0644", "a,owner=x:mode=0644"] {
            let error = Access::split(bad).unwrap_err().to_string();
            assert!(error.contains("after one colon, with commas"), "{bad}: {error}");
        }
        Access::split("a,b:c=d/e,f").unwrap_err();
        for bad in ["x:mode=0600", "x\ny:owner=me", ":group=0"] {
            let error = Access::refuse_in_content(bad).unwrap_err().to_string();
            assert!(error.contains("--chmod"), "{bad}: {error}");
        }
        for good in ["x", "mode=0600", "x:colour=red", "x:mode=1 y", "x:mode=0600:y"] {
            Access::refuse_in_content(good).unwrap();
        }
    }
}
