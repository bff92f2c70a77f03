//! Images that can only be read from start to end.

use std::io::Read;

use super::{ImageReader, Part, SourceError, fill};

/// Any reader as an image. Short reads in between do not matter.
pub struct StreamImage<R> {
    reader: R,
    name: String,
    size: Option<u64>,
    position: u64,
}

impl<R: Read + Send> StreamImage<R> {
    /// Wraps a reader of `size` bytes, if that is known; `name` is for messages.
    pub fn new(reader: R, name: &str, size: Option<u64>) -> Self {
        Self { reader, name: name.to_owned(), size, position: 0 }
    }
}

impl<R: Read + Send> ImageReader for StreamImage<R> {
    fn size(&self) -> Option<u64> {
        self.size
    }

    fn next(&mut self, buf: &mut [u8]) -> Result<Part, SourceError> {
        let filled = fill(&mut self.reader, buf).map_err(|source| SourceError::Io {
            name: self.name.clone(),
            offset: Some(self.position),
            source,
        })?;
        self.position += filled as u64;
        Ok(if filled == 0 { Part::End } else { Part::Data(filled) })
    }
}
