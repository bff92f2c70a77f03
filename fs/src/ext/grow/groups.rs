//! New block groups: where their bitmaps and inode tables go, and their descriptors.

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::ext::alloc::{
    base_metadata, block_bitmap_sum, clusters_in_group, count_clear, fill, inode_bitmap_sum,
};
use crate::ext::group::{BG_BLOCK_UNINIT, BG_INODE_UNINIT, GroupDescriptor};
use crate::ext::store::Block;
use crate::ext::superblock::incompat;
use crate::ext::units::{FsBlock, GroupNo};
use crate::ext::volume::Volume;
use crate::num::{to_u32, to_usize};

/// The amounts that new groups add to the superblock's counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Added {
    pub(super) free_blocks: u64,
    pub(super) free_inodes: u32,
}

/// The places of one group's metadata.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    block_bitmap: FsBlock,
    inode_bitmap: FsBlock,
    inode_table: FsBlock,
}

/// Adds the groups of the plan, descriptors included. The superblock has the new geometry already.
pub(super) fn add(vol: &mut Volume, plan: &Plan) -> Result<Added> {
    let mut builder = Builder::new(vol, plan);
    let log = if builder.vol.sb.has_incompat(incompat::FLEX_BG) {
        u32::from(builder.vol.sb.raw.s_log_groups_per_flex)
    } else {
        0
    };
    let mut first = plan.old_groups;
    while first < plan.groups {
        let flex_end = ((u64::from(first) >> log) + 1) << log;
        let end = to_u32(flex_end.min(u64::from(plan.groups)));
        builder.chunk(first, end)?;
        first = end;
    }
    builder.finish_descriptors()
}

struct Builder<'a> {
    vol: &'a mut Volume,
    plan: &'a Plan,
    added: Added,
    /// Index and content of the descriptor block being filled.
    open: Option<(u32, Vec<u8>)>,
    /// Bitmaps that many groups have: no inode in use; no block in use.
    inode_bitmap: Block,
    inode_bitmap_sum: u32,
    empty: Block,
    /// Other bitmaps that were made last: the first groups of all flex groups look alike, and a large
    /// growth has thousands of them.
    recent: Vec<Block>,
}

/// Different bitmaps that are kept to be shared.
const RECENT: usize = 8;

/// The same bitmap as one that was made before, where there is one.
fn share(recent: &mut Vec<Block>, bits: Vec<u8>) -> Block {
    if let Some(found) = recent.iter().find(|bitmap| bitmap[..] == bits[..]) {
        return found.clone();
    }
    if recent.len() >= RECENT {
        recent.remove(0);
    }
    let bitmap = Block::from(bits);
    recent.push(bitmap.clone());
    bitmap
}

impl<'a> Builder<'a> {
    fn new(vol: &'a mut Volume, plan: &'a Plan) -> Self {
        let size = vol.block_size();
        let mut inodes = vec![0; size];
        fill(&mut inodes, vol.sb.raw.s_inodes_per_group.get(), to_u32(size) * 8);
        let inode_bitmap_sum = inode_bitmap_sum(vol, &inodes);
        let mut empty = vec![0; size];
        fill(&mut empty, vol.sb.clusters_per_group(), to_u32(size) * 8);
        Self {
            vol,
            plan,
            added: Added::default(),
            open: None,
            inode_bitmap: inodes.into(),
            inode_bitmap_sum,
            empty: empty.into(),
            recent: Vec::new(),
        }
    }

    /// Adds the groups `first..end`, which are new and of one flex group.
    fn chunk(&mut self, first: u32, end: u32) -> Result<()> {
        let places = match self.packed(first, end) {
            Some(places) if end - first > 1 => places,
            _ => GroupNo::all(first..end).map(|group| self.own(group)).collect::<Result<_>>()?,
        };
        let table = self.vol.inode_table_blocks();
        // All metadata of the chunk, to find the part in each group.
        let mut zones: Vec<(FsBlock, FsBlock)> = Vec::with_capacity(places.len() * 3);
        for place in &places {
            zones.push((place.block_bitmap, place.block_bitmap + 1));
            zones.push((place.inode_bitmap, place.inode_bitmap + 1));
            zones.push((place.inode_table, place.inode_table + table));
        }
        zones.sort_unstable();
        for (group, place) in GroupNo::all(first..end).zip(&places) {
            self.group(group, place, &zones)?;
        }
        Ok(())
    }

    /// All block bitmaps, then all inode bitmaps, then all inode tables of a flex group together, from
    /// its first new group on. `None` when they do not fit that way.
    fn packed(&self, first: u32, end: u32) -> Option<Vec<Place>> {
        let count = u64::from(end - first);
        let group = GroupNo::new(first);
        let mut cursor = Cursor { vol: self.vol, group, end, at: base_metadata(self.vol, group).1 };
        let mut places = vec![Place::default(); to_usize(count)];
        for place in &mut places {
            place.block_bitmap = cursor.take(1)?;
        }
        for place in &mut places {
            place.inode_bitmap = cursor.take(1)?;
        }
        let table = self.vol.inode_table_blocks();
        for place in &mut places {
            place.inode_table = cursor.take(table)?;
        }
        Some(places)
    }

    /// The metadata of a group in the group itself.
    fn own(&self, group: GroupNo) -> Result<Place> {
        let at = base_metadata(self.vol, group).1;
        let end = at + 2 + self.vol.inode_table_blocks();
        if end > self.vol.group_end(group) {
            return Err(Error::NoSpace(format!("group {group} has no room for its own metadata")));
        }
        Ok(Place { block_bitmap: at, inode_bitmap: at + 1, inode_table: at + 2 })
    }

