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
        let style = Style::of(old);
        // Blocks such as sshd's `Match` hold for some connections only: what counts for all stands
        // before the first.
        let block = match style {
            Style::Spaces if !opens_block(key) => {
                text::lines(old).position(opens_block).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        };
        let lines: Vec<&[u8]> = text::lines(old).collect();
        let head = &lines[..block.min(lines.len())];
        let mut active = head.iter().filter_map(|line| separator(line, key)).peekable();
        let off = head.iter().find_map(|line| style.commented(line, key));
        let (is_active, separator): (bool, &[u8]) = match (active.peek(), off) {
            (Some(separator), _) => (true, separator),
            (None, Some(separator)) => (false, separator),
            (None, None) => (false, if style == Style::Spaces { b" " } else { b"=" }),
        };
        let wanted = [key, separator, self.value.as_bytes()].concat();
        // One that sets the key is replaced and further ones go, so that first and last agree; else
        // the first that is commented out is put to use.
        let mut done = false;
        let mut new = Vec::new();
        for line in head {
            let replaced = if is_active {
                self::separator(line, key).is_some()
            } else {
                !done && style.commented(line, key).is_some()
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
        if !done {
            new = text::with_line(&new, &wanted);
        }
        lines[head.len()..].iter().for_each(|line| new.extend_from_slice(line));
        new
    }
}

/// The way in which a file parts keys from values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// `KEY=VALUE`, as in a file of the shell.
    Equals,
    /// `KEY VALUE`, as in sshd_config and login.defs.
    Spaces,
    /// No line says.
    Unknown,
}

impl Style {
    /// The way of most lines that are not commented out.
    fn of(text: &[u8]) -> Self {
        let (mut equals, mut spaces) = (0_usize, 0_usize);
        for line in text::lines(text).map(<[u8]>::trim_ascii) {
            let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
            let end = line.iter().position(|byte| !word(byte)).unwrap_or(line.len());
            match separator(line, &line[..end]) {
                _ if end == 0 => {}
                Some(b"=") => equals += 1,
                Some(_) => spaces += 1,
                None => {}
            }
        }
        match (equals, spaces) {
            (0, 0) => Self::Unknown,
            _ if spaces > equals => Self::Spaces,
            _ => Self::Equals,
        }
    }

    /// The separator of key and value in a line that is commented out. With spaces it may be a
    /// sentence that begins with the key: it counts where the mark is next to the key, or one
    /// word follows.
    fn commented<'a>(self, line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
        let line = uncommented(line)?;
        let separator = separator(line, key)?;
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
        let setting = match self {
            Self::Equals => false,
            Self::Spaces => line.starts_with(key) || words == 2,
            Self::Unknown => line.starts_with(key) && words == 2,
        };
        (separator == b"=" || setting).then_some(separator)
    }
}

/// Whether a line of `KEY VALUE` begins a block.
fn opens_block(line: &[u8]) -> bool {
    let word = line.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    word.eq_ignore_ascii_case(b"match") || word.eq_ignore_ascii_case(b"host")
}

/// The separator of key and value in a line that sets the key: `=`, or the spaces themselves.
fn separator<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = line.trim_ascii_start().strip_prefix(key)?;
    let value = rest.trim_ascii_start();
    if value.starts_with(b"=") {
        return Some(b"=");
    }
    let spaces = &rest[..rest.len() - value.len()];
    (!spaces.is_empty() && !value.is_empty()).then_some(spaces)
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
               of the first that is commented out, or at the end. A file with lines KEY VALUE \
               (sshd_config, login.defs) gets such a line.",
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
            ("B=2\n# A word of prose\n#A b\n", "B=2\n# A word of prose\n#A b\nA=1\n"),
            // As sshd_config and login.defs have it.
            ("Port 22\n#A no\nA yes\n", "Port 22\n#A no\nA 1\n"),
            (
                "UMASK\t\t022\n# A is a key of great use\nA\t\t022\n",
                "UMASK\t\t022\n# A is a key of great use\nA\t\t1\n",
            ),
            ("Port 22\n# A is a key\n#A no\n", "Port 22\n# A is a key\nA 1\n"),
            ("Port 22\nB no", "Port 22\nB no\nA 1\n"),
            ("Port 22\nMatch User x\n  A no\n", "Port 22\nA 1\nMatch User x\n  A no\n"),
            ("#A no\n", "A 1\n"),
            // As an earlier --set-line may have left it.
            ("A yes\nB no\nA=1\n", "A 1\nB no\n"),
        ] {
            guest.write("/srv/t", before);
            runs(&mut guest, "set-line", "/srv/t:A=1");
            assert_eq!(guest.read("/srv/t"), after, "{before:?}");
        }
        assert!(parse("set-line", "/x:A").is_err() && parse("set-line", "/x:=A").is_err());
    }
}
