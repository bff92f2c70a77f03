//! What can go wrong with a partition table.

use std::io;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a table could not be read, a change not be planned or not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A structure on the disk contradicts itself, the disk or another structure.
    #[error("corrupt {structure} at {position}: {detail}")]
    Corrupt {
        /// The structure, in the specification's words (`GPT header`, `EBR`).
        structure: &'static str,
        /// Where it is (`sector 1`, `partition entry 3`).
        position: String,
        /// What was found and what was expected.
        detail: String,
    },
    /// The table uses something that this crate does not handle. Nothing is wrong with it.
    #[error("{what} is not supported; {remedy}")]
    Unsupported {
        /// What it is.
        what: String,
        /// What the person can do about it.
        remedy: String,
    },
    /// The request cannot be met on this table.
    #[error("{0}")]
    Invalid(String),
    /// The disk failed.
    #[error("cannot {operation} {length} bytes at byte {offset} of the disk")]
    Io {
        /// `read`, `write`, `flush`.
        operation: &'static str,
        /// Byte offset on the disk.
        offset: u64,
        /// Bytes asked for.
        length: usize,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// A [`Error::Corrupt`] in one call.
    pub(crate) fn corrupt(
        structure: &'static str,
        position: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::Corrupt { structure, position: position.into(), detail: detail.into() }
    }
}
