//! The ground of everything else: superblock, buffers, the clock, and the extents to be freed.

use std::sync::Arc;

use super::free::Freed;
use super::store::{BufferType, Store};
use super::superblock::Superblock;
use super::units::Daddr;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::filesystem::Timestamp;
use crate::num::{low32, to_u64};

/// Time and randomness for an engine, which asks neither the clock nor the kernel itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The time that new and changed nodes get.
    pub now: Timestamp,
    /// The seed of new inodes' generations.
    pub seed: u64,
}

/// One XFS.
pub struct Volume {
    /// The superblock. Its counters are brought up to date by the commit.
    pub sb: Superblock,
    /// The buffers.
    pub store: Store,
    /// Time and seed.
    pub options: Options,
    /// Extents that are freed at the commit: until then they hold the old state, and nothing new is
    /// put there.
    pub(super) freed: Vec<Freed>,
    /// Whether blocks that are given out now may be blocks of the old state.
    pub(super) freeing: bool,
    /// Whether a commit failed: what is on the device is then unknown.
    pub(super) failed: bool,
    /// The groups before the file system grew.
    pub(super) grown_from: Option<u32>,
    generation: u64,
}

impl Volume {
    /// Reads and checks the superblock.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Unsupported`] and [`Error::Device`].
    pub fn open(device: Arc<dyn BlockDevice>, options: Options) -> Result<Self> {
        if device.len() < 4096 {
            let detail = format!("the device has only {} bytes", device.len());
            return Err(Error::corrupt("superblock", "sector 0", detail));
        }
        let mut first = vec![0; 4096];
        device.read_at(0, &mut first)?;
        // A sector is 512 bytes to 32 KiB; parse() checks the number.
        let sector = usize::from(super::num::be16(&first, 102));
        if sector > first.len() && sector <= 32_768 && device.len() >= to_u64(sector) {
            first.resize(sector, 0);
            device.read_at(0, &mut first)?;
        }
        let sb = Superblock::parse(&first, device.len())?;
        let store = Store::new(device, sb.block_size());
        Ok(Self {
            sb,
            store,
            options,
            freed: Vec::new(),
            freeing: false,
            failed: false,
            grown_from: None,
            generation: options.seed,
        })
    }

    /// Runs `work`; when it fails, what it changed is taken back. Attempts nest.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (sb, freed, generation) = (self.sb.clone(), self.freed.clone(), self.generation);
        let grown_from = self.grown_from;
        self.store.begin();
        let result = work(self);
        if result.is_ok() {
            self.store.keep();
        } else {
            self.store.roll_back();
            self.sb = sb;
            self.freed = freed;
            self.freeing = false;
            self.grown_from = grown_from;
            self.generation = generation;
        }
        result
    }

    /// A number for `di_gen` of a new inode (splitmix64).
    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.generation;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        low32(z ^ (z >> 31))
    }

    /// Puts the superblock among the changed buffers.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(super) fn store_superblock(&mut self) -> Result<()> {
        let at = Daddr(0);
        let mut bytes = self.store.read(at, self.sb.sector_size(), |_| Ok(()))?.to_vec();
        self.sb.write_to(&mut bytes);
        self.store.write(at, BufferType::Superblock, bytes);
        Ok(())
    }

    /// # Errors
    /// [`Error::ReadOnly`] when the file system is only read.
    pub(super) fn check_writable(&self) -> Result<()> {
        if self.failed {
            return Err(Error::ReadOnly("a commit of it failed".into()));
        }
        self.sb.why_read_only().map_or(Ok(()), |why| Err(Error::ReadOnly(why)))
    }
}
