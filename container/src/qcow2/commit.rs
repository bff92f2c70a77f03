//! The order of writes: see the module's documentation.

use std::ops::Range;

use super::error::{Error, Result};
use super::image::Image;
use super::layout::SECTOR;
use super::refcount::Refcounts;
use crate::file::GrowableDevice;

/// Words of 64 bits in a sector.
const SECTOR_WORDS: u64 = SECTOR / 8;

impl Image {
    /// Writes what waits; returns when all is on stable storage.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.refcounts.is_none() {
            return Ok(());
        }
        self.commit()
    }

    /// The same. After a failure nothing more is written: what is on disk is not known then.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.failed {
            return Err(Error::Failed);
        }
        let done = self.write_all();
        self.failed = done.is_err();
        done
    }

    fn write_all(&mut self) -> Result<()> {
        let Self { file, tables, refcounts, decoder, .. } = self;
        let file = &**file;
        let Some(refcounts) = refcounts else { return Err(Error::ReadOnly) };
        if !tables.is_dirty() && !refcounts.is_dirty() {
            return Ok(file.flush()?);
        }
        // 1. New tables and blocks, which nothing refers to, with the data in new clusters.
        let mut new: Vec<_> = tables.cache.values().filter(|table| table.fresh).collect();
        new.sort_unstable_by_key(|table| table.offset);
        for table in new {
            file.write_at(table.offset, &super::bytes(&table.words))?;
        }
        let mut new: Vec<_> = refcounts.blocks.values().filter(|block| block.fresh).collect();
        new.sort_unstable_by_key(|block| block.offset);
        for block in &new {
            file.write_at(block.offset, &block.bytes)?;
        }
        // The refcount table must not lead to a block that is not there.
        let table = !refcounts.table_dirty.is_empty();
        if table || !new.is_empty() {
            file.flush()?;
        }
        // 2. Newly used clusters are counted. Nothing refers to them yet: what is counted and not
        // written is leaked.
        write_blocks(file, refcounts)?;
        if table {
            let sectors = sectors(refcounts.table_dirty.iter().copied(), refcounts.table.len());
            for words in sectors {
                let at = refcounts.table_offset + words.start as u64 * 8;
                file.write_at(at, &super::bytes(&refcounts.table[words]))?;
            }
        }
        file.flush()?;
        // 3. The switch.
        if tables.is_dirty() {
            let mut changed: Vec<_> = tables.cache.values().filter(|table| !table.fresh).collect();
            changed.sort_unstable_by_key(|table| table.offset);
            for table in changed {
                let Some(dirty) = &table.dirty else { continue };
                let words = whole_sectors(dirty, table.words.len(), SECTOR_WORDS as usize);
                let bytes = super::bytes(&table.words[words.clone()]);
                write_existing(file, table.offset + words.start as u64 * 8, &bytes)?;
            }
            for words in sectors(tables.l1_dirty.iter().copied(), tables.l1.len()) {
                let at = tables.l1_offset + words.start as u64 * 8;
                file.write_at(at, &super::bytes(&tables.l1[words]))?;
            }
            file.flush()?;
        }
        tables.all_clean();
        refcounts.all_clean();
        // 4. Nothing refers to these any more. If this is lost, they are leaked.
        if !refcounts.pending.is_empty() {
            refcounts.free_now(file)?;
            write_blocks(file, refcounts)?;
            refcounts.all_clean();
            decoder.forget();
        }
        Ok(())
    }
}

/// Writes the changed parts of blocks that are in use; whether there were any.
fn write_blocks(file: &dyn GrowableDevice, refcounts: &Refcounts) -> Result<bool> {
    let mut changed: Vec<_> = refcounts.blocks.values().filter(|block| !block.fresh).collect();
    changed.retain(|block| block.dirty.is_some());
    changed.sort_unstable_by_key(|block| block.offset);
    for block in &changed {
        let Some(dirty) = &block.dirty else { continue };
        let bytes = whole_sectors(dirty, block.bytes.len(), SECTOR as usize);
        write_existing(file, block.offset + bytes.start as u64, &block.bytes[bytes])?;
    }
    Ok(!changed.is_empty())
}

/// Writes into a table that the file may end in.
fn write_existing(file: &dyn GrowableDevice, offset: u64, bytes: &[u8]) -> Result<()> {
    super::ensure_len(file, offset + bytes.len() as u64)?;
    Ok(file.write_at(offset, bytes)?)
}

/// The sectors that a range of items lies in, as a range of items.
fn whole_sectors(items: &Range<usize>, count: usize, per_sector: usize) -> Range<usize> {
    let start = items.start - items.start % per_sector;
    start..items.end.next_multiple_of(per_sector).min(count)
}

/// The sectors that hold these words, as ranges of words.
fn sectors(words: impl Iterator<Item = u64>, count: usize) -> Vec<Range<usize>> {
    let mut numbers: Vec<u64> = words.map(|word| word / SECTOR_WORDS).collect();
    numbers.dedup();
    let range = |number: u64| {
        let start = (number * SECTOR_WORDS) as usize;
        start..(start + SECTOR_WORDS as usize).min(count)
    };
    numbers.into_iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_written_as_sectors() {
        assert_eq!(whole_sectors(&(70..71), 200, 64), 64..128);
        assert_eq!(whole_sectors(&(5..130), 140, 64), 0..140);
        assert_eq!(sectors([1, 5, 63, 64, 300].into_iter(), 310), [0..64, 64..128, 256..310]);
    }
}
