//! Names of NTFS and FAT: UTF-16 on disk, ordered and found without regard to case through a table
//! of capital letters (NTFS has its own, `$UpCase`), and bytes of UTF-8 for the rest of this crate.
//!
//! On disk a name may hold halves of surrogate pairs. Such a half is shown as the three bytes that
//! UTF-8's scheme gives its number (WTF-8), as ntfs-3g and Linux do it, and taken back from them.

use std::cmp::Ordering;

use crate::error::{Error, Result, display_name};
use crate::num::low8;

/// Most UTF-16 units of a name.
pub const NAME_MAX: usize = 255;
/// Bytes of the attribute `$DATA` of `$UpCase`.
pub const UPCASE_BYTES: usize = 2 * 65_536;

/// A table of capital letters: for each of the 65,536 units the one it counts as.
#[derive(Clone)]
pub struct UpCase {
    table: Vec<u16>,
}

impl UpCase {
    /// The table of a volume: the content of `$UpCase`, 131,072 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() != UPCASE_BYTES {
            let detail = format!("it has {} bytes, not {UPCASE_BYTES}", bytes.len());
            return Err(Error::corrupt("$UpCase", "MFT record 10", detail));
        }
        Ok(Self {
            table: bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect(),
        })
    }

    /// A table made from Unicode's simple capital letters, where there is no volume to ask. A
    /// volume's own table differs from it in letters that its Windows did not know.
    pub fn unicode() -> Self {
        let upper = |unit: u16| {
            let mut capitals = char::from_u32(unit.into())?.to_uppercase();
            match (capitals.next(), capitals.next()) {
                (Some(capital), None) => u16::try_from(u32::from(capital)).ok(),
                _ => None,
            }
        };
        Self { table: (0..=u16::MAX).map(|unit| upper(unit).unwrap_or(unit)).collect() }
    }

    /// The unit that `unit` counts as when case does not matter.
    pub fn fold(&self, unit: u16) -> u16 {
        self.table.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// The name in capitals.
    pub fn fold_name(&self, name: &[u16]) -> Vec<u16> {
        name.iter().map(|&unit| self.fold(unit)).collect()
    }

    /// Order without regard to case.
    pub fn compare_folded(&self, a: &[u16], b: &[u16]) -> Ordering {
        let folded = |name: &'_ u16| self.fold(*name);
        a.iter().map(folded).cmp(b.iter().map(folded))
    }

    /// COLLATION_FILE_NAME, the order of a directory: without regard to case, and by number where
    /// two names differ in case only.
    pub fn compare(&self, a: &[u16], b: &[u16]) -> Ordering {
        self.compare_folded(a, b).then_with(|| a.cmp(b))
    }

    /// Whether Windows takes the two for the same name.
    pub fn same(&self, a: &[u16], b: &[u16]) -> bool {
        self.compare_folded(a, b) == Ordering::Equal
    }
}

/// A name's units as they stand on disk.
pub fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
}

/// The bytes on disk of a name's units.
pub fn unit_bytes(units: &[u16]) -> Vec<u8> {
    units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
}

/// A name from disk as UTF-8; a lone half of a surrogate pair becomes three bytes (WTF-8).
pub fn to_utf8(name: &[u16]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for unit in char::decode_utf16(name.iter().copied()) {
        match unit {
            Ok(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(half) => {
                let half = half.unpaired_surrogate();
                let low = |shift: u32| 0x80 | low8(half >> shift & 0x3f);
                out.extend([0xe0 | low8(half >> 12), low(6), low(0)]);
            }
        }
    }
    out
}

/// UTF-16 of a name or link target in UTF-8, where three bytes of WTF-8 stand for half a surrogate
/// pair. Two such that would make a pair are refused: they would come back as other bytes.
pub fn to_utf16(name: &[u8]) -> Result<Vec<u16>> {
    let bad = || {
        let shown = display_name(name);
        Error::Invalid(format!("{shown}: names are kept in UTF-16, and this one is not UTF-8"))
    };
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    // Whether `out` ends in half a pair that was spelled by itself.
    let mut half_before = false;
    while !rest.is_empty() {
        let (valid, after) = match std::str::from_utf8(rest) {
            Ok(text) => (text, &[][..]),
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                (std::str::from_utf8(valid).unwrap_or_default(), after)
            }
        };
        out.extend(valid.encode_utf16());
        half_before &= valid.is_empty();
        let [first, second, third, ..] = *after else {
            return if after.is_empty() { Ok(out) } else { Err(bad()) };
        };
        if first != 0xed || !(0xa0..=0xbf).contains(&second) || !(0x80..=0xbf).contains(&third) {
            return Err(bad());
        }
        let half = 0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f);
        let is_high = |unit: u16| unit & 0xfc00 == 0xd800;
        if half_before && !is_high(half) && out.last().copied().is_some_and(is_high) {
            return Err(bad());
        }
        out.push(half);
        half_before = true;
        rest = &after[3..];
    }
    Ok(out)
}

