//! Reading what `set`, `export -p` and `declare -p` of bash print.
//!
//! The grammar is that of assignments only: bare words, `'…'`, `"…"`, `$'…'`, arrays, comments,
//! `export` and `declare`. A text that a shell would expand is an error: it cannot be meant, and reading
//! it as text would differ from what the original's helper makes of it.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::variables::is_identifier;
use super::{MAX_SIZE, PREFIX, Rules, Value};
use crate::craft::secret::Secret;

/// Arrays hold the disks of an instance: a subscript above this is a mistake.
const MAX_SUBSCRIPT: u32 = 4095;

/// The place and the reason why the text is not a list of assignments. The text itself is never
/// shown: it holds
/// passwords.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {problem}", .variable.as_ref().map(|name| format!(", in {name}")).unwrap_or_default())]
pub struct ParseError {
    line: usize,
    variable: Option<String>,
    problem: &'static str,
}

impl ParseError {
    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }
}

pub(super) fn parse(text: &[u8]) -> Result<Rules, ParseError> {
    let mut reader = Reader { text, at: 0, line: 1, variable: None };
    if text.len() > MAX_SIZE {
        return Err(reader.error("the file is larger than 16 MiB"));
    }
    if text.contains(&0) {
        return Err(reader.error("the file holds NUL bytes: it is not text"));
    }
    let mut rules = Rules::default();
    while reader.statement(&mut rules)? {}
    Ok(rules)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    variable: Option<String>,
}

/// The place of a word: a shell expands other characters in each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `NAME=…` by itself: no braces, no file names.
    Assignment,
    /// `NAME=…` after `export`: braces.
    Argument,
    /// In an array: braces and file names.
    Element,
}

