//! An open image: its parts, and what must be right before it is used.

use std::sync::Arc;

use snf_fs::BlockDevice;

use super::backing::{self, Backing, BackingFormat};
use super::bitmaps::{self, Bitmap};
use super::compressed::Decoder;
use super::entry::{self, Mapping};
use super::error::{Error, Result};
use super::extensions::Extensions;
use super::header::Header;
use super::layout::{AUTOCLEAR_BITMAPS, COPIED, Geometry, OFFSET_MASK, incompatible};
use super::refcount::{Found, Refcounts};
use super::tables::Tables;
use crate::file::GrowableDevice;

/// Bytes of tables that are kept in memory unless the caller says otherwise.
const DEFAULT_CACHE: u64 = 16 << 20;
/// Bytes of changed tables that may wait for a commit.
const MOST_WAITING: u64 = 16 << 20;

/// How an image is opened.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Whether it may be changed.
    pub writable: bool,
    /// Bytes of L2 tables, and as many of refcount blocks, that are kept in memory. On top come the
    /// L1 table (at most 32 MiB), the refcount table (at most 8 MiB), 16 MiB of changes and
    /// buffers of a few clusters.
    pub cache: u64,
    /// Whether the file may be opened that the image names as its backing file.
    pub backing: Backing,
    /// The format of that file, if the caller knows better than the image.
    pub backing_format: Option<BackingFormat>,
    pub(crate) depth: u32,
}

impl Options {
    /// For reading; a backing file is refused.
    pub fn read_only() -> Self {
        Self {
            writable: false,
            cache: DEFAULT_CACHE,
            backing: Backing::Refuse,
            backing_format: None,
            depth: 0,
        }
    }

    /// For reading and writing; a backing file is refused.
    pub fn writable() -> Self {
        Self { writable: true, ..Self::read_only() }
    }

    /// The same, with this answer about backing files.
    #[must_use]
    pub fn backing(mut self, backing: Backing) -> Self {
        self.backing = backing;
        self
    }

    /// The same, with this format of the backing file.
    #[must_use]
    pub fn backing_format(mut self, format: BackingFormat) -> Self {
        self.backing_format = Some(format);
        self
    }

    /// The same, with this many bytes of cache.
    #[must_use]
    pub fn cache(mut self, bytes: u64) -> Self {
        self.cache = bytes;
        self
    }
}

/// An open image.
pub(crate) struct Image {
    pub(crate) file: Box<dyn GrowableDevice>,
    pub(crate) geo: Geometry,
    pub(crate) header: Header,
    pub(crate) extensions: Extensions,
    /// Size of the virtual disk in bytes.
    pub(crate) size: u64,
    pub(crate) tables: Tables,
    /// Only of an image that is open for writing.
    pub(crate) refcounts: Option<Refcounts>,
    pub(crate) backing: Option<Arc<dyn BlockDevice>>,
    pub(crate) decoder: Decoder,
    /// A commit failed: memory and file may differ in unknown ways.
    pub(crate) failed: bool,
    /// The marks that a first change makes are set.
    marked: bool,
}

impl Image {
    pub(crate) fn open(file: Box<dyn GrowableDevice>, options: Options) -> Result<Self> {
        let (header, extensions) = Header::read(&*file)?;
        let geo = header.geometry;
        if options.writable && header.incompatible() & incompatible::DIRTY != 0 {
            return Err(Error::Marked { mark: "dirty" });
        }
        let backing = backing::open(&header, extensions.backing_format.as_deref(), &options)?;
        let (l1_offset, l1_size) = (header.raw.l1_table_offset.get(), header.raw.l1_size.get());
        let tables = Tables::load(&*file, geo, l1_offset, l1_size.into(), options.cache)?;
        let mut image = Self {
            size: header.raw.size.get(),
            decoder: Decoder::new(header.zstd),
            file,
            geo,
            header,
            extensions,
            tables,
            refcounts: None,
            backing,
            failed: false,
            marked: false,
        };
        if options.writable {
            image.refcounts = Some(image.load_refcounts(options.cache)?);
        }
        Ok(image)
    }

    /// Reads the refcount table and notes where all tables are; two in one place are refused.
    fn load_refcounts(&self, cache: u64) -> Result<Refcounts> {
        let (geo, raw) = (self.geo, &self.header.raw);
        let cluster_size = geo.cluster_size();
        let clusters = raw.refcount_table_clusters.get().into();
        let mut refcounts =
            Refcounts::load(&*self.file, geo, raw.refcount_table_offset.get(), clusters, cache)?;
        let metadata = &mut refcounts.metadata;
        let mut range = |offset: u64, bytes: u64| {
            metadata.range(offset / cluster_size, geo.clusters(bytes));
        };
        range(0, 1);
        range(self.tables.l1_offset, self.tables.l1.len() as u64 * 8);
        let snapshots = self.snapshot_table()?;
        range(raw.snapshots_offset.get(), snapshots.length);
        for snapshot in &snapshots.snapshots {
            range(snapshot.l1_offset, snapshot.l1_size * 8);
        }
        if let Some((bitmaps, directory)) = self.bitmaps() {
            range(directory.0, directory.1);
            for bitmap in bitmaps {
                range(bitmap.table_offset, bitmap.table_size * 8);
            }
        }
        for entry in &self.tables.l1 {
            if entry & OFFSET_MASK != 0 {
                metadata.single((entry & OFFSET_MASK) / cluster_size);
            }
        }
        metadata.seal(cluster_size)?;
        Ok(refcounts)
    }

