//! Buffers between the engine and the device: a bounded cache, and everything that was changed.
//!
//! XFS reads and writes its metadata in buffers of several sizes (a sector, a block, a block of a
//! directory). A buffer is known by its address, and always has the same size.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::units::Daddr;
use crate::cache::Cache;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};
use crate::ranges::Ranges;

/// The content of a buffer.
pub type Bytes = Arc<[u8]>;

/// Most bytes of metadata that are kept in memory although they were not changed.
const CACHE_BYTES: usize = 8 << 20;

/// The content of a buffer, as the log names it (`XFS_BLFT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BufferType {
    Btree = 4,
    Agf = 5,
    Agfl = 6,
    Agi = 7,
    Inodes = 8,
    Symlink = 9,
    DirBlock = 10,
    DirData = 11,
    DirFree = 12,
    DirLeaf1 = 13,
    DirLeafN = 14,
    DaNode = 15,
    AttrLeaf = 16,
    AttrRemote = 17,
    Superblock = 18,
}

impl BufferType {
    /// Its number in the log.
    #[allow(clippy::as_conversions)]
    pub fn code(self) -> u16 {
        // The numbers above are those of the log, and all of them fit.
        self as u16
    }
}

/// A changed buffer.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The content now.
    pub bytes: Bytes,
    /// Its content.
    pub buffer_type: BufferType,
}

/// A change that can be taken back.
enum Undo {
    Meta(Daddr, Option<Changed>),
    Data(Daddr, Option<Bytes>),
}

/// The buffers of one file system.
pub struct Store {
    device: Arc<dyn BlockDevice>,
    /// Bytes in a block: the unit of file content.
    block_size: usize,
    cache: RefCell<Cache<Bytes>>,
    meta: BTreeMap<Daddr, Changed>,
    data: BTreeMap<Daddr, Bytes>,
    /// Blocks that were free before: until the commit nothing refers to them, so that they are written without
    /// the log.
    fresh: Ranges,
    undo: Vec<(Vec<Undo>, Ranges)>,
}

impl Store {
    /// A store over a device.
    pub fn new(device: Arc<dyn BlockDevice>, block_size: usize) -> Self {
        Self {
            device,
            block_size,
            cache: RefCell::new(Cache::new((CACHE_BYTES / block_size.max(512)).max(64))),
            meta: BTreeMap::new(),
            data: BTreeMap::new(),
            fresh: Ranges::default(),
            undo: Vec::new(),
        }
    }

