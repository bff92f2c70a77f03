//! Raw images: a file or a block device, byte for byte.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::Advice;
use rustix::io::Errno;

use super::{ImageReader, Part, SourceError};
use crate::buffer::{align_down, align_up};

/// Bytes of data that the kernel is asked to read before they are wanted: its own read-ahead is
/// smaller, and stops at every hole.
const AHEAD: u64 = 16 << 20;

/// An open raw image.
pub struct RawImage {
    file: File,
    name: String,
    size: u64,
    position: u64,
    /// Runs of data at and behind `position` that were found, in order.
    data: VecDeque<Range<u64>>,
    /// Bytes in `data`.
    ahead: u64,
    /// Up to here the file was searched for data.
    searched: u64,
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
        Ok(Self {
            file,
            name: name.to_owned(),
            size,
            position: 0,
            data: VecDeque::new(),
            ahead: 0,
            searched: 0,
            holes,
        })
    }

    fn error(&self, source: io::Error) -> SourceError {
        SourceError::Io { name: self.name.clone(), offset: Some(self.position), source }
    }

    /// Finds data until enough of it is known, and has the kernel begin to read it.
    fn look_ahead(&mut self) -> Result<(), SourceError> {
        while self.ahead < AHEAD && self.searched < self.size {
            let start = self.next_data(self.searched)?;
            let end = self.data_end(start).min(start.saturating_add(AHEAD)).min(self.size);
            self.searched = end;
            let Some(length) = NonZero::new(end - start) else { continue };
            self.ahead += length.get();
            self.data.push_back(start..end);
            // Advice: a refusal changes nothing.
            let _ = rustix::fs::fadvise(&self.file, start, Some(length), Advice::WillNeed);
        }
        Ok(())
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
    fn data_end(&self, start: u64) -> u64 {
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
        self.look_ahead()?;
        let run = self.data.front().cloned().unwrap_or(self.size..self.size);
        if run.start > self.position {
            let hole = run.start - self.position;
            self.position = run.start;
            return Ok(Part::Zero(hole));
        }
        let wanted = (run.end - self.position).min(buf.len() as u64) as usize;
        self.file.read_exact_at(&mut buf[..wanted], self.position).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                self.error(io::Error::other("it became shorter while it was read"))
            } else {
                self.error(error)
            }
        })?;
        self.position += wanted as u64;
        self.ahead -= wanted as u64;
        match self.data.front_mut() {
            Some(run) if run.end > self.position => run.start = self.position,
            _ => drop(self.data.pop_front()),
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
