//! Bytes of the volume: a bounded cache over the device, and every change held back until commit.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::pieces::{Piece, Pieces, Step};
use crate::cache::Cache;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// Bytes of clean metadata kept. The MFT of a Windows image has some hundred MiB, most of it
/// looked at once; the hot part is the upper directories and the records being worked on.
const CACHE_BYTES: usize = 16 << 20;
/// Bytes that the cache reads at once: neighbours in the MFT are wanted soon.
const PAGE: u64 = 16 << 10;

/// A change to take back: the range that it covered, and what was pending there before.
#[derive(Debug)]
struct Undo {
    range: Range<u64>,
    before: Vec<(u64, Piece)>,
}

/// All bytes of one volume.
pub struct Store {
    device: Arc<dyn BlockDevice>,
    size: u64,
    cache: RefCell<Cache<Arc<[u8]>>>,
    pending: Pieces,
    undo: Vec<Undo>,
    /// Attempts that are not finished.
    depth: usize,
}

impl Store {
    /// A store of the first `size` bytes of `device`.
    pub fn new(device: Arc<dyn BlockDevice>, size: u64) -> Self {
        Self {
            device,
            size,
            cache: RefCell::new(Cache::new(CACHE_BYTES / to_usize(PAGE))),
            pending: Pieces::default(),
            undo: Vec::new(),
            depth: 0,
        }
    }

    /// The device below.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    fn check(&self, offset: u64, length: usize) -> Result<()> {
        match offset.checked_add(to_u64(length)) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::corrupt(
                "run list",
                format!("byte {offset}"),
                format!("{length} bytes there leave the volume of {} bytes", self.size),
            )),
        }
    }

    /// Reads metadata through the cache.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len())?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + to_u64(done);
            let page = self.page(at / PAGE)?;
            let from = to_usize(at % PAGE);
            let count = page.len().saturating_sub(from).min(buf.len() - done);
            buf[done..done + count].copy_from_slice(&page[from..from + count]);
            done += count;
        }
        self.pending.lay_over(offset, buf);
        Ok(())
    }

    /// Reads file content past the cache.
    pub fn read_content(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len())?;
        self.device.read_at(offset, buf)?;
        self.pending.lay_over(offset, buf);
        Ok(())
    }

    /// Reads what the device has, without the pending changes.
    pub fn read_committed(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset, buf.len())?;
        Ok(self.device.read_at(offset, buf)?)
    }

    fn page(&self, number: u64) -> Result<Arc<[u8]>> {
        if let Some(bytes) = self.cache.borrow_mut().get(number) {
            return Ok(bytes);
        }
        let start = number * PAGE;
        let mut bytes = vec![0; to_usize(PAGE.min(self.size - start))];
        self.device.read_at(start, &mut bytes)?;
        let bytes: Arc<[u8]> = bytes.into();
        self.cache.borrow_mut().insert(number, bytes.clone());
        Ok(bytes)
    }

    /// Writes bytes, to be on the device in the given step of the commit.
    pub fn write(&mut self, offset: u64, bytes: impl Into<Arc<[u8]>>, step: Step) -> Result<()> {
        let bytes = bytes.into();
        self.check(offset, bytes.len())?;
        let range = offset..offset + to_u64(bytes.len());
        let before = self.pending.insert(offset, bytes, step);
        self.note(range, before);
        Ok(())
    }

    /// Forgets what was to be written to a range, which is free now.
    pub fn forget(&mut self, range: Range<u64>) {
        let before = self.pending.remove(range.clone());
        self.note(range, before);
    }

    fn note(&mut self, range: Range<u64>, before: Vec<(u64, Piece)>) {
        if self.depth > 0 {
            self.undo.push(Undo { range, before });
        }
    }

    /// Starts an attempt, which can be taken back. Attempts nest.
    pub fn begin(&mut self) -> usize {
        self.depth += 1;
        self.undo.len()
    }

    /// Ends the innermost attempt and keeps its changes.
    pub fn keep(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.depth == 0 {
            self.undo.clear();
        }
    }

    /// Ends the innermost attempt, which began at `mark`, and takes its changes back.
    pub fn roll_back(&mut self, mark: usize) {
        while self.undo.len() > mark {
            let Some(undo) = self.undo.pop() else { break };
            self.pending.remove(undo.range);
            self.pending.restore(undo.before);
        }
        self.depth = self.depth.saturating_sub(1);
    }

    /// The writes that wait.
    pub fn pending(&self) -> &Pieces {
        &self.pending
    }

    /// Forgets what waited: it is on the device now.
    pub fn committed(&mut self) {
        let mut written = BTreeSet::new();
        for (offset, piece) in self.pending.iter() {
            let end = offset + to_u64(piece.bytes().len());
            written.extend(offset / PAGE..end.div_ceil(PAGE));
        }
        self.cache.borrow_mut().retain(|number| !written.contains(&number));
        self.pending.clear();
    }
}
