//! Sources of images. Each source gives its bytes in order, with the holes it knows of.

use std::fs::File;
use std::io::{self, Read};

use crate::backend::{Backends, Choice, Kind, Settings};
use crate::image::local;
use crate::image::pace::Paced;
use crate::image::policy::Policy;
use crate::node::cancel::Cancel;
use crate::node::config::Config;
use crate::node::log;

mod direct;
pub mod foreign;
pub mod http;
pub mod id;
pub mod packed;
pub mod qcow2;
pub mod raw;
pub mod remote;
mod spool;
pub mod stream;
pub(crate) mod sums;

pub use crate::image::error::SourceError;
use id::{Compression, Container, ImageId, Location};
use packed::{ToTheEnd, Verified};
use raw::RawImage;
use stream::StreamImage;

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

    /// The plain file whose bytes are the image, where there is one: a file system may be able to
    /// share its blocks with the disk.
    fn plain_file(&self) -> Option<&File> {
        None
    }

    /// The next piece. But for the last one, pieces are multiples of 4096 bytes long when `buf`
    /// is.
    fn next(&mut self, buf: &mut [u8]) -> Result<Part, SourceError>;
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

/// Opens an image; `None` when there is none to copy. `room` is the size of the disk it is for.
pub fn open(
    image: &ImageId,
    config: &Config,
    room: Option<u64>,
    cancel: &Cancel,
) -> Result<Option<Box<dyn ImageReader>>, SourceError> {
    let shown = id::display(&image.place);
    let wrong = |problem: String| SourceError::Id { id: shown.clone(), problem };
    let backends = Backends::read(&Settings::of(config), Kind::Source)?;
    match backends.choose(&image.place, image.location.own_backend(), cancel)? {
        Choice::Own => {}
        Choice::Program(program) => {
            backends.tell(&program);
            let reader = backends.open_source(&program, &image.place, cancel)?;
            let size = reader.size();
            return open_stream(reader, size, image, &shown, config, room, cancel).map(Some);
        }
        Choice::Disabled(name) => {
            return Err(wrong(format!("the back-end {name} is disabled on this node")));
        }
        Choice::Nobody => {
            let Location::Foreign(scheme) = &image.location else {
                return Err(wrong("no back-end of this node knows it".into()));
            };
            return Err(wrong(id::no_source(scheme)));
        }
    }
    let mut image = image.clone();
    if let (None, Location::Local(name)) = (&image.checksum, &image.location) {
        image.checksum = sums::beside(&config.image_dir, name)?;
    }
    let image = &image;
    if let Container::Foreign(format) = image.container
        && !config.for_a_person
    {
        return Err(wrong(format!(
            "{} images are not deployed to instances; convert it with qemu-img convert -O qcow2 (or, \
             if it is raw, say #format=raw)",
            format.name()
        )));
    }
    let (name, file) = match &image.location {
        Location::Null => return Ok(None),
        Location::Local(name) => {
            let file = local::open_beneath(&config.image_dir, name)?;
            not_of_the_helper(&file, name, config)?;
            (format!("{name:?}"), file)
        }
        Location::File(path) => (format!("{path:?}"), Policy::of(config)?.open_file(path)?),
        Location::Http(url) => {
            let io_error = |source| SourceError::Io { name: shown.clone(), offset: None, source };
            let (url, policy) = (url.clone(), Policy::of(config)?);
            let (min_rate, patience) = (policy.min_rate, policy.image_patience);
            let reader =
                cancel.wait(move || http::HttpReader::open(&url, policy))?.map_err(io_error)?;
            let size = reader.size();
            let reader = Paced::new(reader, min_rate, patience);
            return open_stream(reader, size, image, &shown, config, room, cancel).map(Some);
        }
        Location::Foreign(scheme) => return Err(wrong(id::no_source(scheme))),
    };
    if image.compression == Compression::None {
        if image.container == Container::Qcow2 {
            if let Some(checksum) = &image.checksum {
                verify_file(&file, checksum, &name, cancel)?;
            }
            return not_empty(qcow2::Qcow2Image::new(file, &name)?, &name).map(Some);
        }
        if let Container::Foreign(format) = image.container {
            if let Some(checksum) = &image.checksum {
                verify_file(&file, checksum, &name, cancel)?;
            }
            let image = foreign::ForeignImage::new(file, format, &name, cancel)?;
            return not_empty(image, &name).map(Some);
        }
        if image.checksum.is_none() {
            return not_empty(RawImage::new(file, &name)?, &name).map(Some);
        }
    }
    let size = size_of(&file).map_err(|source| SourceError::Io {
        name: name.clone(),
        offset: None,
        source,
    })?;
    open_stream(file, Some(size), image, &name, config, room, cancel).map(Some)
}

