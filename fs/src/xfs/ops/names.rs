//! Operations that give and take names.

use super::super::dir;
use super::super::inode::{Inode, flags, flags2};
use super::super::units::Ino;
use super::super::volume::Volume;
use crate::error::{Error, Result, display_name};
use crate::filesystem::{Attributes, FileType};

/// The deepest tree that is followed upwards.
const MAX_DEPTH: usize = 100_000;
/// The most links of a node.
const LINK_MAX: u32 = i32::MAX.cast_unsigned();
/// The bit of a mode by which new directories take that bit.
const S_ISGID: u16 = 0o2000;

fn type_bits(file_type: FileType) -> u16 {
    match file_type {
        FileType::Regular => 0x8000,
        FileType::Directory => 0x4000,
        FileType::Symlink => 0xA000,
        FileType::CharDevice => 0x2000,
        FileType::BlockDevice => 0x6000,
        FileType::Fifo => 0x1000,
        FileType::Socket => 0xC000,
    }
}

fn check_free(volume: &Volume, parent: &Inode, name: &[u8]) -> Result<()> {
    dir::check_name(name)?;
    match volume.dir_lookup(parent, name)? {
        Some(_) => Err(Error::Exists(display_name(name))),
        None => Ok(()),
    }
}

/// Counts one link more.
fn link(inode: &mut Inode) -> Result<()> {
    if inode.links() >= LINK_MAX {
        return Err(Error::NoSpace(format!("inode {} has {} links", inode.ino, inode.links())));
    }
    inode.set_links(inode.links() + 1);
    Ok(())
}

/// A new inode with its attributes and what it takes from its directory.
fn new_node(
    volume: &mut Volume,
    parent: &Inode,
    file_type: FileType,
    attributes: Attributes,
) -> Result<Inode> {
    let mut inode = volume.alloc_inode(parent.ino)?;
    let is_dir = file_type == FileType::Directory;
    let mut mode = type_bits(file_type) | attributes.mode & 0o7777;
    if is_dir {
        mode |= parent.core.di_mode.get() & S_ISGID;
    }
    let has = |bit| parent.has_flag(bit);
    let mut bits2 = 0;
    if volume.sb.has_bigtime() {
        bits2 |= flags2::BIGTIME;
    }
    if volume.sb.has_nrext64() {
        bits2 |= flags2::NREXT64;
    }
    let mut bits = parent.core.di_flags.get() & (flags::NOATIME | flags::NODUMP | flags::NODEFRAG);
    if has(flags::PROJINHERIT) {
        inode.core.di_projid_lo = parent.core.di_projid_lo;
        inode.core.di_projid_hi = parent.core.di_projid_hi;
    }
    if is_dir {
        let handed = flags::RTINHERIT | flags::EXTSZINHERIT | flags::PROJINHERIT;
        bits |= parent.core.di_flags.get() & handed;
    }
    if has(flags::EXTSZINHERIT) && matches!(file_type, FileType::Regular | FileType::Directory) {
        inode.core.di_extsize = parent.core.di_extsize;
        if !is_dir {
            bits |= flags::EXTSIZE;
        }
    }
    if parent.has_flag2(flags2::COWEXTSIZE)
        && matches!(file_type, FileType::Regular | FileType::Directory)
    {
        bits2 |= flags2::COWEXTSIZE;
        inode.core.di_cowextsize = parent.core.di_cowextsize;
    }
    let core = &mut inode.core;
    core.di_mode.set(mode);
    core.di_uid.set(attributes.uid);
    core.di_gid.set(attributes.gid);
    core.di_flags.set(bits);
    core.di_flags2.set(bits2);
    core.di_nlink.set(if is_dir { 2 } else { 1 });
    let now = inode.field(volume.options.now);
    let core = &mut inode.core;
    core.di_atime = now;
    core.di_mtime = now;
    core.di_ctime = now;
    core.di_crtime = now;
    core.di_changecount.set(1);
    Ok(inode)
}

/// Makes a node with a name: an empty file, an empty directory, or a link to `target`.
pub(super) fn make(
    volume: &mut Volume,
    parent: Ino,
    name: &[u8],
    attributes: Attributes,
    file_type: FileType,
    target: &[u8],
) -> Result<Ino> {
    let mut parent = volume.directory(parent)?;
    check_free(volume, &parent, name)?;
    let mut inode = new_node(volume, &parent, file_type, attributes)?;
    match file_type {
        FileType::Directory => {
            volume.dir_init(&mut inode, parent.ino)?;
            link(&mut parent)?;
        }
        FileType::Symlink => volume.write_link(&mut inode, target)?,
        _ => {}
    }
    if file_type != FileType::Symlink {
        volume.acl_inherit(&parent, &mut inode)?;
    }
    volume.write_inode(&inode)?;
    volume.dir_insert(&mut parent, name, inode.ino, file_type)?;
    parent.touch(volume.options.now, true);
    volume.write_inode(&parent)?;
    Ok(inode.ino)
}

/// Takes one link from a node that is no directory; it goes with the last.
fn drop_link(volume: &mut Volume, inode: &mut Inode) -> Result<()> {
    if inode.links() > 1 {
        inode.set_links(inode.links() - 1);
        inode.touch(volume.options.now, false);
        return volume.write_inode(inode);
    }
    super::remove(volume, inode)
}

