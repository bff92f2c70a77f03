//! A tree block: checked as a whole when it is read, then looked into.

use std::ops::Range;
use std::sync::Arc;

use super::layout::{Header, ItemHeader, Key, KeyPtr, split};
use super::units::{Logical, TreeId};
use crate::error::{Error, Result};
use crate::num::to_usize;

/// Bytes of a block's header.
pub const HEADER: usize = size_of::<Header>();
/// Bytes of an item's place in a leaf.
pub const ITEM: usize = size_of::<ItemHeader>();
/// Bytes of a pointer.
pub const POINTER: usize = size_of::<KeyPtr>();
/// Levels that a tree may have.
pub const LEVELS_MAX: u8 = 8;

/// A tree block whose structure is right.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its address.
    pub at: Logical,
    bytes: Arc<[u8]>,
    count: usize,
    level: u8,
}

/// A pointer to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The child's first key.
    pub key: Key,
    /// Its address.
    pub at: Logical,
    /// Its generation.
    pub generation: u64,
}

/// An item's content; cheap to clone.
#[derive(Clone, Debug)]
pub struct Value {
    bytes: Arc<[u8]>,
    range: Range<usize>,
}

impl Value {
    /// A copy of bytes.
    pub fn copy(bytes: &[u8]) -> Self {
        Self::from(Arc::<[u8]>::from(bytes))
    }
}

impl std::ops::Deref for Value {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }
}

impl From<Arc<[u8]>> for Value {
    fn from(bytes: Arc<[u8]>) -> Self {
        let range = 0..bytes.len();
        Self { bytes, range }
    }
}

fn corrupt(at: Logical, detail: impl Into<String>) -> Error {
    Error::corrupt("tree block", at.to_string(), detail)
}

impl Node {
    /// Checks the structure of a block whose checksum, address and level were checked before.
    pub fn parse(at: Logical, bytes: Arc<[u8]>) -> Result<Self> {
        let Some((header, _)) = split::<Header>(&bytes) else {
            return Err(corrupt(at, "it is too short"));
        };
        let level = header.level;
        let count = to_usize(header.nritems.get());
        let size = if level == 0 { ITEM } else { POINTER };
        let room = bytes.len() - HEADER;
        if count > room / size {
            return Err(corrupt(at, format!("it says that it has {count} items")));
        }
        if level >= LEVELS_MAX {
            return Err(corrupt(at, format!("its level is {level}")));
        }
        if level > 0 && count == 0 {
            return Err(corrupt(at, "it has no pointers"));
        }
        let node = Self { at, bytes, count, level };
        node.check_order()?;
        if level == 0 {
            node.check_items(room)?;
        }
        Ok(node)
    }

    fn check_order(&self) -> Result<()> {
        for index in 1..self.count {
            if self.key(index - 1) >= self.key(index) {
                return Err(corrupt(
                    self.at,
                    format!("item {index}, {}, is out of order", self.key(index)),
                ));
            }
        }
        Ok(())
    }

    /// Items lie one before the other, the first one at the end of the block.
    fn check_items(&self, room: usize) -> Result<()> {
        let mut end = room;
        for index in 0..self.count {
            let Some(item) = self.item_header(index) else {
                return Err(corrupt(self.at, format!("item {index} is missing")));
            };
            let (offset, size) = (to_usize(item.offset.get()), to_usize(item.size.get()));
            if offset.checked_add(size) != Some(end) || offset < self.count * ITEM {
                return Err(corrupt(
                    self.at,
                    format!("item {index} has {size} bytes at {offset}, its neighbour is at {end}"),
                ));
            }
            end = offset;
        }
        Ok(())
    }

    /// The level: 0 for a leaf.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Items or pointers.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The header; zeros where there is none, which cannot be.
    pub fn header(&self) -> Option<&Header> {
        split::<Header>(&self.bytes).map(|(header, _)| header)
    }

    /// The tree that it was made for.
    pub fn owner(&self) -> TreeId {
        TreeId(self.header().map_or(0, |header| header.owner.get()))
    }

    /// The transaction that wrote it.
    pub fn generation(&self) -> u64 {
        self.header().map_or(0, |header| header.generation.get())
    }

    fn item_header(&self, index: usize) -> Option<&ItemHeader> {
        Some(split::<ItemHeader>(self.bytes.get(HEADER + index * ITEM..)?)?.0)
    }

    /// The key of an item or pointer; [`Key::MAX`] beyond the last one.
    pub fn key(&self, index: usize) -> Key {
        let at = HEADER + index * if self.level == 0 { ITEM } else { POINTER };
        let key = self.bytes.get(at..).and_then(split::<super::layout::DiskKey>);
        match key {
            Some((key, _)) if index < self.count => key.get(),
            _ => Key::MAX,
        }
    }

    /// The content of an item of a leaf; empty beyond the last one.
    pub fn value(&self, index: usize) -> Value {
        let range = match self.item_header(index) {
            Some(item) if self.level == 0 && index < self.count => {
                let start = HEADER + to_usize(item.offset.get());
                start..start + to_usize(item.size.get())
            }
            _ => 0..0,
        };
        Value { bytes: self.bytes.clone(), range }
    }

    /// A pointer of a block that is no leaf.
    pub fn pointer(&self, index: usize) -> Option<Pointer> {
        if self.level == 0 || index >= self.count {
            return None;
        }
        let (ptr, _) = split::<KeyPtr>(self.bytes.get(HEADER + index * POINTER..)?)?;
        Some(Pointer {
            key: ptr.key.get(),
            at: Logical(ptr.blockptr.get()),
            generation: ptr.generation.get(),
        })
    }

    /// The first index whose key is not below `key`.
    pub fn lower_bound(&self, key: Key) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = (low + high) / 2;
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The pointer to follow for `key`: the last one whose key is not above it, or the first.
    pub fn child_for(&self, key: Key) -> usize {
        let bound = self.lower_bound(key);
        if self.key(bound) == key && bound < self.count { bound } else { bound.saturating_sub(1) }
    }
}