/// Names that Windows keeps for devices, whatever extension follows.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// Whether Windows' own programs can make and open a file of this name: no control character, none
/// of `" * / : < > ? \ |`, no blank or dot at the end, no name of a device, at most 255 units. The
/// error is the reason, to be put after the name.
pub fn check_windows_name(name: &[u16]) -> Result<(), &'static str> {
    if name.is_empty() || name == [u16::from(b'.')] || name == [u16::from(b'.'); 2] {
        return Err("this is no name");
    }
    if name.len() > NAME_MAX {
        return Err("a name has at most 255 UTF-16 units");
    }
    if name.iter().any(|&unit| unit < 32) {
        return Err("a Windows name holds no control characters");
    }
    if name.iter().any(|&unit| u8::try_from(unit).is_ok_and(|b| b"\"*/:<>?\\|".contains(&b))) {
        return Err("a Windows name holds none of \" * / : < > ? \\ |");
    }
    if matches!(name.last(), Some(0x20 | 0x2e)) {
        return Err("a Windows name does not end in a blank or a dot");
    }
    if is_device(name) {
        return Err("Windows keeps this name for a device");
    }
    Ok(())
}

fn is_device(name: &[u16]) -> bool {
    let dot = name.iter().position(|&unit| unit == u16::from(b'.')).unwrap_or(name.len());
    let mut stem = &name[..dot];
    while let [rest @ .., 0x20] = stem {
        stem = rest;
    }
    let stem = String::from_utf16_lossy(stem).to_ascii_uppercase();
    let numbered = |prefix| {
        let digit = stem.strip_prefix(prefix).and_then(|rest| {
            let mut chars = rest.chars();
            chars.next().filter(|_| chars.next().is_none())
        });
        matches!(digit, Some('1'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}'))
    };
    DEVICES.contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    #[test]
    fn order_ignores_case_first() {
        let upcase = UpCase::unicode();
        let compare = |a, b| upcase.compare(&wide(a), &wide(b));
        assert_eq!(compare("abc", "ABD"), Ordering::Less);
        assert_eq!(compare("ABC", "abc"), Ordering::Less);
        assert_eq!(compare("abc", "abc"), Ordering::Equal);
        assert_eq!(compare("a", "B"), Ordering::Less);
        assert_eq!(compare("a", "_"), Ordering::Less);
        assert_eq!(compare("ab", "a"), Ordering::Greater);
        assert_eq!(compare("ÿ", "Ÿ"), Ordering::Less);
        assert!(upcase.same(&wide("Füße"), &wide("FÜßE")));
        assert!(!upcase.same(&wide("Füße"), &wide("FÜSSE")));
        // Units, not characters, are ordered: a pair stands before U+FB00.
        assert_eq!(compare("\u{1f600}", "\u{fb00}"), Ordering::Less);
        assert!(UpCase::from_bytes(&[0; 131_071]).is_err());
        let mut bytes = unit_bytes(&(0..=u16::MAX).collect::<Vec<_>>());
        bytes[2 * 97] = b'Q';
        let own = UpCase::from_bytes(&bytes).unwrap();
        assert!(own.same(&wide("ab"), &wide("Qb")) && !own.same(&wide("a"), &wide("A")));
    }

    #[test]
    fn names_go_there_and_back() {
        let mut random = crate::testing::Random(3);
        for _ in 0..2000 {
            let name: Vec<u16> = (0..random.below(12))
                .map(|_| match random.below(4) {
                    0 => 0xd800 + random.below(0x400) as u16,
                    1 => 0xdc00 + random.below(0x400) as u16,
                    2 => random.next_u64() as u16,
                    _ => 0x20 + random.below(0x60) as u16,
                })
                .collect();
            let bytes = to_utf8(&name);
            assert_eq!(to_utf16(&bytes).unwrap(), name, "{bytes:x?}");
        }
        assert_eq!(to_utf8(&[0xd800, 0x61]), b"\xed\xa0\x80a");
        assert_eq!(to_utf8(&wide("\u{1f600}")), "\u{1f600}".as_bytes());
        for bad in
            [&b"\xff"[..], b"a\xed\xa0", b"\xed\xa0\x80\xed\xb0\x80", b"\xc0\x80", b"x\xe2\x82"]
        {
            assert!(to_utf16(bad).is_err(), "{bad:x?}");
        }
        assert_eq!(to_utf16(b"\xed\xb0\x80\xed\xa0\x80").unwrap(), [0xdc00, 0xd800]);
        assert_eq!(to_utf16(b"\xed\xa0\x80x\xed\xb0\x80").unwrap(), [0xd800, 0x78, 0xdc00]);
    }

    #[test]
    fn windows_names() {
        let verdict = |name: &str| check_windows_name(&wide(name)).is_ok();
        for good in
            ["a", "unattend.xml", ".profile", "com0", "COM10", "a.b.c", "CONSOLE", "ÄÖ", " x"]
        {
            assert!(verdict(good), "{good}");
        }
        let bad = [
            "",
            ".",
            "..",
            "a:b",
            "a/b",
            "a\\b",
            "q?",
            "tab\t",
            "end ",
            "end.",
            "CON",
            "con.txt",
            "nul.tar.gz",
            "COM1",
            "lpt9.x",
            "com\u{b9}",
            "aux .c",
            "conin$",
            "a\0b",
            "<",
            "|",
            "\"",
        ];
        for bad in bad {
            assert!(!verdict(bad), "{bad:?}");
        }
        assert!(verdict(&"x".repeat(255)) && !verdict(&"x".repeat(256)));
    }
}
