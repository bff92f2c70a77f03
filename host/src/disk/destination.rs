//! Destinations of an image: a disk of this node, one behind a storage daemon, or a program.

use std::fs::File;

use crate::disk::error::TargetError;
use crate::node::cancel::Cancel;

/// Something that an image can be written to. Its size never changes.
pub trait Destination {
    /// Its name in messages.
    fn name(&self) -> String;

    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Whether every byte must be written in order, from the first one on: nothing can be
    /// written at a lower place later.
    fn in_order(&self) -> bool {
        false
    }

    /// Writes all of `bytes` at `offset`.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetError>;

    /// Has the file system copy a whole file to `offset`, where it can. False where it
    /// cannot; nothing was written then.
    fn share(
        &mut self,
        _file: &File,
        _offset: u64,
        _size: u64,
        _cancel: &Cancel,
    ) -> Result<bool, TargetError> {
        Ok(false)
    }

    /// Makes `length` bytes from `offset` read as zeros, whatever was there.
    fn zero(&mut self, offset: u64, length: u64, cancel: &Cancel) -> Result<(), TargetError>;

    /// Zeroes the space after the image: all of it where that needs no writing, else as much
    /// as the disk was opened for (WIPE_REST).
    fn zero_tail(&mut self, from: u64, cancel: &Cancel) -> Result<(), TargetError>;

    /// Has everything written go to stable storage; it need not be there when this returns.
    fn begin_flush(&mut self) -> Result<(), TargetError> {
        self.flush()
    }

    /// Returns when everything written is on stable storage.
    fn flush(&mut self) -> Result<(), TargetError>;
}
