//! Reparse points: symbolic links, junctions, and the many things that Windows keeps elsewhere.
//!
//! Source: MS-FSCC, section 2.1.2.

use crate::bytes::le32;
use crate::utf16::{to_utf8, units};

/// IO_REPARSE_TAG_MOUNT_POINT: a junction, or the place where a volume is mounted.
pub const MOUNT_POINT: u32 = 0xa000_0003;
/// IO_REPARSE_TAG_SYMLINK.
pub const SYMLINK: u32 = 0xa000_000c;
/// IO_REPARSE_TAG_LX_SYMLINK: a symbolic link of the Windows Subsystem for Linux.
pub const LX_SYMLINK: u32 = 0xa000_001d;
/// IO_REPARSE_TAG_WOF: a file that CompactOS or WIMBoot keeps compressed or elsewhere.
pub const WOF: u32 = 0x8000_0017;

/// The content of `$REPARSE_POINT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reparse {
    /// A link to a path, by one of the three tags for that.
    Link(Target),
    /// Content that is not in the file's own streams; the name is that of the feature.
    Elsewhere(&'static str),
    /// The file's content is its own; the tag says more about it, or is not known.
    Other(u32),
}

/// The target of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path from the directory of the link, `/` between its parts.
    Relative(Vec<u8>),
    /// A path from the root of the volume of the link.
    Rooted(Vec<u8>),
    /// A path from the root of the volume with a drive letter (a capital).
    Drive(u8, Vec<u8>),
    /// A path from the root of a volume that is named in another way, as Windows spells it.
    Volume(Vec<u8>, Vec<u8>),
}

impl Target {
    /// The target as a link on a Unix system would have it, for the volume that is drive `own`: its
    /// paths begin at `/`, and a path of another drive or volume is `None`.
    pub fn link_text(&self, own: u8) -> Option<Vec<u8>> {
        match self {
            Self::Relative(path) => Some(path.clone()),
            Self::Rooted(path) => Some([b"/", &path[..]].concat()),
            Self::Drive(letter, path) if *letter == own => Some([b"/", &path[..]].concat()),
            Self::Drive(..) | Self::Volume(..) => None,
        }
    }

    /// The target for a message.
    pub fn display(&self) -> String {
        let text = match self {
            Self::Relative(path) => path.clone(),
            Self::Rooted(path) => [b"\\", &path[..]].concat(),
            Self::Drive(letter, path) => [&[*letter, b':', b'\\'], &path[..]].concat(),
            Self::Volume(volume, path) => [&volume[..], b"\\", path].concat(),
        };
        crate::error::display_name(&text)
    }
}

fn le16(bytes: &[u8], at: usize) -> Option<usize> {
    crate::bytes::le16(bytes, at).map(usize::from)
}

/// Reads the value of `$REPARSE_POINT`. The error says what is wrong with it.
pub fn parse(value: &[u8]) -> Result<Reparse, String> {
    let short = || format!("{} bytes are too few", value.len());
    let tag = le32(value, 0).ok_or_else(short)?;
    let length = le16(value, 4).ok_or_else(short)?;
    // Tags that are not Microsoft's have a GUID before the data.
    let from = if tag & 0x8000_0000 == 0 { 24 } else { 8 };
    let data = value.get(from..from + length).ok_or_else(|| {
        format!("it says that it has {length} bytes of data, and has {}", value.len())
    })?;
    Ok(match tag {
        MOUNT_POINT => Reparse::Link(absolute(&substitute(data, 8)?)),
        SYMLINK => {
            let flags = le32(data, 8).ok_or_else(short)?;
            let name = substitute(data, 12)?;
            Reparse::Link(if flags & 1 != 0 { relative(&name) } else { absolute(&name) })
        }
        LX_SYMLINK => {
            let target = data.get(4..).ok_or_else(short)?;
            Reparse::Link(match target.strip_prefix(b"/") {
                Some(path) => Target::Rooted(path.to_vec()),
                None => Target::Relative(target.to_vec()),
            })
        }
        _ => elsewhere(tag).map_or(Reparse::Other(tag), Reparse::Elsewhere),
    })
}

/// The features that keep a file's content elsewhere.
fn elsewhere(tag: u32) -> Option<&'static str> {
    Some(match tag {
        WOF => "WOF (CompactOS) compression",
        0x8000_0013 => "data deduplication",
        0x8000_0008 => "WIM mounting",
        0xc000_0004 | 0xc000_0014 => "hierarchical storage",
        0x8000_0006 => "hierarchical storage",
        0x8000_0007 => "single instance storage",
        0x8000_0018 | 0x9000_1018 | 0xa000_0027 | 0xa000_1027 => "a container's layer",
        0x9000_0019 | 0xa000_001f | 0x9000_001c | 0xa000_0022 => "a projected file",
        // IO_REPARSE_TAG_CLOUD to IO_REPARSE_TAG_CLOUD_F.
        tag if tag & 0xffff_0fff == 0x9000_001a => "a cloud provider's file",
        _ => return None,
    })
}

/// SubstituteName, with the names' buffer at byte `buffer` of the data.
fn substitute(data: &[u8], buffer: usize) -> Result<Vec<u16>, String> {
    let (offset, length) = match (le16(data, 0), le16(data, 2)) {
        (Some(offset), Some(length)) => (offset, length),
        _ => return Err(format!("a link of {} bytes", data.len())),
    };
    let name = data.get(buffer + offset..buffer + offset + length).filter(|_| length % 2 == 0);
    let mut name = units(name.ok_or_else(|| {
        format!("SubstituteName has {length} bytes at {offset} of {}", data.len())
    })?);
    while name.last() == Some(&0) {
        name.pop();
    }
    if name.is_empty() || name.contains(&0) {
        return Err("SubstituteName is no path".to_owned());
    }
    Ok(name)
}

