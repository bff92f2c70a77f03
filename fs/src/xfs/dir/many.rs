//! The index of a directory of several blocks, read as a whole and written back: a block that comes out
//! as it was is not written.

use std::collections::BTreeSet;

use super::Form;
use super::index::{
    Leaf, NO_BLOCK, XFS_DIR3_FREE_MAGIC, XFS_DIR3_LEAF1_MAGIC, XFS_DIR3_LEAFN_MAGIC,
};
use crate::error::Result;
use crate::num::{to_u16, to_u32, to_u64, to_usize};
use crate::xfs::bmap::{self, Extent};
use crate::xfs::inode::{Fork, Inode};
use crate::xfs::num;
use crate::xfs::store::BufferType;
use crate::xfs::units::FsBlock;
use crate::xfs::volume::Volume;

/// A directory of several blocks in memory: everything but its entries.
pub(super) struct Many {
    /// Of each data block its largest free place, or [`NO_BLOCK`].
    pub(super) bests: Vec<u16>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) extents: Vec<Extent>,
    /// Whether it has the form with a tree of leaves.
    pub(super) node: bool,
}

/// Puts an extent into a list.
pub(super) fn add(list: &mut Vec<Extent>, new: Extent) {
    let at = list.partition_point(|extent| extent.offset < new.offset);
    let rest = list.split_off(at);
    bmap::push(list, new);
    for extent in rest {
        bmap::push(list, extent);
    }
}

/// Takes blocks out of a list; gives them.
pub(super) fn cut(list: &mut Vec<Extent>, offset: u64, count: u64) -> Vec<Extent> {
    let end = offset + count;
    let mut taken = Vec::new();
    let mut left = Vec::new();
    for extent in list.drain(..) {
        let (from, to) = (extent.offset.max(offset), extent.end().min(end));
        if from >= to {
            left.push(extent);
            continue;
        }
        let part = |start: u64, past: u64| Extent {
            offset: start,
            block: FsBlock(extent.block.0 + (start - extent.offset)),
            count: past - start,
            ..extent
        };
        if extent.offset < from {
            left.push(part(extent.offset, from));
        }
        taken.push(part(from, to));
        if to < extent.end() {
            left.push(part(to, extent.end()));
        }
    }
    *list = left;
    taken
}

impl Volume {
    /// Reads the index of a directory of several blocks.
    pub(super) fn dir_load(&self, inode: &Inode, form: Form) -> Result<Many> {
        let (leaf, free) = self.dir_spaces();
        let extents = self.extents(inode, Fork::Data)?;
        let root = self.dir_place(inode, leaf);
        let read = |offset: u64| {
            let place = self.dir_place(inode, offset);
            let bytes = self.da_read(place, "directory leaf", true)?;
            bytes.ok_or_else(|| self.dir_missing(inode, offset))
        };
        if form == Form::Leaf {
            let bytes = read(leaf)?;
            let entries = self.dir_leaf(root, &bytes)?;
            let bests = self.dir_leaf_bests(root, &bytes)?;
            let leaves = vec![Leaf { block: leaf, entries }];
            return Ok(Many { bests, leaves, extents, node: false });
        }
        let mut leaves = Vec::new();
        for block in self.da_blocks(root)?.0 {
            let bytes = read(block)?;
            let entries = self.dir_leaf(self.dir_place(inode, block), &bytes)?;
            leaves.push(Leaf { block, entries });
        }
        let step = u64::from(self.sb.dir_blocks());
        let most = self.dir_free_most();
        let last = extents.last().map_or(0, Extent::end);
        let mut bests: Vec<u16> = Vec::new();
        for (index, offset) in (free..last).step_by(to_usize(step)).enumerate() {
            let place = self.dir_place(inode, offset);
            bests.resize(index * most, NO_BLOCK);
            if let Some(bytes) = self.da_read(place, "directory free list", false)? {
                bests.extend(self.dir_free(place, &bytes, index * most)?);
            }
        }
        Ok(Many { bests, leaves, extents, node: true })
    }

