//! New chunks and a larger device: changes of the chunk tree and of what goes with it.

use std::collections::BTreeMap;

use zerocopy::{FromBytes, IntoBytes};

use super::chunk::Mapping;
use super::layout::{
    BlockGroupItem, Chunk, DevExtent, DevItem, FreeSpaceInfo, Key, Stripe, block_group, item_type,
    objectid, split,
};
use super::space::Space;
use super::superblock::RESERVED;
use super::units::{Physical, TreeId};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u16, to_u32, to_u64};

/// The unit of chunks.
const STRIPE: u64 = 64 << 10;
/// No chunk is smaller.
const SMALLEST: u64 = 1 << 20;
/// No data chunk is larger.
const DATA_MAX: u64 = 1 << 30;
/// No metadata chunk is larger, but on large file systems.
const METADATA_MAX: u64 = 256 << 20;
/// Large file systems are larger than this.
const LARGE: u64 = 50 << 30;
/// Tree blocks that are wanted free beside what changes need, so that the kernel has room, too.
const BLOCKS_SPARE: u64 = 128;
/// Most bytes of metadata that are wanted free.
const ROOM_MAX: u64 = 128 << 20;

const CHUNKS: TreeId = TreeId(objectid::CHUNK_TREE);
const DEVICES: TreeId = TreeId(objectid::DEV_TREE);

/// Sees to it that there is room for the tree blocks of a commit, as far as the device has it.
pub fn make_room(volume: &mut Volume) -> Result<()> {
    let changes: usize = volume.changes.values().map(BTreeMap::len).sum();
    let size = u64::from(volume.sb().node_size);
    let wanted = (to_u64(changes) * 2 + BLOCKS_SPARE).saturating_mul(size).min(ROOM_MAX);
    let mut space = volume.space.take().unwrap_or_else(|| Space::new(volume));
    let free = space.free_bytes(volume, block_group::METADATA, wanted);
    volume.space = Some(space);
    if free? >= wanted {
        return Ok(());
    }
    match make(volume, block_group::METADATA) {
        // The commit says so if it does not fit.
        Err(Error::NoSpace(_)) => Ok(()),
        other => other,
    }
}

/// Makes a chunk for `kind` of content out of unused parts of the device.
pub fn make(volume: &mut Volume, kind: u64) -> Result<()> {
    let like = volume.store.chunks.iter().filter(|chunk| chunk.flags & kind != 0).last().cloned();
    let flags = like.map_or(kind, |chunk| chunk.flags);
    let copies = if flags & block_group::DUP != 0 { 2 } else { 1 };
    let total = volume.sb().raw.total_bytes.get();
    let most = match flags & block_group::DATA != 0 || total > LARGE {
        true => DATA_MAX,
        false => METADATA_MAX,
    };
    let most = most.min(total / 10).max(SMALLEST) / STRIPE * STRIPE;
    let (hole, room) = hole(volume, most * copies)?;
    let length = (room / copies).min(most) / STRIPE * STRIPE;
    if length < SMALLEST {
        return Err(Error::NoSpace("all of the btrfs is in use".into()));
    }
    let end = volume.store.chunks.iter().map(|chunk| chunk.start + chunk.length).max();
    let start = end.unwrap_or(SMALLEST).next_multiple_of(STRIPE);
    let places: Vec<Physical> = (0..copies).map(|copy| Physical(hole + copy * length)).collect();
    put_items(volume, start, length, flags, &places)?;
    volume.store.chunks.insert(Mapping { start, length, flags, copies: places })?;
    if let Some(undo) = &mut volume.undo {
        undo.chunks.push(start);
    }
    let mut space = volume.space.take().unwrap_or_else(|| Space::new(volume));
    space.add_group(volume, start, length, flags);
    volume.space = Some(space);
    Ok(())
}

/// The first unused part of the device with `wanted` bytes, or else the largest.
fn hole(volume: &Volume, wanted: u64) -> Result<(u64, u64)> {
    let device = &volume.sb().raw.dev_item;
    let total = volume.device_item.as_ref().unwrap_or(device).total_bytes.get();
    let first = Key::new(device.devid.get(), item_type::DEV_EXTENT, 0);
    let mut items = volume.items(DEVICES, first, Key { offset: u64::MAX, ..first })?;
    let (mut next, mut best) = (RESERVED, (0, 0));
    loop {
        let found = items.next_item()?;
        let start = found.as_ref().map_or(total, |(key, _)| key.offset);
        let from = next.next_multiple_of(STRIPE);
        let room = start.saturating_sub(from);
        if room >= wanted {
            return Ok((from, room));
        }
        if room > best.1 {
            best = (from, room);
        }
        let Some((key, item)) = found else { return Ok(best) };
        let (extent, _) = split::<DevExtent>(&item).ok_or_else(|| {
            Error::corrupt("device extent", format!("byte {}", key.offset), "it is too short")
        })?;
        next = next.max(key.offset.saturating_add(extent.length.get()));
    }
}

