//! Files of shell-style assignments (`KEY="VALUE"`), read as data and never run.
//!
//! The grammar is the part of the shell's that only names a string: bare words, `'…'`, `"…"` with
//! the shell's escapes, `\` before a character, concatenations of these, `#` comments and an
//! optional `export`. Anything the shell would expand (`$x`, `` `x` ``) is refused, because a
//! reader that keeps it as text would disagree with one that runs it.

use std::fmt;

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Line of the key, from 1.
    pub line: usize,
    /// The name left of `=`.
    pub key: String,
    /// The value, quotes removed.
    pub value: String,
}

/// Why a file is not a list of assignments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SyntaxError {
    /// Line, from 1.
    pub line: usize,
    /// The key whose value is wrong, when it was already read.
    pub key: Option<String>,
    /// The problem, and how to write it correctly.
    pub problem: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "line {}, {key}: {}", self.line, self.problem),
            None => write!(f, "line {}: {}", self.line, self.problem),
        }
    }
}

/// Reads all assignments of `text`, in order; a key may come more than once.
pub fn parse(text: &str) -> Result<Vec<Assignment>, SyntaxError> {
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut out = Vec::new();
    while let Some(assignment) = reader.assignment()? {
        out.push(assignment);
    }
    Ok(out)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next();
        if c == Some('\n') {
            self.line += 1;
        }
        c
    }

    fn error(&self, key: Option<&str>, problem: impl Into<String>) -> SyntaxError {
        SyntaxError { line: self.line, key: key.map(str::to_owned), problem: problem.into() }
    }

    fn skip_comment(&mut self) {
        while self.rest.peek().is_some_and(|c| *c != '\n') {
            self.next();
        }
    }

    fn assignment(&mut self) -> Result<Option<Assignment>, SyntaxError> {
        let mut exported = false;
        loop {
            while self.rest.peek().is_some_and(|c| c.is_ascii_whitespace() || *c == ';') {
                self.next();
            }
            let Some(first) = self.rest.peek().copied() else { return Ok(None) };
            if first == '#' {
                self.skip_comment();
                continue;
            }
            let line = self.line;
            let mut key = String::new();
            while let Some(c) =
                self.rest.peek().copied().filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            {
                key.push(c);
                self.next();
            }
            match self.rest.peek().copied() {
                Some('=') if !key.is_empty() && !key.starts_with(|c: char| c.is_ascii_digit()) => {
                    self.next();
                    let value = self.value(&key)?;
                    return Ok(Some(Assignment { line, key, value }));
                }
                Some(' ' | '\t') if key == "export" && !exported => exported = true,
                _ => {
                    return Err(self.error(
                        None,
                        "expected an assignment of the form KEY=\"VALUE\" (this file is read, not run)",
                    ));
                }
            }
        }
    }

    fn value(&mut self, key: &str) -> Result<String, SyntaxError> {
        let mut value = String::new();
        loop {
            let Some(c) = self.rest.peek().copied() else { return Ok(value) };
            match c {
                '\n' | ';' => return Ok(value),
                c if c.is_ascii_whitespace() => return self.end_of_value(key, value),
                '\'' => {
                    self.next();
                    self.single_quoted(key, &mut value)?;
                }
                '"' => {
                    self.next();
                    self.double_quoted(key, &mut value)?;
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') => {}
                        Some(c) => value.push(c),
                        None => return Err(self.error(Some(key), "the value ends in a backslash")),
                    }
                }
                '$' | '`' => return Err(self.expansion(key, c)),
                '(' | ')' | '<' | '>' | '|' | '&' => {
                    return Err(self
                        .error(Some(key), format!("'{c}' must be quoted: write {key}=\"VALUE\"")));
                }
                c => {
                    value.push(c);
                    self.next();
                }
            }
        }
    }

    /// After a value only blanks, a comment or the end of the line may follow.
    fn end_of_value(&mut self, key: &str, value: String) -> Result<String, SyntaxError> {
        while self.rest.peek().is_some_and(|c| *c != '\n' && c.is_ascii_whitespace()) {
            self.next();
        }
        match self.rest.peek() {
            None | Some('\n' | ';') => Ok(value),
            Some('#') => {
                self.skip_comment();
                Ok(value)
            }
            Some(_) => Err(self.error(
                Some(key),
                format!("text follows the value; quote the whole of it: {key}=\"VALUE\""),
            )),
        }
    }

    fn single_quoted(&mut self, key: &str, value: &mut String) -> Result<(), SyntaxError> {
        let start = self.line;
        loop {
            match self.next() {
                Some('\'') => return Ok(()),
                Some(c) => value.push(c),
                None => return Err(unterminated(start, key)),
            }
        }
    }

    fn double_quoted(&mut self, key: &str, value: &mut String) -> Result<(), SyntaxError> {
        let start = self.line;
        loop {
            match self.next() {
                Some('"') => return Ok(()),
                Some(c @ ('$' | '`')) => return Err(self.expansion(key, c)),
                Some('\\') => match self.next() {
                    Some(c @ ('"' | '\\' | '$' | '`')) => value.push(c),
                    Some('\n') => {}
                    Some(c) => {
                        value.push('\\');
                        value.push(c);
                    }
                    None => return Err(unterminated(start, key)),
                },
                Some(c) => value.push(c),
                None => return Err(unterminated(start, key)),
            }
        }
    }

    fn expansion(&self, key: &str, c: char) -> SyntaxError {
        self.error(
            Some(key),
            format!(
                "'{c}' would be expanded by a shell, and this file is never run; write \\{c} or put the value in single quotes"
            ),
        )
    }
}

