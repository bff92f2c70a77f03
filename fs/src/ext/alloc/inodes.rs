//! Inodes: finding a free one, taking it, giving it back.

use zerocopy::little_endian::U32;

use super::bitmap::{get, load_blocks, load_inodes, next_clear, put, store_blocks, store_inodes};
use crate::error::{Error, Result};
use crate::ext::group::{BG_BLOCK_UNINIT, BG_INODE_ZEROED};
use crate::ext::units::{GroupNo, Ino};
use crate::ext::volume::Volume;
use crate::num::to_u32;

/// Takes a free inode, in `parent_group` if it has one, else in the nearest group after it. The
/// inode table is not touched, except for a block that was never zeroed: the caller writes the whole
/// inode.
pub fn alloc_inode(vol: &mut Volume, parent_group: GroupNo, is_dir: bool) -> Result<Ino> {
    let groups = vol.sb.group_count();
    let per_group = vol.sb.raw.s_inodes_per_group.get();
    let reserved = vol.sb.first_ino().get() - 1;
    for step in 0..groups {
        let group = parent_group.around(step, groups);
        let mut descriptor = vol.group(group)?;
        if descriptor.free_inodes_count() == 0 {
            continue;
        }
        let mut bits = load_inodes(vol, group, &mut descriptor)?;
        let from = u64::from(reserved).saturating_sub(u64::from(group) * u64::from(per_group));
        let from = to_u32(from.min(u64::from(per_group)));
        let Some(index) = next_clear(&bits, from, per_group) else { continue };
        let table = descriptor.inode_table();
        if vol.sb.has_group_csum() {
            if descriptor.has_flag(BG_BLOCK_UNINIT) {
                // A group with inodes in use has a block bitmap, as the kernel keeps it.
                let blocks = load_blocks(vol, group, &mut descriptor)?;
                store_blocks(vol, group, &mut descriptor, blocks)?;
            }
            let used = per_group - descriptor.itable_unused();
            if index >= used {
                // `load_inodes` saw that all bits from `used` on are clear, so this is the first.
                let inodes_per_block = vol.sb.block_size() / vol.sb.inode_size();
                if !descriptor.has_flag(BG_INODE_ZEROED) && index % inodes_per_block == 0 {
                    let block = table + u64::from(index / inodes_per_block);
                    vol.store.write_meta(block, vec![0; vol.block_size()])?;
                }
                descriptor.set_itable_unused(per_group - index - 1);
            }
        }
        put(&mut bits, index, true);
        descriptor.set_free_inodes_count(descriptor.free_inodes_count().saturating_sub(1));
        if is_dir {
            descriptor.set_used_dirs_count(descriptor.used_dirs_count().saturating_add(1));
        }
        let free = vol.sb.raw.s_free_inodes_count.get().checked_sub(1).ok_or_else(|| {
            Error::corrupt(
                "superblock",
                "byte 1024",
                format!("s_free_inodes_count is 0, but group {group} has free inodes; run e2fsck"),
            )
        })?;
        vol.sb.raw.s_free_inodes_count = U32::new(free);
        store_inodes(vol, group, &mut descriptor, bits)?;
        return Ok(Ino::new(group.get() * per_group + index + 1));
    }
    Err(Error::NoSpace(format!("all {} inodes are in use", vol.sb.raw.s_inodes_count)))
}

/// Gives an inode back. The caller has written it with no links and a deletion time.
pub fn free_inode(vol: &mut Volume, ino: Ino, is_dir: bool) -> Result<()> {
    let (group, index) = vol.inode_group(ino)?;
    let refused = |detail: &str| Error::corrupt("inode", format!("inode {ino}"), detail);
    if ino < vol.sb.first_ino() {
        return Err(refused("it is reserved and cannot be freed"));
    }
    let mut descriptor = vol.group(group)?;
    let mut bits = load_inodes(vol, group, &mut descriptor)?;
    if !get(&bits, index) {
        return Err(refused("it is to be freed, but the inode bitmap says it is free"));
    }
    put(&mut bits, index, false);
    descriptor.set_free_inodes_count(descriptor.free_inodes_count().saturating_add(1));
    if is_dir {
        let dirs = descriptor.used_dirs_count().checked_sub(1);
        let dirs = dirs.ok_or_else(|| refused("its group has a bg_used_dirs_count of 0"))?;
        descriptor.set_used_dirs_count(dirs);
    }
    let free = vol.sb.raw.s_free_inodes_count.get().saturating_add(1);
    vol.sb.raw.s_free_inodes_count = U32::new(free);
    store_inodes(vol, group, &mut descriptor, bits)
}
