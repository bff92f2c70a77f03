//! Grows a file system, in memory like every other change.
//!
//! Everything new is after the old end, where nothing refers to it until the superblock does. So
//! bitmaps, descriptor copies and superblock copies of new groups are written like file content,
//! ahead of the commit, and only what the old file system already had goes through the journal: the
//! superblock, descriptor blocks, the resize inode, the last group's bitmap. Copies of superblock and
//! descriptors in old groups follow in a transaction of their own; until then they describe the old
//! file system, which is as good as they ever are.
//!
//! Descriptors of new groups go where the file system has kept room for them (`s_reserved_gdt_blocks`,
//! the resize inode). When that is used up the file system goes on with meta_bg, as the kernel does
//! when it grows a mounted one: no block of a file ever moves. (resize2fs moves inode tables and
//! files instead; its result has a few blocks more or less in use.)
//!
//! Inode tables of new groups are not written where group checksums let them be called unused
//! (INODE_UNINIT), nor are the bitmaps of groups with nothing in them (BLOCK_UNINIT).

mod groups;
mod plan;
mod resize_inode;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::alloc::{base_metadata, extend_group, free_blocks};
use super::journal::{seal, transaction_capacity};
use super::store::Block;
use super::superblock::{STATE_VALID, Superblock, incompat};
use super::units::{FsBlock, GroupNo};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{low16, to_u32, to_u64, to_usize};
use plan::Plan;

/// The result of a growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrowReport {
    /// Blocks of the file system before.
    pub old_blocks: u64,
    /// Blocks of the file system now. It may be a little less than asked for: a last group too small
    /// for its own metadata is left out.
    pub new_blocks: u64,
    /// Block groups that were added.
    pub new_groups: u32,
    /// Free blocks now.
    pub free_blocks: u64,
    /// Whether the room for group descriptors was used up and the file system has the feature
    /// meta_bg now.
    pub became_meta_bg: bool,
}

/// Blocks that the file system has room for on its device, in whole units of 4 KiB as resize2fs
/// counts them.
pub fn device_blocks(vol: &Volume) -> u64 {
    let block_size = to_u64(vol.block_size());
    let unit = (4096 / block_size).max(1);
    let blocks = vol.store.device().len() / block_size;
    blocks - blocks % unit
}

/// Grows the file system to `new_blocks` blocks. The device must have them already. Changes made
/// before are in a transaction before this one, those made after in one after it.
pub fn grow(vol: &mut Volume, new_blocks: u64) -> Result<GrowReport> {
    let old_blocks = vol.sb.blocks_count();
    if new_blocks < old_blocks {
        return Err(Error::Invalid(format!(
            "the file system has {old_blocks} blocks; it can be made larger, not {new_blocks}"
        )));
    }
    let device_blocks = vol.store.device().len() / to_u64(vol.block_size());
    if new_blocks > device_blocks {
        return Err(Error::Invalid(format!(
            "the device has {device_blocks} blocks, the file system cannot have {new_blocks}"
        )));
    }
    vol.check_writable()?;
    let plan = Plan::new(vol, new_blocks)?;
    let mut report = GrowReport {
        old_blocks,
        new_blocks: plan.blocks,
        new_groups: plan.groups - plan.old_groups,
        free_blocks: vol.sb.free_blocks_count(),
        became_meta_bg: plan.becomes_meta_bg(&vol.sb),
    };
    if plan.blocks == old_blocks {
        return Ok(report);
    }
    seal(vol)?;
    vol.attempt(|vol| enlarge(vol, &plan))?;
    seal(vol)?;
    refresh_backups(vol, &plan)?;
    report.free_blocks = vol.sb.free_blocks_count();
    Ok(report)
}

