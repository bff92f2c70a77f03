//! The settings for keys and passwords in the guest's `sshd_config`. `Include` is followed inside
//! the
//! guest, the first value of a keyword counts, and what stands under `Match` is left aside.

use snf_fs::error::display_name;
use snf_fs::{Result, Tree};

use super::glob;
use crate::limits::{CONFIG_BYTES, HOST_KEYS, PATH_BYTES, SSHD_FILES, SSHD_LEVELS};

const SSHD_CONFIG: &[u8] = b"/etc/ssh/sshd_config";

/// The settings that matter here; a keyword that is not set anywhere is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshdConfig {
    /// Whether there is an `sshd_config` at all.
    pub present: bool,
    /// `AuthorizedKeysFile`: its patterns.
    pub authorized_keys_file: Option<Vec<Vec<u8>>>,
    /// `HostKey`: all of them.
    pub host_keys: Vec<Vec<u8>>,
    /// `PermitRootLogin`, lower case.
    pub permit_root_login: Option<String>,
    /// `PasswordAuthentication`, lower case.
    pub password_authentication: Option<String>,
    /// `KbdInteractiveAuthentication` (or `ChallengeResponseAuthentication`), lower case.
    pub kbd_interactive: Option<String>,
    /// `AllowUsers` and `DenyUsers` are not evaluated, but said.
    pub restricts_users: bool,
}

/// Why an `AuthorizedKeysFile` pattern gives no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// The pattern is `none`: sshd reads no keys.
    None,
    /// A `%` sequence that cannot be known before the guest runs.
    Unknown(String),
    /// With its `%` sequences replaced it is longer than a path may be.
    TooLong,
}

impl SshdConfig {
    /// Reads the guest's configuration; a guest without one gives the defaults.
    pub fn read(tree: &Tree) -> Result<Self> {
        let mut reader = Reader { tree, config: Self::default(), files: 0 };
        reader.config.present = tree.is_file(SSHD_CONFIG)?;
        if reader.config.present {
            reader.file(SSHD_CONFIG, 0)?;
        }
        Ok(reader.config)
    }

    /// Parses one text, without `Include`.
    #[cfg(test)]
    fn parse(text: &[u8]) -> Self {
        let tree = Tree::new(Box::new(snf_fs::MemoryFs::new()));
        let mut reader = Reader { tree: &tree, config: Self::default(), files: 0 };
        reader.text(text, 0).unwrap();
        reader.config
    }

    /// The path of a user's authorized keys: the first pattern, with `%h`, `%u`, `%U` and `%%`
    /// replaced, below the home directory when it is relative.
    pub fn keys_path(&self, name: &[u8], uid: u32, home: &[u8]) -> Result<Vec<u8>, PatternError> {
        let default = b".ssh/authorized_keys".to_vec();
        let pattern = match &self.authorized_keys_file {
            Some(patterns) => patterns.first().unwrap_or(&default),
            None => &default,
        };
        if pattern.eq_ignore_ascii_case(b"none") {
            return Err(PatternError::None);
        }
        let mut path = Vec::new();
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
            match bytes.next() {
                Some(b'h') => path.extend_from_slice(home),
                Some(b'u') => path.extend_from_slice(name),
                Some(b'U') => path.extend_from_slice(uid.to_string().as_bytes()),
                Some(b'%') => path.push(b'%'),
                _ => return Err(PatternError::Unknown(display_name(pattern))),
            }
        }
        if !path.starts_with(b"/") {
            let mut absolute = home.to_vec();
            if !absolute.ends_with(b"/") {
                absolute.push(b'/');
            }
            absolute.extend_from_slice(&path);
            path = absolute;
        }
        if path.len() > PATH_BYTES {
            return Err(PatternError::TooLong);
        }
        Ok(path)
    }
}

struct Reader<'a> {
    tree: &'a Tree,
    config: SshdConfig,
    files: usize,
}

