//! `--set-line`: the line KEY=VALUE of a configuration.

use serde::{Deserialize, Serialize};

use super::{Act, Action, BadEdit, GuestPath, How, Verb, flag, text};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// The line `KEY=VALUE` of a text, set once, whether it is there, commented out or missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SetLine {
    /// The file, which exists.
    path: GuestPath,
    /// The text before the `=`.
    key: String,
    /// The text after it.
    value: String,
    /// Whether a symbolic link is followed; it is an error otherwise.
    #[serde(default = "flag::yes", skip_serializing_if = "flag::is_yes")]
    follow: bool,
}

impl SetLine {
    fn parse(text: &str, how: How) -> Result<Action, BadEdit> {
        let form = || BadEdit::form(text, "GUESTPATH:KEY=VALUE");
        let (path, line) = text.split_once(':').ok_or_else(form)?;
        let (key, value) = line.split_once('=').ok_or_else(form)?;
        if key.trim().is_empty() || line.contains('\n') {
            return Err(form());
        }
        let path = GuestPath::file(path)?;
        let (key, value) = (key.trim().to_owned(), value.to_owned());
        Ok(Action::SetLine(Self { path, key, value, follow: how.follow }))
    }

    /// The text with the line.
    fn set(&self, old: &[u8]) -> Vec<u8> {
        let key = self.key.as_bytes();
        let wanted = format!("{}={}", self.key, self.value).into_bytes();
        let active = text::lines(old).filter(|line| assigns(line, key)).count();
        // One that sets the key is replaced and further ones go, so that first and last agree; else
        // the first that is commented out is put to use.
        let mut done = false;
        let mut new = Vec::new();
        for line in text::lines(old) {
            let replaced = if active > 0 {
                assigns(line, key)
            } else {
                !done && uncommented(line).is_some_and(|line| assigns(line, key))
            };
            if !replaced {
                new.extend_from_slice(line);
            } else if !done {
                done = true;
                new.extend_from_slice(&wanted);
                let body = line.trim_ascii_end().len();
                let end = &line[body..];
                new.extend_from_slice(if end.ends_with(b"\n") {
                    text::line_end(old)
                } else {
                    b"\n"
                });
            }
        }
        if done { new } else { text::with_line(old, &wanted) }
    }
}

/// Whether a line sets the key.
fn assigns(line: &[u8], key: &[u8]) -> bool {
    let rest = line.trim_ascii_start().strip_prefix(key);
    rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="))
}

/// A line that is commented out, without the mark.
fn uncommented(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii_start();
    line.strip_prefix(b"#").or_else(|| line.strip_prefix(b";"))
}

impl Act for SetLine {
    const VERBS: &'static [Verb] = &[Verb {
        name: "set-line",
        metavar: "GUESTPATH:KEY=VALUE",
        help: "Set the line KEY=VALUE of a file that exists: in place of a line that sets KEY, or \
               of the first that is commented out, or at the end.",
        follows: true,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        let Self { path, key, value, .. } = self;
        if key.trim().is_empty() || key.contains(['\n', '=']) || value.contains('\n') {
            return Err(BadEdit::form(&format!("{key}={value}"), "KEY=VALUE, on one line"));
        }
        GuestPath::file(path.as_str()).map(drop)
    }

    fn subject(&self) -> String {
        self.path.to_string()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        text::rewrite(guest, session, &self.path, self.follow, |old| Ok(self.set(old)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, parse, runs};

    #[test]
    fn one_line_sets_the_key() {
        let mut guest = Guest::debian();
        for (before, after) in [
            ("", "A=1\n"),
            ("B=2", "B=2\nA=1\n"),
            ("x\n#A=0\n# A=3\ny\n", "x\nA=1\n# A=3\ny\n"),
            ("#A=0\nA = 5\nAB=2\nA=6", "#A=0\nA=1\nAB=2\n"),
            ("A=5\r\nB\r\n", "A=1\r\nB\r\n"),
        ] {
            guest.write("/srv/t", before);
            runs(&mut guest, "set-line", "/srv/t:A=1");
            assert_eq!(guest.read("/srv/t"), after, "{before:?}");
        }
        assert!(parse("set-line", "/x:A").is_err() && parse("set-line", "/x:=A").is_err());
    }
}
