//! Errors of partition tables.

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
        /// Its place (`sector 1`, `partition entry 3`).
        position: String,
        /// The value that was found and the one that was expected.
        detail: String,
    },
    /// The table uses something that this crate does not handle. Nothing is wrong with it.
    #[error("{what} is not supported; {remedy}")]
    Unsupported {
        /// The feature.
        what: String,
        /// The person's way out.
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

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// The kinds of errors with their cause's text. A new kind does not compile before it is named
    /// here.
    fn cause(error: &Error) -> Option<String> {
        match error {
            Error::Io { source, .. } => Some(source.to_string()),
            Error::Corrupt { .. } | Error::Unsupported { .. } | Error::Invalid(_) => None,
        }
    }

    #[test]
    fn no_error_repeats_its_cause() {
        let source = io::Error::other("the cause of all");
        for error in [
            Error::Io { operation: "read", offset: 512, length: 512, source },
            Error::corrupt("EBR", "sector 1", "damaged"),
            Error::Unsupported { what: "it".into(), remedy: "leave it".into() },
            Error::Invalid("no".into()),
        ] {
            let text = format!("{error}");
            assert_eq!(error.source().map(ToString::to_string), cause(&error));
            assert!(cause(&error).is_none_or(|cause| !text.contains(&cause)), "{text}");
        }
    }
}
