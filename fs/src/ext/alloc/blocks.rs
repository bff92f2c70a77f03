//! Blocks: finding free ones, taking them, giving them back.

use super::bitmap::{
    clusters_in_group, fill, get, load_blocks, next_clear, next_set, put, store_blocks,
};
use super::layout::is_metadata;
use crate::error::{Error, Result};
use crate::ext::group::GroupDescriptor;
use crate::ext::inode::Inode;
use crate::ext::units::{FsBlock, GroupNo};
use crate::ext::volume::Volume;
use crate::num::to_u32;

/// Groups whose bitmaps are read in search of a run that is long enough, once a shorter one is
/// known. More would read a bitmap for every group of a large, fragmented file system.
const GROUPS_SEARCHED: u32 = 16;

/// A run of clear bits.
#[derive(Clone, Copy)]
struct Run {
    group: GroupNo,
    bit: u32,
    len: u32,
}

/// The first run of at least `want` clear bits in `from..to`, or the longest one there.
fn find_run(bits: &[u8], group: GroupNo, from: u32, to: u32, want: u32) -> Option<Run> {
    let mut best: Option<Run> = None;
    let mut at = from;
    while let Some(bit) = next_clear(bits, at, to) {
        let end = next_set(bits, bit, to.min(bit.saturating_add(want)));
        let len = end - bit;
        if best.is_none_or(|best| len > best.len) {
            best = Some(Run { group, bit, len });
        }
        if len >= want {
            break;
        }
        at = end;
    }
    best
}

/// Looks through the groups from that of `goal` on.
fn search(vol: &Volume, goal: FsBlock, want: u32, use_freed: bool) -> Result<Option<Run>> {
    let groups = vol.sb.group_count();
    let shift = vol.sb.cluster_bits();
    let goal_group = vol.group_of_block(goal).min(GroupNo::new(groups - 1));
    let goal_bit = (goal.get().saturating_sub(vol.group_first_block(goal_group).get()) >> shift)
        .min(u64::from(u32::MAX));
    let mut best: Option<Run> = None;
    let mut searched = 0;
    for step in 0..groups {
        let group = goal_group.around(step, groups);
        let mut descriptor = vol.group(group)?;
        if descriptor.free_blocks_count() == 0 {
            continue;
        }
        let mut bits = load_blocks(vol, group, &mut descriptor)?;
        let count = clusters_in_group(vol, group);
        if !use_freed {
            let first = vol.group_first_block(group);
            let end = vol.group_end(group);
            for run in vol.store.freed_in(first..end) {
                let from = to_u32((run.start - first) >> shift);
                let to = to_u32((run.end - first).div_ceil(1 << shift));
                fill(&mut bits, from, to);
            }
        }
        let start = if step == 0 { to_u32(goal_bit).min(count) } else { 0 };
        let mut found = find_run(&bits, group, start, count, want);
        if start > 0 && found.is_none_or(|run| run.len < want) {
            let before = find_run(&bits, group, 0, start, want);
            if before.map(|run| run.len) > found.map(|run| run.len) {
                found = before;
            }
        }
        if let Some(run) = found {
            if run.len >= want {
                return Ok(found);
            }
            if best.is_none_or(|best| run.len > best.len) {
                best = found;
            }
        }
        searched += 1;
        if best.is_some() && searched >= GROUPS_SEARCHED {
            break;
        }
    }
    Ok(best)
}

fn take(vol: &mut Volume, run: Run) -> Result<()> {
    let mut descriptor = vol.group(run.group)?;
    let mut bits = load_blocks(vol, run.group, &mut descriptor)?;
    fill(&mut bits, run.bit, run.bit + run.len);
    let left = descriptor.free_blocks_count().saturating_sub(run.len);
    descriptor.set_free_blocks_count(left);
    let blocks = u64::from(run.len) << vol.sb.cluster_bits();
    let free = vol.sb.free_blocks_count().checked_sub(blocks).ok_or_else(|| {
        Error::corrupt(
            "superblock",
            "byte 1024",
            format!(
                "s_free_blocks_count is {}, but group {} has free blocks; run e2fsck first",
                vol.sb.free_blocks_count(),
                run.group
            ),
        )
    })?;
    vol.sb.set_free_blocks_count(free);
    store_blocks(vol, run.group, &mut descriptor, bits)
}

/// Takes a run of at least one and at most `want` free blocks, as near to and after `goal` as one
/// is: first block and length. Blocks that the open transaction freed are taken only when there are
/// no others, because what is written there must go through the journal.
pub fn alloc_blocks(vol: &mut Volume, goal: FsBlock, want: u32) -> Result<(FsBlock, u32)> {
    let shift = vol.sb.cluster_bits();
    // No run crosses a group's end, and no extent is longer than a group of 32,768 blocks.
    let want = want.clamp(1, 1 << 15);
    let clusters = want.div_ceil(1 << shift);
    let run = match search(vol, goal, clusters, false)? {
        Some(run) => run,
        None => search(vol, goal, clusters, true)?.ok_or_else(|| {
            Error::NoSpace(format!("all {} blocks are in use", vol.sb.blocks_count()))
        })?,
    };
    take(vol, run)?;
    let start = vol.group_first_block(run.group) + (u64::from(run.bit) << shift);
    let len = (u64::from(run.len) << shift).min(u64::from(want));
    // The last cluster of the file system may be cut short.
    let len = len.min(FsBlock::new(vol.sb.blocks_count()) - start);
    Ok((start, to_u32(len)))
}

