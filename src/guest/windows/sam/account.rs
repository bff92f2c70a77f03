//! The two values that describe a user: `V`, a table of texts and hashes, and `F`, fixed fields.

use super::Lacking;
use crate::guest::windows::registry::FileTime;

/// Entries of the table of `V`: offset, length and a word for each.
const ENTRIES: usize = 17;
const ENTRY: usize = 12;
/// The start of the data that the entries point to.
const DATA: usize = ENTRIES * ENTRY;
/// Hashes are longer than this: it is the length of the head alone.
const RC4_HEAD: usize = 4;
const AES_HEAD: usize = 24;

/// The content of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The hash for LAN Manager, which nobody makes any more.
    LmHash = 13,
    /// The hash of the password.
    NtHash = 14,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}

/// Offset and length of an entry's content in `V`.
fn range(v: &[u8], index: usize) -> Option<std::ops::Range<usize>> {
    let offset = word(v, index * ENTRY)? as usize;
    let length = word(v, index * ENTRY + 4)? as usize;
    let start = DATA.checked_add(offset)?;
    let end = start.checked_add(length)?;
    (end <= v.len()).then_some(start..end)
}

/// The content of an entry.
pub(super) fn entry(v: &[u8], entry: Entry) -> Option<&[u8]> {
    v.get(range(v, entry as usize)?)
}

/// Whether there is a hash of a password.
pub(super) fn has_password(v: &[u8]) -> Option<bool> {
    let hash = entry(v, Entry::NtHash)?;
    let head = if hash.get(2) == Some(&2) { AES_HEAD } else { RC4_HEAD };
    Some(hash.len() > head)
}

/// `V` with another hash of the password, and none for LAN Manager. Everything else has the same
/// content and order.
pub(super) fn with_hash(v: &[u8], hash: &[u8], empty: Vec<u8>) -> Result<Vec<u8>, Lacking> {
    let mut contents = Vec::with_capacity(ENTRIES);
    for index in 0..ENTRIES {
        let range = range(v, index).ok_or(Lacking::Entry(index))?;
        contents.push((range.start, index));
    }
    contents.sort_unstable();
    let mut out = v.get(..DATA).unwrap_or_default().to_vec();
    for (_, index) in contents {
        let old = range(v, index).and_then(|range| v.get(range)).unwrap_or_default();
        let content: &[u8] = match index {
            _ if index == Entry::NtHash as usize => hash,
            _ if index == Entry::LmHash as usize && !old.is_empty() => &empty,
            _ => old,
        };
        let place = ((out.len() - DATA) as u32, content.len() as u32);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(4), 0);
        out[index * ENTRY..index * ENTRY + 4].copy_from_slice(&place.0.to_le_bytes());
        out[index * ENTRY + 4..index * ENTRY + 8].copy_from_slice(&place.1.to_le_bytes());
    }
    Ok(out)
}

/// Fields of `F`.
const PASSWORD_LAST_SET: usize = 0x18;
const ACB: usize = 0x38;
const BAD_PASSWORD_COUNT: usize = 0x40;
const F_SIZE: usize = 0x50;
/// Bits of the account's control word.
const ACB_DISABLED: u8 = 0x01;
const ACB_AUTO_LOCKED: u8 = 0x04;

pub(super) fn is_disabled(f: &[u8]) -> bool {
    f.get(ACB).is_some_and(|flags| flags & ACB_DISABLED != 0)
}

/// `F` of an account whose password was set just now and that can be used; and whether it was
/// disabled.
pub(super) fn usable(f: &[u8], now: FileTime) -> Result<(Vec<u8>, bool), Lacking> {
    if f.len() < F_SIZE {
        return Err(Lacking::Fields(f.len()));
    }
    let was_disabled = is_disabled(f);
    let mut out = f.to_vec();
    out[PASSWORD_LAST_SET..PASSWORD_LAST_SET + 8].copy_from_slice(&now.0.to_le_bytes());
    out[ACB] &= !ACB_DISABLED;
    // Bit 10 of the word.
    out[ACB + 1] &= !ACB_AUTO_LOCKED;
    out[BAD_PASSWORD_COUNT..BAD_PASSWORD_COUNT + 2].fill(0);
    Ok((out, was_disabled))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table whose entries have as many bytes as their index says.
    fn table() -> Vec<u8> {
        let mut v = vec![0; DATA];
        for index in 0..ENTRIES {
            let offset = v.len() - DATA;
            v.extend(std::iter::repeat_n(index as u8, index % 5 * 4));
            let length = v.len() - DATA - offset;
            v[index * ENTRY..index * ENTRY + 4].copy_from_slice(&(offset as u32).to_le_bytes());
            v[index * ENTRY + 4..index * ENTRY + 8].copy_from_slice(&(length as u32).to_le_bytes());
        }
        v
    }

    #[test]
    fn only_the_hashes_change() {
        let old = table();
        let new = with_hash(&old, &[0xaa; 20], vec![1, 0, 1, 0]).unwrap();
        for index in 0..ENTRIES {
            let content = |v: &[u8]| v[range(v, index).unwrap()].to_vec();
            match index {
                13 => assert_eq!(content(&new), [1, 0, 1, 0]),
                14 => assert_eq!(content(&new), [0xaa; 20]),
                _ => assert_eq!(content(&new), content(&old), "{index}"),
            }
        }
        assert_eq!(with_hash(&new, &[0xaa; 20], vec![1, 0, 1, 0]).unwrap(), new);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(with_hash(&[], &[], vec![]).is_err());
        let mut v = table();
        v[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(with_hash(&v, &[], vec![]).is_err());
        assert!(usable(&[0; 79], FileTime(1)).is_err());
        assert_eq!(has_password(&[]), None);
    }

    #[test]
    fn accounts_become_usable() {
        let mut f = vec![0xff; F_SIZE];
        f[ACB] = 0x15;
        let (new, was_disabled) = usable(&f, FileTime(7)).unwrap();
        assert!(was_disabled && !is_disabled(&new));
        assert_eq!((new[ACB], new[ACB + 1], new[BAD_PASSWORD_COUNT]), (0x14, 0xfb, 0));
        assert_eq!(new[PASSWORD_LAST_SET], 7);
    }
}