fn slashes(name: &[u16]) -> Vec<u8> {
    let turned = |&unit: &u16| if unit == u16::from(b'\\') { u16::from(b'/') } else { unit };
    to_utf8(&name.iter().map(turned).collect::<Vec<_>>())
}

fn relative(name: &[u16]) -> Target {
    match name {
        // From the root of the drive on which the link is.
        [0x5c, rest @ ..] => Target::Rooted(slashes(rest)),
        _ => Target::Relative(slashes(name)),
    }
}

fn absolute(name: &[u16]) -> Target {
    // `\??\C:\path`, or the same without the prefix, or with that of Win32.
    let prefixes = [r"\??\", r"\\?\", r"\\.\"];
    let strip = |prefix: &str| name.strip_prefix(&prefix.encode_utf16().collect::<Vec<_>>()[..]);
    let inner = prefixes.iter().find_map(|prefix| strip(prefix));
    let name = inner.unwrap_or(name);
    if let [letter, 0x3a, rest @ ..] = name
        && let Ok(letter) = u8::try_from(*letter)
        && letter.is_ascii_alphabetic()
    {
        let rest = rest.strip_prefix(&[0x5c]).unwrap_or(rest);
        return Target::Drive(letter.to_ascii_uppercase(), slashes(rest));
    }
    let skip = usize::from(inner.is_none());
    let cut =
        name.iter().skip(skip).position(|&unit| unit == 0x5c).map_or(name.len(), |at| at + skip);
    let (volume, rest) = name.split_at(cut);
    Target::Volume(to_utf8(volume), slashes(rest.strip_prefix(&[0x5c]).unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(tag: u32, flags: Option<u32>, name: &str) -> Vec<u8> {
        let wide: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut data = Vec::new();
        // The print name stands first, as some programs put it.
        for number in [8, wide.len(), 0, 6] {
            data.extend(crate::num::to_u16(number).to_le_bytes());
        }
        data.extend(flags.map(u32::to_le_bytes).into_iter().flatten());
        data.extend(b"p\0r\0i\0\0\0");
        data.extend(&wide);
        data.extend([0, 0]);
        [&tag.to_le_bytes()[..], &crate::num::to_u16(data.len()).to_le_bytes(), &[0, 0], &data]
            .concat()
    }

    fn target(tag: u32, flags: Option<u32>, name: &str) -> Target {
        match parse(&value(tag, flags, name)).unwrap() {
            Reparse::Link(target) => target,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn links_lead_where_windows_goes() {
        let text = |target: Target| target.link_text(b'C').map(|t| String::from_utf8(t).unwrap());
        let link = |flags, name: &str| text(target(SYMLINK, Some(flags), name));
        assert_eq!(link(1, r"..\Public\Desktop").unwrap(), "../Public/Desktop");
        assert_eq!(link(1, r"\Users").unwrap(), "/Users");
        assert_eq!(link(0, r"\??\C:\ProgramData").unwrap(), "/ProgramData");
        assert_eq!(link(0, r"\??\c:\").unwrap(), "/");
        assert_eq!(link(0, r"\??\D:\elsewhere"), None);
        assert_eq!(link(0, r"\??\UNC\server\share"), None);
        let junction = |name: &str| target(MOUNT_POINT, None, name);
        assert_eq!(text(junction(r"\??\C:\Users\Füße")).unwrap(), "/Users/Füße");
        let volume = r"Volume{01234567-89ab-cdef-0123-456789abcdef}";
        assert_eq!(
            junction(&format!(r"\??\{volume}\dir\sub")),
            Target::Volume(volume.into(), b"dir/sub".to_vec())
        );
        assert_eq!(
            junction(r"\Device\HarddiskVolume2\x"),
            Target::Volume(br"\Device".to_vec(), b"HarddiskVolume2/x".to_vec())
        );
        let mut lx = LX_SYMLINK.to_le_bytes().to_vec();
        lx.extend([8, 0, 0, 0, 2, 0, 0, 0]);
        lx.extend(b"/etc");
        assert_eq!(parse(&lx).unwrap(), Reparse::Link(Target::Rooted(b"etc".to_vec())));
    }

    #[test]
    fn what_is_elsewhere_is_named() {
        let plain = |tag: u32| parse(&[&tag.to_le_bytes()[..], &[0; 4]].concat()).unwrap();
        assert_eq!(plain(WOF), Reparse::Elsewhere("WOF (CompactOS) compression"));
        assert_eq!(plain(0x9000_301a), Reparse::Elsewhere("a cloud provider's file"));
        assert_eq!(plain(0x8000_001b), Reparse::Other(0x8000_001b));
    }

    #[test]
    fn hostile_values_are_errors() {
        let good = value(SYMLINK, Some(1), r"some\path");
        for length in 0..good.len() {
            let _ = parse(&good[..length]);
        }
        let mut random = crate::testing::Random(4);
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..3 {
                let at = random.below(bad.len());
                bad[at] = random.next_u64() as u8;
            }
            let _ = parse(&bad);
        }
        assert!(parse(&value(SYMLINK, Some(1), "")).is_err());
        assert!(parse(&value(MOUNT_POINT, None, "a\0b")).is_err());
        assert!(parse(&[3, 0, 0, 0xa0, 0xff, 0xff, 0, 0]).is_err());
    }
}
