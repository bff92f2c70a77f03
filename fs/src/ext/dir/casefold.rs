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

/// The folded form of a name; `None` when it is not UTF-8, and is then compared and hashed byte for
/// byte, as the kernel does. Two names are one when these are the same: decomposed (NFD), all case
/// folded, without invisible characters. Characters that came after Unicode 12.1 stay as
/// they are and where they are.
///
/// (The casefold function of e2fsprogs, to 1.47 at least, compares an unsigned byte with -1 and so
/// reports a name that is not UTF-8 as too long; e2fsck then takes whatever it had in the variable
/// for the name's hash, and may complain about an index that is right.)
pub fn fold_text(name: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(name).ok()?;
    if text.is_ascii() {
        return Some(text.to_ascii_lowercase().into_bytes());
    }
    let mut out = String::with_capacity(text.len() + 16);
    for piece in text.split_inclusive(|c| is_ignorable(c) || is_too_new(c)) {
        // Either kind ends the reordering of combining characters.
        let last = piece.chars().next_back().filter(|&c| is_ignorable(c) || is_too_new(c));
        let known = &piece[..piece.len() - last.map_or(0, char::len_utf8)];
        // First folded, each character by itself, then decomposed: U+0345 becomes a letter, and is
        // not moved after other combining characters before.
        out.extend(known.chars().default_case_fold().nfd());
        out.extend(last.filter(|&c| is_too_new(c)));
    }
    Some(out.into_bytes())
}

/// Characters that Unicode 12.1 did not have and that later versions decompose, fold or reorder. The
/// ranges hold no character of 12.1.
fn is_too_new(c: char) -> bool {
    matches!(u32::from(c),
        0x5C8..=0x5C9 | 0x897..=0x89F | 0x8CA..=0x8D2 | 0xC3C | 0x1715 | 0x1ABF..=0x1AF0
        | 0x1C89 | 0x1DFA | 0x2C2F | 0xA7C0 | 0xA7C7..=0xA7F5 | 0xA82C | 0x10570..=0x105E4
        | 0x10D50..=0x10D6D | 0x10EAB..=0x10EFF | 0x10F82..=0x10F85 | 0x11070
        | 0x11383..=0x113D0 | 0x11938..=0x11943 | 0x11F41..=0x11F42 | 0x16121..=0x1612F
        | 0x16D68..=0x16D6A | 0x16FF0..=0x16FF1 | 0x1D127..=0x1D128 | 0x1D250..=0x1D281
        | 0x1E08F | 0x1E2AE | 0x1E4EC..=0x1E6F5)
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
    use std::process::Command;

    use super::super::hash::Hasher;
    use super::{fold_text, is_ignorable, is_too_new};

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
        // Garay came with Unicode 16: to the kernel these are two names.
        assert_ne!(fold("\u{10d50}"), fold("\u{10d70}"));
    }

    /// debugfs hashes every character that has another form as we do, alone, before a combining
    /// character, and after one.
    #[test]
    fn debugfs_folds_alike() {
        let special = |c: &char| {
            let text = c.to_string();
            let same = !text.is_ascii() && fold_text(text.as_bytes()).unwrap() == text.as_bytes();
            !same || is_too_new(*c) || is_ignorable(*c)
        };
        let names: Vec<String> = ('\u{a1}'..='\u{10ffff}')
            .filter(special)
            // The 11,172 syllables of Hangul decompose by one rule.
            .filter(|c| !('\u{ac00}'..='\u{d7a3}').contains(c) || u32::from(*c) % 97 == 0)
            // Of two planes of variation selectors one in sixteen.
            .filter(|c| u32::from(*c) < 0xE_0000 || u32::from(*c) % 16 == 0)
            .map(|c| format!("x{c}\u{327}y\u{301}{c}\u{327}"))
            .collect();
        assert!(names.len() > 3_000, "{}", names.len());
        let script = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<String> =
            names.iter().map(|n| format!("dx_hash -h half_md4 -c -e utf8 \"{n}\"")).collect();
        std::fs::write(script.path(), lines.join("\n")).unwrap();
        let out = Command::new("debugfs").arg("-f").arg(script.path()).output().unwrap();
        let out = String::from_utf8_lossy(&out.stdout).into_owned();
        let hashes: Vec<&str> = out
            .lines()
            .filter_map(|line| line.split_once("is 0x")?.1.split_once(' '))
            .map(|(hash, _)| hash)
            .collect();
        assert_eq!(hashes.len(), names.len());
        let hasher = Hasher { version: 1, unsigned: false, seed: [0; 4] };
        for (name, hash) in names.iter().zip(hashes) {
            let ours = hasher.hash(&fold_text(name.as_bytes()).unwrap());
            assert_eq!(format!("{ours:x}"), hash, "{name:?}");
        }
    }
}
