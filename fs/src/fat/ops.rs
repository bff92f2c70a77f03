//! The [`FileSystem`] of FAT.

use std::collections::BTreeMap;
use std::sync::Arc;

use zerocopy::FromBytes;

use super::boot::Width;
use super::dir::{self, ARCHIVE, DIRECTORY, Entry, READ_ONLY};
use super::layout::ShortEntry;
use super::name::{self, Folding};
use super::units::{Cluster, DirId, node_number, node_place};
use super::volume::Volume;
use crate::device::BlockDevice;
use crate::error::{Error, Result, display_name};
use crate::filesystem::{
    Attributes, CommitReport, DirEntry, FileSystem, FileType, Info, Kind, NodeId, Stat, Times,
    Timestamp,
};
use crate::num::{to_u32, to_u64, to_usize};
use crate::tree::DEPTH_MAX;
use crate::utf16::{to_utf8, to_utf16};

const ROOT: NodeId = NodeId(0);

/// How a volume is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The time that changed files get.
    pub now: Timestamp,
}

/// A FAT12, FAT16 or FAT32 volume.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use snf_fs::fat::{Fat, Options};
/// use snf_fs::{FileDevice, Tree};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let device = Arc::new(FileDevice::from_file(std::fs::File::open("esp.img")?)?);
/// let tree = Tree::new(Box::new(Fat::open(device, Options::default())?));
/// for entry in tree.read_dir("/EFI")? {
///     println!("{}", snf_fs::text::display_name(&entry.name));
/// }
/// # Ok(())
/// # }
/// ```
pub struct Fat {
    volume: Volume,
    folding: Folding,
    now: Timestamp,
    /// Nodes that were renamed: their number, and the one that their place would give.
    moved: BTreeMap<u64, u64>,
}

impl Fat {
    /// Opens the volume that begins at the first byte of `device`. Nothing is written before
    /// [`FileSystem::commit`].
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the boot sector makes no sense, [`Error::Device`] where the device
    /// fails.
    pub fn open(device: Arc<dyn BlockDevice>, options: Options) -> Result<Self> {
        let volume = Volume::open(device)?;
        Ok(Self { volume, folding: Folding::new(), now: options.now, moved: BTreeMap::new() })
    }

    /// The number of the node at a place, which may have got it at another.
    fn node_at(&self, dir: DirId, slot: usize) -> NodeId {
        let place = node_number(dir, slot);
        let old = self.moved.iter().find(|(_, now)| **now == place).map(|(old, _)| *old);
        NodeId(old.unwrap_or(place))
    }

    /// Directory and entry of a node that is not the root.
    fn entry(&self, node: NodeId) -> Result<(DirId, Entry)> {
        let place = self.moved.get(&node.0).copied().unwrap_or(node.0);
        let gone = || Error::NotFound(format!("node {}", node.0));
        let (dir, slot) = node_place(place).ok_or_else(gone)?;
        let entries = self.volume.entries(dir)?;
        let entry = entries.into_iter().find(|entry| entry.slot() == slot).ok_or_else(gone)?;
        Ok((dir, entry))
    }

    fn dir_of(&self, entry: &Entry) -> Result<DirId> {
        if !entry.is_directory() {
            return Err(Error::NotADirectory(self.text(entry)));
        }
        if !entry.cluster.is_before(self.volume.geometry.end) {
            let detail = format!("its first cluster is {}", entry.cluster);
            return Err(Error::corrupt("directory", self.text(entry), detail));
        }
        Ok(DirId::at(entry.cluster))
    }

    fn dir(&self, node: NodeId) -> Result<DirId> {
        if node == ROOT {
            return Ok(DirId::ROOT);
        }
        self.dir_of(&self.entry(node)?.1)
    }

    fn file(&self, node: NodeId) -> Result<(DirId, Entry)> {
        if node == ROOT {
            return Err(Error::IsADirectory("/".to_owned()));
        }
        let (dir, entry) = self.entry(node)?;
        if entry.is_directory() {
            return Err(Error::IsADirectory(self.text(&entry)));
        }
        Ok((dir, entry))
    }

    fn text(&self, entry: &Entry) -> String {
        display_name(&to_utf8(&entry.name))
    }

    /// The entry that a name names, by its long or its short name.
    fn find(&self, dir: DirId, name: &[u8]) -> Result<Option<Entry>> {
        let Ok(units) = to_utf16(name) else { return Ok(None) };
        let entries = self.volume.entries(dir)?;
        let short = |entry: &Entry| name::shown(&entry.short, 0);
        let by_long = entries.iter().position(|entry| self.folding.same(&entry.name, &units));
        let by_any = by_long
            .or_else(|| entries.iter().position(|entry| self.folding.same(&short(entry), &units)));
        Ok(by_any.and_then(|index| entries.into_iter().nth(index)))
    }

