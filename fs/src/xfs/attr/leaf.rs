//! Reading attributes: in the inode, in leaves, in blocks of their own.

use super::{Attr, MOST_BYTES, MOST_VALUE, flag};
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};
use crate::xfs::da;
use crate::xfs::inode::{Fork, Inode};
use crate::xfs::num;
use crate::xfs::volume::Volume;

pub(super) const XFS_ATTR3_LEAF_MAGIC: u16 = 0x3BEE;
const XFS_ATTR_LEAF_MAGIC: u16 = 0xFBEE;
/// `XARM`.
pub(super) const XFS_ATTR3_RMT_MAGIC: u32 = 0x5841_524D;
/// Bytes before the value in a block of it.
pub(super) const REMOTE_HEADER: usize = 56;
pub(super) const REMOTE_CRC: usize = 12;

/// Attributes in the inode.
pub(super) fn parse_short(inode: &Inode) -> Result<Vec<Attr>> {
    let wrong = |detail: &str| {
        Error::corrupt("attributes in the inode", format!("inode {}", inode.ino), detail)
    };
    let fork = inode.fork(Fork::Attr);
    let total = usize::from(num::be16(fork, 0));
    let bytes = fork.get(..total).filter(|bytes| bytes.len() >= 4);
    let bytes = bytes.ok_or_else(|| wrong("their size is impossible"))?;
    let mut attrs = Vec::new();
    let mut at = 4;
    for _ in 0..bytes[2] {
        let head = bytes.get(at..at + 3).ok_or_else(|| wrong("one does not fit"))?;
        let (name, value, flags) = (usize::from(head[0]), usize::from(head[1]), head[2]);
        let body = bytes.get(at + 3..at + 3 + name + value);
        let body = body.ok_or_else(|| wrong("one does not fit"))?;
        if name == 0 {
            return Err(wrong("one has no name"));
        }
        at += 3 + name + value;
        if flags & (flag::PARENT | flag::INCOMPLETE) == 0 {
            attrs.push(Attr {
                space: flags & flag::SPACE,
                name: body[..name].to_vec(),
                value: body[name..].to_vec(),
            });
        }
    }
    Ok(attrs)
}

impl Volume {
    /// Adds the attributes of a leaf to a list; `total` counts the bytes of all values.
    pub(super) fn attr_leaf(
        &self,
        inode: &Inode,
        offset: u64,
        attrs: &mut Vec<Attr>,
        total: &mut usize,
    ) -> Result<()> {
        let place = self.attr_place(inode, offset);
        let wrong = |detail: &str| place.corrupt("attribute leaf", detail);
        let bytes =
            self.da_read(place, "attribute leaf", true)?.ok_or_else(|| wrong("it is not there"))?;
        let v5 = self.sb.is_v5();
        let magic = if v5 { XFS_ATTR3_LEAF_MAGIC } else { XFS_ATTR_LEAF_MAGIC };
        if da::info_magic(&bytes) != magic {
            return Err(wrong("its magic number is wrong"));
        }
        let (count_at, head) = if v5 { (56, 80) } else { (12, 32) };
        let count = usize::from(num::be16(&bytes, count_at));
        let entries =
            bytes.get(head..head + count * 8).ok_or_else(|| wrong("it has too many entries"))?;
        for entry in entries.chunks_exact(8) {
            let (at, flags) = (usize::from(num::be16(entry, 4)), entry[6]);
            if at < head + count * 8 {
                return Err(wrong("an entry points at the entries"));
            }
            let bad = || wrong("an attribute does not fit");
            let (name, value) = if flags & flag::LOCAL != 0 {
                let length = usize::from(num::be16(&bytes, at));
                let name = usize::from(*bytes.get(at + 2).ok_or_else(bad)?);
                let body = bytes.get(at + 3..at + 3 + name + length).ok_or_else(bad)?;
                (body[..name].to_vec(), body[name..].to_vec())
            } else {
                let name = usize::from(*bytes.get(at + 8).ok_or_else(bad)?);
                let name = bytes.get(at + 9..at + 9 + name).ok_or_else(bad)?.to_vec();
                if flags & (flag::PARENT | flag::INCOMPLETE) != 0 {
                    continue;
                }
                let (block, length) = (num::be32(&bytes, at), to_usize(num::be32(&bytes, at + 4)));
                if length > MOST_VALUE {
                    return Err(wrong("a value is larger than 64 KiB"));
                }
                (name, self.attr_remote(inode, block.into(), length)?)
            };
            *total += name.len() + value.len();
            if name.is_empty() || *total > MOST_BYTES {
                return Err(wrong("an attribute without a name, or too many"));
            }
            if flags & (flag::PARENT | flag::INCOMPLETE) == 0 {
                attrs.push(Attr { space: flags & flag::SPACE, name, value });
            }
        }
        Ok(())
    }

    /// Bytes of a value in one block.
    pub(super) fn attr_remote_room(&self) -> usize {
        self.sb.block_size() - if self.sb.is_v5() { REMOTE_HEADER } else { 0 }
    }

    fn attr_remote(&self, inode: &Inode, first: u64, length: usize) -> Result<Vec<u8>> {
        let room = self.attr_remote_room();
        let mut value = Vec::with_capacity(length);
        for index in 0..length.div_ceil(room) {
            let place = self.attr_place(inode, first + to_u64(index));
            let wrong = |detail: &str| place.corrupt("attribute value", detail);
            let extents = self.extents_in(inode, Fork::Attr, place.offset..place.offset + 1)?;
            let at = self.da_place(&extents, place.offset, 1);
            let at = at.ok_or_else(|| wrong("it is not there"))?;
            let take = room.min(length - value.len());
            let bytes = self.store.read(at, self.sb.block_size(), |bytes| {
                if !self.sb.is_v5() {
                    return Ok(());
                }
                if num::be32(bytes, 0) != XFS_ATTR3_RMT_MAGIC
                    || num::be64(bytes, 32) != inode.ino.0
                    || num::be64(bytes, 40) != at.0
                    || to_usize(num::be32(bytes, 4)) != index * room
                    || to_usize(num::be32(bytes, 8)) != take
                    || bytes.get(16..32) != Some(&self.sb.meta_uuid())
                {
                    return Err(wrong("it belongs elsewhere"));
                }
                if !num::is_sealed(bytes, REMOTE_CRC) {
                    return Err(wrong("its checksum is wrong"));
                }
                Ok(())
            })?;
            let head = bytes.len() - room;
            value.extend_from_slice(&bytes[head..head + take]);
        }
        Ok(value)
    }
}