/// Puts the items of a new chunk into their trees.
fn put_items(
    volume: &mut Volume,
    start: u64,
    length: u64,
    flags: u64,
    places: &[Physical],
) -> Result<()> {
    let device = volume.sb().raw.dev_item;
    let chunk = Chunk {
        length: length.into(),
        owner: objectid::EXTENT_TREE.into(),
        stripe_len: STRIPE.into(),
        r#type: flags.into(),
        io_align: to_u32(STRIPE).into(),
        io_width: to_u32(STRIPE).into(),
        sector_size: volume.sb().sector_size.into(),
        num_stripes: to_u16(places.len()).into(),
        sub_stripes: 1u16.into(),
    };
    let mut item = chunk.as_bytes().to_vec();
    let uuid = chunk_uuid(volume)?;
    for place in places {
        let stripe = Stripe { devid: device.devid, offset: place.0.into(), dev_uuid: device.uuid };
        item.extend_from_slice(stripe.as_bytes());
        let extent = DevExtent {
            chunk_tree: objectid::CHUNK_TREE.into(),
            chunk_objectid: objectid::FIRST_CHUNK_TREE.into(),
            chunk_offset: start.into(),
            length: length.into(),
            chunk_tree_uuid: uuid,
        };
        let key = Key::new(device.devid.get(), item_type::DEV_EXTENT, place.0);
        volume.put(DEVICES, key, extent.as_bytes())?;
    }
    volume.put(CHUNKS, Key::new(objectid::FIRST_CHUNK_TREE, item_type::CHUNK_ITEM, start), item)?;
    let group = BlockGroupItem {
        used: 0u64.into(),
        chunk_objectid: objectid::FIRST_CHUNK_TREE.into(),
        flags: flags.into(),
    };
    let key = Key::new(start, item_type::BLOCK_GROUP_ITEM, length);
    volume.put(volume.block_group_tree(), key, group.as_bytes())?;
    if volume.has_free_space_tree() {
        let tree = TreeId(objectid::FREE_SPACE_TREE);
        let info = FreeSpaceInfo { extent_count: 1u32.into(), flags: 0u32.into() };
        volume.put(tree, Key::new(start, item_type::FREE_SPACE_INFO, length), info.as_bytes())?;
        volume.put(
            tree,
            Key::new(start, item_type::FREE_SPACE_EXTENT, length),
            Vec::<u8>::new(),
        )?;
    }
    change_device(volume, |device| {
        let used = device.bytes_used.get() + length * to_u64(places.len());
        device.bytes_used = used.into();
    })
}

/// Changes the device's item, in the chunk tree and in the superblock.
fn change_device(volume: &mut Volume, work: impl FnOnce(&mut DevItem)) -> Result<()> {
    let devid = volume.sb().raw.dev_item.devid.get();
    let key = Key::new(objectid::DEV_ITEMS, item_type::DEV_ITEM, devid);
    let corrupt = |detail: &str| Error::corrupt("device item", format!("device {devid}"), detail);
    let item = volume.get(CHUNKS, key)?.ok_or_else(|| corrupt("it is missing"))?;
    let mut device = DevItem::read_from_bytes(&item).map_err(|_| corrupt("it has another size"))?;
    work(&mut device);
    if device.bytes_used.get() > device.total_bytes.get() {
        return Err(corrupt("more is used than it has"));
    }
    volume.put(CHUNKS, key, device.as_bytes())?;
    volume.device_item = Some(device);
    Ok(())
}

/// The UUID of the chunk tree, as its root has it.
fn chunk_uuid(volume: &Volume) -> Result<[u8; 16]> {
    let root = volume.root(CHUNKS)?.root;
    let block = volume.store.block(&super::store::Expected {
        at: root.at,
        level: root.level,
        generation: root.generation,
        tree: CHUNKS,
        first: None,
        below: None,
    })?;
    Ok(block.header().map_or([0; 16], |header| header.chunk_tree_uuid))
}

/// Enlarges the file system to `size` bytes of its device; gives its size then.
pub fn grow(volume: &mut Volume, size: u64) -> Result<u64> {
    let sector = u64::from(volume.sb().sector_size);
    let device = volume.device_item.unwrap_or(volume.sb().raw.dev_item);
    let now = volume.total_bytes.unwrap_or(volume.sb().raw.total_bytes.get());
    let wanted = size.min(volume.store.device().len()) / sector * sector;
    let more = wanted.saturating_sub(device.total_bytes.get());
    if more == 0 {
        return Ok(now);
    }
    volume.check_writable(TreeId(objectid::FS_TREE))?;
    change_device(volume, |device| device.total_bytes = wanted.into())?;
    volume.total_bytes = Some(now + more);
    Ok(now + more)
}
