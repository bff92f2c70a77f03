//! The three serial lines on which the helper VM speaks, read with bounds: whatever a broken or
//! hostile VM sends, memory stays bounded and the worst outcome is a clear error.

use std::collections::VecDeque;

use snf_fs::text::is_hidden;
pub use snf_image::wire::{
    HELLO, LOG_LINE_LIMIT, LOG_TOTAL_LIMIT, MONITOR_LINE_LIMIT, MONITOR_LINES_LIMIT,
    PROTOCOL_VERSION, REPORT_LINE_LIMIT, RESULT_LINE_LIMIT,
};
use snf_image::wire::{MonitorKind, REPORT, ResultLine};

/// One message of the monitor line (serial 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MonitorMessage {
    /// A task begins.
    TaskStart(String),
    /// A task ended well.
    TaskEnd(String),
    /// Something the user should know.
    Warning(String),
    /// Why the deployment failed, in words meant for the user.
    Error(String),
    /// The last lines of a program's error output.
    Stderr(Vec<String>),
}

/// Why listening to the monitor line ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A line is longer than allowed.
    #[error("a line of more than {MONITOR_LINE_LIMIT} bytes")]
    LineTooLong,
    /// More lines than allowed.
    #[error("more than {MONITOR_LINES_LIMIT} lines")]
    TooManyLines,
    /// Bytes that are not UTF-8, or control characters.
    #[error("binary data where text was expected")]
    NotText,
    /// A line that the protocol does not know.
    #[error("an unknown message: {0:?}")]
    Unknown(String),
    /// The count of a STDERR message is not a number from 1 to the line limit.
    #[error("a STDERR message with a wrong line count: {0:?}")]
    BadCount(String),
    /// The line ended in the middle of a message.
    #[error("an unfinished message: {0:?}")]
    Unfinished(String),
}

/// Reads the monitor protocol from pieces of any size.
#[derive(Debug, Default)]
pub struct MonitorReader {
    line: Vec<u8>,
    lines: usize,
    stderr: Option<(usize, Vec<String>)>,
    ended: bool,
}

impl MonitorReader {
    /// Takes the next bytes and hands each complete message to `deliver`. After the first error
    /// everything else is ignored.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        deliver: &mut dyn FnMut(MonitorMessage),
    ) -> Result<(), ProtocolError> {
        if self.ended {
            return Ok(());
        }
        let result = self.feed_bounded(bytes, deliver);
        if result.is_err() {
            self.end();
        }
        result
    }

    /// The sender has closed the line: an unfinished message is an error.
    pub fn finish(&mut self) -> Result<(), ProtocolError> {
        if self.ended {
            return Ok(());
        }
        let rest = std::mem::take(&mut self.line);
        let unfinished_stderr = self.stderr.is_some();
        self.end();
        if rest.is_empty() && !unfinished_stderr {
            return Ok(());
        }
        Err(ProtocolError::Unfinished(excerpt(&rest)))
    }

    fn end(&mut self) {
        self.ended = true;
        self.line = Vec::new();
        self.stderr = None;
    }

    fn feed_bounded(
        &mut self,
        bytes: &[u8],
        deliver: &mut dyn FnMut(MonitorMessage),
    ) -> Result<(), ProtocolError> {
        for &byte in bytes {
            if byte != b'\n' {
                // One byte more than the limit may be the carriage return of a cooked terminal.
                if self.line.len() > MONITOR_LINE_LIMIT {
                    return Err(ProtocolError::LineTooLong);
                }
                self.line.push(byte);
                continue;
            }
            let mut line = std::mem::take(&mut self.line);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.len() > MONITOR_LINE_LIMIT {
                return Err(ProtocolError::LineTooLong);
            }
            self.lines += 1;
            if self.lines > MONITOR_LINES_LIMIT {
                return Err(ProtocolError::TooManyLines);
            }
            if let Some(message) = self.line(&line)? {
                deliver(message);
            }
            line.clear();
            self.line = line;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<MonitorMessage>, ProtocolError> {
        let text = std::str::from_utf8(line).map_err(|_| ProtocolError::NotText)?;
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(ProtocolError::NotText);
        }
        if let Some((wanted, mut lines)) = self.stderr.take() {
            lines.push(text.to_owned());
            return Ok(self.stderr_message(wanted, lines));
        }
        let unknown = || ProtocolError::Unknown(excerpt(line));
        let (kind, text) = MonitorKind::split(text).ok_or_else(unknown)?;
        if kind == MonitorKind::Stderr {
            return self.first_of_stderr(text);
        }
        let text = text.to_owned();
        match kind {
            MonitorKind::TaskStart | MonitorKind::TaskEnd if text.is_empty() => Err(unknown()),
            MonitorKind::TaskStart => Ok(Some(MonitorMessage::TaskStart(text))),
            MonitorKind::TaskEnd => Ok(Some(MonitorMessage::TaskEnd(text))),
            MonitorKind::Warning => Ok(Some(MonitorMessage::Warning(text))),
            MonitorKind::Error | MonitorKind::Stderr => Ok(Some(MonitorMessage::Error(text))),
        }
    }

    /// `COUNT:FIRST`: so many lines belong together.
    fn first_of_stderr(&mut self, text: &str) -> Result<Option<MonitorMessage>, ProtocolError> {
        let wrong = |text: &str| ProtocolError::BadCount(excerpt(text.as_bytes()));
        let (count, first) = text.split_once(':').ok_or_else(|| wrong(text))?;
        let wanted = count
            .parse::<usize>()
            .ok()
            .filter(|n| (1..=MONITOR_LINES_LIMIT).contains(n))
            .ok_or_else(|| wrong(count))?;
        Ok(self.stderr_message(wanted, vec![first.to_owned()]))
    }

    fn stderr_message(&mut self, wanted: usize, lines: Vec<String>) -> Option<MonitorMessage> {
        if lines.len() >= wanted {
            return Some(MonitorMessage::Stderr(lines));
        }
        self.stderr = Some((wanted, lines));
        None
    }
}

