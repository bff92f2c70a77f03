//! Reading the blocks of a directory.

use super::entry::{self, Layout, Place};
use crate::error::{Error, Result};
use crate::ext::inode::Inode;
use crate::ext::map::{self, Mapping};
use crate::ext::store::Block;
use crate::ext::units::FsBlock;
use crate::ext::volume::Volume;
use crate::num::{to_u32, to_u64};

/// Number of logical blocks.
pub(super) fn blocks_of(volume: &Volume, dir: &Inode) -> Result<u32> {
    let block_size = to_u64(volume.block_size());
    let size = dir.size();
    let blocks = size / block_size;
    if !size.is_multiple_of(block_size) || blocks == 0 || blocks > u64::from(u32::MAX) {
        return Err(Error::corrupt(
            "directory",
            format!("inode {}", dir.ino),
            format!("i_size is {size}, a multiple of {block_size} from {block_size} expected"),
        ));
    }
    Ok(to_u32(blocks))
}

/// A block of a directory, with no look at what is in it.
pub(super) fn read_raw(volume: &Volume, dir: &Inode, lblk: u32) -> Result<(FsBlock, Block)> {
    match map::map(volume, dir, u64::from(lblk))? {
        Mapping::Data { start, unwritten: false, .. } => Ok((start, volume.read_block(start)?)),
        _ => Err(Place { ino: dir.ino, lblk: Some(lblk) }.corrupt(
            "directory",
            0,
            "there is a hole here",
        )),
    }
}

/// A leaf block, verified.
pub(super) fn read_leaf(volume: &Volume, dir: &Inode, lblk: u32) -> Result<(FsBlock, Block)> {
    let (pblk, block) = read_raw(volume, dir, lblk)?;
    let place = Place { ino: dir.ino, lblk: Some(lblk) };
    let layout = Layout::of(&volume.sb);
    entry::verify_tail(&block, layout, &place, dir.checksum_seed(&volume.sb))?;
    Ok((pblk, block))
}
