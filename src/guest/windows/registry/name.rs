//! Names of keys and values: UTF-16 as Windows keeps them, compared without case.

use std::cmp::Ordering;
use std::fmt;

/// A name in UTF-16; not every one is valid Unicode.
#[derive(Clone, Debug, PartialEq, Eq, Default, Hash)]
pub struct Name(Vec<u16>);

impl Name {
    /// The name with these UTF-16 units.
    pub fn from_units(units: Vec<u16>) -> Self {
        Self(units)
    }

    /// The UTF-16 units.
    pub fn units(&self) -> &[u16] {
        &self.0
    }

    /// Whether the name has no character: the default value of a key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Order of names in a list of subkeys: upper case, unit by unit.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.0.iter().map(|unit| upper(*unit)).cmp(other.0.iter().map(|unit| upper(*unit)))
    }

    /// Whether two names are the same for Windows.
    pub fn same(&self, other: &Self) -> bool {
        self.compare(other) == Ordering::Equal
    }

    /// The hash that an `lh` list keeps.
    pub(super) fn hash(&self) -> u32 {
        self.0
            .iter()
            .fold(0u32, |hash, unit| hash.wrapping_mul(37).wrapping_add(u32::from(upper(*unit))))
    }

    /// The first four characters that an `lf` list keeps, zeros where a name is shorter or not
    /// Latin-1.
    pub(super) fn hint(&self) -> [u8; 4] {
        let mut hint = [0; 4];
        if self.0.iter().take(4).all(|unit| *unit < 0x100) {
            for (place, unit) in hint.iter_mut().zip(&self.0) {
                *place = u8::try_from(*unit).unwrap_or(0);
            }
        }
        hint
    }

    /// The bytes that are stored, and whether they are Latin-1.
    pub(super) fn stored(&self) -> (Vec<u8>, bool) {
        let latin: Option<Vec<u8>> = self.0.iter().map(|unit| u8::try_from(*unit).ok()).collect();
        match latin {
            Some(bytes) => (bytes, true),
            None => (utf16_bytes(&self.0), false),
        }
    }

    /// A name from what is stored.
    pub(super) fn from_stored(bytes: &[u8], latin: bool) -> Self {
        Self(if latin {
            bytes.iter().map(|byte| u16::from(*byte)).collect()
        } else {
            utf16_units(bytes)
        })
    }

    /// Its length in bytes of UTF-16.
    pub(super) fn wide_length(&self) -> usize {
        self.0.len() * 2
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

impl fmt::Display for Name {
    /// For messages: control characters and lone surrogates escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for unit in char::decode_utf16(self.0.iter().copied()) {
            match unit {
                Ok(c) if c.is_control() => write!(f, "{}", c.escape_default())?,
                Ok(c) => write!(f, "{c}")?,
                Err(lone) => write!(f, "\\u{{{:x}}}", lone.unpaired_surrogate())?,
            }
        }
        Ok(())
    }
}

/// One UTF-16 unit in upper case. Windows maps one unit to one and leaves some alone that Unicode
/// maps to another script or to ASCII.
fn upper(unit: u16) -> u16 {
    if unit < 0x80 {
        return if (0x61..=0x7a).contains(&unit) { unit - 0x20 } else { unit };
    }
    if matches!(unit, 0xb5 | 0x131 | 0x17f) {
        return unit;
    }
    let Some(c) = char::from_u32(u32::from(unit)) else { return unit };
    let mut mapped = c.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(c), None) => u16::try_from(u32::from(c)).unwrap_or(unit),
        _ => unit,
    }
}

/// UTF-16 units from little-endian bytes; an odd byte at the end is dropped.
pub fn utf16_units(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

/// Little-endian bytes of UTF-16 units.
pub fn utf16_bytes(units: &[u16]) -> Vec<u8> {
    units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_ignore_case() {
        for (a, b) in [("Select", "SELECT"), ("Größe", "GRÖßE"), ("ÿ", "Ÿ"), ("ж", "Ж")] {
            assert!(Name::from(a).same(&b.into()), "{a}");
            assert_eq!(Name::from(a).hash(), Name::from(b).hash());
        }
        assert!(!Name::from("ı").same(&"I".into()));
        assert_eq!(Name::from("a").compare(&"B".into()), Ordering::Less);
        // `_` (0x5f) comes after the letters, because those are compared as capitals.
        assert_eq!(Name::from("z").compare(&"_".into()), Ordering::Less);
    }

    #[test]
    fn hashes_and_hints() {
        // H("AB") = 37 * 0x41 + 0x42.
        assert_eq!(Name::from("ab").hash(), 37 * 0x41 + 0x42);
        assert_eq!(Name::from("Lsa").hint(), *b"Lsa\0");
        assert_eq!(Name::from("Ä日").hint(), [0; 4]);
    }

    #[test]
    fn storing() {
        for text in ["", "Größe", "日本", "😀"] {
            let (bytes, latin) = Name::from(text).stored();
            assert_eq!(Name::from_stored(&bytes, latin), text.into());
            assert_eq!(latin, text.chars().all(|c| u32::from(c) < 256));
        }
        let odd = Name::from_units(vec![0xd800, 7]);
        assert_eq!(odd.to_string(), "\\u{d800}\\u{7}");
    }
}
