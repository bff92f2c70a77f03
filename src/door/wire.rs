//! The words and limits that host and helper VM share.
//!
//! Host and helper are two programs that meet on QEMU's serial lines and on the kernel's command
//! line. Each word of theirs, and each limit that one side keeps and the other enforces, is
//! declared here once. docs/helper.md describes the protocol.

use std::fmt;

/// The protocol's number as a literal, for `concat!`.
#[macro_export]
macro_rules! protocol_version {
    () => {
        2
    };
}

/// The version of the agreement between host and helper: kernel command line, rules, serial
/// lines. Both halves refuse a different one.
pub const PROTOCOL_VERSION: u32 = crate::protocol_version!();

/// Marks the helper's init in its file, so that update-helper takes no other program for it.
pub fn init_mark() -> String {
    format!("snf-helper-init protocol={PROTOCOL_VERSION};")
}

/// The helper's first words on serial 1. It opens no disk before it has said them.
pub const HELLO: &str = "snf-image-helper";

/// Longest monitor line in bytes, line feed not counted.
pub const MONITOR_LINE_LIMIT: usize = 512;
/// Most lines of one run on the monitor line.
pub const MONITOR_LINES_LIMIT: usize = 100;
/// Longest result line in bytes, line feed not counted.
pub const RESULT_LINE_LIMIT: usize = 4096;
/// Longest line with a report in bytes, line feed not counted.
pub const REPORT_LINE_LIMIT: usize = super::request::REPORT_MAX + REPORT.len() + 1;
/// Longest line of console output in bytes that the host passes on in one piece.
pub const LOG_LINE_LIMIT: usize = 1024;
/// Most bytes of console output that the host passes on.
pub const LOG_TOTAL_LIMIT: usize = 1 << 20;
/// Longest line in bytes that the host says on serial 2.
pub const HOST_LINE_LIMIT: usize = 4096;

/// The last file of an initramfs, at its root. If it is missing, the kernel has not unpacked all.
pub const INITRAMFS_END: &str = "complete";
/// A file on the parameter disk that asks for nothing: the helper reads it and is done. With it
/// update-helper tries what it has built.
pub const TRIAL_FILE: &str = "trial";

/// Bytes of randomness that a VM gets when it goes on from a snapshot.
pub const SEED_SIZE: usize = 32;

/// Begins the line with a report, which follows the result.
pub const REPORT: &str = "REPORT:";
/// Begins the line with which the host ends a customization whose time is up. The number of
/// seconds that it had follows.
const STOP: &str = "STOP ";
/// Begins a result that is an error.
const ERROR: &str = "ERROR:";

/// Words on the kernel's command line, or on the line with which the host wakes a snapshot.
pub mod words {
    /// Without this word the helper touches no disk.
    pub const ACTIVATE: &str = "snf_image_activate_helper";
    /// The helper is to stop before it looks at a disk, so that the VM can be saved.
    pub const SNAPSHOT: &str = "snf_image_snapshot";
    /// The helper logs when it reached which step. `cargo xtask bench helper` asks for it.
    pub const TIMES: &str = "snf_image_times";
    /// After a failure the VM stays up, with a shell on serial 4, until the host ends it.
    pub const DEBUG: &str = "snf_image_debug";
    /// `=DEVICE`: the parameter disk.
    pub const RULES_DEV: &str = "rules_dev";
    /// `=NUMBER`: the host's protocol version. The original's host does not say one.
    pub const PROTOCOL: &str = "snf_image_protocol";
    /// `=LIST`: what another initramfs has drivers for.
    pub const MORE: &str = "snf_image_more";
    /// The drivers of file systems, in the list of [`MORE`].
    pub const MORE_FILE_SYSTEMS: &str = "filesystems";
    /// `=NAME`: Ganeti's HYPERVISOR.
    pub const HYPERVISOR: &str = "hypervisor";
    /// `=SECONDS.NANOSECONDS` since 1970: sets the clock of a VM that goes on from a snapshot.
    pub const TIME: &str = "snf_image_time";
    /// `=HEX`: seeds the random pool of a VM that goes on from a snapshot.
    pub const SEED: &str = "snf_image_seed";
}

