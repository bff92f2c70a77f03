//! Inodes.

use zerocopy::FromBytes;

use super::file_id::FileId;
use super::layout::{InodeItem, Key, Timespec, item_type, objectid};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::filesystem::{FileType, Stat, Timestamp};
use crate::num::{low16, low32};

/// The bits of `mode` that hold the type.
pub const S_IFMT: u32 = 0o170_000;

/// The key of an inode's item.
pub fn key(inode: u64) -> Key {
    Key::new(inode, item_type::INODE_ITEM, 0)
}

/// The inode of a file.
pub fn load(volume: &Volume, id: FileId) -> Result<InodeItem> {
    if !id.tree.is_subvolume() || !(objectid::FIRST_FREE..=objectid::LAST_FREE).contains(&id.inode)
    {
        return Err(Error::Invalid(format!("{id} is no file")));
    }
    let item = volume.get(id.tree, key(id.inode))?;
    let item = item.ok_or_else(|| Error::corrupt("inode", id.to_string(), "it is missing"))?;
    InodeItem::read_from_bytes(&item)
        .map_err(|_| Error::corrupt("inode", id.to_string(), format!("{} bytes", item.len())))
}

/// The type of an inode.
pub fn file_type(id: FileId, inode: &InodeItem) -> Result<FileType> {
    Ok(match inode.mode.get() & S_IFMT {
        0o100_000 => FileType::Regular,
        0o040_000 => FileType::Directory,
        0o120_000 => FileType::Symlink,
        0o020_000 => FileType::CharDevice,
        0o060_000 => FileType::BlockDevice,
        0o010_000 => FileType::Fifo,
        0o140_000 => FileType::Socket,
        _ => {
            return Err(Error::corrupt(
                "inode",
                id.to_string(),
                format!("its mode is {:#o}", inode.mode.get()),
            ));
        }
    })
}

/// The bits of `mode` for a type.
pub fn type_bits(file_type: FileType) -> u32 {
    match file_type {
        FileType::Regular => 0o100_000,
        FileType::Directory => 0o040_000,
        FileType::Symlink => 0o120_000,
        FileType::CharDevice => 0o020_000,
        FileType::BlockDevice => 0o060_000,
        FileType::Fifo => 0o010_000,
        FileType::Socket => 0o140_000,
    }
}

/// The empty directory that a snapshot has in place of a subvolume that was not taken into it.
pub fn is_stub(id: FileId) -> bool {
    id.inode == objectid::EMPTY_SUBVOL_DIR
}

/// The attributes, as `lstat` gives them.
pub fn stat(volume: &Volume, id: FileId) -> Result<Stat> {
    let node = id.node()?;
    if is_stub(id) {
        return Ok(Stat {
            node,
            file_type: FileType::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            links: 1,
            size: 0,
            blocks: 0,
            device: None,
            atime: volume.now,
            mtime: volume.now,
            ctime: volume.now,
        });
    }
    let inode = load(volume, id)?;
    let file_type = file_type(id, &inode)?;
    let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
    let sector = u64::from(volume.sb().sector_size);
    let rdev = inode.rdev.get();
    Ok(Stat {
        node,
        file_type,
        mode: low16(inode.mode.get() & 0o7777),
        uid: inode.uid.get(),
        gid: inode.gid.get(),
        links: inode.nlink.get(),
        size: inode.size.get(),
        blocks: inode.nbytes.get().div_ceil(sector).saturating_mul(sector / 512),
        device: is_device.then_some((low32(rdev >> 20), low32(rdev & 0xf_ffff))),
        atime: time(&inode.atime),
        mtime: time(&inode.mtime),
        ctime: time(&inode.ctime),
    })
}

fn time(time: &Timespec) -> Timestamp {
    Timestamp {
        seconds: time.sec.get().cast_signed(),
        nanoseconds: time.nsec.get().min(999_999_999),
    }
}

/// A time in the form on disk.
pub fn timespec(time: Timestamp) -> Timespec {
    Timespec { sec: time.seconds.cast_unsigned().into(), nsec: time.nanoseconds.into() }
}
