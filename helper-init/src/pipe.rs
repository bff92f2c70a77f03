//! Lines of bounded length from a pipe that is read without waiting.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use crate::report::LIMIT;

/// Cuts a pipe into lines of at most [`LIMIT`] bytes; the rest of a longer one is dropped.
pub(crate) struct Lined<R> {
    reader: Option<R>,
    partial: Vec<u8>,
}

impl<R: Read + AsFd> Lined<R> {
    /// For a pipe that does not block.
    pub(crate) fn new(reader: R) -> Self {
        Self { reader: Some(reader), partial: Vec::new() }
    }

    /// The descriptor to poll, as long as the other end is open.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.reader.as_ref().map(AsFd::as_fd)
    }

    /// The lines that one read completes.
    pub(crate) fn read(&mut self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let Some(reader) = &mut self.reader else { return lines };
        let mut buffer = [0; 4096];
        match reader.read(&mut buffer) {
            Ok(count) if count > 0 => {
                for &byte in &buffer[..count] {
                    if byte == b'\n' {
                        lines.push(std::mem::take(&mut self.partial));
                    } else if self.partial.len() <= LIMIT {
                        self.partial.push(byte);
                    }
                }
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            _ => {
                self.reader = None;
                if !self.partial.is_empty() {
                    lines.push(std::mem::take(&mut self.partial));
                }
            }
        }
        lines
    }
}
