//! Free space: what may be given out, block group by block group.

use std::collections::BTreeMap;

use super::layout::{FreeSpaceInfo, Key, block_group, item_type, objectid, split};
use super::superblock::{MIRRORS, RESERVED};
use super::units::{Logical, TreeId};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// Bytes around each copy of the superblock that are not given out.
const SUPER_STRIPE: u64 = 64 << 10;
/// Block groups that are looked at before a shorter run is taken.
const GROUPS_LOOKED_AT: usize = 8;
/// Most items that are looked at for the extent before an address.
const LOOKS_MAX: usize = 4096;
/// Bit of `free_space_info.flags`: the free space is kept as bitmaps.
pub const USING_BITMAPS: u32 = 1;
/// Bits of one bitmap item.
pub const BITMAP_BITS: u64 = 2048;

/// A block group.
#[derive(Clone, Debug)]
struct Group {
    start: u64,
    length: u64,
    flags: u64,
    /// Free runs, start and length; `None` until they are needed.
    free: Option<BTreeMap<u64, u64>>,
}

/// The free space of all block groups, less the part that was given out.
#[derive(Clone, Debug)]
pub struct Space {
    groups: Vec<Group>,
    sector: u64,
    node: u64,
}

impl Space {
    /// Nothing is read yet.
    pub fn new(volume: &Volume) -> Self {
        let groups = volume.store.chunks.iter().map(|chunk| Group {
            start: chunk.start,
            length: chunk.length,
            flags: chunk.flags,
            free: None,
        });
        let (sector, node) = (volume.sb().sector_size.into(), volume.sb().node_size.into());
        Self { groups: groups.collect(), sector, node }
    }

    /// Takes in a new block group, all of which is free.
    pub fn add_group(&mut self, volume: &Volume, start: u64, length: u64, flags: u64) {
        let mut free = BTreeMap::from([(start, length)]);
        exclude(volume, start, length, &mut free);
        self.groups.push(Group { start, length, flags, free: Some(free) });
    }

    /// Takes out the block group that begins at an address.
    pub fn remove_group(&mut self, start: u64) {
        self.groups.retain(|group| group.start != start);
    }

    /// Takes a run of at most `wanted` bytes from the groups with the content `kind`: a tree block
    /// as a whole, data as much as there is in one piece. `None` when all is full.
    pub fn allocate(
        &mut self,
        volume: &Volume,
        kind: u64,
        wanted: u64,
    ) -> Result<Option<(u64, u64)>> {
        let is_data = kind == block_group::DATA;
        let sector = self.sector;
        let align = if is_data { sector } else { self.node };
        let mut best: Option<(usize, u64, u64)> = None;
        let mut looked_at = 0;
        for index in (0..self.groups.len()).rev() {
            if self.groups[index].flags & kind == 0 {
                continue;
            }
            if looked_at >= GROUPS_LOOKED_AT && is_data && best.is_some() {
                break;
            }
            looked_at += 1;
            for (&start, &length) in self.load(volume, index)? {
                let aligned = start.next_multiple_of(align);
                let room = (start + length).saturating_sub(aligned) / sector * sector;
                let enough = room >= wanted;
                let better = best.is_none_or(|(_, _, most)| room > most);
                if enough || is_data && room > 0 && better {
                    best = Some((index, aligned, room.min(wanted)));
                }
                if enough {
                    break;
                }
            }
            if best.is_some_and(|(_, _, room)| room == wanted) {
                break;
            }
        }
        let Some((index, start, length)) = best else { return Ok(None) };
        if !is_unused(volume, start, length)? {
            return Err(Error::corrupt(
                "free space",
                Logical(start).to_string(),
                format!("{length} bytes there are said to be free and are used"),
            ));
        }
        if let Some(free) = &mut self.groups[index].free {
            take(free, start, length);
        }
        Ok(Some((start, length)))
    }

    /// Free bytes in the groups with the content `kind`, as far as they are needed to say that there
    /// are `enough`.
    pub fn free_bytes(&mut self, volume: &Volume, kind: u64, enough: u64) -> Result<u64> {
        let mut sum = 0u64;
        for index in (0..self.groups.len()).rev() {
            if self.groups[index].flags & kind != 0 && sum < enough {
                sum += self.load(volume, index)?.values().sum::<u64>();
            }
        }
        Ok(sum)
    }

    /// Takes back what was given out and not used.
    pub fn give_back(&mut self, start: u64, length: u64) {
        let group = self
            .groups
            .iter_mut()
            .find(|group| (group.start..group.start + group.length).contains(&start));
        if let Some(Group { free: Some(free), .. }) = group {
            free.insert(start, length);
        }
    }

    fn load(&mut self, volume: &Volume, index: usize) -> Result<&BTreeMap<u64, u64>> {
        let group = &mut self.groups[index];
        let free = match group.free.take() {
            Some(free) => free,
            None => {
                let mut free = match volume.has_free_space_tree() {
                    true => from_tree(volume, group.start, group.length)?,
                    false => from_extents(volume, group.start, group.length)?,
                };
                exclude(volume, group.start, group.length, &mut free);
                free
            }
        };
        Ok(group.free.insert(free))
    }
}

/// Takes bytes out of free runs; those that are not free stay so.
fn take(free: &mut BTreeMap<u64, u64>, start: u64, length: u64) {
    let end = start + length;
    let hit: Vec<(u64, u64)> = free
        .range(..end)
        .rev()
        .map(|(start, length)| (*start, *length))
        .take_while(|(at, length)| at + length > start)
        .collect();
    for (at, length) in hit {
        free.remove(&at);
        if at < start {
            free.insert(at, start - at);
        }
        if at + length > end {
            free.insert(end, at + length - end);
        }
    }
}

