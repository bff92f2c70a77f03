//! Finds the journal in its file system: the inode, the blocks that it maps, the superblock in the
//! first of them.

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::area::{Area, Run, corrupt};
use super::format::JournalSuperblock;
use crate::error::{Error, Result};
use crate::ext::inode::{Inode, flags};
use crate::ext::map;
use crate::ext::units::{FsBlock, Ino};
use crate::ext::volume::Volume;
use crate::num::to_u64;

/// Bytes of the journal's superblock; its block may be larger.
const SUPERBLOCK_SIZE: usize = 1024;
/// Nodes of the journal's extent tree or pointer blocks of its block map that are read at most: a
/// 4 GiB journal of single-block extents in 1 KiB blocks has fewer.
const MAX_MAP_NODES: usize = 60_000;
/// Pointers in `i_block` of an inode without extents.
const POINTERS: usize = 15;
/// The first of them that is indirect.
const INDIRECT: usize = 12;

/// Finds the journal and verifies its superblock.
pub(super) fn find(vol: &Volume) -> Result<Area> {
    let inum = Ino::from(vol.sb.raw.s_journal_inum);
    if inum.is_none() {
        return Err(Error::unsupported(
            "an external journal (s_journal_dev)",
            "with the file system clean, tune2fs -O ^has_journal removes the need for it",
        ));
    }
    if inum >= vol.sb.first_ino() {
        return Err(corrupt("superblock", "s_journal_inum", format!("is {inum}")));
    }
    let inode = vol.read_inode(inum)?;
    let in_inode = format!("inode {inum}");
    if !inode.is_file() || inode.links() == 0 {
        return Err(corrupt("journal", &in_inode, "it is not a regular file in use".into()));
    }
    let block_size = vol.block_size();
    let blocks = inode.size() / to_u64(block_size);
    let blocks = u32::try_from(blocks.min(vol.sb.blocks_count())).unwrap_or(u32::MAX);
    let (runs, nodes) = if inode.has_flag(flags::EXTENTS) {
        extent_runs(vol, &inode)?
    } else {
        pointer_runs(vol, &inode, blocks)?
    };
    let Some(&Run { logical: 0, physical, .. }) = runs.first() else {
        return Err(corrupt("journal", &in_inode, "its first block is not mapped".into()));
    };
    let mut bytes = vec![0; SUPERBLOCK_SIZE];
    vol.store.device().read_at(physical.byte(block_size), &mut bytes)?;
    let sb = JournalSuperblock::read_from_bytes(&bytes)
        .map_err(|_| corrupt("journal superblock", &in_inode, "it is too short".into()))?;
    Area::new(sb, runs, nodes, block_size, blocks, &in_inode)
}

/// Adds blocks to the end of the list, joined to the last run where they follow it.
fn push(runs: &mut Vec<Run>, logical: u32, physical: FsBlock, length: u32) {
    if let Some(last) = runs.last_mut()
        && last.logical.checked_add(last.length) == Some(logical)
        && last.physical + u64::from(last.length) == physical
        && let Some(joined) = last.length.checked_add(length)
    {
        last.length = joined;
        return;
    }
    runs.push(Run { logical, physical, length });
}

/// The runs of a journal with extents, and the tree's nodes outside the inode. The tree is read
/// whole, node by node, because the journal must be known before its first block is trusted.
fn extent_runs(vol: &Volume, inode: &Inode) -> Result<(Vec<Run>, Vec<FsBlock>)> {
    let position = format!("inode {}", inode.ino);
    let tree = map::whole_tree(vol, inode, MAX_MAP_NODES)?;
    let mut runs = Vec::new();
    for extent in tree.extents {
        if extent.unwritten {
            let detail = format!("its extent at journal block {} was never written", extent.block);
            return Err(corrupt("journal", &position, detail));
        }
        push(&mut runs, extent.block.get(), extent.start, extent.len);
    }
    Ok((runs, tree.nodes))
}

/// The map of a journal without extents (ext3): `blocks` blocks of direct and indirect pointers.
/// Returns the runs and the indirect blocks.
fn pointer_runs(vol: &Volume, inode: &Inode, blocks: u32) -> Result<(Vec<Run>, Vec<FsBlock>)> {
    let (runs, nodes) = (Vec::new(), Vec::new());
    let mut map = PointerMap { vol, runs, next: 0, blocks, nodes, done: false };
    let pointers = <[U32; POINTERS]>::read_from_bytes(&inode.raw.i_block).unwrap_or_default();
    for (slot, pointer) in pointers.iter().enumerate() {
        map.walk(pointer.get(), (slot + 1).saturating_sub(INDIRECT))?;
    }
    Ok((map.runs, map.nodes))
}

struct PointerMap<'a> {
    vol: &'a Volume,
    runs: Vec<Run>,
    /// The next block of the journal to be mapped.
    next: u32,
    blocks: u32,
    nodes: Vec<FsBlock>,
    done: bool,
}

impl PointerMap<'_> {
    /// Follows a pointer with `level` levels of indirect blocks between it and the content.
    fn walk(&mut self, pointer: u32, level: usize) -> Result<()> {
        if self.done || self.next >= self.blocks || pointer == 0 {
            self.done = true; // a hole: the caller sees that blocks are missing
            return Ok(());
        }
        if level == 0 {
            if u64::from(pointer) >= self.vol.sb.blocks_count() {
                let detail = format!("block {pointer} is beyond the file system");
                return Err(corrupt("journal", &format!("journal block {}", self.next), detail));
            }
            push(&mut self.runs, self.next, FsBlock::from(pointer), 1);
            self.next += 1;
            return Ok(());
        }
        self.nodes.push(FsBlock::from(pointer));
        if self.nodes.len() > MAX_MAP_NODES {
            let detail = format!("more than {MAX_MAP_NODES} indirect blocks");
            return Err(corrupt("journal", &format!("journal block {}", self.next), detail));
        }
        let node = self.vol.store.read(FsBlock::from(pointer))?;
        // A block has a whole number of pointers.
        for slot in <[U32]>::ref_from_bytes(&node).unwrap_or_default() {
            if self.done {
                break;
            }
            self.walk(slot.get(), level - 1)?;
        }
        Ok(())
    }
}
