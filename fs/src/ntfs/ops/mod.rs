//! [`Ntfs`]: the [`FileSystem`] that the layers below make together.
//!
//! Every operation that changes something is an attempt ([`Volume::attempt`]): when it fails half
//! way, at a full disk for example, what it did is taken back and the file system in memory is as
//! it was.

mod names;
mod owner;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use super::grow;
use super::inode::Inode;
use super::layout::{VOLUME_NAME, records};
use super::pieces::Step;
use super::units::RecordNumber;
use super::volume::Volume;
use crate::device::BlockDevice;
use crate::error::{Error, Result, display_name};
use crate::filesystem::{
    Attributes, CommitReport, DirEntry, FileSystem, Info, Kind, NodeId, Stat, Times, Timestamp,
};
use crate::num::to_u32;
use crate::overlay::Overlay;
use crate::utf16::{NAME_MAX, to_utf8, units};

/// An NTFS volume.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use snf_fs::ntfs::Ntfs;
/// use snf_fs::{Attributes, FileDevice, Tree};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let file = std::fs::File::options().read(true).write(true).open("volume.img")?;
/// let volume = Ntfs::open(Arc::new(FileDevice::from_file(file)?))?;
/// let mut tree = Tree::new(Box::new(volume));
/// tree.write("/Users/Public/note.txt", b"hello", Attributes { mode: 0, uid: 0, gid: 0 })?;
/// tree.commit()?;
/// # Ok(())
/// # }
/// ```
pub struct Ntfs {
    volume: Volume,
    /// Whether changes are known to be safe.
    writable: bool,
    /// The last part of the commit.
    growth: Option<Growth>,
}

/// The volume is to become larger.
#[derive(Clone, Copy)]
struct Growth {
    /// Bytes of the device to be used.
    size: u64,
    options: grow::Options,
    /// Bytes of the volume then.
    after: u64,
}

/// A file in the root directory by its name.
pub(super) fn find_in_root(volume: &Volume, name: &str) -> Result<Option<Arc<Inode>>> {
    let root = read::directory(volume, records::ROOT)?;
    match read::find(volume, &root, name.as_bytes())? {
        Some((reference, _)) => volume.referenced(reference).map(Some),
        None => Ok(None),
    }
}

/// The record that a node's number names.
fn of(node: NodeId) -> RecordNumber {
    RecordNumber(node.0)
}

/// The node of a record.
fn node_of(record: RecordNumber) -> NodeId {
    NodeId(record.0)
}

impl Ntfs {
    /// Opens the volume on a device.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where this is no NTFS volume or its MFT cannot be read, [`Error::Device`]
    /// where the device fails.
    pub fn open(device: Arc<dyn BlockDevice>) -> Result<Self> {
        Ok(Self { volume: Volume::open(device)?, writable: false, growth: None })
    }

    /// The same with the time that new and changed files get, which is 1970 otherwise.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.volume.now = now;
        self
    }

    /// The layers below, for tests.
    #[doc(hidden)]
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    fn check_writable(&mut self) -> Result<()> {
        if !self.writable {
            self.volume.check_writable()?;
            self.writable = true;
        }
        Ok(())
    }

    /// Runs a change as a whole or not at all.
    fn change<T>(&mut self, work: impl FnOnce(&mut Volume) -> Result<T>) -> Result<T> {
        self.check_writable()?;
        self.volume.attempt(work)
    }

    /// Enlarges the volume to use `size` bytes of its device, at the end of the commit, and gives its
    /// size then. With `check` it is marked so that Windows checks it at the next start.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] where the volume's state forbids changes, [`Error::Corrupt`] where the
    /// trial finds damage.
    pub fn grow_and(&mut self, size: u64, check: bool) -> Result<u64> {
        self.check_writable()?;
        let options = grow::Options { check };
        // Whether it can be done is seen now, on a device that is thrown away.
        let trial = Overlay::new(self.volume.store.device().clone());
        for (offset, piece) in self.volume.store.pending().iter() {
            if piece.step != Step::Fresh {
                trial.write_at(offset, piece.bytes())?;
            }
        }
        let grown = grow::grow(&trial, size, options)?;
        if grown.clusters > grown.before {
            let sector = u64::from(self.volume.geometry.sector);
            let used = size.min(self.volume.store.device().len());
            // The last sector is for the copy of the boot sector.
            let after = (used / sector - 1) * sector;
            self.growth = Some(Growth { size, options, after });
        }
        Ok(self.growth.map_or(self.volume.geometry.size, |growth| growth.after))
    }

    /// Names of the alternate data streams of a file or directory, and their sizes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`], as for every read.
    pub fn streams(&self, node: NodeId) -> Result<Vec<(Vec<u8>, u64)>> {
        read::streams(&self.volume, of(node))
    }

    /// Reads from an alternate data stream, as [`FileSystem::read`] from a file.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such stream; [`Error::Corrupt`] and [`Error::Device`],
    /// as for every read.
    pub fn read_stream(
        &self,
        node: NodeId,
        name: &[u8],
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize> {
        read::read_stream(&self.volume, of(node), name, offset, buf)
    }
}

