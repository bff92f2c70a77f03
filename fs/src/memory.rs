//! A file system that lives in memory only: for tests of everything above the engines, and for
//! building small trees before they are written anywhere.

use std::collections::BTreeMap;

use crate::error::{Error, Result, display_name};
use crate::filesystem::{
    Attributes, CommitReport, DirEntry, FileSystem, FileType, Info, Kind, NodeId, Stat, Times,
    Timestamp,
};
use crate::num::to_u64;

const ROOT: NodeId = NodeId(2);
const NAME_MAX: usize = 255;
/// Most file systems keep names that a hash order shows; a sorted order is as good for tests.
type Names = BTreeMap<Vec<u8>, NodeId>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Regular(Vec<u8>),
    Directory(Names),
    Symlink(Vec<u8>),
    Special(FileType, Option<(u32, u32)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    content: Content,
    attributes: Attributes,
    links: u32,
    atime: Timestamp,
    mtime: Timestamp,
    ctime: Timestamp,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

/// An in-memory [`FileSystem`]. Changes wait for [`FileSystem::commit`] like anywhere else:
/// [`MemoryFs::committed`] shows what a reader of the "device" would see.
#[derive(Clone, Debug)]
pub struct MemoryFs {
    state: State,
    committed: State,
    now: Timestamp,
    uuid: String,
    label: String,
    fail_commit: bool,
}

impl Default for MemoryFs {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryFs {
    /// An empty file system: a root directory of mode 0755 that belongs to root.
    pub fn new() -> Self {
        let now = Timestamp::default();
        let root = Node {
            content: Content::Directory(Names::new()),
            attributes: Attributes { mode: 0o755, uid: 0, gid: 0 },
            links: 2,
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
        };
        let state = State { nodes: BTreeMap::from([(ROOT.0, root)]), next: 11 };
        Self {
            committed: state.clone(),
            state,
            now,
            uuid: "00000000-0000-4000-8000-000000000000".into(),
            label: String::new(),
            fail_commit: false,
        }
    }

    /// The same with another UUID and label.
    pub fn with_identity(mut self, uuid: &str, label: &str) -> Self {
        self.uuid = uuid.into();
        self.label = label.into();
        self
    }

    /// The time that later changes carry.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Makes every later commit fail, as a device would that has gone away.
    pub fn fail_commit(&mut self) {
        self.fail_commit = true;
    }

    /// A copy of the file system as last committed.
    pub fn committed(&self) -> Self {
        Self { state: self.committed.clone(), ..self.clone() }
    }

    /// Makes a device node, named pipe or socket.
    pub fn make_special(
        &mut self,
        dir: NodeId,
        name: &[u8],
        file_type: FileType,
        device: Option<(u32, u32)>,
        attributes: Attributes,
    ) -> Result<NodeId> {
        self.insert(dir, name, Content::Special(file_type, device), attributes)
    }

    /// Gives an existing file one more name.
    pub fn hard_link(&mut self, node: NodeId, dir: NodeId, name: &[u8]) -> Result<()> {
        self.check_new(dir, name)?;
        let now = self.now;
        let file = self.node_mut(node)?;
        if matches!(file.content, Content::Directory(_)) {
            return Err(Error::IsADirectory(display_name(name)));
        }
        file.links = file.links.saturating_add(1);
        file.ctime = now;
        self.names_mut(dir)?.insert(name.to_vec(), node);
        Ok(())
    }

    fn node(&self, node: NodeId) -> Result<&Node> {
        self.state.nodes.get(&node.0).ok_or_else(|| no_node(node))
    }

    fn node_mut(&mut self, node: NodeId) -> Result<&mut Node> {
        self.state.nodes.get_mut(&node.0).ok_or_else(|| no_node(node))
    }

    fn names(&self, dir: NodeId) -> Result<&Names> {
        match &self.node(dir)?.content {
            Content::Directory(names) => Ok(names),
            _ => Err(Error::NotADirectory(format!("node {}", dir.0))),
        }
    }

    /// The names of a directory that is about to change: its times follow.
    fn names_mut(&mut self, dir: NodeId) -> Result<&mut Names> {
        let now = self.now;
        let node = self.node_mut(dir)?;
        match &mut node.content {
            Content::Directory(names) => {
                node.mtime = now;
                node.ctime = now;
                Ok(names)
            }
            _ => Err(Error::NotADirectory(format!("node {}", dir.0))),
        }
    }

    fn regular_mut(&mut self, node: NodeId) -> Result<&mut Vec<u8>> {
        let now = self.now;
        let file = self.node_mut(node)?;
        match &mut file.content {
            Content::Regular(bytes) => {
                file.mtime = now;
                file.ctime = now;
                Ok(bytes)
            }
            Content::Directory(_) => Err(Error::IsADirectory(format!("node {}", node.0))),
            _ => Err(Error::WrongType(format!("node {}", node.0), "not a regular file")),
        }
    }

    fn check_new(&self, dir: NodeId, name: &[u8]) -> Result<()> {
        check_name(name)?;
        if self.names(dir)?.contains_key(name) {
            return Err(Error::Exists(display_name(name)));
        }
        Ok(())
    }

    fn insert(
        &mut self,
        dir: NodeId,
        name: &[u8],
        content: Content,
        attributes: Attributes,
    ) -> Result<NodeId> {
        self.check_new(dir, name)?;
        let node = NodeId(self.state.next);
        let is_dir = matches!(content, Content::Directory(_));
        self.names_mut(dir)?.insert(name.to_vec(), node);
        if is_dir {
            self.add_links(dir, 1)?;
        }
        self.state.next += 1;
        let now = self.now;
        self.state.nodes.insert(
            node.0,
            Node {
                content,
                attributes,
                links: if is_dir { 2 } else { 1 },
                atime: now,
                mtime: now,
                ctime: now,
                xattrs: BTreeMap::new(),
            },
        );
        Ok(node)
    }

    fn add_links(&mut self, node: NodeId, change: i32) -> Result<()> {
        let node = self.node_mut(node)?;
        node.links = node.links.saturating_add_signed(change);
        Ok(())
    }

    fn find(&self, dir: NodeId, name: &[u8]) -> Result<NodeId> {
        self.names(dir)?.get(name).copied().ok_or_else(|| Error::NotFound(display_name(name)))
    }

    /// Whether `node` is `dir` or lies above it.
    fn is_above(&self, node: NodeId, dir: NodeId) -> bool {
        let mut at = dir;
        for _ in 0..=self.state.nodes.len() {
            if at == node {
                return true;
            }
            let parent = self.state.nodes.iter().find(|(_, candidate)| {
                matches!(&candidate.content, Content::Directory(names) if names.values().any(|n| *n == at))
            });
            match parent {
                Some((number, _)) => at = NodeId(*number),
                None => return false,
            }
        }
        false
    }
}

fn no_node(node: NodeId) -> Error {
    Error::NotFound(format!("node {}", node.0))
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong(display_name(name)));
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0)
    {
        return Err(Error::Invalid(format!("\"{}\" is not a file name", display_name(name))));
    }
    Ok(())
}

