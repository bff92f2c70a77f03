//! Chunks: where on the device an address is.

use std::collections::BTreeMap;

use super::layout::{Chunk, DiskKey, Stripe, block_group, item_type, objectid, split};
use super::superblock::Super;
use super::units::{Logical, Physical};
use crate::error::{Error, Result};
use crate::num::to_usize;

/// Most chunks that are kept: 1 GiB each make a petabyte.
const CHUNKS_MAX: usize = 1 << 20;

/// One chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Content and profile, of [`block_group`].
    pub flags: u64,
    /// First byte of each copy on the device.
    pub copies: Vec<Physical>,
}

/// All chunks, by their address.
#[derive(Clone, Debug, Default)]
pub struct ChunkMap {
    chunks: BTreeMap<u64, Mapping>,
}

impl ChunkMap {
    /// The system chunks of the superblock.
    pub fn from_super(sb: &Super) -> Result<Self> {
        let size = to_usize(sb.raw.sys_chunk_array_size.get());
        let array = sb.raw.sys_chunk_array.get(..size).ok_or_else(|| {
            corrupt("sys_chunk_array".into(), format!("it says that it has {size} bytes"))
        })?;
        let mut map = Self::default();
        let mut rest = array;
        while !rest.is_empty() {
            let cut = || corrupt("sys_chunk_array".into(), "it ends within a chunk".into());
            let (key, body) = split::<DiskKey>(rest).ok_or_else(cut)?;
            let key = key.get();
            if key.item_type != item_type::CHUNK_ITEM || key.objectid != objectid::FIRST_CHUNK_TREE
            {
                return Err(corrupt("sys_chunk_array".into(), format!("an item with {key}")));
            }
            let (mapping, used) = parse(sb, key.offset, body)?;
            if mapping.flags & block_group::SYSTEM == 0 {
                return Err(corrupt(place(key.offset), "it is no system chunk".into()));
            }
            rest = body.get(used..).ok_or_else(cut)?;
            map.insert(mapping)?;
        }
        Ok(map)
    }

    /// Takes in a chunk item.
    pub fn add(&mut self, sb: &Super, start: u64, item: &[u8]) -> Result<()> {
        let (mapping, _) = parse(sb, start, item)?;
        match self.chunks.get(&start) {
            Some(known) if *known == mapping => Ok(()),
            Some(_) => Err(corrupt(place(start), "the superblock's copy is another one".into())),
            None => self.insert(mapping),
        }
    }

    /// Takes in a chunk that was made.
    pub fn insert(&mut self, mapping: Mapping) -> Result<()> {
        let end = mapping.start.saturating_add(mapping.length);
        let before = self.chunks.range(..=mapping.start).next_back();
        let after = self.chunks.range(mapping.start..).next();
        if before.is_some_and(|(_, chunk)| chunk.start + chunk.length > mapping.start)
            || after.is_some_and(|(start, _)| *start < end)
        {
            return Err(corrupt(place(mapping.start), "it overlaps another chunk".into()));
        }
        if self.chunks.len() >= CHUNKS_MAX {
            return Err(corrupt(place(mapping.start), format!("more than {CHUNKS_MAX} chunks")));
        }
        self.chunks.insert(mapping.start, mapping);
        Ok(())
    }

    /// Takes out the chunk that begins at an address.
    pub fn remove(&mut self, start: u64) {
        self.chunks.remove(&start);
    }

    /// The chunk that an address is in.
    pub fn chunk_at(&self, at: Logical) -> Option<&Mapping> {
        let (_, chunk) = self.chunks.range(..=at.0).next_back()?;
        (at.0 - chunk.start < chunk.length).then_some(chunk)
    }

    /// All chunks in the order of their addresses.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.chunks.values()
    }

    /// The places of each copy of `length` bytes at `at`, which must be in one chunk.
    pub fn map(&self, at: Logical, length: u64) -> Result<Vec<Physical>> {
        let chunk = self
            .chunk_at(at)
            .ok_or_else(|| corrupt(at.to_string(), "no chunk has this address".into()))?;
        let offset = at.0 - chunk.start;
        if length > chunk.length - offset {
            return Err(corrupt(at.to_string(), format!("{length} bytes leave their chunk")));
        }
        Ok(chunk.copies.iter().map(|copy| Physical(copy.0 + offset)).collect())
    }
}

fn place(start: u64) -> String {
    Logical(start).to_string()
}

fn corrupt(position: String, detail: String) -> Error {
    Error::corrupt("chunk", position, detail)
}

/// A chunk item, and how many bytes it has.
fn parse(sb: &Super, start: u64, item: &[u8]) -> Result<(Mapping, usize)> {
    let short = || corrupt(place(start), "its item is too short".into());
    let (chunk, mut rest) = split::<Chunk>(item).ok_or_else(short)?;
    let flags = chunk.r#type.get();
    let (length, count) = (chunk.length.get(), chunk.num_stripes.get());
    let sector = u64::from(sb.sector_size);
    if length == 0
        || !length.is_multiple_of(sector)
        || !start.is_multiple_of(sector)
        || start.checked_add(length).is_none()
    {
        return Err(corrupt(place(start), format!("its length is {length}")));
    }
    if flags & block_group::TYPES == 0 {
        return Err(corrupt(place(start), format!("its type is {flags:#x}")));
    }
    let wanted = match flags & !block_group::TYPES {
        0 => 1,
        block_group::DUP => 2,
        _ => {
            return Err(Error::unsupported(
                format!("the btrfs profile {}", block_group::profile(flags & !block_group::DUP)),
                "single and DUP on one device are known; use the kernel (--vm)",
            ));
        }
    };
    if count != wanted {
        return Err(corrupt(place(start), format!("it has {count} stripes instead of {wanted}")));
    }
    let mut copies = Vec::new();
    for _ in 0..count {
        let (stripe, after) = split::<Stripe>(rest).ok_or_else(short)?;
        rest = after;
        if stripe.devid.get() != sb.raw.dev_item.devid.get() {
            return Err(corrupt(place(start), format!("it is on device {}", stripe.devid.get())));
        }
        let end = stripe.offset.get().checked_add(length);
        if end.is_none_or(|end| end > sb.raw.dev_item.total_bytes.get()) {
            return Err(corrupt(
                place(start),
                format!("a copy at byte {} leaves the device", stripe.offset.get()),
            ));
        }
        copies.push(Physical(stripe.offset.get()));
    }
    let used = size_of::<Chunk>() + size_of::<Stripe>() * usize::from(count);
    Ok((Mapping { start, length, flags, copies }, used))
}
