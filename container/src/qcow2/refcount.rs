//! Refcounts: the table, its blocks, and the search for free clusters.
//!
//! In memory a refcount only grows until the commit: what is given up goes into a list, and the
//! commit counts it down after nothing on disk refers to it any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use super::error::{Error, Result};
use super::layout::{Geometry, MAX_OFFSET, MAX_REFCOUNT_TABLE_BYTES, REFCOUNT_OFFSET_MASK};
use super::metadata::Metadata;
use super::width;
use crate::file::GrowableDevice;

/// A refcount block in memory.
#[derive(Debug)]
pub(crate) struct Block {
    /// Its offset in the file, in bytes.
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
    /// Bytes that differ from those on disk.
    pub(crate) dirty: Option<Range<usize>>,
    /// Nothing on disk refers to it yet.
    pub(crate) fresh: bool,
    used: u64,
}

/// The result of a search for free clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Clusters from this number on; they now have the refcount one.
    At(u64),
    /// The refcount table is full.
    TableFull,
}

/// The refcounts of an image that is open for writing.
#[derive(Debug)]
pub(crate) struct Refcounts {
    geo: Geometry,
    /// The offset of the table in the file, in bytes.
    pub(crate) table_offset: u64,
    pub(crate) table: Vec<u64>,
    /// Entries of the table that differ from those on disk.
    pub(crate) table_dirty: BTreeSet<u64>,
    pub(crate) blocks: HashMap<u64, Block>,
    /// Clusters to count down when nothing on disk refers to them, and by how much.
    pub(crate) pending: BTreeMap<u64, u64>,
    /// The clusters that hold tables.
    pub(crate) metadata: Metadata,
    /// No cluster below this number is free.
    hint: u64,
    clock: u64,
    /// Most clean blocks to keep.
    keep: usize,
    dirty_blocks: usize,
}

impl Refcounts {
    /// Reads the table at `offset`, of `clusters` clusters; the blocks are read when needed, and
    /// `cache` bytes of them are kept.
    pub(crate) fn load(
        file: &dyn GrowableDevice,
        geo: Geometry,
        offset: u64,
        clusters: u64,
        cache: u64,
    ) -> Result<Self> {
        let table = read_table(file, geo, offset, clusters)?;
        let mut metadata = Metadata::default();
        metadata.range(offset / geo.cluster_size(), clusters);
        for entry in table.iter().filter(|entry| **entry != 0) {
            metadata.single(entry / geo.cluster_size());
        }
        Ok(Self {
            geo,
            table_offset: offset,
            table,
            table_dirty: BTreeSet::new(),
            blocks: HashMap::new(),
            pending: BTreeMap::new(),
            metadata,
            hint: 0,
            clock: 0,
            keep: (cache / geo.cluster_size()).max(2) as usize,
            dirty_blocks: 0,
        })
    }

    /// Bytes that wait for the commit.
    pub(crate) fn waiting(&self) -> u64 {
        self.dirty_blocks as u64 * self.geo.cluster_size() + self.pending.len() as u64 * 48
    }

