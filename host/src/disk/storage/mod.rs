//! Disks that have no path on this node (`DISK_n_URI`): QEMU's storage daemon opens them, and we
//! and the helper VM reach them by NBD over a socket that has no name.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use snf_storage::DaemonError;
use snf_storage::nbd::MAX_REQUEST;
pub use snf_storage::{EXPORT, NbdClient, StorageDaemon};

use crate::disk::buffer::align_down;
use crate::disk::destination::Destination;
use crate::disk::error::TargetError;
use crate::node::cancel::Cancel;
use crate::node::config::Rest;

pub mod uri;

/// Bytes at both ends of what the image leaves free that are zeroed whatever it costs.
const LABEL_AREA: u64 = 1 << 20;
/// Zeroing goes in steps of this many bytes, so that a signal is seen in between.
const ZERO_STEP: u64 = 256 << 20;

/// Why a disk without a path cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Not an address we know.
    #[error("the disk URI {uri:?} cannot be used: {problem}")]
    Uri {
        /// The address.
        uri: String,
        /// The problem, and the valid values.
        problem: String,
    },
    /// The daemon is not installed.
    #[error(
        "cannot run {program}, which a disk needs that has only a URI; install qemu-system-common \
         (which has qemu-storage-daemon) or set STORAGE_DAEMON"
    )]
    NoDaemon {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The daemon does not open the disk.
    #[error("cannot open the disk {uri:?}: {problem}")]
    Open {
        /// The address.
        uri: String,
        /// The daemon's words.
        problem: String,
    },
    /// A system call.
    #[error("cannot {action}")]
    System {
        /// The step that failed.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl From<DaemonError> for StorageError {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::NoProgram { program, source } => Self::NoDaemon { program, source },
            DaemonError::System { action, source } => Self::System { action, source },
            other => {
                Self::System { action: "run the storage daemon", source: io::Error::other(other) }
            }
        }
    }
}

/// A client of `export` whose waits end when a stop was asked for.
///
/// # Errors
/// The server is none, or knows no such export.
pub fn connect(stream: UnixStream, export: &str, cancel: &Cancel) -> io::Result<NbdClient> {
    let cancel = cancel.clone();
    NbdClient::connect(stream, export, move || cancel.check().map_err(io::Error::other))
}

/// The daemon's words about its end, or the error at our end.
fn complaint(daemon: &mut StorageDaemon, error: &io::Error) -> String {
    match daemon.complaint() {
        Some(words) if words.contains("Unknown driver") => {
            format!("{words}; its driver is not installed here: install qemu-block-extra")
        }
        Some(words) => words,
        None => format!("the storage daemon does not answer: {error}"),
    }
}

/// A disk behind a storage daemon.
#[derive(Debug)]
pub struct RemoteDisk {
    // The connection is closed before the daemon is ended.
    client: NbdClient,
    daemon: Arc<StorageDaemon>,
    uri: String,
    rest: Rest,
}

impl RemoteDisk {
    /// Opens the disk that `uri` names.
    pub fn open(program: &Path, uri: &str, cancel: &Cancel) -> Result<Self, StorageError> {
        let options = uri::blockdev(uri)
            .map_err(|problem| StorageError::Uri { uri: uri.to_owned(), problem })?;
        let disk = json!({"driver": "raw", "file": options});
        let mut daemon = StorageDaemon::start(program, disk, true, &[])?;
        let client = daemon.connect().and_then(|stream| connect(stream, EXPORT, cancel));
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                let problem = complaint(&mut daemon, &error);
                return Err(StorageError::Open { uri: uri.to_owned(), problem });
            }
        };
        if client.read_only() {
            let problem = "it can only be read".into();
            return Err(StorageError::Open { uri: uri.to_owned(), problem });
        }
        Ok(Self { client, daemon: Arc::new(daemon), uri: uri.to_owned(), rest: Rest::default() })
    }

    /// Sets the treatment of the blocks after an image.
    pub fn with_rest(mut self, rest: Rest) -> Self {
        self.rest = rest;
        self
    }

    /// The daemon, for further connections.
    pub fn daemon(&self) -> &Arc<StorageDaemon> {
        &self.daemon
    }

    /// Its address.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.client.size()
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    ///
    /// The connection broke, or the daemon cannot read there.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.client.read(offset, buf)
    }

    fn error(&self, operation: &'static str, offset: u64, source: io::Error) -> TargetError {
        TargetError::Io { path: PathBuf::from(&self.uri), operation, offset, source }
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.client.size() => Ok(()),
            _ => Err(self.error(
                "write",
                offset,
                io::Error::other(format!(
                    "{length} bytes would pass the end of the disk ({} bytes)",
                    self.client.size()
                )),
            )),
        }
    }
}

impl Destination for RemoteDisk {
    fn name(&self) -> String {
        self.uri.clone()
    }

    fn size(&self) -> u64 {
        self.client.size()
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        self.check_range(offset, bytes.len() as u64)?;
        self.client.write(offset, bytes).map_err(|error| self.error("write", offset, error))
    }

    fn zero(&mut self, offset: u64, length: u64, cancel: &Cancel) -> Result<(), TargetError> {
        self.check_range(offset, length)?;
        let (mut at, end) = (offset, offset + length);
        while at < end {
            cancel.check()?;
            let step = (end - at).min(ZERO_STEP) as u32;
            let done = self
                .client
                .write_zeroes(at, step, false)
                .map_err(|error| self.error("zero", at, error))?;
            if done {
                at += u64::from(step);
                continue;
            }
            // A server that has no such request gets them as data.
            let step = (end - at).min(MAX_REQUEST as u64);
            let zeros = vec![0; step as usize];
            self.client.write(at, &zeros).map_err(|error| self.error("zero", at, error))?;
            at += step;
        }
        Ok(())
    }

    fn zero_tail(&mut self, from: u64, cancel: &Cancel) -> Result<(), TargetError> {
        let end = self.client.size();
        if from >= end {
            return Ok(());
        }
        if self.rest == Rest::Everything {
            return self.zero(from, end - from, cancel);
        }
        let head_end = from.saturating_add(LABEL_AREA).min(end);
        self.zero(from, head_end - from, cancel)?;
        let tail_start = align_down(end.saturating_sub(LABEL_AREA)).max(head_end);
        self.zero(tail_start, end - tail_start, cancel)?;
        let mut at = head_end;
        while at < tail_start && self.client.fast_zero() {
            cancel.check()?;
            let step = (tail_start - at).min(ZERO_STEP) as u32;
            let done = self.client.write_zeroes(at, step, true);
            if !done.map_err(|error| self.error("zero", at, error))? {
                break;
            }
            at += u64::from(step);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TargetError> {
        self.client.flush().map_err(|error| self.error("flush", 0, error))
    }
}
