//! [`Btrfs`]: the [`FileSystem`] that the layers below make together.

mod entries;
mod names;
mod nodes;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file_id::FileId;
use super::units::TreeId;
use super::volume::Volume;
use super::{commit, content, dir, inode, new_chunk, subvolume, xattr};
use crate::device::BlockDevice;
use crate::error::Result;
use crate::filesystem::{
    Attributes, CommitReport, DirEntry, FileSystem, FileType, Info, Kind, NodeId, Stat, Times,
    Timestamp,
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
    /// [`crate::Error::Unsupported`] names what this engine does not handle;
    /// [`crate::Error::Corrupt`] and [`crate::Error::Device`].
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

impl Btrfs {
    /// Does the whole of a change, or nothing.
    fn change<T>(&self, work: impl FnOnce(&mut Volume) -> Result<T>) -> Result<T> {
        self.volume().attempt(work)
    }
}

impl FileSystem for Btrfs {
    fn info(&self) -> Result<Info> {
        let volume = self.volume();
        let raw = &volume.sb().raw;
        let end = raw.label.iter().position(|&byte| byte == 0).unwrap_or(raw.label.len());
        let size = volume.total_bytes.unwrap_or(raw.total_bytes.get());
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

    fn create(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        let dir = FileId::of(dir);
        self.change(|volume| names::make(volume, dir, name, FileType::Regular, attributes))?.node()
    }

    fn mkdir(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        let dir = FileId::of(dir);
        self.change(|volume| names::make(volume, dir, name, FileType::Directory, attributes))?
            .node()
    }

    fn symlink(
        &mut self,
        dir: NodeId,
        name: &[u8],
        target: &[u8],
        attributes: Attributes,
    ) -> Result<NodeId> {
        let dir = FileId::of(dir);
        self.change(|volume| names::symlink(volume, dir, name, target, attributes))?.node()
    }

    fn replace(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.change(|volume| write::replace(volume, FileId::of(node), content))
    }

    fn append(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.change(|volume| write::append(volume, FileId::of(node), content))
    }

    fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        self.change(|volume| names::unlink(volume, FileId::of(dir), name))
    }

    fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        self.change(|volume| names::rmdir(volume, FileId::of(dir), name))
    }

    fn rename(&mut self, from_dir: NodeId, from: &[u8], to_dir: NodeId, to: &[u8]) -> Result<()> {
        let (from_dir, to_dir) = (FileId::of(from_dir), FileId::of(to_dir));
        self.change(|volume| names::rename(volume, from_dir, from, to_dir, to))
    }

    fn chmod(&mut self, node: NodeId, mode: u16) -> Result<()> {
        self.change(|volume| nodes::chmod(volume, FileId::of(node), mode))
    }

    fn chown(&mut self, node: NodeId, uid: u32, gid: u32) -> Result<()> {
        self.change(|volume| nodes::chown(volume, FileId::of(node), uid, gid))
    }

    fn set_times(&mut self, node: NodeId, times: Times) -> Result<()> {
        self.change(|volume| nodes::set_times(volume, FileId::of(node), times))
    }

    fn set_xattr(&mut self, node: NodeId, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.change(|volume| nodes::set_xattr(volume, FileId::of(node), name, value))
    }

    fn grow(&mut self, size: u64) -> Result<u64> {
        self.change(|volume| new_chunk::grow(volume, size))
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
        commit::run(&mut self.volume())
    }
}