    /// Writes the index, and gives the inode its blocks and size.
    pub(super) fn dir_store(&mut self, inode: &mut Inode, mut many: Many) -> Result<()> {
        let step = u64::from(self.sb.dir_blocks());
        let size = self.sb.dir_block_size();
        let (leaf, free) = self.dir_spaces();
        if many.leaves.len() > 1 {
            many.leaves.retain(|leaf| !leaf.entries.is_empty());
        }
        while many.bests.last() == Some(&NO_BLOCK) {
            many.bests.pop();
        }
        let entries: usize = many.leaves.iter().map(|leaf| leaf.entries.len()).sum();
        many.node |= self.da_header() + entries * 8 + many.bests.len() * 2 + 4 > size;
        // The use of each block of the index.
        let mut have: BTreeSet<u64> = BTreeSet::new();
        for extent in many.extents.iter().filter(|extent| extent.end() > leaf) {
            let first = extent.offset.max(leaf).next_multiple_of(step);
            have.extend((first..extent.end()).step_by(to_usize(step)));
        }
        let mut wanted = BTreeSet::from([leaf]);
        let single = many.leaves.len() == 1;
        for one in &mut many.leaves {
            let keeps = one.block != 0 && (one.block != leaf || single);
            one.block = if single {
                leaf
            } else if keeps {
                one.block
            } else {
                0
            };
            if one.block != 0 {
                wanted.insert(one.block);
            }
        }
        let mut next = leaf;
        let mut spare: Vec<u64> =
            have.iter().copied().filter(|b| *b < free && !wanted.contains(b)).rev().collect();
        let mut another = |wanted: &mut BTreeSet<u64>| {
            let block = spare.pop().unwrap_or_else(|| {
                while wanted.contains(&next) || have.contains(&next) {
                    next += step;
                }
                next
            });
            wanted.insert(block);
            block
        };
        for one in &mut many.leaves {
            if one.block == 0 {
                one.block = another(&mut wanted);
            }
        }
        let count = self.da_node_count(many.leaves.len(), size);
        let mut nodes = Vec::with_capacity(count);
        for index in 0..count {
            nodes.push(if index == 0 { leaf } else { another(&mut wanted) });
        }
        let lists = if many.node { many.bests.len().div_ceil(self.dir_free_most()) } else { 0 };
        wanted.extend((0..to_u64(lists)).map(|index| free + index * step));
        for &block in wanted.difference(&have) {
            let extent = self.alloc_whole(inode, Fork::Data, block, self.sb.dir_blocks())?;
            add(&mut many.extents, extent);
        }
        for &block in have.difference(&wanted) {
            for extent in cut(&mut many.extents, block, step) {
                self.free_extent(inode.ino, Fork::Data, &extent);
            }
        }
        self.dir_write_leaves(inode, &many)?;
        let last: Vec<(u32, u64)> = many
            .leaves
            .iter()
            .map(|leaf| (leaf.entries.last().map_or(0, |(hash, _)| *hash), leaf.block))
            .collect();
        let root = self.dir_place(inode, leaf);
        self.da_write_nodes(root, &many.extents, last, &nodes)?;
        if many.node {
            self.dir_write_lists(inode, &many)?;
        }
        if self.extents(inode, Fork::Data)? != many.extents {
            self.set_extents(inode, Fork::Data, &many.extents)?;
        }
        inode.set_size(to_u64(many.bests.len()) * to_u64(size));
        Ok(())
    }

    fn dir_write_leaves(&mut self, inode: &Inode, many: &Many) -> Result<()> {
        let size = self.sb.dir_block_size();
        for (index, leaf) in many.leaves.iter().enumerate() {
            let side = |at: Option<usize>| {
                at.and_then(|at| many.leaves.get(at)).map_or(0, |leaf| leaf.block)
            };
            let (back, forw) = (side(index.checked_sub(1)), side(Some(index + 1)));
            let place = self.dir_place(inode, leaf.block);
            let at = self.da_address(place, &many.extents)?;
            let magic = if many.node { XFS_DIR3_LEAFN_MAGIC } else { XFS_DIR3_LEAF1_MAGIC };
            let mut bytes = self.da_info(place, at, magic, back, forw);
            num::put16(&mut bytes, 56, to_u16(leaf.entries.len()));
            for (n, (hash, address)) in leaf.entries.iter().enumerate() {
                num::put32(&mut bytes, 64 + n * 8, *hash);
                num::put32(&mut bytes, 68 + n * 8, *address);
            }
            if !many.node {
                num::put32(&mut bytes, size - 4, to_u32(many.bests.len()));
                let start = size - 4 - many.bests.len() * 2;
                for (n, best) in many.bests.iter().enumerate() {
                    num::put16(&mut bytes, start + n * 2, *best);
                }
            }
            let kind = if many.node { BufferType::DirLeafN } else { BufferType::DirLeaf1 };
            self.da_write(at, kind, bytes, true)?;
        }
        Ok(())
    }

    fn dir_write_lists(&mut self, inode: &Inode, many: &Many) -> Result<()> {
        let (_, free) = self.dir_spaces();
        let most = self.dir_free_most();
        for (index, bests) in many.bests.chunks(most).enumerate() {
            let offset = free + to_u64(index) * u64::from(self.sb.dir_blocks());
            let place = self.dir_place(inode, offset);
            let at = self.da_address(place, &many.extents)?;
            let mut bytes = self.da_block(place, at, XFS_DIR3_FREE_MAGIC);
            num::put32(&mut bytes, 48, to_u32(index * most));
            num::put32(&mut bytes, 52, to_u32(bests.len()));
            let used = bests.iter().filter(|best| **best != NO_BLOCK).count();
            num::put32(&mut bytes, 56, to_u32(used));
            for (n, best) in bests.iter().enumerate() {
                num::put16(&mut bytes, 64 + n * 2, *best);
            }
            self.da_write(at, BufferType::DirFree, bytes, false)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_are_cut_and_put_back() {
        let extent = |offset, block, count| Extent {
            offset,
            block: FsBlock(block),
            count,
            unwritten: false,
        };
        let whole = vec![extent(0, 100, 10)];
        let mut list = whole.clone();
        let taken = cut(&mut list, 3, 2);
        assert_eq!(taken, [extent(3, 103, 2)]);
        assert_eq!(list, [extent(0, 100, 3), extent(5, 105, 5)]);
        add(&mut list, taken[0]);
        assert_eq!(list, whole);
    }
}
