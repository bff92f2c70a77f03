//! POSIX ACLs: ext4 keeps them shorter than `getxattr(2)` shows them.
//!
//! On disk: version 1, then entries of tag and permissions, with an id where the tag names one
//! user or group. As a value: version 2, and every entry has an id.

use crate::error::{Error, Result};

const DISK_VERSION: u32 = 1;
const VALUE_VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One line of an ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// An access control list.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Acl {
    entries: Vec<Entry>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl Acl {
    /// Parses the form on disk. `None` when it is not one.
    pub fn from_disk(bytes: &[u8]) -> Option<Self> {
        if u32_at(bytes, 0)? != DISK_VERSION {
            return None;
        }
        let mut entries = Vec::new();
        let mut at = 4;
        while at < bytes.len() {
            let tag = u16_at(bytes, at)?;
            let permissions = u16_at(bytes, at + 2)?;
            at += 4;
            let mut id = NO_ID;
            match tag {
                USER | GROUP => {
                    id = u32_at(bytes, at)?;
                    at += 4;
                }
                USER_OBJ | GROUP_OBJ | MASK | OTHER => {}
                _ => return None,
            }
            entries.push(Entry { tag, permissions, id });
        }
        Some(Self { entries })
    }

    /// The form on disk.
    pub fn to_disk(&self) -> Vec<u8> {
        let mut out = DISK_VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            out.extend(entry.tag.to_le_bytes());
            out.extend(entry.permissions.to_le_bytes());
            if matches!(entry.tag, USER | GROUP) {
                out.extend(entry.id.to_le_bytes());
            }
        }
        out
    }

    /// The value that `getxattr(2)` gives.
    pub fn to_value(&self) -> Vec<u8> {
        let mut out = VALUE_VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            out.extend(entry.tag.to_le_bytes());
            out.extend(entry.permissions.to_le_bytes());
            out.extend(entry.id.to_le_bytes());
        }
        out
    }

    /// Parses a value as `setxattr(2)` takes it, and checks it as the kernel does: the three owners
    /// once each, in order, and a mask where a user or group is named.
    pub fn from_value(bytes: &[u8]) -> Result<Self> {
        let invalid = |why: &str| Error::Invalid(format!("POSIX ACL: {why}"));
        if u32_at(bytes, 0) != Some(VALUE_VERSION) || bytes.len() % 8 != 4 {
            return Err(invalid("it is not in the form of version 2"));
        }
        let mut entries = Vec::new();
        for chunk in bytes[4..].chunks_exact(8) {
            let (Some(tag), Some(permissions), Some(id)) =
                (u16_at(chunk, 0), u16_at(chunk, 2), u32_at(chunk, 4))
            else {
                continue;
            };
            if permissions > 7 {
                return Err(invalid("permissions beyond rwx"));
            }
            let id = if matches!(tag, USER | GROUP) { id } else { NO_ID };
            entries.push(Entry { tag, permissions, id });
        }
        let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
        let named = count(USER) + count(GROUP);
        if entries
            .iter()
            .any(|entry| !matches!(entry.tag, USER_OBJ | USER | GROUP_OBJ | GROUP | MASK | OTHER))
        {
            return Err(invalid("unknown tag"));
        }
        if entries.is_empty() {
            return Ok(Self::default());
        }
        if count(USER_OBJ) != 1 || count(GROUP_OBJ) != 1 || count(OTHER) != 1 || count(MASK) > 1 {
            return Err(invalid("owner, group and others must be there once each"));
        }
        if named > 0 && count(MASK) == 0 {
            return Err(invalid("named users and groups need a mask"));
        }
        if entries.windows(2).any(|pair| pair[0].tag > pair[1].tag) {
            return Err(invalid("its entries are not in order"));
        }
        if entries.iter().any(|entry| matches!(entry.tag, USER | GROUP) && entry.id == NO_ID) {
            return Err(invalid("a named user or group without an id"));
        }
        Ok(Self { entries })
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn permissions(&self, tag: u16) -> Option<u16> {
        self.entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }

    /// The nine permission bits that stand for this ACL in a mode.
    pub fn mode(&self) -> u16 {
        let group = self.permissions(MASK).or_else(|| self.permissions(GROUP_OBJ)).unwrap_or(0);
        self.permissions(USER_OBJ).unwrap_or(0) << 6
            | group << 3
            | self.permissions(OTHER).unwrap_or(0)
    }

    /// Whether a mode expresses all of the ACL.
    pub fn is_mode_only(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// Changes the ACL as `chmod(2)` does.
    pub fn set_mode(&mut self, mode: u16) {
        let group_tag = if self.permissions(MASK).is_some() { MASK } else { GROUP_OBJ };
        for entry in &mut self.entries {
            let tag = entry.tag;
            if tag == USER_OBJ {
                entry.permissions = mode >> 6 & 7;
            } else if tag == group_tag {
                entry.permissions = mode >> 3 & 7;
            } else if tag == OTHER {
                entry.permissions = mode & 7;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Acl {
        let e = |tag, permissions, id| Entry { tag, permissions, id };
        Acl {
            entries: vec![
                e(USER_OBJ, 7, NO_ID),
                e(USER, 5, 1000),
                e(GROUP_OBJ, 5, NO_ID),
                e(MASK, 5, NO_ID),
                e(OTHER, 0, NO_ID),
            ],
        }
    }

    #[test]
    fn both_forms() {
        let acl = sample();
        assert_eq!(Acl::from_disk(&acl.to_disk()).unwrap(), acl);
        assert_eq!(Acl::from_value(&acl.to_value()).unwrap(), acl);
        assert_eq!(acl.to_disk().len(), 4 + 4 * 5 + 4);
        assert_eq!(acl.mode(), 0o750);
    }

    #[test]
    fn modes() {
        let mut acl = sample();
        acl.set_mode(0o604);
        assert_eq!(acl.mode(), 0o604);
    }

    #[test]
    fn wrong_values() {
        assert!(Acl::from_value(b"").is_err());
        assert!(Acl::from_value(&[2, 0, 0, 0, 1]).is_err());
        let mut acl = sample();
        acl.entries.retain(|entry| entry.tag != MASK);
        assert!(Acl::from_value(&acl.to_value()).is_err());
        acl.entries.swap(0, 1);
        assert!(Acl::from_value(&acl.to_value()).is_err());
    }
}
