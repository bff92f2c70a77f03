//! Paths in the guest, as a request gives them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::BadEdit;
use crate::ask::windows_path;
use crate::guest::Guest;
use crate::guest::windows::path as windows;
use crate::task::TaskError;

/// The longest path that a guest takes, in bytes.
const PATH_MAX: usize = 4096;

/// An absolute path in the guest (`/etc/motd`), or one in Windows' spelling (`C:\dir\file`). It
/// may end with a slash where it names a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct GuestPath(String);

/// Splits `FROM:GUESTPATH`, where the path begins with a slash.
///
/// # Errors
/// When it has another form.
pub(super) fn pair<'a>(text: &'a str, form: &str) -> Result<(&'a str, GuestPath), BadEdit> {
    match text.rfind(":/") {
        Some(at) if at > 0 => Ok((&text[..at], GuestPath::new(&text[at + 1..])?)),
        _ => Err(BadEdit::form(text, form)),
    }
}

impl GuestPath {
    /// A path of a request.
    ///
    /// # Errors
    /// When it is not absolute, or no path at all.
    pub fn new(path: &str) -> Result<Self, BadEdit> {
        let fail = |problem: &str| {
            Err(BadEdit::new(format!("the guest path '{}' {problem}", path.escape_debug())))
        };
        if path.is_empty() {
            return fail("is empty; it must be an absolute path in the guest");
        }
        if path.len() > PATH_MAX {
            return Err(BadEdit::new(format!(
                "a guest path has {} bytes; {PATH_MAX} is the most a path can have",
                path.len()
            )));
        }
        if path.contains('\0') {
            return fail("holds a NUL character, which no path can");
        }
        let drive = matches!(path.as_bytes(), [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
        if drive || path.starts_with('\\') {
            if let Err(problem) = windows_path::from_windows(path.trim_end_matches(['\\', '/'])) {
                return fail(&problem.to_string());
            }
        } else if !path.starts_with('/') {
            return fail("does not begin with '/'; it must be an absolute path in the guest");
        }
        Ok(Self(path.to_owned()))
    }

    /// The same for a file: it must not look like a directory.
    ///
    /// # Errors
    /// As [`GuestPath::new`], and when it ends as the path of a directory does.
    pub fn file(path: &str) -> Result<Self, BadEdit> {
        let this = Self::new(path)?;
        if path.ends_with(['/', '\\']) || path.ends_with("/.") || path.ends_with("/..") {
            return Err(BadEdit::new(format!(
                "the guest path '{}' names a directory; it must name a file",
                path.escape_debug()
            )));
        }
        Ok(this)
    }

    /// As it was asked for.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path in the tree of this guest: on Windows, names are found without regard to case.
    ///
    /// # Errors
    /// When it is a path of Windows and the guest is none, or the other way round.
    pub(crate) fn on(&self, guest: &Guest) -> Result<Vec<u8>, TaskError> {
        if !guest.is_windows() {
            if self.0.starts_with('/') {
                return Ok(self.0.as_bytes().to_vec());
            }
            return Err(TaskError::request(format!(
                "\"{self}\" is a path of Windows, and this guest is none; it must begin with '/'"
            )));
        }
        let trimmed = self.0.trim_end_matches(['/', '\\']);
        if trimmed.is_empty() {
            return Ok(b"/".to_vec());
        }
        let path = windows_path::from_windows(trimmed)
            .map_err(|problem| TaskError::Path { path: self.to_string(), problem })?;
        Ok(windows::place(&guest.tree, &path)?)
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&snf_fs::error::display_name(self.0.as_bytes()))
    }
}

impl TryFrom<String> for GuestPath {
    type Error = BadEdit;

    fn try_from(path: String) -> Result<Self, BadEdit> {
        Self::new(&path)
    }
}

impl From<GuestPath> for String {
    fn from(path: GuestPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_path() {
        for good in ["/", "/etc", "/a:b/c d/", "C:\\Windows\\x", "\\x"] {
            assert_eq!(GuestPath::new(good).unwrap().as_str(), good);
        }
        for (bad, part) in [
            ("", "is empty"),
            ("etc", "does not begin with '/'"),
            ("/a\0", "NUL"),
            ("D:\\x", "another drive"),
        ] {
            let error = GuestPath::new(bad).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        for bad in ["/a/", "/a/.", "/a/.."] {
            assert!(GuestPath::file(bad).is_err(), "{bad}");
        }
        assert!(GuestPath::new(&"/x".repeat(3000)).is_err());
    }
}
