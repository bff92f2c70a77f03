//! Operations that give and take names: create, mkdir, symlink, unlink, rmdir, rename.

use super::super::inode::{Inode, ROOT_INO};
use super::super::superblock::ro_compat;
use super::super::volume::Volume;
use super::super::{dir, map, remove};
use super::{new, nodes};
use crate::error::{Error, Result, display_name};
use crate::ext::units::Ino;
use crate::filesystem::{Attributes, FileType};
use crate::num::to_u64;

/// `i_links_count` beyond this does not go up: `EXT4_LINK_MAX`.
const LINK_MAX: u16 = 65_000;
/// The target of a symbolic link that fits into the inode has fewer bytes.
const FAST_LINK: usize = 60;
/// The longest target of a symbolic link.
const LINK_TARGET_MAX: usize = 4095;
/// The deepest tree that is followed upwards.
const MAX_DEPTH: usize = 100_000;

/// Reads a directory that an operation is to change.
pub fn open_dir(volume: &Volume, ino: Ino) -> Result<Inode> {
    let inode = volume.live_inode(ino)?;
    dir::check_dir(&inode)?;
    Ok(inode)
}

/// Notes that the content of a directory changed.
fn touch(volume: &Volume, parent: &mut Inode) {
    parent.set_mtime(volume.options.now);
    parent.set_ctime(volume.options.now);
}

/// Counts one more subdirectory.
fn link_subdirectory(volume: &Volume, parent: &mut Inode) -> Result<()> {
    let links = parent.links();
    let unlimited = dir::counts_links_up_to_one(volume, parent);
    if links == 1 && volume.sb.has_ro_compat(ro_compat::DIR_NLINK) {
        return Ok(());
    }
    if links >= LINK_MAX {
        if !unlimited {
            return Err(Error::NoSpace(format!(
                "directory inode {} has {links} links, and more subdirectories need the dir_nlink feature and an index",
                parent.ino
            )));
        }
        // A count of 1 means "many" from here on.
        parent.set_links(1);
        return Ok(());
    }
    parent.set_links(links + 1);
    Ok(())
}

/// Counts one subdirectory less.
fn unlink_subdirectory(parent: &mut Inode) {
    if parent.links() > 2 {
        parent.set_links(parent.links() - 1);
    }
}

fn check_free(volume: &Volume, parent: &Inode, name: &[u8]) -> Result<()> {
    dir::check_name(name)?;
    match dir::lookup(volume, parent, name)? {
        Some(_) => Err(Error::Exists(display_name(name))),
        None => Ok(()),
    }
}

/// Makes an empty regular file.
pub fn create(
    volume: &mut Volume,
    parent: Ino,
    name: &[u8],
    attributes: Attributes,
) -> Result<Ino> {
    let mut parent = open_dir(volume, parent)?;
    check_free(volume, &parent, name)?;
    let inode = new::node(volume, &parent, FileType::Regular, attributes)?;
    volume.write_inode(&inode)?;
    dir::insert(volume, &mut parent, name, inode.ino, FileType::Regular)?;
    touch(volume, &mut parent);
    volume.write_inode(&parent)?;
    Ok(inode.ino)
}

/// Makes an empty directory.
pub fn mkdir(volume: &mut Volume, parent: Ino, name: &[u8], attributes: Attributes) -> Result<Ino> {
    let mut parent = open_dir(volume, parent)?;
    check_free(volume, &parent, name)?;
    let mut inode = new::node(volume, &parent, FileType::Directory, attributes)?;
    let block = dir::first_block(volume, &inode, parent.ino);
    map::append_block(volume, &mut inode, block)?;
    volume.write_inode(&inode)?;
    dir::insert(volume, &mut parent, name, inode.ino, FileType::Directory)?;
    link_subdirectory(volume, &mut parent)?;
    touch(volume, &mut parent);
    volume.write_inode(&parent)?;
    Ok(inode.ino)
}

