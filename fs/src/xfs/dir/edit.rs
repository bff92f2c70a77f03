//! Adding, removing and changing entries.
//!
//! A directory in its inode or in one block is made anew; one of several blocks changes the block of
//! the entry, the leaf of its hash, and the list of free places. Nodes above the leaves are made
//! anew; a block that comes out as it was is not written.

use super::data::{Entry, Item};
use super::index::{Leaf, NO_BLOCK};
use super::many::{Many, add, cut};
use super::{Form, short};
use crate::error::{Error, Result, display_name};
use crate::filesystem::FileType;
use crate::num::{to_u16, to_u32, to_u64, to_usize};
use crate::xfs::inode::{Fork, Format, Inode};
use crate::xfs::num;
use crate::xfs::units::Ino;
use crate::xfs::volume::Volume;

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
        inode.set_size(to_u64(bytes.len()));
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
        inode.set_size(to_u64(self.sb.dir_block_size()));
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
            items.iter().map(|i| (num::hash(&i.entry.name), to_u32(i.at / 8))).collect();
        index.sort_unstable();
        let (leaf, _) = self.dir_spaces();
        let mut many = Many {
            bests: vec![to_u16(self.dir_best(&items))],
            leaves: vec![Leaf { block: leaf, entries: index }],
            extents,
            node: false,
        };
        self.dir_add(inode, &mut many, last)?;
        self.dir_store(inode, many)
    }

    /// Adds an entry to a block with room and to its leaf.
    fn dir_add(&mut self, inode: &mut Inode, many: &mut Many, new: Entry) -> Result<()> {
        let size = self.dir_entry_size(new.name.len());
        let step = u64::from(self.sb.dir_blocks());
        let fits = |best: &u16| *best != NO_BLOCK && usize::from(*best) >= size;
        let (block, mut items) = match many.bests.iter().position(fits) {
            Some(block) => {
                let offset = to_u64(block) * step;
                let place = self.dir_place(inode, offset);
                let bytes = self.dir_data(place)?.ok_or_else(|| self.dir_missing(inode, offset))?;
                (block, self.dir_items(place, &bytes)?)
            }
            None => {
                let block = many.bests.iter().position(|best| *best == NO_BLOCK);
                let block = block.unwrap_or(many.bests.len());
                let offset = to_u64(block) * step;
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
        let offset = to_u64(block) * step;
        let place = self.dir_place(inode, offset);
        let at = self.dir_gap(&items, size).ok_or_else(|| {
            place.corrupt("directory block", "it has less room than the list of free places says")
        })?;
        let hash = num::hash(&new.name);
        let before = items.partition_point(|item| item.at < at);
        items.insert(before, Item { at, entry: new });
        many.bests[block] = to_u16(self.dir_best(&items));
        let address = self.da_address(place, &many.extents)?;
        self.dir_write_data(place, address, &items, false)?;
        let entry = (hash, to_u32((block * self.sb.dir_block_size() + at) / 8));
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
                let size = to_u64(self.sb.dir_block_size());
                let byte = u64::from(address) * 8;
                let (block, at) = (to_usize(byte / size), to_usize(byte % size));
                let step = u64::from(self.sb.dir_blocks());
                let offset = to_u64(block) * step;
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
                    *best = to_u16(self.dir_best(&items));
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
                let size = to_u64(self.sb.dir_block_size());
                let byte = u64::from(address) * 8;
                let offset = byte / size * u64::from(self.sb.dir_blocks());
                let place = self.dir_place(inode, offset);
                let bytes = self.dir_data(place)?.ok_or_else(|| self.dir_missing(inode, offset))?;
                let mut items = self.dir_items(place, &bytes)?;
                for item in items.iter_mut().filter(|item| to_u64(item.at) == byte % size) {
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
