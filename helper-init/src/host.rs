//! Serial 2: the host's orders come in, the result goes out. The line stays open for the whole run:
//! opening it a second time would throw away what the host has said meanwhile.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use snf_image::wire::{HOST_LINE_LIMIT, HostLine, REPORT, ResultLine};
use zeroize::Zeroizing;

use crate::serial::Serial;

/// The line to the host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    serial: Serial,
    heard: Vec<u8>,
    /// The line broke: nothing more is listened to.
    deaf: bool,
}

impl Host {
    /// Opens the line. If there is none, nothing is heard and what is said is lost.
    pub(crate) fn open() -> Self {
        Self { serial: Serial::open("/dev/ttyS1"), heard: Vec::new(), deaf: false }
    }

    /// Says the result.
    pub(crate) fn say(&mut self, result: &ResultLine) {
        self.serial.line(&result.to_string());
    }

    /// Sends the report that follows a result.
    pub(crate) fn report(&mut self, report: &str) {
        self.serial.line(&format!("{REPORT}{report}"));
    }

    /// Returns when all has left the line.
    pub(crate) fn drain(&self) {
        self.serial.drain();
    }

    /// Waits for one line of the host's.
    pub(crate) fn hear(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        let file = self.serial.file().ok_or(io::ErrorKind::NotFound)?;
        let mut line = Zeroizing::new(Vec::with_capacity(HOST_LINE_LIMIT));
        let mut byte = [0];
        while line.len() < HOST_LINE_LIMIT && file.read(&mut byte)? == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        Ok(line)
    }

    /// The descriptor to poll for orders.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        if self.deaf { None } else { self.serial.as_file().map(AsFd::as_fd) }
    }

    /// Takes what a poll has found on the line. The last order in it counts; lines that the
    /// protocol does not know are ignored.
    pub(crate) fn order(&mut self) -> Option<HostLine> {
        let mut buffer = [0; 64];
        let count = match self.serial.file().map(|file| file.read(&mut buffer)) {
            Some(Ok(count)) if count > 0 => count,
            Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => return None,
            _ => {
                self.deaf = true;
                return None;
            }
        };
        self.take(&buffer[..count])
    }

    fn take(&mut self, bytes: &[u8]) -> Option<HostLine> {
        let mut order = None;
        for &byte in bytes {
            if byte == b'\n' {
                order = HostLine::parse(&self.heard).or(order);
                self.heard.clear();
            } else if self.heard.len() < HOST_LINE_LIMIT {
                self.heard.push(byte);
            }
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_in_pieces_and_junk_is_ignored() {
        let mut host = Host::default();
        assert_eq!(host.take(b"\nSTART 5\nSTO"), None);
        assert_eq!(host.take(b"P 108\nx"), Some(HostLine::Stop { seconds: 108 }));
        assert_eq!(host.take(&[b'x'; 3 * HOST_LINE_LIMIT]), None);
        assert!(host.heard.len() <= HOST_LINE_LIMIT);
        assert_eq!(host.take(b"\nSTOP 7\n"), Some(HostLine::Stop { seconds: 7 }));
        assert_eq!(host.order(), None);
        assert!(host.fd().is_none());
    }
}