/// The start of a line, safe to print.
fn excerpt(line: &[u8]) -> String {
    let mut text = clean_line(line);
    if text.chars().count() > 60 {
        text = text.chars().take(60).collect::<String>() + "...";
    }
    text
}

/// The result that came on serial 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmResult {
    /// The customization was done.
    Success,
    /// It failed, and this is why.
    Error(String),
    /// Nothing was done: the same is to be done again with the other initramfs, which has the
    /// drivers of more file systems.
    NeedsFileSystems,
    /// It was started to be saved, and can be.
    Ready,
    /// Something that is none of these.
    Garbage(String),
}

/// Reads serial 2: the line with the result, and for `snf-customize` one with a report.
#[derive(Debug, Default)]
pub struct ResultReader {
    line: Vec<u8>,
    result: Option<VmResult>,
    report: Option<Vec<u8>>,
    /// Nothing more is listened to.
    ended: bool,
}

impl ResultReader {
    /// Takes the next bytes; all that is neither is ignored.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.result.is_some() {
                self.feed_report(byte);
                continue;
            }
            if byte == b'\n' {
                self.result = Some(judge(&self.line));
                self.line = Vec::new();
            } else if self.line.len() >= RESULT_LINE_LIMIT {
                self.result = Some(VmResult::Garbage(format!(
                    "more than {RESULT_LINE_LIMIT} bytes without a line feed"
                )));
                self.line = Vec::new();
            } else {
                self.line.push(byte);
            }
        }
    }

    fn feed_report(&mut self, byte: u8) {
        const MARK: &[u8] = REPORT.as_bytes();
        if self.ended {
            return;
        }
        if byte == b'\n' {
            self.ended = true;
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            self.report = line.strip_prefix(MARK).map(<[u8]>::to_vec);
            return;
        }
        self.line.push(byte);
        let begun = self.line.len().min(MARK.len());
        if self.line[..begun] != MARK[..begun] || self.line.len() > REPORT_LINE_LIMIT {
            self.ended = true;
            self.line = Vec::new();
        }
    }

    /// The report, when there is one.
    pub fn report(&self) -> Option<&[u8]> {
        self.report.as_deref()
    }

    /// The result, as soon as the line is complete. A line that breaks off is no result.
    pub fn result(&self) -> Option<&VmResult> {
        self.result.as_ref()
    }
}

fn judge(line: &[u8]) -> VmResult {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match ResultLine::parse(line) {
        Some(ResultLine::Success) => VmResult::Success,
        Some(ResultLine::NeedsFileSystems) => VmResult::NeedsFileSystems,
        Some(ResultLine::Ready) => VmResult::Ready,
        Some(ResultLine::Error(text)) => {
            VmResult::Error(clean_line(text.as_bytes()).trim().to_owned())
        }
        None => {
            VmResult::Garbage(format!("{:?} where SUCCESS or ERROR was expected", excerpt(line)))
        }
    }
}

/// Cuts console output into clean lines: valid UTF-8, no control characters, bounded.
#[derive(Debug, Default)]
pub struct LogReader {
    line: Vec<u8>,
    total: usize,
    cut: bool,
    hello: bool,
    panic: Option<String>,
    tail: VecDeque<String>,
}

