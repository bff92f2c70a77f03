//! An image that a program writes to its standard output.

use std::io::{self, Read};

use super::Pipes;

/// The stream, checked against the size that was announced.
pub struct ProgramSource {
    pipes: Pipes,
    size: Option<u64>,
    position: u64,
    ended: bool,
}

impl ProgramSource {
    pub(super) fn new(pipes: Pipes, size: Option<u64>) -> Self {
        Self { pipes, size, position: 0, ended: false }
    }

    /// The size that it announced.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    fn about(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("the back-end {} {error}", self.pipes.name()))
    }
}

impl Read for ProgramSource {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || self.ended {
            return Ok(0);
        }
        let n = self.pipes.read(buf).map_err(|error| self.about(error))?;
        self.position += n as u64;
        if self.size.is_some_and(|size| self.position > size) {
            return Err(self.about(io::Error::other(format!(
                "sends more than the {} bytes that it announced",
                self.size.unwrap_or(0)
            ))));
        }
        if n > 0 {
            return Ok(n);
        }
        self.ended = true;
        // Its own words about a failure come before ours about the number of bytes.
        self.pipes.finish_well().map_err(|error| self.about(error))?;
        match self.size {
            Some(size) if self.position < size => Err(self.about(io::Error::other(format!(
                "ended after {} of the {size} bytes that it announced",
                self.position
            )))),
            _ => Ok(0),
        }
    }
}