    /// Adds a name to a directory; `raw` is the short entry, whose name is set here. `free` has
    /// short names that are about to go.
    fn link(
        &mut self,
        dir: DirId,
        name: &[u16],
        raw: ShortEntry,
        free: &[[u8; 11]],
    ) -> Result<usize> {
        let taken: Vec<[u8; 11]> =
            self.volume.entries(dir)?.iter().map(|entry| entry.short).collect();
        let is_taken = |short: &[u8; 11]| taken.contains(short) && !free.contains(short);
        let (short, needs_long) = name::short_for(name, &is_taken)?;
        let mut entries = if needs_long { name::long_entries(name, &short) } else { Vec::new() };
        let mut raw = raw;
        raw.name = short;
        // Shown as they are written.
        raw.nt_res = 0;
        entries.push(dir::bytes_of(raw));
        self.volume.add(dir, &entries)
    }

    fn make(&mut self, dir: NodeId, name: &[u8], attributes: u8, content: &[u8]) -> Result<NodeId> {
        let dir = self.dir(dir)?;
        if self.find(dir, name)?.is_some() {
            return Err(Error::Exists(display_name(name)));
        }
        let units = name::wanted(name)?;
        let cluster = self.volume.store(content)?;
        let mut raw = dir::new_entry(&[b' '; 11], attributes, self.now);
        raw.set_cluster(cluster);
        match self.link(dir, &units, raw, &[]) {
            Ok(slot) => Ok(self.node_at(dir, slot)),
            Err(error) => {
                if let Ok(chain) = self.volume.table.chain(cluster, usize::MAX) {
                    self.volume.release(&chain);
                }
                Err(error)
            }
        }
    }

    /// Takes an entry out of its directory and lets its clusters go.
    fn drop_entry(&mut self, dir: DirId, entry: &Entry) -> Result<()> {
        let chain = match entry.cluster {
            Cluster::NONE => Vec::new(),
            first => self.volume.table.chain(first, usize::MAX)?,
        };
        self.volume.erase(dir, entry)?;
        self.volume.release(&chain);
        Ok(())
    }

    fn must_be_empty(&self, entry: &Entry) -> Result<()> {
        if self.volume.entries(self.dir_of(entry)?)?.is_empty() {
            return Ok(());
        }
        Err(Error::NotEmpty(self.text(entry)))
    }

    /// The directory above one, by its `..`.
    fn parent(&self, dir: DirId) -> Result<DirId> {
        let bytes = self.volume.dir_bytes(dir)?;
        let second = bytes.get(32..64).and_then(|raw| ShortEntry::read_from_bytes(raw).ok());
        let dots = second.filter(|raw| raw.name == *b"..         ").ok_or_else(|| {
            Error::corrupt(
                "directory",
                format!("cluster {}", dir.cluster()),
                "its second entry is not ..",
            )
        })?;
        let cluster = dots.cluster();
        let is_root = cluster == self.volume.geometry.root_cluster;
        Ok(if is_root { DirId::ROOT } else { DirId::at(cluster) })
    }

    /// Whether `dir` is `above` or is below it.
    fn is_within(&self, dir: DirId, above: DirId) -> Result<bool> {
        let mut at = dir;
        for _ in 0..DEPTH_MAX {
            if at == above {
                return Ok(true);
            }
            if at.is_root() {
                return Ok(false);
            }
            at = self.parent(at)?;
        }
        let place = format!("cluster {}", dir.cluster());
        Err(Error::corrupt("directory", place, "its .. never lead to the root"))
    }

    fn check_owner(uid: u32, gid: u32) -> Result<()> {
        match (uid, gid) {
            (0, 0) => Ok(()),
            _ => Self::unsupported("an owner other than root"),
        }
    }

    fn unsupported<T>(what: &str) -> Result<T> {
        Err(Error::unsupported(format!("{what} on a FAT file system"), "put the file elsewhere"))
    }

    /// The new content of a file.
    fn set_content(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        let (dir, entry) = self.file(node)?;
        let Ok(size) = u32::try_from(content.len()) else {
            return Err(Error::Invalid(format!("{}: 4 GiB or more", self.text(&entry))));
        };
        let old = self.volume.file_chain(&entry)?;
        let cluster = self.volume.store(content)?;
        let now = self.now;
        self.volume.change(dir, entry.slot(), |raw| {
            raw.set_cluster(cluster);
            raw.set_times(Some(now), Some(now));
            raw.file_size = size.into();
            raw.attr |= ARCHIVE;
        })?;
        self.volume.release(&old);
        Ok(())
    }
}

