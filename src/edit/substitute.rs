//! `--edit`: what a pattern matches in the lines of a text becomes something else.

use regex_lite::{Captures, Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::{Act, Action, BadEdit, GuestPath, How, Verb, flag, text};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// The longest expression.
const EXPRESSION_MAX: usize = 4096;

/// Replaces the matches of a pattern in the lines of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Substitute {
    /// The file, which exists.
    path: GuestPath,
    /// `s/PATTERN/TEXT/` with the flags `g` (every match of a line) and `i` (letters of both cases).
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    expression: Expression,
    /// Whether a symbolic link is followed; it is an error otherwise.
    #[serde(default = "flag::yes", skip_serializing_if = "flag::is_yes")]
    follow: bool,
}

/// A checked `s/PATTERN/TEXT/flags`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Expression {
    text: String,
    pattern: Regex,
    replacement: Vec<Piece>,
    every: bool,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

/// A part of the new text.
#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    /// The match of a group of the pattern; 0 is all.
    Group(usize),
}

impl TryFrom<String> for Expression {
    type Error = BadEdit;

    fn try_from(text: String) -> Result<Self, BadEdit> {
        let form = || BadEdit::form(&text, "s/PATTERN/TEXT/ with the flags g and i");
        if text.len() > EXPRESSION_MAX {
            return Err(BadEdit::new(format!("an expression has at most {EXPRESSION_MAX} bytes")));
        }
        let mut chars = text.chars();
        let delimiter = match (chars.next(), chars.next()) {
            (Some('s'), Some(c)) if !c.is_alphanumeric() && c != '\\' && !c.is_whitespace() => c,
            _ => return Err(form()),
        };
        let mut parts = vec![String::new()];
        while let Some(c) = chars.next() {
            let last = parts.len() - 1;
            match c {
                '\\' => match chars.next() {
                    Some(next) if next == delimiter => parts[last].push(next),
                    Some(next) => parts[last].extend(['\\', next]),
                    None => return Err(form()),
                },
                c if c == delimiter && last < 2 => parts.push(String::new()),
                c => parts[last].push(c),
            }
        }
        let [pattern, replacement, flags] = parts.as_slice() else { return Err(form()) };
        if let Some(flag) = flags.chars().find(|flag| !matches!(flag, 'g' | 'i')) {
            return Err(BadEdit::new(format!(
                "'{}' is no flag of an expression; valid are g and i",
                flag.escape_debug()
            )));
        }
        let pattern = RegexBuilder::new(pattern)
            .case_insensitive(flags.contains('i'))
            .build()
            .map_err(|error| BadEdit::new(format!("the pattern is not valid: {error}")))?;
        let replacement = pieces(replacement, pattern.captures_len())?;
        let every = flags.contains('g');
        Ok(Self { text, pattern, replacement, every })
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> Self {
        expression.text
    }
}

/// The parts of the new text: `&` and `\1` stand for what was matched, `\n` and `\t` for what they
/// do elsewhere, and a backslash takes the meaning from what follows.
fn pieces(text: &str, groups: usize) -> Result<Vec<Piece>, BadEdit> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let group = match (c, if c == '\\' { chars.next() } else { None }) {
            ('&', _) => 0,
            ('\\', Some(digit)) if digit.is_ascii_digit() => {
                let group = digit as usize - '0' as usize;
                if group >= groups {
                    return Err(BadEdit::new(format!("the pattern has no group {group}")));
                }
                group
            }
            ('\\', Some('n')) => {
                plain.push('\n');
                continue;
            }
            ('\\', Some('t')) => {
                plain.push('\t');
                continue;
            }
            ('\\', Some(other)) => {
                plain.push(other);
                continue;
            }
            (other, _) => {
                plain.push(other);
                continue;
            }
        };
        pieces.push(Piece::Text(std::mem::take(&mut plain)));
        pieces.push(Piece::Group(group));
    }
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

