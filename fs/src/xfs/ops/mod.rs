//! [`Xfs`]: the [`FileSystem`] that the layers below make together.
//!
//! Every change is an attempt: when it fails half way, what it did is taken back.

mod names;
mod nodes;

use std::sync::Arc;

use super::inode::{Fork, Inode};
use super::log::{self, Ring};
use super::units::Ino;
use super::volume::{Options, Volume};
use crate::device::BlockDevice;
use crate::error::{Error, Result, display_name};
use crate::filesystem::{
    Attributes, CommitReport, DirEntry, FileSystem, FileType, Info, Kind, NodeId, Stat, Times,
};
use crate::num::{to_u32, to_u64};

/// An XFS file system.
pub struct Xfs {
    volume: Volume,
}

impl Xfs {
    /// Opens the file system on a device.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for features that are not read, and for a log that is to be replayed
    /// first; [`Error::Corrupt`] and [`Error::Device`].
    pub fn open(device: Arc<dyn BlockDevice>, options: Options) -> Result<Self> {
        let volume = Volume::open(device, options)?;
        let ring = Ring::of(&volume)?;
        if !ring.head(&**volume.store.device())?.clean {
            return Err(log::dirty());
        }
        Ok(Self { volume })
    }

    /// Why the file system can only be read; `None` when it can be changed.
    pub fn why_read_only(&self) -> Option<String> {
        self.volume.sb.why_read_only()
    }

    /// Runs a change as a whole or not at all.
    fn change<T>(&mut self, work: impl FnOnce(&mut Volume) -> Result<T>) -> Result<T> {
        self.volume.check_writable()?;
        self.volume.attempt(work)
    }

    fn change_node(
        &mut self,
        node: NodeId,
        work: impl FnOnce(&mut Volume, &mut Inode) -> Result<()>,
    ) -> Result<()> {
        self.change(|volume| {
            let mut inode = volume.inode(Ino(node.0))?;
            work(volume, &mut inode)?;
            volume.write_inode(&inode)
        })
    }
}

fn node(ino: Ino) -> NodeId {
    NodeId(ino.0)
}

impl FileSystem for Xfs {
    fn info(&self) -> Result<Info> {
        let sb = &self.volume.sb;
        let size = to_u64(sb.block_size());
        let mut free = 0u64;
        for ag in 0..sb.ag_count() {
            let agf = self.volume.agf(ag)?;
            free += u64::from(agf.agf_freeblks.get());
        }
        free += self.volume.freed.iter().map(|freed| freed.count).sum::<u64>();
        Ok(Info {
            kind: Kind::Xfs,
            uuid: uuid::Uuid::from_bytes(sb.raw.sb_uuid).to_string(),
            label: display_name(sb.label()),
            block_size: to_u32(sb.block_size()),
            size: sb.blocks().saturating_mul(size),
            free: free.saturating_mul(size),
        })
    }

    fn root(&self) -> NodeId {
        node(self.volume.sb.root())
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let inode = self.volume.directory(Ino(dir.0))?;
        Ok(self.volume.dir_lookup(&inode, name)?.map(|entry| node(entry.ino)))
    }

    fn readdir(&self, dir: NodeId) -> Result<Vec<DirEntry>> {
        let inode = self.volume.directory(Ino(dir.0))?;
        let entries = self.volume.dir_list(&inode)?;
        Ok(entries
            .into_iter()
            .map(|entry| DirEntry {
                name: entry.name,
                node: node(entry.ino),
                file_type: entry.file_type,
            })
            .collect())
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        nodes::stat(&self.volume, &self.volume.inode(Ino(node.0))?)
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.volume.inode(Ino(node.0))?;
        nodes::check_file(&inode)?;
        self.volume.read_fork(&inode, inode.size(), offset, buf)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        nodes::read_link(&self.volume, &self.volume.inode(Ino(node.0))?)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.volume.xattrs(&self.volume.inode(Ino(node.0))?)
    }

    fn create(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        self.change(|volume| {
            names::make(volume, Ino(dir.0), name, attributes, FileType::Regular, &[])
        })
        .map(node)
    }

    fn mkdir(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        self.change(|volume| {
            names::make(volume, Ino(dir.0), name, attributes, FileType::Directory, &[])
        })
        .map(node)
    }

    fn symlink(
        &mut self,
        dir: NodeId,
        name: &[u8],
        target: &[u8],
        attributes: Attributes,
    ) -> Result<NodeId> {
        nodes::check_target(target)?;
        self.change(|volume| {
            names::make(volume, Ino(dir.0), name, attributes, FileType::Symlink, target)
        })
        .map(node)
    }

    fn replace(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.change_node(node, |volume, inode| nodes::replace(volume, inode, content))
    }

    fn append(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.change_node(node, |volume, inode| nodes::append(volume, inode, content))
    }

    fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        self.change(|volume| names::unlink(volume, Ino(dir.0), name))
    }

    fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        self.change(|volume| names::rmdir(volume, Ino(dir.0), name))
    }

    fn rename(&mut self, from_dir: NodeId, from: &[u8], to_dir: NodeId, to: &[u8]) -> Result<()> {
        self.change(|volume| names::rename(volume, Ino(from_dir.0), from, Ino(to_dir.0), to))
    }

    fn chmod(&mut self, node: NodeId, mode: u16) -> Result<()> {
        self.change_node(node, |volume, inode| {
            let bits = inode.core.di_mode.get() & 0xF000 | mode & 0o7777;
            inode.core.di_mode.set(bits);
            inode.touch(volume.options.now, false);
            volume.acl_follow_mode(inode)
        })
    }

    fn chown(&mut self, node: NodeId, uid: u32, gid: u32) -> Result<()> {
        self.change_node(node, |volume, inode| {
            inode.core.di_uid.set(uid);
            inode.core.di_gid.set(gid);
            inode.touch(volume.options.now, false);
            Ok(())
        })
    }

    fn set_times(&mut self, node: NodeId, times: Times) -> Result<()> {
        self.change_node(node, |volume, inode| {
            inode.touch(volume.options.now, false);
            if let Some(atime) = times.atime {
                inode.core.di_atime = inode.field(atime);
            }
            if let Some(mtime) = times.mtime {
                inode.core.di_mtime = inode.field(mtime);
            }
            Ok(())
        })
    }

    fn set_xattr(&mut self, node: NodeId, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.change_node(node, |volume, inode| {
            inode.touch(volume.options.now, false);
            volume.set_xattr(inode, name, value)
        })
    }

    fn grow(&mut self, size: u64) -> Result<u64> {
        self.change(|volume| volume.grow(size))
    }

    fn is_dirty(&self) -> bool {
        self.volume.store.is_dirty() || !self.volume.freed.is_empty()
    }

    fn commit(&mut self) -> Result<CommitReport> {
        log::commit::commit(&mut self.volume)
    }
}

/// The name of a node in an error.
fn named(inode: &Inode) -> String {
    format!("inode {}", inode.ino)
}

/// Frees everything that an inode holds, and the inode.
fn remove(volume: &mut Volume, inode: &mut Inode) -> Result<()> {
    for extent in volume.extents(inode, Fork::Data)? {
        volume.free_extent(inode.ino, Fork::Data, &extent);
    }
    if inode.format(Fork::Data)? == super::inode::Format::Btree {
        volume.set_extents(inode, Fork::Data, &[])?;
    }
    volume.drop_attrs(inode)?;
    volume.release_inode(inode)
}

/// A node that names an operation cannot be done to.
fn wrong_type(inode: &Inode, why: &'static str) -> Error {
    Error::WrongType(named(inode), why)
}
