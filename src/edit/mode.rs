//! Permission bits as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BadEdit;

/// Permission, set-id and sticky bits: 12 bits. As text they are octal (`0644`); a number in a
/// document is taken as it is, because `0o644` of TOML is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(u16);

impl Mode {
    /// These bits; further ones are dropped.
    pub(super) fn of_bits(bits: u16) -> Self {
        Self(bits & 0o7777)
    }

    /// The bits.
    pub fn bits(self) -> u16 {
        self.0
    }
}

impl FromStr for Mode {
    type Err = BadEdit;

    fn from_str(text: &str) -> Result<Self, BadEdit> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let octal = !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        match u16::from_str_radix(digits, 8) {
            Ok(mode) if octal && mode <= 0o7777 => Ok(Self(mode)),
            _ => Err(BadEdit::new(format!(
                "mode '{}' is not an octal number up to 7777 (such as 0644)",
                text.escape_debug()
            ))),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

#[cfg(feature = "cli")]
impl schemars::JsonSchema for Mode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mode".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Permission bits: octal as text (\"0644\"), or the number itself (0o644 in TOML).",
            "anyOf": [
                {"type": "string", "pattern": "^(0o)?[0-7]+$"},
                {"type": "integer", "minimum": 0, "maximum": 4095}
            ]
        })
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Mode;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mode such as \"0644\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Mode, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Mode, E> {
                match u16::try_from(number) {
                    Ok(mode) if mode <= 0o7777 => Ok(Mode(mode)),
                    _ => Err(E::custom("the mode is more than 07777; write \"0644\" or 0o644")),
                }
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Mode, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_octal_and_numbers_are_themselves() {
        for (text, bits) in [("0644", 0o644), ("755", 0o755), ("0o4755", 0o4755), ("0", 0)] {
            assert_eq!(text.parse::<Mode>().unwrap().bits(), bits, "{text}");
        }
        for bad in ["", "8", "17777", "+644", "u+x", "0o", "-1"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<Mode>("420").unwrap().to_string(), "0644");
        assert_eq!(serde_json::to_string(&Mode(0o4755)).unwrap(), "\"4755\"");
        assert!(serde_json::from_str::<Mode>("4096").is_err());
        assert!(serde_json::from_str::<Mode>("-1").is_err());
    }
}
