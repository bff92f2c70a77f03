//! Operations on nodes: their attributes, times, content and link targets.

use std::io::Read;

use zerocopy::little_endian::U16;

use super::super::inode::{Inode, S_IFMT, flags};
use super::super::superblock::Superblock;
use super::super::volume::Volume;
use super::super::xattr::{self, name_index};
use super::super::{journal, map};
use crate::error::{Error, Result};
use crate::filesystem::{FileType, NodeId, Stat, Times};
use crate::num::to_usize;

/// The longest target that is read: `PATH_MAX`.
const LINK_TARGET_MAX: u64 = 4096;

/// The attributes of a node, as `lstat` returns them.
pub fn stat(inode: &Inode, sb: &Superblock) -> Result<Stat> {
    let Some(file_type) = inode.file_type() else {
        return Err(Error::corrupt(
            "inode",
            format!("inode {}", inode.ino),
            format!("i_mode is {:#o}", inode.raw.i_mode),
        ));
    };
    let device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice)
        .then(|| device_number(&inode.raw.i_block));
    // The kernel shows content kept in the inode as space of its own.
    let inside = match file_type {
        FileType::Regular if inode.has_flag(flags::INLINE_DATA) => inode.size().div_ceil(512),
        _ => 0,
    };
    Ok(Stat {
        node: NodeId(u64::from(inode.ino.get())),
        file_type,
        mode: inode.raw.i_mode.get() & !S_IFMT,
        uid: inode.uid(),
        gid: inode.gid(),
        links: u32::from(inode.links()),
        size: inode.size(),
        blocks: inode.blocks_512(sb).saturating_add(inside),
        device,
        atime: inode.atime(),
        mtime: inode.mtime(),
        ctime: inode.ctime(),
    })
}

/// The first word has old numbers (8 bits each), the second, when the first is 0, new ones (12 and
/// 20 bits).
fn device_number(i_block: &[u8; 60]) -> (u32, u32) {
    let word = |at: usize| {
        u32::from_le_bytes([i_block[at], i_block[at + 1], i_block[at + 2], i_block[at + 3]])
    };
    match (word(0), word(4)) {
        (0, new) => ((new & 0xF_FF00) >> 8, new & 0xFF | new >> 12 & 0xF_FF00),
        (old, _) => (old >> 8 & 0xFF, old & 0xFF),
    }
}

/// The first two words of a device node: small numbers in the old form, as the kernel writes them.
///
/// # Errors
/// [`Error::Invalid`] for numbers that Linux has not.
pub fn device_words(major: u32, minor: u32) -> Result<[u32; 2]> {
    if major > 0xFFF || minor > 0xF_FFFF {
        return Err(Error::Invalid(format!(
            "{major}:{minor} is no number of a device; the major is up to 4095, the minor up to \
             1048575"
        )));
    }
    Ok(if major < 256 && minor < 256 && (major, minor) != (0, 0) {
        [major << 8 | minor, 0]
    } else {
        [0, minor & 0xFF | major << 8 | (minor & !0xFF) << 12]
    })
}

/// Refuses to look into encrypted nodes.
fn check_plain(inode: &Inode) -> Result<()> {
    if inode.has_flag(flags::ENCRYPT) {
        return Err(Error::unsupported(
            format!("the encrypted inode {} (encrypt)", inode.ino),
            "choose another file, or edit it from inside the running guest",
        ));
    }
    Ok(())
}

/// A regular file that may be read.
pub fn readable_file(inode: &Inode) -> Result<()> {
    match inode.file_type() {
        Some(FileType::Regular) => check_plain(inode),
        Some(FileType::Directory) => Err(Error::IsADirectory(format!("inode {}", inode.ino))),
        _ => Err(Error::WrongType(format!("inode {}", inode.ino), "not a regular file")),
    }
}

/// A regular file that may be changed. Immutable and append-only files are changed too, as a
/// person who edits an image from outside expects, and keep their flag.
pub fn writable_file(inode: &Inode) -> Result<()> {
    readable_file(inode)?;
    if inode.has_flag(flags::VERITY) {
        return Err(Error::unsupported(
            format!("changing inode {}, which is sealed by fs-verity (verity)", inode.ino),
            "remove the file and create it anew",
        ));
    }
    Ok(())
}

