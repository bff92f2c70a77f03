//! Errors of disks.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::node::cancel::Cancelled;

/// An error of a disk.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It cannot be opened.
    #[error("cannot open the disk {}{}", path.display(), hint(source))]
    Open {
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Somebody else uses it.
    #[error("the disk {} is busy", path.display())]
    Busy {
        /// The path.
        path: PathBuf,
        /// The other user.
        source: snf_claim::Busy,
    },
    /// It is a directory, a pipe, a character device.
    #[error("the disk {} is neither a block device nor a plain file", .0.display())]
    Kind(PathBuf),
    /// Reading or writing failed.
    #[error("cannot {operation} the disk {} at byte {offset}{}", path.display(), hint(source))]
    Io {
        /// The path.
        path: PathBuf,
        /// `write`, `zero`, `flush`.
        operation: &'static str,
        /// The byte where it happened.
        offset: u64,
        /// The system's error.
        source: io::Error,
    },
    /// A back-end that writes the disk.
    #[error("the back-end {name} {problem}")]
    Backend {
        /// Its name.
        name: String,
        /// Its mistake.
        problem: String,
    },
    /// A signal came.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Advice for some errors.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::BUSY) => " (it is mounted or used by another device; release it first)",
        Some(Errno::NOSPC) => " (its storage is full)",
        Some(Errno::NOENT) => " (Ganeti should have made it; see gnt-instance activate-disks)",
        _ => "",
    }
}
