//! Writes blocks and joins neighbours into one device write; reads the superblock that is on the
//! device.

use zerocopy::FromBytes;

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ext::superblock::{RawSuperblock, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock};
use crate::ext::units::FsBlock;
use crate::num::{to_u64, to_usize};

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
        let next = self.start + to_u64(self.buf.len() / self.block_size);
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
        let mut left = len * to_u64(block_size);
        while left > 0 {
            let count = to_usize(left.min(to_u64(LIMIT)));
            device.read_at(at, &mut buf[..count])?;
            if buf[..count] != zeros[..count] {
                device.write_at(at, &zeros[..count])?;
            }
            at += to_u64(count);
            left -= to_u64(count);
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
