//! Files beside the program.

use std::io;
use std::path::PathBuf;

/// A file beside the program whose content cannot be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot use content file {}", .path.display())]
pub struct SourceError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}
