//! Blocks: a bounded cache over the device, and every change held back until commit.
//!
//! Reading sees, newest first: the open transaction, the sealed ones, runs to be zeroed, the cache,
//! the copies in a dirty journal, the device.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::units::FsBlock;
use crate::cache::Cache;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};
use crate::ranges::Ranges;

/// The content of one block; cheap to clone.
pub type Block = Arc<[u8]>;

/// Bytes of clean blocks kept. A walk over a whole Debian image touches about 60 MiB of metadata,
/// most of it once; the hot part (group descriptors, bitmaps, upper directories) is a few MiB.
pub const CACHE_BYTES: usize = 16 << 20;

/// The content of one journal transaction (or, without a journal, of one ordered write).
#[derive(Debug, Default)]
pub struct Transaction {
    /// Blocks of metadata: these go through the journal.
    pub meta: BTreeMap<FsBlock, Block>,
    /// Blocks of file content, all free before this transaction: written ahead of its commit.
    pub data: BTreeMap<FsBlock, Block>,
    /// How many blocks of file content are on the device already, in places that were free.
    pub written: u64,
    /// Blocks freed by this transaction. Until it is committed, their old content must stay.
    pub freed: Ranges,
    /// Runs of blocks, first and number, that were free and must hold zeros before the commit: inode
    /// tables of new groups.
    pub zero: Vec<(FsBlock, u64)>,
}

impl Transaction {
    /// Whether it would write nothing.
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty() && self.data.is_empty() && self.zero.is_empty()
    }
}

/// The place of a block's newest content while it is in the journal only. Content stays there until
/// the block is read, so that a large journal takes little memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The block of the device that holds the copy.
    pub physical: FsBlock,
    /// The first four bytes of the block, where the copy has zeros in their place: the journal's
    /// magic number, which no copy may begin with.
    pub head: Option<[u8; 4]>,
}

/// All blocks of one file system.
pub struct Store {
    device: Arc<dyn BlockDevice>,
    block_size: usize,
    blocks_count: u64,
    cache: RefCell<Cache<Block>>,
    /// The blocks that a replay of the dirty journal would write, found at open.
    replayed: BTreeMap<FsBlock, Replayed>,
    /// The newest content of every block changed since open (all transactions together).
    latest: BTreeMap<FsBlock, Block>,
    current: Transaction,
    sealed: Vec<Transaction>,
    /// For each unfinished [`Store::begin`], the state before it.
    undo: Vec<Undo>,
    /// The runs to be zeroed of all transactions: first block and one past the last.
    zeroing: BTreeMap<FsBlock, FsBlock>,
}

/// All that is pending for one block, to put it back.
#[derive(Debug)]
struct Before {
    meta: Option<Block>,
    data: Option<Block>,
    latest: Option<Block>,
}

/// All that takes an attempt back.
#[derive(Debug)]
struct Undo {
    /// The pending content of the blocks it touched, from before.
    blocks: BTreeMap<FsBlock, Before>,
    /// The blocks freed before it began.
    freed: Ranges,
    /// How many blocks the file system had.
    blocks_count: u64,
    /// How many runs were to be zeroed.
    zero: usize,
    /// Its entries of [`Store::zeroing`], in order: the key, and what was there before.
    zeroing: Vec<(FsBlock, Option<FsBlock>)>,
}

impl Store {
    /// A store of `blocks_count` blocks of `block_size` bytes on `device`.
    pub fn new(device: Arc<dyn BlockDevice>, block_size: u32, blocks_count: u64) -> Self {
        Self {
            device,
            block_size: to_usize(block_size),
            blocks_count,
            cache: RefCell::new(Cache::new((CACHE_BYTES / to_usize(block_size.max(1))).max(16))),
            replayed: BTreeMap::new(),
            latest: BTreeMap::new(),
            current: Transaction::default(),
            sealed: Vec::new(),
            undo: Vec::new(),
            zeroing: BTreeMap::new(),
        }
    }

    /// The device below.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks of the file system.
    #[cfg(test)]
    pub(super) fn blocks_count(&self) -> u64 {
        self.blocks_count
    }

    /// Changes the number of addressable blocks, after the file system was grown in memory.
    pub fn set_blocks_count(&mut self, count: u64) {
        self.blocks_count = count;
    }

    fn check(&self, number: FsBlock) -> Result<()> {
        if number.get() < self.blocks_count {
            return Ok(());
        }
        Err(Error::corrupt(
            "block pointer",
            format!("block {number}"),
            format!("the file system has {} blocks", self.blocks_count),
        ))
    }

