//! How a text file of Windows is encoded: UTF-8 or UTF-16, mostly with a byte order mark.

use zeroize::Zeroizing;

use super::AnswerError;

/// The encoding of a text, to write it back in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8 { mark: bool },
    Utf16 { big: bool, mark: bool },
}

const MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of these bytes, and how they encode it.
pub(super) fn decode(bytes: &[u8]) -> Result<(Zeroizing<String>, Encoding), AnswerError> {
    let (units, encoding) = match bytes {
        [0xff, 0xfe, rest @ ..] => (rest, Encoding::Utf16 { big: false, mark: true }),
        [0xfe, 0xff, rest @ ..] => (rest, Encoding::Utf16 { big: true, mark: true }),
        [b'<' | b'[' | b';', 0, ..] => (bytes, Encoding::Utf16 { big: false, mark: false }),
        [0, b'<' | b'[' | b';', ..] => (bytes, Encoding::Utf16 { big: true, mark: false }),
        _ => {
            let rest = bytes.strip_prefix(MARK);
            let text = std::str::from_utf8(rest.unwrap_or(bytes))
                .map_err(|error| AnswerError::NotText { at: error.valid_up_to() })?;
            let encoding = Encoding::Utf8 { mark: rest.is_some() };
            return Ok((Zeroizing::new(text.to_owned()), encoding));
        }
    };
    let big = encoding == Encoding::Utf16 { big: true, mark: true }
        || encoding == Encoding::Utf16 { big: true, mark: false };
    let unit = |pair: &[u8]| {
        let pair = [pair[0], pair[1]];
        if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
    };
    let mut text = Zeroizing::new(String::with_capacity(units.len() * 3 / 2));
    for c in char::decode_utf16(units.chunks_exact(2).map(unit)) {
        text.push(c.map_err(|_| AnswerError::HalfCharacter)?);
    }
    Ok((text, encoding))
}

/// The bytes of a text.
pub(super) fn encode(text: &str, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Utf8 { mark } => {
            let mark = if mark { MARK } else { b"" };
            [mark, text.as_bytes()].concat()
        }
        Encoding::Utf16 { big, mark } => {
            let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
            let mark = mark.then_some(0xfeff);
            let mut out = Vec::with_capacity(text.len() * 2 + 2);
            mark.into_iter().chain(text.encode_utf16()).for_each(|u| out.extend(bytes(u)));
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let text = "<a>ä😀</a>";
        for encoding in [
            Encoding::Utf8 { mark: false },
            Encoding::Utf8 { mark: true },
            Encoding::Utf16 { big: false, mark: true },
            Encoding::Utf16 { big: true, mark: true },
            Encoding::Utf16 { big: false, mark: false },
            Encoding::Utf16 { big: true, mark: false },
        ] {
            let bytes = encode(text, encoding);
            let (decoded, found) = decode(&bytes).unwrap();
            assert_eq!((decoded.as_str(), found), (text, encoding));
        }
        assert!(decode(b"<a>\xe4</a>").unwrap_err().to_string().contains("at byte 3"));
        assert!(
            decode(b"\xff\xfe\x00\xd8x\0").unwrap_err().to_string().contains("half a character")
        );
    }
}
