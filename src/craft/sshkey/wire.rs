//! The encodings of RFC 4251 section 5, and OpenSSH's PEM.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Builds a message of strings and numbers; wiped when dropped.
#[derive(Default)]
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        // Grown by hand, so that no unwiped copy of a secret stays behind.
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut grown =
                Zeroizing::new(Vec::with_capacity((self.0.len() + bytes.len()).max(512) * 2));
            grown.extend_from_slice(&self.0);
            self.0 = grown;
        }
        self.0.extend_from_slice(bytes);
    }

    /// `string`: a length and that many bytes.
    pub(super) fn string(&mut self, bytes: &[u8]) {
        self.raw(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.raw(bytes);
    }

    /// `mpint`: an unsigned big-endian number without leading zeros, but one where the highest
    /// bit would make it negative.
    pub(super) fn mpint(&mut self, big_endian: &[u8]) {
        let start = big_endian.iter().position(|&byte| byte != 0).unwrap_or(big_endian.len());
        let digits = &big_endian[start..];
        let sign = usize::from(digits.first().is_some_and(|&byte| byte & 0x80 != 0));
        self.raw(&u32::try_from(digits.len() + sign).unwrap_or(u32::MAX).to_be_bytes());
        self.raw(&[0][..sign]);
        self.raw(digits);
    }

    /// Pads with 1, 2, 3… to a multiple of the cipher's block.
    pub(super) fn pad(&mut self, block: usize) {
        let missing = self.0.len().next_multiple_of(block) - self.0.len();
        for byte in (1..=u8::MAX).take(missing) {
            self.raw(&[byte]);
        }
    }

    /// The bytes that were written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A private key file: lines of 70 characters, as ssh-keygen breaks them.
pub(super) fn pem(bytes: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(STANDARD.encode(bytes));
    let mut out = Zeroizing::new(String::with_capacity(encoded.len() + encoded.len() / 70 + 100));
    out.push_str("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(70));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    out
}

#[cfg(test)]
mod tests {
    use super::Writer;

    #[test]
    fn numbers_are_positive_and_short() {
        let encode = |bytes: &[u8]| {
            let mut writer = Writer::default();
            writer.mpint(bytes);
            writer.bytes().to_vec()
        };
        // The examples of RFC 4251.
        assert_eq!(encode(&[0]), [0, 0, 0, 0]);
        assert_eq!(encode(&[0, 0x80]), [0, 0, 0, 2, 0, 0x80]);
        assert_eq!(encode(&[0, 0, 9, 0xa3, 0x78]), [0, 0, 0, 3, 9, 0xa3, 0x78]);
    }

    #[test]
    fn padding() {
        let mut writer = Writer::default();
        writer.raw(&[0; 5]);
        writer.pad(8);
        assert_eq!(writer.bytes(), [0, 0, 0, 0, 0, 1, 2, 3]);
        writer.pad(8);
        assert_eq!(writer.bytes().len(), 8);
    }
}