impl LogReader {
    /// Takes the next bytes and hands each complete line to `deliver`.
    pub fn feed(&mut self, bytes: &[u8], deliver: &mut dyn FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' {
                self.flush_line(deliver);
                continue;
            }
            if self.line.len() >= LOG_LINE_LIMIT {
                self.flush_line(deliver);
            }
            self.line.push(byte);
        }
    }

    /// The line is closed: what is left of it is delivered.
    pub fn finish(&mut self, deliver: &mut dyn FnMut(&str)) {
        if !self.line.is_empty() {
            self.flush_line(deliver);
        }
    }

    /// Whether the VM has said anything at all.
    pub fn heard_anything(&self) -> bool {
        self.total > 0 || !self.line.is_empty()
    }

    /// Whether our init has announced itself: from here on it may touch the disk.
    pub fn heard_hello(&self) -> bool {
        self.hello
    }

    /// The last words of a kernel that panicked: registers and addresses follow it.
    pub fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    /// The last few lines, for an error message.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    fn flush_line(&mut self, deliver: &mut dyn FnMut(&str)) {
        self.total = self.total.saturating_add(self.line.len() + 1);
        let text = clean_line(&self.line);
        self.line.clear();
        if text.starts_with(HELLO) {
            self.hello = true;
        }
        if self.total > LOG_TOTAL_LIMIT {
            if !self.cut {
                self.cut = true;
                deliver("(the rest of the console output is left out: there is too much of it)");
            }
            return;
        }
        if text.is_empty() {
            return;
        }
        deliver(&text);
        if self.panic.is_none() && text.contains("Kernel panic") {
            self.panic = Some(text.clone());
        }
        if self.tail.len() >= 5 {
            self.tail.pop_front();
        }
        self.tail.push_back(text);
    }
}

