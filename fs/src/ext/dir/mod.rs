//! Directories: linear and indexed, in blocks and inside the inode.
//!
//! All functions take the directory's inode as it is in the caller's hands; those that change the
//! directory change it too, and the caller writes it ([`Volume::write_inode`]).

mod blocks;
pub mod casefold;
pub mod entry;
mod grow;
pub mod hash;
mod index;
mod inline;
mod name;

use std::collections::HashSet;

use super::inode::{Inode, flags};
use super::superblock::compat;
use super::units::{FsBlock, Ino};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::filesystem::{DirEntry, FileType, NodeId};
use blocks::{blocks_of, read_leaf, read_raw};
use entry::{Layout, Place, Raw, entries};
pub use name::{Wanted, check as check_name, is_casefolded};

/// Entries that one directory may list. They take about 64 MiB: more memory than that no image gets.
/// Finding one name has no such limit.
pub const MAX_LISTED: usize = 1_000_000;

/// One entry of a directory, `.` and `..` included only where a function documents it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// The inode.
    pub ino: Ino,
    /// The type of the inode, as the entry has it.
    pub file_type: Option<FileType>,
}

impl Entry {
    fn of(raw: &Raw<'_>) -> Self {
        Self {
            name: raw.name.to_vec(),
            ino: raw.inode,
            file_type: entry::type_of_code(raw.file_type),
        }
    }
}

/// The place of an entry.
#[derive(Clone, Copy, Debug)]
enum Spot {
    Block { lblk: u32, pblk: FsBlock, offset: usize },
    Inline { part: inline::Part, offset: usize },
}

#[derive(Clone, Debug)]
struct Found {
    entry: Entry,
    spot: Spot,
}

/// Whether the entries are inside the inode.
fn is_inline(dir: &Inode) -> bool {
    dir.has_flag(flags::INLINE_DATA)
}

/// Whether the directory has an index that is in use.
fn is_indexed(volume: &Volume, dir: &Inode) -> bool {
    volume.sb.has_compat(compat::DIR_INDEX) && dir.has_flag(flags::INDEX)
}

/// Refuses an inode that is not a readable directory.
pub fn check_dir(dir: &Inode) -> Result<()> {
    if !dir.is_dir() {
        return Err(Error::NotADirectory(format!("inode {}", dir.ino)));
    }
    if dir.has_flag(flags::ENCRYPT) {
        return Err(Error::unsupported(
            format!("the encrypted directory inode {} (encrypt)", dir.ino),
            "choose paths outside of it, or edit it from inside the running guest",
        ));
    }
    Ok(())
}

