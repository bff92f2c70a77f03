//! The tree of shared blocks: how many files have them.

use super::btree::{Record, Tree};
use super::num;
use super::volume::Volume;
use crate::error::{Error, Result};

/// The bit of a first block that says "being copied": such records are left alone.
const COW: u32 = 1 << 31;

/// A record, taken apart.
#[derive(Clone, Copy, Debug)]
struct Shared {
    first: u32,
    count: u32,
    files: u32,
}

impl Shared {
    fn parse(record: &Record) -> Self {
        Self {
            first: num::be32(record, 0),
            count: num::be32(record, 4),
            files: num::be32(record, 8),
        }
    }
    fn to_record(self) -> Record {
        let mut record = [0; 24];
        num::put32(&mut record, 0, self.first);
        num::put32(&mut record, 4, self.count);
        num::put32(&mut record, 8, self.files);
        record
    }
    fn end(self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

fn at(block: u32) -> (u64, u64, u64) {
    (block.into(), 0, 0)
}

impl Volume {
    /// One file has these blocks no more. Gives the runs that no file has now.
    pub(super) fn unshare(&mut self, ag: u32, first: u32, count: u32) -> Result<Vec<(u32, u32)>> {
        let end = first + count;
        let mut records = Vec::new();
        let before = self.tree_at_or_before(ag, Tree::Refc, at(first))?;
        let start = before.map_or(first, |record| Shared::parse(&record).first);
        self.tree_from(ag, Tree::Refc, at(start), |record| {
            let shared = Shared::parse(record);
            if shared.first & COW != 0 || shared.first >= end {
                return Ok(false);
            }
            if shared.end() > first {
                records.push(shared);
            }
            Ok(true)
        })?;
        let mut free = Vec::new();
        let mut next = first;
        for old in records {
            if old.files < 2 || old.count == 0 {
                return Err(Error::corrupt(
                    "reference count tree",
                    format!("block {} of group {ag}", old.first),
                    format!("{} blocks are said to be shared by {}", old.count, old.files),
                ));
            }
            let (from, to) = (old.first.max(first), old.end().min(end));
            if from > next {
                free.push((next, from - next));
            }
            next = to;
            self.fix_list(ag)?;
            self.tree_remove(ag, Tree::Refc, at(old.first))?;
            let parts = [
                (old.first, from, old.files),
                (from, to, old.files - 1),
                (to, old.end(), old.files),
            ];
            for (start, past, files) in parts {
                if start < past && files >= 2 {
                    let part = Shared { first: start, count: past - start, files };
                    self.tree_insert(ag, Tree::Refc, &part.to_record())?;
                }
            }
            self.join_shared(ag, from)?;
            self.join_shared(ag, to)?;
        }
        if next < end {
            free.push((next, end - next));
        }
        Ok(free)
    }

    /// Makes one record of two that meet at `block` and have the same count.
    fn join_shared(&mut self, ag: u32, block: u32) -> Result<()> {
        let Some(before) = block.checked_sub(1) else { return Ok(()) };
        let left = self.tree_at_or_before(ag, Tree::Refc, at(before))?;
        let right = self.tree_at_or_before(ag, Tree::Refc, at(block))?;
        let (Some(left), Some(right)) = (left, right) else { return Ok(()) };
        let (left, right) = (Shared::parse(&left), Shared::parse(&right));
        if right.first != block || left.end() != block || left.files != right.files {
            return Ok(());
        }
        self.tree_remove(ag, Tree::Refc, at(block))?;
        let whole = Shared { count: left.count + right.count, ..left };
        self.tree_replace(ag, Tree::Refc, &whole.to_record())
    }
}