    /// The content of block `number`.
    pub fn read(&self, number: FsBlock) -> Result<Block> {
        self.check(number)?;
        if let Some(block) = self.latest.get(&number) {
            return Ok(block.clone());
        }
        if self.is_zeroed(number) {
            return Ok(vec![0; self.block_size].into());
        }
        if let Some(block) = self.cache.borrow_mut().get(number.get()) {
            return Ok(block);
        }
        let mut buf = vec![0; self.block_size];
        match self.replayed.get(&number) {
            Some(&copy) => self.read_replayed(copy, &mut buf)?,
            None => self.device.read_at(number.byte(self.block_size), &mut buf)?,
        }
        let block: Block = buf.into();
        self.cache.borrow_mut().insert(number.get(), block.clone());
        Ok(block)
    }

    /// Reads consecutive blocks of file content into `buf` (a whole number of blocks) past the
    /// cache, in one device read where nothing is pending.
    pub fn read_run(&self, first: FsBlock, buf: &mut [u8]) -> Result<()> {
        let count = to_u64(buf.len() / self.block_size);
        if count == 0 {
            return Ok(());
        }
        self.check(first)?;
        self.check(first.saturating_add(count - 1))?;
        self.device.read_at(first.byte(self.block_size), buf)?;
        // Less than the length of `buf`.
        let place = |number: FsBlock| to_usize(number - first) * self.block_size;
        for number in first.run(if self.zeroing.is_empty() { 0 } else { count }) {
            if self.is_zeroed(number) {
                buf[place(number)..][..self.block_size].fill(0);
            }
        }
        for (&number, &copy) in self.replayed.range(first..first + count) {
            self.read_replayed(copy, &mut buf[place(number)..][..self.block_size])?;
        }
        for (&number, block) in self.latest.range(first..first + count) {
            buf[place(number)..][..self.block_size].copy_from_slice(block);
        }
        Ok(())
    }

    /// Reads a block from its copy in the journal.
    pub(super) fn read_replayed(&self, copy: Replayed, buf: &mut [u8]) -> Result<()> {
        self.device.read_at(copy.physical.byte(self.block_size), buf)?;
        if let Some(head) = copy.head {
            buf[..head.len()].copy_from_slice(&head);
        }
        Ok(())
    }

    fn prepare(&self, number: FsBlock, content: Vec<u8>) -> Result<Block> {
        self.check(number)?;
        if content.len() != self.block_size {
            return Err(Error::Invalid(format!(
                "{} bytes for block {number} of {} bytes",
                content.len(),
                self.block_size
            )));
        }
        Ok(content.into())
    }

    /// Remembers the pending content of a block before it changes.
    fn record(&mut self, number: FsBlock) {
        let Some(frame) = self.undo.last_mut() else { return };
        frame.blocks.entry(number).or_insert_with(|| Before {
            meta: self.current.meta.get(&number).cloned(),
            data: self.current.data.get(&number).cloned(),
            latest: self.latest.get(&number).cloned(),
        });
    }

    /// Starts an attempt: changes from here on can be taken back together. Attempts nest.
    pub(super) fn begin(&mut self) {
        self.undo.push(Undo {
            blocks: BTreeMap::new(),
            freed: self.current.freed.clone(),
            blocks_count: self.blocks_count,
            zero: self.current.zero.len(),
            zeroing: Vec::new(),
        });
    }

    /// Ends the innermost attempt and keeps its changes.
    pub(super) fn keep(&mut self) {
        let Some(inner) = self.undo.pop() else { return };
        if let Some(outer) = self.undo.last_mut() {
            for (number, before) in inner.blocks {
                outer.blocks.entry(number).or_insert(before);
            }
            outer.zeroing.extend(inner.zeroing);
        }
    }

    /// Ends the innermost attempt and takes its changes back.
    pub(super) fn roll_back(&mut self) {
        fn put(map: &mut BTreeMap<FsBlock, Block>, number: FsBlock, block: Option<Block>) {
            match block {
                Some(block) => map.insert(number, block),
                None => map.remove(&number),
            };
        }
        let Some(undo) = self.undo.pop() else { return };
        for (number, before) in undo.blocks {
            put(&mut self.current.meta, number, before.meta);
            put(&mut self.current.data, number, before.data);
            put(&mut self.latest, number, before.latest);
        }
        self.current.freed = undo.freed;
        self.blocks_count = undo.blocks_count;
        // Inside an attempt nothing is sealed, so the list has only grown.
        self.current.zero.truncate(undo.zero);
        for (start, before) in undo.zeroing.into_iter().rev() {
            match before {
                Some(end) => self.zeroing.insert(start, end),
                None => self.zeroing.remove(&start),
            };
        }
    }

