//! Free space: finding it, taking it, giving it back.

use super::bmap::{self, Extent, MAX_EXTENT};
use super::btree::{Record, Tree};
use super::free::{Freed, Owner};
use super::inode::{Fork, Inode};
use super::num;
use super::units::{FsBlock, Ino};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u32, to_u64};

/// Blocks that are left in every group: its trees may need them.
const RESERVE: u32 = 64;
/// Extents that are looked at for one with the right alignment.
const LOOK: usize = 4096;

fn record(first: u32, count: u32) -> Record {
    let mut record = [0; 24];
    num::put32(&mut record, 0, first);
    num::put32(&mut record, 4, count);
    record
}

/// First block and length of a free extent.
fn space(record: &Record) -> (u32, u32) {
    (num::be32(record, 0), num::be32(record, 4))
}

fn by_block(first: u32) -> (u64, u64, u64) {
    (first.into(), 0, 0)
}

fn by_size(first: u32, count: u32) -> (u64, u64, u64) {
    (count.into(), first.into(), 0)
}

impl Volume {
    fn free_record(&self, ag: u32, record: &Record) -> Result<(u32, u32)> {
        let (first, count) = space(record);
        if count == 0 || !self.sb.is_range(self.sb.join(ag, first), count.into()) {
            return Err(Error::corrupt(
                "free space tree",
                format!("group {ag}"),
                format!("it has {count} blocks from block {first}"),
            ));
        }
        Ok((first, count))
    }

    /// Notes that blocks were free before this run.
    fn note_fresh(&mut self, block: FsBlock, count: u64) {
        if !self.freeing {
            let sector = self.sb.daddr(block).0;
            self.store.set_fresh(sector..sector + count * to_u64(self.sb.block_size() / 512));
        }
    }

    /// How many blocks the list of a group should have: enough for every tree to grow by a level.
    fn list_need(&self, ag: u32) -> Result<u32> {
        let agf = self.agf(ag)?;
        let trees = if self.sb.has_rmapbt() { 3 } else { 2 };
        let need: u32 = agf.agf_levels[..trees].iter().map(|levels| (levels.get() + 1) * 2).sum();
        Ok(need.min(self.agfl_slots() / 2))
    }

    /// Fills the list of a group up, or takes from it what is too much.
    pub(super) fn fix_list(&mut self, ag: u32) -> Result<()> {
        let need = self.list_need(ag)?;
        // Taking space may merge blocks of a tree, which come to the list: it ends.
        while self.agf(ag)?.agf_flcount.get() > need + 8 {
            let block = self.agfl_take(ag)?;
            self.freed.push(Freed { block: self.sb.join(ag, block), count: 1, owner: Owner::AG });
        }
        while self.agf(ag)?.agf_flcount.get() < need {
            let mut smallest = None;
            self.tree_from(ag, Tree::Cnt, (0, 0, 0), |record| {
                smallest = Some(*record);
                Ok(false)
            })?;
            let Some(smallest) = smallest else {
                return Err(Error::NoSpace(format!("allocation group {ag} is full")));
            };
            let (first, count) = self.free_record(ag, &smallest)?;
            let take = count.min(need - self.agf(ag)?.agf_flcount.get()).max(1);
            self.take_space(ag, &smallest, first, take)?;
            for block in first..first + take {
                self.agfl_give(ag, block)?;
            }
            self.add_owner(ag, first, take, Owner::AG)?;
        }
        Ok(())
    }

    /// Takes `count` blocks from `first` on out of a free extent.
    fn take_space(&mut self, ag: u32, from: &Record, first: u32, count: u32) -> Result<()> {
        let (start, length) = space(from);
        let (end, past) = (start + length, first + count);
        self.tree_remove(ag, Tree::Cnt, by_size(start, length))?;
        if first > start {
            let left = record(start, first - start);
            self.tree_replace(ag, Tree::Bno, &left)?;
            self.tree_insert(ag, Tree::Cnt, &left)?;
        } else {
            self.tree_remove(ag, Tree::Bno, by_block(start))?;
        }
        if past < end {
            let right = record(past, end - past);
            self.tree_insert(ag, Tree::Bno, &right)?;
            self.tree_insert(ag, Tree::Cnt, &right)?;
        }
        self.count_free(ag, -i64::from(count))
    }