impl Expression {
    /// The text with every line changed.
    fn apply(&self, old: &str) -> String {
        let replacement = |found: &Captures<'_>| {
            let mut text = String::new();
            for piece in &self.replacement {
                match piece {
                    Piece::Text(plain) => text.push_str(plain),
                    Piece::Group(group) => {
                        text.push_str(found.get(*group).map_or("", |found| found.as_str()));
                    }
                }
            }
            text
        };
        let most = if self.every { 0 } else { 1 };
        let mut new = String::with_capacity(old.len());
        for line in old.split_inclusive('\n') {
            let body = line.strip_suffix('\n').unwrap_or(line);
            let body = body.strip_suffix('\r').unwrap_or(body);
            new.push_str(&self.pattern.replacen(body, most, replacement));
            new.push_str(&line[body.len()..]);
        }
        new
    }
}

impl Substitute {
    fn parse(text: &str, how: How) -> Result<Action, BadEdit> {
        let Some((path, expression)) = text.split_once(':') else {
            return Err(BadEdit::form(text, "GUESTPATH:s/PATTERN/TEXT/[g][i]"));
        };
        let path = GuestPath::file(path)?;
        let expression = Expression::try_from(expression.to_owned())?;
        Ok(Action::Edit(Self { path, expression, follow: how.follow }))
    }
}

impl Act for Substitute {
    const VERBS: &'static [Verb] = &[Verb {
        name: "edit",
        metavar: "GUESTPATH:s/PATTERN/TEXT/[g][i]",
        help: "Replace what a pattern (of the crate regex) matches in each line of a file; & and \
               \\1 to \\9 in TEXT stand for what was matched. g: every match of a line; i: letters \
               of both cases.",
        follows: true,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        GuestPath::file(self.path.as_str()).map(drop)
    }

    fn subject(&self) -> String {
        self.path.to_string()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let mut matched = false;
        text::rewrite(guest, session, &self.path, self.follow, |old| {
            let text = std::str::from_utf8(old)
                .map_err(|_| TaskError::request(format!("{} is not UTF-8 text", self.path)))?;
            let new = self.expression.apply(text);
            matched = new != text;
            Ok(new.into_bytes())
        })?;
        if !matched {
            session.warn(format!("--edit {}: {} changes nothing", self.path, self.expression.text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};

    #[test]
    fn lines_are_changed_as_sed_does() {
        let mut guest = Guest::debian();
        for (expression, before, after) in [
            ("s/a/b/", "aa\naa\n", "ba\nba\n"),
            ("s/A/b/gi", "aa\nx", "bb\nx"),
            ("s/^#?(Port) .*$/\\1 2222/", "#Port 22\r\nX\r\n", "Port 2222\r\nX\r\n"),
            ("s|/bin/sh|/bin/bash|", "/bin/sh\n", "/bin/bash\n"),
            ("s/a\\/b/[&]\\&$1\\n/", "a/b\n", "[a/b]&$1\n\n"),
            ("s/x*$//", "axx\n", "a\n"),
        ] {
            guest.write("/srv/t", before);
            runs(&mut guest, "edit", &format!("/srv/t:{expression}"));
            assert_eq!(guest.read("/srv/t"), after, "{expression}");
        }
        runs(&mut guest, "edit", "/srv/t:s/none/x/");
        assert!(guest.warnings()[0].contains("changes nothing"), "{:?}", guest.warnings());
        for bad in ["s/a/b", "s/(/b/", "s/a/b/x", "y/a/b/", "s/a/\\1/", "sXaXbX", ""] {
            assert!(parse("edit", &format!("/srv/t:{bad}")).is_err(), "{bad}");
        }
        guest.tree().write("/srv/t", b"\xff", super::super::place::PARENTS).unwrap();
        assert!(fails(&mut guest, "edit", "/srv/t:s/a/b/").contains("not UTF-8"));
    }
}
