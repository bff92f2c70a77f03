//! [`Ext`]: the [`FileSystem`] that the layers below make together.
//!
//! Every operation that changes something is an attempt ([`Volume::attempt`]): when it fails half
//! way, at a full disk for example, what it did is taken back and the file system in memory is as
//! it was.

mod names;
mod new;
mod nodes;

use std::io::Read;
use std::sync::Arc;

use super::grow::{self, GrowReport};
use super::inode::{Inode, ROOT_INO};
use super::superblock::{compat, incompat, ro_compat};
use super::volume::{Options, Volume};
use super::{dir, journal, map, xattr};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ext::units::Ino;
use crate::filesystem::{
    Attributes, CommitReport, DirEntry, FileSystem, FileType, Info, Kind, NodeId, Stat, Times,
};

/// An ext2, ext3 or ext4 file system.
pub struct Ext {
    volume: Volume,
    replayed: bool,
    /// Whether anything was changed since open. Without a change a commit writes nothing: blocks that
    /// only a replay would write stay in the journal.
    changed: bool,
}

impl Ext {
    /// Opens the file system on a device. A dirty journal is replayed into memory.
    pub fn open(device: Arc<dyn BlockDevice>, options: Options) -> Result<Self> {
        let (volume, replayed) = journal::open_volume(device, options)?;
        Ok(Self { volume, replayed, changed: false })
    }

    /// The layers below, for tests.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The layers below, for tests that change them.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn volume_mut(&mut self) -> &mut Volume {
        self.changed = true;
        &mut self.volume
    }

    /// Grows the file system to `new_blocks` blocks, or to what its device has room for. Like every
    /// change it waits for the commit.
    pub fn grow(&mut self, new_blocks: Option<u64>) -> Result<GrowReport> {
        let now = self.volume.sb.blocks_count();
        let blocks = new_blocks.unwrap_or_else(|| grow::device_blocks(&self.volume).max(now));
        let report = grow::grow(&mut self.volume, blocks)?;
        self.changed = true;
        Ok(report)
    }

    /// Whether an unclean journal was replayed at open.
    pub fn was_replayed(&self) -> bool {
        self.replayed
    }

    fn inode(&self, node: NodeId) -> Result<Inode> {
        self.volume.live_inode(ino(node)?)
    }

    /// Runs a change as a whole or not at all.
    fn change<T>(&mut self, work: impl FnOnce(&mut Volume) -> Result<T>) -> Result<T> {
        self.volume.check_writable()?;
        let done = self.volume.attempt(work)?;
        self.changed = true;
        Ok(done)
    }

    fn change_node(
        &mut self,
        node: NodeId,
        work: impl FnOnce(&mut Volume, &mut Inode) -> Result<()>,
    ) -> Result<()> {
        let number = ino(node)?;
        self.change(|volume| {
            let mut inode = volume.live_inode(number)?;
            work(volume, &mut inode)
        })
    }
}

fn ino(node: NodeId) -> Result<Ino> {
    u32::try_from(node.0)
        .map(Ino::new)
        .map_err(|_| Error::Invalid(format!("{} is not an inode number of ext", node.0)))
}

fn node(ino: Ino) -> NodeId {
    NodeId(u64::from(ino.get()))
}

impl FileSystem for Ext {
    fn info(&self) -> Result<Info> {
        let sb = &self.volume.sb;
        let label = &sb.raw.s_volume_name;
        let end = label.iter().position(|&byte| byte == 0).unwrap_or(label.len());
        let size = u64::from(sb.block_size());
        Ok(Info {
            kind: kind(&self.volume),
            uuid: uuid::Uuid::from_bytes(sb.raw.s_uuid).to_string(),
            label: crate::error::display_name(&label[..end]),
            block_size: sb.block_size(),
            size: sb.blocks_count().saturating_mul(size),
            free: sb.free_blocks_count().saturating_mul(size),
        })
    }

    fn root(&self) -> NodeId {
        node(ROOT_INO)
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let inode = self.inode(dir)?;
        Ok(dir::lookup(&self.volume, &inode, name)?.map(|entry| node(entry.ino)))
    }

    fn readdir(&self, dir: NodeId) -> Result<Vec<DirEntry>> {
        let inode = self.inode(dir)?;
        dir::list(&self.volume, &inode)
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        nodes::stat(&self.inode(node)?, &self.volume.sb)
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.inode(node)?;
        nodes::readable_file(&inode)?;
        map::read(&self.volume, &inode, offset, buf)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        nodes::read_link(&self.volume, &self.inode(node)?)
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        xattr::list(&self.volume, &self.inode(node)?)
    }

    fn create(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        let dir = ino(dir)?;
        self.change(|volume| names::create(volume, dir, name, attributes)).map(node)
    }