    /// Changes a block of metadata.
    pub fn write_meta(&mut self, number: FsBlock, content: Vec<u8>) -> Result<()> {
        let block = self.prepare(number, content)?;
        self.record(number);
        self.current.data.remove(&number);
        self.current.meta.insert(number, block.clone());
        self.latest.insert(number, block);
        Ok(())
    }

    /// Writes a block of file content. It must have been free, or been allocated, in this
    /// transaction. A block that this same transaction freed holds old content that a power cut
    /// before the commit must find again; such a block goes through the journal.
    pub fn write_data(&mut self, number: FsBlock, content: Vec<u8>) -> Result<()> {
        if self.current.freed.contains(number.get()) || self.current.meta.contains_key(&number) {
            return self.write_meta(number, content);
        }
        let block = self.prepare(number, content)?;
        self.record(number);
        self.current.data.insert(number, block.clone());
        self.latest.insert(number, block);
        Ok(())
    }

    /// Writes file content to a run of blocks that were free, in whole blocks: to the device at once
    /// where nothing of the state on it, of its journal or of what waits is there, else into memory.
    pub fn write_free(&mut self, first: FsBlock, content: &[u8]) -> Result<()> {
        let count = to_u64(content.len() / self.block_size);
        if count == 0 {
            return Ok(());
        }
        self.check(first)?;
        self.check(first.saturating_add(count - 1))?;
        let end = first + count;
        let freed = |transaction: &Transaction| {
            transaction.freed.within(first.get()..end.get()).next().is_some()
        };
        let taken = self.replayed.range(first..end).next().is_some()
            || self.latest.range(first..end).next().is_some()
            || self.zeroing.range(..end).next_back().is_some_and(|(_, &past)| past > first)
            || freed(&self.current)
            || self.sealed.iter().any(freed);
        if taken {
            for (number, block) in first.run(count).zip(content.chunks(self.block_size)) {
                self.write_data(number, block.to_vec())?;
            }
            return Ok(());
        }
        self.device.write_free(first.byte(self.block_size), content)?;
        let (first, end) = (first.get(), end.get());
        self.cache.borrow_mut().remove_range(first..end);
        self.current.written += count;
        Ok(())
    }

    /// Writes a block whose content others share: metadata, or (`fresh`) anything in a block that
    /// was free before this transaction.
    pub(super) fn write_shared(
        &mut self,
        number: FsBlock,
        block: Block,
        fresh: bool,
    ) -> Result<()> {
        self.check(number)?;
        if block.len() != self.block_size {
            return self.write_meta(number, block.to_vec());
        }
        self.record(number);
        if fresh && !self.current.freed.contains(number.get()) {
            self.current.meta.remove(&number);
            self.current.data.insert(number, block.clone());
        } else {
            self.current.data.remove(&number);
            self.current.meta.insert(number, block.clone());
        }
        self.latest.insert(number, block);
        Ok(())
    }

    /// Makes a run of blocks that were free before this transaction read as zeros, without holding
    /// them in memory.
    pub(super) fn zero(&mut self, start: FsBlock, len: u64) -> Result<()> {
        self.check(start.saturating_add(len.saturating_sub(1)))?;
        if len > 0 {
            self.current.zero.push((start, len));
            let before = self.zeroing.insert(start, start + len);
            if let Some(frame) = self.undo.last_mut() {
                frame.zeroing.push((start, before));
            }
        }
        Ok(())
    }

    fn is_zeroed(&self, number: FsBlock) -> bool {
        self.zeroing.range(..=number).next_back().is_some_and(|(_, &end)| number < end)
    }

    /// Marks blocks as freed: this transaction no longer writes to them, and their old content stays
    /// on disk until the commit.
    pub fn forget(&mut self, blocks: Range<FsBlock>) {
        let pending = self.current.meta.range(blocks.clone());
        let mut numbers: Vec<FsBlock> = pending.map(|(&number, _)| number).collect();
        numbers.extend(self.current.data.range(blocks.clone()).map(|(&number, _)| number));
        for number in numbers {
            self.record(number);
            self.current.meta.remove(&number);
            self.current.data.remove(&number);
        }
        self.current.freed.insert(blocks.start.get()..blocks.end.get());
    }

