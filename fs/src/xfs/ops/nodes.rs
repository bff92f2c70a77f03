//! Operations on one node: what it is, its content, its link.

use super::super::bmap::{self, Extent};
use super::super::inode::{Fork, Format, Inode, flags, flags2};
use super::super::num;
use super::super::store::BufferType;
use super::super::units::FsBlock;
use super::super::volume::Volume;
use super::wrong_type;
use crate::error::{Error, Result, display_name};
use crate::filesystem::{FileType, NodeId, Stat};
use crate::num::{to_u32, to_u64, to_usize};

/// The longest target of a link (`XFS_SYMLINK_MAXLEN`).
const LINK_MAX: usize = 1024;
/// Most blocks of a target: of 512 bytes.
const LINK_BLOCKS: u64 = 4;
/// `XSLM`.
const XFS_SYMLINK_MAGIC: u32 = 0x5853_4C4D;
/// Bytes before the target in a block of it.
const LINK_HEADER: usize = 56;
const LINK_CRC: usize = 12;

/// The attributes, as `lstat` gives them.
pub(super) fn stat(volume: &Volume, inode: &Inode) -> Result<Stat> {
    let core = &inode.core;
    let file_type = inode.file_type()?;
    let device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice).then(|| {
        let number = num::be32(inode.fork(Fork::Data), 0);
        (number >> 18 & 0x3FFF, number & 0x3_FFFF)
    });
    Ok(Stat {
        node: NodeId(inode.ino.0),
        file_type,
        mode: core.di_mode.get() & 0o7777,
        uid: core.di_uid.get(),
        gid: core.di_gid.get(),
        links: inode.links(),
        size: inode.size(),
        blocks: core.di_nblocks.get().saturating_mul(to_u64(volume.sb.block_size() / 512)),
        device,
        atime: inode.time(core.di_atime),
        mtime: inode.time(core.di_mtime),
        ctime: inode.time(core.di_ctime),
    })
}

/// # Errors
/// [`Error::WrongType`] for what is no regular file, [`Error::Unsupported`] for a real-time file.
pub(super) fn check_file(inode: &Inode) -> Result<()> {
    match inode.file_type()? {
        FileType::Regular if inode.has_flag(flags::REALTIME) => Err(Error::unsupported(
            format!("file inode {} on the real-time device", inode.ino),
            "edit it from within the guest",
        )),
        FileType::Regular => Ok(()),
        FileType::Directory => Err(Error::IsADirectory(super::named(inode))),
        _ => Err(wrong_type(inode, "not a regular file")),
    }
}

/// # Errors
/// [`Error::NameTooLong`] and [`Error::Invalid`] for what cannot be a link's target.
pub(super) fn check_target(target: &[u8]) -> Result<()> {
    if target.len() >= LINK_MAX {
        return Err(Error::NameTooLong(display_name(target)));
    }
    if target.is_empty() || target.contains(&0) {
        return Err(Error::Invalid(format!(
            "`{}` cannot be the target of a symbolic link",
            display_name(target)
        )));
    }
    Ok(())
}

/// The target of a symbolic link.
pub(super) fn read_link(volume: &Volume, inode: &Inode) -> Result<Vec<u8>> {
    if inode.file_type()? != FileType::Symlink {
        return Err(wrong_type(inode, "not a symbolic link"));
    }
    let wrong = |detail: &str| Error::corrupt("symbolic link", super::named(inode), detail);
    let size = to_usize(inode.size());
    if size == 0 || inode.size() > to_u64(LINK_MAX) {
        return Err(wrong("its length is impossible"));
    }
    let target = if inode.format(Fork::Data)? == Format::Local {
        inode.fork(Fork::Data)[..size].to_vec()
    } else {
        volume.read_remote_link(inode, size)?
    };
    if target.contains(&0) {
        return Err(wrong("its target has a zero"));
    }
    Ok(target)
}