impl FileSystem for Fat {
    fn info(&self) -> Result<Info> {
        let geometry = &self.volume.geometry;
        let root = self.volume.dir_bytes(DirId::ROOT)?;
        let label = dir::label(&root).unwrap_or(geometry.label);
        let label = String::from_utf16_lossy(&name::shown_label(&label));
        let label = if label == "NO NAME" { String::new() } else { label };
        Ok(Info {
            kind: Kind::Fat,
            uuid: format!("{:04X}-{:04X}", geometry.serial >> 16, geometry.serial & 0xffff),
            label,
            block_size: to_u32(geometry.cluster),
            size: geometry.size,
            free: u64::from(self.volume.table.free()) * to_u64(geometry.cluster),
        })
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        let dir = self.dir(dir)?;
        Ok(self.find(dir, name)?.map(|entry| self.node_at(dir, entry.slot())))
    }

    fn readdir(&self, dir: NodeId) -> Result<Vec<DirEntry>> {
        let dir = self.dir(dir)?;
        let entries = self.volume.entries(dir)?.into_iter().map(|entry| DirEntry {
            name: to_utf8(&entry.name),
            node: self.node_at(dir, entry.slot()),
            file_type: Some(match entry.is_directory() {
                true => FileType::Directory,
                false => FileType::Regular,
            }),
        });
        Ok(entries.collect())
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        let (mut mode, mut size, mut times) = (0o755, 0, Default::default());
        let mut file_type = FileType::Directory;
        let mut bytes = 0;
        if node == ROOT {
            bytes = to_u64(self.volume.dir_bytes(DirId::ROOT)?.len());
        } else {
            let (_, entry) = self.entry(node)?;
            times = entry.raw.times();
            if entry.is_directory() {
                bytes = to_u64(self.volume.dir_bytes(self.dir_of(&entry)?)?.len());
            } else {
                file_type = FileType::Regular;
                size = u64::from(entry.size);
                bytes += size.next_multiple_of(to_u64(self.volume.geometry.cluster));
            }
            if entry.attributes & READ_ONLY != 0 {
                mode &= !0o222;
            }
        }
        if file_type == FileType::Directory {
            size = bytes;
        }
        let (atime, mtime) = times;
        Ok(Stat {
            node,
            file_type,
            mode,
            uid: 0,
            gid: 0,
            links: 1,
            size,
            blocks: bytes / 512,
            device: None,
            atime,
            mtime,
            ctime: mtime,
        })
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let (_, entry) = self.file(node)?;
        let left = to_usize(u64::from(entry.size).saturating_sub(offset).min(to_u64(buf.len())));
        if left > 0 {
            let chain = self.volume.file_chain(&entry)?;
            self.volume.read_chain(&chain, offset, &mut buf[..left])?;
        }
        Ok(left)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        Err(Error::WrongType(format!("node {}", node.0), "FAT has no symbolic links"))
    }

    fn xattrs(&self, _node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(Vec::new())
    }

    fn create(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        Self::check_owner(attributes.uid, attributes.gid)?;
        let read_only = if attributes.mode & 0o222 == 0 { READ_ONLY } else { 0 };
        self.make(dir, name, ARCHIVE | read_only, &[])
    }

    fn mkdir(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        Self::check_owner(attributes.uid, attributes.gid)?;
        let above = self.dir(dir)?;
        let node = self.make(dir, name, DIRECTORY, &vec![0; self.volume.geometry.cluster])?;
        let own = self.dir(node)?;
        let mut bytes = self.volume.dir_bytes(own)?;
        let mut dots =
            [b".          ", b"..         "].map(|name| dir::new_entry(name, DIRECTORY, self.now));
        dots[0].set_cluster(own.cluster());
        dots[1].set_cluster(above.cluster());
        dir::put(&mut bytes, 0, &dots.map(dir::bytes_of));
        self.volume.set_dir_bytes(own, bytes)?;
        Ok(node)
    }

    fn symlink(&mut self, _: NodeId, _: &[u8], _: &[u8], _: Attributes) -> Result<NodeId> {
        Self::unsupported("a symbolic link")
    }

    fn replace(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.set_content(node, content)
    }

