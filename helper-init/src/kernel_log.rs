//! The kernel's log, for the debug shell.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// Most bytes of it that are read.
const LIMIT: usize = 256 << 10;
/// Most records that may have been overwritten between two reads.
const GAPS: usize = 100;

/// The kernel's log, read without waiting.
pub(crate) struct KernelLog(File);

impl KernelLog {
    /// Opens it while we may.
    pub(crate) fn open() -> io::Result<Self> {
        OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/kmsg")
            .map(Self)
    }

    /// Its lines so far, the oldest where there are too many. Each read of the device is one
    /// record: `priority,sequence,time,flags;text`.
    pub(crate) fn read(&mut self) -> Vec<String> {
        let _ = self.0.seek(SeekFrom::Start(0));
        let mut lines = Vec::new();
        let mut size = 0;
        let mut record = [0; 8192];
        // A record that was overwritten meanwhile is EPIPE, and the next read goes on.
        let mut gaps = 0;
        while size < LIMIT && gaps < GAPS {
            match self.0.read(&mut record) {
                Ok(count) if count > 0 => {
                    size += count;
                    lines.push(line(&String::from_utf8_lossy(&record[..count])));
                }
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {
                    gaps += 1;
                }
                _ => break,
            }
        }
        lines
    }
}

/// A record as `dmesg` shows it.
fn line(record: &str) -> String {
    let (head, message) = record.split_once(';').unwrap_or(("", record));
    let time: u64 = head.split(',').nth(2).and_then(|t| t.parse().ok()).unwrap_or(0);
    let message = message.lines().next().unwrap_or_default();
    format!("[{:5}.{:06}] {message}", time / 1_000_000, time % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn records_are_shown_as_dmesg_does() {
        assert_eq!(
            line("6,339,5140900,-;NET: registered\n SUB=x\n"),
            "[    5.140900] NET: registered"
        );
        assert_eq!(line("no record"), "[    0.000000] no record");
    }
}