    /// Runs of blocks in `range` that the open transaction freed, in order. Allocators prefer others.
    pub fn freed_in(&self, range: Range<FsBlock>) -> impl Iterator<Item = Range<FsBlock>> + '_ {
        let runs = self.current.freed.within(range.start.get()..range.end.get());
        runs.map(|run| FsBlock::new(run.start)..FsBlock::new(run.end))
    }

    /// Whether the open transaction writes this block as file content, so that it may be
    /// rewritten without the journal.
    pub fn is_new_data(&self, number: FsBlock) -> bool {
        self.current.data.contains_key(&number)
    }

    /// Metadata blocks in the open transaction, which bounds its size in the journal.
    pub fn pending_meta(&self) -> usize {
        self.current.meta.len()
    }

    /// Whether anything waits for commit, the replay of a dirty journal included.
    pub fn is_dirty(&self) -> bool {
        !self.replayed.is_empty() || !self.sealed.is_empty() || !self.current.is_empty()
    }

    /// Closes the open transaction: later changes are committed after it. Inside an attempt the
    /// file system is not consistent, and nothing happens.
    pub fn seal(&mut self) {
        if !self.current.is_empty() && self.undo.is_empty() {
            self.sealed.push(std::mem::take(&mut self.current));
        }
    }

    /// Puts the blocks of a journal replay over the device.
    pub fn set_replayed(&mut self, blocks: BTreeMap<FsBlock, Replayed>) {
        self.cache.borrow_mut().retain(|_| false);
        self.replayed = blocks;
    }

    /// The blocks that a journal replay would write.
    pub fn replayed(&self) -> &BTreeMap<FsBlock, Replayed> {
        &self.replayed
    }

    /// Marks the replay as written to its place.
    pub(super) fn replayed_written(&mut self) {
        // Cached copies of these blocks came from the journal and are the same.
        self.replayed.clear();
    }

    /// Everything to commit, oldest first. The caller calls [`Store::seal`] before, writes it and
    /// then calls [`Store::committed`].
    pub fn transactions(&self) -> &[Transaction] {
        &self.sealed
    }

    /// Marks all transactions and the replay as written.
    pub fn committed(&mut self) {
        let replayed = std::mem::take(&mut self.replayed);
        let latest = std::mem::take(&mut self.latest);
        self.sealed.clear();
        self.zeroing.clear();
        let old = |number| replayed.contains_key(&number) || latest.contains_key(&number);
        self.cache.borrow_mut().retain(|number| !old(FsBlock::new(number)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::MemoryDevice;

    fn store() -> Store {
        Store::new(Arc::new(MemoryDevice::new(vec![7; 64 * 1024])), 1024, 32)
    }

    #[test]
    fn an_attempt_is_taken_back_whole() {
        let mut store = store();
        store.write_meta(FsBlock::new(1), vec![1; 1024]).unwrap();
        store.begin();
        store.set_blocks_count(64);
        store.write_meta(FsBlock::new(1), vec![2; 1024]).unwrap();
        store.write_data(FsBlock::new(40), vec![3; 1024]).unwrap();
        store.forget(FsBlock::new(2)..FsBlock::new(4));
        store.zero(FsBlock::new(50), 4).unwrap();
        assert_eq!(*store.read(FsBlock::new(51)).unwrap(), [0; 1024]);
        store.roll_back();
        assert_eq!(store.blocks_count(), 32);
        assert_eq!(*store.read(FsBlock::new(1)).unwrap(), [1; 1024]);
        assert!(store.read(FsBlock::new(40)).is_err());
        assert_eq!(store.freed_in(FsBlock::new(0)..FsBlock::new(64)).count(), 0);
        assert!(store.current.zero.is_empty() && store.zeroing.is_empty());
        store.set_blocks_count(64);
        assert_eq!(*store.read(FsBlock::new(51)).unwrap(), [7; 1024]);
    }

    #[test]
    fn zeros_of_an_inner_attempt_go_with_the_outer() {
        let mut store = store();
        store.zero(FsBlock::new(4), 2).unwrap();
        store.begin();
        store.begin();
        store.zero(FsBlock::new(4), 8).unwrap();
        store.zero(FsBlock::new(20), 1).unwrap();
        store.keep();
        assert_eq!(*store.read(FsBlock::new(11)).unwrap(), [0; 1024]);
        store.roll_back();
        assert_eq!(store.current.zero, [(FsBlock::new(4), 2)]);
        assert_eq!(*store.read(FsBlock::new(5)).unwrap(), [0; 1024]);
        assert_eq!(*store.read(FsBlock::new(6)).unwrap(), [7; 1024]);
        assert_eq!(*store.read(FsBlock::new(20)).unwrap(), [7; 1024]);
    }

    #[test]
    fn zeros_hide_what_the_cache_has() {
        let mut store = store();
        assert_eq!(*store.read(FsBlock::new(9)).unwrap(), [7; 1024]);
        store.zero(FsBlock::new(9), 1).unwrap();
        assert_eq!(*store.read(FsBlock::new(9)).unwrap(), [0; 1024]);
    }
}
