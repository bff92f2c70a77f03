//! Files beside the program.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A file beside the program whose content cannot be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {what} {}", .path.display())]
pub struct SourceError {
    /// Its part in the request: `content file`, `archive`, `local file`, `script`.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: Problem,
}

impl SourceError {
    /// The error of a file.
    pub fn new(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { what, path: path.into(), source: Problem(source) }
    }
}

/// An error of the operating system, told without its number.
#[derive(Debug)]
pub struct Problem(io::Error);

impl Problem {
    /// The error itself.
    pub fn io(&self) -> &io::Error {
        &self.0
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.split_once(" (os error ") {
            Some((plain, _)) => f.write_str(&plain.to_ascii_lowercase()),
            None => f.write_str(&text),
        }
    }
}

impl std::error::Error for Problem {}
