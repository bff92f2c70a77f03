//! Inodes: finding a free one, making a chunk of 64, giving one back.

use super::btree::{Record, Tree};
use super::free::Owner;
use super::inode::Inode;
use super::num;
use super::store::BufferType;
use super::units::Ino;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u8, to_usize};

/// Inodes in a chunk.
const CHUNK: u32 = 64;

/// A record of the trees of inodes.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// The first inode's number in the group.
    first: u32,
    /// Of every four inodes, whether they are not there.
    holes: u16,
    /// Free inodes.
    free: u64,
}

impl Chunk {
    fn parse(record: &Record, sparse: bool) -> Self {
        let holes = if sparse { num::be16(record, 4) } else { 0 };
        Self { first: num::be32(record, 0), holes, free: num::be64(record, 8) }
    }
    /// The inodes that are there.
    fn there(self) -> u64 {
        (0..CHUNK).filter(|bit| self.holes >> (bit / 4) & 1 == 0).map(|bit| 1 << bit).sum()
    }
    fn free_count(self) -> u32 {
        (self.free & self.there()).count_ones()
    }
    fn to_record(self, sparse: bool) -> Record {
        let mut record = [0; 24];
        num::put32(&mut record, 0, self.first);
        if sparse {
            num::put16(&mut record, 4, self.holes);
            record[6] = to_u8(self.there().count_ones());
            record[7] = to_u8(self.free_count());
        } else {
            num::put32(&mut record, 4, self.free_count());
        }
        num::put64(&mut record, 8, self.free);
        record
    }
    fn order(self) -> (u64, u64, u64) {
        (self.first.into(), 0, 0)
    }
}

impl Volume {
    fn chunk(&self, ag: u32, record: &Record) -> Result<Chunk> {
        let sparse = self.sb.has_sparse_inodes();
        let chunk = Chunk::parse(record, sparse);
        let said = if sparse { u32::from(record[7]) } else { num::be32(record, 4) };
        if chunk.free_count() != said
            || !self.sb.is_inode(self.sb.join_ino(ag, chunk.first))
            || chunk.first.checked_add(CHUNK).is_none()
        {
            return Err(Error::corrupt(
                "inode tree",
                format!("group {ag}, inodes from {}", chunk.first),
                "its counts contradict each other",
            ));
        }
        Ok(chunk)
    }

    /// A chunk with a free inode in a group, near `near`.
    fn find_chunk(&self, ag: u32, near: u32) -> Result<Option<Chunk>> {
        if self.agi(ag)?.agi_freecount.get() == 0 {
            return Ok(None);
        }
        let tree = if self.sb.has_finobt() { Tree::Fino } else { Tree::Ino };
        let mut found = None;
        let before = self.tree_at_or_before(ag, tree, (near.into(), 0, 0))?;
        let start = before.map_or(0, |record| u64::from(num::be32(&record, 0)));
        for start in [start, 0] {
            self.tree_from(ag, tree, (start, 0, 0), |record| {
                let chunk = self.chunk(ag, record)?;
                if chunk.free_count() > 0 {
                    found = Some(chunk);
                }
                Ok(found.is_none())
            })?;
            if found.is_some() || start == 0 {
                break;
            }
        }
        Ok(found)
    }

    /// Puts a changed chunk into both trees.
    fn store_chunk(&mut self, ag: u32, chunk: Chunk, was_free: u32) -> Result<()> {
        let record = chunk.to_record(self.sb.has_sparse_inodes());
        self.tree_replace(ag, Tree::Ino, &record)?;
        if self.sb.has_finobt() {
            match (was_free, chunk.free_count()) {
                (0, _) => self.tree_insert(ag, Tree::Fino, &record)?,
                (_, 0) => self.tree_remove(ag, Tree::Fino, chunk.order())?,
                _ => self.tree_replace(ag, Tree::Fino, &record)?,
            }
        }
        Ok(())
    }

