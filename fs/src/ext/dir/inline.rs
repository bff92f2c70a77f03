//! Directories inside their inode (`inline_data`): the parent and 56 bytes of entries in `i_block`,
//! more entries in the value of the xattr `system.data`. There is no `.` and no `..`.
//!
//! Source: the kernel's Documentation/filesystems/ext4/inlinedata.rst.

use super::super::inode::{Inode, flags};
use super::super::map;
use super::super::volume::Volume;
use super::super::xattr::body;
use super::entry::{self, Layout, Place, Raw, entries};
use crate::error::{Error, Result};
use crate::ext::units::Ino;
use crate::filesystem::FileType;
use crate::num::{to_u64, to_usize};

/// Bytes of inline data in `i_block`.
const IN_INODE: usize = 60;
/// Bytes of `i_block` before the entries: the parent's inode number.
const PARENT: usize = 4;

/// One of the two regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `i_block`.
    First,
    /// `system.data`.
    Second,
}

fn place(dir: &Inode) -> Place {
    Place { ino: dir.ino, lblk: None }
}

fn layout(volume: &Volume) -> Layout {
    Layout::of(&volume.sb)
}

/// Calls `visit` for the entries in use, until it returns `false`.
pub fn walk(
    volume: &Volume,
    dir: &Inode,
    mut visit: impl FnMut(&Raw<'_>, Part) -> Result<bool>,
) -> Result<()> {
    let second = body::inline_tail(dir)?.unwrap_or_default();
    let size = dir.size();
    if size < to_u64(IN_INODE) || size - to_u64(IN_INODE) > to_u64(second.len()) {
        return Err(Error::corrupt(
            "directory",
            format!("inode {}", dir.ino),
            format!("i_size is {size}, but {} bytes are inside the inode", IN_INODE + second.len()),
        ));
    }
    let used = (to_usize(size) - IN_INODE).min(second.len());
    let here = place(dir);
    for (region, part) in
        [(&dir.raw.i_block[PARENT..], Part::First), (&second[..used], Part::Second)]
    {
        for raw in entries(region, layout(volume), &here) {
            let raw = raw?;
            if !raw.inode.is_none() && !visit(&raw, part)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The directory's parent.
pub fn parent(volume: &Volume, dir: &Inode) -> Result<Ino> {
    let b = &dir.raw.i_block;
    let found = Ino::new(u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    volume.inode_group(found)?;
    Ok(found)
}

/// Changes the directory's parent.
pub fn set_parent(dir: &mut Inode, parent: Ino) {
    dir.raw.i_block[..PARENT].copy_from_slice(&parent.to_le_bytes());
}

/// Changes one of the two regions.
pub fn change(
    dir: &mut Inode,
    part: Part,
    change: impl FnOnce(&mut [u8]) -> Result<()>,
) -> Result<()> {
    match part {
        Part::First => change(&mut dir.raw.i_block[PARENT..]),
        Part::Second => {
            let mut value = body::inline_tail(dir)?.unwrap_or_default();
            change(&mut value)?;
            store_tail(dir, &value)
        }
    }
}

fn store_tail(dir: &mut Inode, value: &[u8]) -> Result<()> {
    if body::set_inline_tail(dir, Some(value))? {
        return Ok(());
    }
    // The value has the length it had before.
    Err(place(dir).corrupt("inline data", 0, "system.data does not fit where it was"))
}

/// Adds an entry. `false` when the inode has no room for it.
pub fn insert(
    volume: &mut Volume,
    dir: &mut Inode,
    name: &[u8],
    ino: Ino,
    code: u8,
) -> Result<bool> {
    let layout = layout(volume);
    let here = place(dir);
    if entry::insert(&mut dir.raw.i_block[PARENT..], layout, &here, ino, name, code)? {
        return Ok(true);
    }
    let mut value = body::inline_tail(dir)?.unwrap_or_default();
    if entry::insert(&mut value, layout, &here, ino, name, code)? {
        store_tail(dir, &value)?;
        return Ok(true);
    }
    let at = value.len();
    let size = entry::entry_size(name.len());
    value.resize(at + size, 0);
    entry::put(&mut value, layout, at, size, ino, name, code);
    if !body::set_inline_tail(dir, Some(&value))? {
        return Ok(false);
    }
    dir.set_size(to_u64(IN_INODE + value.len()));
    Ok(true)
}

/// Moves all entries out of the inode into a block.
pub fn spill(volume: &mut Volume, dir: &mut Inode) -> Result<()> {
    let mut list = Vec::new();
    walk(volume, dir, |raw, _| {
        list.push(entry::Owned {
            inode: raw.inode,
            name: raw.name.to_vec(),
            file_type: raw.file_type,
        });
        Ok(true)
    })?;
    let parent = parent(volume, dir)?;
    body::set_inline_tail(dir, None)?;
    dir.set_flag(flags::INLINE_DATA, false);
    dir.raw.i_block = [0; 60];
    dir.set_size(0);
    map::init_map(volume, dir);
    let layout = layout(volume);
    let code = entry::type_code(FileType::Directory);
    let dot = |inode, name: &[u8]| entry::Owned { inode, name: name.to_vec(), file_type: code };
    list.splice(0..0, [dot(dir.ino, b"."), dot(parent, b"..")]);
    let mut block = vec![0; layout.block_size];
    let usable = layout.usable();
    let needed: usize = list.iter().map(|entry| entry::entry_size(entry.name.len())).sum();
    if needed > usable {
        return Err(place(dir).corrupt(
            "inline data",
            0,
            format!("{needed} bytes of entries, more than a block holds"),
        ));
    }
    entry::pack(&mut block[..usable], layout, &list);
    entry::seal_tail(&mut block, layout, dir.checksum_seed(&volume.sb));
    map::append_block(volume, dir, block)?;
    Ok(())
}