/// The target of a symbolic link.
pub fn read_link(volume: &Volume, inode: &Inode) -> Result<Vec<u8>> {
    if inode.file_type() != Some(FileType::Symlink) {
        return Err(Error::WrongType(format!("inode {}", inode.ino), "not a symbolic link"));
    }
    check_plain(inode)?;
    let size = inode.size();
    let bad =
        |detail: String| Error::corrupt("symbolic link", format!("inode {}", inode.ino), detail);
    if size == 0 || size > LINK_TARGET_MAX {
        return Err(bad(format!("i_size is {size}, 1 to {LINK_TARGET_MAX} expected")));
    }
    let mut target = vec![0; to_usize(size)];
    if inode.has_flag(flags::INLINE_DATA) || map::has_map(inode) {
        let count = map::read(volume, inode, 0, &mut target)?;
        target.truncate(count);
    } else {
        let Some(bytes) = inode.raw.i_block.get(..target.len()) else {
            return Err(bad(format!("{size} bytes cannot be inside the inode")));
        };
        target.copy_from_slice(bytes);
    }
    if target.contains(&0) {
        return Err(bad("the target has a zero byte".to_owned()));
    }
    Ok(target)
}

/// Sets permission, set-id and sticky bits, and the ACL that goes with them.
pub fn chmod(volume: &mut Volume, inode: &mut Inode, mode: u16) -> Result<()> {
    let mode = inode.raw.i_mode.get() & S_IFMT | mode & !S_IFMT;
    inode.raw.i_mode = U16::new(mode);
    if inode.file_type() != Some(FileType::Symlink)
        && let Some(mut acl) = xattr::load_acl(volume, inode, name_index::ACL_ACCESS)?
    {
        acl.set_mode(mode);
        xattr::store_acl(volume, inode, name_index::ACL_ACCESS, Some(&acl))?;
    }
    inode.set_ctime(volume.options.now);
    volume.write_inode(inode)
}

/// Sets owner and group.
pub fn chown(volume: &mut Volume, inode: &mut Inode, uid: u32, gid: u32) -> Result<()> {
    let values = xattr::values_apart(volume, inode)?;
    volume.quota.note_values(&volume.sb, inode, -values);
    inode.set_owner(uid, gid);
    volume.quota.note_values(&volume.sb, inode, values);
    inode.set_ctime(volume.options.now);
    volume.write_inode(inode)
}

/// Sets times.
pub fn set_times(volume: &mut Volume, inode: &mut Inode, times: Times) -> Result<()> {
    if let Some(atime) = times.atime {
        inode.set_atime(atime);
    }
    if let Some(mtime) = times.mtime {
        inode.set_mtime(mtime);
    }
    inode.set_ctime(volume.options.now);
    volume.write_inode(inode)
}

/// Sets or removes an extended attribute.
pub fn set_xattr(
    volume: &mut Volume,
    inode: &mut Inode,
    name: &[u8],
    value: Option<&[u8]>,
) -> Result<()> {
    xattr::set(volume, inode, name, value)?;
    inode.set_ctime(volume.options.now);
    volume.write_inode(inode)
}

/// Replaces the content of a file.
pub fn replace(volume: &mut Volume, inode: &mut Inode, content: &[u8]) -> Result<()> {
    writable_file(inode)?;
    map::replace(volume, inode, content)?;
    finish_write(volume, inode)
}

/// Replaces the content of a file by what a reader gives.
pub fn write_from(volume: &mut Volume, inode: &mut Inode, content: &mut dyn Read) -> Result<u64> {
    writable_file(inode)?;
    let size = map::replace_from(volume, inode, content, journal::check_apart)?;
    finish_write(volume, inode)?;
    Ok(size)
}

/// Adds to the end of a file.
pub fn append(volume: &mut Volume, inode: &mut Inode, content: &[u8]) -> Result<()> {
    writable_file(inode)?;
    map::append(volume, inode, content)?;
    finish_write(volume, inode)
}

fn finish_write(volume: &mut Volume, inode: &mut Inode) -> Result<()> {
    inode.set_mtime(volume.options.now);
    inode.set_ctime(volume.options.now);
    volume.write_inode(inode)
}

#[cfg(test)]
mod tests {
    use super::{device_number, device_words};

    #[test]
    fn device_words_are_read_back() {
        for number in
            [(0, 0), (1, 3), (8, 1), (255, 255), (0, 256), (259, 70_000), (4095, 0xF_FFFF)]
        {
            let mut block = [0; 60];
            for (at, word) in device_words(number.0, number.1).unwrap().iter().enumerate() {
                block[at * 4..][..4].copy_from_slice(&word.to_le_bytes());
            }
            assert_eq!(device_number(&block), number);
        }
        assert!(device_words(4096, 0).is_err() && device_words(0, 1 << 20).is_err());
    }

    #[test]
    fn device_numbers() {
        let mut block = [0; 60];
        block[..4].copy_from_slice(&0x0801u32.to_le_bytes());
        assert_eq!(device_number(&block), (8, 1));
        block[..4].fill(0);
        // makedev(259, 70000): minor bits above 8 come after the major.
        let (major, minor) = (259u32, 70_000u32);
        let new = minor & 0xFF | major << 8 | (minor & !0xFF) << 12;
        block[4..8].copy_from_slice(&new.to_le_bytes());
        assert_eq!(device_number(&block), (major, minor));
    }
}
