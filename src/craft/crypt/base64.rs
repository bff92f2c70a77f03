//! crypt(3)'s own base 64: an alphabet in ASCII order and six bits at a time from the low end.

/// The alphabet of all methods but bcrypt.
pub(super) const CRYPT: &[u8; 64] =
    b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Appends `count` characters for the low `6 * count` bits of `value`, the lowest first.
pub(super) fn push_low_first(out: &mut String, mut value: u32, count: usize) {
    for _ in 0..count {
        out.push(char::from(CRYPT[(value & 0x3f) as usize]));
        value >>= 6;
    }
}

/// Appends three bytes of `digest`, the first of them in the high bits, as four characters.
pub(super) fn push_triple(out: &mut String, digest: &[u8], [high, middle, low]: [usize; 3]) {
    let at = |index: usize| u32::from(digest.get(index).copied().unwrap_or_default());
    push_low_first(out, at(high) << 16 | at(middle) << 8 | at(low), 4);
}

/// Appends a whole byte string, three bytes at a time, the first of them in the low bits, as
/// yescrypt writes salts and digests.
pub(super) fn push_bytes(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let value = chunk.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        push_low_first(out, value, (chunk.len() * 8).div_ceil(6));
    }
}

/// The 16 bytes that [`push_bytes`] has written; `None` for any other text.
pub(super) fn bytes(text: &str) -> Option<[u8; 16]> {
    let mut out = Vec::with_capacity(18);
    for chunk in text.as_bytes().chunks(4) {
        let mut value = 0;
        for (index, letter) in chunk.iter().enumerate() {
            let digit = u32::try_from(CRYPT.iter().position(|c| c == letter)?).ok()?;
            value |= digit << (6 * index);
        }
        let [bytes @ .., _] = value.to_le_bytes();
        out.extend_from_slice(&bytes[..chunk.len() * 6 / 8]);
    }
    out.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_low_bits_come_first() {
        let mut out = String::new();
        push_low_first(&mut out, 0b111111_000000, 2);
        assert_eq!(out, ".z");
        out.clear();
        push_bytes(&mut out, &[0xff, 0, 0, 1]);
        assert_eq!(out, "z1../.");
        let salt: [u8; 16] = std::array::from_fn(|n| (n as u8).wrapping_mul(37));
        out.clear();
        push_bytes(&mut out, &salt);
        assert_eq!(bytes(&out), Some(salt));
        assert_eq!((bytes("abc"), bytes(&format!("{}!", &out[1..]))), (None, None));
    }
}
