//! Adding, removing and changing entries.
//!
//! A directory in its inode or in one block is made anew; one of several blocks changes the block of
//! the entry, the leaf of its hash, and the list of free places. Nodes above the leaves are made
//! anew; a block that comes out as it was is not written.

use std::collections::BTreeSet;

use super::data::{Entry, Item};
use super::index::{
    Leaf, NO_BLOCK, XFS_DIR3_FREE_MAGIC, XFS_DIR3_LEAF1_MAGIC, XFS_DIR3_LEAFN_MAGIC,
};
use super::{Form, short};
use crate::error::{Error, Result, display_name};
use crate::filesystem::FileType;
use crate::xfs::bmap::{self, Extent};
use crate::xfs::inode::{Fork, Format, Inode};
use crate::xfs::num;
use crate::xfs::store::BufferType;
use crate::xfs::units::{FsBlock, Ino};
use crate::xfs::volume::Volume;

/// A directory of several blocks in memory: everything but its entries.
struct Many {
    /// Of each data block its largest free place, or [`NO_BLOCK`].
    bests: Vec<u16>,
    leaves: Vec<Leaf>,
    extents: Vec<Extent>,
    /// Whether it has the form with a tree of leaves.
    node: bool,
}

/// Puts an extent into a list.
fn add(list: &mut Vec<Extent>, new: Extent) {
    let at = list.partition_point(|extent| extent.offset < new.offset);
    let rest = list.split_off(at);
    bmap::push(list, new);
    for extent in rest {
        bmap::push(list, extent);
    }
}