    fn count_free(&mut self, ag: u32, change: i64) -> Result<()> {
        let longest = self.tree_last(ag, Tree::Cnt)?.map_or(0, |record| space(&record).1);
        let free = i64::from(self.agf(ag)?.agf_freeblks.get()) + change;
        let free = u32::try_from(free).map_err(|_| {
            Error::corrupt("AGF", format!("group {ag}"), "agf_freeblks is not what its trees have")
        })?;
        self.change_agf(ag, |agf| {
            agf.agf_freeblks.set(free);
            agf.agf_longest.set(longest);
        })
    }

    /// Puts blocks into the trees of free space.
    pub(super) fn give_space(&mut self, ag: u32, first: u32, count: u32) -> Result<()> {
        let corrupt = |detail: &str| {
            Error::corrupt("free space tree", format!("block {first} of group {ag}"), detail)
        };
        let (mut start, mut end) = (first, first + count);
        let before = self.tree_at_or_before(ag, Tree::Bno, by_block(first))?;
        let mut joined = false;
        if let Some(before) = before {
            let (other, length) = self.free_record(ag, &before)?;
            if other + length > first {
                return Err(corrupt("a block that is in use is also free"));
            }
            if other + length == first {
                self.tree_remove(ag, Tree::Cnt, by_size(other, length))?;
                start = other;
                joined = true;
            }
        }
        let mut after = None;
        self.tree_from(ag, Tree::Bno, by_block(first), |record| {
            after = Some(*record);
            Ok(false)
        })?;
        if let Some(after) = after {
            let (other, length) = self.free_record(ag, &after)?;
            if other < end {
                return Err(corrupt("a block that is in use is also free"));
            }
            if other == end {
                self.tree_remove(ag, Tree::Cnt, by_size(other, length))?;
                self.tree_remove(ag, Tree::Bno, by_block(other))?;
                end = other + length;
            }
        }
        let whole = record(start, end - start);
        if joined {
            self.tree_replace(ag, Tree::Bno, &whole)?;
        } else {
            self.tree_insert(ag, Tree::Bno, &whole)?;
        }
        self.tree_insert(ag, Tree::Cnt, &whole)?;
        self.count_free(ag, count.into())
    }

    /// One block of group `ag` for a tree.
    pub(super) fn alloc_in_group(&mut self, ag: u32, owner: Owner) -> Result<u32> {
        self.fix_list(ag)?;
        let mut found = None;
        self.tree_from(ag, Tree::Cnt, (0, 0, 0), |record| {
            found = Some(*record);
            Ok(false)
        })?;
        let Some(from) = found else {
            return Err(Error::NoSpace(format!("allocation group {ag} is full")));
        };
        let (first, _) = self.free_record(ag, &from)?;
        self.take_space(ag, &from, first, 1)?;
        self.add_owner(ag, first, 1, owner)?;
        self.note_fresh(self.sb.join(ag, first), 1);
        Ok(first)
    }

    /// `count` blocks of group `ag` from a multiple of `align` on; `None` when there are none.
    pub(super) fn alloc_aligned(
        &mut self,
        ag: u32,
        count: u32,
        align: u32,
        owner: Owner,
    ) -> Result<Option<u32>> {
        let free = self.agf(ag)?.agf_freeblks.get();
        if free < count.saturating_add(self.reserve(ag)) {
            return Ok(None);
        }
        self.fix_list(ag)?;
        let mut found = None;
        let mut looked = 0;
        self.tree_from(ag, Tree::Cnt, by_size(0, count), |record| {
            let (first, length) = self.free_record(ag, record)?;
            let aligned = first.next_multiple_of(align.max(1));
            if aligned - first <= length && length - (aligned - first) >= count {
                found = Some((*record, aligned));
            }
            looked += 1;
            Ok(found.is_none() && looked < LOOK)
        })?;
        let Some((from, first)) = found else { return Ok(None) };
        self.take_space(ag, &from, first, count)?;
        self.add_owner(ag, first, count, owner)?;
        self.note_fresh(self.sb.join(ag, first), count.into());
        Ok(Some(first))
    }

    fn reserve(&self, ag: u32) -> u32 {
        RESERVE.min(self.sb.ag_length(ag) / 50)
    }

