//! Percent escapes of URLs.

/// Takes `%xx` for what it stands for; `None` for a wrong escape and for what is no text or holds
/// control characters (a line break would be another command to some servers).
pub fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(out).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn escapes() {
        assert_eq!(decode("a%20b%c3%bc%25").as_deref(), Some("a b\u{fc}%"));
        for wrong in ["%", "%2", "%g0", "%00", "a%0ab", "%ff"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
