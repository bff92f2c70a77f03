//! How large the file system becomes, and where the descriptors of its new groups go.

use zerocopy::little_endian::{U16, U32};

use crate::error::{Error, Result};
use crate::ext::superblock::{Superblock, compat, incompat};
use crate::ext::units::GroupNo;
use crate::ext::volume::Volume;
use crate::num::{to_u16, to_u32};

/// Blocks beyond its own metadata that a last group must have to be worth it, as resize2fs and the
/// kernel see it.
const MIN_USEFUL_BLOCKS: u64 = 50;

/// The geometry after the growth.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) old_blocks: u64,
    pub(super) old_groups: u32,
    /// Descriptor blocks before.
    pub(super) old_desc_blocks: u32,
    pub(super) blocks: u64,
    pub(super) groups: u32,
    /// Descriptor blocks after.
    pub(super) desc_blocks: u32,
    /// `s_reserved_gdt_blocks` after.
    pub(super) reserved: u16,
    /// `s_first_meta_bg` when the file system has (or gets) meta_bg.
    pub(super) first_meta_bg: Option<u32>,
    /// `s_backup_bgs` after.
    pub(super) backup_bgs: [u32; 2],
}

impl Plan {
    /// Plans the growth to at most `wanted` blocks.
    pub(super) fn new(vol: &Volume, wanted: u64) -> Result<Self> {
        let sb = &vol.sb;
        let cluster = 1u64 << sb.cluster_bits();
        let old_blocks = sb.blocks_count();
        let old_groups = sb.group_count();
        let per_block = sb.block_size() / sb.desc_size();
        let old_desc_blocks = old_groups.div_ceil(per_block);
        let reserved = u32::from(sb.raw.s_reserved_gdt_blocks.get());
        if !old_blocks.is_multiple_of(cluster) {
            return Err(Error::unsupported(
                "growing a bigalloc file system that ends within a cluster",
                "make it a whole number of clusters with resize2fs first",
            ));
        }
        if reserved > 0 && !sb.has_resize_inode() {
            return Err(Error::corrupt(
                "superblock",
                "byte 1024",
                format!("s_reserved_gdt_blocks is {reserved} without the feature resize_inode"),
            ));
        }
        let (blocks, groups) = size(vol, wanted - wanted % cluster)?;
        let mut plan = Self {
            old_blocks,
            old_groups,
            old_desc_blocks,
            blocks: blocks.max(old_blocks),
            groups: if blocks > old_blocks { groups } else { old_groups },
            desc_blocks: old_desc_blocks,
            reserved: to_u16(reserved),
            first_meta_bg: None,
            backup_bgs: backup_bgs(sb, if blocks > old_blocks { groups } else { old_groups }),
        };
        plan.desc_blocks = plan.groups.div_ceil(per_block);
        let more = plan.desc_blocks - old_desc_blocks;
        if sb.has_incompat(incompat::META_BG) {
            plan.first_meta_bg = Some(sb.raw.s_first_meta_bg.get());
        } else if more <= reserved {
            plan.reserved = to_u16(reserved - more);
        } else if sb.raw.s_rev_level.get() == 0 {
            return Err(Error::unsupported(
                "growing a revision 0 file system by this much",
                "convert it first (tune2fs -O sparse_super raises the revision)",
            ));
        } else {
            plan.first_meta_bg = Some(old_desc_blocks + reserved);
            plan.reserved = 0;
        }
        Ok(plan)
    }

    /// Whether the file system gets meta_bg by this.
    pub(super) fn becomes_meta_bg(&self, sb: &Superblock) -> bool {
        self.first_meta_bg.is_some() && !sb.has_incompat(incompat::META_BG)
    }

    /// Changes everything in the superblock but the counters that follow from the new groups.
    pub(super) fn apply(&self, sb: &mut Superblock) {
        let ratio = u128::from(sb.r_blocks_count()) * u128::from(self.blocks);
        let reserved =
            u64::try_from(ratio / u128::from(self.old_blocks.max(1))).unwrap_or(u64::MAX);
        sb.set_blocks_count(self.blocks);
        sb.set_r_blocks_count(reserved);
        sb.raw.s_reserved_gdt_blocks = U16::new(self.reserved);
        if let Some(first) = self.first_meta_bg
            && !sb.has_incompat(incompat::META_BG)
        {
            sb.set_incompat(incompat::META_BG, true);
            sb.raw.s_first_meta_bg = U32::new(first);
            sb.set_compat(compat::RESIZE_INODE, false);
        }
        if sb.has_compat(compat::SPARSE_SUPER2) {
            sb.raw.s_backup_bgs = self.backup_bgs.map(U32::new);
        }
        // Computed afresh at the next mount.
        sb.raw.s_overhead_clusters = U32::new(0);
    }
}

/// Blocks and groups of a file system of `wanted` blocks, with a last group that has room for its own
/// metadata: the same as resize2fs comes to.
fn size(vol: &Volume, wanted: u64) -> Result<(u64, u32)> {
    let sb = &vol.sb;
    let first = u64::from(sb.raw.s_first_data_block.get());
    let per_group = u64::from(sb.raw.s_blocks_per_group.get());
    let per_block = u64::from(sb.block_size() / sb.desc_size());
    if !sb.has_incompat(incompat::BIT64) && wanted > u64::from(u32::MAX) {
        return Err(Error::unsupported(
            format!("a file system of {wanted} blocks without the feature 64bit"),
            "convert it first (resize2fs -b), or grow it to less than 4294967296 blocks",
        ));
    }
    let mut blocks = wanted;
    loop {
        let groups = (blocks - first).div_ceil(per_group);
        let inodes = groups * u64::from(sb.raw.s_inodes_per_group.get());
        if inodes > u64::from(u32::MAX) || groups > u64::from(u32::MAX) {
            let most = u64::from(u32::MAX) / u64::from(sb.raw.s_inodes_per_group.get());
            blocks = (first + most * per_group).min(blocks - 1);
            if blocks <= sb.blocks_count() {
                return Ok((sb.blocks_count(), sb.group_count()));
            }
            continue;
        }
        let groups = to_u32(groups);
        let rest = (blocks - first) % per_group;
        let mut overhead = 2 + vol.inode_table_blocks();
        if last_has_super(sb, groups) {
            let descriptors = u64::from(groups).div_ceil(per_block);
            overhead += 1 + descriptors + u64::from(sb.raw.s_reserved_gdt_blocks.get());
        }
        if groups > sb.group_count() && rest > 0 && rest < overhead + MIN_USEFUL_BLOCKS {
            blocks -= rest;
            continue;
        }
        return Ok((blocks, groups));
    }
}

/// Whether the last of `groups` groups will have a copy of the superblock.
fn last_has_super(sb: &Superblock, groups: u32) -> bool {
    if sb.has_compat(compat::SPARSE_SUPER2) {
        return backup_bgs(sb, groups).contains(&(groups - 1));
    }
    sb.group_has_super(GroupNo::new(groups - 1))
}

/// The groups that have copies with sparse_super2: the second and the last, as far as they had them.
fn backup_bgs(sb: &Superblock, groups: u32) -> [u32; 2] {
    let mut backups = sb.raw.s_backup_bgs.map(|group| group.get());
    let old = sb.group_count();
    if groups > old {
        if old == 1 {
            backups[0] = 1;
        }
        if old < 3 && groups > 2 || backups[1] != 0 {
            backups[1] = groups - 1;
        }
    }
    backups
}