/// The first line that the helper says on serial 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResultLine {
    /// The customization was done, and all of it is on the disk.
    Success,
    /// It failed, and this is why.
    Error(String),
    /// Nothing was done. The host has another initramfs with the drivers that are missing.
    NeedsFileSystems,
    /// The VM was started to be saved, and can be.
    Ready,
}

impl ResultLine {
    /// Longest text of an error in bytes that fits into [`RESULT_LINE_LIMIT`].
    pub const TEXT_LIMIT: usize = RESULT_LINE_LIMIT - ERROR.len() - 1;

    /// Reads a line, without its line feed. `None` for one that is no result. The text of an
    /// error is as it came: the caller cleans it.
    pub fn parse(line: &[u8]) -> Option<Self> {
        for known in [Self::Success, Self::NeedsFileSystems, Self::Ready] {
            if line == known.to_string().as_bytes() {
                return Some(known);
            }
        }
        let text = line.strip_prefix(ERROR.as_bytes())?;
        Some(Self::Error(String::from_utf8_lossy(text).trim().to_owned()))
    }
}

impl fmt::Display for ResultLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("SUCCESS"),
            Self::Error(text) => write!(f, "{ERROR} {text}"),
            Self::NeedsFileSystems => write!(f, "AGAIN: {}", words::MORE_FILE_SYSTEMS),
            Self::Ready => f.write_str("READY"),
        }
    }
}

/// The subject of a message on the monitor line. The text follows after a colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorKind {
    /// A task begins.
    TaskStart,
    /// A task ended well.
    TaskEnd,
    /// Something the user should know.
    Warning,
    /// Why the deployment failed, in words for the user.
    Error,
    /// The last lines of a program's error output, after their number.
    Stderr,
}

impl MonitorKind {
    const ALL: [Self; 5] =
        [Self::TaskStart, Self::TaskEnd, Self::Warning, Self::Error, Self::Stderr];

    /// The word on the line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TaskStart => "TASK_START",
            Self::TaskEnd => "TASK_END",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Stderr => "STDERR",
        }
    }

    /// Splits a line into kind and text. `None` for a kind that the protocol does not know.
    pub fn split(line: &str) -> Option<(Self, &str)> {
        let (word, text) = line.split_once(':')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.word() == word)?;
        Some((kind, text))
    }
}

/// The orders of the host on serial 2 while a customization runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostLine {
    /// The time is up: end the worker, and report where it was.
    Stop {
        /// How many seconds the customization had.
        seconds: u64,
    },
}

impl HostLine {
    /// Reads a line, without its line feed.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line.strip_prefix(STOP.as_bytes())?).ok()?;
        Some(Self::Stop { seconds: text.trim_end().parse().ok()? })
    }
}

impl fmt::Display for HostLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop { seconds } => write!(f, "{STOP}{seconds}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read_as_it_was_written() {
        let error = ResultLine::Error("no user".into());
        for line in [ResultLine::Success, error, ResultLine::NeedsFileSystems, ResultLine::Ready] {
            assert_eq!(ResultLine::parse(line.to_string().as_bytes()), Some(line));
        }
        let longest = ResultLine::Error("x".repeat(ResultLine::TEXT_LIMIT));
        assert_eq!(longest.to_string().len(), RESULT_LINE_LIMIT);
        for junk in [&b""[..], b"SUCCESS ", b"success", b"AGAIN", b"ERROR", b"READY:1"] {
            assert_eq!(ResultLine::parse(junk), None);
        }
        for kind in MonitorKind::ALL {
            let line = format!("{}:a: b", kind.word());
            assert_eq!(MonitorKind::split(&line), Some((kind, "a: b")));
        }
        assert_eq!(MonitorKind::split("SUCCESS:1"), None);
        assert_eq!(MonitorKind::split("WARNING"), None);
        let stop = HostLine::Stop { seconds: 108 };
        assert_eq!(HostLine::parse(stop.to_string().as_bytes()), Some(stop));
        for junk in [&b"STOP"[..], b"STOP x", b"STOP -1", b"STOP 1 2", b"\xff"] {
            assert_eq!(HostLine::parse(junk), None);
        }
    }
}