    /// The bitmaps, and where their directory is: offset and length in bytes. `None` when there are
    /// none or they are not consistent anyway.
    pub(crate) fn bitmaps(&self) -> Option<(Vec<Bitmap>, (u64, u64))> {
        let raw = self.extensions.bitmaps.as_ref()?;
        if self.header.autoclear() & AUTOCLEAR_BITMAPS == 0 {
            return None;
        }
        let bitmaps = bitmaps::directory(&*self.file, self.geo, raw).ok()?;
        let place = (raw.bitmap_directory_offset.get(), raw.bitmap_directory_size.get());
        Some((bitmaps, place))
    }

    /// The image may be changed; before the first change, features that do not know of it are marked.
    pub(crate) fn begin_change(&mut self) -> Result<()> {
        if self.refcounts.is_none() {
            return Err(Error::ReadOnly);
        }
        if self.failed {
            return Err(Error::Failed);
        }
        if self.marked {
            return Ok(());
        }
        let bitmaps = self.bitmaps();
        let known = if bitmaps.is_some() { AUTOCLEAR_BITMAPS } else { 0 };
        let mut written = match &bitmaps {
            Some((bitmaps, _)) => bitmaps::mark_in_use(&*self.file, bitmaps)?,
            None => false,
        };
        let clear = self.header.autoclear() & !known;
        if let Some(raw3) = self.header.raw3.as_mut().filter(|_| clear != 0) {
            raw3.autoclear_features.set(known & raw3.autoclear_features.get());
            self.header.write(&*self.file)?;
            written = true;
        }
        if written {
            self.file.flush()?;
        }
        self.marked = true;
        Ok(())
    }

    /// Refuses a range that ends beyond the disk.
    pub(crate) fn check_range(&self, offset: u64, length: u64) -> Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::OutOfBounds { offset, length, size: self.size }),
        }
    }

    /// Table number and entry number of a guest cluster.
    pub(crate) fn position(&self, cluster: u64) -> (u64, u64) {
        let entries = self.geo.l2_entries();
        (cluster / entries, cluster % entries)
    }

    /// The place of guest cluster `cluster`.
    pub(crate) fn mapping(&mut self, cluster: u64) -> Result<Mapping> {
        let (index, within) = self.position(cluster);
        match self.tables.entry(&*self.file, index, within)? {
            Some((first, second)) => entry::decode(self.geo, cluster, first, second),
            None => Ok(Mapping::UNALLOCATED),
        }
    }

    /// Whether the backing file has bytes from `offset` on.
    pub(crate) fn backed(&self, offset: u64) -> bool {
        self.backing.as_ref().is_some_and(|backing| offset < backing.len())
    }

    /// The refcounts of an image that is open for writing, with the file.
    pub(crate) fn counting(&mut self) -> Result<(&mut Refcounts, &dyn GrowableDevice)> {
        match &mut self.refcounts {
            Some(refcounts) => Ok((refcounts, &*self.file)),
            None => Err(Error::ReadOnly),
        }
    }

    /// `count` neighbouring free clusters, counted once from now on; the first one's offset in
    /// bytes. A full refcount table is replaced by a larger one.
    pub(crate) fn allocate(&mut self, count: u64) -> Result<u64> {
        loop {
            let (refcounts, file) = self.counting()?;
            match refcounts.find(file, count)? {
                Found::At(first) => return Ok(first * self.geo.cluster_size()),
                Found::TableFull => self.grow_refcount_table()?,
            }
        }
    }

    /// Writes what waits when it becomes too much.
    pub(crate) fn bound_memory(&mut self) -> Result<()> {
        let counts = self.refcounts.as_ref().map_or(0, Refcounts::waiting);
        if self.tables.waiting() + counts > MOST_WAITING {
            self.commit()?;
        }
        Ok(())
    }

    /// The table for guest clusters of number `index`, made or copied so that it may be changed
    /// where it is.
    pub(crate) fn own_table(&mut self, index: u64) -> Result<()> {
        let l1_entry = self.tables.l1.get(index as usize).copied();
        let Some(l1_entry) = l1_entry else {
            return Err(Error::Invalid("a guest cluster beyond the level 1 table"));
        };
        let geo = self.geo;
        let old = self.tables.get(&*self.file, index)?.map(|table| (table.offset, table.fresh));
        if let Some((offset, fresh)) = old {
            if fresh {
                return Ok(());
            }
            let (refcounts, file) = self.counting()?;
            let count = refcounts.get(file, offset / geo.cluster_size())?;
            if count == 0 {
                let detail = "the table's refcount is 0; run qemu-img check -r all";
                return Err(Error::corrupt("L2 table", offset, detail));
            }
            if count == 1 && l1_entry & COPIED != 0 {
                return Ok(());
            }
        }
        let offset = self.allocate(1)?;
        // Allocating may have written everything and let the table go: it is read again.
        let words = match self.tables.get(&*self.file, index)? {
            Some(table) => table.words.clone(),
            None => vec![0; (geo.cluster_size() / 8) as usize],
        };
        self.tables.replace(index, offset, offset | COPIED, words);
        let (refcounts, _) = self.counting()?;
        refcounts.metadata.add(offset / geo.cluster_size());
        if let Some((old, _)) = old {
            refcounts.free_later(old / geo.cluster_size());
        }
        Ok(())
    }
}