/// Makes a symbolic link.
pub fn symlink(
    volume: &mut Volume,
    parent: Ino,
    name: &[u8],
    target: &[u8],
    attributes: Attributes,
) -> Result<Ino> {
    let block_size = volume.block_size();
    if target.len() > LINK_TARGET_MAX.min(block_size - 1) {
        return Err(Error::NameTooLong(display_name(target)));
    }
    if target.is_empty() || target.contains(&0) {
        return Err(Error::Invalid(format!(
            "`{}` cannot be the target of a symbolic link",
            display_name(target)
        )));
    }
    let mut parent = open_dir(volume, parent)?;
    check_free(volume, &parent, name)?;
    let mut inode = new::node(volume, &parent, FileType::Symlink, attributes)?;
    if target.len() < FAST_LINK {
        inode.raw.i_block[..target.len()].copy_from_slice(target);
    } else {
        map::init_map(volume, &mut inode);
        let mut block = target.to_vec();
        block.resize(block_size, 0);
        map::append_block(volume, &mut inode, block)?;
    }
    inode.set_size(to_u64(target.len()));
    volume.write_inode(&inode)?;
    dir::insert(volume, &mut parent, name, inode.ino, FileType::Symlink)?;
    touch(volume, &mut parent);
    volume.write_inode(&parent)?;
    Ok(inode.ino)
}

/// Makes a device node, a named pipe or a socket.
pub fn mknod(
    volume: &mut Volume,
    parent: Ino,
    name: &[u8],
    file_type: FileType,
    device: Option<(u32, u32)>,
    attributes: Attributes,
) -> Result<Ino> {
    let words = match (file_type, device) {
        (FileType::CharDevice | FileType::BlockDevice, Some((major, minor))) => {
            Some(nodes::device_words(major, minor)?)
        }
        (FileType::Fifo | FileType::Socket, None) => None,
        _ => {
            return Err(Error::Invalid(format!(
                "{}: a device node has a number, a named pipe and a socket have none, and nothing \
                 else is made so",
                display_name(name)
            )));
        }
    };
    let mut parent = open_dir(volume, parent)?;
    check_free(volume, &parent, name)?;
    let mut inode = new::node(volume, &parent, file_type, attributes)?;
    for (at, word) in words.iter().flatten().enumerate() {
        inode.raw.i_block[at * 4..][..4].copy_from_slice(&word.to_le_bytes());
    }
    volume.write_inode(&inode)?;
    dir::insert(volume, &mut parent, name, inode.ino, file_type)?;
    touch(volume, &mut parent);
    volume.write_inode(&parent)?;
    Ok(inode.ino)
}

/// Gives a node that is no directory one more name.
pub fn link(volume: &mut Volume, ino: Ino, parent: Ino, name: &[u8]) -> Result<()> {
    let mut inode = volume.live_inode(ino)?;
    let file_type = match inode.file_type() {
        Some(FileType::Directory) => return Err(Error::IsADirectory(display_name(name))),
        Some(file_type) => file_type,
        None => return Err(Error::NotFound(display_name(name))),
    };
    if inode.links() >= LINK_MAX {
        return Err(Error::NoSpace(format!("inode {ino} has {LINK_MAX} names, the most it can")));
    }
    let mut parent = open_dir(volume, parent)?;
    check_free(volume, &parent, name)?;
    inode.set_links(inode.links() + 1);
    inode.set_ctime(volume.options.now);
    volume.write_inode(&inode)?;
    dir::insert(volume, &mut parent, name, ino, file_type)?;
    touch(volume, &mut parent);
    volume.write_inode(&parent)
}

/// Takes one link from a node that is not a directory; it goes with the last.
fn drop_link(volume: &mut Volume, inode: &mut Inode) -> Result<()> {
    if inode.links() > 1 {
        inode.set_links(inode.links() - 1);
        inode.set_ctime(volume.options.now);
        return volume.write_inode(inode);
    }
    remove::free_inode(volume, inode)
}

/// Removes a name.
pub fn unlink(volume: &mut Volume, parent: Ino, name: &[u8]) -> Result<()> {
    let mut parent = open_dir(volume, parent)?;
    let Some(entry) = dir::lookup(volume, &parent, name)? else {
        return Err(Error::NotFound(display_name(name)));
    };
    let mut inode = volume.live_inode(entry.ino)?;
    if inode.is_dir() {
        return Err(Error::IsADirectory(display_name(name)));
    }
    dir::remove(volume, &mut parent, name)?;
    touch(volume, &mut parent);
    volume.write_inode(&parent)?;
    drop_link(volume, &mut inode)
}

