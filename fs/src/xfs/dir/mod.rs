//! Directories: in the inode, in one block, in several with one leaf as index, in several with a tree
//! of leaves.

mod data;
mod edit;
mod index;
mod many;
mod short;

use std::collections::HashSet;

pub(super) use data::Entry;

use super::da::{MOST_BLOCKS, Place};
use super::inode::{Fork, Format, Inode};
use super::num;
use super::units::Ino;
use super::volume::Volume;
use crate::error::{Error, Result, display_name};
use crate::num::{to_u64, to_usize};

/// Most entries of a directory that are listed.
const MOST_ENTRIES: usize = 1_000_000;

/// How a directory holds its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Short,
    Block,
    Leaf,
    Node,
}

/// A name that an entry can have.
///
/// # Errors
/// [`Error::NameTooLong`] and [`Error::Invalid`].
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > 255 {
        return Err(Error::NameTooLong(display_name(name)));
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0)
    {
        return Err(Error::Invalid(format!("`{}` cannot be a file's name", display_name(name))));
    }
    Ok(())
}

impl Volume {
    fn dir_place<'a>(&self, inode: &'a Inode, offset: u64) -> Place<'a> {
        Place { inode, fork: Fork::Data, offset, count: self.sb.dir_blocks() }
    }

    fn dir_form(&self, inode: &Inode) -> Result<Form> {
        if inode.format(Fork::Data)? == Format::Local {
            return Ok(Form::Short);
        }
        let step = u64::from(self.sb.dir_blocks());
        let (leaf, _) = self.dir_spaces();
        // Only whether there is something beyond a place counts.
        let has = |range| self.extents_in(inode, Fork::Data, range).map(|list| !list.is_empty());
        if !has(step..1 << 54)? {
            return Ok(Form::Block);
        }
        Ok(if has(leaf + step..1 << 54)? { Form::Node } else { Form::Leaf })
    }

    /// Offsets of the data blocks that are there.
    fn dir_data_blocks(&self, inode: &Inode) -> Result<Vec<u64>> {
        let step = u64::from(self.sb.dir_blocks());
        let (leaf, _) = self.dir_spaces();
        let mut blocks = Vec::new();
        for extent in self.extents_in(inode, Fork::Data, 0..leaf)? {
            let first = extent.offset.next_multiple_of(step);
            blocks.extend((first..extent.end().min(leaf)).step_by(to_usize(step)));
            if blocks.len() > MOST_BLOCKS {
                let place = self.dir_place(inode, extent.offset);
                return Err(place.corrupt("directory", "it has too many blocks"));
            }
        }
        Ok(blocks)
    }

    fn dir_missing(&self, inode: &Inode, offset: u64) -> Error {
        self.dir_place(inode, offset).corrupt("directory block", "it is not there")
    }

    /// All entries, without `.` and `..`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub(super) fn dir_list(&self, inode: &Inode) -> Result<Vec<Entry>> {
        if self.dir_form(inode)? == Form::Short {
            return Ok(short::parse(self, inode)?.1);
        }
        let mut entries = Vec::new();
        for offset in self.dir_data_blocks(inode)? {
            let place = self.dir_place(inode, offset);
            let bytes = self.dir_data(place)?.ok_or_else(|| self.dir_missing(inode, offset))?;
            let items = self.dir_items(place, &bytes)?;
            entries.extend(
                items
                    .into_iter()
                    .map(|item| item.entry)
                    .filter(|entry| entry.name != b"." && entry.name != b".."),
            );
            if entries.len() > MOST_ENTRIES {
                return Err(Error::unsupported(
                    format!("a directory of more than {MOST_ENTRIES} entries"),
                    "list it from within the guest",
                ));
            }
        }
        Ok(entries)
    }

    /// The entry of a name.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub(super) fn dir_lookup(&self, inode: &Inode, name: &[u8]) -> Result<Option<Entry>> {
        let same = |entry: &Entry| {
            if self.sb.is_case_blind() {
                entry.name.eq_ignore_ascii_case(name)
            } else {
                entry.name == name
            }
        };
        match self.dir_form(inode)? {
            Form::Short => {
                let (parent, entries) = short::parse(self, inode)?;
                if name == b".." {
                    return Ok(Some(Entry { name: name.to_vec(), ino: parent, file_type: None }));
                }
                Ok(entries.into_iter().find(same))
            }
            Form::Block => {
                let place = self.dir_place(inode, 0);
                let bytes = self.dir_data(place)?.ok_or_else(|| self.dir_missing(inode, 0))?;
                let items = self.dir_items(place, &bytes)?;
                Ok(items.into_iter().map(|item| item.entry).find(same))
            }
            _ if self.sb.is_case_blind() && name != b".." => {
                // Its hashes are of other letters.
                Ok(self.dir_list(inode)?.into_iter().find(same))
            }
            form => Ok(self.dir_find(inode, form, name)?.map(|(_, _, entry)| entry)),
        }
    }

    /// The parent of a directory.
    pub(super) fn dir_parent(&self, inode: &Inode) -> Result<Ino> {
        let entry = self.dir_lookup(inode, b"..")?;
        entry.map(|entry| entry.ino).ok_or_else(|| {
            Error::corrupt("directory", format!("inode {}", inode.ino), "it has no `..`")
        })
    }

    /// The entry of a name by the index: its hash, its address in units of 8 bytes, itself.
    fn dir_find(
        &self,
        inode: &Inode,
        form: Form,
        name: &[u8],
    ) -> Result<Option<(u32, u32, Entry)>> {
        let hash = num::hash(name);
        let (leaf, _) = self.dir_spaces();
        let root = self.dir_place(inode, leaf);
        let first = if form == Form::Leaf {
            let bytes = self.da_read(root, "directory leaf", true)?;
            Some((leaf, bytes.ok_or_else(|| self.dir_missing(inode, leaf))?))
        } else {
            self.da_leaf_of(root, hash)?
        };
        let Some((mut offset, mut bytes)) = first else { return Ok(None) };
        let mut seen = HashSet::new();
        loop {
            let place = self.dir_place(inode, offset);
            if !seen.insert(offset) {
                return Err(place.corrupt("directory leaf", "its neighbours make a loop"));
            }
            let entries = self.dir_leaf(place, &bytes)?;
            for &(other, address) in entries.iter().filter(|(other, _)| *other == hash) {
                if let Some(entry) = self.dir_entry_at(inode, address)?
                    && entry.name == name
                {
                    return Ok(Some((other, address, entry)));
                }
            }
            let more = entries.last().is_none_or(|(last, _)| *last <= hash);
            let next = Self::dir_leaf_next(&bytes).filter(|_| more && form == Form::Node);
            let Some(next) = next else { return Ok(None) };
            offset = next;
            let place = self.dir_place(inode, offset);
            let read = self.da_read(place, "directory leaf", true)?;
            bytes = read.ok_or_else(|| self.dir_missing(inode, offset))?;
        }
    }

    /// The entry at an address.
    fn dir_entry_at(&self, inode: &Inode, address: u32) -> Result<Option<Entry>> {
        let byte = u64::from(address) * 8;
        let size = to_u64(self.sb.dir_block_size());
        let offset = byte / size * u64::from(self.sb.dir_blocks());
        let place = self.dir_place(inode, offset);
        let bytes = self.dir_data(place)?.ok_or_else(|| self.dir_missing(inode, offset))?;
        let items = self.dir_items(place, &bytes)?;
        let at = to_usize(byte % size);
        items
            .into_iter()
            .find(|item| item.at == at)
            .map(|item| Some(item.entry))
            .ok_or_else(|| place.corrupt("directory index", format!("no entry at byte {at}")))
    }
}