    /// The device below.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.device
    }

    /// The buffer of `length` bytes at `at`. Bytes from the device go through `check`.
    pub fn read(
        &self,
        at: Daddr,
        length: usize,
        check: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<Bytes> {
        if let Some(changed) = self.meta.get(&at) {
            return if changed.bytes.len() == length {
                check(&changed.bytes)?;
                Ok(changed.bytes.clone())
            } else {
                Err(Error::corrupt(
                    "block pointer",
                    format!("sector {at}"),
                    "it is used as two kinds of structure",
                ))
            };
        }
        if let Some(bytes) = self.cache.borrow_mut().get(at.0)
            && bytes.len() == length
        {
            // Of one place two kinds may be asked for, so a cached buffer is checked, too.
            check(&bytes)?;
            return Ok(bytes);
        }
        let mut bytes = vec![0; length];
        self.device.read_at(at.byte(), &mut bytes)?;
        check(&bytes)?;
        let bytes: Bytes = bytes.into();
        self.cache.borrow_mut().insert(at.0, bytes.clone());
        Ok(bytes)
    }

    /// Changes a buffer.
    pub fn write(&mut self, at: Daddr, buffer_type: BufferType, bytes: Vec<u8>) {
        let old = self.meta.insert(at, Changed { bytes: bytes.into(), buffer_type });
        if let Some((frame, _)) = self.undo.last_mut() {
            frame.push(Undo::Meta(at, old));
        }
    }

    /// Reads file content, whole blocks.
    pub fn read_data(&self, at: Daddr, buf: &mut [u8]) -> Result<()> {
        self.device.read_at(at.byte(), buf)?;
        let end = Daddr(at.0 + to_u64(buf.len() / 512));
        for (place, bytes) in self.data.range(at..end) {
            let start = to_usize((place.0 - at.0) * 512);
            if let Some(part) = buf.get_mut(start..start + bytes.len()) {
                part.copy_from_slice(bytes);
            }
        }
        Ok(())
    }

    /// Writes file content to blocks that were free before, whole blocks.
    pub fn write_data(&mut self, at: Daddr, content: &[u8]) {
        let step = to_u64(self.block_size / 512);
        for (index, block) in content.chunks(self.block_size).enumerate() {
            let place = Daddr(at.0 + to_u64(index) * step);
            let old = self.data.insert(place, block.into());
            if let Some((frame, _)) = self.undo.last_mut() {
                frame.push(Undo::Data(place, old));
            }
        }
    }

    /// Notes that sectors were free before this run, and are given out now.
    pub fn set_fresh(&mut self, sectors: Range<u64>) {
        self.fresh.insert(sectors);
    }

    /// Whether a place was free before this run.
    pub fn is_fresh(&self, at: Daddr) -> bool {
        self.fresh.contains(at.0)
    }

    /// Forgets what was to be written to sectors that are free again.
    pub fn forget(&mut self, sectors: Range<u64>) {
        let range = Daddr(sectors.start)..Daddr(sectors.end);
        let meta: Vec<Daddr> = self.meta.range(range.clone()).map(|(&at, _)| at).collect();
        for at in meta {
            let old = self.meta.remove(&at);
            if let Some((frame, _)) = self.undo.last_mut() {
                frame.push(Undo::Meta(at, old));
            }
        }
        let data: Vec<Daddr> = self.data.range(range).map(|(&at, _)| at).collect();
        for at in data {
            let old = self.data.remove(&at);
            if let Some((frame, _)) = self.undo.last_mut() {
                frame.push(Undo::Data(at, old));
            }
        }
    }

    /// Starts an attempt: what follows can be taken back together. Attempts nest.
    pub fn begin(&mut self) {
        self.undo.push((Vec::new(), self.fresh.clone()));
    }

    /// Ends the innermost attempt and keeps its changes.
    pub fn keep(&mut self) {
        let Some((inner, _)) = self.undo.pop() else { return };
        if let Some((outer, _)) = self.undo.last_mut() {
            outer.extend(inner);
        }
    }

    /// Ends the innermost attempt and takes its changes back.
    pub fn roll_back(&mut self) {
        let Some((changes, fresh)) = self.undo.pop() else { return };
        for change in changes.into_iter().rev() {
            match change {
                Undo::Meta(at, Some(old)) => {
                    self.meta.insert(at, old);
                }
                Undo::Meta(at, None) => {
                    self.meta.remove(&at);
                }
                Undo::Data(at, Some(old)) => {
                    self.data.insert(at, old);
                }
                Undo::Data(at, None) => {
                    self.data.remove(&at);
                }
            }
        }
        self.fresh = fresh;
    }

    /// Changed buffers in order.
    pub fn changed(&self) -> impl Iterator<Item = (Daddr, &Changed)> {
        self.meta.iter().map(|(&at, changed)| (at, changed))
    }

    /// File content that waits.
    pub fn data(&self) -> impl Iterator<Item = (Daddr, &Bytes)> {
        self.data.iter().map(|(&at, bytes)| (at, bytes))
    }

    /// Whether anything waits.
    pub fn is_dirty(&self) -> bool {
        !self.meta.is_empty() || !self.data.is_empty()
    }

    /// Marks everything as written.
    pub fn committed(&mut self) {
        let meta = std::mem::take(&mut self.meta);
        self.data.clear();
        self.fresh = Ranges::default();
        self.cache.borrow_mut().retain(|at| !meta.contains_key(&Daddr(at)));
        // A freed block may have been cached as something else.
        self.cache.borrow_mut().retain(|_| false);
    }
}
