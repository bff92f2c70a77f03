//! A disk that a program writes: it reads the image from its standard input.

use std::io;

use super::Pipes;
use crate::disk::destination::Destination;
use crate::disk::error::TargetError;
use crate::node::cancel::Cancel;

const ZEROS: usize = 1 << 20;

/// The program's input as something that is written in order.
pub struct ProgramDestination {
    pipes: Pipes,
    size: u64,
    position: u64,
}

impl ProgramDestination {
    pub(super) fn new(pipes: Pipes, size: u64) -> Self {
        Self { pipes, size, position: 0 }
    }

    fn error(&self, error: &io::Error) -> TargetError {
        TargetError::Backend { name: self.pipes.name().to_owned(), problem: error.to_string() }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), TargetError> {
        let end = self.position.saturating_add(bytes.len() as u64);
        if end > self.size {
            return Err(self.error(&io::Error::other(format!(
                "was to get more than the {} bytes of the disk",
                self.size
            ))));
        }
        self.pipes.write(bytes).map_err(|error| self.error(&error))?;
        self.position = end;
        Ok(())
    }

    fn zeros_until(&mut self, offset: u64, cancel: &Cancel) -> Result<(), TargetError> {
        if offset < self.position {
            return Err(self.error(&io::Error::other("can only be written in order")));
        }
        let zeros = vec![0; ZEROS.min((offset - self.position) as usize)];
        while self.position < offset {
            cancel.check()?;
            let step = (offset - self.position).min(zeros.len() as u64);
            self.send(&zeros[..step as usize])?;
        }
        Ok(())
    }
}

impl Destination for ProgramDestination {
    fn name(&self) -> String {
        format!("the back-end {}", self.pipes.name())
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn in_order(&self) -> bool {
        true
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        self.zeros_until(offset, &Cancel::new())?;
        self.send(bytes)
    }

    fn zero(&mut self, offset: u64, length: u64, cancel: &Cancel) -> Result<(), TargetError> {
        self.zeros_until(offset.saturating_add(length), cancel)
    }

    /// The program itself takes care of the space after the image: it knows its storage.
    fn zero_tail(&mut self, _from: u64, _cancel: &Cancel) -> Result<(), TargetError> {
        Ok(())
    }

    /// The end of the image: the program has written it when it ends well.
    fn flush(&mut self) -> Result<(), TargetError> {
        self.pipes.finish_well().map_err(|error| self.error(&error))
    }
}
