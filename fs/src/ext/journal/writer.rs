//! Writes blocks and joins neighbours into one device write.

use crate::device::BlockDevice;
use crate::error::Result;

/// Bytes gathered before they are written.
const LIMIT: usize = 1 << 20;

/// Gathers consecutive blocks.
pub(super) struct Writer<'a> {
    device: &'a dyn BlockDevice,
    block_size: usize,
    start: u64,
    buf: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer of blocks of `block_size` bytes.
    pub(super) fn new(device: &'a dyn BlockDevice, block_size: usize) -> Self {
        Self { device, block_size, start: 0, buf: Vec::new() }
    }

    /// Writes a block, now or with its neighbours.
    pub(super) fn write(&mut self, number: u64, content: &[u8]) -> Result<()> {
        let next = self.start + (self.buf.len() / self.block_size) as u64;
        if self.buf.is_empty() {
            self.start = number;
        } else if number != next || self.buf.len() >= LIMIT {
            self.finish()?;
            self.start = number;
        }
        self.buf.extend_from_slice(content);
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn finish(&mut self) -> Result<()> {
        if !self.buf.is_empty() {
            self.device.write_at(self.start * self.block_size as u64, &self.buf)?;
            self.buf.clear();
        }
        Ok(())
    }
}
