//! Lists of extended attributes as they are on disk: entries from the front, values from the end.
//!
//! Source: the kernel's Documentation/filesystems/ext4/attributes.rst.

use crate::error::{Error, Result};
use crate::ext::units::Ino;
use crate::num::{to_u8, to_u16, to_u32, to_usize};

/// Bytes of an entry before its name.
const HEADER: usize = 16;
/// Bytes that end the entries.
const TERMINATOR: usize = 4;
/// The largest value in an inode of its own: what `setxattr(2)` takes.
const INODE_VALUE_MAX: u32 = 65_536;
/// The largest value that `setxattr(2)` takes, in bytes.
pub const VALUE_MAX: usize = 65_536;
/// `h_magic`, at the start of a list in an inode or a block.
pub const MAGIC: u32 = 0xEA02_0000;

/// A value, or the inode that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Beside the entry.
    Here(Vec<u8>),
    /// In an inode of its own (`ea_inode`): number, size and the hash kept there.
    Inode {
        /// `e_value_inum`.
        ino: Ino,
        /// `e_value_size`.
        size: u32,
        /// `e_hash` as it was found or computed.
        e_hash: u32,
    },
}

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    /// `e_name_index`.
    pub index: u8,
    /// The name after the prefix.
    pub name: Vec<u8>,
    /// The value.
    pub value: Value,
}

impl Attr {
    /// Bytes that it takes in a list.
    pub fn size(&self) -> usize {
        let value = match &self.value {
            Value::Here(value) => value.len().next_multiple_of(4),
            Value::Inode { .. } => 0,
        };
        (HEADER + self.name.len()).next_multiple_of(4) + value
    }

    fn key(&self) -> (u8, usize, &[u8]) {
        (self.index, self.name.len(), &self.name)
    }

    /// `e_hash`.
    pub fn hash(&self) -> u32 {
        match &self.value {
            Value::Here(value) => hash_words(
                hash_name(&self.name),
                value.chunks(4).map(|chunk| {
                    let mut word = [0; 4];
                    word[..chunk.len()].copy_from_slice(chunk);
                    u32::from_le_bytes(word)
                }),
            ),
            Value::Inode { e_hash, .. } => *e_hash,
        }
    }
}

/// The part of `e_hash` that the name makes.
fn hash_name(name: &[u8]) -> u32 {
    name.iter().fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte))
}

fn hash_words(hash: u32, words: impl Iterator<Item = u32>) -> u32 {
    words.fold(hash, |hash, word| hash.rotate_left(16) ^ word)
}

/// `e_hash` of an attribute whose value is in an inode with this hash.
pub fn hash_of_inode_value(name: &[u8], value_hash: u32) -> u32 {
    hash_words(hash_name(name), std::iter::once(value_hash))
}

/// `h_hash` of a block with these attributes.
pub fn block_hash(list: &[Attr]) -> u32 {
    let mut hash = 0u32;
    for attr in list {
        let entry = attr.hash();
        if entry == 0 {
            return 0;
        }
        hash = hash.rotate_left(16) ^ entry;
    }
    hash
}

/// Puts attributes into the order that a block keeps them in.
pub fn sort(list: &mut [Attr]) {
    list.sort_by(|a, b| a.key().cmp(&b.key()));
}

/// Whether a list fits into `room` bytes.
pub fn fits(list: &[Attr], room: usize) -> bool {
    list.iter().map(Attr::size).sum::<usize>() + TERMINATOR <= room
}

