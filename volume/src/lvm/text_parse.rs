//! The parser of metadata texts: sections in braces, `key = value`, arrays in brackets, comments
//! from `#` to the end of the line.

use super::text::{Item, Section, Value};
use crate::{Error, Result};

/// Deepest nesting. lvm2's own texts need five.
const MAX_DEPTH: usize = 12;
/// Most keys and values together: bounds the memory of the tree (about 100 bytes each).
const MAX_ITEMS: usize = 250_000;

/// Parses a text; it may end with a zero byte.
///
/// # Errors
/// [`Error::Corrupt`] with the line where the text stops making sense or exceeds a bound.
pub(crate) fn parse(bytes: &[u8]) -> Result<Section> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let mut parser = Parser { bytes: &bytes[..end], at: 0, items: 0 };
    let root = parser.section(0)?;
    Ok(root)
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    items: usize,
}

impl Parser<'_> {
    fn corrupt(&self, detail: &str) -> Error {
        let before = &self.bytes[..self.at.min(self.bytes.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Error::corrupt("metadata text", format!("line {line}"), detail)
    }

    /// Counts one more key or value.
    fn count(&mut self) -> Result<()> {
        self.items += 1;
        if self.items > MAX_ITEMS {
            return Err(self.corrupt("more keys and values than are read (250,000)"));
        }
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Goes to the next byte that is neither white space nor in a comment.
    fn skip(&mut self) {
        while let Some(byte) = self.peek() {
            if byte == b'#' {
                while self.peek().is_some_and(|byte| byte != b'\n') {
                    self.at += 1;
                }
            } else if byte.is_ascii_whitespace() {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    /// Everything up to the closing brace, or at depth 0 up to the end.
    fn section(&mut self, depth: usize) -> Result<Section> {
        if depth > MAX_DEPTH {
            return Err(self.corrupt("sections are nested too deep"));
        }
        let mut section = Section::default();
        loop {
            self.skip();
            match self.peek() {
                None if depth == 0 => return Ok(section),
                None => return Err(self.corrupt("a section has no end")),
                Some(b'}') if depth > 0 => {
                    self.at += 1;
                    return Ok(section);
                }
                Some(_) => {}
            }
            let key = self.key()?;
            self.skip();
            let item = match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    Item::Section(self.section(depth + 1)?)
                }
                Some(b'=') => {
                    self.at += 1;
                    self.skip();
                    self.right_hand_side()?
                }
                _ => return Err(self.corrupt("neither { nor = after a key")),
            };
            section.entries.push((key, item));
        }
    }

    fn word(&mut self) -> &[u8] {
        let start = self.at;
        while self.peek().is_some_and(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'+' | b'/' | b'@')
        }) {
            self.at += 1;
        }
        &self.bytes[start..self.at]
    }

    fn key(&mut self) -> Result<String> {
        self.count()?;
        let word = String::from_utf8_lossy(self.word()).into_owned();
        if word.is_empty() { Err(self.corrupt("a key is expected")) } else { Ok(word) }
    }

    fn right_hand_side(&mut self) -> Result<Item> {
        if self.peek() != Some(b'[') {
            return Ok(Item::Value(self.value()?));
        }
        self.at += 1;
        let mut values = Vec::new();
        loop {
            self.skip();
            match self.peek() {
                Some(b']') => {
                    self.at += 1;
                    return Ok(Item::Array(values));
                }
                Some(b',') if !values.is_empty() => {
                    self.at += 1;
                    self.skip();
                    if self.peek() == Some(b']') {
                        continue;
                    }
                }
                Some(_) if values.is_empty() => {}
                _ => return Err(self.corrupt("an array is not well formed")),
            }
            values.push(self.value()?);
        }
    }

    fn value(&mut self) -> Result<Value> {
        self.count()?;
        if let Some(quote @ (b'"' | b'\'')) = self.peek() {
            self.at += 1;
            return self.quoted(quote).map(Value::Text);
        }
        let word = String::from_utf8_lossy(self.word()).into_owned();
        if word.is_empty() {
            return Err(self.corrupt("a value is expected"));
        }
        // Only a number that is written back as it stands counts as one.
        match word.parse::<i64>() {
            Ok(number) if number.to_string() == word => Ok(Value::Integer(number)),
            _ => Ok(Value::Raw(word)),
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let Some(mut byte) = self.peek() else {
                return Err(self.corrupt("a string has no end"));
            };
            self.at += 1;
            if byte == quote {
                out.shrink_to_fit();
                return Ok(out);
            }
            if byte == b'\\'
                && quote == b'"'
                && let Some(escaped @ (b'"' | b'\\')) = self.peek()
            {
                byte = escaped;
                self.at += 1;
            }
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"# Generated\nrl {\nid = \"a\\\"b\\\\c\"\nseqno = 3 # three\n\
        flags = []\nratio = 1.5\nsub {\nstripes = [\n\"pv0\", 0,\n'pv1', -7\n]\n}\n}\n\
        creation_time = 5\n\0garbage";

    #[test]
    fn a_text_and_back() {
        let root = parse(TEXT).unwrap();
        let group = root.section("rl").unwrap();
        assert_eq!(group.str("id"), Some("a\"b\\c"));
        assert_eq!(group.integer("seqno"), Some(3));
        assert_eq!(group.array("flags"), Some(&[][..]));
        assert_eq!(group.get("ratio"), Some(&Item::Value(Value::Raw("1.5".into()))));
        let stripes = group.section("sub").unwrap().array("stripes").unwrap();
        assert_eq!(stripes[2].as_str(), Some("pv1"));
        assert_eq!(stripes[3], Value::Integer(-7));
        assert_eq!(root.integer("creation_time"), Some(5));
        let written = root.to_bytes();
        assert_eq!(written.last(), Some(&0));
        assert_eq!(parse(&written).unwrap(), root);
    }

    #[test]
    fn malformed_texts() {
        for (text, detail) in [
            ("a", "neither { nor = after a key"),
            ("a {", "a section has no end"),
            ("}", "a key is expected"),
            ("a = ", "a value is expected"),
            ("a = \"b", "a string has no end"),
            ("a = [1 2]", "an array is not well formed"),
            ("a = [,1]", "a value is expected"),
            ("a = [1", "an array is not well formed"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.ends_with(detail), "{text}: {error}");
        }
    }

    #[test]
    fn bounds() {
        let deep = "a {".repeat(1_000_000);
        assert!(parse(deep.as_bytes()).unwrap_err().to_string().contains("too deep"));
        let many = "a=1\n".repeat(1_000_000);
        assert!(parse(many.as_bytes()).unwrap_err().to_string().contains("250,000"));
        let values = format!("a=[{}]", "1,".repeat(1_000_000));
        assert!(parse(values.as_bytes()).unwrap_err().to_string().contains("250,000"));
    }
}
