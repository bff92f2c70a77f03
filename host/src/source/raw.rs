//! Raw images: a file or a block device, byte for byte.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::{ImageReader, Part, SourceError};
use crate::buffer::{align_down, align_up};

/// An open raw image.
pub struct RawImage {
    file: File,
    name: String,
    size: u64,
    position: u64,
    /// End of the run of data that `position` lies in.
    data_end: u64,
    /// Whether the file system can tell holes.
    holes: bool,
}

impl RawImage {
    /// Wraps an open file or block device; `name` is for messages.
    pub fn new(mut file: File, name: &str) -> Result<Self, SourceError> {
        let size = file.seek(SeekFrom::End(0)).map_err(|source| SourceError::Io {
            name: name.to_owned(),
            offset: None,
            source,
        })?;
        let holes = file.metadata().is_ok_and(|m| m.file_type().is_file());
        // Larger read-ahead; a refusal changes nothing.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        Ok(Self { file, name: name.to_owned(), size, position: 0, data_end: 0, holes })
    }

    fn error(&self, source: io::Error) -> SourceError {
        SourceError::Io { name: self.name.clone(), offset: Some(self.position), source }
    }

    /// Finds where the data at or behind `position` begins and ends.
    fn seek_data(&mut self) -> Result<u64, SourceError> {
        if !self.holes {
            self.data_end = self.size;
            return Ok(self.position);
        }
        let start = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(self.position)) {
            Ok(found) => align_down(found).max(self.position),
            Err(Errno::NXIO) => self.size,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.holes = false;
                return self.seek_data();
            }
            Err(error) => return Err(self.error(error.into())),
        };
        self.data_end = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(start)) {
            // The file may change under us: a hole behind where it should be is not believed.
            Ok(found) if found > start => align_up(found).min(self.size),
            _ => self.size,
        };
        Ok(start.min(self.size))
    }
}

impl ImageReader for RawImage {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn plain_file(&self) -> Option<&File> {
        self.file.metadata().is_ok_and(|m| m.file_type().is_file()).then_some(&self.file)
    }

    fn next(&mut self, buf: &mut [u8]) -> Result<Part, SourceError> {
        if self.position >= self.size {
            return Ok(Part::End);
        }
        if self.position >= self.data_end {
            let start = self.seek_data()?;
            let hole = start - self.position;
            if hole > 0 {
                self.position = start;
                return Ok(Part::Zero(hole));
            }
        }
        let wanted = (self.data_end - self.position).min(buf.len() as u64) as usize;
        self.file.read_exact_at(&mut buf[..wanted], self.position).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                self.error(io::Error::other("it became shorter while it was read"))
            } else {
                self.error(error)
            }
        })?;
        self.position += wanted as u64;
        Ok(Part::Data(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_and_data_add_up() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1_000_001).unwrap();
        file.write_all_at(&[7; 5000], 300_000).unwrap();
        file.write_all_at(&[8], 1_000_000).unwrap();
        let mut image = RawImage::new(file, "x").unwrap();
        assert_eq!(image.size(), Some(1_000_001));
        let mut all = Vec::new();
        let mut buf = vec![0; 65536];
        let mut zeros = 0;
        loop {
            match image.next(&mut buf).unwrap() {
                Part::Data(n) => all.extend_from_slice(&buf[..n]),
                Part::Zero(n) => {
                    zeros += n;
                    all.resize(all.len() + n as usize, 0);
                }
                Part::End => break,
            }
        }
        assert_eq!(all.len(), 1_000_001);
        assert!(all[300_000..305_000].iter().all(|b| *b == 7));
        assert_eq!(all[1_000_000], 8);
        assert_eq!(all.iter().filter(|b| **b != 0).count(), 5001);
        assert!(zeros > 900_000, "{zeros}");
    }
}