/// Takes blocks out of a list; gives them.
fn cut(list: &mut Vec<Extent>, offset: u64, count: u64) -> Vec<Extent> {
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

fn missing(name: &[u8]) -> Error {
    Error::NotFound(display_name(name))
}

impl Volume {
    /// Makes an inode an empty directory.
    pub(in crate::xfs) fn dir_init(&mut self, inode: &mut Inode, parent: Ino) -> Result<()> {
        self.dir_store_short(inode, parent, &[])?
            .then_some(())
            .ok_or_else(|| Error::NoSpace(format!("inode {} has no room", inode.ino)))
    }

    /// Writes a directory into its inode, when it fits.
    fn dir_store_short(
        &mut self,
        inode: &mut Inode,
        parent: Ino,
        entries: &[Entry],
    ) -> Result<bool> {
        let room = inode.fork(Fork::Data).len();
        let Some(bytes) = short::build(self, parent, entries, room) else { return Ok(false) };
        for extent in self.extents(inode, Fork::Data)? {
            self.free_extent(inode.ino, Fork::Data, &extent);
        }
        self.set_extents(inode, Fork::Data, &[])?;
        inode.set_format(Fork::Data, Format::Local);
        inode.set_fork(Fork::Data, &bytes);
        inode.set_size(bytes.len() as u64);
        Ok(true)
    }

    /// Adds an entry, whose name is not there yet.
    pub(in crate::xfs) fn dir_insert(
        &mut self,
        inode: &mut Inode,
        name: &[u8],
        ino: Ino,
        file_type: FileType,
    ) -> Result<()> {
        let new = Entry { name: name.to_vec(), ino, file_type: Some(file_type) };
        match self.dir_form(inode)? {
            Form::Short => {
                let (parent, mut entries) = short::parse(self, inode)?;
                entries.push(new);
                if self.dir_store_short(inode, parent, &entries)? {
                    return Ok(());
                }
                self.dir_to_block(inode, parent, entries)
            }
            Form::Block => {
                let mut entries: Vec<Entry> = self.dir_block_entries(inode)?;
                entries.push(new);
                self.dir_store_block(inode, entries)
            }
            form => {
                let mut many = self.dir_load(inode, form)?;
                self.dir_add(inode, &mut many, new)?;
                self.dir_store(inode, many)
            }
        }
    }

    /// Moves a directory out of its inode.
    pub(in crate::xfs) fn dir_leave_inode(&mut self, inode: &mut Inode) -> Result<()> {
        let (parent, entries) = short::parse(self, inode)?;
        self.dir_to_block(inode, parent, entries)
    }

    fn dir_to_block(
        &mut self,
        inode: &mut Inode,
        parent: Ino,
        mut entries: Vec<Entry>,
    ) -> Result<()> {
        let dot = |name: &[u8], ino| Entry {
            name: name.to_vec(),
            ino,
            file_type: Some(FileType::Directory),
        };
        let mut all = vec![dot(b".", inode.ino), dot(b"..", parent)];
        all.append(&mut entries);
        inode.set_fork(Fork::Data, &[]);
        inode.set_format(Fork::Data, Format::Extents);
        inode.set_extent_count(Fork::Data, 0)?;
        let extent = self.alloc_whole(inode, Fork::Data, 0, self.sb.dir_blocks())?;
        self.set_extents(inode, Fork::Data, &[extent])?;
        inode.set_size(self.sb.dir_block_size() as u64);
        self.dir_store_block(inode, all)
    }

    fn dir_block_entries(&self, inode: &Inode) -> Result<Vec<Entry>> {
        let place = self.dir_place(inode, 0);
        let bytes = self.dir_data(place)?.ok_or_else(|| self.dir_missing(inode, 0))?;
        Ok(self.dir_items(place, &bytes)?.into_iter().map(|item| item.entry).collect())
    }

    /// Writes a directory of one block; when they do not fit, it gets more.
    fn dir_store_block(&mut self, inode: &mut Inode, mut entries: Vec<Entry>) -> Result<()> {
        let extents = self.extents(inode, Fork::Data)?;
        let (items, used) = self.dir_pack(entries.iter().cloned());
        if used + items.len() * 8 + 8 <= self.sb.dir_block_size() {
            let place = self.dir_place(inode, 0);
            let at = self.da_address(place, &extents)?;
            return self.dir_write_data(place, at, &items, true);
        }
        // The last one goes in as into every directory with an index.
        let Some(last) = entries.pop() else { return Ok(()) };
        let (items, _) = self.dir_pack(entries.into_iter());
        let place = self.dir_place(inode, 0);
        let at = self.da_address(place, &extents)?;
        self.dir_write_data(place, at, &items, false)?;
        let mut index: Vec<(u32, u32)> =
            items.iter().map(|i| (num::hash(&i.entry.name), (i.at / 8) as u32)).collect();
        index.sort_unstable();
        let (leaf, _) = self.dir_spaces();
        let mut many = Many {
            bests: vec![self.dir_best(&items) as u16],
            leaves: vec![Leaf { block: leaf, entries: index }],
            extents,
            node: false,
        };
        self.dir_add(inode, &mut many, last)?;
        self.dir_store(inode, many)
    }

    /// Reads the index of a directory of several blocks.
    fn dir_load(&self, inode: &Inode, form: Form) -> Result<Many> {
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
        for (index, offset) in (free..last).step_by(step as usize).enumerate() {
            let place = self.dir_place(inode, offset);
            bests.resize(index * most, NO_BLOCK);
            if let Some(bytes) = self.da_read(place, "directory free list", false)? {
                bests.extend(self.dir_free(place, &bytes, index * most)?);
            }
        }
        Ok(Many { bests, leaves, extents, node: true })
    }

    /// Adds an entry to a block with room and to its leaf.
    fn dir_add(&mut self, inode: &mut Inode, many: &mut Many, new: Entry) -> Result<()> {
        let size = self.dir_entry_size(new.name.len());
        let step = u64::from(self.sb.dir_blocks());
        let fits = |best: &u16| *best != NO_BLOCK && usize::from(*best) >= size;
        let (block, mut items) = match many.bests.iter().position(fits) {
            Some(block) => {
                let offset = block as u64 * step;
                let place = self.dir_place(inode, offset);
                let bytes = self.dir_data(place)?.ok_or_else(|| self.dir_missing(inode, offset))?;
                (block, self.dir_items(place, &bytes)?)
            }
            None => {
                let block = many.bests.iter().position(|best| *best == NO_BLOCK);
                let block = block.unwrap_or(many.bests.len());
                let offset = block as u64 * step;
                if offset + step > self.dir_spaces().0 {
                    return Err(Error::NoSpace(format!("directory inode {} is full", inode.ino)));
                }
                let extent = self.alloc_whole(inode, Fork::Data, offset, self.sb.dir_blocks())?;
                add(&mut many.extents, extent);
                if block == many.bests.len() {
                    many.bests.push(0);
                }
                (block, Vec::new())
            }
        };
        let offset = block as u64 * step;
        let place = self.dir_place(inode, offset);
        let at = self.dir_gap(&items, size).ok_or_else(|| {
            place.corrupt("directory block", "it has less room than the list of free places says")
        })?;
        let hash = num::hash(&new.name);
        let before = items.partition_point(|item| item.at < at);
        items.insert(before, Item { at, entry: new });
        many.bests[block] = self.dir_best(&items) as u16;
        let address = self.da_address(place, &many.extents)?;
        self.dir_write_data(place, address, &items, false)?;
        let entry = (hash, ((block * self.sb.dir_block_size() + at) / 8) as u32);
        let most = self.dir_leaf_most();
        let index = many
            .leaves
            .iter()
            .position(|leaf| leaf.entries.last().is_some_and(|last| *last >= entry))
            .unwrap_or(many.leaves.len().saturating_sub(1));
        let Some(leaf) = many.leaves.get_mut(index) else {
            return Err(place.corrupt("directory index", "it has no leaf"));
        };
        let at = leaf.entries.partition_point(|other| *other < entry);
        leaf.entries.insert(at, entry);
        if leaf.entries.len() > most {
            let right = leaf.entries.split_off(leaf.entries.len() / 2);
            many.leaves.insert(index + 1, Leaf { block: 0, entries: right });
        }
        Ok(())
    }

    /// Writes the index, and gives the inode its blocks and size.
    fn dir_store(&mut self, inode: &mut Inode, mut many: Many) -> Result<()> {
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
        // Which blocks of the index are for what.
        let mut have: BTreeSet<u64> = BTreeSet::new();
        for extent in many.extents.iter().filter(|extent| extent.end() > leaf) {
            let first = extent.offset.max(leaf).next_multiple_of(step);
            have.extend((first..extent.end()).step_by(step as usize));
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
        wanted.extend((0..lists as u64).map(|index| free + index * step));
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
        inode.set_size(many.bests.len() as u64 * size as u64);
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
            num::put16(&mut bytes, 56, leaf.entries.len() as u16);
            for (n, (hash, address)) in leaf.entries.iter().enumerate() {
                num::put32(&mut bytes, 64 + n * 8, *hash);
                num::put32(&mut bytes, 68 + n * 8, *address);
            }
            if !many.node {
                num::put32(&mut bytes, size - 4, many.bests.len() as u32);
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
            let offset = free + index as u64 * u64::from(self.sb.dir_blocks());
            let place = self.dir_place(inode, offset);
            let at = self.da_address(place, &many.extents)?;
            let mut bytes = self.da_block(place, at, XFS_DIR3_FREE_MAGIC);
            num::put32(&mut bytes, 48, (index * most) as u32);
            num::put32(&mut bytes, 52, bests.len() as u32);
            let used = bests.iter().filter(|best| **best != NO_BLOCK).count();
            num::put32(&mut bytes, 56, used as u32);
            for (n, best) in bests.iter().enumerate() {
                num::put16(&mut bytes, 64 + n * 2, *best);
            }
            self.da_write(at, BufferType::DirFree, bytes, false)?;
        }
        Ok(())
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what reading and writing give.
    pub(in crate::xfs) fn dir_remove(&mut self, inode: &mut Inode, name: &[u8]) -> Result<()> {
        let form = self.dir_form(inode)?;
        match form {
            Form::Short => {
                let (parent, mut entries) = short::parse(self, inode)?;
                let at = entries.iter().position(|entry| entry.name == name);
                entries.remove(at.ok_or_else(|| missing(name))?);
                self.dir_store_short(inode, parent, &entries).map(|_| ())
            }
            Form::Block => {
                let mut entries = self.dir_block_entries(inode)?;
                let at = entries.iter().position(|entry| entry.name == name);
                entries.remove(at.ok_or_else(|| missing(name))?);
                let parent = entries.iter().find(|entry| entry.name == b"..").map(|e| e.ino);
                let others: Vec<Entry> = entries
                    .iter()
                    .filter(|entry| entry.name != b"." && entry.name != b"..")
                    .cloned()
                    .collect();
                if let Some(parent) = parent
                    && self.dir_store_short(inode, parent, &others)?
                {
                    return Ok(());
                }
                self.dir_store_block(inode, entries)
            }
            form => {
                let found = self.dir_find(inode, form, name)?;
                let (hash, address, _) = found.ok_or_else(|| missing(name))?;
                let mut many = self.dir_load(inode, form)?;
                for leaf in &mut many.leaves {
                    leaf.entries.retain(|entry| *entry != (hash, address));
                }
                let size = self.sb.dir_block_size() as u64;
                let byte = u64::from(address) * 8;
                let (block, at) = ((byte / size) as usize, (byte % size) as usize);
                let step = u64::from(self.sb.dir_blocks());
                let offset = block as u64 * step;
                let place = self.dir_place(inode, offset);
                let bytes = self.dir_data(place)?.ok_or_else(|| self.dir_missing(inode, offset))?;
                let mut items = self.dir_items(place, &bytes)?;
                items.retain(|item| item.at != at);
                let Some(best) = many.bests.get_mut(block) else {
                    return Err(place.corrupt("directory index", "no list of free places has it"));
                };
                if items.is_empty() {
                    *best = NO_BLOCK;
                    for extent in cut(&mut many.extents, offset, step) {
                        self.free_extent(inode.ino, Fork::Data, &extent);
                    }
                } else {
                    *best = self.dir_best(&items) as u16;
                    let at = self.da_address(place, &many.extents)?;
                    self.dir_write_data(place, at, &items, false)?;
                }
                self.dir_store(inode, many)
            }
        }
    }

    /// Lets an entry name another inode.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what reading and writing give.
    pub(in crate::xfs) fn dir_replace(
        &mut self,
        inode: &mut Inode,
        name: &[u8],
        ino: Ino,
        file_type: FileType,
    ) -> Result<()> {
        let change = |entry: &mut Entry| {
            entry.ino = ino;
            entry.file_type = Some(file_type);
        };
        let form = self.dir_form(inode)?;
        match form {
            Form::Short => {
                let (mut parent, mut entries) = short::parse(self, inode)?;
                if name == b".." {
                    parent = ino;
                } else {
                    let entry = entries.iter_mut().find(|entry| entry.name == name);
                    change(entry.ok_or_else(|| missing(name))?);
                }
                if self.dir_store_short(inode, parent, &entries)? {
                    return Ok(());
                }
                // Numbers of 64 bits take more room: it leaves the inode.
                self.dir_to_block(inode, parent, entries)
            }
            Form::Block => {
                let mut entries = self.dir_block_entries(inode)?;
                let entry = entries.iter_mut().find(|entry| entry.name == name);
                change(entry.ok_or_else(|| missing(name))?);
                self.dir_store_block(inode, entries)
            }
            form => {
                let found = self.dir_find(inode, form, name)?;
                let (_, address, _) = found.ok_or_else(|| missing(name))?;
                let size = self.sb.dir_block_size() as u64;
                let byte = u64::from(address) * 8;
                let offset = byte / size * u64::from(self.sb.dir_blocks());
                let place = self.dir_place(inode, offset);
                let bytes = self.dir_data(place)?.ok_or_else(|| self.dir_missing(inode, offset))?;
                let mut items = self.dir_items(place, &bytes)?;
                for item in items.iter_mut().filter(|item| item.at as u64 == byte % size) {
                    change(&mut item.entry);
                }
                let at = self.da_address(place, &self.extents(inode, Fork::Data)?)?;
                self.dir_write_data(place, at, &items, false)
            }
        }
    }

    /// Whether a directory has no entries.
    pub(in crate::xfs) fn dir_is_empty(&self, inode: &Inode) -> Result<bool> {
        Ok(self.dir_list(inode)?.is_empty())
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
