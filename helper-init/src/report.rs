//! The messages of the worker to PID 1, one line a message, over a pipe: the first character says what it
//! is. PID 1 trusts none of it further than its bounds.

use snf_image::event::{Event, EventSink};
use std::io::Write;

use crate::serial::one_line;

/// Longest message in bytes.
pub(crate) const LIMIT: usize = 4000;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A task begins.
    TaskStart(String),
    /// A task ended well.
    TaskEnd(String),
    /// A piece of the report that `snf-customize` wants.
    Report(String),
    /// For the log.
    Info(String),
    /// For the user.
    Warning(String),
    /// All is done and on the disk.
    Done,
    /// Nothing is done, because drivers are missing that another initramfs has.
    NeedsDrivers,
    /// Why it failed.
    Failed(String),
}

impl Message {
    /// The line without its end.
    pub(crate) fn encode(&self) -> String {
        match self {
            Self::TaskStart(name) => format!("S{}", one_line(name, LIMIT)),
            Self::TaskEnd(name) => format!("E{}", one_line(name, LIMIT)),
            // The mark keeps a blank at the end of the piece.
            Self::Report(text) => format!("R{text}|"),
            Self::Info(text) => format!("I{}", one_line(text, LIMIT)),
            Self::Warning(text) => format!("W{}", one_line(text, LIMIT)),
            Self::Done => "D".to_owned(),
            Self::NeedsDrivers => "A".to_owned(),
            Self::Failed(text) => format!("F{}", one_line(text, LIMIT)),
        }
    }

    /// Reads a line; `None` for one that we would not have written.
    pub(crate) fn decode(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let kind = text.chars().next()?;
        let text = one_line(text.get(kind.len_utf8()..)?, LIMIT);
        Some(match kind {
            'S' => Self::TaskStart(text),
            'E' => Self::TaskEnd(text),
            'R' => Self::Report(text.strip_suffix('|')?.to_owned()),
            'I' => Self::Info(text),
            'W' => Self::Warning(text),
            'D' if text.is_empty() => Self::Done,
            'A' if text.is_empty() => Self::NeedsDrivers,
            'F' => Self::Failed(text),
            _ => return None,
        })
    }
}

/// The worker's end of the pipe.
#[derive(Debug)]
pub(crate) struct Reporter<W: Write>(pub(crate) W);

impl<W: Write> Reporter<W> {
    /// Sends one message. When PID 1 is gone, so is the VM: nothing to do about an error.
    pub(crate) fn send(&mut self, message: &Message) {
        let line = message.encode() + "\n";
        let _ = self.0.write_all(line.as_bytes()).and_then(|()| self.0.flush());
    }
}

impl<W: Write> Reporter<W> {
    /// Sends a report: JSON, in which there is no control character.
    pub(crate) fn report(&mut self, report: &[u8]) {
        let text = String::from_utf8_lossy(report);
        let mut rest = &*text;
        while !rest.is_empty() {
            let mut end = rest.len().min(LIMIT - 8);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, after) = rest.split_at(end);
            self.send(&Message::Report(piece.to_owned()));
            rest = after;
        }
    }
}

impl<W: Write> EventSink for Reporter<W> {
    fn event(&mut self, event: Event) {
        self.send(&match event {
            Event::TaskStart(name) => Message::TaskStart(name.to_string()),
            Event::TaskEnd(name) => Message::TaskEnd(name.to_string()),
            Event::Info(text) => Message::Info(text),
            Event::Warning(text) => Message::Warning(text),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_and_cannot_be_forged() {
        for message in [
            Message::TaskStart("MountImage".into()),
            Message::Warning("über".into()),
            Message::Done,
            Message::NeedsDrivers,
            Message::Failed(String::new()),
        ] {
            assert_eq!(Message::decode(message.encode().as_bytes()), Some(message));
        }
        assert_eq!(Message::Info("x\nD".into()).encode(), "Ix D");
        let mut sent = Reporter(Vec::new());
        let report = format!("{{\"a\": \"{}\"}}", "\u{e4} ".repeat(5000));
        sent.report(report.as_bytes());
        let pieces = sent.0.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let arrived: String = pieces
            .map(|line| match Message::decode(line) {
                Some(Message::Report(piece)) => piece,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(arrived, report);
        for junk in [&b""[..], b"X", b"D ?", b"\xff"] {
            assert_eq!(Message::decode(junk), None);
        }
    }
}
