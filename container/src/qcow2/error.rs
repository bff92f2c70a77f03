//! Why an image is refused, or an operation failed.

use std::io;

use snf_fs::DeviceError;

/// The result of everything in [`qcow2`](crate::qcow2).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image is refused, or an operation on it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file begins otherwise.
    #[error("not a qcow2 image: it does not begin with QFI\\xfb")]
    NotQcow2,
    /// The image uses something that this crate does not handle. Nothing is wrong with the image.
    #[error("{what}; {remedy}")]
    Unsupported {
        /// The image's property, as the rest of a sentence about it: `is encrypted`.
        what: String,
        /// The person's way out.
        remedy: &'static str,
    },
    /// A structure contradicts itself or the rest of the image.
    #[error("corrupt {structure} at byte {offset} of the file: {detail}")]
    Corrupt {
        /// The structure, in the specification's words.
        structure: &'static str,
        /// Its offset in bytes from the beginning of the file.
        offset: u64,
        /// The value that was found.
        detail: String,
    },
    /// The image must be repaired before it can be changed.
    #[error("is marked {mark}; repair it with qemu-img check -r all")]
    Marked {
        /// The feature bit: `dirty` or `corrupt`.
        mark: &'static str,
    },
    /// The image names a backing file, and nobody allowed to open one.
    #[error(
        "has the backing file {name}, which is opened only with --backing allow (or flatten the \
         image with qemu-img convert -O qcow2)"
    )]
    BackingRefused {
        /// The name in the image, printable.
        name: String,
    },
    /// The image does not say the format of its backing file, nor did the caller.
    #[error(
        "does not say the format of its backing file {name}, and a format is never guessed; \
         say it, or write it into the image with qemu-img rebase -u -F FORMAT -b {name}"
    )]
    BackingFormat {
        /// The name in the image, printable.
        name: String,
    },
    /// The backing file could not be opened.
    #[error("cannot open the backing file {name}")]
    Backing {
        /// The name in the image, printable.
        name: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A compressed cluster does not decompress.
    #[error("the compressed cluster at byte {offset} of the file is damaged")]
    Compressed {
        /// The offset of its data in bytes from the beginning of the file.
        offset: u64,
        /// The decompressor's error.
        #[source]
        source: io::Error,
    },
    /// The image was opened for reading.
    #[error("the image was opened for reading only")]
    ReadOnly,
    /// An earlier change could not be written whole: nothing more is written to this image.
    #[error("an earlier write to the image's tables failed; open the image again")]
    Failed,
    /// A range ends beyond the disk.
    #[error("{length} bytes at byte {offset} end beyond the disk of {size} bytes")]
    OutOfBounds {
        /// The first byte of the range on the virtual disk.
        offset: u64,
        /// How long it is.
        length: u64,
        /// Size of the virtual disk.
        size: u64,
    },
    /// The format or this crate has a limit below what was asked for.
    #[error("{what}: at most {limit} are possible")]
    TooLarge {
        /// The thing that was too large, with its size.
        what: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
}

impl Error {
    pub(crate) fn corrupt(structure: &'static str, offset: u64, detail: impl Into<String>) -> Self {
        Self::Corrupt { structure, offset, detail: detail.into() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, remedy: &'static str) -> Self {
        Self::Unsupported { what: what.into(), remedy }
    }

    /// For the trait of block devices: the device's own error as it is, all others below one.
    pub(crate) fn into_device(
        self,
        operation: &'static str,
        offset: u64,
        length: usize,
    ) -> DeviceError {
        match self {
            Self::Device(error) => error,
            other => DeviceError { operation, offset, length, source: io::Error::other(other) },
        }
    }
}
