//! Names in directories that ignore case (`casefold`).

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;

use super::super::volume::Volume;
use crate::error::{Error, Result};

/// `s_encoding`: UTF-8 as of Unicode 12.1.
const ENCODING_UTF8_12_1: u16 = 1;
/// `s_encoding_flags`: names that are not valid in the encoding are refused.
const STRICT: u16 = 1;

/// Refuses an encoding that is not known.
pub fn check_encoding(volume: &Volume) -> Result<()> {
    let encoding = volume.sb.raw.s_encoding.get();
    if encoding == ENCODING_UTF8_12_1 {
        return Ok(());
    }
    Err(Error::unsupported(
        format!("casefold with s_encoding {encoding}"),
        "only 1 (utf8-12.1) is known; edit the files from inside the running guest",
    ))
}

/// Refuses a new name that is not in the encoding, where the file system is strict about it.
pub fn check_new(volume: &Volume, name: &[u8]) -> Result<()> {
    if volume.sb.raw.s_encoding_flags.get() & STRICT != 0 && fold_text(name).is_none() {
        return Err(Error::Invalid(format!(
            "`{}` is not UTF-8, which this file system demands of names (casefold, strict)",
            crate::error::display_name(name)
        )));
    }
    Ok(())
}

/// The folded form of a name; `None` when it is not UTF-8, and is then compared byte for byte. Two
/// names are one when these are the same: decomposed (NFD), all case folded, without the characters
/// that nobody sees.
pub fn fold_text(name: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(name).ok()?;
    if text.is_ascii() {
        return Some(text.to_ascii_lowercase().into_bytes());
    }
    let visible = text.chars().filter(|&c| !is_ignorable(c));
    // Folding may give composed characters, and so is decomposed again.
    let folded = visible.nfd().default_case_fold().nfd().filter(|&c| !is_ignorable(c));
    Some(folded.collect::<String>().into_bytes())
}

/// Default_Ignorable_Code_Point of Unicode 12.1.
fn is_ignorable(c: char) -> bool {
    matches!(u32::from(c),
        0xAD | 0x34F | 0x61C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180E
        | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0x3164 | 0xFE00..=0xFE0F
        | 0xFEFF | 0xFFA0 | 0xFFF0..=0xFFF8 | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A
        | 0xE0000..=0xE0FFF)
}

#[cfg(test)]
mod tests {
    use super::fold_text;

    #[test]
    fn one_name_in_many_forms() {
        let fold = |name: &str| fold_text(name.as_bytes()).unwrap();
        assert_eq!(fold("README.txt"), fold("readme.TXT"));
        assert_eq!(fold("Straße"), fold("STRASSE"));
        assert_eq!(fold("caf\u{e9}"), fold("CAFE\u{301}"));
        assert_eq!(fold("soft\u{ad}hyphen"), fold("softhyphen"));
        assert_eq!(fold("ΑΣ"), fold("ας"));
        assert_ne!(fold("a"), fold("b"));
        assert_eq!(fold_text(b"\xff"), None);
    }
}
