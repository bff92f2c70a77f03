//! Operations that give and take names: create, mkdir, symlink, unlink, rmdir, rename.

use zerocopy::{FromZeros, IntoBytes};

use super::super::dir::{self, Entry};
use super::super::file_id::FileId;
use super::super::inode;
use super::super::layout::{InodeItem, Key, inode_flags, item_type, objectid};
use super::super::volume::Volume;
use super::super::xattr;
use super::{entries, write};
use crate::error::{Error, Result, display_name};
use crate::ext::acl::Acl;
use crate::filesystem::{Attributes, FileType};

/// The longest target of a symbolic link.
const TARGET_MAX: usize = 4095;
/// The deepest tree that is followed upwards.
const DEPTH_MAX: usize = 100_000;
/// The bits of a directory's mode that new directories in it inherit.
const S_ISGID: u32 = 0o2000;
/// The attribute that says how new files are compressed.
const COMPRESSION: &[u8] = b"btrfs.compression";
pub(super) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > dir::NAME_MAX {
        return Err(Error::NameTooLong(display_name(name)));
    }
    if matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(Error::Invalid(format!("`{}` cannot be a name", display_name(name))));
    }
    Ok(())
}

/// A directory that is to be changed.
fn open_dir(volume: &Volume, dir: FileId) -> Result<InodeItem> {
    if inode::is_stub(dir) {
        return Err(Error::ReadOnly(
            "this directory stands for a subvolume that is not here".into(),
        ));
    }
    volume.check_writable(dir.tree)?;
    dir::check(volume, dir)?;
    inode::load(volume, dir)
}

/// Makes a node with a name; content comes after.
pub fn make(
    volume: &mut Volume,
    dir: FileId,
    name: &[u8],
    file_type: FileType,
    attributes: Attributes,
) -> Result<FileId> {
    check_name(name)?;
    let parent = open_dir(volume, dir)?;
    if dir::find(volume, dir, name)?.is_some() {
        return Err(Error::Exists(display_name(name)));
    }
    let id = FileId { inode: entries::next_inode(volume, dir)?, ..dir };
    let mut mode = inode::type_bits(file_type) | u32::from(attributes.mode & 0o7777);
    if file_type == FileType::Directory {
        mode |= parent.mode.get() & S_ISGID;
    }
    let now = inode::timespec(volume.now);
    let mut item = InodeItem::new_zeroed();
    item.generation = volume.transid().into();
    item.transid = volume.transid().into();
    item.nlink = 1u32.into();
    item.uid = attributes.uid.into();
    item.gid = attributes.gid.into();
    item.mode = mode.into();
    item.flags = inherited(parent.flags.get(), file_type).into();
    (item.atime, item.ctime, item.mtime, item.otime) = (now, now, now, now);
    volume.put(id.tree, inode::key(id.inode), item.as_bytes())?;
    if file_type != FileType::Symlink {
        inherit_acl(volume, dir, id, file_type, attributes.mode)?;
    }
    if matches!(file_type, FileType::Regular | FileType::Directory)
        && let Some(value) = xattr::get(volume, dir, COMPRESSION)?
    {
        entries::put_xattr(volume, id, COMPRESSION, Some(&value))?;
    }
    entries::add_name(volume, dir, name, id, dir::type_kind(file_type))?;
    Ok(id)
}

/// The flags that a new node takes from its directory.
fn inherited(flags: u64, file_type: FileType) -> u64 {
    let mut out = 0;
    if flags & inode_flags::NOCOMPRESS != 0 {
        out |= inode_flags::NOCOMPRESS;
    } else if flags & inode_flags::COMPRESS != 0 {
        out |= inode_flags::COMPRESS;
    }
    if flags & inode_flags::NODATACOW != 0 {
        out |= inode_flags::NODATACOW;
        if file_type == FileType::Regular {
            out |= inode_flags::NODATASUM;
        }
    }
    out
}

/// Gives a new node the default ACL of its directory, with the permissions of the mode.
fn inherit_acl(
    volume: &mut Volume,
    dir: FileId,
    id: FileId,
    file_type: FileType,
    mode: u16,
) -> Result<()> {
    let Some(default) = xattr::get(volume, dir, ACL_DEFAULT)? else { return Ok(()) };
    if file_type == FileType::Directory {
        entries::put_xattr(volume, id, ACL_DEFAULT, Some(&default))?;
    }
    let mut acl = Acl::from_value(&default)?;
    acl.set_mode(mode);
    if !acl.is_mode_only() {
        entries::put_xattr(volume, id, ACL_ACCESS, Some(&acl.to_value()))?;
    }
    Ok(())
}

/// Makes a symbolic link.
pub fn symlink(
    volume: &mut Volume,
    dir: FileId,
    name: &[u8],
    target: &[u8],
    attributes: Attributes,
) -> Result<FileId> {
    let room = volume.item_max() - super::super::content::INLINE_HEAD;
    if target.len() > TARGET_MAX.min(room) {
        return Err(Error::NameTooLong(display_name(target)));
    }
    if target.is_empty() || target.contains(&0) {
        return Err(Error::Invalid(format!(
            "`{}` cannot be the target of a symbolic link",
            display_name(target)
        )));
    }
    let id = make(volume, dir, name, FileType::Symlink, attributes)?;
    let mut inode = inode::load(volume, id)?;
    write::put_inline(volume, id, &mut inode, target)?;
    entries::save(volume, id, &mut inode)?;
    Ok(id)
}

