//! Names that new users and groups may have.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::BadEdit;

/// The longest name: what `utmp` has room for.
const NAME_MAX: usize = 32;

/// The name of a new user or group: letters, digits, `_`, `-` and `.`, not a number, and a letter or
/// `_` in front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(String);

impl AccountName {
    /// A name of a request.
    ///
    /// # Errors
    /// When no user can have it.
    pub fn new(name: &str) -> Result<Self, BadEdit> {
        let fail = |problem: &str| {
            Err(BadEdit::new(format!("the name '{}' {problem}", name.escape_debug())))
        };
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let inner = name.strip_suffix('$').unwrap_or(name);
        if name.is_empty() {
            return fail("is empty");
        }
        if name.len() > NAME_MAX {
            return fail("is too long; 32 bytes are the most");
        }
        if !inner.starts_with(first)
            || !inner.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        {
            return fail(
                "cannot be that of a new user or group; it has letters, digits, '_', '-' and '.', and \
                 begins with a letter or '_'",
            );
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AccountName {
    type Error = BadEdit;

    fn try_from(name: String) -> Result<Self, BadEdit> {
        Self::new(&name)
    }
}

impl From<AccountName> for String {
    fn from(name: AccountName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["ann", "_apt", "www-data", "a.b", "host$", "A1"] {
            assert!(AccountName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "-a", "a:b", "a b", "a/b", "a\n", ".", "$", "é", &"a".repeat(33)] {
            assert!(AccountName::new(bad).is_err(), "{bad}");
        }
    }
}
