//! Names of extended attributes: a number for the prefix, and the rest.

use crate::error::{Error, Result, display_name};

/// `e_name_index` values.
pub mod name_index {
    /// `user.`
    pub const USER: u8 = 1;
    /// `system.posix_acl_access`, no rest.
    pub const ACL_ACCESS: u8 = 2;
    /// `system.posix_acl_default`, no rest.
    pub const ACL_DEFAULT: u8 = 3;
    /// `trusted.`
    pub const TRUSTED: u8 = 4;
    /// `security.`
    pub const SECURITY: u8 = 6;
    /// `system.`
    pub const SYSTEM: u8 = 7;
    /// `system.richacl`, no rest.
    pub const RICHACL: u8 = 8;
    /// `gnu.`
    pub const HURD: u8 = 10;
}

/// The longest rest of a name.
const REST_MAX: usize = 255;

const PREFIXES: [(u8, &[u8]); 5] = [
    (name_index::USER, b"user."),
    (name_index::TRUSTED, b"trusted."),
    (name_index::SECURITY, b"security."),
    (name_index::HURD, b"gnu."),
    (name_index::SYSTEM, b"system."),
];

const WHOLE: [(u8, &[u8]); 3] = [
    (name_index::ACL_ACCESS, b"system.posix_acl_access"),
    (name_index::ACL_DEFAULT, b"system.posix_acl_default"),
    (name_index::RICHACL, b"system.richacl"),
];

/// The full name, as `listxattr(2)` gives it; `None` for what it does not list: file content kept
/// as an attribute, encryption contexts, unknown prefixes.
pub fn full(index: u8, rest: &[u8]) -> Option<Vec<u8>> {
    if let Some((_, name)) = WHOLE.iter().find(|(known, _)| *known == index) {
        return rest.is_empty().then(|| name.to_vec());
    }
    if index == name_index::SYSTEM && rest == b"data" {
        return None;
    }
    let (_, prefix) = PREFIXES.iter().find(|(known, _)| *known == index)?;
    Some([prefix, rest].concat())
}

/// Prefix number and rest of a full name that may be set.
pub fn split(full: &[u8]) -> Result<(u8, &[u8])> {
    if let Some((index, _)) = WHOLE.iter().find(|(_, name)| *name == full) {
        return Ok((*index, b""));
    }
    let invalid = |why: &str| {
        Err(Error::Invalid(format!("extended attribute `{}`: {why}", display_name(full))))
    };
    for (index, prefix) in PREFIXES {
        let Some(rest) = full.strip_prefix(prefix) else { continue };
        if index == name_index::SYSTEM {
            break;
        }
        if rest.is_empty() || rest.contains(&0) {
            return invalid("there is no name after the prefix");
        }
        if rest.len() > REST_MAX {
            return Err(Error::NameTooLong(display_name(full)));
        }
        return Ok((index, rest));
    }
    invalid(
        "its name must begin with user., trusted. or security., or be system.posix_acl_access or system.posix_acl_default",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for name in [
            b"user.a".as_slice(),
            b"security.selinux",
            b"trusted.x",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
        ] {
            let (index, rest) = split(name).unwrap();
            assert_eq!(full(index, rest).unwrap(), name);
        }
        for name in [b"user.".as_slice(), b"system.data", b"nothing", b""] {
            assert!(split(name).is_err());
        }
        assert_eq!(full(name_index::SYSTEM, b"data"), None);
    }
}
