//! Block devices: where bytes come from and go to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::DeviceError;
use crate::num::{to_u64, to_usize};

/// A disk, a partition of one, or anything that behaves like one: addressed in bytes from 0 to
/// [`BlockDevice::len`], written through `&self` as `pwrite` does, so that several file systems
/// can share one disk in an [`Arc`].
pub trait BlockDevice: Send + Sync {
    /// Size in bytes.
    fn len(&self) -> u64;

    /// Whether the device has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logical sector size in bytes (512 or 4096): the unit of partition tables on this device.
    fn sector_size(&self) -> u32 {
        512
    }

    /// Fills `buf` from `offset`. A read past the end is an error, never a short read.
    ///
    /// # Errors
    /// [`DeviceError`] with the operating system's error, or for a range that leaves the device.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError>;

    /// Writes all of `buf` at `offset`. A write past the end is an error; the device never grows.
    ///
    /// # Errors
    /// [`DeviceError`] with the operating system's error, or for a range that leaves the device.
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError>;

    /// Writes all of `buf` at `offset`, where nothing refers to what is there: file content in blocks
    /// that are free on the device. A layer that holds other writes back until a commit may pass
    /// this one on at once, so that memory need not hold it; whoever drops the commit leaves the
    /// file systems as they were.
    ///
    /// # Errors
    /// As [`BlockDevice::write_at`].
    fn write_free(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.write_at(offset, buf)
    }

    /// Returns when all that was written before is on stable storage.
    ///
    /// # Errors
    /// [`DeviceError`] with the operating system's error.
    fn flush(&self) -> Result<(), DeviceError>;
}

impl<T: BlockDevice + ?Sized> BlockDevice for Arc<T> {
    fn len(&self) -> u64 {
        (**self).len()
    }
    fn sector_size(&self) -> u32 {
        (**self).sector_size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        (**self).read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        (**self).write_at(offset, buf)
    }
    fn write_free(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        (**self).write_free(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        (**self).flush()
    }
}

/// Whether `offset..offset + length` lies within a device of `size` bytes.
fn check_range(
    operation: &'static str,
    offset: u64,
    length: usize,
    size: u64,
) -> Result<(), DeviceError> {
    match offset.checked_add(to_u64(length)) {
        Some(end) if end <= size => Ok(()),
        _ => Err(DeviceError {
            operation,
            offset,
            length,
            source: io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("beyond the end of the device ({size} bytes)"),
            ),
        }),
    }
}

/// A regular file or a block device node, opened by the caller.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    size: u64,
    sector_size: u32,
}

impl FileDevice {
    /// Wraps an open file of `size` bytes. The caller finds the size, because a block device's
    /// metadata does not tell it (seek to the end does).
    pub fn new(file: File, size: u64, sector_size: u32) -> Self {
        Self { file, size, sector_size }
    }

    /// Wraps an open file and finds its size by seeking to the end; sectors of 512 bytes.
    ///
    /// # Errors
    /// The operating system's error when the file's size cannot be found out.
    pub fn from_file(mut file: File) -> io::Result<Self> {
        use std::io::Seek;
        let size = file.seek(io::SeekFrom::End(0))?;
        Ok(Self::new(file, size, 512))
    }
}

impl BlockDevice for FileDevice {
    fn len(&self) -> u64 {
        self.size
    }
    fn sector_size(&self) -> u32 {
        self.sector_size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        check_range("read", offset, buf.len(), self.size)?;
        self.file.read_exact_at(buf, offset).map_err(|source| DeviceError {
            operation: "read",
            offset,
            length: buf.len(),
            source,
        })
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        check_range("write", offset, buf.len(), self.size)?;
        self.file.write_all_at(buf, offset).map_err(|source| DeviceError {
            operation: "write",
            offset,
            length: buf.len(),
            source,
        })
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.file.sync_data().map_err(|source| DeviceError {
            operation: "flush",
            offset: 0,
            length: 0,
            source,
        })
    }
}

/// A device in memory, for tests and for building small images such as the parameter floppy.
#[derive(Debug)]
pub struct MemoryDevice {
    bytes: Mutex<Vec<u8>>,
}

impl MemoryDevice {
    /// A device that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Mutex::new(bytes) }
    }

    /// The whole content, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl BlockDevice for MemoryDevice {
    fn len(&self) -> u64 {
        to_u64(self.bytes.lock().unwrap_or_else(PoisonError::into_inner).len())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        check_range("read", offset, buf.len(), to_u64(bytes.len()))?;
        buf.copy_from_slice(&bytes[to_usize(offset)..to_usize(offset) + buf.len()]);
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        check_range("write", offset, buf.len(), to_u64(bytes.len()))?;
        bytes[to_usize(offset)..to_usize(offset) + buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

/// A window onto another device: one partition of a disk.
#[derive(Clone)]
pub struct Slice {
    device: Arc<dyn BlockDevice>,
    start: u64,
    size: u64,
}

impl Slice {
    /// `size` bytes of `device` from `start` (bytes); the window must lie within the device.
    ///
    /// # Errors
    /// [`DeviceError`] where the range leaves the device.
    pub fn new(device: Arc<dyn BlockDevice>, start: u64, size: u64) -> Result<Self, DeviceError> {
        match start.checked_add(size) {
            Some(end) if end <= device.len() => Ok(Self { device, start, size }),
            _ => Err(DeviceError {
                operation: "open a partition",
                offset: start,
                length: usize::try_from(size).unwrap_or(usize::MAX),
                source: io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("beyond the end of the device ({} bytes)", device.len()),
                ),
            }),
        }
    }
}

impl BlockDevice for Slice {
    fn len(&self) -> u64 {
        self.size
    }
    fn sector_size(&self) -> u32 {
        self.device.sector_size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        check_range("read", offset, buf.len(), self.size)?;
        self.device.read_at(self.start + offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        check_range("write", offset, buf.len(), self.size)?;
        self.device.write_at(self.start + offset, buf)
    }
    fn write_free(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        check_range("write", offset, buf.len(), self.size)?;
        self.device.write_free(self.start + offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.device.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_shifts_and_bounds() {
        let disk: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new((0..100).collect()));
        let slice = Slice::new(disk.clone(), 10, 20).unwrap();
        let mut buf = [0; 2];
        slice.read_at(3, &mut buf).unwrap();
        assert_eq!(buf, [13, 14]);
        slice.write_at(18, &[1, 2]).unwrap();
        disk.read_at(28, &mut buf).unwrap();
        assert_eq!(buf, [1, 2]);
        assert!(slice.read_at(19, &mut buf).is_err());
        assert!(slice.write_at(u64::MAX, &buf).is_err());
        assert!(Slice::new(disk, 90, 11).is_err());
    }
}
