//! Blocks that are given back. Until the commit they only are on a list: the old state's blocks keep
//! their content, and nothing new is put there before the log has the change.

use super::bmap::Extent;
use super::inode::Fork;
use super::units::{FsBlock, Ino};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u32, to_u64};

/// Bits of an owner's offset: a block of attributes; a block of a tree of extents.
const ATTR_FORK: u64 = 1 << 63;
const BMBT_BLOCK: u64 = 1 << 62;

/// Whose blocks they are, as the tree of owners says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// An inode, or one of the file system's own structures.
    pub id: u64,
    /// The offset in the inode's fork, with the bits that say which.
    pub offset: u64,
}

impl Owner {
    /// `XFS_RMAP_OWN_FS`: headers of groups.
    pub const FS: Self = Self { id: (-3i64).cast_unsigned(), offset: 0 };
    /// `XFS_RMAP_OWN_AG`: trees of free space and of owners, and the list of free blocks.
    pub const AG: Self = Self { id: (-5i64).cast_unsigned(), offset: 0 };
    /// `XFS_RMAP_OWN_INOBT`: trees of inodes.
    pub const INOBT: Self = Self { id: (-6i64).cast_unsigned(), offset: 0 };
    /// `XFS_RMAP_OWN_INODES`: inodes.
    pub const INODES: Self = Self { id: (-7i64).cast_unsigned(), offset: 0 };
    /// `XFS_RMAP_OWN_REFC`: the tree of shared blocks.
    pub const REFC: Self = Self { id: (-8i64).cast_unsigned(), offset: 0 };

    /// Content of a fork from block `offset` of it.
    pub fn content(ino: Ino, fork: Fork, offset: u64) -> Self {
        let bit = if fork == Fork::Attr { ATTR_FORK } else { 0 };
        Self { id: ino.0, offset: offset | bit }
    }
    /// A block of the tree of a fork's extents.
    pub fn tree(ino: Ino, fork: Fork) -> Self {
        let owner = Self::content(ino, fork, 0);
        Self { offset: owner.offset | BMBT_BLOCK, ..owner }
    }
    /// Whether its offset goes on from block to block.
    pub fn has_offset(self) -> bool {
        self.id >> 63 == 0 && self.offset & BMBT_BLOCK == 0
    }
    /// Whether it is content of a file, which files may share.
    fn is_shareable(self) -> bool {
        self.has_offset() && self.offset & ATTR_FORK == 0
    }
    /// The same, `blocks` further on.
    pub fn after(self, blocks: u64) -> Self {
        if self.has_offset() { Self { offset: self.offset + blocks, ..self } } else { self }
    }
}

/// Blocks to be given back.
#[derive(Clone, Copy, Debug)]
pub struct Freed {
    /// The first.
    pub block: FsBlock,
    /// How many.
    pub count: u64,
    /// Whose they were.
    pub owner: Owner,
}

impl Volume {
    /// Gives back an extent of a fork at the commit.
    pub(super) fn free_extent(&mut self, ino: Ino, fork: Fork, extent: &Extent) {
        let owner = Owner::content(ino, fork, extent.offset);
        self.freed.push(Freed { block: extent.block, count: extent.count, owner });
    }

    /// Gives back a block of a tree of extents at the commit.
    pub(super) fn free_tree_block(&mut self, ino: Ino, fork: Fork, block: FsBlock) {
        self.freed.push(Freed { block, count: 1, owner: Owner::tree(ino, fork) });
    }

    /// Puts everything that was given back into the trees of free space. From here on blocks that
    /// are given out may hold content of the old state, so that only the log may write them.
    pub(super) fn free_all(&mut self) -> Result<()> {
        self.freeing = true;
        while let Some(freed) = self.freed.pop() {
            if !self.sb.is_range(freed.block, freed.count) {
                return Err(Error::corrupt(
                    "extent to free",
                    format!("block {}", freed.block),
                    "it is not in the file system",
                ));
            }
            let (ag, first) = self.sb.split(freed.block);
            // Within a group, so that it fits.
            let count = to_u32(freed.count);
            self.fix_list(ag)?;
            self.remove_owner(ag, first, count, freed.owner)?;
            let pieces = if freed.owner.is_shareable() && self.sb.has_reflink() {
                self.unshare(ag, first, count)?
            } else {
                vec![(first, count)]
            };
            for (first, count) in pieces {
                let sector = self.sb.daddr(self.sb.join(ag, first)).0;
                let length = u64::from(count) * to_u64(self.sb.block_size() / 512);
                self.store.forget(sector..sector + length);
                self.fix_list(ag)?;
                self.give_space(ag, first, count)?;
            }
        }
        Ok(())
    }
}
