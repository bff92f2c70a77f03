//! The resize inode: it owns the blocks reserved for more group descriptors, so that no file gets
//! them. Its double indirect block points to the reserved blocks after the primary descriptors; each
//! of these lists the blocks with the same index after every copy.

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::ext::alloc::free_blocks;
use crate::ext::inode::Inode;
use crate::ext::units::{FsBlock, GroupNo, Ino};
use crate::ext::volume::Volume;
use crate::num::{to_u32, to_u64, to_usize};

/// `EXT4_RESIZE_INO`.
const RESIZE_INO: Ino = Ino::new(7);
/// Byte of the double indirect pointer in `i_block`.
const DOUBLE: usize = 13 * 4;

fn corrupt(detail: String) -> Error {
    Error::corrupt(
        "resize inode",
        format!("inode {RESIZE_INO}"),
        format!("{detail}; run e2fsck -f"),
    )
}

/// Block of the first descriptor block.
fn first_descriptor(vol: &Volume) -> FsBlock {
    vol.superblock_position().0 + 1
}

/// Groups with copies, in the order in which the reserved blocks list them.
fn backups(vol: &Volume) -> Vec<GroupNo> {
    let mut groups: Vec<GroupNo> =
        vol.sb.groups().skip(1).filter(|&group| vol.sb.group_has_super(group)).collect();
    groups.dedup();
    groups
}

fn pointer(block: &[u8], index: usize) -> FsBlock {
    block
        .get(index * 4..index * 4 + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
        .into()
}

/// Looks whether the resize inode is as it must be before anything changes.
pub(super) fn check(vol: &Volume) -> Result<()> {
    if !vol.sb.has_resize_inode() {
        return Ok(());
    }
    let inode = vol.read_inode(RESIZE_INO)?;
    let reserved = u32::from(vol.sb.raw.s_reserved_gdt_blocks.get());
    let double = double(&inode);
    if double.is_none() {
        return if reserved == 0 { Ok(()) } else { Err(corrupt("it has no blocks".to_owned())) };
    }
    let table = vol.store.read(double)?;
    let per_block = vol.block_size() / 4;
    let descriptors = vol.sb.group_count().div_ceil(vol.sb.block_size() / vol.sb.desc_size());
    for index in descriptors..descriptors + reserved {
        let want = first_descriptor(vol) + u64::from(index);
        let found = pointer(&table, to_usize(index) % per_block);
        if found != want {
            return Err(corrupt(format!(
                "reserved descriptor block {index} is block {found}, {want} expected"
            )));
        }
    }
    Ok(())
}

fn double(inode: &Inode) -> FsBlock {
    pointer(&inode.raw.i_block, DOUBLE / 4)
}

/// The amount that one block of the resize inode counts in `i_blocks`. With bigalloc it differs
/// between releases of e2fsprogs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit(Option<u64>);

impl Unit {
    /// Finds it, before the growth.
    pub(super) fn of(vol: &Volume) -> Result<Self> {
        if !vol.sb.has_resize_inode() {
            return Ok(Self(None));
        }
        let inode = vol.read_inode(RESIZE_INO)?;
        if double(&inode).is_none() {
            return Ok(Self(None));
        }
        let found = inode.blocks_512(&vol.sb);
        let count = blocks(vol);
        if found == 0 || found % count != 0 {
            return Err(corrupt(format!("i_blocks is {found}, but it has {count} blocks")));
        }
        Ok(Self(Some(found / count)))
    }

    /// Brings the resize inode in line with the superblock as it is now, or empties it when the
    /// file system has meta_bg instead.
    pub(super) fn update(self, vol: &mut Volume, plan: &Plan) -> Result<()> {
        let Some(unit) = self.0 else { return Ok(()) };
        let mut inode = vol.read_inode(RESIZE_INO)?;
        let table_block = double(&inode);
        if !vol.sb.has_resize_inode() {
            free_blocks(vol, table_block, 1)?;
            inode.raw.i_block.fill(0);
            inode.set_blocks_512(0, &vol.sb)?;
            inode.set_size(0);
            return vol.write_inode(&inode);
        }
        let per_block = vol.block_size() / 4;
        let backups = backups(vol);
        let mut table = vol.store.read(table_block)?.to_vec();
        for index in plan.old_desc_blocks..plan.desc_blocks {
            let at = to_usize(index) % per_block * 4;
            table[at..at + 4].fill(0);
        }
        if *table != *vol.store.read(table_block)? {
            vol.store.write_meta(table_block, table)?;
        }
        let reserved = u32::from(vol.sb.raw.s_reserved_gdt_blocks.get());
        for index in plan.desc_blocks..plan.desc_blocks + reserved {
            let number = first_descriptor(vol) + u64::from(index);
            let mut list = vec![0; vol.block_size()];
            for (slot, &group) in list.chunks_exact_mut(4).zip(&backups) {
                let block =
                    number + u64::from(group) * u64::from(vol.sb.raw.s_blocks_per_group.get());
                // A file system with a resize inode has block numbers of 32 bits there.
                slot.copy_from_slice(&to_u32(block.get()).to_le_bytes());
            }
            if *list != *vol.store.read(number)? {
                vol.store.write_meta(number, list)?;
            }
        }
        inode.set_blocks_512(unit.saturating_mul(blocks(vol)), &vol.sb)?;
        vol.write_inode(&inode)
    }
}

/// Blocks that the resize inode has by the superblock: the double indirect one, and for each
/// reserved block the primary and its copies.
fn blocks(vol: &Volume) -> u64 {
    1 + u64::from(vol.sb.raw.s_reserved_gdt_blocks.get()) * (1 + to_u64(backups(vol).len()))
}
