//! [`Btrfs`]: the [`FileSystem`] that the layers below make together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file_id::FileId;
use super::units::TreeId;
use super::volume::Volume;
use super::{content, dir, inode, subvolume, xattr};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::filesystem::{
    Attributes, CommitReport, DirEntry, FileSystem, Info, Kind, NodeId, Stat, Times, Timestamp,
};

/// A btrfs, seen from one of its subvolumes. Views of the same file system share what waits for the
/// commit.
pub struct Btrfs {
    volume: Arc<Mutex<Volume>>,
    root: NodeId,
}

impl Btrfs {
    /// Opens the file system on a device, seen from its default subvolume. `now` is the time that
    /// changes carry.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names what this engine does not handle; [`Error::Corrupt`] and
    /// [`Error::Device`].
    pub fn open(device: Arc<dyn BlockDevice>, now: Timestamp) -> Result<Self> {
        let volume = Volume::open(device, now)?;
        let tree = subvolume::default(&volume)?;
        Self::view(&Arc::new(Mutex::new(volume)), tree)
    }

    fn view(shared: &Arc<Mutex<Volume>>, tree: TreeId) -> Result<Self> {
        let root = subvolume::root_of(tree);
        dir::check(&lock(shared), root)?;
        Ok(Self { volume: shared.clone(), root: root.node()? })
    }

    fn volume(&self) -> MutexGuard<'_, Volume> {
        lock(&self.volume)
    }
}

fn lock(volume: &Mutex<Volume>) -> MutexGuard<'_, Volume> {
    volume.lock().unwrap_or_else(PoisonError::into_inner)
}

const READ_ONLY: &str = "btrfs is only read without a VM so far; use --vm";

fn refused<T>() -> Result<T> {
    Err(Error::ReadOnly(READ_ONLY.into()))
}

impl FileSystem for Btrfs {
    fn info(&self) -> Result<Info> {
        let volume = self.volume();
        let raw = &volume.sb().raw;
        let end = raw.label.iter().position(|&byte| byte == 0).unwrap_or(raw.label.len());
        let size = raw.total_bytes.get();
        Ok(Info {
            kind: Kind::Btrfs,
            uuid: uuid::Uuid::from_bytes(raw.fsid).to_string(),
            label: crate::error::display_name(&raw.label[..end]),
            block_size: volume.sb().sector_size,
            size,
            free: size.saturating_sub(raw.bytes_used.get()),
        })
    }

    fn root(&self) -> NodeId {
        self.root
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let found = dir::lookup(&self.volume(), FileId::of(dir), name)?;
        found.map(FileId::node).transpose()
    }

    fn readdir(&self, dir: NodeId) -> Result<Vec<DirEntry>> {
        dir::list(&self.volume(), FileId::of(dir))
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        inode::stat(&self.volume(), FileId::of(node))
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        content::read(&self.volume(), FileId::of(node), offset, buf)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        content::read_link(&self.volume(), FileId::of(node))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        xattr::list(&self.volume(), FileId::of(node))
    }

    fn create(&mut self, _: NodeId, _: &[u8], _: Attributes) -> Result<NodeId> {
        refused()
    }
    fn mkdir(&mut self, _: NodeId, _: &[u8], _: Attributes) -> Result<NodeId> {
        refused()
    }
    fn symlink(&mut self, _: NodeId, _: &[u8], _: &[u8], _: Attributes) -> Result<NodeId> {
        refused()
    }
    fn replace(&mut self, _: NodeId, _: &[u8]) -> Result<()> {
        refused()
    }
    fn append(&mut self, _: NodeId, _: &[u8]) -> Result<()> {
        refused()
    }
    fn unlink(&mut self, _: NodeId, _: &[u8]) -> Result<()> {
        refused()
    }
    fn rmdir(&mut self, _: NodeId, _: &[u8]) -> Result<()> {
        refused()
    }
    fn rename(&mut self, _: NodeId, _: &[u8], _: NodeId, _: &[u8]) -> Result<()> {
        refused()
    }
    fn chmod(&mut self, _: NodeId, _: u16) -> Result<()> {
        refused()
    }
    fn chown(&mut self, _: NodeId, _: u32, _: u32) -> Result<()> {
        refused()
    }
    fn set_times(&mut self, _: NodeId, _: Times) -> Result<()> {
        refused()
    }
    fn set_xattr(&mut self, _: NodeId, _: &[u8], _: Option<&[u8]>) -> Result<()> {
        refused()
    }

    fn subvolume(&self, path: &[u8]) -> Result<Option<Box<dyn FileSystem>>> {
        let found = subvolume::by_path(&self.volume(), path)?;
        match found {
            Some(tree) => Ok(Some(Box::new(Self::view(&self.volume, tree)?))),
            None => Ok(None),
        }
    }

    fn is_dirty(&self) -> bool {
        self.volume().is_dirty()
    }

    fn commit(&mut self) -> Result<CommitReport> {
        Ok(CommitReport::default())
    }
}
