//! qcow2 images, read in order by the crate `snf-container`. No other file is ever opened: an image
//! that names a backing file or an external data file is refused, whoever made it.

use std::fs::File;

use snf_container::GrowableFile;
use snf_container::qcow2::{Error, Options, Qcow2};
use snf_fs::BlockDevice;

use super::{ImageReader, Part, SourceError};

/// The message for a file of another format.
pub(super) const NOT_QCOW2: &str =
    "is not a qcow2 image: it does not begin with QFI\\xfb (if it is raw, say #format=raw)";

/// Bytes of tables that are kept. The disk is read once, in order.
const CACHE: u64 = 4 << 20;

/// An open qcow2 image.
pub struct Qcow2Image {
    image: Qcow2,
    name: String,
    size: u64,
    position: u64,
}

impl Qcow2Image {
    /// Reads the header; `name` is for messages.
    ///
    /// # Errors
    ///
    /// The file is no qcow2 image, is damaged, or needs another file.
    pub fn new(file: File, name: &str) -> Result<Self, SourceError> {
        // Advice: a refusal changes nothing.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        let file = GrowableFile::new(file).map_err(|source| SourceError::Io {
            name: name.to_owned(),
            offset: Some(0),
            source,
        })?;
        let image = Qcow2::open(file, Options::read_only().cache(CACHE))
            .map_err(|error| failed(name, error))?;
        Ok(Self { size: image.len(), image, name: name.to_owned(), position: 0 })
    }
}

/// The error of an image. Some say more for those who deploy it than the crate can know.
fn failed(name: &str, error: Error) -> SourceError {
    let bad = |problem: &str| SourceError::Bad { name: name.to_owned(), problem: problem.into() };
    match error {
        Error::NotQcow2 => bad(NOT_QCOW2),
        Error::BackingRefused { .. } => bad(
            "has a backing file, which is never opened; flatten it with qemu-img convert -O qcow2",
        ),
        source => SourceError::Qcow2 { name: name.to_owned(), source },
    }
}

impl ImageReader for Qcow2Image {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn next(&mut self, buf: &mut [u8]) -> Result<Part, SourceError> {
        if self.position >= self.size {
            return Ok(Part::End);
        }
        let extent = self
            .image
            .read_extent(self.position, buf)
            .map_err(|error| failed(&self.name, error))?;
        self.position += extent.length;
        Ok(match extent.zero {
            true => Part::Zero(extent.length),
            false => Part::Data(extent.length as usize),
        })
    }
}