    /// Up to `want` blocks in one piece, near `goal` where that can be; of `least` at least.
    fn alloc_piece(
        &mut self,
        goal: FsBlock,
        want: u32,
        least: u32,
        owner: Owner,
    ) -> Result<(FsBlock, u32)> {
        let (goal_ag, goal_block) = self.sb.split(goal);
        let groups = self.sb.ag_count();
        let mut best: Option<(u32, Record, u32, u32)> = None;
        for step in 0..groups {
            let ag = (goal_ag % groups + step) % groups;
            let free = self.agf(ag)?.agf_freeblks.get().saturating_sub(self.reserve(ag));
            if free < least {
                continue;
            }
            // Before anything is chosen: the list takes space, too.
            self.fix_list(ag)?;
            let want = want.min(free);
            if step == 0 {
                let mut near = self.tree_at_or_before(ag, Tree::Bno, by_block(goal_block))?;
                if near.is_none_or(|near| space(&near).0 + space(&near).1 <= goal_block) {
                    near = None;
                    self.tree_from(ag, Tree::Bno, by_block(goal_block), |record| {
                        near = Some(*record);
                        Ok(false)
                    })?;
                }
                if let Some(near) = near {
                    let (first, length) = self.free_record(ag, &near)?;
                    let start = first.max(goal_block.min(first + length - 1));
                    if first + length - start >= want {
                        best = Some((ag, near, start, want));
                        break;
                    }
                }
            }
            let mut found = None;
            self.tree_from(ag, Tree::Cnt, by_size(0, want), |record| {
                found = Some(*record);
                Ok(false)
            })?;
            if let Some(found) = found {
                let (first, _) = self.free_record(ag, &found)?;
                best = Some((ag, found, first, want));
                break;
            }
            if let Some(last) = self.tree_last(ag, Tree::Cnt)? {
                let (first, length) = self.free_record(ag, &last)?;
                let take = length.min(want);
                if take >= least && best.is_none_or(|(.., most)| take > most) {
                    best = Some((ag, last, first, take));
                }
            }
        }
        let Some((ag, from, first, count)) = best else {
            return Err(Error::NoSpace(format!("no free extent of {least} blocks")));
        };
        self.take_space(ag, &from, first, count)?;
        self.add_owner(ag, first, count, owner)?;
        let block = self.sb.join(ag, first);
        self.note_fresh(block, count.into());
        Ok((block, count))
    }

    /// Blocks for `count` blocks of a fork from `offset` on, in as few pieces as there are.
    pub(super) fn alloc_content(
        &mut self,
        inode: &Inode,
        fork: Fork,
        goal: Option<FsBlock>,
        offset: u64,
        count: u64,
    ) -> Result<Vec<Extent>> {
        let mut goal = goal.unwrap_or_else(|| self.sb.inode_place(inode.ino).0);
        let mut list: Vec<Extent> = Vec::new();
        let mut done = 0;
        while done < count {
            let want = to_u32((count - done).min(MAX_EXTENT));
            let owner = Owner::content(inode.ino, fork, offset + done);
            let (block, got) = self.alloc_piece(goal, want, 1, owner)?;
            let extent =
                Extent { offset: offset + done, block, count: got.into(), unwritten: false };
            bmap::push(&mut list, extent);
            done += u64::from(got);
            goal = FsBlock(block.0 + u64::from(got));
        }
        Ok(list)
    }

    /// `count` blocks of a fork from `offset` on in one piece: a block of a directory.
    pub(super) fn alloc_whole(
        &mut self,
        inode: &Inode,
        fork: Fork,
        offset: u64,
        count: u32,
    ) -> Result<Extent> {
        let goal = self.sb.inode_place(inode.ino).0;
        let owner = Owner::content(inode.ino, fork, offset);
        let (block, _) = self.alloc_piece(goal, count, count, owner)?;
        Ok(Extent { offset, block, count: count.into(), unwritten: false })
    }

    /// A block for the tree of a fork's extents.
    pub(super) fn alloc_tree_block(&mut self, ino: Ino, fork: Fork) -> Result<FsBlock> {
        let goal = self.sb.inode_place(ino).0;
        Ok(self.alloc_piece(goal, 1, 1, Owner::tree(ino, fork))?.0)
    }
}
