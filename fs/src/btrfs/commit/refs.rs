//! References to extents: counted while trees are changed, then put into the extent tree.

use std::collections::BTreeMap;

use super::super::layout::{ExtentDataRef, Key, TreeBlockInfo, item_type, objectid, split};
use super::super::node::{HEADER, ITEM, Value};
use super::super::units::{Logical, TreeId};
use super::Commit;
use super::draft::Draft;
use super::extent_item::{DATA, Extent, FULL_BACKREF, TREE_BLOCK};
use crate::error::{Error, Result};
use crate::num::{to_i64, to_u32, to_usize};

/// The owner of a reference to an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ref {
    /// A tree, to a block of its own.
    Tree(u64),
    /// The tree block with this address, to a tree block.
    SharedBlock(u64),
    /// A file, to data.
    Data {
        /// Its subvolume.
        root: u64,
        /// Its inode.
        inode: u64,
        /// The place in the file where the extent would begin.
        offset: u64,
    },
    /// The tree block with this address, to data.
    SharedData(u64),
}

/// The changes of one extent's references.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Its bytes.
    bytes: u64,
    /// The level of a tree block; `None` for data.
    level: Option<u8>,
    /// By how much each reference changes.
    deltas: BTreeMap<Ref, i64>,
    /// Whether the tree block becomes one that others know by its address.
    full_backref: bool,
}

const EXTENTS: TreeId = TreeId(objectid::EXTENT_TREE);