/// A disk without a byte is nobody's image.
fn not_empty(
    image: impl ImageReader + 'static,
    name: &str,
) -> Result<Box<dyn ImageReader>, SourceError> {
    match image.size() {
        Some(0) => Err(SourceError::empty(name)),
        _ => Ok(Box::new(image)),
    }
}

/// HELPER_DIR may be inside IMAGE_DIR. Its files are not images: a snapshot is a VM's memory.
fn not_of_the_helper(file: &File, name: &str, config: &Config) -> Result<(), SourceError> {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = file.metadata() else { return Ok(()) };
    let same = |path: std::path::PathBuf| {
        std::fs::metadata(path)
            .is_ok_and(|other| other.dev() == found.dev() && other.ino() == found.ino())
    };
    let entries = std::fs::read_dir(&config.helper_dir).into_iter().flatten().flatten();
    if entries.map(|entry| entry.path()).any(same) {
        return Err(SourceError::Bad {
            name: format!("{name:?}"),
            problem: "is refused: it is a file of the helper VM (HELPER_DIR)".into(),
        });
    }
    Ok(())
}

fn size_of(file: &File) -> io::Result<u64> {
    let mut file = file;
    let size = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    io::Seek::seek(&mut file, io::SeekFrom::Start(0))?;
    Ok(size)
}

/// A container is not read in order, so its checksum is taken before.
fn verify_file(
    file: &File,
    checksum: &id::Checksum,
    name: &str,
    cancel: &Cancel,
) -> Result<(), SourceError> {
    let io_error = |source| SourceError::Io { name: name.to_owned(), offset: None, source };
    let mut reader = Verified::new(file, checksum);
    let mut buf = vec![0; 1 << 20];
    while fill(&mut reader, &mut buf).map_err(io_error)? > 0 {
        cancel.check()?;
    }
    size_of(file).map(drop).map_err(io_error)
}

/// A reader of the stored file of `size` bytes as an image.
fn open_stream(
    reader: impl Read + Send + 'static,
    size: Option<u64>,
    image: &ImageId,
    name: &str,
    config: &Config,
    room: Option<u64>,
    cancel: &Cancel,
) -> Result<Box<dyn ImageReader>, SourceError> {
    // Only the size of an uncompressed file is that of what comes out.
    let size = size.filter(|_| image.compression == Compression::None);
    let mut reader: Box<dyn Read + Send> = match &image.checksum {
        Some(checksum) => Box::new(Verified::new(reader, checksum)),
        None => Box::new(reader),
    };
    if image.compression != Compression::None {
        let unpacked = ToTheEnd::new(reader, image.compression);
        reader = Box::new(unpacked.map_err(|source| SourceError::Io {
            name: name.to_owned(),
            offset: None,
            source,
        })?);
    }
    let io_error = |source| SourceError::Io { name: name.to_owned(), offset: None, source };
    let Some(reader) = cancel.wait(move || stream::peek(reader))?.map_err(io_error)? else {
        return Err(SourceError::empty(name));
    };
    let kind = match image.container {
        Container::Raw => None,
        Container::Qcow2 => Some("qcow2"),
        Container::Foreign(format) => Some(format.name()),
    };
    if let Some(kind) = kind {
        let qcow2 = image.container == Container::Qcow2;
        log::info(&format!(
            "keeping the image {name} in {}: {kind} cannot be read while it arrives",
            config.spool_dir.display()
        ));
        let (dir, own_name, own_cancel) =
            (config.spool_dir.clone(), name.to_owned(), cancel.clone());
        let file = cancel.wait(move || {
            spool::spool(reader, size, room, &dir, &own_name, qcow2, &own_cancel)
        })??;
        return match image.container {
            Container::Foreign(format) => {
                not_empty(foreign::ForeignImage::new(file, format, name, cancel)?, name)
            }
            _ => not_empty(qcow2::Qcow2Image::new(file, name)?, name),
        };
    }
    Ok(Box::new(StreamImage::new(reader, name, size)))
}
