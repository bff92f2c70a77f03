//! Permission bits as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BadEdit;

/// Permission, set-id and sticky bits: 12 bits, in octal (`0644`). In a document they are a text: a
/// number there would be decimal, which nobody means.
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
            "description": "Permission bits: octal, as text (\"0644\").",
            "type": "string",
            "pattern": "^(0o)?[0-7]+$"
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
                // The deserializer does not say whether `0o644` or `420` was written.
                Err(E::custom(format!(
                    "a mode is a text with octal digits, such as mode = \"0644\", and no number \
                     (here {number})"
                )))
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Mode, E> {
                self.visit_u64(number.unsigned_abs())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_octal_and_numbers_are_refused() {
        for (text, bits) in [("0644", 0o644), ("755", 0o755), ("0o4755", 0o4755), ("0", 0)] {
            assert_eq!(text.parse::<Mode>().unwrap().bits(), bits, "{text}");
        }
        for bad in ["", "8", "17777", "+644", "u+x", "0o", "-1"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&Mode(0o4755)).unwrap(), "\"4755\"");
        for number in ["420", "644", "4096", "-1"] {
            let error = serde_json::from_str::<Mode>(number).unwrap_err().to_string();
            assert!(error.contains("mode = \"0644\""), "{error}");
        }
    }
}
