//! GUIDs as GPT stores them.

use std::fmt;
use std::str::FromStr;

/// A GUID in the byte order of the disk: the first three fields little-endian, the rest as it is
/// printed (UEFI 2.10, appendix A).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// All zeros: the type of an unused GPT entry.
    pub const ZERO: Self = Self([0; 16]);

    /// A random (version 4) GUID made of 16 random bytes, which the caller brings so that all
    /// randomness of a run has one source.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[7] = bytes[7] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// Whether all bytes are zero.
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for Guid {
    /// Lower case, as `blkid` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes_le(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a GUID (32 hexadecimal digits in 8-4-4-4-12 form)");
        let groups: Vec<&str> = text.split('-').collect();
        if groups.iter().map(|group| group.len()).ne([8, 4, 4, 4, 12])
            || !text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
        {
            return Err(wrong());
        }
        let uuid = uuid::Uuid::try_parse(text).map_err(|_| wrong())?;
        Ok(Self(uuid.to_bytes_le()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes() {
        let text = "0fc63daf-8483-4772-8e79-3d69d8477de4";
        let guid: Guid = text.parse().unwrap();
        assert_eq!(guid.0[..6], [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84]);
        assert_eq!(guid.to_string(), text);
        assert_eq!(text.to_uppercase().parse::<Guid>().unwrap(), guid);
        for wrong in
            ["", "0fc63daf84834772-8e79-3d69d8477de4", "0fc63dag-8483-4772-8e79-3d69d8477de4"]
        {
            assert!(wrong.parse::<Guid>().is_err(), "{wrong}");
        }
        let random = Guid::from_random([0xff; 16]).to_string();
        assert_eq!(random, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
