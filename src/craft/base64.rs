//! Base64 as a person gives it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::craft::secret::Secret;

/// A text that is not base64. Neither the offending byte nor its neighbours are shown: they may be
/// secret. The sentence begins with a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not base64 (A-Z, a-z, 0-9, + and /, with = at the end to a multiple of 4); encode it with \
     base64(1)"
)]
pub struct NotBase64;

/// Base64 with its padding; line breaks, as base64(1) makes them, may be in it, nothing else.
///
/// # Errors
/// When it is anything else.
pub fn decode(text: &str) -> Result<Secret, NotBase64> {
    let compact: Zeroizing<Vec<u8>> =
        Zeroizing::new(text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect());
    STANDARD.decode(&*compact).map(Secret::new).map_err(|_| NotBase64)
}

/// Base64 of bytes that are no secret, with its padding.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn base64_may_be_wrapped() {
        assert_eq!(decode("aG\nk=\r\n").unwrap().expose(), b"hi");
        assert!(decode("aG k=").is_err());
    }
}