impl Commit<'_> {
    /// Counts references to a tree block.
    pub(super) fn count_block(&mut self, at: u64, level: u8, what: Ref, delta: i64) {
        let bytes = self.volume.sb().node_size.into();
        self.count(at, bytes, Some(level), what, delta);
    }

    /// Counts references to data.
    pub(super) fn count_data(&mut self, at: u64, bytes: u64, what: Ref, delta: i64) -> Result<()> {
        if self.pending.get(&at).is_some_and(|known| known.bytes != bytes) {
            return Err(corrupt(at, format!("files say that it has different sizes, {bytes}")));
        }
        self.count(at, bytes, None, what, delta);
        Ok(())
    }

    fn count(&mut self, at: u64, bytes: u64, level: Option<u8>, what: Ref, delta: i64) {
        if delta == 0 {
            return;
        }
        let pending = self.pending.entry(at).or_insert_with(|| Pending {
            bytes,
            level,
            deltas: BTreeMap::new(),
            full_backref: false,
        });
        let sum = pending.deltas.entry(what).or_default();
        *sum += delta;
        if *sum == 0 {
            pending.deltas.remove(&what);
        }
    }

    /// Notes that what a tree block refers to knows it by its address from now on.
    pub(super) fn mark_full_backref(&mut self, at: u64, level: u8) {
        let bytes = self.volume.sb().node_size.into();
        let pending = self.pending.entry(at).or_insert_with(|| Pending {
            bytes,
            level: Some(level),
            deltas: BTreeMap::new(),
            full_backref: false,
        });
        pending.full_backref = true;
    }

    /// The extents that are referred to by more than before: addresses and references.
    pub(super) fn gained(&self, at: u64) -> bool {
        let pending = self.pending.get(&at);
        pending.is_some_and(|pending| pending.deltas.values().sum::<i64>() > 0)
    }

    /// How many refer to a tree block, and whether what it refers to knows it by its address.
    pub(super) fn block_state(&self, at: u64, level: u8) -> Result<(u64, bool)> {
        let found = self.find(at, self.volume.sb().node_size.into(), Some(level))?;
        let (mut refs, mut flags) = (0, 0);
        if let Some((key, item)) = found {
            let extent = Extent::parse(key, &item)?;
            (refs, flags) = (extent.refs, extent.flags);
        }
        let mut full = flags & FULL_BACKREF != 0;
        if let Some(pending) = self.pending.get(&at) {
            full |= pending.full_backref;
            let delta = pending.deltas.values().sum::<i64>();
            refs = refs
                .checked_add_signed(delta)
                .ok_or_else(|| corrupt(at, format!("{refs} references, then {delta}")))?;
        }
        Ok((refs, full))
    }

    /// The item of an extent.
    fn find(&self, at: u64, bytes: u64, level: Option<u8>) -> Result<Option<(Key, Value)>> {
        if let Some(level) = level {
            let key = Key::new(at, item_type::METADATA_ITEM, level.into());
            if let Some(item) = self.get(EXTENTS, key)? {
                return Ok(Some((key, item)));
            }
        }
        let key = Key::new(at, item_type::EXTENT_ITEM, bytes);
        Ok(self.get(EXTENTS, key)?.map(|item| (key, item)))
    }

    /// Puts what waits for one extent into the extent tree.
    pub(super) fn apply_refs(&mut self, at: u64, pending: Pending) -> Result<()> {
        let total: i64 = pending.deltas.values().sum();
        let Some((key, item)) = self.find(at, pending.bytes, pending.level)? else {
            return match total {
                // A block that was made and given up at once.
                0 if pending.deltas.is_empty() => Ok(()),
                1.. => self.add_extent(at, &pending, total.cast_unsigned()),
                _ => Err(corrupt(at, "it has no extent item".into())),
            };
        };
        let mut extent = Extent::parse(key, &item)?;
        let is_block = extent.flags & TREE_BLOCK != 0;
        if is_block != pending.level.is_some() {
            return Err(corrupt(at, format!("its flags are {:#x}", extent.flags)));
        }
        // Removals make room for insertions.
        for rising in [false, true] {
            for (&what, &delta) in
                pending.deltas.iter().filter(|(_, delta)| (**delta > 0) == rising)
            {
                self.change_ref(key, &mut extent, what, delta)?;
            }
        }
        extent.refs = extent
            .refs
            .checked_add_signed(total)
            .ok_or_else(|| corrupt(at, format!("{} references, then {total}", extent.refs)))?;
        if extent.refs == 0 {
            if !extent.inline.is_empty() {
                return Err(corrupt(at, "a reference is left that nobody counted".into()));
            }
            self.set(EXTENTS, key, None)?;
            self.note_move(false, at, pending.bytes);
            if !is_block {
                self.remove_sums(at, pending.bytes)?;
            }
            return Ok(());
        }
        if pending.full_backref {
            extent.flags |= FULL_BACKREF;
        }
        self.set(EXTENTS, key, Some(Value::copy(&extent.bytes())))
    }

    /// Puts a new extent into the extent tree.
    fn add_extent(&mut self, at: u64, pending: &Pending, refs: u64) -> Result<()> {
        if pending.deltas.values().any(|delta| *delta < 0) {
            return Err(corrupt(at, "it has no extent item".into()));
        }
        let skinny = self.volume.is_skinny();
        let (key, flags, info) = match pending.level {
            None => (Key::new(at, item_type::EXTENT_ITEM, pending.bytes), DATA, None),
            Some(level) if skinny => {
                (Key::new(at, item_type::METADATA_ITEM, level.into()), TREE_BLOCK, None)
            }
            Some(level) => {
                let first = self.drafts.get(&at).and_then(Draft::first_key).unwrap_or(Key::MIN);
                let info = TreeBlockInfo { key: first.into(), level };
                let key = Key::new(at, item_type::EXTENT_ITEM, pending.bytes);
                (key, TREE_BLOCK, Some(info))
            }
        };
        let mut extent = Extent { refs, generation: self.transid, flags, info, inline: Vec::new() };
        for (&what, &delta) in &pending.deltas {
            self.change_ref(key, &mut extent, what, delta)?;
        }
        self.set(EXTENTS, key, Some(Value::copy(&extent.bytes())))?;
        self.note_move(true, at, pending.bytes);
        Ok(())
    }

    /// Changes how often one reference is there, inside the extent item or in an item of its own.
    fn change_ref(&mut self, key: Key, extent: &mut Extent, what: Ref, delta: i64) -> Result<()> {
        let at = key.objectid;
        let sum = |count: u64| {
            let sum = count.checked_add_signed(delta).filter(|sum| *sum <= u32::MAX.into());
            sum.ok_or_else(|| corrupt(at, format!("{count} references {what:?}, then {delta}")))
        };
        if let Some(index) = extent.inline.iter().position(|(known, _)| *known == what) {
            match sum(extent.inline[index].1)? {
                0 => {
                    extent.inline.remove(index);
                }
                count => extent.inline[index].1 = count,
            }
            return Ok(());
        }
        let (own, known) = self.own_item(at, what)?;
        if let Some(count) = known {
            let count = sum(count)?;
            return self.set_own_item(own, what, count);
        }
        let count = sum(0)?;
        if count == 0 {
            return Ok(());
        }
        if matches!(what, Ref::Tree(_) | Ref::SharedBlock(_)) && count > 1 {
            return Err(corrupt(at, format!("{what:?} refers to it {count} times")));
        }
        // As the kernel does: inside as long as there are no items of their own.
        let size = extent.bytes().len() + what.inline_size();
        let most = (to_usize(self.volume.sb().node_size) - HEADER) / 16 - ITEM;
        let next = key.next().map(|next| self.first(EXTENTS, next)).transpose()?.flatten();
        let has_own = next.is_some_and(|(next, _)| {
            next.objectid == at && next.item_type < item_type::BLOCK_GROUP_ITEM
        });
        if size < most && !has_own {
            extent.inline.push((what, count));
            return Ok(());
        }
        self.set_own_item(own, what, count)
    }

    /// The key of a reference's own item, and how often it says the reference is there; without
    /// an item the key is one that is free.
    fn own_item(&self, at: u64, what: Ref) -> Result<(Key, Option<u64>)> {
        let mut key = Key::new(at, what.item_type(), what.key_offset());
        match what {
            Ref::Tree(_) | Ref::SharedBlock(_) => Ok((key, self.get(EXTENTS, key)?.map(|_| 1))),
            Ref::SharedData(_) => {
                let item = self.get(EXTENTS, key)?;
                let count = item.map(|item| crate::bytes::le32(&item, 0).unwrap_or(0).into());
                Ok((key, count))
            }
            // Different references may have the same hash: they come one after the other.
            Ref::Data { .. } => loop {
                let Some(item) = self.get(EXTENTS, key)? else { return Ok((key, None)) };
                let (data, _) = split::<ExtentDataRef>(&item)
                    .ok_or_else(|| corrupt(at, "a reference's item is too short".into()))?;
                if Ref::of(data) == what {
                    return Ok((key, Some(data.count.get().into())));
                }
                key.offset = key.offset.wrapping_add(1);
            },
        }
    }

    fn set_own_item(&mut self, key: Key, what: Ref, count: u64) -> Result<()> {
        let item = match (what, count) {
            (_, 0) => None,
            (Ref::Tree(_) | Ref::SharedBlock(_), _) => Some(Vec::new()),
            (Ref::SharedData(_), _) => Some(to_u32(count).to_le_bytes().to_vec()),
            (Ref::Data { .. }, _) => Some(what.data_bytes(count)),
        };
        self.set(EXTENTS, key, item.map(|item| Value::copy(&item)))
    }

    /// Notes that an extent was allocated or freed.
    fn note_move(&mut self, allocated: bool, at: u64, bytes: u64) {
        let signed = if allocated { to_i64(bytes) } else { -to_i64(bytes) };
        self.bytes_used += signed;
        if let Some(chunk) = self.volume.store.chunks.chunk_at(Logical(at)) {
            *self.group_use.entry(chunk.start).or_default() += signed;
        }
        self.moves.push_back((allocated, at, bytes));
    }
}

fn corrupt(at: u64, detail: String) -> Error {
    Error::corrupt("extent tree", Logical(at).to_string(), detail)
}