impl FileSystem for MemoryFs {
    fn info(&self) -> Result<Info> {
        Ok(Info {
            kind: Kind::Memory,
            uuid: self.uuid.clone(),
            label: self.label.clone(),
            block_size: 1,
            size: u64::MAX / 2,
            free: u64::MAX / 2,
        })
    }

    fn root(&self) -> NodeId {
        ROOT
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        Ok(self.names(dir)?.get(name).copied())
    }

    fn readdir(&self, dir: NodeId) -> Result<Vec<DirEntry>> {
        self.names(dir)?
            .iter()
            .map(|(name, node)| {
                let file_type = Some(self.stat(*node)?.file_type);
                Ok(DirEntry { name: name.clone(), node: *node, file_type })
            })
            .collect()
    }

    fn stat(&self, number: NodeId) -> Result<Stat> {
        let node = self.node(number)?;
        let (file_type, size, device) = match &node.content {
            Content::Regular(bytes) => (FileType::Regular, bytes.len(), None),
            Content::Directory(names) => (FileType::Directory, names.len(), None),
            Content::Symlink(target) => (FileType::Symlink, target.len(), None),
            Content::Special(file_type, device) => (*file_type, 0, *device),
        };
        Ok(Stat {
            node: number,
            file_type,
            mode: node.attributes.mode,
            uid: node.attributes.uid,
            gid: node.attributes.gid,
            links: node.links,
            size: to_u64(size),
            blocks: to_u64(size).div_ceil(512),
            device,
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
        })
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let Content::Regular(bytes) = &self.node(node)?.content else {
            return Err(Error::WrongType(format!("node {}", node.0), "not a regular file"));
        };
        let rest = usize::try_from(offset).ok().and_then(|start| bytes.get(start..)).unwrap_or(&[]);
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        match &self.node(node)?.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(Error::WrongType(format!("node {}", node.0), "not a symbolic link")),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        Ok(self.node(node)?.xattrs.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn create(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        self.insert(dir, name, Content::Regular(Vec::new()), attributes)
    }

    fn mkdir(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        self.insert(dir, name, Content::Directory(Names::new()), attributes)
    }

    fn symlink(
        &mut self,
        dir: NodeId,
        name: &[u8],
        target: &[u8],
        attributes: Attributes,
    ) -> Result<NodeId> {
        self.insert(dir, name, Content::Symlink(target.to_vec()), attributes)
    }

    fn replace(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        *self.regular_mut(node)? = content.to_vec();
        Ok(())
    }

    fn append(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.regular_mut(node)?.extend_from_slice(content);
        Ok(())
    }

    fn link(&mut self, node: NodeId, dir: NodeId, name: &[u8]) -> Result<()> {
        self.hard_link(node, dir, name)
    }

    fn mknod(
        &mut self,
        dir: NodeId,
        name: &[u8],
        file_type: FileType,
        device: Option<(u32, u32)>,
        attributes: Attributes,
    ) -> Result<NodeId> {
        self.make_special(dir, name, file_type, device, attributes)
    }

    fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        let node = self.find(dir, name)?;
        if matches!(self.node(node)?.content, Content::Directory(_)) {
            return Err(Error::IsADirectory(display_name(name)));
        }
        self.names_mut(dir)?.remove(name);
        self.add_links(node, -1)?;
        let now = self.now;
        let file = self.node_mut(node)?;
        file.ctime = now;
        if file.links == 0 {
            self.state.nodes.remove(&node.0);
        }
        Ok(())
    }

    fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        let node = self.find(dir, name)?;
        match &self.node(node)?.content {
            Content::Directory(names) if names.is_empty() => {}
            Content::Directory(_) => return Err(Error::NotEmpty(display_name(name))),
            _ => return Err(Error::NotADirectory(display_name(name))),
        }
        self.names_mut(dir)?.remove(name);
        self.add_links(dir, -1)?;
        self.state.nodes.remove(&node.0);
        Ok(())
    }