fn enlarge(vol: &mut Volume, plan: &Plan) -> Result<()> {
    // Blocks that the old layout had in the last group and the new one has not (sparse_super2).
    let last = GroupNo::new(plan.old_groups - 1);
    let before = base_metadata(vol, last);
    resize_inode::check(vol)?;
    let resize = resize_inode::Unit::of(vol)?;
    plan.apply(&mut vol.sb);
    vol.store.set_blocks_count(plan.blocks);
    vol.layout_changed();

    let added = groups::add(vol, plan)?;
    vol.sb.raw.s_inodes_count =
        U32::new(plan.groups.saturating_mul(vol.sb.raw.s_inodes_per_group.get()));
    let inodes = vol.sb.raw.s_free_inodes_count.get().saturating_add(added.free_inodes);
    vol.sb.raw.s_free_inodes_count = U32::new(inodes);
    vol.sb.set_free_blocks_count(vol.sb.free_blocks_count().saturating_add(added.free_blocks));

    extend_last_group(vol, plan, last)?;
    let after = base_metadata(vol, last);
    if after.1 < before.1 && last > GroupNo::FIRST {
        free_blocks(vol, after.1, to_u32(before.1 - after.1))?;
    }
    resize.update(vol, plan)?;
    write_new_copies(vol, plan)?;
    vol.layout_changed();
    vol.store_superblock()
}

/// Frees the blocks after the old end of the file system in the group that was its last.
fn extend_last_group(vol: &mut Volume, plan: &Plan, last: GroupNo) -> Result<()> {
    let old_end = FsBlock::new(plan.old_blocks);
    if vol.group_end(last) > old_end {
        extend_group(vol, last, old_end)?;
    }
    Ok(())
}

/// The superblock as group `group` has it.
fn superblock_copy(vol: &Volume, group: GroupNo) -> Block {
    let mut sb = Superblock { raw: vol.sb.raw.clone() };
    sb.raw.s_block_group_nr = U16::new(low16(group.get()));
    sb.raw.s_state = U16::new(sb.raw.s_state.get() & !STATE_VALID);
    sb.set_incompat(incompat::RECOVER, false);
    let mut block = vec![0; vol.block_size()];
    block[..sb.raw.as_bytes().len()].copy_from_slice(&sb.to_bytes());
    block.into()
}

/// Descriptor blocks after each superblock copy: all of them, or with meta_bg the first ones.
fn copied_descriptor_blocks(vol: &Volume) -> u32 {
    let all = vol.sb.group_count().div_ceil(vol.sb.block_size() / vol.sb.desc_size());
    if vol.sb.has_incompat(incompat::META_BG) {
        all.min(vol.sb.raw.s_first_meta_bg.get())
    } else {
        all
    }
}

/// Writes the superblock and descriptor copies of a group.
fn write_copies(vol: &mut Volume, group: GroupNo, fresh: bool) -> Result<()> {
    let per_block = vol.sb.block_size() / vol.sb.desc_size();
    let first = vol.group_first_block(group);
    let copy = superblock_copy(vol, group);
    vol.store.write_shared(first, copy, fresh)?;
    let is_meta = vol.sb.has_incompat(incompat::META_BG)
        && group.get() / per_block >= vol.sb.raw.s_first_meta_bg.get();
    if is_meta {
        return Ok(());
    }
    for index in 0..copied_descriptor_blocks(vol) {
        let (primary, _) = vol.descriptor_position(GroupNo::new(index * per_block));
        let block = vol.store.read(primary)?;
        vol.store.write_shared(first + 1 + u64::from(index), block, fresh)?;
    }
    Ok(())
}

fn write_new_copies(vol: &mut Volume, plan: &Plan) -> Result<()> {
    for group in GroupNo::all(plan.old_groups..plan.groups) {
        if vol.sb.group_has_super(group) {
            write_copies(vol, group, true)?;
        }
    }
    Ok(())
}

/// Brings the copies in old groups up to date, in as many transactions as it takes.
fn refresh_backups(vol: &mut Volume, plan: &Plan) -> Result<()> {
    let capacity = transaction_capacity(vol)?;
    let blocks = to_usize(copied_descriptor_blocks(vol)) + 1;
    for group in GroupNo::all(1..plan.old_groups) {
        if !vol.sb.group_has_super(group) {
            continue;
        }
        if vol.store.pending_meta().saturating_add(blocks) > capacity {
            seal(vol)?;
        }
        vol.attempt(|vol| write_copies(vol, group, false))?;
    }
    seal(vol)
}