/// Parses a list. Entries begin at `start` of `region`; value offsets count from the start of
/// `region`. `position` names the region in errors.
pub fn parse(region: &[u8], start: usize, position: &str) -> Result<Vec<Attr>> {
    let corrupt = |at: usize, detail: String| {
        Error::corrupt("extended attribute", format!("{position}, byte {at}"), detail)
    };
    let mut heads = Vec::new();
    let mut at = start;
    loop {
        let Some(word) = region.get(at..at + TERMINATOR) else {
            return Err(corrupt(at, "the entries have no end".to_owned()));
        };
        if word == [0; 4] {
            break;
        }
        let Some(head) = region.get(at..at + HEADER) else {
            return Err(corrupt(at, "an entry goes beyond the end".to_owned()));
        };
        let name_len = usize::from(head[0]);
        let Some(name) = region.get(at + HEADER..at + HEADER + name_len) else {
            return Err(corrupt(at, format!("e_name_len is {name_len}, beyond the end")));
        };
        heads.push((at, head, name));
        at += (HEADER + name_len).next_multiple_of(4);
    }
    let names_end = at + TERMINATOR;
    let mut list = Vec::with_capacity(heads.len());
    for (at, head, name) in heads {
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let offset = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let (ino, size, e_hash) = (Ino::new(word(4)), word(8), word(12));
        let value = if !ino.is_none() {
            if size > INODE_VALUE_MAX {
                return Err(corrupt(
                    at,
                    format!("e_value_size is {size}, at most {INODE_VALUE_MAX} expected"),
                ));
            }
            Value::Inode { ino, size, e_hash }
        } else if size == 0 {
            Value::Here(Vec::new())
        } else {
            let value = offset
                .checked_add(to_usize(size))
                .and_then(|end| region.get(offset..end))
                .ok_or_else(|| {
                    corrupt(at, format!("the value of {size} bytes at {offset} is beyond the end"))
                })?;
            if offset < names_end {
                return Err(corrupt(
                    at,
                    format!("e_value_offs is {offset}, among the names (up to {names_end})"),
                ));
            }
            Value::Here(value.to_vec())
        };
        list.push(Attr { index: head[1], name: name.to_vec(), value });
    }
    Ok(list)
}

/// Writes a list that [`fits`] into `region`, whose bytes from `start` on are given up. `hashes`:
/// whether entries carry their hash (in blocks they do; in inodes only those with a value in an
/// inode).
pub fn write(region: &mut [u8], start: usize, list: &[Attr], hashes: bool) {
    region[start..].fill(0);
    let mut at = start;
    let mut end = region.len();
    for attr in list {
        region[at] = to_u8(attr.name.len());
        region[at + 1] = attr.index;
        let mut hash = if hashes { attr.hash() } else { 0 };
        match &attr.value {
            Value::Here(value) => {
                if !value.is_empty() {
                    end -= value.len().next_multiple_of(4);
                    region[end..end + value.len()].copy_from_slice(value);
                    region[at + 2..at + 4].copy_from_slice(&to_u16(end).to_le_bytes());
                }
                region[at + 8..at + 12].copy_from_slice(&to_u32(value.len()).to_le_bytes());
            }
            Value::Inode { ino, size, e_hash } => {
                region[at + 4..at + 8].copy_from_slice(&ino.to_le_bytes());
                region[at + 8..at + 12].copy_from_slice(&size.to_le_bytes());
                hash = *e_hash;
            }
        }
        region[at + 12..at + 16].copy_from_slice(&hash.to_le_bytes());
        region[at + HEADER..at + HEADER + attr.name.len()].copy_from_slice(&attr.name);
        at += (HEADER + attr.name.len()).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(index: u8, name: &str, value: &[u8]) -> Attr {
        Attr { index, name: name.as_bytes().to_vec(), value: Value::Here(value.to_vec()) }
    }

    #[test]
    fn written_and_parsed() {
        let list = vec![
            attr(1, "empty", b""),
            attr(2, "", b"12345"),
            attr(6, "selinux", b"system_u:object_r:shadow_t:s0\0"),
            Attr {
                index: 1,
                name: b"big".to_vec(),
                value: Value::Inode { ino: Ino::new(77), size: 5000, e_hash: 9 },
            },
        ];
        let mut region = vec![0xFF; 256];
        assert!(fits(&list, 252));
        write(&mut region, 4, &list, true);
        assert_eq!(parse(&region, 4, "here").unwrap(), list);
    }

    #[test]
    fn hostile_lists_are_refused() {
        let list = vec![attr(1, "name", b"value")];
        let mut good = vec![0; 64];
        write(&mut good, 0, &list, true);
        for (at, value) in [(0, 200u8), (2, 2), (2, 62), (8, 80), (11, 255)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(parse(&bad, 0, "here").is_err(), "byte {at}");
        }
        assert!(parse(&[1; 64], 0, "here").is_err());
        assert!(parse(&[], 0, "here").is_err());
    }
}
