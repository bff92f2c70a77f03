//! The places of the file system's own blocks: superblock copies, group descriptors, bitmaps and inode
//! tables.

use crate::error::{Error, Result};
use crate::ext::superblock::{SUPERBLOCK_OFFSET, incompat};
use crate::ext::units::{FsBlock, GroupNo};
use crate::ext::volume::{Volume, Zones};
use crate::num::to_u32;

/// Superblock copy, group descriptors (or their copy) and the blocks reserved for more of them at
/// the start of `group`: first block and one past the last.
pub fn base_metadata(vol: &Volume, group: GroupNo) -> (FsBlock, FsBlock) {
    let sb = &vol.sb;
    let first = vol.group_first_block(group);
    let has_super = sb.group_has_super(group);
    let mut blocks = u64::from(has_super);
    // With 1 KiB blocks and no first data block (bigalloc), block 0 is the boot block and the
    // superblock follows it.
    if first.is_none() && u64::from(sb.block_size()) == SUPERBLOCK_OFFSET {
        blocks += 1;
    }
    let per_block = sb.block_size() / sb.desc_size();
    let descriptor_blocks = u64::from(sb.group_count().div_ceil(per_block));
    let meta_bg = sb.has_incompat(incompat::META_BG);
    if !meta_bg || group.get() / per_block < sb.raw.s_first_meta_bg.get() {
        if has_super {
            blocks += if meta_bg {
                u64::from(sb.raw.s_first_meta_bg.get())
            } else {
                descriptor_blocks + u64::from(sb.raw.s_reserved_gdt_blocks.get())
            };
        }
    } else {
        let index = group.get() % per_block;
        blocks += u64::from(index == 0 || index == 1 || index == per_block - 1);
    }
    (first, first.saturating_add(blocks).min(FsBlock::new(vol.sb.blocks_count())))
}

/// Bitmaps and inode tables of all groups of the flex group that `group` is in, as sorted pairs of
/// first block and one past the last. Without flex_bg, those of the group alone.
fn zones(vol: &Volume, group: GroupNo) -> Result<Zones> {
    let log = if vol.sb.has_incompat(incompat::FLEX_BG) {
        u32::from(vol.sb.raw.s_log_groups_per_flex)
    } else {
        0
    };
    let flex = group.get() >> log;
    if let Some(known) = vol.zones.borrow().get(&flex) {
        return Ok(known.clone());
    }
    let first = u64::from(flex) << log;
    let end = (first + (1u64 << log)).min(u64::from(vol.sb.group_count()));
    let table = vol.inode_table_blocks();
    let mut list = Vec::new();
    let (first, end) = (to_u32(first), to_u32(end));
    for member in GroupNo::all(first..end) {
        let descriptor = vol.group(member)?;
        for (start, len) in [
            (descriptor.block_bitmap(), 1),
            (descriptor.inode_bitmap(), 1),
            (descriptor.inode_table(), table),
        ] {
            list.push((start, start.saturating_add(len)));
        }
    }
    list.sort_unstable();
    list.dedup_by(|next, last| {
        let joins = next.0 <= last.1;
        if joins {
            last.1 = last.1.max(next.1);
        }
        joins
    });
    let list: Zones = list.into();
    vol.zones.borrow_mut().insert(flex, list.clone());
    Ok(list)
}

/// The file system's own blocks in `group`, as pairs of first block and one past the last, clipped
/// to the group.
pub(super) fn metadata_of_group(vol: &Volume, group: GroupNo) -> Result<Vec<(FsBlock, FsBlock)>> {
    let start = vol.group_first_block(group);
    let end = vol.group_end(group);
    let mut out = Vec::new();
    let mut add = |from: FsBlock, to: FsBlock| {
        let (from, to) = (from.max(start), to.min(end));
        if from < to {
            out.push((from, to));
        }
    };
    let (from, to) = base_metadata(vol, group);
    add(from, to);
    let zones = zones(vol, group)?;
    let at = zones.partition_point(|zone| zone.1 <= start);
    for &(from, to) in zones[at..].iter().take_while(|zone| zone.0 < end) {
        add(from, to);
    }
    if vol.sb.has_incompat(incompat::MMP) {
        let block = FsBlock::new(vol.sb.raw.s_mmp_block.get());
        add(block, block.saturating_add(1));
    }
    Ok(out)
}

/// Whether any of `len` blocks from `start` belongs to the file system itself.
pub fn is_metadata(vol: &Volume, start: FsBlock, len: u64) -> Result<bool> {
    let end = start.saturating_add(len);
    let last = vol.group_of_block(start.saturating_add(len.saturating_sub(1))).get();
    let end_group = last.saturating_add(1).min(vol.sb.group_count());
    for group in GroupNo::all(vol.group_of_block(start).get()..end_group) {
        if metadata_of_group(vol, group)?.iter().any(|&(from, to)| from < end && start < to) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses to change a block in place, as a file's own, that is the file system's.
pub fn check_own(vol: &Volume, block: FsBlock) -> Result<()> {
    if is_metadata(vol, block, 1)? {
        return Err(Error::corrupt(
            "block pointer",
            format!("block {block}"),
            "a file names it as its own, but it is the file system's own metadata",
        ));
    }
    Ok(())
}