    fn append(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        let (_, entry) = self.file(node)?;
        let chain = self.volume.file_chain(&entry)?;
        if (chain.len() * self.volume.geometry.cluster) < to_usize(entry.size) {
            let detail = format!("{} bytes in {} clusters", entry.size, chain.len());
            return Err(Error::corrupt("file", self.text(&entry), detail));
        }
        let mut all = vec![0; to_usize(entry.size)];
        self.volume.read_chain(&chain, 0, &mut all)?;
        all.extend_from_slice(content);
        self.set_content(node, &all)
    }

    fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        let dir = self.dir(dir)?;
        let Some(entry) = self.find(dir, name)? else {
            return Err(Error::NotFound(display_name(name)));
        };
        if entry.is_directory() {
            return Err(Error::IsADirectory(self.text(&entry)));
        }
        self.drop_entry(dir, &entry)
    }

    fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        let dir = self.dir(dir)?;
        let Some(entry) = self.find(dir, name)? else {
            return Err(Error::NotFound(display_name(name)));
        };
        self.must_be_empty(&entry)?;
        self.drop_entry(dir, &entry)
    }

    fn rename(&mut self, from_dir: NodeId, from: &[u8], to_dir: NodeId, to: &[u8]) -> Result<()> {
        let (from_dir, to_dir) = (self.dir(from_dir)?, self.dir(to_dir)?);
        let Some(source) = self.find(from_dir, from)? else {
            return Err(Error::NotFound(display_name(from)));
        };
        let units = name::wanted(to)?;
        let target = self.find(to_dir, to)?;
        let is_same = |target: &Entry| from_dir == to_dir && target.slot() == source.slot();
        let target = target.filter(|target| !is_same(target));
        if let Some(target) = &target {
            match (source.is_directory(), target.is_directory()) {
                (true, true) => self.must_be_empty(target)?,
                (true, false) => return Err(Error::NotADirectory(self.text(target))),
                (false, true) => return Err(Error::IsADirectory(self.text(target))),
                (false, false) => {}
            }
        }
        if from_dir == to_dir && source.name == units {
            return Ok(());
        }
        let moves_dir = source.is_directory() && from_dir != to_dir;
        if moves_dir && self.is_within(to_dir, self.dir_of(&source)?)? {
            let text = format!("{}: a directory cannot be moved below itself", self.text(&source));
            return Err(Error::Invalid(text));
        }
        let mut going: Vec<[u8; 11]> = target.iter().map(|target| target.short).collect();
        if from_dir == to_dir {
            going.push(source.short);
        }
        let slot = self.link(to_dir, &units, source.raw, &going)?;
        let old = self.node_at(from_dir, source.slot());
        self.volume.erase(from_dir, &source)?;
        if let Some(target) = &target {
            self.drop_entry(to_dir, target)?;
        }
        self.moved.insert(old.0, node_number(to_dir, slot));
        if moves_dir {
            let own = self.dir_of(&source)?;
            self.volume.change(own, 1, |raw| raw.set_cluster(to_dir.cluster()))?;
        }
        Ok(())
    }

    fn chmod(&mut self, node: NodeId, mode: u16) -> Result<()> {
        if node == ROOT {
            return Ok(());
        }
        let (dir, entry) = self.entry(node)?;
        if entry.is_directory() {
            return Ok(());
        }
        self.volume.change(dir, entry.slot(), |raw| match mode & 0o222 {
            0 => raw.attr |= READ_ONLY,
            _ => raw.attr &= !READ_ONLY,
        })
    }

    fn chown(&mut self, _node: NodeId, uid: u32, gid: u32) -> Result<()> {
        Self::check_owner(uid, gid)
    }

    fn set_times(&mut self, node: NodeId, times: Times) -> Result<()> {
        if node == ROOT {
            return Ok(());
        }
        let (dir, entry) = self.entry(node)?;
        self.volume.change(dir, entry.slot(), |raw| raw.set_times(times.atime, times.mtime))
    }

    fn set_xattr(&mut self, _node: NodeId, _name: &[u8], value: Option<&[u8]>) -> Result<()> {
        match value {
            None => Ok(()),
            Some(_) => Self::unsupported("an extended attribute"),
        }
    }

    fn is_dirty(&self) -> bool {
        self.volume.is_dirty()
    }

    fn commit(&mut self) -> Result<CommitReport> {
        self.volume.commit()
    }
}

impl std::fmt::Debug for Fat {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = match self.volume.geometry.width {
            Width::Fat12 => 12,
            Width::Fat16 => 16,
            Width::Fat32 => 32,
        };
        write!(out, "Fat{bits}")
    }
}