/// The inode that a name names, to be changed with its directory.
fn find(volume: &Volume, parent: &Inode, name: &[u8]) -> Result<Inode> {
    dir::check_name(name)?;
    let entry = volume.dir_lookup(parent, name)?;
    let entry: dir::Entry = entry.ok_or_else(|| Error::NotFound(display_name(name)))?;
    if entry.ino == parent.ino {
        return Err(Error::corrupt(
            "directory",
            format!("inode {}", parent.ino),
            format!("`{}` in it is the directory itself", display_name(name)),
        ));
    }
    volume.inode(entry.ino)
}

/// Removes a name.
pub(super) fn unlink(volume: &mut Volume, parent: Ino, name: &[u8]) -> Result<()> {
    let mut parent = volume.directory(parent)?;
    let mut inode = find(volume, &parent, name)?;
    if inode.is_dir() {
        return Err(Error::IsADirectory(display_name(name)));
    }
    volume.dir_remove(&mut parent, name)?;
    parent.touch(volume.options.now, true);
    volume.write_inode(&parent)?;
    drop_link(volume, &mut inode)
}

/// A directory that goes: it must be empty.
fn check_removable(volume: &Volume, inode: &Inode, name: &[u8]) -> Result<()> {
    if !inode.is_dir() {
        return Err(Error::NotADirectory(display_name(name)));
    }
    if !volume.dir_is_empty(inode)? {
        return Err(Error::NotEmpty(display_name(name)));
    }
    if inode.ino == volume.sb.root() {
        return Err(Error::corrupt(
            "directory",
            format!("inode {}", inode.ino),
            "the root has a name",
        ));
    }
    Ok(())
}

/// Removes an empty directory.
pub(super) fn rmdir(volume: &mut Volume, parent: Ino, name: &[u8]) -> Result<()> {
    let mut parent = volume.directory(parent)?;
    let mut inode = find(volume, &parent, name)?;
    check_removable(volume, &inode, name)?;
    volume.dir_remove(&mut parent, name)?;
    parent.set_links(parent.links().saturating_sub(1).max(2));
    parent.touch(volume.options.now, true);
    volume.write_inode(&parent)?;
    super::remove(volume, &mut inode)
}

/// Moves a name, as `rename(2)` does.
pub(super) fn rename(
    volume: &mut Volume,
    from_parent: Ino,
    from: &[u8],
    to_parent: Ino,
    to: &[u8],
) -> Result<()> {
    dir::check_name(to)?;
    let mut source = volume.directory(from_parent)?;
    let mut moved = find(volume, &source, from)?;
    let is_dir = moved.is_dir();
    let file_type = moved.file_type()?;
    let mut target = (to_parent != from_parent).then(|| volume.directory(to_parent)).transpose()?;
    if is_dir {
        check_not_inside(volume, moved.ino, to_parent, to)?;
    }
    let into = target.as_ref().unwrap_or(&source);
    let mut replaced = match volume.dir_lookup(into, to)? {
        // Two names of one node: nothing to do.
        Some(old) if old.ino == moved.ino => return Ok(()),
        Some(_) => Some(find(volume, into, to)?),
        None => None,
    };
    if let Some(old) = &replaced {
        if is_dir {
            check_removable(volume, old, to)?;
        } else if old.is_dir() {
            return Err(Error::IsADirectory(display_name(to)));
        }
    }
    let into = target.as_mut().unwrap_or(&mut source);
    if replaced.is_some() {
        volume.dir_replace(into, to, moved.ino, file_type)?;
    } else {
        volume.dir_insert(into, to, moved.ino, file_type)?;
    }
    volume.dir_remove(&mut source, from)?;
    if is_dir {
        let fewer = |inode: &mut Inode| inode.set_links(inode.links().saturating_sub(1).max(2));
        if replaced.is_some() {
            fewer(target.as_mut().unwrap_or(&mut source));
        }
        if let Some(target) = &mut target {
            fewer(&mut source);
            link(target)?;
            volume.dir_replace(&mut moved, b"..", target.ino, FileType::Directory)?;
        }
    }
    source.touch(volume.options.now, true);
    volume.write_inode(&source)?;
    if let Some(target) = &mut target {
        target.touch(volume.options.now, true);
        volume.write_inode(target)?;
    }
    moved.touch(volume.options.now, false);
    volume.write_inode(&moved)?;
    match &mut replaced {
        Some(inode) if is_dir => super::remove(volume, inode),
        Some(inode) => drop_link(volume, inode),
        None => Ok(()),
    }
}

/// A directory must not be moved to below itself.
fn check_not_inside(volume: &Volume, moved: Ino, to_parent: Ino, to: &[u8]) -> Result<()> {
    let mut at = to_parent;
    for _ in 0..MAX_DEPTH {
        if at == moved {
            return Err(Error::Invalid(format!(
                "{}: a directory cannot be moved into itself",
                display_name(to)
            )));
        }
        if at == volume.sb.root() {
            return Ok(());
        }
        at = volume.dir_parent(&volume.directory(at)?)?;
    }
    Err(Error::corrupt(
        "directory",
        format!("inode {to_parent}"),
        "following `..` upwards does not end at the root",
    ))
}
