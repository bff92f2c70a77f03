//! qcow2 images, versions 2 and 3: read and changed in place.
//!
//! # The order of writes
//! Data that needs new clusters goes into free ones at once; nothing refers to them yet. Changed
//! tables stay in memory until [`flush`](snf_fs::BlockDevice::flush) (or until 16 MiB of them
//! wait). Then they are written in four steps, with a flush of the file after the second and the
//! third, and after the first where refcount blocks are new:
//!
//! 1. new L2 tables and new refcount blocks, into free clusters;
//! 2. refcounts of what is newly used, and the refcount table;
//! 3. L2 entries and the L1 table: the switch;
//! 4. refcounts of what is not used any more.
//!
//! So nothing that the tables on disk refer to ever has the refcount 0, and a cut at any moment
//! leaves at worst clusters that are counted and not used. A cluster that the disk alone uses is
//! overwritten where it is, as on a raw disk.
//!
//! The specification is QEMU's docs/interop/qcow2.rst.

mod backing;
mod bitmaps;
mod check;
mod commit;
mod compressed;
mod create;
mod discard;
mod entry;
mod error;
mod extensions;
mod extent;
mod header;
mod image;
mod layout;
mod metadata;
mod read;
mod refcount;
mod resize;
mod snapshots;
mod tables;
mod width;
mod write;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use snf_fs::{BlockDevice, DeviceError};

pub use backing::{Backing, BackingFile, BackingFormat, DirectoryResolver, Resolver};
pub use check::{CheckReport, Finding};
pub use create::{CreateOptions, create};
pub use error::{Error, Result};
pub use extent::Extent;
pub use header::virtual_size;
pub use image::Options;
pub use snapshots::Snapshot;

use crate::file::GrowableDevice;
use image::Image;

/// An open qcow2 image: the virtual disk in it.
///
/// Dropping it does not flush: changes since the last flush are lost as in a cut.
pub struct Qcow2 {
    image: Mutex<Image>,
}

impl fmt::Debug for Qcow2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Qcow2").finish_non_exhaustive()
    }
}

impl Qcow2 {
    /// Opens the image in `file`. Nothing is written before the first change.
    ///
    /// # Errors
    /// The file is no qcow2 image, or damaged, or uses what cannot be handled: the message names it
    /// and says what to do.
    pub fn open(file: impl GrowableDevice + 'static, options: Options) -> Result<Self> {
        Ok(Self { image: Mutex::new(Image::open(Box::new(file), options)?) })
    }

    fn lock(&self) -> MutexGuard<'_, Image> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size of a cluster in bytes.
    pub fn cluster_size(&self) -> u64 {
        self.lock().geo.cluster_size()
    }

    /// The internal snapshots, oldest first as the image lists them.
    ///
    /// # Errors
    /// The snapshot table is damaged.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        self.lock().list_snapshots()
    }

    /// Makes `length` bytes from `offset` read as zeros and gives up the clusters that lie wholly
    /// within.
    ///
    /// # Errors
    /// The range ends beyond the disk, the image is open for reading, or the device failed.
    pub fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.lock().discard(offset, length)
    }

    /// How far the disk is of one kind, zeros or data, from `offset` on and within `length` bytes.
    /// The backing file's content counts as data.
    ///
    /// # Errors
    /// The range ends beyond the disk, a table is damaged, or the device failed.
    pub fn extent(&self, offset: u64, length: u64) -> Result<Extent> {
        self.lock().extent(offset, length)
    }

    /// Reads the disk in order, from `offset` on: fills the beginning of `buf` with data up to the
    /// next zeros, or, where zeros are, says how many and leaves `buf` as it is. The length is 0 at
    /// the end of the disk only. Compressed clusters are decompressed on several threads.
    ///
    /// # Errors
    /// The offset is beyond the disk, a table or a cluster is damaged, or the device failed.
    pub fn read_extent(&self, offset: u64, buf: &mut [u8]) -> Result<Extent> {
        self.lock().read_extent(offset, buf)
    }

    /// Makes the disk `size` bytes long; it can only grow. The new part reads as zeros. All that
    /// was written before is durable afterwards.
    ///
    /// # Errors
    /// The size is smaller than now or beyond the format's limit, the image has bitmaps or (in
    /// version 2) snapshots, it is open for reading, or the device failed.
    pub fn grow(&self, size: u64) -> Result<()> {
        self.lock().grow(size)
    }

    /// Whether [`Qcow2::grow`] would refuse this size.
    ///
    /// # Errors
    /// As [`Qcow2::grow`], before anything is written.
    pub fn check_grow(&self, size: u64) -> Result<()> {
        self.lock().check_grow(size)
    }

    /// Looks for clusters that are used and not counted (errors), or counted and not used (leaks).
    /// Pending changes are written first.
    ///
    /// # Errors
    /// The device failed, or the image is too large to be checked with bounded memory and time.
    pub fn check(&self) -> Result<CheckReport> {
        self.lock().check()
    }
}

impl BlockDevice for Qcow2 {
    fn len(&self) -> u64 {
        self.lock().size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let length = buf.len();
        self.lock().read(offset, buf).map_err(|e| e.into_device("read", offset, length))
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.lock().write(offset, buf).map_err(|e| e.into_device("write", offset, buf.len()))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.lock().flush().map_err(|e| e.into_device("flush", 0, 0))
    }
}

/// Words of 64 bits from bytes.
fn words(bytes: &[u8]) -> Vec<u64> {
    let (chunks, _) = bytes.as_chunks::<8>();
    chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect()
}

/// Bytes of words of 64 bits.
fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Reads `count` words from `offset`, in pieces, so that they are not in memory twice.
fn read_words(file: &dyn GrowableDevice, offset: u64, count: u64) -> Result<Vec<u64>> {
    const PIECE: u64 = 8192;
    let mut all = Vec::with_capacity(count as usize);
    let mut piece = vec![0; (PIECE.min(count) * 8) as usize];
    let mut done = 0;
    while done < count {
        let now = PIECE.min(count - done);
        let buf = &mut piece[..(now * 8) as usize];
        file.read_at(offset + done * 8, buf)?;
        let (chunks, _) = buf.as_chunks::<8>();
        all.extend(chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)));
        done += now;
    }
    Ok(all)
}

/// Reads `buf` from `offset`. The file may end within a cluster: the rest is zeros.
fn read_padded(
    file: &dyn GrowableDevice,
    offset: u64,
    buf: &mut [u8],
    structure: &'static str,
) -> Result<()> {
    let size = file.len();
    let there = size.saturating_sub(offset).min(buf.len() as u64) as usize;
    if there == 0 && !buf.is_empty() {
        let detail = format!("the file has {size} bytes; it is truncated or damaged");
        return Err(Error::corrupt(structure, offset, detail));
    }
    file.read_at(offset, &mut buf[..there])?;
    buf[there..].fill(0);
    Ok(())
}

/// Makes the file at least `end` bytes long.
fn ensure_len(file: &dyn GrowableDevice, end: u64) -> Result<()> {
    if file.len() < end {
        file.set_len(end)?;
    }
    Ok(())
}
