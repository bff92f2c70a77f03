//! Names: eleven bytes in capitals, and long ones in UTF-16 before them.

use zerocopy::transmute;

use super::layout::LongEntry;
use crate::error::{Error, Result, display_name};
use crate::num::{low8, to_u8};
use crate::shortname::{is_short, short_name};
use crate::utf16::{UpCase, check_windows_name, to_utf8, to_utf16};

/// Bit of DIR_NTRes: the base of the short name is shown in small letters.
const LOWER_BASE: u8 = 0x08;
/// Bit of DIR_NTRes: the extension is shown in small letters.
const LOWER_EXTENSION: u8 = 0x10;
/// Units that one entry of a long name holds.
pub(super) const UNITS: usize = 13;
/// The upper half of code page 437, which names without a long one are in.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// How names are compared: without regard to case, with Unicode's simple capitals.
pub(super) struct Folding(UpCase);

impl Folding {
    pub(super) fn new() -> Self {
        Self(UpCase::unicode())
    }

    pub(super) fn same(&self, a: &[u16], b: &[u16]) -> bool {
        self.0.same(a, b)
    }
}

fn letter(byte: u8) -> char {
    match byte {
        0x80.. => CP437.chars().nth(usize::from(byte) - 0x80).unwrap_or('_'),
        _ => char::from(byte),
    }
}

/// The name that eleven bytes show; `res` is DIR_NTRes.
pub(super) fn shown(short: &[u8; 11], res: u8) -> Vec<u16> {
    let part = |bytes: &[u8], lower: bool| {
        let end = bytes.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
        let shown = |(index, &byte): (usize, &u8)| match byte {
            // 0xe5 would say that the entry is free, and is written as 5.
            5 if index == 0 => letter(0xe5),
            _ if lower => letter(byte.to_ascii_lowercase()),
            _ => letter(byte),
        };
        bytes[..end].iter().enumerate().map(shown).collect::<String>()
    };
    let mut name = part(&short[..8], res & LOWER_BASE != 0);
    let extension = part(&short[8..], res & LOWER_EXTENSION != 0);
    if !extension.is_empty() {
        name.push('.');
        name.push_str(&extension);
    }
    name.encode_utf16().collect()
}

/// The label that eleven bytes show: a name without a dot.
pub(super) fn shown_label(label: &[u8; 11]) -> Vec<u16> {
    let text: String = label.iter().map(|&byte| letter(byte)).collect();
    text.trim_end_matches([' ', '\0']).encode_utf16().collect()
}

/// The sum of a short name that each entry of its long name has.
pub(super) fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte))
}

/// The entries of a long name, in their order on disk, for the short name after them.
pub(super) fn long_entries(name: &[u16], short: &[u8; 11]) -> Vec<[u8; 32]> {
    let sum = checksum(short);
    let count = name.len().div_ceil(UNITS);
    let entry = |number: usize| -> [u8; 32] {
        let mut entry: LongEntry = transmute!([0u8; 32]);
        entry.ord = to_u8(number) | if number == count { 0x40 } else { 0 };
        entry.attr = super::dir::LONG_NAME;
        entry.chksum = sum;
        entry.set_units(std::array::from_fn(|index| {
            let place = (number - 1) * UNITS + index;
            // One zero after the name, and then ones.
            match name.get(place) {
                Some(&unit) => unit,
                None if place == name.len() => 0,
                None => 0xffff,
            }
        }));
        transmute!(entry)
    };
    (1..=count).rev().map(entry).collect()
}

/// A name for a new entry: its units, refused where Windows could not open it.
pub(super) fn wanted(name: &[u8]) -> Result<Vec<u16>> {
    let units = to_utf16(name)?;
    if units.len() > 255 {
        return Err(Error::NameTooLong(display_name(name)));
    }
    check_windows_name(&units)
        .map_err(|reason| Error::Invalid(format!("{}: {reason}", display_name(name))))?;
    Ok(units)
}

/// The short name for a new entry, and whether it needs a long one too. `is_taken` is asked with
/// the eleven bytes.
pub(super) fn short_for(
    name: &[u16],
    is_taken: &dyn Fn(&[u8; 11]) -> bool,
) -> Result<([u8; 11], bool)> {
    if is_short(name) {
        let (short, capitals) = eleven(name);
        if capitals || !is_taken(&short) {
            return Ok((short, !capitals));
        }
    }
    match short_name(name, |short| Ok(is_taken(&eleven(short).0)))? {
        Some(short) => Ok((eleven(&short).0, true)),
        None => {
            let name = display_name(&to_utf8(name));
            Err(Error::NoSpace(format!("{name}: the directory has no short name left for it")))
        }
    }
}

/// The eleven bytes of a short name, and whether they show it as it is.
fn eleven(name: &[u16]) -> ([u8; 11], bool) {
    let mut out = [b' '; 11];
    let dot = name.iter().position(|&unit| unit == u16::from(b'.')).unwrap_or(name.len());
    let parts = [(0..8, &name[..dot]), (8..11, name.get(dot + 1..).unwrap_or(&[]))];
    let mut capitals = true;
    for (places, part) in parts {
        for (place, &unit) in places.zip(part) {
            let byte = low8(unit);
            capitals &= !byte.is_ascii_lowercase();
            out[place] = byte.to_ascii_uppercase();
        }
    }
    (out, capitals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    fn wide(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    #[test]
    fn short_names_are_shown() {
        let text = |short: &[u8; 11], res| String::from_utf16(&shown(short, res)).unwrap();
        assert_eq!(text(b"BOOTX64 EFI", 0), "BOOTX64.EFI");
        assert_eq!(text(b"BOOTX64 EFI", 0x18), "bootx64.efi");
        assert_eq!(text(b"EFI        ", 0x08), "efi");
        assert_eq!(text(b"\x05\x81      \x9a  ", 0), "σü.Ü");
        assert_eq!(CP437.chars().count(), 128);
    }

    #[test]
    fn long_names_come_apart_and_together() {
        for length in [1, 12, 13, 14, 26, 255] {
            let name: Vec<u16> = (0..length).map(|index| 0x100 + index).collect();
            let entries = long_entries(&name, b"A          ");
            assert_eq!(entries.len(), name.len().div_ceil(13));
            let mut all: Vec<u16> = entries
                .iter()
                .rev()
                .flat_map(|entry| LongEntry::read_from_bytes(entry).unwrap().units())
                .collect();
            assert!(all[name.len()..].iter().skip(1).all(|&unit| unit == 0xffff));
            all.truncate(name.len());
            assert_eq!(all, name);
        }
        // From the specification of long names: the sum does not depend on anything else.
        assert_eq!(
            checksum(b"           "),
            (0..11).fold(0u8, |s, _| s.rotate_right(1).wrapping_add(32))
        );
    }

    #[test]
    fn new_names_get_short_ones() {
        let short = |name: &str, taken: &[&[u8; 11]]| {
            short_for(&wide(name), &|short| taken.contains(&short)).unwrap()
        };
        assert_eq!(short("BOOTX64.EFI", &[]), (*b"BOOTX64 EFI", false));
        assert_eq!(short("grub.cfg", &[]), (*b"GRUB    CFG", true));
        assert_eq!(short("grub.cfg", &[b"GRUB    CFG"]), (*b"GRUB~1  CFG", true));
        assert_eq!(short("loader.config", &[]), (*b"LOADER~1CON", true));
        assert!(wanted(b"a:b").is_err() && wanted(b"\xff").is_err());
        assert!(wanted("x".repeat(256).as_bytes()).is_err());
    }
}
