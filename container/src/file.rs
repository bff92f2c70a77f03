//! Files that hold a container: block devices that can become longer.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use snf_fs::{BlockDevice, DeviceError};

/// A block device whose end can move, as the end of a file can.
pub trait GrowableDevice: BlockDevice {
    /// Makes the device `size` bytes long. New bytes are zeros. A device of fixed size accepts
    /// every size up to its own and stays as it is.
    ///
    /// # Errors
    /// The operating system's error; `ENOSPC` when a device of fixed size is too small.
    fn set_len(&self, size: u64) -> Result<(), DeviceError>;
}

impl<T: GrowableDevice + ?Sized> GrowableDevice for Arc<T> {
    fn set_len(&self, size: u64) -> Result<(), DeviceError> {
        (**self).set_len(size)
    }
}

/// `ENOSPC` of Linux.
const ENOSPC: i32 = 28;

fn device_error(
    operation: &'static str,
    offset: u64,
    length: usize,
    source: io::Error,
) -> DeviceError {
    DeviceError { operation, offset, length, source }
}

fn beyond(operation: &'static str, offset: u64, length: usize, size: u64) -> DeviceError {
    let source = io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("beyond the end of the file ({size} bytes)"),
    );
    device_error(operation, offset, length, source)
}

fn within(offset: u64, length: usize, size: u64) -> bool {
    offset.checked_add(length as u64).is_some_and(|end| end <= size)
}

/// A regular file, which grows, or a block device node, which does not.
#[derive(Debug)]
pub struct GrowableFile {
    file: File,
    size: AtomicU64,
    fixed: bool,
}

impl GrowableFile {
    /// Wraps an open file. Its size is found by seeking to the end.
    ///
    /// # Errors
    /// The file cannot seek, or its metadata cannot be read.
    pub fn new(mut file: File) -> io::Result<Self> {
        let size = file.seek(io::SeekFrom::End(0))?;
        let fixed = file.metadata()?.file_type().is_block_device();
        Ok(Self { file, size: AtomicU64::new(size), fixed })
    }
}

impl BlockDevice for GrowableFile {
    fn len(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        if !within(offset, buf.len(), self.len()) {
            return Err(beyond("read", offset, buf.len(), self.len()));
        }
        let length = buf.len();
        self.file
            .read_exact_at(buf, offset)
            .map_err(|source| device_error("read", offset, length, source))
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        if !within(offset, buf.len(), self.len()) {
            return Err(beyond("write", offset, buf.len(), self.len()));
        }
        self.file
            .write_all_at(buf, offset)
            .map_err(|source| device_error("write", offset, buf.len(), source))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.file.sync_data().map_err(|source| device_error("flush", 0, 0, source))
    }
}

impl GrowableDevice for GrowableFile {
    fn set_len(&self, size: u64) -> Result<(), DeviceError> {
        if self.fixed {
            return match size <= self.len() {
                true => Ok(()),
                false => {
                    Err(device_error("grow to", size, 0, io::Error::from_raw_os_error(ENOSPC)))
                }
            };
        }
        self.file.set_len(size).map_err(|source| device_error("grow to", size, 0, source))?;
        self.size.store(size, Ordering::Release);
        Ok(())
    }
}

/// A growing file in memory: for tests, and for small containers.
#[derive(Debug, Default)]
pub struct MemoryFile {
    bytes: Mutex<Vec<u8>>,
}

impl MemoryFile {
    /// A file that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Mutex::new(bytes) }
    }

    /// The whole content, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl BlockDevice for MemoryFile {
    fn len(&self) -> u64 {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if !within(offset, buf.len(), bytes.len() as u64) {
            return Err(beyond("read", offset, buf.len(), bytes.len() as u64));
        }
        buf.copy_from_slice(&bytes[offset as usize..offset as usize + buf.len()]);
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if !within(offset, buf.len(), bytes.len() as u64) {
            return Err(beyond("write", offset, buf.len(), bytes.len() as u64));
        }
        bytes[offset as usize..offset as usize + buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl GrowableDevice for MemoryFile {
    fn set_len(&self, size: u64) -> Result<(), DeviceError> {
        let no_room =
            || device_error("grow to", size, 0, io::Error::from(io::ErrorKind::OutOfMemory));
        let size = usize::try_from(size).map_err(|_| no_room())?;
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let more = size.saturating_sub(bytes.len());
        bytes.try_reserve(more).map_err(|_| no_room())?;
        bytes.resize(size, 0);
        Ok(())
    }
}

/// A device that is read and never changed: a container opened from it cannot be written.
#[derive(Clone)]
pub struct ReadOnlyDevice(Arc<dyn BlockDevice>);

impl ReadOnlyDevice {
    /// Wraps `device`.
    pub fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self(device)
    }

    fn refuse(operation: &'static str, offset: u64, length: usize) -> DeviceError {
        device_error(operation, offset, length, io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl BlockDevice for ReadOnlyDevice {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.0.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        Err(Self::refuse("write", offset, buf.len()))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl GrowableDevice for ReadOnlyDevice {
    fn set_len(&self, size: u64) -> Result<(), DeviceError> {
        Err(Self::refuse("grow to", size, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_grows_and_keeps_its_bounds() {
        let file = GrowableFile::new(tempfile::tempfile().unwrap()).unwrap();
        assert!(file.write_at(0, &[1]).is_err());
        file.set_len(10).unwrap();
        file.write_at(9, &[7]).unwrap();
        assert!(file.write_at(10, &[1]).is_err());
        let mut buf = [1; 10];
        file.read_at(0, &mut buf).unwrap();
        assert_eq!(buf, [0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert!(file.read_at(u64::MAX, &mut buf).is_err());
    }

    #[test]
    fn a_read_only_device_refuses() {
        let memory = Arc::new(MemoryFile::new(vec![3; 4]));
        let device = ReadOnlyDevice::new(memory);
        let mut buf = [0; 4];
        device.read_at(0, &mut buf).unwrap();
        assert_eq!(buf, [3; 4]);
        assert!(device.write_at(0, &buf).is_err());
        assert!(device.set_len(2).is_err());
        device.flush().unwrap();
    }
}