impl Reader<'_> {
    fn file(&mut self, path: &[u8], depth: usize) -> Result<()> {
        self.files += 1;
        let text = self.tree.read(path, CONFIG_BYTES)?;
        self.text(&text, depth)
    }

    fn text(&mut self, text: &[u8], depth: usize) -> Result<()> {
        for line in text.split(|byte| *byte == b'\n') {
            let Some((keyword, values)) = split_line(line) else { continue };
            if keyword == "match" {
                // Everything up to the end of this file is for some connections only.
                return Ok(());
            }
            if keyword == "include" {
                self.include(&values, depth)?;
                continue;
            }
            self.set(&keyword, values)?;
        }
        Ok(())
    }

    fn include(&mut self, patterns: &[Vec<u8>], depth: usize) -> Result<()> {
        for pattern in patterns {
            let pattern = if pattern.starts_with(b"/") {
                pattern.clone()
            } else {
                [b"/etc/ssh/".as_slice(), pattern].concat()
            };
            for path in glob::expand(self.tree, &pattern)? {
                if depth + 1 >= SSHD_LEVELS || self.files >= SSHD_FILES {
                    return Err(snf_fs::Error::Invalid(format!(
                        "{}: Include goes deeper than {SSHD_LEVELS} levels or names more than \
                         {SSHD_FILES} files",
                        display_name(&path)
                    )));
                }
                if self.tree.is_file(&path)? {
                    self.file(&path, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, keyword: &str, values: Vec<Vec<u8>>) -> Result<()> {
        let Some(first) = values.first() else { return Ok(()) };
        let word = || Some(String::from_utf8_lossy(first).to_ascii_lowercase());
        let config = &mut self.config;
        match keyword {
            "authorizedkeysfile" if config.authorized_keys_file.is_none() => {
                config.authorized_keys_file = Some(values);
            }
            "hostkey" if !config.host_keys.contains(first) => {
                if config.host_keys.len() >= HOST_KEYS {
                    return Err(snf_fs::Error::Invalid(format!(
                        "sshd_config names more than {HOST_KEYS} host keys"
                    )));
                }
                config.host_keys.push(first.clone());
            }
            "permitrootlogin" if config.permit_root_login.is_none() => {
                config.permit_root_login = word();
            }
            "passwordauthentication" if config.password_authentication.is_none() => {
                config.password_authentication = word();
            }
            "kbdinteractiveauthentication" | "challengeresponseauthentication"
                if config.kbd_interactive.is_none() =>
            {
                config.kbd_interactive = word();
            }
            "allowusers" | "denyusers" | "allowgroups" | "denygroups" => {
                config.restricts_users = true;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Keyword (lower case) and values of a line; `None` for blank lines and comments.
fn split_line(line: &[u8]) -> Option<(String, Vec<Vec<u8>>)> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii();
    while let Some(first) = rest.first() {
        if *first == b'#' {
            break;
        }
        let (word, after) = if *first == b'"' {
            let inner = &rest[1..];
            let end = inner.iter().position(|byte| *byte == b'"').unwrap_or(inner.len());
            (&inner[..end], inner.get(end + 1..).unwrap_or_default())
        } else {
            // Only the keyword may be followed by an equals sign.
            let is_end =
                |byte: &u8| byte.is_ascii_whitespace() || (words.is_empty() && *byte == b'=');
            let end = rest.iter().position(is_end).unwrap_or(rest.len());
            rest.split_at(end)
        };
        words.push(word.to_vec());
        rest = after.trim_ascii_start();
        if words.len() == 1 {
            rest = rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii_start();
        }
    }
    let mut words = words.into_iter();
    let keyword = words.next()?;
    if keyword.is_empty() {
        return None;
    }
    Some((String::from_utf8_lossy(&keyword).to_ascii_lowercase(), words.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::{Attributes, MemoryFs};

    const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

    #[test]
    fn lines() {
        let config = SshdConfig::parse(
            b"# AuthorizedKeysFile /no\n\
              authorizedkeysfile=\"/etc/ssh/keys of/%u\" .ssh/second # why\n\
              AuthorizedKeysFile /late\r\n\
              HOSTKEY = /etc/ssh/a\n\tHostKey\t/etc/ssh/b\nHostKey /etc/ssh/a\nHostKey\n\
              PermitRootLogin No\n\"\" x\n=\n\
              Match User root\nPermitRootLogin yes\nHostKey /c\n",
        );
        assert_eq!(
            config.authorized_keys_file,
            Some(vec![b"/etc/ssh/keys of/%u".to_vec(), b".ssh/second".to_vec()])
        );
        assert_eq!(config.host_keys, [b"/etc/ssh/a".to_vec(), b"/etc/ssh/b".to_vec()]);
        assert_eq!(config.permit_root_login.as_deref(), Some("no"));
    }

    #[test]
    fn key_paths() {
        let path = |pattern: &str| {
            let config = SshdConfig::parse(format!("AuthorizedKeysFile {pattern}\n").as_bytes());
            config
                .keys_path(b"ann", 1000, b"/home/ann")
                .map(|path| String::from_utf8(path).unwrap())
        };
        assert_eq!(path("").unwrap(), "/home/ann/.ssh/authorized_keys");
        assert_eq!(path("%h/.keys/%u%%").unwrap(), "/home/ann/.keys/ann%");
        assert_eq!(path("/etc/keys/%U").unwrap(), "/etc/keys/1000");
        assert_eq!(path("keys other").unwrap(), "/home/ann/keys");
        assert_eq!(path("none"), Err(PatternError::None));
        assert_eq!(path("/k/%t"), Err(PatternError::Unknown("/k/%t".into())));
        assert_eq!(path("/k/%"), Err(PatternError::Unknown("/k/%".into())));
        let config =
            SshdConfig::parse(format!("AuthorizedKeysFile {}\n", "%h".repeat(9)).as_bytes());
        let home = [b"/".as_slice(), &[b'a'; 500]].concat();
        assert_eq!(config.keys_path(b"ann", 1000, &home), Err(PatternError::TooLong));
        assert_eq!(config.keys_path(b"ann", 1000, &home[..455]).unwrap().len(), 4095);
        let root = SshdConfig::default().keys_path(b"r", 0, b"/").unwrap();
        assert_eq!(root, b"/.ssh/authorized_keys");
    }

    #[test]
    fn includes_come_where_they_stand() {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        assert_eq!(SshdConfig::read(&tree).unwrap(), SshdConfig::default());
        tree.mkdir_all("/etc/ssh/sshd_config.d", FILE).unwrap();
        tree.write(
            SSHD_CONFIG,
            b"Include sshd_config.d/*.conf /etc/none/*\nPermitRootLogin no\nHostKey /etc/ssh/k\n",
            FILE,
        )
        .unwrap();
        tree.write(
            "/etc/ssh/sshd_config.d/1.conf",
            b"PermitRootLogin yes\nMatch all\nHostKey /m\n",
            FILE,
        )
        .unwrap();
        tree.write("/etc/ssh/sshd_config.d/2.conf", b"PasswordAuthentication no\n", FILE).unwrap();
        tree.mkdir("/etc/ssh/sshd_config.d/3.conf", FILE).unwrap();
        let config = SshdConfig::read(&tree).unwrap();
        assert_eq!(config.permit_root_login.as_deref(), Some("yes"));
        assert_eq!(config.password_authentication.as_deref(), Some("no"));
        assert_eq!(config.host_keys, [b"/etc/ssh/k".to_vec()]);
        tree.write("/etc/ssh/sshd_config.d/0.conf", b"Include /etc/ssh/sshd_config\n", FILE)
            .unwrap();
        assert!(SshdConfig::read(&tree).unwrap_err().to_string().contains("Include goes deeper"));
    }
}
