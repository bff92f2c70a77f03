//! The content of files: extents of all kinds, holes, checksums.

use std::ops::Range;
use std::sync::Arc;

use super::compress::{Compression, unpack};
use super::file_id::FileId;
use super::inode;
use super::layout::{
    FileExtentHead, FileExtentTail, InodeItem, Key, inode_flags, item_type, objectid, split,
};
use super::units::{Logical, TreeId};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::filesystem::FileType;
use crate::num::{to_u64, to_usize};

/// Most bytes of one compressed extent, packed and unpacked.
pub const COMPRESSED_MAX: u64 = 128 << 10;
/// Most bytes read at once.
const READ_MAX: u64 = 1 << 20;
/// Bytes of an extent item before inline content.
pub const INLINE_HEAD: usize = size_of::<FileExtentHead>();

/// An inline extent.
pub const INLINE: u8 = 0;
/// An extent outside the tree.
pub const REGULAR: u8 = 1;
/// One that was never written.
pub const PREALLOCATED: u8 = 2;

/// A piece of a file.
#[derive(Clone, Debug)]
pub enum Extent {
    /// In the item itself, from the first byte of the file on.
    Inline {
        /// Its bytes when unpacked.
        ram_bytes: u64,
        /// How they are packed.
        compression: Compression,
    },
    /// Zeros.
    Hole {
        /// How many.
        num_bytes: u64,
    },
    /// Outside the tree.
    Data {
        /// Address of the extent.
        at: Logical,
        /// Its bytes there.
        disk_bytes: u64,
        /// Its bytes when unpacked.
        ram_bytes: u64,
        /// The first of them that this piece shows.
        offset: u64,
        /// How many it shows.
        num_bytes: u64,
        /// How they are packed.
        compression: Compression,
        /// Never written: it reads as zeros.
        preallocated: bool,
    },
}