    /// Whether a commit has anything to write.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty_blocks > 0 || !self.table_dirty.is_empty() || !self.pending.is_empty()
    }

    /// The commit has written every block and the table.
    pub(crate) fn all_clean(&mut self) {
        for block in self.blocks.values_mut() {
            block.dirty = None;
            block.fresh = false;
        }
        self.table_dirty.clear();
        self.dirty_blocks = 0;
    }

    /// Clusters that the table can describe.
    pub(crate) fn covered(&self) -> u64 {
        self.table.len() as u64 * self.geo.refcounts_per_block()
    }

    fn position(&self, cluster: u64) -> (u64, usize) {
        let per_block = self.geo.refcounts_per_block();
        (cluster / per_block, (cluster % per_block) as usize)
    }

    /// Block number `index`, read if need be; `None` when there is none.
    fn block(&mut self, file: &dyn GrowableDevice, index: u64) -> Result<Option<&mut Block>> {
        let offset = self.table.get(index as usize).copied().unwrap_or(0);
        if offset == 0 {
            return Ok(None);
        }
        self.clock += 1;
        if !self.blocks.contains_key(&index) {
            self.make_room();
            let mut bytes = vec![0; self.geo.cluster_size() as usize];
            super::read_padded(file, offset, &mut bytes, "refcount block")?;
            let block = Block { offset, bytes, dirty: None, fresh: false, used: 0 };
            self.blocks.insert(index, block);
        }
        let clock = self.clock;
        if let Some(block) = self.blocks.get_mut(&index) {
            block.used = clock;
        }
        Ok(self.blocks.get_mut(&index))
    }

    /// Lets go of the older half of the clean blocks while there are too many.
    fn make_room(&mut self) {
        while self.blocks.len() >= self.keep + self.dirty_blocks {
            let before = self.blocks.len();
            let clean = self.blocks.values().filter(|block| block.dirty.is_none() && !block.fresh);
            let mut ages: Vec<u64> = clean.map(|block| block.used).collect();
            ages.sort_unstable();
            let middle = ages.get(ages.len() / 2).copied().unwrap_or(0);
            self.blocks
                .retain(|_, block| block.dirty.is_some() || block.fresh || block.used > middle);
            if self.blocks.len() == before {
                return;
            }
        }
    }

    /// The refcount of `cluster`, without what waits in the list.
    pub(crate) fn get(&mut self, file: &dyn GrowableDevice, cluster: u64) -> Result<u64> {
        let (index, within) = self.position(cluster);
        let order = self.geo.refcount_order;
        Ok(self.block(file, index)?.map_or(0, |block| width::get(&block.bytes, within, order)))
    }

    /// Sets the refcount of a cluster whose block exists.
    fn set(&mut self, file: &dyn GrowableDevice, cluster: u64, value: u64) -> Result<()> {
        let (index, within) = self.position(cluster);
        let order = self.geo.refcount_order;
        let Some(block) = self.block(file, index)? else {
            let at = cluster.saturating_mul(self.geo.cluster_size());
            return Err(Error::corrupt("refcount table", at, "no block for this cluster"));
        };
        width::set(&mut block.bytes, within, order, value);
        let bytes = width::bytes_of(within, order);
        let first = block.dirty.is_none();
        block.dirty = Some(match &block.dirty {
            Some(dirty) => dirty.start.min(bytes.start)..dirty.end.max(bytes.end),
            None => bytes,
        });
        self.dirty_blocks += usize::from(first);
        Ok(())
    }

    /// A table of `count` neighbouring free clusters, or one cluster; each has the refcount one
    /// from now on.
    pub(crate) fn find(&mut self, file: &dyn GrowableDevice, count: u64) -> Result<Found> {
        let per_block = self.geo.refcounts_per_block();
        let (mut cluster, mut run) = (self.hint, 0);
        while cluster < self.covered() {
            let (index, within) = self.position(cluster);
            let order = self.geo.refcount_order;
            let Some(block) = self.block(file, index)? else {
                // A new block describes itself, so that it needs no other.
                self.add_block(file, index, cluster)?;
                (cluster, run) = (cluster + 1, 0);
                continue;
            };
            // The rest of this block, as far as needed.
            let mut at = within;
            while at < per_block as usize && run < count {
                run = if width::get(&block.bytes, at, order) == 0 { run + 1 } else { 0 };
                at += 1;
            }
            cluster += (at - within) as u64;
            if run == count {
                let first = cluster - count;
                return self.take(file, first, count).map(|()| Found::At(first));
            }
            if count == 1 {
                self.hint = cluster;
            }
        }
        Ok(Found::TableFull)
    }

    fn take(&mut self, file: &dyn GrowableDevice, first: u64, count: u64) -> Result<()> {
        let size = self.geo.cluster_size();
        let end = (first + count).checked_mul(size).filter(|end| *end <= MAX_OFFSET);
        let Some(end) = end else {
            return Err(Error::TooLarge { what: "the file".into(), limit: "64 PiB".into() });
        };
        for cluster in first..first + count {
            if self.metadata.contains(cluster) {
                let detail = "a table is there, and its refcount is 0; run qemu-img check -r all";
                return Err(Error::corrupt("refcount", cluster * size, detail));
            }
        }
        super::ensure_len(file, end)?;
        for cluster in first..first + count {
            self.set(file, cluster, 1)?;
        }
        if count == 1 || first == self.hint {
            self.hint = first + count;
        }
        Ok(())
    }

    /// A new, empty block number `index` in `cluster`, which is one of those it describes.
    fn add_block(&mut self, file: &dyn GrowableDevice, index: u64, cluster: u64) -> Result<()> {
        let offset = cluster.saturating_mul(self.geo.cluster_size());
        if offset >= MAX_OFFSET {
            return Err(Error::TooLarge { what: "the file".into(), limit: "64 PiB".into() });
        }
        if self.metadata.contains(cluster) {
            let detail = "a table is there, and its refcount is 0; run qemu-img check -r all";
            return Err(Error::corrupt("refcount", offset, detail));
        }
        super::ensure_len(file, offset + self.geo.cluster_size())?;
        self.make_room();
        let bytes = vec![0; self.geo.cluster_size() as usize];
        let block = Block { offset, bytes, dirty: None, fresh: true, used: self.clock };
        self.blocks.insert(index, block);
        self.table[index as usize] = offset;
        self.table_dirty.insert(index);
        self.metadata.add(cluster);
        self.set(file, cluster, 1)
    }

    /// Makes sure that `cluster` may be given up: it is no table and is counted often enough.
    pub(crate) fn may_free(&mut self, file: &dyn GrowableDevice, cluster: u64) -> Result<()> {
        let at = cluster.saturating_mul(self.geo.cluster_size());
        if self.metadata.contains(cluster) {
            let detail = "guest data and one of the image's own tables share this cluster";
            return Err(Error::corrupt("L2 entry", at, detail));
        }
        self.counted(file, cluster)
    }

    fn counted(&mut self, file: &dyn GrowableDevice, cluster: u64) -> Result<()> {
        if self.get(file, cluster)? > self.pending.get(&cluster).copied().unwrap_or(0) {
            return Ok(());
        }
        let detail = "a cluster in use has too low a refcount; run qemu-img check -r all";
        let at = cluster.saturating_mul(self.geo.cluster_size());
        Err(Error::corrupt("refcount", at, detail))
    }

    /// Counts `cluster` down at the end of the next commit. [`Refcounts::may_free`] was asked, or
    /// the cluster is a table that moved.
    pub(crate) fn free_later(&mut self, cluster: u64) {
        *self.pending.entry(cluster).or_insert(0) += 1;
    }

    /// Counts down all that waits. Nothing on disk refers to it any more.
    pub(crate) fn free_now(&mut self, file: &dyn GrowableDevice) -> Result<()> {
        for (cluster, times) in std::mem::take(&mut self.pending) {
            let left = self.get(file, cluster)?.saturating_sub(times);
            self.set(file, cluster, left)?;
            if left == 0 {
                self.metadata.remove(cluster);
                self.hint = self.hint.min(cluster);
            }
        }
        Ok(())
    }

    /// Replaces the full table by one in `table_offset`; the caller has written all of it.
    pub(crate) fn moved(&mut self, table_offset: u64, table: Vec<u64>, new: Range<u64>) {
        let size = self.geo.cluster_size();
        let old =
            self.table_offset / size..(self.table_offset + self.table.len() as u64 * 8) / size;
        for cluster in old {
            self.free_later(cluster);
        }
        for cluster in new {
            self.metadata.add(cluster);
        }
        self.table_offset = table_offset;
        self.table = table;
    }
}

