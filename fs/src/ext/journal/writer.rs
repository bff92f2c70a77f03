//! Writes blocks and joins neighbours into one device write; reads the superblock that is on the
//! device.

use zerocopy::FromBytes;

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ext::superblock::{RawSuperblock, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock};
use crate::ext::units::FsBlock;

/// Bytes gathered before they are written.
const LIMIT: usize = 1 << 20;

/// Gathers consecutive blocks.
pub(super) struct Writer<'a> {
    device: &'a dyn BlockDevice,
    block_size: usize,
    start: FsBlock,
    buf: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer of blocks of `block_size` bytes.
    pub(super) fn new(device: &'a dyn BlockDevice, block_size: usize) -> Self {
        Self { device, block_size, start: FsBlock::default(), buf: Vec::new() }
    }

    /// Writes a block, now or with its neighbours.
    pub(super) fn write(&mut self, number: FsBlock, content: &[u8]) -> Result<()> {
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

    /// Writes the blocks that are still held.
    pub(super) fn finish(&mut self) -> Result<()> {
        if !self.buf.is_empty() {
            self.device.write_at(self.start.byte(self.block_size), &self.buf)?;
            self.buf.clear();
        }
        Ok(())
    }
}

/// Fills runs of blocks with zeros. Parts that read as zeros already are not written, so that a
/// sparse image stays sparse.
pub(super) fn zero(
    device: &dyn BlockDevice,
    block_size: usize,
    runs: &[(FsBlock, u64)],
) -> Result<()> {
    let mut buf = vec![0; LIMIT];
    let zeros = vec![0; LIMIT];
    for &(start, len) in runs {
        let mut at = start.byte(block_size);
        let mut left = len * block_size as u64;
        while left > 0 {
            let count = left.min(LIMIT as u64) as usize;
            device.read_at(at, &mut buf[..count])?;
            if buf[..count] != zeros[..count] {
                device.write_at(at, &zeros[..count])?;
            }
            at += count as u64;
            left -= count as u64;
        }
    }
    Ok(())
}

/// The superblock that is on the device now.
pub(super) fn read_superblock(device: &dyn BlockDevice) -> Result<Superblock> {
    let mut bytes = vec![0; SUPERBLOCK_SIZE];
    device.read_at(SUPERBLOCK_OFFSET, &mut bytes)?;
    let raw = RawSuperblock::read_from_bytes(&bytes)
        .map_err(|_| Error::corrupt("superblock", "byte 1024", "it is too short"))?;
    Ok(Superblock { raw })
}