impl Extent {
    /// Takes an item apart.
    pub fn parse(place: &dyn std::fmt::Display, item: &[u8], sector: u64) -> Result<Self> {
        let corrupt = |detail: String| Error::corrupt("file extent", place.to_string(), detail);
        let (head, rest) = split::<FileExtentHead>(item)
            .ok_or_else(|| corrupt(format!("its item has {} bytes", item.len())))?;
        if head.encryption != 0 || head.other_encoding.get() != 0 {
            return Err(Error::unsupported(
                format!("encrypted content in btrfs ({place})"),
                "decrypt it in the guest",
            ));
        }
        let compression = Compression::of(head.compression)
            .ok_or_else(|| corrupt(format!("compression {}", head.compression)))?;
        let ram_bytes = head.ram_bytes.get();
        if compression != Compression::None && ram_bytes > COMPRESSED_MAX {
            return Err(corrupt(format!("a compressed extent of {ram_bytes} bytes")));
        }
        if head.r#type == INLINE {
            return Ok(Self::Inline { ram_bytes, compression });
        }
        if head.r#type != REGULAR && head.r#type != PREALLOCATED {
            return Err(corrupt(format!("its type is {}", head.r#type)));
        }
        let (tail, _) = split::<FileExtentTail>(rest)
            .ok_or_else(|| corrupt(format!("its item has {} bytes", item.len())))?;
        let (at, disk_bytes) = (tail.disk_bytenr.get(), tail.disk_num_bytes.get());
        let (offset, num_bytes) = (tail.offset.get(), tail.num_bytes.get());
        if num_bytes == 0 || !num_bytes.is_multiple_of(sector) || !offset.is_multiple_of(sector) {
            return Err(corrupt(format!("{num_bytes} bytes from {offset} on")));
        }
        if at == 0 {
            return Ok(Self::Hole { num_bytes });
        }
        let end = offset.checked_add(num_bytes);
        if end.is_none_or(|end| end > ram_bytes.next_multiple_of(sector))
            || !at.is_multiple_of(sector)
            || !disk_bytes.is_multiple_of(sector)
            || disk_bytes == 0
            || at.checked_add(disk_bytes).is_none()
        {
            return Err(corrupt(format!(
                "{num_bytes} bytes from {offset} on of an extent of {ram_bytes}, on disk \
                 {disk_bytes} at {at}"
            )));
        }
        let compressed = compression != Compression::None;
        if compressed && disk_bytes > COMPRESSED_MAX
            || !compressed && end.is_none_or(|end| end > disk_bytes)
        {
            return Err(corrupt(format!("an extent of {disk_bytes} bytes on disk")));
        }
        Ok(Self::Data {
            at: Logical(at),
            disk_bytes,
            ram_bytes,
            offset,
            num_bytes,
            compression,
            preallocated: head.r#type == PREALLOCATED,
        })
    }
}

/// The key of the piece that begins at a byte of a file.
pub fn key(inode: u64, offset: u64) -> Key {
    Key::new(inode, item_type::EXTENT_DATA, offset)
}

/// The checksums of the sectors from `at` on.
pub fn sums(volume: &Volume, at: Logical, length: u64) -> Result<Vec<u8>> {
    let sector = u64::from(volume.sb().sector_size);
    let size = to_u64(volume.sb().checksum.size());
    let tree = TreeId(objectid::CSUM_TREE);
    let key = |offset| Key::new(objectid::EXTENT_CSUM, item_type::EXTENT_CSUM, offset);
    let end = at.0.saturating_add(length);
    let mut out = Vec::new();
    let mut next = at.0;
    let first = volume.last_item(tree, key(0), key(at.0))?.map_or(key(at.0), |(key, _)| key);
    let mut items = volume.items(tree, first, key(end.saturating_sub(1)))?;
    while next < end
        && let Some((key, item)) = items.next_item()?
    {
        let covers = to_u64(item.len()) / size * sector;
        let stop = key.offset.saturating_add(covers);
        if stop <= next {
            continue;
        }
        if key.offset > next {
            break;
        }
        let from = to_usize((next - key.offset) / sector * size);
        let to = to_usize((stop.min(end) - key.offset) / sector * size);
        out.extend_from_slice(item.get(from..to).unwrap_or_default());
        next = stop.min(end);
    }
    if next < end {
        return Err(Error::corrupt(
            "checksum tree",
            Logical(next).to_string(),
            "the data there has no checksum",
        ));
    }
    Ok(out)
}

/// Reads from a regular file.
pub fn read(volume: &Volume, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize> {
    if inode::is_stub(id) {
        return Err(Error::IsADirectory(id.to_string()));
    }
    let inode = inode::load(volume, id)?;
    match inode::file_type(id, &inode)? {
        FileType::Regular => {}
        FileType::Directory => return Err(Error::IsADirectory(id.to_string())),
        _ => return Err(Error::WrongType(id.to_string(), "not a regular file")),
    }
    read_bytes(volume, id, &inode, offset, buf)
}

/// Reads from the content of a file or a symbolic link.
pub fn read_bytes(
    volume: &Volume,
    id: FileId,
    inode: &InodeItem,
    offset: u64,
    buf: &mut [u8],
) -> Result<usize> {
    let size = inode.size.get();
    let length = size.saturating_sub(offset).min(to_u64(buf.len()));
    let buf = &mut buf[..to_usize(length)];
    buf.fill(0);
    if buf.is_empty() {
        return Ok(0);
    }
    let end = offset + length;
    let sector = u64::from(volume.sb().sector_size);
    let begin = volume.last_item(id.tree, key(id.inode, 0), key(id.inode, offset))?;
    let first = begin.map_or(key(id.inode, offset), |(key, _)| key);
    let mut items = volume.items(id.tree, first, key(id.inode, end - 1))?;
    while let Some((key, item)) = items.next_item()? {
        let extent = Extent::parse(&id, &item, sector)?;
        let start = key.offset;
        let wanted = |bytes: u64| {
            let from = offset.max(start);
            from..start.saturating_add(bytes).min(end).max(from)
        };
        match extent {
            Extent::Hole { .. } | Extent::Data { preallocated: true, .. } => {}
            Extent::Inline { ram_bytes, compression } => {
                if start != 0 {
                    return Err(Error::corrupt(
                        "file extent",
                        id.to_string(),
                        format!("an inline one at byte {start}"),
                    ));
                }
                let packed = item.get(INLINE_HEAD..).unwrap_or_default();
                let bytes = match compression {
                    Compression::None => packed.to_vec(),
                    kind => unpack(kind, packed, to_usize(ram_bytes), to_usize(sector))?,
                };
                let part = wanted(to_u64(bytes.len()));
                // It begins at byte 0 of the file, and may end before the part that is wanted.
                let bytes = bytes.get(to_usize(part.start)..to_usize(part.end));
                put(buf, offset, &part, bytes.unwrap_or_default());
            }
            Extent::Data {
                num_bytes, compression: Compression::None, at, offset: skip, ..
            } => {
                let part = wanted(num_bytes);
                let at = Logical(at.0.saturating_add(skip));
                let plain = inode.flags.get() & inode_flags::NODATASUM != 0;
                read_plain(volume, at, start, part, offset, buf, !plain)?;
            }
            Extent::Data {
                num_bytes,
                compression,
                at,
                disk_bytes,
                ram_bytes,
                offset: skip,
                ..
            } => {
                let part = wanted(num_bytes);
                if part.is_empty() {
                    continue;
                }
                let bytes = unpacked(volume, at, disk_bytes, ram_bytes, compression)?;
                let from = to_usize((part.start - start).saturating_add(skip));
                let to = to_usize((part.end - start).saturating_add(skip));
                let bytes = bytes.get(from.min(bytes.len())..to.min(bytes.len()));
                put(buf, offset, &part, bytes.unwrap_or_default());
            }
        }
    }
    Ok(to_usize(length))
}

/// Copies content that belongs to `part` of the file into a buffer for what begins at `offset`.
fn put(buf: &mut [u8], offset: u64, part: &Range<u64>, bytes: &[u8]) {
    let at = to_usize(part.start - offset);
    let room = buf.get_mut(at..).unwrap_or_default();
    let length = bytes.len().min(room.len()).min(to_usize(part.end - part.start));
    room[..length].copy_from_slice(&bytes[..length]);
}

/// Reads `part` of a file from an extent that begins at its byte `start` and at `at`.
fn read_plain(
    volume: &Volume,
    at: Logical,
    start: u64,
    part: Range<u64>,
    offset: u64,
    buf: &mut [u8],
    check: bool,
) -> Result<()> {
    let sector = u64::from(volume.sb().sector_size);
    let mut next = part.start;
    while next < part.end {
        // Whole sectors, because checksums are of those.
        let from = (next - start) / sector * sector;
        let to = (part.end - start).next_multiple_of(sector).min(from + READ_MAX);
        let mut bytes = vec![0; to_usize(to - from)];
        data(volume, Logical(at.0.saturating_add(from)), &mut bytes, check)?;
        let skip = to_usize(next - start - from);
        let stop = start.saturating_add(to).min(part.end);
        put(buf, offset, &(next..stop), &bytes[skip..]);
        next = stop;
    }
    Ok(())
}

/// Reads whole sectors of data, those that wait for the commit too.
fn data(volume: &Volume, at: Logical, buf: &mut [u8], check: bool) -> Result<()> {
    if volume.pending_data(at, buf) {
        return Ok(());
    }
    let sums = if check { Some(sums(volume, at, to_u64(buf.len()))?) } else { None };
    volume.store.data(at, buf, sums.as_deref())
}

/// A compressed extent's content; the last one is kept.
fn unpacked(
    volume: &Volume,
    at: Logical,
    disk_bytes: u64,
    ram_bytes: u64,
    kind: Compression,
) -> Result<Arc<[u8]>> {
    if let Some((known, bytes)) = &*volume.unpacked.borrow()
        && *known == at
    {
        return Ok(bytes.clone());
    }
    let mut packed = vec![0; to_usize(disk_bytes)];
    data(volume, at, &mut packed, true)?;
    let sector = to_usize(volume.sb().sector_size);
    let bytes: Arc<[u8]> = unpack(kind, &packed, to_usize(ram_bytes), sector)?.into();
    *volume.unpacked.borrow_mut() = Some((at, bytes.clone()));
    Ok(bytes)
}

/// The target of a symbolic link.
pub fn read_link(volume: &Volume, id: FileId) -> Result<Vec<u8>> {
    let not = || Error::WrongType(id.to_string(), "not a symbolic link");
    if inode::is_stub(id) {
        return Err(not());
    }
    let inode = inode::load(volume, id)?;
    if inode::file_type(id, &inode)? != FileType::Symlink {
        return Err(not());
    }
    let size = inode.size.get();
    let mut out = vec![0; to_usize(size.min(4096))];
    read_bytes(volume, id, &inode, 0, &mut out)?;
    if size == 0 || size > 4096 || out.contains(&0) {
        return Err(Error::corrupt(
            "symbolic link",
            id.to_string(),
            format!("a target of {size} bytes, or one with a zero byte"),
        ));
    }
    Ok(out)
}
