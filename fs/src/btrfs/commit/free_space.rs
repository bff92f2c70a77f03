//! The free space tree: extents or bitmaps of each block group.

use zerocopy::{FromBytes, IntoBytes};

use super::super::layout::{FreeSpaceInfo, Key, item_type, objectid};
use super::super::node::Value;
use super::super::space::USING_BITMAPS;
use super::super::units::{Logical, TreeId};
use super::Commit;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

const FREE: TreeId = TreeId(objectid::FREE_SPACE_TREE);

/// A block group in the tree.
struct Group {
    start: u64,
    end: u64,
    key: Key,
    info: FreeSpaceInfo,
}

fn corrupt(at: u64, detail: impl Into<String>) -> Error {
    Error::corrupt("free space tree", Logical(at).to_string(), detail)
}

impl Commit<'_> {
    /// Notes in the tree that bytes are not free any more, or are free now.
    pub(super) fn move_space(&mut self, allocated: bool, start: u64, length: u64) -> Result<()> {
        if !self.volume.has_free_space_tree() {
            return Ok(());
        }
        let mut group = self.group_of(start, length)?;
        let delta = match (group.info.flags.get() & USING_BITMAPS != 0, allocated) {
            (true, _) => self.change_bits(&group, start, length, !allocated)?,
            (false, true) => self.take_extent(start, length)?,
            (false, false) => self.add_extent_of(&group, start, length)?,
        };
        let count = i64::from(group.info.extent_count.get()) + delta;
        let count = u32::try_from(count)
            .map_err(|_| corrupt(group.start, format!("{count} free extents")))?;
        if delta != 0 {
            group.info.extent_count = count.into();
            self.set(FREE, group.key, Some(Value::copy(group.info.as_bytes())))?;
        }
        Ok(())
    }

    fn group_of(&self, start: u64, length: u64) -> Result<Group> {
        let chunk = self.volume.store.chunks.chunk_at(Logical(start));
        let chunk = chunk.ok_or_else(|| corrupt(start, "it is in no chunk"))?;
        let end = chunk.start + chunk.length;
        if length > end - start {
            return Err(corrupt(start, format!("{length} bytes leave their block group")));
        }
        let key = Key::new(chunk.start, item_type::FREE_SPACE_INFO, chunk.length);
        let item = self.get(FREE, key)?;
        let item = item.ok_or_else(|| corrupt(chunk.start, "the block group is missing"))?;
        let info = FreeSpaceInfo::read_from_bytes(&item)
            .map_err(|_| corrupt(chunk.start, format!("{} bytes", item.len())))?;
        Ok(Group { start: chunk.start, end, key, info })
    }

    /// Takes bytes out of the free extent that has them; says by how many there are more.
    fn take_extent(&mut self, start: u64, length: u64) -> Result<i64> {
        let end = start + length;
        let found = self.last(FREE, Key::new(start, item_type::FREE_SPACE_EXTENT, u64::MAX))?;
        let Some((key, _)) = found.filter(|(key, _)| {
            key.item_type == item_type::FREE_SPACE_EXTENT
                && key.objectid.checked_add(key.offset).is_some_and(|last| last >= end)
        }) else {
            return Err(corrupt(start, format!("{length} bytes there are not free")));
        };
        let last = key.objectid + key.offset;
        self.set(FREE, key, None)?;
        let mut delta = -1;
        for (from, to) in [(key.objectid, start), (end, last)] {
            if from < to {
                let piece = Key::new(from, item_type::FREE_SPACE_EXTENT, to - from);
                self.set(FREE, piece, Some(Value::copy(&[])))?;
                delta += 1;
            }
        }
        Ok(delta)
    }

    /// Adds a free extent, joined with its neighbours; says by how many there are more.
    fn add_extent_of(&mut self, group: &Group, start: u64, length: u64) -> Result<i64> {
        let (mut from, mut to) = (start, start + length);
        let mut delta = 1;
        let before = self.last(FREE, Key::new(start, u8::MAX, u64::MAX))?;
        if let Some((key, _)) = before
            && key.item_type == item_type::FREE_SPACE_EXTENT
            && key.objectid >= group.start
        {
            let last = key.objectid.saturating_add(key.offset);
            if last > start {
                return Err(corrupt(start, format!("{length} bytes there are free already")));
            }
            if last == start {
                self.set(FREE, key, None)?;
                from = key.objectid;
                delta -= 1;
            }
        }
        if to < group.end {
            let next = self.first(FREE, Key::new(to, item_type::FREE_SPACE_EXTENT, 0))?;
            if let Some((key, _)) = next
                && (key.objectid, key.item_type) == (to, item_type::FREE_SPACE_EXTENT)
            {
                self.set(FREE, key, None)?;
                to = to.saturating_add(key.offset);
                delta -= 1;
            }
        }
        let key = Key::new(from, item_type::FREE_SPACE_EXTENT, to - from);
        self.set(FREE, key, Some(Value::copy(&[])))?;
        Ok(delta)
    }

    /// Sets or clears the bits of bytes; says by how many there are more free extents.
    fn change_bits(&mut self, group: &Group, start: u64, length: u64, free: bool) -> Result<i64> {
        let sector = u64::from(self.volume.sb().sector_size);
        let end = start + length;
        let before = start > group.start && self.bit(start - sector)?;
        let after = end < group.end && self.bit(end)?;
        let mut at = start;
        while at < end {
            let (key, mut item) = self.bitmap(at)?;
            let stop = end.min(key.objectid + key.offset);
            while at < stop {
                let bit = (at - key.objectid) / sector;
                let (byte, mask) = (to_usize(bit / 8), 1u8 << (bit % 8));
                if (item[byte] & mask != 0) == free {
                    return Err(corrupt(at, "a bit is what it should become"));
                }
                item[byte] ^= mask;
                at += sector;
            }
            self.set(FREE, key, Some(Value::copy(&item)))?;
        }
        let joined = i64::from(before) + i64::from(after);
        Ok(if free { 1 - joined } else { joined - 1 })
    }

    fn bit(&self, at: u64) -> Result<bool> {
        let (key, item) = self.bitmap(at)?;
        let bit = (at - key.objectid) / u64::from(self.volume.sb().sector_size);
        Ok(item[to_usize(bit / 8)] >> (bit % 8) & 1 != 0)
    }

    /// The bitmap that has a byte.
    fn bitmap(&self, at: u64) -> Result<(Key, Vec<u8>)> {
        let found = self.last(FREE, Key::new(at, item_type::FREE_SPACE_BITMAP, u64::MAX))?;
        let sector = u64::from(self.volume.sb().sector_size);
        found
            .filter(|(key, item)| {
                key.item_type == item_type::FREE_SPACE_BITMAP
                    && at - key.objectid < key.offset
                    && key.objectid.checked_add(key.offset).is_some()
                    && to_u64(item.len()) >= (key.offset / sector).div_ceil(8)
            })
            .map(|(key, item)| (key, item.to_vec()))
            .ok_or_else(|| corrupt(at, "no bitmap has it"))
    }
}
