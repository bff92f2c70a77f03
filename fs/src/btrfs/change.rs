//! Changes: items put and removed, new data, and how they are taken back when an operation fails.

use std::sync::Arc;

use super::layout::{Key, block_group, item_type, objectid};
use super::space::Space;
use super::superblock::{compat_ro, incompat};
use super::units::{Logical, TreeId};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// Data that waits for the commit.
#[derive(Clone, Debug)]
pub struct NewData {
    /// Whole sectors.
    pub bytes: Arc<[u8]>,
    /// Whether it gets checksums.
    pub sums: bool,
}

/// The steps that take an operation back.
#[derive(Debug, Default)]
pub struct Undo {
    items: Vec<Before>,
    data: Vec<(u64, u64)>,
    /// The addresses of chunks that were made.
    pub(super) chunks: Vec<u64>,
}

/// The change that waited for one item before: none, its removal, or new content.
#[derive(Debug)]
struct Before {
    tree: TreeId,
    key: Key,
    change: Option<Option<Arc<[u8]>>>,
}

/// The state of a replacement of a device that is not over: started, suspended.
const REPLACING: [u64; 2] = [1, 4];

impl Volume {
    /// Refuses to change a file system, or a subvolume of it, that must stay as it is.
    pub fn check_writable(&self, tree: TreeId) -> Result<()> {
        if let Some(reason) = &self.sb().read_only {
            return Err(Error::ReadOnly(reason.clone()));
        }
        if !self.checked.get() {
            self.check_balance()?;
            self.checked.set(true);
        }
        match self.root(tree)?.read_only {
            Some(reason) => Err(Error::ReadOnly(reason.into())),
            None => Ok(()),
        }
    }

    /// Refuses to change what the kernel is in the middle of.
    fn check_balance(&self) -> Result<()> {
        let tree = TreeId(objectid::ROOT_TREE);
        let balance = Key::new(objectid::BALANCE, item_type::TEMPORARY_ITEM, 0);
        let reloc = Key::new(objectid::TREE_RELOC, item_type::ROOT_ITEM, 0);
        let last = Key { offset: u64::MAX, ..reloc };
        let running =
            self.get(tree, balance)?.is_some() || self.last_item(tree, reloc, last)?.is_some();
        if running {
            return Err(Error::ReadOnly(
                "a balance was interrupted; mount it and let btrfs balance finish".into(),
            ));
        }
        let devices = TreeId(objectid::DEV_TREE);
        let item = self.get(devices, Key::new(0, item_type::DEV_REPLACE, 0))?;
        let state = item.as_deref().and_then(|item| crate::bytes::le64(item, 32));
        if state.is_some_and(|state| REPLACING.contains(&state)) {
            return Err(Error::ReadOnly(
                "the replacement of a device was interrupted; mount it and let it finish".into(),
            ));
        }
        Ok(())
    }

    /// The transaction that changes belong to.
    pub fn transid(&self) -> u64 {
        self.sb().raw.generation.get() + 1
    }

    /// Does the whole of `work`, or nothing. Attempts do not nest.
    pub fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (device_item, total_bytes) = (self.device_item, self.total_bytes);
        self.undo = Some(Undo::default());
        let result = work(self);
        let undo = self.undo.take().unwrap_or_default();
        if result.is_err() {
            for Before { tree, key, change } in undo.items.into_iter().rev() {
                let changes = self.changes.entry(tree).or_default();
                match change {
                    Some(change) => changes.insert(key, change),
                    None => changes.remove(&key),
                };
            }
            self.device_item = device_item;
            self.total_bytes = total_bytes;
            for (at, length) in undo.data {
                self.data.remove(&at);
                if let Some(space) = &mut self.space {
                    space.give_back(at, length);
                }
            }
            // Their items are gone: nothing may be put there.
            for start in undo.chunks {
                self.store.chunks.remove(start);
                if let Some(space) = &mut self.space {
                    space.remove_group(start);
                }
            }
        }
        result
    }

    fn change(&mut self, tree: TreeId, key: Key, value: Option<Arc<[u8]>>) {
        let before = self.changes.entry(tree).or_default().insert(key, value);
        if let Some(undo) = &mut self.undo {
            undo.items.push(Before { tree, key, change: before });
        }
    }

    /// Puts an item into a tree, in place of one with the same key.
    pub fn put(&mut self, tree: TreeId, key: Key, value: impl Into<Arc<[u8]>>) -> Result<()> {
        let value = value.into();
        if value.len() > self.item_max() {
            return Err(Error::NoSpace(format!(
                "an item of {} bytes does not fit into a tree block of {}",
                value.len(),
                self.sb().node_size
            )));
        }
        self.change(tree, key, Some(value));
        Ok(())
    }

    /// Takes an item out of a tree.
    pub fn remove(&mut self, tree: TreeId, key: Key) {
        self.change(tree, key, None);
    }

    /// Most bytes of an item.
    pub fn item_max(&self) -> usize {
        to_usize(self.sb().node_size) - super::node::HEADER - super::node::ITEM
    }

    /// The free space.
    fn with_space<T>(&mut self, work: impl FnOnce(&mut Space, &Self) -> Result<T>) -> Result<T> {
        let mut space = self.space.take().unwrap_or_else(|| Space::new(self));
        let result = work(&mut space, self);
        self.space = Some(space);
        result
    }

    /// Finds room for new data, whole sectors: one extent of at most `bytes`.
    pub fn allocate_data(&mut self, bytes: u64) -> Result<(u64, u64)> {
        loop {
            let found =
                self.with_space(|space, volume| space.allocate(volume, block_group::DATA, bytes))?;
            match found {
                Some(found) => return Ok(found),
                None => super::new_chunk::make(self, block_group::DATA)?,
            }
        }
    }

    /// Keeps new data until the commit.
    pub fn keep_data(&mut self, at: u64, bytes: Arc<[u8]>, sums: bool) {
        let length = to_u64(bytes.len());
        self.data.insert(at, NewData { bytes, sums });
        if let Some(undo) = &mut self.undo {
            undo.data.push((at, length));
        }
    }

    /// Fills `buf` with data that waits for the commit; says whether it is such data.
    pub fn pending_data(&self, at: Logical, buf: &mut [u8]) -> bool {
        let Some((start, data)) = self.data.range(..=at.0).next_back() else { return false };
        let from = to_usize(at.0 - start);
        match data.bytes.get(from..).and_then(|bytes| bytes.get(..buf.len())) {
            Some(part) => buf.copy_from_slice(part),
            None => return false,
        }
        true
    }

    /// Whether the free space tree is right, so that it is used and kept.
    pub fn has_free_space_tree(&self) -> bool {
        self.sb().has_ro(compat_ro::FREE_SPACE_TREE)
            && self.sb().has_ro(compat_ro::FREE_SPACE_TREE_VALID)
    }

    /// The tree that has block group items.
    pub fn block_group_tree(&self) -> TreeId {
        TreeId(match self.sb().has_ro(compat_ro::BLOCK_GROUP_TREE) {
            true => objectid::BLOCK_GROUP_TREE,
            false => objectid::EXTENT_TREE,
        })
    }

    /// Whether extent items of tree blocks have the level in their key.
    pub fn is_skinny(&self) -> bool {
        self.sb().has(incompat::SKINNY_METADATA)
    }
}