type Bytes = Zeroizing<Vec<u8>>;

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn peek_second(&self) -> Option<u8> {
        self.text.get(self.at + 1).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        if byte == b'\n' {
            self.line += 1;
        }
        Some(byte)
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    fn error(&self, problem: &'static str) -> ParseError {
        ParseError { line: self.line, variable: self.variable.clone(), problem }
    }

    fn blanks(&mut self) {
        loop {
            match (self.peek(), self.peek_second()) {
                (Some(b' ' | b'\t'), _) => {
                    self.next();
                }
                (Some(b'\\'), Some(b'\n')) => {
                    self.next();
                    self.next();
                }
                _ => return,
            }
        }
    }

    fn comment(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.next();
        }
    }

    /// Blanks, line ends and comments.
    fn space(&mut self) {
        loop {
            self.blanks();
            match self.peek() {
                Some(b'\n') => {
                    self.next();
                }
                Some(b'#') => self.comment(),
                _ => return,
            }
        }
    }

    /// One command with all its assignments; whether there was one.
    fn statement(&mut self, rules: &mut Rules) -> Result<bool, ParseError> {
        self.variable = None;
        self.space();
        if self.peek().is_none() {
            return Ok(false);
        }
        let mut array = false;
        let mut declared = false;
        let mut word = self.name()?;
        if self.peek() != Some(b'=') {
            match word.as_str() {
                "export" => declared = true,
                "declare" | "typeset" => {
                    declared = true;
                    array = self.options()?;
                }
                _ => {
                    return Err(self.error(
                        "there is a command; only `export NAME=VALUE` and `declare -x NAME=VALUE` are read",
                    ));
                }
            }
            self.blanks();
            if self.at_end() {
                return Err(self.error("a name is missing after `export` or `declare`"));
            }
            word = self.name()?;
        }
        loop {
            // `export NAME` without a value marks a variable that is not set: nothing to keep.
            if self.eat(b'=') {
                let ours = word.starts_with(PREFIX);
                self.variable = ours.then(|| word.clone());
                let value = self.value(declared, array)?;
                rules.values.insert(word, value);
            } else if !declared {
                return Err(self.error("there is a command; only assignments are read"));
            }
            self.variable = None;
            if !matches!(self.peek(), None | Some(b' ' | b'\t' | b'\n' | b';' | b'\\')) {
                return Err(self.error("a value or a name ends in the middle of a word"));
            }
            self.blanks();
            match self.peek() {
                None => return Ok(true),
                Some(b'\n' | b';') => {
                    self.next();
                    return Ok(true);
                }
                Some(b'#') => {
                    self.comment();
                    return Ok(true);
                }
                Some(_) => word = self.name()?,
            }
        }
    }

    fn at_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n' | b';' | b'#'))
    }

    /// Options of `declare`: whether they say that it is an array.
    fn options(&mut self) -> Result<bool, ParseError> {
        let mut array = false;
        loop {
            self.blanks();
            if self.peek() != Some(b'-') {
                return Ok(array);
            }
            self.next();
            while let Some(byte) = self.peek().filter(u8::is_ascii_graphic) {
                match byte {
                    b'a' => array = true,
                    b'x' | b'r' | b'g' | b'-' => {}
                    _ => {
                        return Err(self.error(
                            "`declare` has an option other than -a, -x, -r and -g; only strings and arrays are read",
                        ));
                    }
                }
                self.next();
            }
        }
    }

    fn name(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.next();
        }
        let name = self.text.get(start..self.at).unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        if is_identifier(&name) {
            Ok(name)
        } else {
            Err(self.error(
                "something else than a variable's name begins here; perhaps a quote before it is not closed",
            ))
        }
    }

    fn value(&mut self, declared: bool, array: bool) -> Result<Value, ParseError> {
        if self.peek() == Some(b'(') {
            return self.array().map(Value::Array);
        }
        let place = if declared { Place::Argument } else { Place::Assignment };
        let mut bytes = self.word(place)?;
        if array && bytes.first() == Some(&b'(') {
            // Bash before 4.4 prints arrays as `declare -ax NAME='([0]="x")'`.
            let mut inner =
                Reader { text: &bytes, at: 0, line: self.line, variable: self.variable.clone() };
            let array = inner.array()?;
            return match inner.peek() {
                None => Ok(Value::Array(array)),
                Some(_) => Err(inner.error("there is more after the `)` of an array")),
            };
        }
        Ok(Value::Scalar(Secret::new(std::mem::take(&mut *bytes))))
    }

    fn array(&mut self) -> Result<BTreeMap<u32, Secret>, ParseError> {
        let mut array = BTreeMap::new();
        let mut index = 0;
        self.next();
        loop {
            self.space();
            match self.peek() {
                None => return Err(self.error("an array is not closed with `)`")),
                Some(b')') => {
                    self.next();
                    return Ok(array);
                }
                Some(b'[') => index = self.subscript()?,
                Some(_) => {}
            }
            if index > MAX_SUBSCRIPT {
                return Err(self.error("an array has a subscript above 4095"));
            }
            let mut bytes = self.word(Place::Element)?;
            array.insert(index, Secret::new(std::mem::take(&mut *bytes)));
            index += 1;
            if !matches!(self.peek(), None | Some(b' ' | b'\t' | b'\n' | b')' | b'\\')) {
                return Err(self.error("an element of an array ends in the middle of a word"));
            }
        }
    }

    fn subscript(&mut self) -> Result<u32, ParseError> {
        self.next();
        let mut index: u32 = 0;
        let start = self.at;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            index = index.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
            self.next();
        }
        if self.at == start || !self.eat(b']') || !self.eat(b'=') {
            return Err(self.error("an array's subscript is not of the form [NUMBER]="));
        }
        Ok(index)
    }

    /// One word: bare and quoted pieces, joined.
    fn word(&mut self, place: Place) -> Result<Bytes, ParseError> {
        let mut out = Zeroizing::new(Vec::with_capacity(128));
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b';' => break,
                b')' => break,
                b'\'' => self.single(&mut out)?,
                b'"' => self.double(&mut out)?,
                b'$' if self.peek_second() == Some(b'\'') => {
                    self.next();
                    self.ansi(&mut out)?;
                }
                b'$' if self.peek_second() == Some(b'"') => {
                    self.next();
                    self.double(&mut out)?;
                }
                b'$' | b'`' => return Err(self.error(EXPANSION)),
                b'~' if self.at == start || out.last() == Some(&b':') => {
                    return Err(self.error(EXPANSION));
                }
                b'{' if place != Place::Assignment => return Err(self.error(EXPANSION)),
                b'*' | b'?' | b'[' if place == Place::Element => return Err(self.error(EXPANSION)),
                b'&' | b'|' | b'<' | b'>' | b'(' => {
                    return Err(self.error(
                        "an unquoted character that means something to a shell; a value that holds it needs quotes",
                    ));
                }
                b'\\' => {
                    self.next();
                    match self.next() {
                        None => return Err(self.error("the file ends after a backslash")),
                        Some(b'\n') => {}
                        Some(escaped) => push(&mut out, escaped),
                    }
                }
                _ => {
                    self.next();
                    push(&mut out, byte);
                }
            }
        }
        Ok(out)
    }

    fn single(&mut self, out: &mut Bytes) -> Result<(), ParseError> {
        let line = self.line;
        self.next();
        loop {
            match self.next() {
                None => return Err(self.unclosed(line)),
                Some(b'\'') => return Ok(()),
                Some(byte) => push(out, byte),
            }
        }
    }

    fn unclosed(&self, line: usize) -> ParseError {
        ParseError { line, ..self.error("a quote is not closed before the end of the file") }
    }

    fn double(&mut self, out: &mut Bytes) -> Result<(), ParseError> {
        let line = self.line;
        self.next();
        loop {
            match self.next() {
                None => return Err(self.unclosed(line)),
                Some(b'"') => return Ok(()),
                Some(b'\\') => match self.next() {
                    None => return Err(self.unclosed(line)),
                    Some(b'\n') => {}
                    Some(byte @ (b'$' | b'`' | b'"' | b'\\')) => push(out, byte),
                    Some(byte) => {
                        push(out, b'\\');
                        push(out, byte);
                    }
                },
                Some(b'`') => return Err(self.error(EXPANSION)),
                Some(b'$') => match self.peek() {
                    // A dollar sign before anything else is just that.
                    Some(byte)
                        if byte.is_ascii_alphanumeric() || b"_({[@*#?-$!".contains(&byte) =>
                    {
                        return Err(self.error(EXPANSION));
                    }
                    _ => push(out, b'$'),
                },
                Some(byte) => push(out, byte),
            }
        }
    }

    /// `$'…'`: the escapes of ANSI C.
    fn ansi(&mut self, out: &mut Bytes) -> Result<(), ParseError> {
        let line = self.line;
        self.next();
        loop {
            let byte = self.next().ok_or_else(|| self.unclosed(line))?;
            match byte {
                b'\'' => return Ok(()),
                b'\\' => {
                    let escaped = self.next().ok_or_else(|| self.unclosed(line))?;
                    self.escape(escaped, out)?;
                }
                _ => push(out, byte),
            }
        }
    }

    fn escape(&mut self, escaped: u8, out: &mut Bytes) -> Result<(), ParseError> {
        match escaped {
            b'a' => push(out, 7),
            b'b' => push(out, 8),
            b'e' | b'E' => push(out, 27),
            b'f' => push(out, 12),
            b'n' => push(out, b'\n'),
            b'r' => push(out, b'\r'),
            b't' => push(out, b'\t'),
            b'v' => push(out, 11),
            b'\\' | b'\'' | b'"' | b'?' => push(out, escaped),
            b'0'..=b'7' => {
                let mut value = u32::from(escaped - b'0');
                for _ in 0..2 {
                    match self.peek() {
                        Some(digit @ b'0'..=b'7') => {
                            value = value * 8 + u32::from(digit - b'0');
                            self.next();
                        }
                        _ => break,
                    }
                }
                self.push_byte(value & 0xff, out)?;
            }
            b'x' if self.peek() == Some(b'{') => {
                return Err(self.error("an escape \\x{...} is not read; write \\xHH"));
            }
            b'x' => match self.hexadecimal(2) {
                Some(value) => self.push_byte(value, out)?,
                None => out.extend_from_slice(b"\\x"),
            },
            b'u' | b'U' => match self.hexadecimal(if escaped == b'u' { 4 } else { 8 }) {
                None => {
                    push(out, b'\\');
                    push(out, escaped);
                }
                Some(0) => return Err(self.error(NUL)),
                Some(value) => match char::from_u32(value) {
                    Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => return Err(self.error("an escape \\u or \\U is no character")),
                },
            },
            b'c' => match self.next() {
                Some(b'?') => push(out, 127),
                Some(control) if control.is_ascii() => {
                    if control == b'\\' {
                        self.eat(b'\\');
                    }
                    self.push_byte(u32::from(control.to_ascii_uppercase() & 0x1f), out)?;
                }
                _ => return Err(self.error("an escape \\c is not followed by a character")),
            },
            // Bash keeps the backslash of an escape that it does not know.
            _ => {
                push(out, b'\\');
                push(out, escaped);
            }
        }
        Ok(())
    }

    fn hexadecimal(&mut self, most: usize) -> Option<u32> {
        let mut value = None;
        for _ in 0..most {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else {
                break;
            };
            value = Some(value.unwrap_or(0u32) << 4 | digit);
            self.next();
        }
        value
    }

    fn push_byte(&self, value: u32, out: &mut Bytes) -> Result<(), ParseError> {
        match u8::try_from(value) {
            Ok(0) | Err(_) => Err(self.error(NUL)),
            Ok(byte) => {
                push(out, byte);
                Ok(())
            }
        }
    }
}

const EXPANSION: &str = "an unquoted or double-quoted character that a shell would expand ($, `, ~, {, *); a parameter file holds only plain values";
const NUL: &str = "an escape stands for a NUL byte, which no variable can hold";

/// Appends a byte; when the buffer grows, the old one is wiped.
fn push(out: &mut Bytes, byte: u8) {
    if out.len() == out.capacity() {
        let mut grown = Zeroizing::new(Vec::with_capacity((out.len() * 2).max(128)));
        grown.extend_from_slice(out);
        *out = grown;
    }
    out.push(byte);
}
