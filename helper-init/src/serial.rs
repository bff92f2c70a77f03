//! The serial lines: raw, so that what is written is what arrives.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr};

/// One serial line, or nothing where the machine has no such line.
#[derive(Debug, Default)]
pub(crate) struct Serial(Option<File>);

impl Serial {
    /// Opens a line and makes it raw. A missing one swallows what is written.
    pub(crate) fn open(path: &str) -> Self {
        Self(open_raw(path).ok())
    }

    /// Writes one line; what cannot be written is lost, there is nobody to tell.
    pub(crate) fn line(&mut self, text: &str) {
        if let Some(file) = &mut self.0 {
            let _ = file.write_all(format!("{text}\n").as_bytes());
        }
    }

    /// The line, to be read.
    pub(crate) fn file(&mut self) -> Option<&mut File> {
        self.0.as_mut()
    }

    /// The line, to be polled.
    pub(crate) fn as_file(&self) -> Option<&File> {
        self.0.as_ref()
    }

    /// Returns when all has left the line.
    pub(crate) fn drain(&self) {
        if let Some(file) = &self.0 {
            let _ = tcdrain(file);
        }
    }
}

/// Opens a line for reading and writing, raw.
pub(crate) fn open_raw(path: &str) -> io::Result<File> {
    let no_controlling_terminal = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(no_controlling_terminal)
        .open(path)?;
    let mut termios = tcgetattr(&file)?;
    termios.make_raw();
    tcsetattr(&file, OptionalActions::Now, &termios)?;
    Ok(file)
}

/// Text as one line of printable characters, at most `limit` bytes: nothing that came from an
/// image can end a line or command a terminal.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for c in text.trim_end().chars() {
        let c = match c {
            '\n' | '\r' | '\t' => ' ',
            c if snf_fs::text::is_hidden(c) => '\u{fffd}',
            c => c,
        };
        if out.len() + c.len_utf8() > limit {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line("no user\nSUCCESS\n", 99), "no user SUCCESS");
        assert_eq!(one_line("\x1b[2Jx", 99), "\u{fffd}[2Jx");
        assert_eq!(one_line("\u{9b}a\u{202e}\u{2028}b", 99), "\u{fffd}a\u{fffd}\u{fffd}b");
        assert_eq!(one_line("ääää", 5), "ää");
    }
}
