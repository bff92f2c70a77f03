//! `--append-line`: one more line at the end of a text.

use serde::{Deserialize, Serialize};

use super::{Act, Action, BadEdit, GuestPath, How, Verb, flag, text};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// One more line at the end of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AppendLine {
    /// The file, which exists.
    path: GuestPath,
    /// The line, without its end.
    line: String,
    /// Whether a symbolic link is followed; it is an error otherwise.
    #[serde(default = "flag::yes", skip_serializing_if = "flag::is_yes")]
    follow: bool,
}

impl AppendLine {
    fn parse(text: &str, how: How) -> Result<Action, BadEdit> {
        let Some((path, line)) = text.split_once(':') else {
            return Err(BadEdit::form(text, "GUESTPATH:LINE"));
        };
        let path = GuestPath::file(path)?;
        Ok(Action::AppendLine(Self { path, line: line.to_owned(), follow: how.follow }))
    }
}

impl Act for AppendLine {
    const VERBS: &'static [Verb] = &[Verb {
        name: "append-line",
        metavar: "GUESTPATH:LINE",
        help: "Add a line to the end of a file that exists, after ending its last line if need be.",
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
        text::rewrite(guest, session, &self.path, self.follow, |old| {
            Ok(text::with_line(old, self.line.as_bytes()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, runs};

    #[test]
    fn lines_are_ended() {
        let mut guest = Guest::debian();
        for (before, after) in [("", "x:y\n"), ("a", "a\nx:y\n"), ("a\r\nb", "a\r\nb\r\nx:y\r\n")] {
            guest.write("/srv/t", before);
            runs(&mut guest, "append-line", "/srv/t:x:y");
            assert_eq!(guest.read("/srv/t"), after);
        }
        assert!(fails(&mut guest, "append-line", "/none:x").contains("no such file"));
    }
}