    /// Makes a chunk of inodes in a group; `None` when it has no room.
    fn make_chunk(&mut self, ag: u32) -> Result<Option<Chunk>> {
        let per_block = self.sb.inodes_per_block();
        let blocks = CHUNK.div_ceil(per_block);
        let align = self.sb.raw.sb_inoalignmt.get();
        let Some(first) = self.alloc_aligned(ag, blocks, align, Owner::INODES)? else {
            return Ok(None);
        };
        let first_ino = first << self.sb.raw.sb_inopblog;
        for block in 0..blocks {
            let mut bytes = Vec::with_capacity(self.sb.block_size());
            for index in 0..per_block {
                let ino = self.sb.join_ino(ag, first_ino + block * per_block + index);
                let generation = self.next_generation();
                bytes.extend(Inode::new(ino, generation, &self.sb).to_bytes());
            }
            let at = self.sb.daddr(self.sb.join(ag, first + block));
            self.store.write(at, BufferType::Inodes, bytes);
        }
        let count = blocks * per_block;
        let mut made = None;
        for start in (0..count).step_by(to_usize(CHUNK)) {
            let chunk = Chunk { first: first_ino + start, holes: 0, free: u64::MAX };
            let record = chunk.to_record(self.sb.has_sparse_inodes());
            self.tree_insert(ag, Tree::Ino, &record)?;
            if self.sb.has_finobt() {
                self.tree_insert(ag, Tree::Fino, &record)?;
            }
            made.get_or_insert(chunk);
        }
        self.change_agi(ag, |agi| {
            agi.agi_count.set(agi.agi_count.get().saturating_add(count));
            agi.agi_freecount.set(agi.agi_freecount.get().saturating_add(count));
            agi.agi_newino.set(first_ino);
        })?;
        Ok(made)
    }

    /// A new inode near `near`, which holds nothing yet and is not written.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Corrupt`] and [`Error::Device`].
    pub(super) fn alloc_inode(&mut self, near: Ino) -> Result<Inode> {
        let (near_ag, near_number) = self.sb.split_ino(near);
        let groups = self.sb.ag_count();
        for make in [false, true] {
            for step in 0..groups {
                let ag = (near_ag + step) % groups;
                let chunk = match self.find_chunk(ag, near_number)? {
                    None if make || step == 0 => self.make_chunk(ag)?,
                    found => found,
                };
                if let Some(chunk) = chunk {
                    return self.take_inode(ag, chunk);
                }
            }
        }
        Err(Error::NoSpace("no free inode, and no room for more".into()))
    }

    fn take_inode(&mut self, ag: u32, chunk: Chunk) -> Result<Inode> {
        let was_free = chunk.free_count();
        let bit = (chunk.free & chunk.there()).trailing_zeros();
        let ino = self.sb.join_ino(ag, chunk.first + bit);
        let old = self.any_inode(ino)?;
        if old.core.di_mode.get() != 0 {
            return Err(Error::corrupt(
                "inode tree",
                format!("inode {ino}"),
                "it is free there, and in use",
            ));
        }
        let taken = Chunk { free: chunk.free & !(1 << bit), ..chunk };
        self.store_chunk(ag, taken, was_free)?;
        self.change_agi(ag, |agi| {
            agi.agi_freecount.set(agi.agi_freecount.get().saturating_sub(1));
        })?;
        let generation = self.next_generation();
        Ok(Inode::new(ino, generation, &self.sb))
    }

    /// Gives an inode back that holds nothing any more.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub(super) fn release_inode(&mut self, inode: &Inode) -> Result<()> {
        let (ag, number) = self.sb.split_ino(inode.ino);
        let missing = || {
            Error::corrupt("inode tree", format!("inode {}", inode.ino), "it is in no chunk in use")
        };
        let found = self.tree_at_or_before(ag, Tree::Ino, (number.into(), 0, 0))?;
        let chunk = self.chunk(ag, &found.ok_or_else(missing)?)?;
        let bit = number - chunk.first;
        if bit >= CHUNK || chunk.there() >> bit & 1 == 0 || chunk.free >> bit & 1 != 0 {
            return Err(missing());
        }
        let free = Chunk { free: chunk.free | 1 << bit, ..chunk };
        self.fix_list(ag)?;
        self.store_chunk(ag, free, chunk.free_count())?;
        self.change_agi(ag, |agi| {
            agi.agi_freecount.set(agi.agi_freecount.get().saturating_add(1));
        })?;
        let generation = inode.core.di_gen.get().wrapping_add(1);
        let empty = Inode::new(inode.ino, generation, &self.sb);
        self.write_inode(&empty)
    }
}
