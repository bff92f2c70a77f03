//! Backing files: opened only when the caller allows it, never changed, never probed.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snf_fs::BlockDevice;

use super::Qcow2;
use super::error::{Error, Result};
use super::header::Header;
use super::image::Options;
use crate::file::{GrowableFile, ReadOnlyDevice};

/// The longest chain of backing files.
const MAX_DEPTH: u32 = 16;

/// May the file be opened that an image names? An image from elsewhere could name any file of this
/// machine.
#[derive(Clone, Default)]
pub enum Backing {
    /// No: an image with a backing file is refused.
    #[default]
    Refuse,
    /// Yes, by this resolver.
    Allow(Arc<dyn Resolver>),
}

/// The format of a backing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackingFormat {
    /// The bytes of the disk.
    Raw,
    /// Another qcow2 image.
    Qcow2,
}

/// Opens the files that images name.
pub trait Resolver: Send + Sync {
    /// Opens the backing file `name`, as the image has it.
    ///
    /// # Errors
    /// The name is of a kind that is not opened, or opening failed.
    fn open(&self, name: &[u8]) -> io::Result<BackingFile>;
}

/// An open backing file.
pub struct BackingFile {
    /// Its bytes. Nothing is written to it.
    pub device: Arc<dyn BlockDevice>,
    /// Opens what this file names in turn.
    pub resolver: Arc<dyn Resolver>,
}

/// Opens paths, relative ones from the directory of the image that names them.
#[derive(Clone, Debug)]
pub struct DirectoryResolver {
    directory: PathBuf,
    admit: fn(&File) -> io::Result<()>,
}

impl DirectoryResolver {
    /// For an image in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), admit: |_| Ok(()) }
    }

    /// The same, which shows each file to `admit` once it is open: to lock it, or to refuse it.
    #[must_use]
    pub fn admit(mut self, admit: fn(&File) -> io::Result<()>) -> Self {
        self.admit = admit;
        self
    }
}

impl Resolver for DirectoryResolver {
    fn open(&self, name: &[u8]) -> io::Result<BackingFile> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
        // QEMU would take these for a description, or for a protocol such as nbd: or https:.
        let name = name.strip_prefix(b"file:").unwrap_or(name);
        let colon = name.iter().position(|byte| matches!(byte, b':' | b'/'));
        if colon.is_some_and(|at| name[at] == b':') {
            return Err(invalid("only plain paths are opened"));
        }
        if name.contains(&0) {
            return Err(invalid("the name has a null byte"));
        }
        let path = self.directory.join(Path::new(std::ffi::OsStr::from_bytes(name)));
        // A named pipe would wait for a writer.
        let kind = fs::metadata(&path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(invalid("neither a file nor a block device"));
        }
        let file = File::open(&path)?;
        (self.admit)(&file)?;
        let device = Arc::new(GrowableFile::new(file)?);
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(BackingFile { device, resolver: Arc::new(Self { directory, admit: self.admit }) })
    }
}

/// The disk below the image with this header, if there is one.
pub(crate) fn open(
    header: &Header,
    format: Option<&str>,
    options: &Options,
) -> Result<Option<Arc<dyn BlockDevice>>> {
    let Some(name) = header.backing_name.as_deref() else { return Ok(None) };
    let printable = header.backing_for_people();
    let Backing::Allow(resolver) = &options.backing else {
        return Err(Error::BackingRefused { name: printable });
    };
    if options.depth >= MAX_DEPTH {
        let what = "the chain of backing files".to_owned();
        return Err(Error::TooLarge { what, limit: format!("{MAX_DEPTH} files") });
    }
    let format = match (options.backing_format, format) {
        (Some(said), _) => said,
        (None, Some("raw")) => BackingFormat::Raw,
        (None, Some("qcow2")) => BackingFormat::Qcow2,
        (None, Some(other)) => {
            return Err(Error::unsupported(
                format!("has a backing file of the format {other}"),
                "convert it with qemu-img convert -O qcow2",
            ));
        }
        (None, None) => return Err(Error::BackingFormat { name: printable }),
    };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Backing {
        name: printable.clone(),
        source,
    };
    let BackingFile { device, resolver } = resolver.open(name).map_err(|e| failed(Box::new(e)))?;
    if format == BackingFormat::Raw {
        return Ok(Some(device));
    }
    let below = Options {
        writable: false,
        cache: options.cache / 2,
        backing: Backing::Allow(resolver),
        backing_format: None,
        depth: options.depth + 1,
    };
    let disk = Qcow2::open(ReadOnlyDevice::new(device), below).map_err(|e| failed(Box::new(e)))?;
    Ok(Some(Arc::new(disk)))
}