fn unterminated(line: usize, key: &str) -> SyntaxError {
    SyntaxError {
        line,
        key: Some(key.to_owned()),
        problem: "a quote is opened and never closed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<String, String> {
        parse(text).map(|all| all[0].value.clone()).map_err(|e| e.to_string())
    }

    #[test]
    fn values() {
        for (text, value) in [
            ("K=v", "v"),
            ("K=", ""),
            ("K=\"\"", ""),
            ("K=''  # why", ""),
            ("K=a#b", "a#b"),
            ("K=\"a b\"", "a b"),
            ("K='a \"b\" $c'", "a \"b\" $c"),
            ("K=\"a \\\"b\\\" \\$c \\n\"", "a \"b\" $c \\n"),
            ("K=a\\ b", "a b"),
            ("K=a'b c'\"d e\"", "ab cd e"),
            ("export K=v", "v"),
            ("K=\"two\nlines\"", "two\nlines"),
            ("K=\"one \\\nline\"", "one line"),
            ("K=ü", "ü"),
        ] {
            assert_eq!(one(text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn positions() {
        let all = parse("# c\n\nA=1\n  B='x\ny'\nC=3; D=4\n").unwrap();
        let seen: Vec<_> = all.iter().map(|a| (a.line, a.key.as_str(), a.value.as_str())).collect();
        assert_eq!(seen, [(3, "A", "1"), (4, "B", "x\ny"), (6, "C", "3"), (6, "D", "4")]);
    }

    #[test]
    fn refusals_name_line_and_key() {
        for (text, start) in [
            ("A=1\nB=$HOME", "line 2, B: '$' would be expanded"),
            ("B=\"`id`\"", "line 1, B: '`' would be expanded"),
            ("B=(a b)", "line 1, B: '(' must be quoted"),
            ("B=a b", "line 1, B: text follows"),
            ("\nB='a\n\n", "line 2, B: a quote is opened"),
            ("B=\"a", "line 1, B: a quote is opened"),
            ("if true", "line 1: expected an assignment"),
            ("1B=2", "line 1: expected an assignment"),
            ("export export A=1", "line 1: expected an assignment"),
            ("=2", "line 1: expected an assignment"),
            ("B=a\\", "line 1, B: the value ends"),
        ] {
            let error = one(text).unwrap_err();
            assert!(error.starts_with(start), "{text}: {error}");
        }
    }
}
