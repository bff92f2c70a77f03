//! Adding names: filling gaps, splitting leaves, splitting nodes, adding levels.

use super::super::inode::{Inode, flags};
use super::super::map;
use super::super::superblock::{compat, incompat};
use super::super::units::{FsBlock, Ino};
use super::super::volume::Volume;
use super::blocks::{blocks_of, read_leaf, read_raw};
use super::entry::{self, Layout, Owned, Place, entries, entry_size};
use super::hash::Hasher;
use super::index::{self, Path};
use super::name::Wanted;
use crate::error::{Error, Result};
use crate::num::to_u64;

/// Without `large_dir` a directory's size has 32 bits on disk, and the kernel takes 2 GiB.
const MAX_SIZE: u64 = 1 << 31;
/// An insert splits at most one node a level and then one leaf; more rounds mean a loop.
const MAX_ROUNDS: usize = 16;

/// Adds a block to the directory.
fn append(volume: &mut Volume, dir: &mut Inode, content: Vec<u8>) -> Result<(u32, FsBlock)> {
    let after = dir.size() + to_u64(volume.block_size());
    if after > MAX_SIZE && !volume.sb.has_incompat(incompat::LARGEDIR) {
        return Err(Error::NoSpace(format!(
            "directory inode {} would be larger than 2 GiB, which needs the large_dir feature",
            dir.ino
        )));
    }
    let (lblk, pblk) = map::append_block(volume, dir, content)?;
    let lblk = u32::try_from(lblk)
        .map_err(|_| Error::NoSpace(format!("directory inode {} is too large", dir.ino)))?;
    Ok((lblk, pblk))
}

/// A leaf block with these entries.
fn leaf_block(volume: &Volume, dir: &Inode, list: &[Owned]) -> Vec<u8> {
    let layout = Layout::of(&volume.sb);
    let mut block = vec![0; layout.block_size];
    let usable = layout.usable();
    entry::pack(&mut block[..usable], layout, list);
    entry::seal_tail(&mut block, layout, dir.checksum_seed(&volume.sb));
    block
}

/// Adds a name to a directory without an index; gives it one when its only block is full.
pub fn insert_linear(
    volume: &mut Volume,
    dir: &mut Inode,
    wanted: &Wanted<'_>,
    ino: Ino,
    code: u8,
) -> Result<()> {
    let layout = Layout::of(&volume.sb);
    let seed = dir.checksum_seed(&volume.sb);
    let blocks = blocks_of(volume, dir)?;
    for lblk in 0..blocks {
        let (pblk, block) = read_leaf(volume, dir, lblk)?;
        let place = Place { ino: dir.ino, lblk: Some(lblk) };
        let mut block = block.to_vec();
        let region = &mut block[..layout.usable()];
        if entry::insert(region, layout, &place, ino, wanted.name, code)? {
            entry::seal_tail(&mut block, layout, seed);
            return volume.store.write_meta(pblk, block);
        }
    }
    let version = volume.sb.raw.s_def_hash_version;
    if blocks == 1
        && volume.sb.has_compat(compat::DIR_INDEX)
        && index::hasher(volume, version).is_some()
        && build_index(volume, dir, version)?
    {
        return insert_indexed(volume, dir, wanted, ino, code);
    }
    let new = Owned { inode: ino, name: wanted.name.to_vec(), file_type: code };
    let block = leaf_block(volume, dir, &[new]);
    append(volume, dir, block)?;
    Ok(())
}

/// Moves the names of block 0 into a leaf and makes block 0 the root of an index. `false` when the
/// block does not begin with `.` and `..` as an index needs it.
fn build_index(volume: &mut Volume, dir: &mut Inode, version: u8) -> Result<bool> {
    let layout = Layout::of(&volume.sb);
    let place = Place { ino: dir.ino, lblk: Some(0) };
    let (pblk, block) = read_leaf(volume, dir, 0)?;
    let mut names = Vec::new();
    let mut dots = Vec::new();
    for raw in entries(&block[..layout.usable()], layout, &place) {
        let raw = raw?;
        if raw.inode.is_none() {
            continue;
        }
        let owned = Owned { inode: raw.inode, name: raw.name.to_vec(), file_type: raw.file_type };
        if raw.is_dot() { dots.push(owned) } else { names.push(owned) }
    }
    let [dot, dotdot] = dots.as_slice() else { return Ok(false) };
    if dot.name != b"." || dotdot.name != b".." {
        return Ok(false);
    }
    let leaf = leaf_block(volume, dir, &names);
    let (child, _) = append(volume, dir, leaf)?;
    let mut root = vec![0; layout.block_size];
    entry::put(&mut root, layout, 0, 12, dot.inode, b".", dot.file_type);
    entry::put(
        &mut root,
        layout,
        12,
        layout.block_size - 12,
        dotdot.inode,
        b"..",
        dotdot.file_type,
    );
    index::make_root(&mut root, layout, version, child);
    index::seal_root(&mut root, volume, dir);
    volume.store.write_meta(pblk, root)?;
    dir.set_flag(flags::INDEX, true);
    Ok(true)
}

/// Adds a name to a directory with an index.
pub fn insert_indexed(
    volume: &mut Volume,
    dir: &mut Inode,
    wanted: &Wanted<'_>,
    ino: Ino,
    code: u8,
) -> Result<()> {
    let new = Owned { inode: ino, name: wanted.name.to_vec(), file_type: code };
    for _ in 0..MAX_ROUNDS {
        let root = index::load(volume, dir, 0)?;
        let hasher = index::hasher_of(volume, dir, &root)?;
        let hash = hasher.hash(wanted.hashed());
        let mut path = Path::descend(volume, dir, root, hash)?;
        if insert_into_leaf(volume, dir, &path, &new)? {
            return Ok(());
        }
        let full = path.nodes.last().is_some_and(index::Node::is_full);
        if full {
            split_index(volume, dir, &mut path)?;
        } else {
            split_leaf(volume, dir, &mut path, &hasher)?;
        }
    }
    Err(Error::corrupt(
        "directory index",
        format!("inode {}", dir.ino),
        "splitting its blocks again and again makes no room for a name",
    ))
}

