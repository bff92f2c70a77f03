//! The worker's end of the socket to the broker.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use snf_fs::{Error, FileType, Result};

use super::wire::{Answer, Bytes, Meta, Mounted, NodeStat, PIECE, Request, receive, send};

/// Asks the broker, one question at a time.
#[derive(Debug)]
pub(crate) struct Client(Mutex<File>);

impl Client {
    /// Over a socket, used as a file: the worker's filter lets it read and write, no more.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(Mutex::new(socket.into()))
    }

    fn ask(&self, request: &Request) -> Result<Answer> {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |problem: String| {
            Error::Invalid(format!("the process that mounts file systems is gone: {problem}"))
        };
        send(&mut *socket, request).map_err(|e| lost(e.to_string()))?;
        match receive(&mut *socket) {
            Ok(Some(Answer::Failed { what, errno })) => Err(failed(what, errno)),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(lost("it has ended".to_owned())),
            Err(error) => Err(lost(error.to_string())),
        }
    }

    /// For requests that are answered by nothing but their being done.
    pub(super) fn tell(&self, request: &Request) -> Result<()> {
        match self.ask(request)? {
            Answer::Done {} => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn mount(&self, disk: &str, start: u64, size: u64, kind: &str) -> Result<Mounted> {
        let request = Request::Mount { disk: disk.into(), start, size, kind: kind.into() };
        match self.ask(&request) {
            Ok(Answer::Mounted { mounted }) => Ok(mounted),
            Ok(other) => Err(unexpected(&other)),
            // The device is write-protected until the commit: what has something to finish first
            // cannot.
            Err(Error::ReadOnly(_)) => Err(unfinished(kind)),
            Err(error) => Err(error),
        }
    }

    pub(super) fn stat(&self, mount: u32, path: &[u8]) -> Result<Option<NodeStat>> {
        match self.ask(&Request::Stat { mount, path: path.into() })? {
            Answer::Stat { stat } => Ok(stat),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn list(&self, mount: u32, path: &[u8]) -> Result<Vec<(Bytes, Option<FileType>)>> {
        match self.ask(&Request::List { mount, path: path.into() })? {
            Answer::List { entries } => Ok(entries),
            other => Err(unexpected(&other)),
        }
    }

    /// Fills `buf`; less only at the file's end.
    pub(super) fn read(
        &self,
        mount: u32,
        path: &[u8],
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            let wanted = (buf.len() - filled).min(PIECE);
            let request = Request::Read {
                mount,
                path: path.into(),
                offset: offset.saturating_add(filled as u64),
                length: wanted as u32,
            };
            let bytes = match self.ask(&request)? {
                Answer::Bytes { bytes } if bytes.len() <= wanted => bytes,
                other => return Err(unexpected(&other)),
            };
            buf[filled..filled + bytes.len()].copy_from_slice(&bytes);
            filled += bytes.len();
            if bytes.len() < wanted {
                break;
            }
        }
        Ok(filled)
    }

    pub(super) fn read_link(&self, mount: u32, path: &[u8]) -> Result<Bytes> {
        match self.ask(&Request::ReadLink { mount, path: path.into() })? {
            Answer::Bytes { bytes } => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn xattrs(&self, mount: u32, path: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        match self.ask(&Request::Xattrs { mount, path: path.into() })? {
            Answer::Xattrs { xattrs } => Ok(xattrs),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn subvolume_read_only(&self, mount: u32, path: &[u8]) -> Result<bool> {
        match self.ask(&Request::SubvolumeReadOnly { mount, path: path.into() })? {
            Answer::Flag { value } => Ok(value),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives a file a new content.
    pub(super) fn write(
        &self,
        mount: u32,
        path: &[u8],
        in_place: bool,
        content: &[u8],
        meta: Meta,
    ) -> Result<()> {
        self.tell(&Request::Open { mount, path: path.into(), in_place })?;
        for piece in content.chunks(PIECE) {
            self.tell(&Request::Data { bytes: piece.into() })?;
        }
        self.tell(&Request::Close { meta })
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::Invalid(format!("the process that mounts file systems gave a wrong answer: {answer:?}"))
}

fn unfinished(kind: &str) -> Error {
    Error::unsupported(
        format!(
            "a {kind} file system whose log holds changes that were not finished (its machine was \
             not shut down cleanly)"
        ),
        "start that machine, shut it down and take the image then, or mount and unmount the file \
         system once",
    )
}

/// The words of [`failed`] about drivers that another initramfs has.
const LACKS_DRIVERS: &str = "drivers that this initramfs does not have";

/// Whether a mount failed because the drivers are in another initramfs.
pub(super) fn lacks_drivers(error: &Error) -> bool {
    matches!(error, Error::Unsupported { what, .. } if what == LACKS_DRIVERS)
}

/// The system's error as one of ours.
fn failed(what: String, number: i32) -> Error {
    let errno = Errno::from_raw_os_error(number);
    let text = format!("cannot {what}: {}", std::io::Error::from_raw_os_error(number));
    match errno {
        Errno::NOENT => Error::NotFound(what),
        Errno::NOTDIR => Error::NotADirectory(what),
        Errno::NAMETOOLONG => Error::NameTooLong(what),
        Errno::NOSPC | Errno::DQUOT => Error::NoSpace(text),
        Errno::ROFS => Error::ReadOnly(text),
        Errno::NOPKG => {
            Error::unsupported(LACKS_DRIVERS, "start again with the initramfs that has them")
        }
        Errno::NODEV => Error::unsupported(
            what,
            "build the helper with a kernel that has the driver, and without --engines-only \
             (snf-image-update-helper)",
        ),
        // The errors of the kernel's file systems for structures that make no sense, and for blocks
        // whose checksum is wrong.
        Errno::UCLEAN | Errno::BADMSG | Errno::IO => {
            Error::corrupt("file system", "the kernel's driver", text)
        }
        _ => Error::Invalid(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_family() {
        assert!(failed("x".into(), 2).is_not_found());
        assert!(matches!(failed("x".into(), 117), Error::Corrupt { .. }));
        assert!(matches!(failed("x".into(), 28), Error::NoSpace(_)));
        let other = failed("mount the xfs file system".into(), 22).to_string();
        assert!(other.starts_with("cannot mount the xfs file system: Invalid argument"), "{other}");
    }

    #[test]
    fn a_broker_that_is_gone() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(theirs);
        let error = Client::new(ours.into()).stat(0, b"etc").unwrap_err().to_string();
        assert!(error.contains("is gone"), "{error}");
    }
}
