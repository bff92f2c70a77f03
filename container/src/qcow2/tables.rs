//! The level 1 table and the level 2 tables in use.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::error::{Error, Result};
use super::layout::{Geometry, MAX_OFFSET, OFFSET_MASK};
use crate::file::GrowableDevice;

/// A level 2 table in memory.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its offset in the file, in bytes.
    pub(crate) offset: u64,
    pub(crate) words: Vec<u64>,
    /// Words that differ from those on disk.
    pub(crate) dirty: Option<Range<usize>>,
    /// Nothing on disk refers to it yet.
    pub(crate) fresh: bool,
    used: u64,
}

/// The tables that map the disk.
#[derive(Debug)]
pub(crate) struct Tables {
    geo: Geometry,
    /// The offset of the level 1 table in the file, in bytes.
    pub(crate) l1_offset: u64,
    pub(crate) l1: Vec<u64>,
    /// Entries of the level 1 table that differ from those on disk.
    pub(crate) l1_dirty: BTreeSet<u64>,
    pub(crate) cache: HashMap<u64, Table>,
    clock: u64,
    /// Most clean tables to keep.
    keep: usize,
    changed_tables: usize,
}

impl Tables {
    /// Reads the level 1 table; `cache` bytes of level 2 tables are kept.
    pub(crate) fn load(
        file: &dyn GrowableDevice,
        geo: Geometry,
        l1_offset: u64,
        l1_size: u64,
        cache: u64,
    ) -> Result<Self> {
        Ok(Self {
            geo,
            l1_offset,
            l1: super::read_words(file, l1_offset, l1_size)?,
            l1_dirty: BTreeSet::new(),
            cache: HashMap::new(),
            clock: 0,
            keep: (cache / geo.cluster_size()).max(2) as usize,
            changed_tables: 0,
        })
    }

    /// Bytes that wait for the commit.
    pub(crate) fn waiting(&self) -> u64 {
        self.changed_tables as u64 * self.geo.cluster_size()
    }

    /// Whether a commit has anything to write.
    pub(crate) fn is_dirty(&self) -> bool {
        self.changed_tables > 0 || !self.l1_dirty.is_empty()
    }

    /// The commit has written every table.
    pub(crate) fn all_clean(&mut self) {
        for table in self.cache.values_mut() {
            table.dirty = None;
            table.fresh = false;
        }
        self.l1_dirty.clear();
        self.changed_tables = 0;
    }

    /// The offset of table number `index`; `None` when there is none.
    pub(crate) fn offset_of(&self, index: u64) -> Result<Option<u64>> {
        let entry = usize::try_from(index).ok().and_then(|index| self.l1.get(index)).copied();
        let entry = entry.unwrap_or(0);
        let offset = entry & OFFSET_MASK;
        if offset == 0 {
            return Ok(None);
        }
        if !self.geo.is_aligned(offset) || offset >= MAX_OFFSET {
            let detail = format!("entry {index} is {entry:#018x}: no table can be there");
            return Err(Error::corrupt("L1 table", self.l1_offset + index * 8, detail));
        }
        Ok(Some(offset))
    }

    /// Table number `index`, read if need be; `None` when there is none.
    pub(crate) fn get(
        &mut self,
        file: &dyn GrowableDevice,
        index: u64,
    ) -> Result<Option<&mut Table>> {
        let Some(offset) = self.offset_of(index)? else { return Ok(None) };
        self.clock += 1;
        if !self.cache.contains_key(&index) {
            self.make_room();
            let mut bytes = vec![0; self.geo.cluster_size() as usize];
            super::read_padded(file, offset, &mut bytes, "L2 table")?;
            let words = super::words(&bytes);
            self.cache.insert(index, Table { offset, words, dirty: None, fresh: false, used: 0 });
        }
        let clock = self.clock;
        if let Some(table) = self.cache.get_mut(&index) {
            table.used = clock;
        }
        Ok(self.cache.get_mut(&index))
    }

    /// Lets go of the older half of the clean tables while there are too many.
    fn make_room(&mut self) {
        while self.cache.len() >= self.keep + self.changed_tables {
            let before = self.cache.len();
            let clean = self.cache.values().filter(|table| table.dirty.is_none() && !table.fresh);
            let mut ages: Vec<u64> = clean.map(|table| table.used).collect();
            ages.sort_unstable();
            let middle = ages.get(ages.len() / 2).copied().unwrap_or(0);
            self.cache
                .retain(|_, table| table.dirty.is_some() || table.fresh || table.used > middle);
            if self.cache.len() == before {
                return;
            }
        }
    }

    /// The two words of an entry; the second is 0 where entries have one.
    pub(crate) fn entry(
        &mut self,
        file: &dyn GrowableDevice,
        index: u64,
        within: u64,
    ) -> Result<Option<(u64, u64)>> {
        let geo = self.geo;
        let Some(table) = self.get(file, index)? else { return Ok(None) };
        let at = (within * geo.entry_words()) as usize;
        let second = if geo.extended { table.words[at + 1] } else { 0 };
        Ok(Some((table.words[at], second)))
    }

    /// Sets an entry of a table that may be changed where it is.
    pub(crate) fn set_entry(
        &mut self,
        index: u64,
        within: u64,
        (first, second): (u64, u64),
    ) -> Result<()> {
        let geo = self.geo;
        let Some(table) = self.cache.get_mut(&index) else {
            return Err(Error::Invalid("an L2 table was changed that is not loaded"));
        };
        let at = (within * geo.entry_words()) as usize;
        table.words[at] = first;
        if geo.extended {
            table.words[at + 1] = second;
        }
        let end = at + geo.entry_words() as usize;
        let counted = table.fresh || table.dirty.is_some();
        table.dirty = Some(match &table.dirty {
            Some(dirty) => dirty.start.min(at)..dirty.end.max(end),
            None => at..end,
        });
        self.changed_tables += usize::from(!counted);
        Ok(())
    }

    /// Puts table number `index` into a new place, with `entry` in the level 1 table.
    pub(crate) fn replace(&mut self, index: u64, offset: u64, entry: u64, words: Vec<u64>) {
        let counted = self.cache.get(&index).is_some_and(|old| old.fresh || old.dirty.is_some());
        self.clock += 1;
        let table = Table { offset, words, dirty: None, fresh: true, used: self.clock };
        self.make_room();
        self.cache.insert(index, table);
        self.changed_tables += usize::from(!counted);
        self.l1[index as usize] = entry;
        self.l1_dirty.insert(index);
    }
}
