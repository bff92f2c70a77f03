//! A disk behind a storage daemon, read like an image.

use super::{ImageReader, Part, SourceError};
use crate::disk::storage::RemoteDisk;

/// A disk behind a storage daemon as something to read from, for `export`.
#[derive(Debug)]
pub struct RemoteImage {
    disk: RemoteDisk,
    position: u64,
}

impl RemoteImage {
    /// Reads the disk from its first byte on.
    pub fn new(disk: RemoteDisk) -> Self {
        Self { disk, position: 0 }
    }
}

impl ImageReader for RemoteImage {
    fn size(&self) -> Option<u64> {
        Some(self.disk.size())
    }

    fn next(&mut self, buf: &mut [u8]) -> Result<Part, SourceError> {
        let left = self.disk.size() - self.position;
        if left == 0 {
            return Ok(Part::End);
        }
        let length = left.min(buf.len() as u64) as usize;
        self.disk.read(self.position, &mut buf[..length]).map_err(|source| SourceError::Io {
            name: self.disk.uri().to_owned(),
            offset: Some(self.position),
            source,
        })?;
        self.position += length as u64;
        Ok(Part::Data(length))
    }
}