    fn rename(&mut self, from_dir: NodeId, from: &[u8], to_dir: NodeId, to: &[u8]) -> Result<()> {
        check_name(to)?;
        let node = self.find(from_dir, from)?;
        let is_dir = matches!(self.node(node)?.content, Content::Directory(_));
        let target = self.names(to_dir)?.get(to).copied();
        if target == Some(node) {
            return Ok(());
        }
        if is_dir && self.is_above(node, to_dir) {
            return Err(Error::Invalid(format!(
                "{}: a directory cannot be moved into itself",
                display_name(from)
            )));
        }
        if let Some(target) = target {
            let target_is_dir = matches!(self.node(target)?.content, Content::Directory(_));
            match (is_dir, target_is_dir) {
                (true, true) => self.rmdir(to_dir, to)?,
                (false, false) => self.unlink(to_dir, to)?,
                (true, false) => return Err(Error::NotADirectory(display_name(to))),
                (false, true) => return Err(Error::IsADirectory(display_name(to))),
            }
        }
        self.names_mut(from_dir)?.remove(from);
        self.names_mut(to_dir)?.insert(to.to_vec(), node);
        if is_dir && from_dir != to_dir {
            self.add_links(from_dir, -1)?;
            self.add_links(to_dir, 1)?;
        }
        self.node_mut(node)?.ctime = self.now;
        Ok(())
    }