/// Takes out what the copies of the superblock and the beginning of the device have.
fn exclude(volume: &Volume, start: u64, length: u64, free: &mut BTreeMap<u64, u64>) {
    let Some(chunk) = volume.store.chunks.chunk_at(Logical(start)) else { return };
    let stripes = MIRRORS.iter().map(|at| (*at, SUPER_STRIPE)).chain([(0, RESERVED)]);
    for (reserved, bytes) in stripes {
        for copy in &chunk.copies {
            let from = reserved.max(copy.0);
            let to = (reserved + bytes).min(copy.0 + length);
            if from < to {
                take(free, start + (from - copy.0), to - from);
            }
        }
    }
}

/// The free runs of a group by the free space tree.
fn from_tree(volume: &Volume, start: u64, length: u64) -> Result<BTreeMap<u64, u64>> {
    let end = start + length;
    let sector = u64::from(volume.sb().sector_size);
    let corrupt = |at: u64, detail: String| {
        Error::corrupt("free space tree", Logical(at).to_string(), detail)
    };
    let tree = TreeId(objectid::FREE_SPACE_TREE);
    let info = volume.get(tree, Key::new(start, item_type::FREE_SPACE_INFO, length))?;
    let info = info.ok_or_else(|| corrupt(start, "the block group is missing".into()))?;
    let (info, _) = split::<FreeSpaceInfo>(&info)
        .ok_or_else(|| corrupt(start, "its information is too short".into()))?;
    let bitmaps = info.flags.get() & USING_BITMAPS != 0;
    let mut out = BTreeMap::new();
    let mut run: Option<(u64, u64)> = None;
    let mut items = volume.items(tree, Key::new(start, 0, 0), Key::new(end - 1, 255, u64::MAX))?;
    while let Some((key, item)) = items.next_item()? {
        let inside = key.objectid.checked_add(key.offset).is_some_and(|last| last <= end);
        match key.item_type {
            item_type::FREE_SPACE_INFO => {}
            item_type::FREE_SPACE_EXTENT if !bitmaps && inside && key.offset > 0 => {
                out.insert(key.objectid, key.offset);
            }
            item_type::FREE_SPACE_BITMAP if bitmaps && inside => {
                let bits = key.offset / sector;
                if bits > BITMAP_BITS || to_u64(item.len()) < bits.div_ceil(8) {
                    return Err(corrupt(key.objectid, format!("a bitmap of {bits} bits")));
                }
                for bit in 0..bits {
                    let at = key.objectid + bit * sector;
                    let is_free = item[to_usize(bit / 8)] >> (bit % 8) & 1 != 0;
                    run = match run {
                        Some((from, to)) if is_free && to == at => Some((from, at + sector)),
                        Some((from, to)) if is_free => {
                            out.insert(from, to - from);
                            Some((at, at + sector))
                        }
                        None if is_free => Some((at, at + sector)),
                        other => other,
                    };
                }
            }
            _ => return Err(corrupt(key.objectid, format!("an item with {key}"))),
        }
    }
    if let Some((from, to)) = run {
        out.insert(from, to - from);
    }
    Ok(out)
}

/// The free runs of a group: what no extent has.
fn from_extents(volume: &Volume, start: u64, length: u64) -> Result<BTreeMap<u64, u64>> {
    let end = start + length;
    let mut out = BTreeMap::new();
    let mut next = start;
    let first = Key::new(start, 0, 0);
    let tree = TreeId(objectid::EXTENT_TREE);
    let mut items = volume.items(tree, first, Key::new(end - 1, 255, u64::MAX))?;
    while let Some((key, _)) = items.next_item()? {
        let Some(bytes) = extent_bytes(volume, key) else { continue };
        if key.objectid > next {
            out.insert(next, key.objectid - next);
        }
        next = next.max(key.objectid.saturating_add(bytes));
    }
    if next < end {
        out.insert(next, end - next);
    }
    Ok(out)
}

/// The bytes of the extent with a key; `None` where the key is none of an extent.
pub fn extent_bytes(volume: &Volume, key: Key) -> Option<u64> {
    match key.item_type {
        item_type::EXTENT_ITEM => Some(key.offset),
        item_type::METADATA_ITEM => Some(volume.sb().node_size.into()),
        _ => None,
    }
}

/// Whether no extent item has any of these bytes: the free space tree may be wrong.
fn is_unused(volume: &Volume, start: u64, length: u64) -> Result<bool> {
    let tree = TreeId(objectid::EXTENT_TREE);
    let mut bound = Key::new(start + length - 1, u8::MAX, u64::MAX);
    // An extent may have items of references, and each block group that is empty has one of its own.
    for _ in 0..LOOKS_MAX {
        let Some((key, _)) = volume.last_item(tree, Key::MIN, bound)? else { return Ok(true) };
        if let Some(bytes) = extent_bytes(volume, key) {
            return Ok(key.objectid.saturating_add(bytes) <= start);
        }
        bound = Key::new(key.objectid, item_type::METADATA_ITEM, u64::MAX);
        if key <= bound {
            return Err(Error::corrupt(
                "extent tree",
                Logical(key.objectid).to_string(),
                format!("an item with {key}"),
            ));
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_cut() {
        let mut free = BTreeMap::from([(10, 10), (30, 10), (50, 10)]);
        take(&mut free, 15, 40);
        assert_eq!(free, BTreeMap::from([(10, 5), (55, 5)]));
        take(&mut free, 11, 2);
        assert_eq!(free, BTreeMap::from([(10, 1), (13, 2), (55, 5)]));
        take(&mut free, 20, 10);
        assert_eq!(free.len(), 3);
    }
}
