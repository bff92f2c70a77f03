//! Block maps of ext2 and ext3: twelve blocks named in the inode, then one, two and three levels of
//! blocks that name others.

use super::mapping::{MAX_LBLK, Mapping, corrupt};
use super::release::Release;
use crate::error::{Error, Result};
use crate::ext::alloc::{alloc_meta_block, check_own, free_meta_block};
use crate::ext::inode::Inode;
use crate::ext::units::{FileBlock, FsBlock};
use crate::ext::volume::Volume;
use crate::num::{to_u32, to_u64, to_usize};

/// Blocks named in the inode itself.
const DIRECT: u64 = 12;

/// A tree of the map: entry of `i_block`, levels of indirection, first logical block, and blocks
/// that one entry of its top stands for.
#[derive(Clone, Copy)]
struct Tree {
    slot: usize,
    level: u32,
    first: u64,
    span: u64,
}

/// Pointers in a block.
fn per_block(vol: &Volume) -> u64 {
    to_u64(vol.block_size()) / 4
}

/// Blocks below a pointer at `level` (0: the block itself).
fn span(vol: &Volume, level: u32) -> u64 {
    per_block(vol).saturating_pow(level)
}

/// The three trees after the direct blocks.
fn trees(vol: &Volume) -> [Tree; 3] {
    let mut first = DIRECT;
    [1, 2, 3].map(|level| {
        let span = span(vol, level);
        let tree = Tree { slot: 11 + to_usize(level), level, first, span };
        first = first.saturating_add(span);
        tree
    })
}

/// Blocks that a block map can have.
pub(super) fn limit(vol: &Volume) -> u64 {
    let [_, _, last] = trees(vol);
    last.first.saturating_add(last.span).min(MAX_LBLK)
}

fn pointer(bytes: &[u8], index: usize) -> FsBlock {
    let mut word = [0; 4];
    if let Some(found) = bytes.get(index * 4..index * 4 + 4) {
        word.copy_from_slice(found);
    }
    FsBlock::from(u32::from_le_bytes(word))
}

fn set_pointer(bytes: &mut [u8], index: usize, block: FsBlock) {
    if let Some(word) = bytes.get_mut(index * 4..index * 4 + 4) {
        // Callers keep to block numbers of 32 bits.
        word.copy_from_slice(&to_u32(block.get()).to_le_bytes());
    }
}

fn check(vol: &Volume, inode: &Inode, block: FsBlock) -> Result<FsBlock> {
    let first = FsBlock::from(vol.sb.raw.s_first_data_block.get());
    if block > first && block.get() < vol.sb.blocks_count() {
        return Ok(block);
    }
    let blocks = vol.sb.blocks_count();
    Err(corrupt(inode, "block map", format!("it names block {block} of {blocks}")))
}

/// The run of pointers from `index` on, up to `count` of them, that continue each other or are all
/// holes.
fn run(vol: &Volume, inode: &Inode, bytes: &[u8], index: usize, count: usize) -> Result<Mapping> {
    let start = pointer(bytes, index);
    let mut len = 1;
    if start.is_none() {
        while index + len < count && pointer(bytes, index + len).is_none() {
            len += 1;
        }
        return Ok(Mapping::Hole { len: to_u64(len) });
    }
    while index + len < count && pointer(bytes, index + len) == start + to_u64(len) {
        len += 1;
    }
    check(vol, inode, start)?;
    check(vol, inode, start + to_u64(len) - 1)?;
    Ok(Mapping::Data { start, len: to_u64(len), unwritten: false })
}

/// Maps block `lblk`.
pub(super) fn lookup(vol: &Volume, inode: &Inode, lblk: FileBlock) -> Result<Mapping> {
    let lblk = u64::from(lblk);
    if lblk < DIRECT {
        return run(vol, inode, &inode.raw.i_block, to_usize(lblk), to_usize(DIRECT));
    }
    for tree in trees(vol) {
        if lblk >= tree.first + tree.span {
            continue;
        }
        let mut offset = lblk - tree.first;
        let mut block = pointer(&inode.raw.i_block, tree.slot);
        for level in (0..tree.level).rev() {
            let below = span(vol, level);
            if block.is_none() {
                return Ok(Mapping::Hole { len: below * per_block(vol) - offset });
            }
            let bytes = vol.read_block(check(vol, inode, block)?)?;
            let index = to_usize(offset / below);
            offset %= below;
            if level == 0 {
                return run(vol, inode, &bytes, index, to_usize(per_block(vol)));
            }
            block = pointer(&bytes, index);
        }
    }
    Ok(Mapping::Hole { len: MAX_LBLK - lblk.min(MAX_LBLK - 1) })
}

