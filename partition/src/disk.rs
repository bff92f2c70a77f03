//! The disk that holds a partition table.

use std::io;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// A disk, addressed in bytes. The crate that has the devices adapts them to this.
pub trait Disk {
    /// Size in bytes.
    fn len(&self) -> u64;
    /// Whether the disk has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Logical sector size in bytes: the unit of the table (512 or 4096).
    fn sector_size(&self) -> u32;
    /// Fills `buf` from `offset`; a read past the end is an error.
    ///
    /// # Errors
    /// The operating system's error, or one for a range that leaves the disk.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `buf` at `offset`; a write past the end is an error.
    ///
    /// # Errors
    /// The operating system's error, or one for a range that leaves the disk.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Returns when all that was written before is on stable storage.
    ///
    /// # Errors
    /// The operating system's error.
    fn flush(&self) -> io::Result<()>;
}

/// Reads `length` bytes at `offset`. The caller has bounded `length`.
pub(crate) fn read_bytes(disk: &dyn Disk, offset: u64, length: usize) -> Result<Vec<u8>> {
    let fits = offset.checked_add(to_u64(length)).is_some_and(|end| end <= disk.len());
    if !fits {
        return Err(Error::Io {
            operation: "read",
            offset,
            length,
            source: io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("beyond the end of the disk ({} bytes)", disk.len()),
            ),
        });
    }
    let mut buf = vec![0; length];
    disk.read_at(offset, &mut buf).map_err(|source| Error::Io {
        operation: "read",
        offset,
        length,
        source,
    })?;
    Ok(buf)
}

/// Like [`read_bytes`], but a disk that ends before gives `None`.
pub(crate) fn read_if_there(
    disk: &dyn Disk,
    offset: u64,
    length: usize,
) -> Result<Option<Vec<u8>>> {
    match offset.checked_add(to_u64(length)) {
        Some(end) if end <= disk.len() => read_bytes(disk, offset, length).map(Some),
        _ => Ok(None),
    }
}

/// A disk in memory, sparse: for tests, and for showing what a plan would make of a disk.
#[derive(Debug)]
pub struct MemoryDisk {
    size: u64,
    sector_size: u32,
    chunks: Mutex<std::collections::BTreeMap<u64, Vec<u8>>>,
}

const CHUNK: u64 = 4096;

impl MemoryDisk {
    /// A disk of zeros.
    pub fn new(size: u64, sector_size: u32) -> Self {
        Self { size, sector_size, chunks: Mutex::default() }
    }

    /// A disk that holds `bytes`.
    pub fn from_bytes(bytes: &[u8], sector_size: u32) -> Self {
        let disk = Self::new(to_u64(bytes.len()), sector_size);
        disk.copy(0, &mut WriteFrom(bytes));
        disk
    }

    /// The same content on a disk of another size; what no longer fits is cut off.
    pub fn resized(&self, size: u64) -> Self {
        let chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let chunks = chunks.into_iter().filter(|(at, _)| *at < size).collect();
        Self { size, sector_size: self.sector_size, chunks: Mutex::new(chunks) }
    }

    fn check(&self, offset: u64, length: usize) -> io::Result<()> {
        match offset.checked_add(to_u64(length)) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the disk")),
        }
    }

    fn copy(&self, offset: u64, direction: &mut dyn Direction) {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < direction.len() {
            let at = offset + to_u64(done);
            let within = to_usize(at % CHUNK);
            let count = (to_usize(CHUNK) - within).min(direction.len() - done);
            direction.chunk(&mut chunks, at - to_u64(within), within, done, count);
            done += count;
        }
    }
}

type Chunks = std::collections::BTreeMap<u64, Vec<u8>>;

/// Reading into or writing from a buffer, one chunk at a time.
trait Direction {
    fn len(&self) -> usize;
    fn chunk(&mut self, chunks: &mut Chunks, at: u64, within: usize, done: usize, count: usize);
}

struct ReadInto<'a>(&'a mut [u8]);
struct WriteFrom<'a>(&'a [u8]);

impl Direction for ReadInto<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn chunk(&mut self, chunks: &mut Chunks, at: u64, within: usize, done: usize, count: usize) {
        let target = &mut self.0[done..done + count];
        match chunks.get(&at) {
            Some(chunk) => target.copy_from_slice(&chunk[within..within + count]),
            None => target.fill(0),
        }
    }
}

impl Direction for WriteFrom<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn chunk(&mut self, chunks: &mut Chunks, at: u64, within: usize, done: usize, count: usize) {
        let source = &self.0[done..done + count];
        if !chunks.contains_key(&at) && source.iter().all(|byte| *byte == 0) {
            return;
        }
        let chunk = chunks.entry(at).or_insert_with(|| vec![0; to_usize(CHUNK)]);
        chunk[within..within + count].copy_from_slice(source);
    }
}

impl Disk for MemoryDisk {
    fn len(&self) -> u64 {
        self.size
    }
    fn sector_size(&self) -> u32 {
        self.sector_size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check(offset, buf.len())?;
        self.copy(offset, &mut ReadInto(buf));
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check(offset, buf.len())?;
        self.copy(offset, &mut WriteFrom(buf));
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_disk_reads_what_was_written_across_chunks() {
        let disk = MemoryDisk::new(1 << 40, 512);
        disk.write_at((1 << 39) - 3, &[1, 2, 3, 4, 5, 6]).unwrap();
        let mut buf = [9; 8];
        disk.read_at((1 << 39) - 4, &mut buf).unwrap();
        assert_eq!(buf, [0, 1, 2, 3, 4, 5, 6, 0]);
        assert!(disk.read_at((1 << 40) - 4, &mut buf).is_err());
        assert!(disk.resized(1 << 20).read_at(0, &mut buf).is_ok());
    }
}