    fn group(&mut self, group: GroupNo, place: &Place, zones: &[(FsBlock, FsBlock)]) -> Result<()> {
        let vol = &mut *self.vol;
        let has_csum = vol.sb.has_group_csum();
        let shift = vol.sb.cluster_bits();
        let start = vol.group_first_block(group);
        let end = vol.group_end(group);
        let clusters = clusters_in_group(vol, group);
        let base = base_metadata(vol, group);
        let from = zones.partition_point(|zone| zone.1 <= start);
        let inside: Vec<(FsBlock, FsBlock)> = std::iter::once(base)
            .chain(zones[from..].iter().copied().take_while(|zone| zone.0 < end))
            .map(|(from, to)| (from.max(start), to.min(end)))
            .filter(|(from, to)| from < to)
            .collect();

        let mut descriptor = GroupDescriptor::empty(&vol.sb);
        descriptor.set_block_bitmap(place.block_bitmap);
        descriptor.set_inode_bitmap(place.inode_bitmap);
        descriptor.set_inode_table(place.inode_table);
        let per_group = vol.sb.raw.s_inodes_per_group.get();
        descriptor.set_free_inodes_count(per_group);

        let last = group.get() + 1 == self.plan.groups;
        let free = if inside.is_empty() && has_csum && !last {
            descriptor.set_flag(BG_BLOCK_UNINIT, true);
            clusters
        } else {
            let bitmap: Block = if inside.is_empty() && clusters == vol.sb.clusters_per_group() {
                self.empty.clone()
            } else {
                let mut bits = vec![0; vol.block_size()];
                fill(&mut bits, clusters, to_u32(vol.block_size()) * 8);
                for (from, to) in inside {
                    let to = to_u32((to - start).div_ceil(1 << shift));
                    fill(&mut bits, to_u32((from - start) >> shift), to);
                }
                share(&mut self.recent, bits)
            };
            if vol.sb.has_metadata_csum() {
                descriptor.set_block_bitmap_csum(block_bitmap_sum(vol, &bitmap));
            }
            let free = count_clear(&bitmap, clusters);
            vol.store.write_shared(place.block_bitmap, bitmap, true)?;
            free
        };
        descriptor.set_free_blocks_count(free);
        if has_csum {
            descriptor.set_flag(BG_INODE_UNINIT, true);
            descriptor.set_itable_unused(per_group);
        } else {
            vol.store.write_shared(place.inode_bitmap, self.inode_bitmap.clone(), true)?;
            if vol.sb.has_metadata_csum() {
                descriptor.set_inode_bitmap_csum(self.inode_bitmap_sum);
            }
            vol.store.zero(place.inode_table, vol.inode_table_blocks())?;
        }
        self.added.free_blocks += u64::from(free) << shift;
        self.added.free_inodes = self.added.free_inodes.saturating_add(per_group);
        self.descriptor(group, &descriptor)
    }

    fn descriptor(&mut self, group: GroupNo, descriptor: &GroupDescriptor) -> Result<()> {
        let size = to_usize(self.vol.sb.desc_size());
        let per_block = self.vol.block_size() / size;
        let index = to_u32(to_usize(group.get()) / per_block);
        if self.open.as_ref().is_none_or(|open| open.0 != index) {
            self.finish_block()?;
            let content = if index < self.plan.old_desc_blocks {
                let (number, _) = self.vol.descriptor_position(group);
                self.vol.store.read(number)?.to_vec()
            } else {
                vec![0; self.vol.block_size()]
            };
            self.open = Some((index, content));
        }
        if let Some((_, content)) = &mut self.open {
            let at = to_usize(group.get()) % per_block * size;
            descriptor.write_to(&mut content[at..at + size], group, &self.vol.sb);
        }
        Ok(())
    }

    /// Writes the open descriptor block, and with meta_bg its two copies.
    fn finish_block(&mut self) -> Result<()> {
        let Some((index, content)) = self.open.take() else { return Ok(()) };
        let content = Block::from(content);
        let per_block = self.vol.sb.block_size() / self.vol.sb.desc_size();
        let first = GroupNo::new(index * per_block);
        let (number, _) = self.vol.descriptor_position(first);
        let sb = &self.vol.sb;
        if sb.has_incompat(incompat::META_BG) && index >= sb.raw.s_first_meta_bg.get() {
            for group in [first + 1, first + (per_block - 1)] {
                if group.get() < self.plan.groups && group != first {
                    let start = self.vol.group_first_block(group);
                    let copy = start + u64::from(self.vol.sb.group_has_super(group));
                    put(self.vol, self.plan, copy, content.clone())?;
                }
            }
        }
        put(self.vol, self.plan, number, content)
    }

    fn finish_descriptors(mut self) -> Result<Added> {
        self.finish_block()?;
        Ok(self.added)
    }
}

/// Hands out runs of blocks in the new groups of a flex group, none across two groups.
struct Cursor<'a> {
    vol: &'a Volume,
    group: GroupNo,
    end: u32,
    at: FsBlock,
}

impl Cursor<'_> {
    fn take(&mut self, len: u64) -> Option<FsBlock> {
        loop {
            let group_end = self.vol.group_end(self.group);
            if self.at + len <= group_end {
                let at = self.at;
                self.at += len;
                return Some(at);
            }
            self.group = self.group + 1;
            if self.group.get() >= self.end {
                return None;
            }
            self.at = base_metadata(self.vol, self.group).1;
        }
    }
}

/// Puts a whole block where nothing was before the growth, or through the journal where something
/// was.
fn put(vol: &mut Volume, plan: &Plan, number: FsBlock, block: Block) -> Result<()> {
    vol.store.write_shared(number, block, number.get() >= plan.old_blocks)
}