/// Bytes as one line of printable text: escape sequences and hidden characters go, bytes that
/// are not UTF-8 become U+FFFD.
pub fn clean_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' && chars.peek() == Some(&'[') {
            chars.next();
            // A control sequence ends with its first byte from @ to ~.
            for c in chars.by_ref() {
                if ('@'..='~').contains(&c) {
                    break;
                }
            }
        } else if c == '\t' {
            out.push(' ');
        } else if !is_hidden(c) {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> (Vec<MonitorMessage>, Result<(), ProtocolError>) {
        let mut messages = Vec::new();
        let mut reader = MonitorReader::default();
        let mut result = Ok(());
        for piece in bytes.chunks(7) {
            result = result.and(reader.feed(piece, &mut |m| messages.push(m)));
        }
        let finish = reader.finish();
        (messages, result.and(finish))
    }

    #[test]
    fn reads_every_kind_of_message() {
        let (messages, result) = read(
            b"TASK_START:MountImage\r\nTASK_END:MountImage\nWARNING:a: b\nERROR:\nSTDERR:2:one\ntwo\n",
        );
        assert_eq!(result, Ok(()));
        assert_eq!(
            messages,
            [
                MonitorMessage::TaskStart("MountImage".into()),
                MonitorMessage::TaskEnd("MountImage".into()),
                MonitorMessage::Warning("a: b".into()),
                MonitorMessage::Error(String::new()),
                MonitorMessage::Stderr(vec!["one".into(), "two".into()]),
            ]
        );
    }

    #[test]
    fn floods_half_lines_and_junk_end_the_listening() {
        let long = [b"WARNING:".as_slice(), &[b'x'; 505], b"\n"].concat();
        assert_eq!(read(&long).1, Err(ProtocolError::LineTooLong));
        let fits = [b"WARNING:".as_slice(), &[b'x'; 504], b"\r\n"].concat();
        assert_eq!(read(&fits).1, Ok(()));
        assert_eq!(read(&vec![b'x'; 1 << 20]).1, Err(ProtocolError::LineTooLong));

        let (messages, result) = read(&b"WARNING:x\n".repeat(5000));
        assert_eq!(messages.len(), 100);
        assert_eq!(result, Err(ProtocolError::TooManyLines));

        assert_eq!(read(b"WARNING:\xff\n").1, Err(ProtocolError::NotText));
        assert_eq!(read(b"WARNING:\x1b[2J\n").1, Err(ProtocolError::NotText));
        assert_eq!(read(b"HELLO\n").1, Err(ProtocolError::Unknown("HELLO".into())));
        assert_eq!(read(b"SUCCESS:1\n").1, Err(ProtocolError::Unknown("SUCCESS:1".into())));
        assert_eq!(read(b"\n").1, Err(ProtocolError::Unknown(String::new())));
        assert_eq!(read(b"TASK_STA").1, Err(ProtocolError::Unfinished("TASK_STA".into())));
        assert_eq!(read(b"STDERR:3:a\nb\n").1, Err(ProtocolError::Unfinished(String::new())));
        for count in ["0", "101", "-1", "99999999999999999999", ""] {
            let line = format!("STDERR:{count}:x\n");
            assert_eq!(read(line.as_bytes()).1, Err(ProtocolError::BadCount(count.into())));
        }
    }

    #[test]
    fn nothing_is_heard_after_an_error() {
        let mut reader = MonitorReader::default();
        assert!(reader.feed(b"junk\n", &mut |_| panic!("no message")).is_err());
        assert_eq!(reader.feed(b"WARNING:x\n", &mut |_| panic!("no message")), Ok(()));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_flood_takes_no_memory() {
        let (mut log, mut result, mut monitor) =
            (LogReader::default(), ResultReader::default(), MonitorReader::default());
        for byte in [0, b'x', b'\n', 0xff] {
            let piece = vec![byte; 1 << 20];
            for _ in 0..16 {
                log.feed(&piece, &mut |_| {});
                result.feed(&piece);
                let _ = monitor.feed(&piece, &mut |_| {});
            }
        }
        let held = log.line.capacity()
            + log.tail.iter().map(String::capacity).sum::<usize>()
            + result.line.capacity()
            + monitor.line.capacity();
        assert!(held < 64 << 10, "{held} bytes");
        let mut endless = ResultReader::default();
        endless.feed(b"SUCCESS\nREPORT:");
        endless.feed(&vec![b'x'; 4 << 20]);
        assert_eq!((endless.line.capacity(), endless.report()), (0, None));
        let mut monitor = MonitorReader::default();
        let line = [b"STDERR:100:".as_slice(), &[b'x'; 500], b"\n"].concat();
        let _ = monitor.feed(&line, &mut |_| {});
        let _ = monitor.feed(&[[b'x'; 512].as_slice(), b"\n"].concat().repeat(5000), &mut |_| {});
        assert!(monitor.stderr.is_none() && monitor.ended);
    }

    #[test]
    fn only_a_whole_first_line_is_a_result() {
        let read = |bytes: &[u8]| {
            let mut reader = ResultReader::default();
            reader.feed(bytes);
            reader.result().cloned()
        };
        assert_eq!(read(b"SUCCESS"), None);
        assert_eq!(read(b"SUCCESS\nERROR: x\n"), Some(VmResult::Success));
        assert_eq!(read(b"SUCCESS\r\n"), Some(VmResult::Success));
        assert_eq!(read(b"ERROR: no\x07 user\nSUCCESS\n"), Some(VmResult::Error("no user".into())));
        let mut reader = ResultReader::default();
        reader.feed(b"SUCCESS\nREPORT:{\"a\": 1}\r\nREPORT:2\n");
        assert_eq!(reader.report(), Some(&b"{\"a\": 1}"[..]));
        let mut reader = ResultReader::default();
        reader.feed(b"ERROR: x\nREPORT:");
        reader.feed(&vec![b'x'; REPORT_LINE_LIMIT + 100]);
        reader.feed(b"\n");
        assert_eq!(reader.report(), None);
        assert_eq!(read(b"AGAIN: filesystems\n"), Some(VmResult::NeedsFileSystems));
        assert!(matches!(read(b"AGAIN\n"), Some(VmResult::Garbage(_))));
        assert!(matches!(read(b"SUCCESS!\nSUCCESS\n"), Some(VmResult::Garbage(_))));
        assert!(matches!(read(&[b'S'; 10_000]), Some(VmResult::Garbage(_))));
    }

    #[test]
    fn the_log_is_clean_bounded_text() {
        let mut lines = Vec::new();
        let mut log = LogReader::default();
        assert!(!log.heard_anything());
        log.feed(b"\x1b[1;31mred\x1b[0m\xff\r\n\nsnf-image-helper 0.1\nhalf", &mut |l| {
            lines.push(l.to_owned());
        });
        assert!(log.heard_anything() && log.heard_hello());
        log.finish(&mut |l| lines.push(l.to_owned()));
        assert_eq!(lines, ["red\u{fffd}", "snf-image-helper 0.1", "half"]);

        let mut total = 0;
        for _ in 0..5000 {
            log.feed(&[b'x'; 4096], &mut |l| total += l.len());
        }
        assert!(total < LOG_TOTAL_LIMIT + 1000);
    }
}
