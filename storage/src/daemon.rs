//! The daemon: how it is started, reached and ended.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::child::Program;

/// The name of the export, and of the node in the daemon that it shows.
pub const EXPORT: &str = "disk";
/// A daemon that was asked to end has this long to close its disk.
const CLOSING: Duration = Duration::from_secs(30);

/// Why no daemon runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The program cannot be run.
    #[error("cannot run {program}")]
    NoProgram {
        /// The program.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
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

fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> DaemonError {
    move |source| DaemonError::System { action, source: source.into() }
}

/// A storage daemon that has one disk open. It ends when it is dropped.
#[derive(Debug)]
pub struct StorageDaemon {
    program: Program,
    /// The socket, opened as a place: its name is gone, and only this leads to it.
    door: OwnedFd,
    words: File,
}

impl StorageDaemon {
    /// Starts `program` (`qemu-storage-daemon`) with a block device of these options (as `--blockdev`
    /// takes them; `node-name` is added). It inherits the descriptors `inherited`, which the options may
    /// name. Call it on a thread that lives as long as the disk is needed.
    ///
    /// # Errors
    /// The program cannot be run. A disk that it cannot open is told by [`Self::connect`] and
    /// [`Self::complaint`].
    pub fn start(
        program: &Path,
        mut disk: Value,
        writable: bool,
        inherited: &[BorrowedFd<'_>],
    ) -> Result<Self, DaemonError> {
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
        if let Some(options) = disk.as_object_mut() {
            options.insert("node-name".to_owned(), EXPORT.into());
        }
        let server = json!({"addr": {"type": "fd", "str": listener.as_raw_fd().to_string()}});
        let export = json!({
            "type": "nbd", "id": "export", "node-name": EXPORT, "name": EXPORT,
            "writable": writable,
        });
        let mut command = Command::new(program);
        command
            .args(["--blockdev", &disk.to_string()])
            .args(["--nbd-server", &server.to_string()])
            .args(["--export", &export.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        let mut descriptors = vec![listener.as_fd()];
        descriptors.extend_from_slice(inherited);
        let program = Program::spawn(&mut command, &[], &descriptors)
            .map_err(|source| DaemonError::NoProgram { program: program.to_owned(), source })?;
        Ok(Self { program, door, words })
    }

    /// A new connection.
    ///
    /// # Errors
    /// The daemon has ended.
    pub fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.door.as_raw_fd()))
    }

    /// The process number of the daemon.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// The last words of a daemon that does not serve its disk; `None` when it said nothing.
    pub fn complaint(&mut self) -> Option<String> {
        // A daemon that refuses the disk has ended by now, or does in a moment.
        let _ = self.program.wait_until(Instant::now() + Duration::from_secs(2), &|| false);
        let mut bytes = vec![0; 8192];
        let length = self.words.read_at(&mut bytes, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        // Its sentence begins with the whole of its arguments.
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(last.rsplit_once("}: ").map_or(last, |(_, end)| end).to_owned())
    }

    /// Has the daemon close its disk in order, which the format may need, and waits for its end.
    pub fn finish(mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.program.id().cast_signed()) {
            // The program has not been waited for, so the number is its own.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let _ = self.program.wait_until(Instant::now() + CLOSING, &|| false);
    }
}
