//! The content of files, written: always to free space.

use zerocopy::IntoBytes;

use super::super::content::{self, Extent, INLINE, REGULAR};
use super::super::file_id::FileId;
use super::super::inode;
use super::super::layout::{
    FileExtentHead, FileExtentTail, InodeItem, Key, inode_flags, item_type,
};
use super::super::volume::Volume;
use super::nodes;
use crate::error::{Error, Result};
use crate::filesystem::FileType;
use crate::num::{to_u64, to_usize};

/// Files up to this size are in the tree itself, as the kernel has them by default.
const INLINE_MAX: usize = 2048;
/// Most bytes of one extent.
const EXTENT_MAX: u64 = 16 << 20;

/// A regular file whose content is to be changed.
fn open(volume: &Volume, id: FileId) -> Result<InodeItem> {
    let inode = nodes::open(volume, id)?;
    match inode::file_type(id, &inode)? {
        FileType::Regular => {}
        FileType::Directory => return Err(Error::IsADirectory(id.to_string())),
        _ => return Err(Error::WrongType(id.to_string(), "not a regular file")),
    }
    if inode.flags.get() & inode_flags::RO_VERITY != 0 {
        return Err(Error::unsupported(
            format!("changing a file sealed by fs-verity ({id})"),
            "remove it and make a new one",
        ));
    }
    Ok(inode)
}

/// Replaces the whole content.
pub fn replace(volume: &mut Volume, id: FileId, bytes: &[u8]) -> Result<()> {
    let mut inode = open(volume, id)?;
    cut(volume, id, &mut inode, 0)?;
    inode.size = 0u64.into();
    put(volume, id, &mut inode, 0, bytes)?;
    finish(volume, id, &mut inode)
}

/// Adds to the end: the last sector that is partly filled is written anew.
pub fn append(volume: &mut Volume, id: FileId, bytes: &[u8]) -> Result<()> {
    let mut inode = open(volume, id)?;
    let size = inode.size.get();
    let sector = u64::from(volume.sb().sector_size);
    let mut from = size / sector * sector;
    let first = volume.get(id.tree, content::key(id.inode, 0))?;
    if let Some(item) = first
        && let Extent::Inline { .. } = Extent::parse(&id, &item, sector)?
    {
        from = 0;
    }
    if size - from > sector {
        return Err(Error::corrupt(
            "file extent",
            id.to_string(),
            format!("an inline one in a file of {size} bytes"),
        ));
    }
    let mut tail = vec![0; to_usize(size - from)];
    content::read_bytes(volume, id, &inode, from, &mut tail)?;
    tail.extend_from_slice(bytes);
    cut(volume, id, &mut inode, from)?;
    inode.size = from.into();
    put(volume, id, &mut inode, from, &tail)?;
    finish(volume, id, &mut inode)
}

fn finish(volume: &mut Volume, id: FileId, inode: &mut InodeItem) -> Result<()> {
    inode.mtime = inode::timespec(volume.now);
    nodes::save(volume, id, inode)
}

/// Takes away all content from `from` on, which is at the beginning of a sector.
fn cut(volume: &mut Volume, id: FileId, inode: &mut InodeItem, from: u64) -> Result<()> {
    let sector = u64::from(volume.sb().sector_size);
    let first = content::key(id.inode, 0);
    let begin = volume.last_item(id.tree, first, content::key(id.inode, from))?;
    let begin = begin.map_or(first, |(key, _)| key);
    let mut found = Vec::new();
    let mut items = volume.items(id.tree, begin, content::key(id.inode, u64::MAX))?;
    while let Some((key, item)) = items.next_item()? {
        found.push((key, item));
    }
    let mut gone = 0u64;
    for (key, item) in found {
        let (length, counts) = match Extent::parse(&id, &item, sector)? {
            Extent::Inline { ram_bytes, .. } => (ram_bytes, true),
            Extent::Hole { num_bytes } => (num_bytes, false),
            Extent::Data { num_bytes, .. } => (num_bytes, true),
        };
        let end = key.offset.saturating_add(length);
        if end <= from && key.offset < from {
            continue;
        }
        let kept = from.saturating_sub(key.offset);
        if counts {
            gone += length - kept;
        }
        if kept == 0 {
            volume.remove(id.tree, key);
            continue;
        }
        // num_bytes is the last field.
        let mut item = item.to_vec();
        let at = size_of::<FileExtentHead>() + size_of::<FileExtentTail>() - 8;
        match item.get_mut(at..at + 8) {
            Some(place) => place.copy_from_slice(&kept.to_le_bytes()),
            None => {
                return Err(Error::corrupt(
                    "file extent",
                    id.to_string(),
                    "an inline one that is longer than a sector",
                ));
            }
        }
        volume.put(id.tree, key, item)?;
    }
    inode.nbytes = inode.nbytes.get().saturating_sub(gone).into();
    Ok(())
}

/// Puts content after what is there; the file ends with it.
fn put(
    volume: &mut Volume,
    id: FileId,
    inode: &mut InodeItem,
    from: u64,
    bytes: &[u8],
) -> Result<()> {
    let sector = u64::from(volume.sb().sector_size);
    let room = volume.item_max() - content::INLINE_HEAD;
    if from == 0 && !bytes.is_empty() && bytes.len() <= INLINE_MAX.min(room) {
        return put_inline(volume, id, inode, bytes);
    }
    let sums = inode.flags.get() & inode_flags::NODATASUM == 0;
    let (mut rest, mut at) = (bytes, from);
    while !rest.is_empty() {
        let wanted = to_u64(rest.len()).next_multiple_of(sector).min(EXTENT_MAX);
        let (place, length) = volume.allocate_data(wanted)?;
        let (now, later) = rest.split_at(rest.len().min(to_usize(length)));
        let mut data = now.to_vec();
        data.resize(to_usize(length), 0);
        volume.keep_data(place, data.into(), sums);
        let head = head(volume, length, REGULAR);
        let tail = FileExtentTail {
            disk_bytenr: place.into(),
            disk_num_bytes: length.into(),
            offset: 0u64.into(),
            num_bytes: length.into(),
        };
        let item = [head.as_bytes(), tail.as_bytes()].concat();
        volume.put(id.tree, Key::new(id.inode, item_type::EXTENT_DATA, at), item)?;
        inode.nbytes = (inode.nbytes.get() + length).into();
        at += length;
        rest = later;
    }
    inode.size = (from + to_u64(bytes.len())).into();
    Ok(())
}

/// Puts content into the tree itself, as all of the file's.
pub fn put_inline(
    volume: &mut Volume,
    id: FileId,
    inode: &mut InodeItem,
    bytes: &[u8],
) -> Result<()> {
    let head = head(volume, to_u64(bytes.len()), INLINE);
    let item = [head.as_bytes(), bytes].concat();
    volume.put(id.tree, content::key(id.inode, 0), item)?;
    inode.size = to_u64(bytes.len()).into();
    inode.nbytes = to_u64(bytes.len()).into();
    Ok(())
}

fn head(volume: &Volume, bytes: u64, kind: u8) -> FileExtentHead {
    FileExtentHead {
        generation: volume.transid().into(),
        ram_bytes: bytes.into(),
        compression: 0,
        encryption: 0,
        other_encoding: 0u16.into(),
        r#type: kind,
    }
}
