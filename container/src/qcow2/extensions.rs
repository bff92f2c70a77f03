//! Header extensions: the backing format, names of features, bitmaps.

use snf_fs::error::display_name;
use zerocopy::FromBytes;

use super::error::{Error, Result};
use super::layout::{RawBitmaps, RawExtension};

const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xE279_2ACA;
pub(crate) const FEATURE_NAMES: u32 = 0x6803_F857;
const BITMAPS: u32 = 0x2385_2875;
/// Length of an entry of the feature name table.
pub(crate) const FEATURE_ENTRY: usize = 48;
/// More extensions than these are not looked at: each known one appears once.
const MAX_EXTENSIONS: usize = 256;

/// The content of the header extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extensions {
    /// `raw`, `qcow2`, ...: printable.
    pub(crate) backing_format: Option<String>,
    /// Kind of feature, bit, name.
    features: Vec<(u8, u8, String)>,
    pub(crate) bitmaps: Option<RawBitmaps>,
}

impl Extensions {
    /// Reads the extensions in `area`, the beginning of the file up to where they must end, from
    /// `start` on.
    pub(crate) fn parse(area: &[u8], start: u64) -> Result<Self> {
        let mut found = Self::default();
        let mut at = usize::try_from(start).unwrap_or(usize::MAX);
        for _ in 0..MAX_EXTENSIONS {
            let Some((head, rest)) =
                area.get(at..).and_then(|rest| RawExtension::read_from_prefix(rest).ok())
            else {
                break;
            };
            if head.kind.get() == END {
                break;
            }
            let length = head.length.get() as usize;
            let Some(data) = rest.get(..length) else {
                let detail = format!("of {length} bytes does not fit into the first cluster");
                return Err(Error::corrupt("header extension", at as u64, detail));
            };
            found.take(head.kind.get(), data, at as u64)?;
            at += size_of::<RawExtension>() + length.next_multiple_of(8);
        }
        Ok(found)
    }

    fn take(&mut self, kind: u32, data: &[u8], at: u64) -> Result<()> {
        match kind {
            BACKING_FORMAT => self.backing_format = Some(display_name(data)),
            FEATURE_NAMES => {
                // Three bitmaps of 64 bits: more entries name nothing.
                self.features =
                    data.chunks_exact(FEATURE_ENTRY).take(3 * 64).map(feature).collect();
            }
            BITMAPS => {
                let raw = RawBitmaps::read_from_bytes(data)
                    .map_err(|_| Error::corrupt("bitmaps extension", at, "its length is wrong"))?;
                self.bitmaps = Some(raw);
            }
            _ => {}
        }
        Ok(())
    }

    /// The name that the image gives to a feature bit (kind 0: incompatible).
    pub(crate) fn feature_name(&self, kind: u8, bit: u8) -> Option<String> {
        let named = self.features.iter().find(|(k, b, _)| (*k, *b) == (kind, bit));
        named.map(|(_, _, name)| name.clone())
    }
}

fn feature(entry: &[u8]) -> (u8, u8, String) {
    let name = &entry[2..];
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    (entry[0], entry[1], display_name(&name[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn names_and_formats_are_found() {
        let mut table = vec![0u8; 48];
        table[1] = 9;
        table[2..7].copy_from_slice(b"bad\n!");
        let mut area = extension(0x1234_5678, b"whatever it is");
        area.extend(extension(BACKING_FORMAT, b"raw"));
        area.extend(extension(FEATURE_NAMES, &table));
        area.extend([0; 8]);
        let found = Extensions::parse(&area, 0).unwrap();
        assert_eq!(found.backing_format.as_deref(), Some("raw"));
        assert_eq!(found.feature_name(0, 9).as_deref(), Some("bad\\n!"));
        assert_eq!(found.feature_name(1, 9), None);
    }

    #[test]
    fn lengths_are_bounded() {
        let mut area = extension(BACKING_FORMAT, b"raw");
        area[4] = 0xff;
        assert!(Extensions::parse(&area, 0).is_err());
        assert!(Extensions::parse(&extension(BITMAPS, &[0; 23]), 0).is_err());
        assert!(Extensions::parse(&[0; 7], 0).is_ok());
        assert!(Extensions::parse(&[], 72).is_ok());
    }
}