    fn mkdir(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        let dir = ino(dir)?;
        self.change(|volume| names::mkdir(volume, dir, name, attributes)).map(node)
    }

    fn symlink(
        &mut self,
        dir: NodeId,
        name: &[u8],
        target: &[u8],
        attributes: Attributes,
    ) -> Result<NodeId> {
        let dir = ino(dir)?;
        self.change(|volume| names::symlink(volume, dir, name, target, attributes)).map(node)
    }

    fn replace(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.change_node(node, |volume, inode| nodes::replace(volume, inode, content))
    }

    fn write_from(&mut self, node: NodeId, content: &mut dyn Read) -> Result<u64> {
        let number = ino(node)?;
        self.change(|volume| {
            let mut inode = volume.live_inode(number)?;
            nodes::write_from(volume, &mut inode, content)
        })
    }

    fn link(&mut self, node: NodeId, dir: NodeId, name: &[u8]) -> Result<()> {
        let (number, dir) = (ino(node)?, ino(dir)?);
        self.change(|volume| names::link(volume, number, dir, name))
    }

    fn mknod(
        &mut self,
        dir: NodeId,
        name: &[u8],
        file_type: FileType,
        device: Option<(u32, u32)>,
        attributes: Attributes,
    ) -> Result<NodeId> {
        let dir = ino(dir)?;
        self.change(|volume| names::mknod(volume, dir, name, file_type, device, attributes))
            .map(node)
    }

    fn append(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.change_node(node, |volume, inode| nodes::append(volume, inode, content))
    }

    fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        let dir = ino(dir)?;
        self.change(|volume| names::unlink(volume, dir, name))
    }

    fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        let dir = ino(dir)?;
        self.change(|volume| names::rmdir(volume, dir, name))
    }

    fn rename(&mut self, from_dir: NodeId, from: &[u8], to_dir: NodeId, to: &[u8]) -> Result<()> {
        let (from_dir, to_dir) = (ino(from_dir)?, ino(to_dir)?);
        self.change(|volume| names::rename(volume, from_dir, from, to_dir, to))
    }

    fn chmod(&mut self, node: NodeId, mode: u16) -> Result<()> {
        self.change_node(node, |volume, inode| nodes::chmod(volume, inode, mode))
    }

    fn chown(&mut self, node: NodeId, uid: u32, gid: u32) -> Result<()> {
        self.change_node(node, |volume, inode| nodes::chown(volume, inode, uid, gid))
    }

    fn set_times(&mut self, node: NodeId, times: Times) -> Result<()> {
        self.change_node(node, |volume, inode| nodes::set_times(volume, inode, times))
    }

    fn set_xattr(&mut self, node: NodeId, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.change_node(node, |volume, inode| nodes::set_xattr(volume, inode, name, value))
    }

    fn is_dirty(&self) -> bool {
        self.changed && self.volume.store.is_dirty()
    }

    fn seal(&mut self) -> Result<()> {
        // One run is one transaction as long as the journal holds it: half of it is left for what
        // comes until the next call.
        let capacity = journal::transaction_capacity(&self.volume)?;
        if self.volume.store.pending_meta() > capacity / 2 {
            journal::seal(&mut self.volume)?;
        }
        Ok(())
    }

    fn grow(&mut self, size: u64) -> Result<u64> {
        let block_size = u64::from(self.volume.sb.block_size());
        let now = self.volume.sb.blocks_count();
        let wanted = (size / block_size).min(grow::device_blocks(&self.volume));
        if wanted <= now {
            return Ok(now.saturating_mul(block_size));
        }
        let report = grow::grow(&mut self.volume, wanted)?;
        self.changed = true;
        Ok(report.new_blocks.saturating_mul(block_size))
    }

    fn commit(&mut self) -> Result<CommitReport> {
        if self.volume.store.is_dirty()
            && let Err(refusal) = self.volume.check_writable()
        {
            return if self.changed { Err(refusal) } else { Ok(CommitReport::default()) };
        }
        let report = journal::commit(&mut self.volume)?;
        self.changed = false;
        Ok(report)
    }
}

fn kind(volume: &Volume) -> Kind {
    let ext4 = incompat::EXTENTS
        | incompat::BIT64
        | incompat::FLEX_BG
        | incompat::INLINE_DATA
        | incompat::EA_INODE;
    let ext4_ro = ro_compat::GDT_CSUM
        | ro_compat::METADATA_CSUM
        | ro_compat::HUGE_FILE
        | ro_compat::DIR_NLINK
        | ro_compat::EXTRA_ISIZE
        | ro_compat::BIGALLOC;
    if volume.sb.has_incompat(ext4) || volume.sb.has_ro_compat(ext4_ro) {
        Kind::Ext4
    } else if volume.sb.has_compat(compat::HAS_JOURNAL) {
        Kind::Ext3
    } else {
        Kind::Ext2
    }
}
