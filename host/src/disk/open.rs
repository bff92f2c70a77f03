//! A disk of the instance, opened: on this node, or behind a storage daemon.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::disk::destination::Destination;
use crate::disk::error::TargetError;
use crate::disk::storage::{RemoteDisk, StorageError};
use crate::disk::target::Target;
use crate::node::cancel::Cancel;
use crate::node::config::Config;

/// Why a disk cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// One on this node.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// One behind a storage daemon.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A system call.
    #[error("cannot duplicate a descriptor")]
    Duplicate(#[source] io::Error),
}

/// The place of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A block device or a plain file.
    Path(PathBuf),
    /// An address that only QEMU's block layer reaches.
    Uri(String),
}

impl Place {
    /// Chooses: the path, unless there is none or it is neither a block device nor a file and
    /// there is a URI. `None` when there is neither.
    pub fn choose(path: Option<&Path>, uri: Option<&str>) -> Option<Self> {
        let usable = |path: &&Path| {
            std::fs::metadata(path)
                .is_ok_and(|found| found.is_file() || found.file_type().is_block_device())
        };
        match (path, uri) {
            (Some(path), None) => Some(Self::Path(path.to_owned())),
            (Some(path), Some(uri)) => Some(match Some(path).filter(usable) {
                Some(path) => Self::Path(path.to_owned()),
                None => Self::Uri(uri.to_owned()),
            }),
            (None, Some(uri)) => Some(Self::Uri(uri.to_owned())),
            (None, None) => None,
        }
    }

    /// The text that back-ends are asked about.
    pub fn text(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Uri(uri) => uri.clone(),
        }
    }
}

/// An open disk.
pub enum OpenDisk {
    /// On this node.
    Local(Target),
    /// Behind a storage daemon.
    Remote(RemoteDisk),
}

impl OpenDisk {
    /// Opens it for writing.
    pub fn open(place: &Place, config: &Config, cancel: &Cancel) -> Result<Self, DiskError> {
        Ok(match place {
            Place::Path(path) => Self::Local(Target::open(path)?.with_rest(config.rest)),
            Place::Uri(uri) => {
                let disk = RemoteDisk::open(&daemon(config), uri, cancel)?;
                Self::Remote(disk.with_rest(config.rest))
            }
        })
    }

    /// The disk as something to write to.
    pub fn destination(&mut self) -> &mut dyn Destination {
        match self {
            Self::Local(target) => target,
            Self::Remote(disk) => disk,
        }
    }
}

/// The storage daemon's program.
pub fn daemon(config: &Config) -> PathBuf {
    config.storage_daemon.clone().unwrap_or_else(|| "qemu-storage-daemon".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_where_it_can_be_used() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let uri = Some("rbd:p/i");
        let path = |path: &Path| Some(Place::Path(path.to_owned()));
        let remote = Some(Place::Uri("rbd:p/i".into()));
        assert_eq!(Place::choose(Some(file.path()), uri), path(file.path()));
        assert_eq!(Place::choose(Some(file.path()), None), path(file.path()));
        assert_eq!(Place::choose(Some(Path::new("/nonexistent")), uri), remote);
        assert_eq!(Place::choose(Some(Path::new("/dev/null")), uri), remote);
        assert_eq!(Place::choose(Some(Path::new("/x")), None), path(Path::new("/x")));
        assert_eq!(Place::choose(None, uri), remote);
        assert_eq!(Place::choose(None, None), None);
    }
}
