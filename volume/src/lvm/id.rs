//! Identifiers of physical volumes, groups and logical volumes.

use std::fmt;

/// 32 characters out of `0-9A-Za-z!#`. `Display` adds the dashes that the tools print.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 32]);

impl Id {
    /// From the form on disk, without dashes.
    pub fn from_bytes(bytes: [u8; 32]) -> Option<Self> {
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'#');
        bytes.iter().all(good).then_some(Self(bytes))
    }

    /// From text, with or without dashes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let mut count = 0;
        for byte in text.bytes().filter(|byte| *byte != b'-') {
            *bytes.get_mut(count)? = byte;
            count += 1;
        }
        if count == 32 { Self::from_bytes(bytes) } else { None }
    }

    /// The 32 characters, as device-mapper's UUIDs have them.
    pub fn undashed(&self) -> String {
        self.0.iter().map(|byte| char::from(*byte)).collect()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 6 | 10 | 14 | 18 | 22 | 26) {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(*byte))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Id;

    #[test]
    fn dashes_come_and_go() {
        let text = "vt5l9Z-jkhd-bOF2-MejT-EjOW-5UZw-EePYfV";
        let id = Id::parse(text).unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(Id::parse(&id.undashed()), Some(id));
        assert_eq!(Id::parse("vt5l9Z"), None);
        assert_eq!(Id::parse(&"a".repeat(33)), None);
        assert_eq!(Id::parse(&"/".repeat(32)), None);
    }
}
