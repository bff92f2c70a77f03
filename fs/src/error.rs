//! Errors: the image is of a kind we do not support, the image is corrupt, the device
//! failed, or the request itself cannot be met.

use std::io;

pub use crate::text::display_name;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The device's own failure.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {length} bytes at byte {offset}")]
pub struct DeviceError {
    /// `read`, `write`, `flush`.
    pub operation: &'static str,
    /// Byte offset on the device.
    pub offset: u64,
    /// Bytes asked for.
    pub length: usize,
    /// The operating system's error.
    #[source]
    pub source: io::Error,
}

/// Why an operation on a file system failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image uses something this engine does not handle. Nothing is wrong with the image.
    #[error("{what} is not supported; {remedy}")]
    Unsupported {
        /// The feature, in the field's words (`encrypt`, `journal_dev`).
        what: String,
        /// The person's way out.
        remedy: String,
    },
    /// An on-disk structure contradicts itself or the rest of the file system.
    #[error("corrupt {structure} at {position}: {detail}")]
    Corrupt {
        /// The structure, in the specification's words (`superblock`, `extent node`).
        structure: &'static str,
        /// Its place (`block 1234`, `inode 12`, `byte 1024`).
        position: String,
        /// The value that was found and the one that was expected.
        detail: String,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No such file or directory.
    #[error("{0}: no such file or directory")]
    NotFound(String),
    /// The name is taken.
    #[error("{0}: already exists")]
    Exists(String),
    /// A path component is not a directory.
    #[error("{0}: not a directory")]
    NotADirectory(String),
    /// A directory where a file was wanted.
    #[error("{0}: is a directory")]
    IsADirectory(String),
    /// The directory to remove still has entries.
    #[error("{0}: directory not empty")]
    NotEmpty(String),
    /// The node is neither a regular file nor whatever the operation wants.
    #[error("{0}: {1}")]
    WrongType(String, &'static str),
    /// More symbolic links than are followed (40), or a loop of them.
    #[error("{0}: too many levels of symbolic links")]
    SymlinkLoop(String),
    /// A path of more than 4096 bytes or a name longer than the file system takes.
    #[error("{0}: name too long")]
    NameTooLong(String),
    /// No free block, inode or journal space.
    #[error("no space left on the file system: {0}")]
    NoSpace(String),
    /// The file system may be read but not changed, and why.
    #[error("the file system is read-only: {0}")]
    ReadOnly(String),
    /// The content that was to be written could not be had.
    #[error("{0}: its content cannot be read")]
    Content(String, #[source] io::Error),
    /// The request makes no sense for this node or file system.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// A [`Error::Corrupt`] in one call.
    pub fn corrupt(
        structure: &'static str,
        position: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::Corrupt { structure, position: position.into(), detail: detail.into() }
    }

    /// A [`Error::Unsupported`] in one call.
    pub fn unsupported(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), remedy: remedy.into() }
    }

    /// Whether the thing asked for simply is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::tree::CommitError;

    fn device() -> DeviceError {
        let source = io::Error::other("the cause of all");
        DeviceError { operation: "read", offset: 4096, length: 512, source }
    }

    /// Whether a kind of error has a cause. A new kind does not compile before it is named here.
    fn has_source(error: &Error) -> bool {
        match error {
            Error::Device(_) | Error::Content(..) => true,
            Error::Unsupported { .. }
            | Error::Corrupt { .. }
            | Error::NotFound(_)
            | Error::Exists(_)
            | Error::NotADirectory(_)
            | Error::IsADirectory(_)
            | Error::NotEmpty(_)
            | Error::WrongType(..)
            | Error::SymlinkLoop(_)
            | Error::NameTooLong(_)
            | Error::NoSpace(_)
            | Error::ReadOnly(_)
            | Error::Invalid(_) => false,
        }
    }

    #[test]
    fn no_error_repeats_its_cause() {
        let errors: [&dyn std::error::Error; 4] = [
            &device(),
            &Error::Content("/etc/motd".into(), io::Error::other("the cause of all")),
            &Error::Device(device()),
            &CommitError {
                path: "/boot".into(),
                source: Error::corrupt("superblock", "byte 1024", "the cause of all"),
                committed: vec!["/".into()],
            },
        ];
        for error in errors {
            let source = error.source().expect("it has a cause").to_string();
            let text = format!("{error}");
            assert!(!text.contains(&source) && !text.contains("the cause of all"), "{text}");
        }
        assert!(has_source(&Error::Device(device())));
        let other = Error::corrupt("superblock", "byte 1024", "damaged");
        assert!(!has_source(&other) && other.source().is_none());
    }

    /// The test above knows every type of error there is.
    #[test]
    fn every_type_of_error_is_known() {
        let types = crate::testing::error_types(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
        assert_eq!(types, ["CommitError", "DeviceError", "Error"]);
    }
}