/// Calls `visit` for the entries in use of every block in turn, until it returns `false`.
fn walk(
    volume: &Volume,
    dir: &Inode,
    mut visit: impl FnMut(&Raw<'_>, Spot) -> Result<bool>,
) -> Result<()> {
    check_dir(dir)?;
    let layout = Layout::of(&volume.sb);
    if is_inline(dir) {
        return inline::walk(volume, dir, |raw, part| {
            let spot = Spot::Inline { part, offset: raw.offset };
            visit(raw, spot)
        });
    }
    let indexed = is_indexed(volume, dir);
    let mut seen = HashSet::new();
    for lblk in 0..blocks_of(volume, dir)? {
        let place = Place { ino: dir.ino, lblk: Some(lblk) };
        let (pblk, block) = read_raw(volume, dir, lblk)?;
        if !seen.insert(pblk) {
            return Err(place.corrupt(
                "directory",
                0,
                format!("it is block {pblk}, as an earlier part of this directory is"),
            ));
        }
        let mut region = &block[..];
        if indexed && lblk == 0 {
            index::load(volume, dir, 0)?;
        } else if indexed && index::looks_like_node(&block, layout) {
            continue;
        } else {
            entry::verify_tail(&block, layout, &place, dir.checksum_seed(&volume.sb))?;
            region = &block[..layout.usable()];
        }
        for raw in entries(region, layout, &place) {
            let raw = raw?;
            if !raw.inode.is_none() {
                let spot = Spot::Block { lblk, pblk, offset: raw.offset };
                if !visit(&raw, spot)? {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// All entries but `.` and `..`, in the order of the blocks.
pub fn list(volume: &Volume, dir: &Inode) -> Result<Vec<DirEntry>> {
    let mut out = Vec::new();
    walk(volume, dir, |raw, _| {
        if !raw.is_dot() {
            if out.len() >= MAX_LISTED {
                return Err(Error::unsupported(
                    format!("a directory of more than {MAX_LISTED} entries (inode {})", dir.ino),
                    "name the files instead of listing them",
                ));
            }
            out.push(DirEntry {
                name: raw.name.to_vec(),
                node: NodeId(u64::from(raw.inode.get())),
                file_type: entry::type_of_code(raw.file_type),
            });
        }
        Ok(true)
    })?;
    Ok(out)
}

/// Whether there are no entries but `.` and `..`.
pub fn is_empty(volume: &Volume, dir: &Inode) -> Result<bool> {
    let mut empty = true;
    walk(volume, dir, |raw, _| {
        empty = raw.is_dot();
        Ok(empty)
    })?;
    Ok(empty)
}

fn find(volume: &Volume, dir: &Inode, wanted: &Wanted<'_>) -> Result<Option<Found>> {
    check_dir(dir)?;
    if is_indexed(volume, dir) && !is_inline(dir) && !matches!(wanted.name, b"." | b"..") {
        return find_indexed(volume, dir, wanted);
    }
    let mut found = None;
    walk(volume, dir, |raw, spot| {
        if wanted.matches(raw.name) {
            found = Some(Found { entry: Entry::of(raw), spot });
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

fn find_indexed(volume: &Volume, dir: &Inode, wanted: &Wanted<'_>) -> Result<Option<Found>> {
    let layout = Layout::of(&volume.sb);
    let root = index::load(volume, dir, 0)?;
    let hash = index::hasher_of(volume, dir, &root)?.hash(wanted.hashed());
    let mut path = index::Path::descend(volume, dir, root, hash)?;
    let mut seen = HashSet::new();
    while let Some(lblk) = path.leaf() {
        let place = Place { ino: dir.ino, lblk: Some(lblk) };
        let (pblk, block) = read_leaf(volume, dir, lblk)?;
        // A chain of blocks with one hash cannot be longer than the directory.
        if !seen.insert(pblk) {
            return Err(place.corrupt(
                "directory index",
                0,
                format!("block {pblk} is in the index more than once"),
            ));
        }
        for raw in entries(&block[..layout.usable()], layout, &place) {
            let raw = raw?;
            if !raw.inode.is_none() && wanted.matches(raw.name) {
                let spot = Spot::Block { lblk, pblk, offset: raw.offset };
                return Ok(Some(Found { entry: Entry::of(&raw), spot }));
            }
        }
        if !path.advance(volume, dir, hash)? {
            break;
        }
    }
    Ok(None)
}

/// The entry with this name; `.` and `..` are not found here.
pub fn lookup(volume: &Volume, dir: &Inode, name: &[u8]) -> Result<Option<Entry>> {
    check_dir(dir)?;
    if name.is_empty() || name.len() > entry::NAME_MAX || matches!(name, b"." | b"..") {
        return Ok(None);
    }
    let wanted = Wanted::new(volume, dir, name)?;
    Ok(find(volume, dir, &wanted)?.map(|found| found.entry))
}

/// The directory that `..` names.
pub fn parent(volume: &Volume, dir: &Inode) -> Result<Ino> {
    check_dir(dir)?;
    if is_inline(dir) {
        return inline::parent(volume, dir);
    }
    let mut found = None;
    walk(volume, dir, |raw, _| {
        if raw.name == b".." {
            found = Some(raw.inode);
        }
        // `..` is the second entry of the first block or nowhere.
        Ok(found.is_none() && raw.offset == 0)
    })?;
    found.ok_or_else(|| {
        Error::corrupt("directory", format!("inode {}", dir.ino), "it has no entry `..`")
    })
}

/// Points `..` to another directory.
pub fn set_parent(volume: &mut Volume, dir: &mut Inode, parent: Ino) -> Result<()> {
    if is_inline(dir) {
        inline::set_parent(dir, parent);
        return Ok(());
    }
    let found = find(volume, dir, &Wanted::exact(b".."))?.ok_or_else(|| {
        Error::corrupt("directory", format!("inode {}", dir.ino), "it has no entry `..`")
    })?;
    change_leaf(volume, dir, found.spot, |region, layout, offset| {
        entry::retarget(region, layout, offset, parent, entry::type_code(FileType::Directory));
        Ok(())
    })
}

/// Changes the block that holds an entry and writes it with a fresh checksum.
fn change_leaf(
    volume: &mut Volume,
    dir: &mut Inode,
    spot: Spot,
    change: impl FnOnce(&mut [u8], Layout, usize) -> Result<()>,
) -> Result<()> {
    let layout = Layout::of(&volume.sb);
    match spot {
        Spot::Inline { part, offset } => {
            inline::change(dir, part, |region| change(region, layout, offset))
        }
        Spot::Block { lblk, pblk, offset } => {
            let mut block = volume.read_block(pblk)?.to_vec();
            if lblk == 0 && is_indexed(volume, dir) {
                change(&mut block, layout, offset)?;
                index::seal_root(&mut block, volume, dir);
            } else {
                let usable = layout.usable();
                change(&mut block[..usable], layout, offset)?;
                entry::seal_tail(&mut block, layout, dir.checksum_seed(&volume.sb));
            }
            volume.store.write_meta(pblk, block)
        }
    }
}

/// Removes a name and returns its entry.
pub fn remove(volume: &mut Volume, dir: &mut Inode, name: &[u8]) -> Result<Entry> {
    let wanted = Wanted::new(volume, dir, name)?;
    let Some(found) = find(volume, dir, &wanted)? else {
        return Err(Error::NotFound(crate::error::display_name(name)));
    };
    let lblk = match found.spot {
        Spot::Block { lblk, .. } => Some(lblk),
        Spot::Inline { .. } => None,
    };
    let place = Place { ino: dir.ino, lblk };
    drop_unused_index(volume, dir);
    change_leaf(volume, dir, found.spot, |region, layout, offset| {
        entry::remove(region, layout, &place, offset)
    })?;
    Ok(found.entry)
}

/// Points an existing name to another inode and returns the old entry.
pub fn replace(
    volume: &mut Volume,
    dir: &mut Inode,
    name: &[u8],
    ino: Ino,
    file_type: FileType,
) -> Result<Entry> {
    let wanted = Wanted::new(volume, dir, name)?;
    let Some(found) = find(volume, dir, &wanted)? else {
        return Err(Error::NotFound(crate::error::display_name(name)));
    };
    change_leaf(volume, dir, found.spot, |region, layout, offset| {
        entry::retarget(region, layout, offset, ino, entry::type_code(file_type));
        Ok(())
    })?;
    Ok(found.entry)
}

/// Adds a name that is not there yet.
pub fn insert(
    volume: &mut Volume,
    dir: &mut Inode,
    name: &[u8],
    ino: Ino,
    file_type: FileType,
) -> Result<()> {
    check_dir(dir)?;
    check_name(name)?;
    if is_casefolded(volume, dir) {
        casefold::check_new(volume, name)?;
    }
    let wanted = Wanted::new(volume, dir, name)?;
    let code = entry::type_code(file_type);
    if is_inline(dir) {
        if inline::insert(volume, dir, name, ino, code)? {
            return Ok(());
        }
        inline::spill(volume, dir)?;
    }
    if is_indexed(volume, dir) {
        grow::insert_indexed(volume, dir, &wanted, ino, code)
    } else {
        drop_unused_index(volume, dir);
        grow::insert_linear(volume, dir, &wanted, ino, code)
    }
}

/// Takes away an index flag without the feature: the index is not kept, so a change makes it wrong.
fn drop_unused_index(volume: &Volume, dir: &mut Inode) {
    if !volume.sb.has_compat(compat::DIR_INDEX) {
        dir.set_flag(flags::INDEX, false);
    }
}

/// The content of the only block of a new directory.
pub fn first_block(volume: &Volume, dir: &Inode, parent: Ino) -> Vec<u8> {
    let layout = Layout::of(&volume.sb);
    let code = entry::type_code(FileType::Directory);
    let mut block = vec![0; layout.block_size];
    entry::put(&mut block, layout, 0, 12, dir.ino, b".", code);
    entry::put(&mut block, layout, 12, layout.usable() - 12, parent, b"..", code);
    entry::seal_tail(&mut block, layout, dir.checksum_seed(&volume.sb));
    block
}

/// Whether the directory may have more subdirectories than fit into its link count: with
/// `dir_nlink` and an index it then counts as 1.
pub fn counts_links_up_to_one(volume: &Volume, dir: &Inode) -> bool {
    volume.sb.has_ro_compat(super::superblock::ro_compat::DIR_NLINK) && is_indexed(volume, dir)
}