/// Gives `len` blocks from `start` back (with bigalloc: all clusters that they touch). They must be
/// in use and must not be the file system's own.
pub fn free_blocks(vol: &mut Volume, start: FsBlock, len: u32) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    let refused =
        |detail: String| Error::corrupt("block pointer", format!("block {start}"), detail);
    let first = FsBlock::from(vol.sb.raw.s_first_data_block.get());
    let last = FsBlock::new(vol.sb.blocks_count());
    let end = start.checked_add(u64::from(len)).filter(|&end| end <= last);
    let Some(end) = end.filter(|_| start >= first) else {
        return Err(refused(format!(
            "{len} blocks to be freed there are not all among the file system's {}",
            vol.sb.blocks_count()
        )));
    };
    if is_metadata(vol, start, u64::from(len))? {
        return Err(refused(format!(
            "{len} blocks to be freed there include the file system's own metadata"
        )));
    }
    let shift = vol.sb.cluster_bits();
    let mut at = start;
    while at < end {
        let group = vol.group_of_block(at);
        let group_first = vol.group_first_block(group);
        let group_end = vol.group_end(group);
        let stop = end.min(group_end);
        let from = to_u32((at - group_first) >> shift);
        let to = to_u32((stop - group_first).div_ceil(1 << shift));
        let mut descriptor = vol.group(group)?;
        let mut bits = load_blocks(vol, group, &mut descriptor)?;
        for bit in from..to {
            if !get(&bits, bit) {
                return Err(refused(format!(
                    "block {} is to be freed, but the block bitmap says it is free",
                    group_first + (u64::from(bit) << shift)
                )));
            }
            put(&mut bits, bit, false);
        }
        give_back(vol, group, &mut descriptor, bits, to - from)?;
        let blocks = group_first + (u64::from(from) << shift)
            ..(group_first + (u64::from(to) << shift)).min(group_end);
        vol.store.forget(blocks);
        at = stop;
    }
    Ok(())
}

/// Makes the blocks of `group` from `start` to its end free: they were after the end of the file
/// system, and their bits were set for that reason.
pub(in crate::ext) fn extend_group(vol: &mut Volume, group: GroupNo, start: FsBlock) -> Result<()> {
    let first = vol.group_first_block(group);
    let from = to_u32(start.get().saturating_sub(first.get()) >> vol.sb.cluster_bits());
    let to = clusters_in_group(vol, group);
    let mut descriptor = vol.group(group)?;
    let mut bits = load_blocks(vol, group, &mut descriptor)?;
    for bit in from..to {
        if !get(&bits, bit) {
            return Err(Error::corrupt(
                "block bitmap",
                format!("block {} (group {group})", descriptor.block_bitmap()),
                "a bit after the end of the file system is clear; run e2fsck first",
            ));
        }
        put(&mut bits, bit, false);
    }
    give_back(vol, group, &mut descriptor, bits, to.saturating_sub(from))
}

fn give_back(
    vol: &mut Volume,
    group: GroupNo,
    descriptor: &mut GroupDescriptor,
    bits: Vec<u8>,
    clusters: u32,
) -> Result<()> {
    descriptor.set_free_blocks_count(descriptor.free_blocks_count().saturating_add(clusters));
    let blocks = u64::from(clusters) << vol.sb.cluster_bits();
    vol.sb.set_free_blocks_count(vol.sb.free_blocks_count().saturating_add(blocks));
    store_blocks(vol, group, descriptor, bits)
}

/// Takes one block of metadata for `inode` (an xattr block, a node of its block map) near `goal`,
/// or near the inode when `goal` is 0, and counts it in `i_blocks`: a whole cluster with bigalloc.
pub fn alloc_meta_block(vol: &mut Volume, inode: &mut Inode, goal: FsBlock) -> Result<FsBlock> {
    let goal =
        if goal.is_none() { vol.group_first_block(vol.inode_group(inode.ino)?.0) } else { goal };
    let mut counted = inode.clone();
    counted.add_blocks(1 << vol.sb.cluster_bits(), &vol.sb)?;
    let (block, _) = alloc_blocks(vol, goal, 1)?;
    *inode = counted;
    Ok(block)
}

/// Gives back a block that [`alloc_meta_block`] took.
pub fn free_meta_block(vol: &mut Volume, inode: &mut Inode, block: FsBlock) -> Result<()> {
    let mut counted = inode.clone();
    counted.add_blocks(-(1 << vol.sb.cluster_bits()), &vol.sb)?;
    free_blocks(vol, block, 1)?;
    *inode = counted;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_fit_then_longest() {
        let mut bits = vec![0xFFu8; 8];
        for bit in [3, 4, 10, 11, 12, 40, 41] {
            put(&mut bits, bit, false);
        }
        let found =
            |want| find_run(&bits, GroupNo::FIRST, 0, 64, want).map(|run| (run.bit, run.len));
        assert_eq!(found(1), Some((3, 1)));
        assert_eq!(found(3), Some((10, 3)));
        assert_eq!(found(9), Some((10, 3)));
        assert!(find_run(&bits, GroupNo::FIRST, 13, 40, 1).is_none());
    }
}
