//! Values that must not be printed and are wiped when dropped.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// Secret bytes: a password, a key, the content of an injected file. `Debug` does not show them
/// and the memory is overwritten when the last owner lets go of it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of secret bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes themselves, for the one place that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// As base64, for a document that is a secret itself: the request on its way into the helper VM.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.expose())))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;
        impl Visitor<'_> for Base64 {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes in base64")
            }
            // The parser hands over its own buffer, so that no copy of the text stays behind. The
            // decoder's words would show a byte of the secret.
            fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
                let bytes =
                    STANDARD.decode(text).map_err(|_| E::custom("a value is not base64"))?;
                Ok(Secret::new(bytes))
            }
        }
        deserializer.deserialize_str(Base64)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn documents_hold_base64() {
        let secret = Secret::new(vec![0, 255, 10]);
        let text = serde_json::to_string(&secret).unwrap();
        assert_eq!(text, "\"AP8K\"");
        assert_eq!(serde_json::from_str::<Secret>(&text).unwrap(), secret);
        let error = serde_json::from_str::<Secret>("\"hunter2!\"").unwrap_err().to_string();
        assert!(error.contains("not base64") && !error.contains("hunter"), "{error}");
    }

    #[test]
    fn debug_hides_the_value() {
        let text = format!("{:?}", Secret::new("hunter2"));
        assert_eq!(text, "Secret(7 bytes)");
    }
}
