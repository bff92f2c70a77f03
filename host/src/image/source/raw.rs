//! Raw images: a file or a block device, byte for byte.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::direct::DirectFile;
use super::{ImageReader, Part, SourceError};
use crate::disk::buffer::{align_down, align_up};

/// Bytes that are read in one go through the page cache. The kernel reads ahead of that by itself; asked
/// for more at once, or beforehand (POSIX_FADV_WILLNEED), it was three times as slow.
const STEP: usize = 2 << 20;

/// An open raw image.
pub struct RawImage {
    file: File,
    direct: Option<DirectFile>,
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
        let name = name.to_owned();
        let mut image = Self { file, direct: None, name, size, position: 0, data_end: 0, holes };
        image.direct = DirectFile::open(&image.file, size);
        if image.direct.is_none() && image.find_end(0) >= size {
            // All of it is data: the kernel may read further ahead. Advice, so a refusal changes nothing.
            let _ = rustix::fs::fadvise(&image.file, 0, None, Advice::Sequential);
        }
        Ok(image)
    }

    fn error(&self, source: io::Error) -> SourceError {
        SourceError::Io { name: self.name.clone(), offset: Some(self.position), source }
    }

    fn read_error(&self, error: io::Error) -> SourceError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            self.error(io::Error::other("it became shorter while it was read"))
        } else {
            self.error(error)
        }
    }

    /// The first byte of data from `at` on; the size when there is none.
    fn next_data(&mut self, at: u64) -> Result<u64, SourceError> {
        if !self.holes {
            return Ok(at);
        }
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(found) => Ok(align_down(found).max(at).min(self.size)),
            Err(Errno::NXIO) => self.only_holes_follow(),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.holes = false;
                Ok(at)
            }
            Err(error) => Err(self.error(error.into())),
        }
    }

    /// The size, where nothing but a hole is left. A file that was cut meanwhile looks the same.
    fn only_holes_follow(&self) -> Result<u64, SourceError> {
        match self.file.metadata() {
            Ok(metadata) if metadata.len() < self.size => {
                Err(self.read_error(io::ErrorKind::UnexpectedEof.into()))
            }
            _ => Ok(self.size),
        }
    }

    /// The end of the data that begins at `start`.
    fn find_end(&self, start: u64) -> u64 {
        if !self.holes {
            return self.size;
        }
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(start)) {
            // The file may change under us: a hole in a wrong place is not believed.
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
        if let Some(direct) = &self.direct {
            match direct.read_at(&mut buf[..wanted], self.position) {
                Ok(0) => {}
                Ok(length) => {
                    self.position += length as u64;
                    return Ok(Part::Data(length));
                }
                // The page cache accepts requests that the file system refuses here.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    self.direct = None;
                }
                Err(error) => return Err(self.read_error(error)),
            }
        }
        for piece in buf[..wanted].chunks_mut(STEP) {
            self.file
                .read_exact_at(piece, self.position)
                .map_err(|error| self.read_error(error))?;
            self.position += piece.len() as u64;
        }
        Ok(Part::Data(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::buffer::AlignedBuffer;
    use crate::image::source::direct::tests::{evict, on_device};

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

    #[test]
    fn past_the_page_cache_it_is_the_same() {
        let mut bytes = vec![0; 5_000_001];
        for (n, byte) in bytes.iter_mut().enumerate() {
            // Data, a hole of a MiB, data up to a ragged end.
            *byte = if (1 << 20..2 << 20).contains(&n) { 0 } else { (n % 251) as u8 | 1 };
        }
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_all_at(&bytes[..1 << 20], 0).unwrap();
        file.write_all_at(&bytes[2 << 20..], 2 << 20).unwrap();
        let read = |shorten: bool| {
            evict(&file);
            let mut image = RawImage::new(file.try_clone().unwrap(), "x").unwrap();
            assert_eq!(image.direct.is_some(), on_device(&file));
            if shorten {
                file.set_len(3 << 20).unwrap();
            }
            let mut buffer = AlignedBuffer::new(300_000).unwrap();
            let mut all = Vec::new();
            loop {
                match image.next(buffer.as_mut_slice())? {
                    Part::Data(n) => all.extend_from_slice(&buffer.as_slice()[..n]),
                    Part::Zero(n) => all.resize(all.len() + n as usize, 0),
                    Part::End => return Ok::<_, SourceError>(all),
                }
            }
        };
        assert!(read(false).unwrap() == bytes);
        let error = crate::node::log::chain(&read(true).map(|bytes| bytes.len()).unwrap_err());
        assert!(error.contains("it became shorter while it was read"), "{error}");
    }
}
