//! Images that can only be read from start to end.

use std::io::{self, Cursor, Read};

use super::{ImageReader, Part, SourceError, fill};

/// Bytes that are looked at first.
const FIRST: usize = 4096;

/// Reads the first bytes, so that an empty or broken image is found before a disk is touched.
/// `None` when there are none; else a reader of all of it.
///
/// # Errors
///
/// The reader's error.
pub fn peek(mut reader: Box<dyn Read + Send>) -> io::Result<Option<Box<dyn Read + Send>>> {
    let mut first = vec![0; FIRST];
    let length = fill(&mut *reader, &mut first)?;
    first.truncate(length);
    Ok((length > 0).then(|| Box::new(Cursor::new(first).chain(reader)) as Box<dyn Read + Send>))
}

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