impl FileSystem for Ntfs {
    fn info(&self) -> Result<Info> {
        let volume = self.volume.inode(records::VOLUME)?;
        let label = volume.find(VOLUME_NAME, &[]).and_then(|a| a.value());
        let label = to_utf8(&label.map_or(Vec::new(), |value| units(value)));
        let geometry = &self.volume.geometry;
        Ok(Info {
            kind: Kind::Ntfs,
            uuid: format!("{:016X}", geometry.serial),
            label: display_name(&label),
            block_size: to_u32(geometry.cluster),
            size: self.growth.map_or(geometry.size, |growth| growth.after),
            free: self.volume.free_clusters()? * geometry.cluster,
        })
    }

    fn root(&self) -> NodeId {
        NodeId(records::ROOT.0)
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        Ok(read::lookup(&self.volume, of(dir), name)?.map(node_of))
    }

    fn readdir(&self, dir: NodeId) -> Result<Vec<DirEntry>> {
        read::readdir(&self.volume, of(dir))
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        read::stat(&self.volume, of(node))
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        read::read(&self.volume, of(node), offset, buf)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        read::read_link(&self.volume, of(node))
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.volume.inode(of(node))?;
        Ok(Vec::new())
    }

    fn create(&mut self, dir: NodeId, name: &[u8], _: Attributes) -> Result<NodeId> {
        self.change(|volume| write::make(volume, of(dir), name, false)).map(node_of)
    }

    fn mkdir(&mut self, dir: NodeId, name: &[u8], _: Attributes) -> Result<NodeId> {
        self.change(|volume| write::make(volume, of(dir), name, true)).map(node_of)
    }

    fn symlink(&mut self, _: NodeId, name: &[u8], _: &[u8], _: Attributes) -> Result<NodeId> {
        Err(Error::unsupported(
            format!("making a symbolic link ({}) on NTFS", display_name(name)),
            "write a file in its place, or make the link in Windows (mklink)",
        ))
    }

    fn replace(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.change(|volume| write::replace(volume, of(node), content))
    }

    fn append(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.change(|volume| write::append(volume, of(node), content))
    }

    fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        self.change(|volume| write::unlink(volume, of(dir), name))
    }

    fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        self.change(|volume| write::rmdir(volume, of(dir), name))
    }

    fn rename(&mut self, from_dir: NodeId, from: &[u8], to_dir: NodeId, to: &[u8]) -> Result<()> {
        self.change(|volume| write::rename(volume, of(from_dir), from, of(to_dir), to))
    }

    /// Nothing: NTFS has no such modes. The security descriptor has the rights, which a new
    /// file inherits from its directory.
    fn chmod(&mut self, node: NodeId, _: u16) -> Result<()> {
        self.volume.inode(of(node)).map(|_| ())
    }

    /// Nothing, as [`FileSystem::chmod`].
    fn chown(&mut self, node: NodeId, _: u32, _: u32) -> Result<()> {
        self.volume.inode(of(node)).map(|_| ())
    }

    fn set_times(&mut self, node: NodeId, times: Times) -> Result<()> {
        self.change(|volume| write::set_times(volume, of(node), times))
    }

    fn set_xattr(&mut self, _: NodeId, name: &[u8], _: Option<&[u8]>) -> Result<()> {
        Err(Error::unsupported(
            format!("the extended attribute {} on NTFS", display_name(name)),
            "leave it away",
        ))
    }

    fn grow(&mut self, size: u64) -> Result<u64> {
        self.grow_and(size, true)
    }

    /// 255 UTF-16 units, of which each can need three bytes.
    fn name_max(&self) -> usize {
        3 * NAME_MAX
    }

    fn keeps_owners(&self) -> bool {
        false
    }

    fn is_dirty(&self) -> bool {
        !self.volume.store.pending().is_empty() || self.growth.is_some()
    }

    fn check_commit(&mut self) -> Result<()> {
        self.volume.check_commit()
    }

    fn commit(&mut self) -> Result<CommitReport> {
        let report = self.volume.commit()?;
        if let Some(growth) = self.growth.take() {
            let device = self.volume.store.device().clone();
            grow::grow(&*device, growth.size, growth.options)?;
            *self = Self::open(device)?.at(self.volume.now);
        }
        Ok(report)
    }
}