impl Volume {
    /// Bytes of a target in `blocks` blocks: one header for every run of them.
    fn link_room(&self, blocks: u64) -> usize {
        let head = if self.sb.is_v5() { LINK_HEADER } else { 0 };
        to_usize(blocks).saturating_mul(self.sb.block_size()).saturating_sub(head)
    }

    fn read_remote_link(&self, inode: &Inode, size: usize) -> Result<Vec<u8>> {
        let mut target = Vec::with_capacity(size);
        for extent in self.extents(inode, Fork::Data)? {
            let position = format!("inode {}, block {}", inode.ino, extent.offset);
            let wrong = |detail: &str| Error::corrupt("symbolic link", position.clone(), detail);
            if target.len() == size {
                break;
            }
            if extent.count > LINK_BLOCKS {
                return Err(wrong("it is too long"));
            }
            let at = self.sb.daddr(extent.block);
            let room = self.link_room(extent.count);
            let take = room.min(size - target.len());
            let length = to_usize(extent.count) * self.sb.block_size();
            let bytes = self.store.read(at, length, |bytes| {
                if !self.sb.is_v5() {
                    return Ok(());
                }
                if num::be32(bytes, 0) != XFS_SYMLINK_MAGIC
                    || to_usize(num::be32(bytes, 4)) != target.len()
                    || to_usize(num::be32(bytes, 8)) != take
                    || num::be64(bytes, 32) != inode.ino.0
                    || num::be64(bytes, 40) != at.0
                    || bytes.get(16..32) != Some(&self.sb.meta_uuid())
                {
                    return Err(wrong("it belongs elsewhere"));
                }
                if !num::is_sealed(bytes, LINK_CRC) {
                    return Err(wrong("its checksum is wrong"));
                }
                Ok(())
            })?;
            let head = bytes.len() - room;
            target.extend_from_slice(&bytes[head..head + take]);
        }
        if target.len() != size {
            let position = format!("inode {}", inode.ino);
            return Err(Error::corrupt("symbolic link", position, "its end is not there"));
        }
        Ok(target)
    }

    /// Gives a new link its target.
    pub(super) fn write_link(&mut self, inode: &mut Inode, target: &[u8]) -> Result<()> {
        inode.set_size(to_u64(target.len()));
        if target.len() <= inode.fork(Fork::Data).len() {
            inode.set_format(Fork::Data, Format::Local);
            inode.set_fork(Fork::Data, target);
            return Ok(());
        }
        inode.set_format(Fork::Data, Format::Extents);
        inode.set_fork(Fork::Data, &[]);
        self.write_remote_link(inode, target)
    }

    fn write_remote_link(&mut self, inode: &mut Inode, target: &[u8]) -> Result<()> {
        let count = target.len().div_ceil(self.link_room(1));
        let extents = self.alloc_content(inode, Fork::Data, None, 0, to_u64(count))?;
        let mut rest = target;
        for extent in &extents {
            let (part, more) = rest.split_at(self.link_room(extent.count).min(rest.len()));
            let at = self.sb.daddr(extent.block);
            let mut bytes = vec![0; to_usize(extent.count) * self.sb.block_size()];
            num::put32(&mut bytes, 0, XFS_SYMLINK_MAGIC);
            num::put32(&mut bytes, 4, to_u32(target.len() - rest.len()));
            num::put32(&mut bytes, 8, to_u32(part.len()));
            num::put(&mut bytes, 16, &self.sb.meta_uuid());
            num::put64(&mut bytes, 32, inode.ino.0);
            num::put64(&mut bytes, 40, at.0);
            num::put(&mut bytes, LINK_HEADER, part);
            num::seal(&mut bytes, LINK_CRC);
            self.store.write(at, BufferType::Symlink, bytes);
            rest = more;
        }
        self.set_extents(inode, Fork::Data, &extents)
    }

