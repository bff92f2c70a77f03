//! Raw images: a file or a block device, byte for byte.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::{ImageReader, Part, SourceError};
use crate::buffer::{align_down, align_up};

/// Bytes that are read in one go. The kernel reads ahead of small sequential reads by itself, in large
/// pieces; asked for the same data beforehand (POSIX_FADV_WILLNEED) or for much at once, it was three
/// times as slow.
const STEP: usize = 128 << 10;

/// An open raw image.
pub struct RawImage {
    file: File,
    name: String,
    size: u64,
    position: u64,
    /// Up to here there is known to be data.
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
        let image = Self { file, name: name.to_owned(), size, position: 0, data_end: 0, holes };
        if image.find_end(0) >= size {
            // All of it is data: the kernel may read further ahead. Advice, so a refusal changes nothing.
            let _ = rustix::fs::fadvise(&image.file, 0, None, Advice::Sequential);
        }
        Ok(image)
    }

    fn error(&self, source: io::Error) -> SourceError {
        SourceError::Io { name: self.name.clone(), offset: Some(self.position), source }
    }

    /// Where the data at or behind `at` begins; the size when there is none.
    fn next_data(&mut self, at: u64) -> Result<u64, SourceError> {
        if !self.holes {
            return Ok(at);
        }
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(found) => Ok(align_down(found).max(at).min(self.size)),
            Err(Errno::NXIO) => Ok(self.size),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.holes = false;
                Ok(at)
            }
            Err(error) => Err(self.error(error.into())),
        }
    }

    /// Where the data that begins at `start` ends.
    fn find_end(&self, start: u64) -> u64 {
        if !self.holes {
            return self.size;
        }
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(start)) {
            // The file may change under us: a hole behind where it should be is not believed.
            Ok(found) if found > start => align_up(found),
            _ => self.size,
        }
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
            let start = self.next_data(self.position)?;
            if start > self.position {
                let hole = start - self.position;
                self.position = start;
                return Ok(Part::Zero(hole));
            }
            self.data_end = self.find_end(start).min(self.size);
        }
        let wanted = (self.data_end - self.position).min(buf.len() as u64) as usize;
        for piece in buf[..wanted].chunks_mut(STEP) {
            self.file.read_exact_at(piece, self.position).map_err(|error| {
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    self.error(io::Error::other("it became shorter while it was read"))
                } else {
                    self.error(error)
                }
            })?;
            self.position += piece.len() as u64;
        }
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