/// The entry with a name, and the file that it names, which must be of this subvolume.
fn entry(volume: &Volume, dir: FileId, name: &[u8]) -> Result<(Entry, FileId)> {
    let found = dir::find(volume, dir, name)?;
    let found = found.ok_or_else(|| Error::NotFound(display_name(name)))?;
    if found.location.item_type != item_type::INODE_ITEM {
        return Err(Error::unsupported(
            format!("removing, moving or replacing the subvolume `{}`", display_name(name)),
            "use btrfs subvolume in the guest",
        ));
    }
    let id = dir::target(volume, dir, &found)?;
    if id.inode == objectid::FIRST_FREE {
        return Err(Error::corrupt(
            "directory item",
            dir.to_string(),
            format!("`{}` names the root directory", display_name(name)),
        ));
    }
    Ok((found, id))
}

fn is_dir(volume: &Volume, id: FileId) -> Result<bool> {
    Ok(inode::file_type(id, &inode::load(volume, id)?)? == FileType::Directory)
}

fn check_empty(volume: &Volume, id: FileId, name: &[u8]) -> Result<()> {
    let first = Key::new(id.inode, item_type::DIR_ITEM, 0);
    let last = Key::new(id.inode, item_type::DIR_INDEX, u64::MAX);
    match volume.items(id.tree, first, last)?.next_item()? {
        Some(_) => Err(Error::NotEmpty(display_name(name))),
        None => Ok(()),
    }
}

/// Removes a name.
pub fn unlink(volume: &mut Volume, dir: FileId, name: &[u8]) -> Result<()> {
    open_dir(volume, dir)?;
    let (_, id) = entry(volume, dir, name)?;
    if is_dir(volume, id)? {
        return Err(Error::IsADirectory(display_name(name)));
    }
    entries::remove_name(volume, dir, name, id)?;
    entries::drop_link(volume, id)
}

/// Removes an empty directory.
pub fn rmdir(volume: &mut Volume, dir: FileId, name: &[u8]) -> Result<()> {
    open_dir(volume, dir)?;
    let (_, id) = entry(volume, dir, name)?;
    if !is_dir(volume, id)? {
        return Err(Error::NotADirectory(display_name(name)));
    }
    check_empty(volume, id, name)?;
    entries::remove_name(volume, dir, name, id)?;
    entries::delete(volume, id)
}

/// Moves a name, as `rename(2)` does.
pub fn rename(
    volume: &mut Volume,
    from_dir: FileId,
    from: &[u8],
    to_dir: FileId,
    to: &[u8],
) -> Result<()> {
    check_name(to)?;
    open_dir(volume, from_dir)?;
    open_dir(volume, to_dir)?;
    if from_dir.tree != to_dir.tree {
        return Err(Error::unsupported(
            format!("moving `{}` to another subvolume", display_name(from)),
            "copy it, then remove it",
        ));
    }
    let (moved, id) = entry(volume, from_dir, from)?;
    let moves_dir = is_dir(volume, id)?;
    if moves_dir {
        check_not_inside(volume, id, to_dir, to)?;
    }
    if dir::find(volume, to_dir, to)?.is_some() {
        let (_, old) = entry(volume, to_dir, to)?;
        if old == id {
            return Ok(());
        }
        match (moves_dir, is_dir(volume, old)?) {
            (true, false) => return Err(Error::NotADirectory(display_name(to))),
            (false, true) => return Err(Error::IsADirectory(display_name(to))),
            (true, true) => {
                check_empty(volume, old, to)?;
                entries::remove_name(volume, to_dir, to, old)?;
                entries::delete(volume, old)?;
            }
            (false, false) => {
                entries::remove_name(volume, to_dir, to, old)?;
                entries::drop_link(volume, old)?;
            }
        }
    }
    entries::remove_name(volume, from_dir, from, id)?;
    entries::add_name(volume, to_dir, to, id, moved.kind)?;
    let mut inode = inode::load(volume, id)?;
    inode.ctime = inode::timespec(volume.now);
    entries::save(volume, id, &mut inode)
}

/// A directory must not be moved to below itself.
fn check_not_inside(volume: &Volume, moved: FileId, to_dir: FileId, to: &[u8]) -> Result<()> {
    let mut at = to_dir.inode;
    for _ in 0..DEPTH_MAX {
        if at == moved.inode {
            return Err(Error::Invalid(format!(
                "{}: a directory cannot be moved into itself",
                display_name(to)
            )));
        }
        if at == objectid::FIRST_FREE {
            return Ok(());
        }
        let first = Key::new(at, item_type::INODE_REF, 0);
        let last = Key { offset: u64::MAX, ..first };
        let above = volume.items(moved.tree, first, last)?.next_item()?;
        let Some((key, _)) = above else { break };
        at = key.offset;
    }
    Err(Error::corrupt(
        "directory",
        to_dir.to_string(),
        "following it upwards does not end at the root of the subvolume",
    ))
}