    fn chmod(&mut self, node: NodeId, mode: u16) -> Result<()> {
        let now = self.now;
        let node = self.node_mut(node)?;
        node.attributes.mode = mode & 0o7777;
        node.ctime = now;
        Ok(())
    }

    fn chown(&mut self, node: NodeId, uid: u32, gid: u32) -> Result<()> {
        let now = self.now;
        let node = self.node_mut(node)?;
        node.attributes.uid = uid;
        node.attributes.gid = gid;
        node.ctime = now;
        Ok(())
    }

    fn set_times(&mut self, node: NodeId, times: Times) -> Result<()> {
        let now = self.now;
        let node = self.node_mut(node)?;
        node.atime = times.atime.unwrap_or(node.atime);
        node.mtime = times.mtime.unwrap_or(node.mtime);
        node.ctime = now;
        Ok(())
    }

    fn set_xattr(&mut self, node: NodeId, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let now = self.now;
        let node = self.node_mut(node)?;
        match value {
            Some(value) => {
                node.xattrs.insert(name.to_vec(), value.to_vec());
            }
            None => {
                node.xattrs.remove(name);
            }
        }
        node.ctime = now;
        Ok(())
    }

    fn is_dirty(&self) -> bool {
        self.state != self.committed
    }

    fn commit(&mut self) -> Result<CommitReport> {
        if self.fail_commit {
            return Err(Error::ReadOnly("this file system was told to fail".into()));
        }
        self.committed = self.state.clone();
        Ok(CommitReport::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

    #[test]
    fn links_and_contents() {
        let mut fs = MemoryFs::new();
        let dir = fs.mkdir(ROOT, b"d", Attributes { mode: 0o755, uid: 0, gid: 0 }).unwrap();
        let file = fs.create(dir, b"f", FILE).unwrap();
        fs.replace(file, b"hello").unwrap();
        fs.append(file, b" world").unwrap();
        fs.hard_link(file, ROOT, b"g").unwrap();
        fs.unlink(dir, b"f").unwrap();
        let mut buf = [0; 20];
        assert_eq!(fs.read(file, 6, &mut buf).unwrap(), 5);
        assert_eq!(&buf[..5], b"world");
        assert_eq!(fs.stat(ROOT).unwrap().links, 3);
        assert!(matches!(fs.rmdir(ROOT, b"g"), Err(Error::NotADirectory(_))));
        fs.rmdir(ROOT, b"d").unwrap();
        fs.unlink(ROOT, b"g").unwrap();
        assert!(fs.stat(file).is_err());
        assert!(fs.readdir(ROOT).unwrap().is_empty());
    }

    #[test]
    fn rename_replaces_as_the_kernel_does() {
        let mut fs = MemoryFs::new();
        let a = fs.mkdir(ROOT, b"a", FILE).unwrap();
        let b = fs.mkdir(a, b"b", FILE).unwrap();
        assert!(matches!(fs.rename(ROOT, b"a", b, b"c"), Err(Error::Invalid(_))));
        let old = fs.create(ROOT, b"old", FILE).unwrap();
        let new = fs.create(ROOT, b"new", FILE).unwrap();
        fs.rename(ROOT, b"new", ROOT, b"old").unwrap();
        assert!(fs.stat(old).is_err());
        assert_eq!(fs.lookup(ROOT, b"old").unwrap(), Some(new));
        assert!(matches!(fs.rename(ROOT, b"old", ROOT, b"a"), Err(Error::IsADirectory(_))));
        fs.rename(a, b"b", ROOT, b"b").unwrap();
        assert_eq!((fs.stat(a).unwrap().links, fs.stat(ROOT).unwrap().links), (2, 4));
    }

    #[test]
    fn commit_is_the_only_way_out() {
        let mut fs = MemoryFs::new();
        fs.create(ROOT, b"f", FILE).unwrap();
        assert!(fs.is_dirty());
        assert_eq!(fs.committed().lookup(ROOT, b"f").unwrap(), None);
        fs.commit().unwrap();
        assert!(!fs.is_dirty());
        assert!(fs.committed().lookup(ROOT, b"f").unwrap().is_some());
    }
}
