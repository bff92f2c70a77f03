//! Looking up a file's blocks, and reading its content.

use super::mapping::{MAX_LBLK, Mapping, corrupt};
use super::{extents, indirect};
use crate::error::{Error, Result};
use crate::ext::inline;
use crate::ext::inode::{Inode, flags};
use crate::ext::store::Block;
use crate::ext::units::{FileBlock, FsBlock};
use crate::ext::volume::Volume;
use crate::num::{to_u64, to_usize};

/// Maps logical block `lblk` of a file, directory or long symbolic link.
pub fn map(vol: &Volume, inode: &Inode, lblk: u64) -> Result<Mapping> {
    if inode.has_flag(flags::INLINE_DATA) {
        return Err(Error::Invalid(format!(
            "inode {} keeps its content in itself and has no blocks",
            inode.ino
        )));
    }
    let Some(block) = u32::try_from(lblk).ok().filter(|_| lblk < MAX_LBLK).map(FileBlock::new)
    else {
        return Ok(Mapping::Hole { len: u64::MAX - lblk.min(u64::MAX - 1) });
    };
    if inode.has_flag(flags::EXTENTS) {
        extents::lookup(vol, inode, block)
    } else {
        indirect::lookup(vol, inode, block)
    }
}

/// Reads from `offset`; the count is less than `buf.len()` only at the end of the file. Holes and
/// unwritten blocks read as zeros.
pub fn read(vol: &Volume, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let size = inode.size();
    if offset >= size {
        return Ok(0);
    }
    let count = usize::try_from(size - offset).map_or(buf.len(), |left| left.min(buf.len()));
    let buf = &mut buf[..count];
    if inode.has_flag(flags::INLINE_DATA) {
        let content = inline::content(inode)?;
        buf.fill(0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let part = &content[from..];
        let n = part.len().min(count);
        buf[..n].copy_from_slice(&part[..n]);
        return Ok(count);
    }
    let block_size = to_u64(vol.block_size());
    let mut done = 0;
    while done < count {
        let at = offset + to_u64(done);
        let within = to_usize(at % block_size);
        let left = count - done;
        // Blocks that what is left touches.
        let wanted = (to_u64(within) + to_u64(left)).div_ceil(block_size);
        let (n, source) = match map(vol, inode, at / block_size)? {
            Mapping::Hole { len } => (len.min(wanted), None),
            Mapping::Data { len, unwritten: true, .. } => (len.min(wanted), None),
            Mapping::Data { start, len, unwritten: false } => (len.min(wanted), Some(start)),
        };
        let bytes = (to_usize(n * block_size) - within).min(left);
        let target = &mut buf[done..done + bytes];
        match source {
            None => target.fill(0),
            Some(start) => read_blocks(vol, start, within, target)?,
        }
        done += bytes;
    }
    Ok(count)
}

/// Reads `target.len()` bytes that begin `within` bytes into block `start`: whole blocks straight
/// into place, a short run with ragged ends in one piece through a buffer.
fn read_blocks(vol: &Volume, start: FsBlock, within: usize, target: &mut [u8]) -> Result<()> {
    const SMALL: usize = 64 << 10;
    let block_size = vol.block_size();
    if within == 0 && target.len().is_multiple_of(block_size) {
        return vol.store.read_run(start, target);
    }
    let span = (within + target.len()).next_multiple_of(block_size);
    if span <= SMALL.max(block_size) {
        let mut scratch = vec![0; span];
        vol.store.read_run(start, &mut scratch)?;
        target.copy_from_slice(&scratch[within..within + target.len()]);
        return Ok(());
    }
    let head = if within == 0 { 0 } else { (block_size - within).min(target.len()) };
    let (first, rest) = target.split_at_mut(head);
    let mut block = start;
    if head > 0 {
        let mut scratch = vec![0; block_size];
        vol.store.read_run(block, &mut scratch)?;
        first.copy_from_slice(&scratch[within..within + head]);
        block += 1;
    }
    let whole = rest.len() / block_size * block_size;
    let (middle, tail) = rest.split_at_mut(whole);
    vol.store.read_run(block, middle)?;
    block += to_u64(whole / block_size);
    if !tail.is_empty() {
        let mut scratch = vec![0; block_size];
        vol.store.read_run(block, &mut scratch)?;
        tail.copy_from_slice(&scratch[..tail.len()]);
    }
    Ok(())
}

/// The whole content of a small file, or an error when it has more than `limit` bytes.
pub fn read_all(vol: &Volume, inode: &Inode, limit: usize) -> Result<Vec<u8>> {
    let size =
        usize::try_from(inode.size()).ok().filter(|&size| size <= limit).ok_or_else(|| {
            Error::Invalid(format!(
                "inode {} has {} bytes, more than the {limit} that are read at once",
                inode.ino,
                inode.size()
            ))
        })?;
    let mut content = vec![0; size];
    read(vol, inode, 0, &mut content)?;
    Ok(content)
}

/// Block `lblk` of a directory or another file made of metadata blocks, with its number: through
/// the cache. A hole is an error.
pub fn read_block(vol: &Volume, inode: &Inode, lblk: u64) -> Result<(FsBlock, Block)> {
    match map(vol, inode, lblk)? {
        Mapping::Data { start, unwritten: false, .. } => Ok((start, vol.read_block(start)?)),
        _ => Err(corrupt(
            inode,
            "block map",
            format!("block {lblk} of {} bytes is a hole", inode.size()),
        )),
    }
}