    /// Moves a link's target out of its inode.
    pub(in crate::xfs) fn link_leave_inode(&mut self, inode: &mut Inode) -> Result<()> {
        let target = read_link(self, inode)?;
        inode.set_format(Fork::Data, Format::Extents);
        inode.set_fork(Fork::Data, &[]);
        inode.set_extent_count(Fork::Data, 0)?;
        self.write_remote_link(inode, &target)
    }
}

/// Replaces the content of a file.
pub(super) fn replace(volume: &mut Volume, inode: &mut Inode, content: &[u8]) -> Result<()> {
    check_file(inode)?;
    let old = volume.extents(inode, Fork::Data)?;
    let goal = old.first().map(|extent| extent.block);
    for extent in &old {
        volume.free_extent(inode.ino, Fork::Data, extent);
    }
    let extents = write_content(volume, inode, goal, 0, content)?;
    volume.set_extents(inode, Fork::Data, &extents)?;
    inode.set_size(to_u64(content.len()));
    // Nothing of it is shared any more.
    inode.core.di_flags2.set(inode.core.di_flags2.get() & !flags2::REFLINK);
    inode.touch(volume.options.now, true);
    Ok(())
}

/// Writes content to new blocks, from block `offset` of the file on.
fn write_content(
    volume: &mut Volume,
    inode: &Inode,
    goal: Option<FsBlock>,
    offset: u64,
    content: &[u8],
) -> Result<Vec<Extent>> {
    let bs = volume.sb.block_size();
    let count = to_u64(content.len().div_ceil(bs));
    let extents = volume.alloc_content(inode, Fork::Data, goal, offset, count)?;
    for extent in &extents {
        let from = to_usize(extent.offset - offset) * bs;
        let to = (from + to_usize(extent.count) * bs).min(content.len());
        let whole = (to - from) / bs * bs;
        let at = volume.sb.daddr(extent.block);
        volume.store.write_data(at, &content[from..from + whole]);
        if from + whole < to {
            let mut last = content[from + whole..to].to_vec();
            last.resize(bs, 0);
            let at = volume.sb.daddr(FsBlock(extent.block.0 + to_u64(whole / bs)));
            volume.store.write_data(at, &last);
        }
    }
    Ok(extents)
}

/// Adds to the end of a file. Its last block, where it is not full, moves: the old one keeps its
/// content until the commit, and may be another file's, too.
pub(super) fn append(volume: &mut Volume, inode: &mut Inode, content: &[u8]) -> Result<()> {
    check_file(inode)?;
    if content.is_empty() {
        return Ok(());
    }
    let bs = to_u64(volume.sb.block_size());
    let size = inode.size();
    let full = size / bs;
    let new_size = size.checked_add(to_u64(content.len())).filter(|size| size >> 63 == 0);
    let Some(new_size) = new_size else {
        return Err(Error::NoSpace(format!(
            "inode {} would be larger than a file can be",
            inode.ino
        )));
    };
    let mut head = vec![0; to_usize(size % bs)];
    volume.read_fork(inode, size, full * bs, &mut head)?;
    head.extend_from_slice(content);
    let mut kept = Vec::new();
    for extent in volume.extents(inode, Fork::Data)? {
        let keep = full.saturating_sub(extent.offset).min(extent.count);
        if keep > 0 {
            bmap::push(&mut kept, Extent { count: keep, ..extent });
        }
        if keep < extent.count {
            // The rest: the last block, and blocks that were allocated beyond the end.
            let rest = Extent {
                offset: extent.offset + keep,
                block: FsBlock(extent.block.0 + keep),
                count: extent.count - keep,
                ..extent
            };
            volume.free_extent(inode.ino, Fork::Data, &rest);
        }
    }
    let goal = kept.last().map(|extent| FsBlock(extent.block.0 + extent.count));
    for extent in write_content(volume, inode, goal, full, &head)? {
        bmap::push(&mut kept, extent);
    }
    volume.set_extents(inode, Fork::Data, &kept)?;
    inode.set_size(new_size);
    inode.touch(volume.options.now, true);
    Ok(())
}
