//! A block device of `snf_fs` as the disk of `snf_partition`: neither crate knows the other.

use std::io;

use snf_fs::{BlockDevice, DeviceError};
use snf_partition::Disk;

/// A block device whose partition table is read or written.
pub struct DiskAdapter<'a>(pub &'a dyn BlockDevice);

/// The operating system's part of a device error: operation and offset are told again by
/// `snf_partition`'s own error.
fn source(error: DeviceError) -> io::Error {
    error.source
}

impl Disk for DiskAdapter<'_> {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buf).map_err(source)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, buf).map_err(source)
    }
    fn flush(&self) -> io::Result<()> {
        self.0.flush().map_err(source)
    }
}

#[cfg(test)]
mod tests {
    use snf_fs::MemoryDevice;

    use super::*;

    #[test]
    fn an_empty_device_has_no_table() {
        let device = MemoryDevice::new(vec![0; 1 << 20]);
        assert!(snf_partition::read(&DiskAdapter(&device)).unwrap().is_none());
        let error = DiskAdapter(&device).read_at(1 << 20, &mut [0]).unwrap_err();
        assert!(error.to_string().contains("beyond the end"), "{error}");
    }
}