fn leaf_of(dir: &Inode, path: &Path) -> Result<u32> {
    path.leaf().ok_or_else(|| {
        Error::corrupt("directory index", format!("inode {}", dir.ino), "it has no leaf")
    })
}

/// Puts the entry into the leaf of `path`, pushing the names there together when that makes room.
fn insert_into_leaf(volume: &mut Volume, dir: &Inode, path: &Path, new: &Owned) -> Result<bool> {
    let layout = Layout::of(&volume.sb);
    let lblk = leaf_of(dir, path)?;
    let place = Place { ino: dir.ino, lblk: Some(lblk) };
    let (pblk, block) = read_leaf(volume, dir, lblk)?;
    let mut block = block.to_vec();
    let usable = layout.usable();
    let region = &mut block[..usable];
    if !entry::insert(region, layout, &place, new.inode, &new.name, new.file_type)? {
        let mut names = owned_names(region, layout, &place)?;
        names.push(new.clone());
        let needed: usize = names.iter().map(|entry| entry_size(entry.name.len())).sum();
        if needed > usable {
            return Ok(false);
        }
        entry::pack(region, layout, &names);
    }
    entry::seal_tail(&mut block, layout, dir.checksum_seed(&volume.sb));
    volume.store.write_meta(pblk, block)?;
    Ok(true)
}

fn owned_names(region: &[u8], layout: Layout, place: &Place) -> Result<Vec<Owned>> {
    let mut names = Vec::new();
    for raw in entries(region, layout, place) {
        let raw = raw?;
        if !raw.inode.is_none() {
            names.push(Owned {
                inode: raw.inode,
                name: raw.name.to_vec(),
                file_type: raw.file_type,
            });
        }
    }
    Ok(names)
}

/// Splits the leaf of `path` in two by hash, about half of the bytes each.
fn split_leaf(
    volume: &mut Volume,
    dir: &mut Inode,
    path: &mut Path,
    hasher: &Hasher,
) -> Result<()> {
    let layout = Layout::of(&volume.sb);
    let lblk = leaf_of(dir, path)?;
    let place = Place { ino: dir.ino, lblk: Some(lblk) };
    let (pblk, block) = read_leaf(volume, dir, lblk)?;
    let mut names = Vec::new();
    for name in owned_names(&block[..layout.usable()], layout, &place)? {
        let wanted = Wanted::stored(volume, dir, &name.name);
        let hash = hasher.hash(wanted.hashed());
        names.push((hash, name));
    }
    names.sort_by_key(|(hash, _)| *hash);
    if names.len() < 2 {
        return Err(place.corrupt("directory", 0, "a full block with less than two names"));
    }
    let total: usize = names.iter().map(|(_, name)| entry_size(name.name.len())).sum();
    let mut low = 0;
    let mut split = 0;
    while split < names.len() - 1 && (split == 0 || low < total / 2) {
        low += entry_size(names[split].1.name.len());
        split += 1;
    }
    let (hash, below) = (names[split].0, names[split - 1].0);
    let names: Vec<Owned> = names.into_iter().map(|(_, name)| name).collect();
    let upper = leaf_block(volume, dir, &names[split..]);
    let (new_lblk, _) = append(volume, dir, upper)?;
    let lower = leaf_block(volume, dir, &names[..split]);
    volume.store.write_meta(pblk, lower)?;
    let Some(node) = path.nodes.last_mut() else { return Ok(()) };
    // An odd hash means that its first names have the same hash as the last of the block before.
    node.insert_after(node.at, hash | u32::from(hash == below), new_lblk);
    node.store(volume, dir)
}

/// Makes room in a full bottom node: splits the highest full node whose parent has room, or gives
/// the tree another level.
fn split_index(volume: &mut Volume, dir: &mut Inode, path: &mut Path) -> Result<()> {
    let layout = Layout::of(&volume.sb);
    let depth = path.nodes.len();
    let top = (0..depth).rev().find(|&level| !path.nodes[level].is_full());
    match top {
        Some(parent) if parent + 1 < depth => {
            let node = &mut path.nodes[parent + 1];
            let (hash, mut content) = node.split(layout);
            index::seal_node(&mut content, volume, dir);
            let (lblk, _) = append(volume, dir, content)?;
            path.nodes[parent + 1].store(volume, dir)?;
            let node = &mut path.nodes[parent];
            node.insert_after(node.at, hash, lblk);
            node.store(volume, dir)
        }
        Some(_) => Ok(()),
        None => {
            if depth >= index::max_levels(volume) {
                return Err(Error::NoSpace(format!(
                    "the index of directory inode {} is full{}",
                    dir.ino,
                    if depth < 3 { "; the large_dir feature gives it a third level" } else { "" }
                )));
            }
            let mut content = path.nodes[0].lift(layout);
            index::seal_node(&mut content, volume, dir);
            let (lblk, _) = append(volume, dir, content)?;
            // append may not touch block 0, so the root in hand is still what is stored.
            let (pblk, _) = read_raw(volume, dir, 0)?;
            let root = &mut path.nodes[0];
            root.pblk = pblk;
            root.set_single_child(lblk);
            root.store(volume, dir)
        }
    }
}