/// Removes an empty directory.
pub fn rmdir(volume: &mut Volume, parent: Ino, name: &[u8]) -> Result<()> {
    let mut parent = open_dir(volume, parent)?;
    let Some(entry) = dir::lookup(volume, &parent, name)? else {
        return Err(Error::NotFound(display_name(name)));
    };
    let mut inode = open_removable(volume, entry.ino, name)?;
    dir::remove(volume, &mut parent, name)?;
    unlink_subdirectory(&mut parent);
    touch(volume, &mut parent);
    volume.write_inode(&parent)?;
    remove::free_inode(volume, &mut inode)
}

/// A directory that may go: empty, and not the root, which a hostile entry may name.
fn open_removable(volume: &Volume, ino: Ino, name: &[u8]) -> Result<Inode> {
    let inode = volume.live_inode(ino)?;
    if !inode.is_dir() {
        return Err(Error::NotADirectory(display_name(name)));
    }
    if ino == ROOT_INO {
        return Err(Error::corrupt(
            "directory entry",
            format!("`{}`", display_name(name)),
            "it names the root directory",
        ));
    }
    if !dir::is_empty(volume, &inode)? {
        return Err(Error::NotEmpty(display_name(name)));
    }
    Ok(inode)
}

/// Moves a name, as `rename(2)` does.
pub fn rename(
    volume: &mut Volume,
    from_parent: Ino,
    from: &[u8],
    to_parent: Ino,
    to: &[u8],
) -> Result<()> {
    dir::check_name(to)?;
    let mut source = open_dir(volume, from_parent)?;
    // One directory must not be in memory twice.
    let mut target =
        if from_parent == to_parent { None } else { Some(open_dir(volume, to_parent)?) };
    let Some(entry) = dir::lookup(volume, &source, from)? else {
        return Err(Error::NotFound(display_name(from)));
    };
    let mut moved = volume.live_inode(entry.ino)?;
    let is_dir = moved.is_dir();
    let Some(file_type) = moved.file_type() else {
        return Err(Error::NotFound(display_name(from)));
    };
    if moved.ino == from_parent || moved.ino == to_parent {
        return Err(Error::Invalid(format!(
            "{}: a directory cannot be moved into itself",
            display_name(to)
        )));
    }
    if is_dir && target.is_some() {
        check_not_inside(volume, moved.ino, to_parent, to)?;
    }
    let old = dir::lookup(volume, target.as_ref().unwrap_or(&source), to)?;
    if let Some(old) = &old
        && old.ino == moved.ino
    {
        // Two names of one node: nothing to do. In a directory that ignores case it is one
        // name, which may get other letters.
        if target.is_some() || from == to || !dir::is_casefolded(volume, &source) {
            return Ok(());
        }
    }
    let mut replaced = match &old {
        Some(old) if old.ino != moved.ino => {
            let inode = if is_dir {
                open_removable(volume, old.ino, to)?
            } else {
                let inode = volume.live_inode(old.ino)?;
                if inode.is_dir() {
                    return Err(Error::IsADirectory(display_name(to)));
                }
                inode
            };
            Some(inode)
        }
        _ => None,
    };
    if old.is_some() && replaced.is_none() {
        dir::remove(volume, &mut source, from)?;
        dir::insert(volume, &mut source, to, moved.ino, file_type)?;
    } else {
        let into = target.as_mut().unwrap_or(&mut source);
        if replaced.is_some() {
            dir::replace(volume, into, to, moved.ino, file_type)?;
        } else {
            dir::insert(volume, into, to, moved.ino, file_type)?;
        }
        dir::remove(volume, &mut source, from)?;
    }
    if is_dir {
        if replaced.is_some() {
            unlink_subdirectory(target.as_mut().unwrap_or(&mut source));
        }
        if let Some(target) = &mut target {
            unlink_subdirectory(&mut source);
            link_subdirectory(volume, target)?;
            dir::set_parent(volume, &mut moved, target.ino)?;
        }
    }
    touch(volume, &mut source);
    volume.write_inode(&source)?;
    if let Some(target) = &mut target {
        touch(volume, target);
        volume.write_inode(target)?;
    }
    moved.set_ctime(volume.options.now);
    volume.write_inode(&moved)?;
    match &mut replaced {
        Some(inode) if is_dir => remove::free_inode(volume, inode),
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
        if at == ROOT_INO {
            return Ok(());
        }
        let inode = open_dir(volume, at)?;
        at = dir::parent(volume, &inode)?;
    }
    Err(Error::corrupt(
        "directory",
        format!("inode {to_parent}"),
        "following `..` upwards does not end at the root",
    ))
}
