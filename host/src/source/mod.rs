//! Where images come from. Every source gives its bytes in order, with the holes it knows of.

use std::io;

pub mod id;
pub mod local;
pub mod raw;

/// The next piece of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// This many bytes were put at the start of the buffer.
    Data(usize),
    /// This many zeros follow; nothing was put into the buffer.
    Zero(u64),
    /// The image has ended.
    End,
}

/// An open image.
pub trait ImageReader: Send {
    /// Size in bytes, when it is known before the end.
    fn size(&self) -> Option<u64>;

    /// The next piece. But for the last one, pieces are multiples of 4096 bytes long when `buf`
    /// is.
    fn next(&mut self, buf: &mut [u8]) -> Result<Part, SourceError>;
}

/// Why an image cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The id is not one any source understands.
    #[error("img_id {id:?}: {problem}")]
    Id {
        /// The id.
        id: String,
        /// What is wrong and what is valid.
        problem: String,
    },
    /// The image cannot be opened or read.
    #[error("cannot read the image {name}{}: {source}", at(*.offset))]
    Io {
        /// The image, as it was asked for.
        name: String,
        /// Where.
        offset: Option<u64>,
        /// What the system said.
        source: io::Error,
    },
    /// The image is not what it should be.
    #[error("the image {name} {problem}")]
    Bad {
        /// The image.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn at(offset: Option<u64>) -> String {
    offset.map(|at| format!(" at byte {at}")).unwrap_or_default()
}

/// Reads until the buffer is full or the end is there; short reads in between do not matter.
pub fn fill(reader: &mut dyn io::Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match reader.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
