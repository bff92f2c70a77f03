//! The file in which sshd looks for the keys of one user.

use snf_fs::error::display_name;

use super::settings::Settings;
use crate::limits::PATH_BYTES;

/// Why no pattern of `AuthorizedKeysFile` gives a file that is one user's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is `none`: sshd reads no keys from files.
    #[error("sshd is told to read no authorized keys (AuthorizedKeysFile none)")]
    None,
    /// A `%` sequence that cannot be known before the guest runs.
    #[error(
        "AuthorizedKeysFile of the image is \"{0}\", which has a % sequence that is not known before \
         the guest runs"
    )]
    Unknown(String),
    /// Files of all users: whoever has a key in one of them gets in as anybody.
    #[error(
        "AuthorizedKeysFile of the image is \"{0}\", one file for all users; add .ssh/authorized_keys \
         to it in the image"
    )]
    Shared(String),
    /// With its `%` sequences replaced it is longer than a path may be.
    #[error("AuthorizedKeysFile of the image gives a path of more than {PATH_BYTES} bytes")]
    TooLong,
}

impl Settings {
    /// The path of a user's authorized keys: the first pattern that is this user's own, because it
    /// is relative to the home or holds `%h`, `%u` or `%U`.
    ///
    /// # Errors
    /// When there is no such pattern.
    pub fn keys_path(&self, name: &[u8], uid: u32, home: &[u8]) -> Result<Vec<u8>, PatternError> {
        let mut problem = PatternError::None;
        for pattern in self.authorized_keys_file() {
            if pattern.eq_ignore_ascii_case(b"none") {
                continue;
            }
            match expand(&pattern, name, uid, home) {
                Ok(path) => return Ok(path),
                Err(PatternError::TooLong) => return Err(PatternError::TooLong),
                // A sequence that is not known may stand for the user.
                Err(error) if !matches!(problem, PatternError::Unknown(_)) => problem = error,
                Err(_) => {}
            }
        }
        Err(problem)
    }
}

fn expand(pattern: &[u8], name: &[u8], uid: u32, home: &[u8]) -> Result<Vec<u8>, PatternError> {
    let mut path = Vec::new();
    let mut own = !pattern.starts_with(b"/") && !pattern.starts_with(b"~");
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        // Before it grows further: each `%h` may stand for thousands of bytes.
        if path.len() > PATH_BYTES {
            return Err(PatternError::TooLong);
        }
        if *byte != b'%' {
            path.push(*byte);
            continue;
        }
        let sequence = bytes.next();
        own |= matches!(sequence, Some(b'h' | b'u' | b'U'));
        match sequence {
            Some(b'h') => path.extend_from_slice(home),
            Some(b'u') => path.extend_from_slice(name),
            Some(b'U') => path.extend_from_slice(uid.to_string().as_bytes()),
            Some(b'%') => path.push(b'%'),
            _ => return Err(PatternError::Unknown(display_name(pattern))),
        }
    }
    if !own {
        return Err(PatternError::Shared(display_name(pattern)));
    }
    if !path.starts_with(b"/") {
        let slash: &[u8] = if home.ends_with(b"/") { b"" } else { b"/" };
        path = [home, slash, &path].concat();
    }
    if path.len() > PATH_BYTES {
        return Err(PatternError::TooLong);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(patterns: &[&str]) -> Settings {
        let patterns: Vec<Vec<u8>> = patterns.iter().map(|p| p.as_bytes().to_vec()).collect();
        Settings { authorized_keys_file: patterns, ..Settings::default() }
    }

    #[test]
    fn the_first_pattern_that_is_the_users_own() {
        let path = |patterns: &[&str]| {
            let path = settings(patterns).keys_path(b"ann", 1000, b"/home/ann");
            path.map(|path| String::from_utf8(path).unwrap())
        };
        assert_eq!(path(&[]).unwrap(), "/home/ann/.ssh/authorized_keys");
        assert_eq!(path(&["%h/.keys/%u%%"]).unwrap(), "/home/ann/.keys/ann%");
        assert_eq!(path(&["/etc/keys/%U"]).unwrap(), "/etc/keys/1000");
        assert_eq!(path(&["keys", "other"]).unwrap(), "/home/ann/keys");
        assert_eq!(path(&["/etc/ssh/keys", "None", ".ssh/k"]).unwrap(), "/home/ann/.ssh/k");
        assert_eq!(path(&["none"]), Err(PatternError::None));
        assert_eq!(path(&["/a", "~/k"]), Err(PatternError::Shared("~/k".into())));
        assert_eq!(path(&["/k/%t", "/a"]), Err(PatternError::Unknown("/k/%t".into())));
        assert_eq!(path(&["/k/%"]), Err(PatternError::Unknown("/k/%".into())));
    }

    #[test]
    fn long_paths() {
        let many = settings(&["%h".repeat(9).as_str()]);
        let home = [b"/".as_slice(), &[b'a'; 500]].concat();
        assert_eq!(many.keys_path(b"ann", 1000, &home), Err(PatternError::TooLong));
        assert_eq!(many.keys_path(b"ann", 1000, &home[..455]).unwrap().len(), 4095);
        let root = Settings::default().keys_path(b"r", 0, b"/").unwrap();
        assert_eq!(root, b"/.ssh/authorized_keys");
    }
}