/// Names `len` blocks from `start` as logical blocks `lblk` and on, all of them holes before.
pub(super) fn push(
    vol: &mut Volume,
    inode: &mut Inode,
    lblk: FileBlock,
    start: FsBlock,
    len: u32,
) -> Result<()> {
    let (mut lblk, mut start) = (u64::from(lblk), start);
    let end = lblk + u64::from(len);
    if end > limit(vol) || start.get() + u64::from(len) > 1 << 32 {
        return Err(Error::NoSpace(format!(
            "inode {} would be larger than its block map can say",
            inode.ino
        )));
    }
    while lblk < end && lblk < DIRECT {
        set_pointer(&mut inode.raw.i_block, to_usize(lblk), start);
        lblk += 1;
        start += 1;
    }
    for tree in trees(vol) {
        let stop = end.min(tree.first + tree.span);
        if lblk >= stop {
            continue;
        }
        let count = stop - lblk;
        let old = pointer(&inode.raw.i_block, tree.slot);
        let block = put(vol, inode, old, tree.level, lblk - tree.first, start, count)?;
        set_pointer(&mut inode.raw.i_block, tree.slot, block);
        lblk += count;
        start += count;
    }
    Ok(())
}

/// Names blocks below an indirect block of `level`, which is made when `block` is 0; its number.
fn put(
    vol: &mut Volume,
    inode: &mut Inode,
    block: FsBlock,
    level: u32,
    offset: u64,
    start: FsBlock,
    count: u64,
) -> Result<FsBlock> {
    let (block, mut bytes) = if block.is_none() {
        (alloc_meta_block(vol, inode, start)?, vec![0; vol.block_size()])
    } else {
        (check(vol, inode, block)?, vol.read_block(block)?.to_vec())
    };
    let below = span(vol, level - 1);
    let mut done = 0;
    while done < count {
        let index = to_usize((offset + done) / below);
        let within = (offset + done) % below;
        let part = (below - within).min(count - done);
        let value = if level == 1 {
            start + done
        } else {
            let old = pointer(&bytes, index);
            put(vol, inode, old, level - 1, within, start + done, part)?
        };
        set_pointer(&mut bytes, index, value);
        done += part;
    }
    check_own(vol, block)?;
    vol.store.write_meta(block, bytes)?;
    Ok(block)
}

/// Unmaps and frees everything from block `from` on.
pub(super) fn cut(
    vol: &mut Volume,
    inode: &mut Inode,
    from: FileBlock,
    release: &mut Release,
) -> Result<()> {
    let from = u64::from(from);
    for tree in trees(vol).into_iter().rev() {
        let block = pointer(&inode.raw.i_block, tree.slot);
        if block.is_none() || from >= tree.first + tree.span {
            continue;
        }
        let keep = from.saturating_sub(tree.first);
        if !cut_block(vol, inode, block, tree.level, keep, release)? {
            set_pointer(&mut inode.raw.i_block, tree.slot, FsBlock::default());
        }
    }
    for index in (to_usize(from.min(DIRECT))..to_usize(DIRECT)).rev() {
        let block = pointer(&inode.raw.i_block, index);
        if !block.is_none() {
            // One of the twelve.
            release.add(vol, inode, FileBlock::new(to_u32(index)), check(vol, inode, block)?, 1)?;
            set_pointer(&mut inode.raw.i_block, index, FsBlock::default());
        }
    }
    Ok(())
}

/// Frees the blocks below an indirect block from `keep` on; the block goes too when nothing is left.
/// Returns whether it stayed.
///
/// A hostile map may name one block a million times: the second time it is freed, the bitmap
/// already has it as free, and that ends the walk.
fn cut_block(
    vol: &mut Volume,
    inode: &mut Inode,
    block: FsBlock,
    level: u32,
    keep: u64,
    release: &mut Release,
) -> Result<bool> {
    let mut bytes = vol.read_block(check(vol, inode, block)?)?.to_vec();
    let below = span(vol, level - 1);
    let mut changed = false;
    for index in (to_usize(keep / below)..to_usize(per_block(vol))).rev() {
        let child = pointer(&bytes, index);
        if child.is_none() {
            continue;
        }
        let keep_below = keep.saturating_sub(to_u64(index) * below);
        let stays = if level == 1 {
            release.add(vol, inode, FileBlock::default(), check(vol, inode, child)?, 1)?;
            false
        } else {
            cut_block(vol, inode, child, level - 1, keep_below, release)?
        };
        if !stays {
            set_pointer(&mut bytes, index, FsBlock::default());
            changed = true;
        }
    }
    if bytes.iter().all(|&byte| byte == 0) {
        free_meta_block(vol, inode, block)?;
        return Ok(false);
    }
    if changed {
        check_own(vol, block)?;
        vol.store.write_meta(block, bytes)?;
    }
    Ok(true)
}