/// The refcount table: entries aligned, each block once.
pub(crate) fn read_table(
    file: &dyn GrowableDevice,
    geo: Geometry,
    offset: u64,
    clusters: u64,
) -> Result<Vec<u64>> {
    let bytes = clusters * geo.cluster_size();
    if clusters == 0 || bytes > MAX_REFCOUNT_TABLE_BYTES {
        let detail = format!("the refcount table has {clusters} clusters");
        return Err(Error::corrupt("header", 56, detail));
    }
    let inside = offset.checked_add(bytes).is_some_and(|end| end <= file.len());
    if offset == 0 || !geo.is_aligned(offset) || !inside {
        let detail = format!("the refcount table at {offset} is not within the file");
        return Err(Error::corrupt("header", 48, detail));
    }
    let table = super::read_words(file, offset, bytes / 8)?;
    for (index, entry) in table.iter().enumerate() {
        let wrong = entry & REFCOUNT_OFFSET_MASK != *entry
            || !geo.is_aligned(*entry)
            || *entry >= MAX_OFFSET.min(file.len());
        if *entry != 0 && wrong {
            let detail = format!("entry {index} is {entry:#018x}: no block can be there");
            return Err(Error::corrupt("refcount table", offset + index as u64 * 8, detail));
        }
    }
    Ok(table)
}
