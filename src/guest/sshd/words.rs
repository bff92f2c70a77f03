//! Words of a line of `sshd_config`, split as sshd does: the keyword and the conditions of `Match`
//! by one rule (blanks, one `=`, double quotes), all other values by another (both quotes,
//! backslashes, comments).

const BLANKS: &[u8] = b" \t\r\n";

fn skip_blanks(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !BLANKS.contains(byte)).unwrap_or(text.len());
    &text[start..]
}

/// The first word of `text` and what comes after it; `None` where a quotation mark has no partner.
/// A word may be empty.
pub(super) fn first(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let ends = |byte: &u8| BLANKS.contains(byte) || matches!(byte, b'"' | b'=');
    let Some(at) = text.iter().position(ends) else { return Some((text.to_vec(), &[])) };
    let after = &text[at + 1..];
    if text[at] == b'"' {
        let end = after.iter().position(|byte| *byte == b'"')?;
        return Some(([&text[..at], &after[..end]].concat(), skip_blanks(&after[end + 1..])));
    }
    let mut rest = skip_blanks(after);
    // Only one equals sign is passed over.
    if text[at] != b'='
        && let Some(after) = rest.strip_prefix(b"=")
    {
        rest = skip_blanks(after);
    }
    Some((text[..at].to_vec(), rest))
}

/// Keyword (lower case) and the rest of a line; `None` for blank lines and comments.
pub(super) fn keyword(line: &[u8]) -> Option<Result<(String, &[u8]), NoPartner>> {
    let is_blank = |byte: &u8| BLANKS.contains(byte) || *byte == b'\x0c';
    let length = line.iter().rposition(|byte| !is_blank(byte))? + 1;
    let Some((mut word, mut rest)) = first(&line[..length]) else { return Some(Err(NoPartner)) };
    if word.is_empty() {
        match first(rest) {
            Some(next) => (word, rest) = next,
            None => return Some(Err(NoPartner)),
        }
    }
    if word.is_empty() || word.starts_with(b"#") {
        return None;
    }
    Some(Ok((String::from_utf8_lossy(&word).to_ascii_lowercase(), rest)))
}

/// A quotation mark without its partner: sshd refuses the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoPartner;

/// The values of a line, up to a comment.
pub(super) fn values(text: &[u8]) -> Result<Vec<Vec<u8>>, NoPartner> {
    let mut words = Vec::new();
    let mut bytes = text.iter().copied().peekable();
    loop {
        while bytes.next_if(|byte| matches!(byte, b' ' | b'\t')).is_some() {}
        if matches!(bytes.peek(), None | Some(b'#')) {
            return Ok(words);
        }
        let mut word = Vec::new();
        let mut quote = None;
        while let Some(byte) = bytes.next() {
            match (byte, quote) {
                (b'\\', _) => {
                    let escaped = |next: &u8| {
                        matches!(next, b'\'' | b'"' | b'\\') || (quote.is_none() && *next == b' ')
                    };
                    word.push(bytes.next_if(escaped).unwrap_or(b'\\'));
                }
                (b' ' | b'\t', None) => break,
                (b'"' | b'\'', None) => quote = Some(byte),
                (byte, Some(open)) if byte == open => quote = None,
                (byte, _) => word.push(byte),
            }
        }
        if quote.is_some() {
            return Err(NoPartner);
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<(String, Vec<String>)> {
        let (keyword, rest) = keyword(line.as_bytes())?.ok()?;
        let text = |word: Vec<u8>| String::from_utf8(word).unwrap();
        Some((keyword, values(rest).ok()?.into_iter().map(text).collect()))
    }

    #[test]
    fn lines() {
        for (line, expected) in [
            ("  UsePAM\tyes # why", Some(("usepam", vec!["yes"]))),
            ("UsePAM = yes\r", Some(("usepam", vec!["yes"]))),
            ("UsePAM=yes", Some(("usepam", vec!["yes"]))),
            ("\"UsePAM\" yes", Some(("usepam", vec!["yes"]))),
            ("=UsePAM yes", Some(("usepam", vec!["yes"]))),
            (
                "X \"a b\" 'c d' e\\ f \"g\\\"h\" i#j",
                Some(("x", vec!["a b", "c d", "e f", "g\"h", "i#j"])),
            ),
            ("X a=b \\n", Some(("x", vec!["a=b", "\\n"]))),
            ("X \"\"", Some(("x", vec![""]))),
            ("# note", None),
            (" \t\x0c", None),
            ("X \"open", None),
            ("X 'open", None),
        ] {
            let expected = expected.map(|(word, values)| {
                (word.to_owned(), values.iter().map(|v| (*v).to_owned()).collect())
            });
            assert_eq!(split(line), expected, "{line}");
        }
        assert_eq!(keyword(b"\"X"), Some(Err(NoPartner)));
    }
}
