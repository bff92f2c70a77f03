//! File systems that our engines do not know, read and changed by this VM's kernel: XFS and btrfs.
//!
//! The worker holds all changes in memory ([`overlay`]) as it does with our own engines, and has
//! no right to mount anything. A second process, the broker, has; it is started when the worker
//! first asks for a mount, and does what the worker asks for ([`wire`]) below the mounts' roots.

pub(crate) mod broker;
mod client;
mod commit;
mod files;
mod mounts;
mod overlay;
mod state;
#[cfg(test)]
mod tests;
mod wire;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use snf_fs::{FileSystem, Kind};
use snf_image::guest::mounter::{Foreign, Mounter};

use client::Client;
use overlay::{Identity, KernelFs};

use crate::report::{Message, Reporter};

/// Mounts what the broker can, of one disk.
pub(crate) struct KernelMounter {
    client: Arc<Client>,
    disk: String,
}

impl KernelMounter {
    /// For the disk with this device file; the broker listens at the other end of `socket`.
    pub(crate) fn new(socket: OwnedFd, disk: &str) -> Self {
        Self { client: Arc::new(Client::new(socket)), disk: disk.to_owned() }
    }
}

impl Mounter for KernelMounter {
    fn open(&self, foreign: &Foreign<'_>) -> Option<snf_fs::Result<Box<dyn FileSystem>>> {
        let kind = match foreign.kind {
            "xfs" => Kind::Xfs,
            "btrfs" => Kind::Btrfs,
            _ => return None,
        };
        let identity = Identity {
            kind,
            uuid: foreign.uuid.unwrap_or_default().to_owned(),
            label: foreign.label.unwrap_or_default().to_owned(),
            now: foreign.now,
        };
        let client = self.client.clone();
        match KernelFs::open(client, &self.disk, foreign.start, foreign.size, identity) {
            Ok(fs) => Some(Ok(Box::new(fs))),
            Err(error) if client::lacks_drivers(&error) => {
                // Nothing has been written, and what was decided so far was decided without this
                // file system: the host starts again with the initramfs that has the drivers.
                Reporter(io::stdout()).send(&Message::NeedsDrivers);
                std::process::exit(0);
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// The broker as PID 1 sees it: a socket until somebody speaks, then a process.
#[derive(Debug)]
pub(crate) struct Broker {
    socket: Option<OwnedFd>,
    child: Option<Child>,
}

impl Broker {
    /// Nothing is started yet. The worker gets the other end.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self { socket: Some(ours.into()), child: None }, theirs.into()))
    }

    /// The descriptor that becomes readable when the worker first asks for something.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// The worker has asked: starts the process that answers.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        let child = Command::new("/proc/self/exe")
            .arg(broker::ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }
}

impl Drop for Broker {
    /// The worker has come to its end. Committed changes are on the disk, and nobody waits for
    /// a call that hangs in the kernel.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
        }
    }
}
