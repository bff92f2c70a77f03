//! The serial lines on which the helper speaks, with the bounds that the host enforces.

use std::time::Duration;

use snf_image::wire::{LOG_LINE_LIMIT, MONITOR_LINE_LIMIT, MONITOR_LINES_LIMIT, MonitorKind};

use crate::clock::uptime;
use crate::host::Host;
use crate::serial::{Serial, one_line};

/// Monitor lines that are kept for the error that may come last.
const MONITOR_RESERVE: usize = 2;
/// Longest text on the console: the kernel may put something before it.
const LOG_TEXT: usize = LOG_LINE_LIMIT - 124;
/// Most steps whose time is noted.
const MARKS: usize = 64;
/// Most lines that are logged.
const LOG_LINES: usize = 2000;

/// The console, the line to the host, and the monitor line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    log: Serial,
    /// Orders and the result.
    pub(crate) host: Host,
    monitor: Serial,
    monitor_lines: usize,
    log_lines: usize,
    /// Steps and when they began, since the kernel's start.
    marks: Vec<(String, Duration)>,
    /// The report that `snf-customize` wants; it follows the result.
    pub(crate) report: String,
}

impl Lines {
    /// Opens all three.
    pub(crate) fn open() -> Self {
        Self {
            log: Serial::open("/dev/ttyS0"),
            host: Host::open(),
            monitor: Serial::open("/dev/ttyS2"),
            ..Self::default()
        }
    }

    /// Notes that something begins now.
    pub(crate) fn mark(&mut self, what: &str) {
        self.mark_at(what, uptime());
    }

    /// Notes that something began at `time`.
    pub(crate) fn mark_at(&mut self, what: &str, time: Duration) {
        if self.marks.len() < MARKS {
            self.marks.push((what.to_owned(), time));
        }
    }

    /// Logs the notes, in milliseconds since the kernel's start.
    pub(crate) fn log_marks(&mut self) {
        for (what, time) in std::mem::take(&mut self.marks) {
            self.log(&format!("time {what} {:.1}", time.as_secs_f64() * 1000.0));
        }
    }

    /// A line for the host's log.
    pub(crate) fn log(&mut self, text: &str) {
        self.log_lines += 1;
        if self.log_lines <= LOG_LINES {
            self.log.line(&one_line(text, LOG_TEXT));
        }
    }

    /// A message of the monitor protocol. When the host's bound is near, only an error is still
    /// sent: one line too many would end the listening.
    pub(crate) fn monitor(&mut self, kind: MonitorKind, text: &str) {
        let last = match kind {
            MonitorKind::Error => MONITOR_LINES_LIMIT,
            _ => MONITOR_LINES_LIMIT - MONITOR_RESERVE,
        };
        if self.monitor_lines < last {
            self.monitor_lines += 1;
            let word = kind.word();
            let room = MONITOR_LINE_LIMIT - word.len() - 1;
            self.monitor.line(&format!("{word}:{}", one_line(text, room)));
        }
    }

    /// Returns when all has left.
    pub(crate) fn drain(&self) {
        self.log.drain();
        self.monitor.drain();
    }
}
