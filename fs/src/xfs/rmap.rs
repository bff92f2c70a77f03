//! The tree of owners: who has which blocks.

use super::btree::{RMAP_UNWRITTEN, Record, Tree};
use super::free::Owner;
use super::num;
use super::volume::Volume;
use crate::error::{Error, Result};

/// A record, taken apart.
#[derive(Clone, Copy, Debug)]
struct Owned {
    first: u32,
    count: u32,
    owner: Owner,
    unwritten: bool,
}

impl Owned {
    fn parse(record: &Record) -> Self {
        let offset = num::be64(record, 16);
        Self {
            first: num::be32(record, 0),
            count: num::be32(record, 4),
            owner: Owner { id: num::be64(record, 8), offset: offset & !RMAP_UNWRITTEN },
            unwritten: offset & RMAP_UNWRITTEN != 0,
        }
    }
    fn to_record(self) -> Record {
        let mut record = [0; 24];
        num::put32(&mut record, 0, self.first);
        num::put32(&mut record, 4, self.count);
        num::put64(&mut record, 8, self.owner.id);
        let bit = if self.unwritten { RMAP_UNWRITTEN } else { 0 };
        num::put64(&mut record, 16, self.owner.offset | bit);
        record
    }
    fn end(self) -> u32 {
        self.first.saturating_add(self.count)
    }
    fn order(self) -> (u64, u64, u64) {
        Tree::Rmap.order_of(&self.to_record())
    }
    /// Whether `next` goes on where this ends.
    fn goes_on(self, next: Self) -> bool {
        self.end() == next.first
            && self.unwritten == next.unwritten
            && self.owner.after(self.count.into()) == next.owner
    }
}

impl Volume {
    /// Notes who has blocks.
    pub(super) fn add_owner(
        &mut self,
        ag: u32,
        first: u32,
        count: u32,
        owner: Owner,
    ) -> Result<()> {
        if !self.sb.has_rmapbt() {
            return Ok(());
        }
        let mut new = Owned { first, count, owner, unwritten: false };
        let near =
            self.owners_in(ag, u64::from(first.saturating_sub(1)), u64::from(new.end()) + 1)?;
        let near: Vec<Owned> = near.iter().map(Owned::parse).collect();
        let left = near.iter().copied().find(|other| other.goes_on(new));
        let right = near.iter().copied().find(|other| new.goes_on(*other));
        if let Some(right) = right {
            self.tree_remove(ag, Tree::Rmap, right.order())?;
            new.count += right.count;
        }
        if let Some(left) = left {
            new = Owned { count: left.count + new.count, ..left };
            return self.tree_replace(ag, Tree::Rmap, &new.to_record());
        }
        self.tree_insert(ag, Tree::Rmap, &new.to_record())
    }

    /// Notes that an owner has blocks no more.
    pub(super) fn remove_owner(
        &mut self,
        ag: u32,
        first: u32,
        count: u32,
        owner: Owner,
    ) -> Result<()> {
        if !self.sb.has_rmapbt() {
            return Ok(());
        }
        let end = first + count;
        let mut removed = 0;
        for record in self.owners_in(ag, first.into(), end.into())? {
            let old = Owned::parse(&record);
            let same = if old.first >= first {
                owner.after((old.first - first).into()) == old.owner
            } else {
                old.owner.after((first - old.first).into()) == owner
            };
            if !same {
                continue;
            }
            removed += old.end().min(end) - old.first.max(first);
            if old.first < first {
                let left = Owned { count: first - old.first, ..old };
                self.tree_replace(ag, Tree::Rmap, &left.to_record())?;
            } else {
                self.tree_remove(ag, Tree::Rmap, old.order())?;
            }
            if old.end() > end {
                let skip = end - old.first;
                let right = Owned {
                    first: end,
                    count: old.end() - end,
                    owner: old.owner.after(skip.into()),
                    unwritten: old.unwritten,
                };
                self.tree_insert(ag, Tree::Rmap, &right.to_record())?;
            }
        }
        if removed != count {
            return Err(Error::corrupt(
                "reverse map tree",
                format!("block {first} of group {ag}"),
                format!("of {count} blocks it gives {removed} to their owner"),
            ));
        }
        Ok(())
    }
}
