//! Standard output for what a guest's files hold: any amount, and errors are told.

use std::io::{BufWriter, IsTerminal, StdoutLock, Write};

use snf_image::shown;

use super::Trouble;
use crate::exit::Failure;
use crate::output;

/// Standard output. Nobody needs the bytes that are not flushed when it goes.
pub(super) struct Stream {
    out: BufWriter<StdoutLock<'static>>,
    terminal: bool,
    /// The end of a piece that may be the beginning of a character.
    rest: Vec<u8>,
}

impl Stream {
    pub(super) fn new() -> Result<Self, Failure> {
        let out = output::content_output()?;
        let terminal = out.is_terminal();
        Ok(Self { out: BufWriter::with_capacity(1 << 16, out), terminal, rest: Vec::new() })
    }

    /// A line of our own making; nothing hidden in it.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Trouble> {
        let line = shown::line(text);
        self.write(line.as_bytes())?;
        self.write(b"\n")
    }

    /// Bytes of a guest: as they are, but on a terminal, to which they could give orders.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        if !self.terminal {
            return self.write(bytes);
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&all) {
            Ok(_) => all.len(),
            // A character that goes on in the next piece.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => all.len(),
        };
        self.rest = all.split_off(whole);
        let text = shown::page(&String::from_utf8_lossy(&all));
        self.write(text.as_bytes())
    }

    /// Everything is out.
    pub(super) fn finish(mut self) -> Result<(), Trouble> {
        let rest = std::mem::take(&mut self.rest);
        let text = shown::page(&String::from_utf8_lossy(&rest));
        self.write(text.as_bytes())?;
        self.out.flush().map_err(Trouble::output)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.out.write_all(bytes).map_err(Trouble::output)
    }
}
