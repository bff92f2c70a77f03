//! Files that did not exist before: they are as long as what is written to them, and what is not
//! written reads as zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use snf_container::GrowableFile;
use snf_container::qcow2::{CreateOptions, Options, Qcow2, create};
use snf_fs::{BlockDevice, DeviceError};

use crate::disk::destination::Destination;
use crate::disk::error::TargetError;
use crate::disk::within;
use crate::node::cancel::Cancel;

/// More than any disk has: the image decides.
const NO_LIMIT: u64 = i64::MAX as u64;
/// The unit of a disk's size.
const SECTOR: u64 = 512;

fn failed(path: &Path, operation: &'static str, offset: u64, source: io::Error) -> TargetError {
    TargetError::Io { path: path.to_owned(), operation, offset, source }
}

/// A raw file.
pub struct FreshFile {
    path: PathBuf,
    file: File,
}

impl FreshFile {
    /// An open and empty file, with the name that messages have for it.
    pub fn new(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), file }
    }
}

impl Destination for FreshFile {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn size(&self) -> u64 {
        NO_LIMIT
    }

    fn in_order(&self) -> bool {
        true
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        let done = self.file.write_all_at(bytes, offset);
        done.map_err(|source| failed(&self.path, "write", offset, source))
    }

    fn share(
        &mut self,
        file: &File,
        offset: u64,
        size: u64,
        cancel: &Cancel,
    ) -> Result<bool, TargetError> {
        if offset != 0 {
            return Ok(false);
        }
        if rustix::fs::ioctl_ficlone(&self.file, file).is_ok() {
            return Ok(true);
        }
        if !within::can(file, &self.file) {
            return Ok(false);
        }
        let done = self.file.set_len(size);
        done.map_err(|source| failed(&self.path, "enlarge", size, source))?;
        within::copy(file, &self.file, offset, size, cancel, |_, _| Ok(()))
    }

    fn zero(&mut self, _: u64, _: u64, cancel: &Cancel) -> Result<(), TargetError> {
        Ok(cancel.check()?)
    }

    /// The file ends where the image does, at a whole sector.
    fn zero_tail(&mut self, from: u64, _: &Cancel) -> Result<(), TargetError> {
        let done = self.file.set_len(from.next_multiple_of(SECTOR));
        done.map_err(|source| failed(&self.path, "enlarge", from, source))
    }

    fn flush(&mut self) -> Result<(), TargetError> {
        self.file.sync_data().map_err(|source| failed(&self.path, "flush", 0, source))
    }
}

/// A qcow2 file.
pub struct FreshQcow2 {
    path: PathBuf,
    disk: Qcow2,
}

impl FreshQcow2 {
    /// Makes an image with a disk of `size` bytes in an open and empty file. The disk gets larger when
    /// more is written.
    ///
    /// # Errors
    /// The size is beyond the format's limits, or the file cannot be written.
    pub fn new(path: &Path, file: File, size: u64) -> Result<Self, TargetError> {
        let io_error = |source| failed(path, "write", 0, source);
        let image = GrowableFile::new(file).map_err(io_error)?;
        create(&image, size.next_multiple_of(SECTOR), &CreateOptions::default())
            .and_then(|()| Qcow2::open(image, Options::writable()))
            .map(|disk| Self { path: path.to_owned(), disk })
            .map_err(|error| io_error(io::Error::other(error)))
    }

    fn cover(&self, end: u64) -> Result<(), TargetError> {
        let end = end.next_multiple_of(SECTOR);
        if end <= self.disk.len() {
            return Ok(());
        }
        let grown = self.disk.grow(end);
        grown.map_err(|error| failed(&self.path, "enlarge", end, io::Error::other(error)))
    }

    fn done(
        &self,
        operation: &'static str,
        result: Result<(), DeviceError>,
    ) -> Result<(), TargetError> {
        result.map_err(|error| failed(&self.path, operation, error.offset, error.source))
    }
}

impl Destination for FreshQcow2 {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn size(&self) -> u64 {
        NO_LIMIT
    }

    fn in_order(&self) -> bool {
        true
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        self.cover(offset.saturating_add(bytes.len() as u64))?;
        self.done("write", self.disk.write_at(offset, bytes))
    }

    fn zero(&mut self, _: u64, _: u64, cancel: &Cancel) -> Result<(), TargetError> {
        Ok(cancel.check()?)
    }

    fn zero_tail(&mut self, from: u64, _: &Cancel) -> Result<(), TargetError> {
        self.cover(from)
    }

    fn flush(&mut self) -> Result<(), TargetError> {
        self.done("flush", self.disk.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_become_as_long_as_the_image() {
        let cancel = Cancel::new();
        let file = tempfile::tempfile().unwrap();
        let mut fresh = FreshFile::new(Path::new("x"), file.try_clone().unwrap());
        let image = tempfile::tempfile().unwrap();
        let path = Path::new("y");
        let mut packed = FreshQcow2::new(path, image.try_clone().unwrap(), 0).unwrap();
        for target in [&mut fresh as &mut dyn Destination, &mut packed] {
            target.write(0, &[1; 5000]).unwrap();
            target.zero(5000, 100_000, &cancel).unwrap();
            target.write(105_000, b"end").unwrap();
            target.zero_tail(105_003, &cancel).unwrap();
            target.flush().unwrap();
        }
        assert_eq!(file.metadata().unwrap().len(), 206 * 512);
        drop(packed);
        let disk = Qcow2::open(GrowableFile::new(image).unwrap(), Options::read_only()).unwrap();
        assert_eq!(disk.len(), 206 * 512);
        let mut bytes = [0; 4];
        disk.read_at(105_000, &mut bytes).unwrap();
        assert_eq!(&bytes, b"end\0");
    }
}
