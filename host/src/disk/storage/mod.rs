//! Disks that have no path on this node (`DISK_n_URI`): QEMU's storage daemon opens them, and we
//! and the helper VM reach them by NBD over a socket that has no name.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags};
use serde_json::json;

use crate::disk::buffer::align_down;
use crate::disk::destination::Destination;
use crate::disk::error::TargetError;
use crate::node::cancel::Cancel;
use crate::node::child::Program;
use crate::node::config::Rest;

pub mod nbd;
pub mod uri;

use nbd::{MAX_REQUEST, NbdClient};

/// The name of the export.
pub const EXPORT: &str = "disk";
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
        /// What the daemon said.
        problem: String,
    },
    /// A system call.
    #[error("cannot {action}")]
    System {
        /// What was being done.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> StorageError {
    move |source| StorageError::System { action, source: source.into() }
}

/// A storage daemon that has one disk open. It ends when the last owner lets go of it.
#[derive(Debug)]
pub struct StorageDaemon {
    program: Program,
    /// The socket, opened as a place: its name is gone, and only this leads to it.
    door: OwnedFd,
    words: File,
}

impl StorageDaemon {
    /// Starts `program` (`qemu-storage-daemon`) on the disk. Call it on a thread that lives as
    /// long as the disk is needed.
    pub fn start(program: &Path, uri: &str) -> Result<Self, StorageError> {
        let options = uri::blockdev(uri)
            .map_err(|problem| StorageError::Uri { uri: uri.to_owned(), problem })?;
        let dir = tempfile::Builder::new()
            .prefix("snf-image-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(system("make a directory for a socket"))?;
        let path = dir.path().join("nbd");
        let listener = UnixListener::bind(&path).map_err(system("make a socket"))?;
        let door = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(system("open a socket"))?;
        // From here on nobody can find it, and there is nothing to clean up.
        dir.close().map_err(system("remove a directory"))?;
        let words = rustix::fs::memfd_create("snf-image-storage", MemfdFlags::CLOEXEC)
            .map(File::from)
            .map_err(system("make a memory file"))?;
        let errors = words.try_clone().map_err(system("duplicate a descriptor"))?;
        let disk = json!({"driver": "raw", "node-name": EXPORT, "file": options});
        let server = json!({"addr": {"type": "fd", "str": listener.as_raw_fd().to_string()}});
        let export = json!({
            "type": "nbd", "id": "export", "node-name": EXPORT, "name": EXPORT, "writable": true,
        });
        let mut command = Command::new(program);
        command
            .args(["--blockdev", &disk.to_string()])
            .args(["--nbd-server", &server.to_string()])
            .args(["--export", &export.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        let program = Program::spawn(&mut command, &[], &[listener.as_fd()])
            .map_err(|source| StorageError::NoDaemon { program: program.to_owned(), source })?;
        Ok(Self { program, door, words })
    }

    /// A new connection.
    pub fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.door.as_raw_fd()))
    }

    /// The process number of the daemon.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// What the daemon said about its end, or what our end saw.
    fn complaint(&mut self, error: &io::Error) -> String {
        // A daemon that refuses the disk has ended by now, or does in a moment.
        let _ = self.program.wait_until(Instant::now() + Duration::from_secs(2), &|| false);
        let mut bytes = vec![0; 8192];
        let length = self.words.read_at(&mut bytes, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        // Its sentence begins with the whole of its arguments.
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        match last.map(|line| line.rsplit_once("}: ").map_or(line, |(_, end)| end)) {
            Some(words) if words.contains("Unknown driver") => {
                format!("{words}; its driver is not installed here: install qemu-block-extra")
            }
            Some(words) => words.to_owned(),
            None => format!("the storage daemon does not answer: {error}"),
        }
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
        let mut daemon = StorageDaemon::start(program, uri)?;
        let client = daemon.connect().and_then(|stream| NbdClient::connect(stream, EXPORT, cancel));
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                let problem = daemon.complaint(&error);
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
