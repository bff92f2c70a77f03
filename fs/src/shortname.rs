//! Short names of the form 8.3, as Windows makes them for programs of the last century.
//!
//! Windows does not document how; this follows what is known of Windows 7 and later: first six
//! characters and `~1` to `~4`, then two characters, a sum of the long name in four hexadecimal
//! digits, and `~1` to `~9`.

use crate::num::low16;

/// Most numbers that are tried before there is no short name.
const MOST: u32 = 1000;

/// Characters that a short name cannot hold beside those that no Windows name can.
fn goes_bad(unit: u16) -> bool {
    u8::try_from(unit).map_or(true, |byte| b"+,;=[]\"*/:<>?\\|".contains(&byte) || byte >= 0x7f)
}

/// Whether the name can be a short name as it is, whatever its case: Windows gives such a file one
/// name that serves as both.
pub fn is_short(name: &[u16]) -> bool {
    let dot = name.iter().position(|&unit| unit == u16::from(b'.'));
    let (base, extension) = match dot {
        Some(dot) => (&name[..dot], &name[dot + 1..]),
        None => (name, &name[name.len()..]),
    };
    let good = |part: &[u16]| {
        part.iter().all(|&unit| unit > 32 && unit != u16::from(b'.') && !goes_bad(unit))
    };
    let lengths = (1..=8).contains(&base.len()) && extension.len() <= 3;
    lengths && good(base) && good(extension) && (dot.is_none() || !extension.is_empty())
}

/// A short name for `long` that `is_taken` says no other file of the directory has. `None` where
/// none can be found; the file has its long name only then.
pub fn short_name(
    long: &[u16],
    mut is_taken: impl FnMut(&[u16]) -> crate::Result<bool>,
) -> crate::Result<Option<Vec<u16>>> {
    let start = long.iter().position(|&unit| unit != u16::from(b'.')).unwrap_or(long.len());
    let name = &long[start..];
    let dot = name.iter().rposition(|&unit| unit == u16::from(b'.'));
    let (base, extension) = name.split_at(dot.unwrap_or(name.len()));
    let base: Vec<u8> = base.iter().filter_map(|&unit| short_char(unit)).collect();
    let extension: Vec<u8> =
        extension.iter().filter_map(|&unit| short_char(unit)).take(3).collect();
    let sum = format!("{:04X}", checksum(long));
    for number in 1..=MOST {
        // Two characters say too little, and get the sum at once.
        let plain = number <= 4 && base.len() > 2;
        let number = if plain || base.len() <= 2 { number } else { number - 4 };
        let tail = format!("~{number}");
        let mut short = match plain {
            true => base[..base.len().min(6)].to_vec(),
            false => [&base[..base.len().min(2)], sum.as_bytes()].concat(),
        };
        short.truncate(8 - tail.len());
        short.extend(tail.as_bytes());
        if !extension.is_empty() {
            short.push(b'.');
            short.extend(&extension);
        }
        let short: Vec<u16> = short.into_iter().map(u16::from).collect();
        if !is_taken(&short)? {
            return Ok(Some(short));
        }
    }
    Ok(None)
}

/// A character of a long name in a short one: nothing for blanks and dots, a capital letter, or an
/// underscore for what a short name cannot hold.
fn short_char(unit: u16) -> Option<u8> {
    match u8::try_from(unit) {
        Ok(b' ' | b'.') => None,
        Ok(byte) if byte > 32 && !goes_bad(unit) => Some(byte.to_ascii_uppercase()),
        _ => Some(b'_'),
    }
}

/// The sum that Windows 7 and later put into short names.
fn checksum(name: &[u16]) -> u16 {
    let sum = name.iter().fold(0u16, |sum, &unit| sum.wrapping_mul(37).wrapping_add(unit));
    let mixed = i32::from(sum).wrapping_mul(314_159_269).unsigned_abs() % 1_000_000_007;
    let mixed = low16(mixed);
    // The digits come in reverse.
    (mixed & 0xf000) >> 12 | (mixed & 0x0f00) >> 4 | (mixed & 0x00f0) << 4 | (mixed & 0x000f) << 12
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn wide(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn make(long: &str, taken: &[&str]) -> String {
        let taken: BTreeSet<_> = taken.iter().map(|name| wide(name)).collect();
        let short = short_name(&wide(long), |name| Ok(taken.contains(name))).unwrap().unwrap();
        assert!(is_short(&short));
        String::from_utf16(&short).unwrap()
    }

    #[test]
    fn first_six_characters_and_a_number() {
        assert_eq!(make("Program Files", &[]), "PROGRA~1");
        assert_eq!(make("Program Files (x86)", &["PROGRA~1"]), "PROGRA~2");
        assert_eq!(make("5+6 June Report.doc", &[]), "5_6JUN~1.DOC");
        assert_eq!(make("SomeStuff.aspx", &[]), "SOMEST~1.ASP");
        assert_eq!(make("TextFile.Mine.txt", &[]), "TEXTFI~1.TXT");
        assert_eq!(make(".bashrc.swp", &[]), "BASHRC~1.SWP");
        assert_eq!(make(".git", &[]), "GIT~1");
        assert_eq!(make("unattend.xml.orig", &[]), "UNATTE~1.ORI");
        assert_eq!(make("Größe.txt", &[]), "GR__E~1.TXT");
    }

    /// The sum is that of an example of Windows' own, published by Thomas Galvin in 2015.
    #[test]
    fn then_the_sum() {
        let four = ["SOMEST~1.ASP", "SOMEST~2.ASP", "SOMEST~3.ASP", "SOMEST~4.ASP"];
        assert_eq!(make("SomeStuff.aspx", &four), "SOBC84~1.ASP");
        let five = [&four[..], &["SOBC84~1.ASP"]].concat();
        assert_eq!(make("SomeStuff.aspx", &five), "SOBC84~2.ASP");
        let short = make("ab.html", &[]);
        assert!(short.starts_with("AB") && short.ends_with("~1.HTM") && short.len() == 12);
        assert!(short_name(&wide("all taken.text"), |_| Ok(true)).unwrap().is_none());
        let mut seen = BTreeSet::new();
        for _ in 0..1000 {
            let taken = |name: &[u16]| Ok(seen.contains(name));
            let short = short_name(&wide("one of many.text"), taken).unwrap();
            let short = short.unwrap();
            assert!(is_short(&short) && seen.insert(short));
        }
    }

    #[test]
    fn names_that_are_short_already() {
        for short in ["A", "README", "readme.txt", "PROGRA~1", "x.c", "12345678.123", "a_b-c.$$$"] {
            assert!(is_short(&wide(short)), "{short}");
        }
        let long =
            ["", ".", ".x", "x.", "a b", "123456789", "a.1234", "a.b.c", "ä", "a+b", "a,b", "[a]"];
        for long in long {
            assert!(!is_short(&wide(long)), "{long}");
        }
    }
}
