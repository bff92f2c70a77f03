//! The orders that index keys can have.

use std::cmp::Ordering;

use crate::utf16::UpCase;

/// COLLATION_BINARY.
pub const BINARY: u32 = 0;
/// COLLATION_FILE_NAME: directories.
pub const FILE_NAME: u32 = 1;
/// COLLATION_NTOFS_ULONG: `$SII` of `$Secure`, `$Q` of `$Quota`.
pub const ULONG: u32 = 0x10;
/// COLLATION_NTOFS_SID: `$O` of `$Quota`.
pub const SID: u32 = 0x11;
/// COLLATION_NTOFS_SECURITY_HASH: `$SDH` of `$Secure`.
pub const SECURITY_HASH: u32 = 0x12;
/// COLLATION_NTOFS_ULONGS: `$O` of `$ObjId`, `$R` of `$Reparse`.
pub const ULONGS: u32 = 0x13;

/// Byte of a `$FILE_NAME` value at which the name's length in units stands.
const FILE_NAME_LENGTH: usize = 64;
/// Byte of a `$FILE_NAME` value at which the name begins.
const FILE_NAME_NAME: usize = 66;

/// The order of one index's keys.
#[derive(Clone, Copy)]
pub enum Collation<'a> {
    /// Byte by byte.
    Binary,
    /// By the name in a `$FILE_NAME` value.
    FileName(&'a UpCase),
    /// By a number of 32 bits.
    Ulong,
    /// By a security identifier, byte by byte.
    Sid,
    /// By the hash of a security descriptor, then its id.
    SecurityHash,
    /// By numbers of 32 bits, the first one first.
    Ulongs,
}

impl<'a> Collation<'a> {
    /// The order that CollationRule of an `$INDEX_ROOT` names; `None` for one that is not known.
    pub fn new(rule: u32, upcase: &'a UpCase) -> Option<Self> {
        Some(match rule {
            BINARY => Self::Binary,
            FILE_NAME => Self::FileName(upcase),
            ULONG => Self::Ulong,
            SID => Self::Sid,
            SECURITY_HASH => Self::SecurityHash,
            ULONGS => Self::Ulongs,
            _ => return None,
        })
    }

    /// Whether `key` has the shape that [`Collation::compare`] looks at.
    pub fn takes(&self, key: &[u8]) -> bool {
        match self {
            Self::Binary | Self::Sid => true,
            Self::FileName(_) => key
                .get(FILE_NAME_LENGTH)
                .is_some_and(|&units| key.len() >= FILE_NAME_NAME + 2 * usize::from(units)),
            Self::Ulong => key.len() == 4,
            Self::SecurityHash => key.len() == 8,
            Self::Ulongs => key.len().is_multiple_of(4),
        }
    }

    /// The order of two keys that [`Collation::takes`].
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        let numbers = |key: &'_ [u8]| key.chunks_exact(4).map(long).collect::<Vec<_>>();
        match self {
            Self::Binary | Self::Sid => a.cmp(b),
            Self::FileName(upcase) => {
                let folded = |unit: u16| upcase.fold(unit);
                let without_case = key_name(a).map(folded).cmp(key_name(b).map(folded));
                without_case.then_with(|| key_name(a).cmp(key_name(b)))
            }
            Self::Ulong | Self::SecurityHash | Self::Ulongs => numbers(a).cmp(&numbers(b)),
        }
    }
}

fn long(bytes: &[u8]) -> u32 {
    crate::bytes::le32(bytes, 0).unwrap_or(0)
}

/// The units of the name in a directory's key.
pub fn key_name(key: &[u8]) -> impl Iterator<Item = u16> + Clone + '_ {
    let units = key.get(FILE_NAME_LENGTH).copied().unwrap_or(0);
    let name = key.get(FILE_NAME_NAME..).unwrap_or(&[]);
    name.chunks_exact(2).take(units.into()).map(|b| u16::from_le_bytes([b[0], b[1]]))
}

/// A key of a directory that has nothing but a name, to look for.
#[cfg(test)]
pub fn name_key(name: &[u16]) -> Vec<u8> {
    let mut key = vec![0; FILE_NAME_NAME];
    key[FILE_NAME_LENGTH] = crate::num::to_u8(name.len().min(255));
    key.extend(name.iter().take(255).flat_map(|unit| unit.to_le_bytes()));
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        let upcase = UpCase::unicode();
        let rule = |rule| Collation::new(rule, &upcase).unwrap();
        let bytes = |longs: &[u32]| longs.iter().flat_map(|l| l.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(rule(BINARY).compare(b"ab", b"b"), Ordering::Less);
        // 256 is less than 1 byte by byte, and is not as a number.
        assert_eq!(rule(ULONG).compare(&bytes(&[256]), &bytes(&[1])), Ordering::Greater);
        let hash = rule(SECURITY_HASH);
        assert_eq!(hash.compare(&bytes(&[7, 300]), &bytes(&[7, 299])), Ordering::Greater);
        assert_eq!(hash.compare(&bytes(&[7, 300]), &bytes(&[256, 1])), Ordering::Less);
        assert_eq!(rule(ULONGS).compare(&bytes(&[1, 2]), &bytes(&[1, 2, 0])), Ordering::Less);
        let name = |text: &str| name_key(&text.encode_utf16().collect::<Vec<_>>());
        assert_eq!(rule(FILE_NAME).compare(&name("b"), &name("A")), Ordering::Greater);
        assert_eq!(rule(FILE_NAME).compare(&name("B"), &name("b")), Ordering::Less);
        assert!(rule(FILE_NAME).takes(&name("b")) && !rule(FILE_NAME).takes(&name("b")[..67]));
        assert!(!rule(ULONG).takes(&[1, 2, 3]) && !rule(SECURITY_HASH).takes(&[0; 4]));
        assert!(Collation::new(2, &upcase).is_none());
    }
}
