//! A mounted file system with all changes held in memory: the same trait as our own engines. What
//! is read comes from the broker, where nothing has changed it; what is changed stays here until
//! the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snf_fs::error::display_name;
use snf_fs::{
    Attributes, CommitReport, DirEntry, Error, FileSystem, FileType, Info, Kind, NodeId, Result,
    Stat, Times, Timestamp,
};

use super::client::Client;
use super::state::{Node, State, Step, check_name, join};
use super::wire::{Bytes, Mounted};

/// The largest file that something is appended to.
const APPENDED_MAX: usize = 32 << 20;

/// The names of a file system and its kind.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) kind: Kind,
    pub(crate) uuid: String,
    pub(crate) label: String,
    /// The time that changes carry.
    pub(crate) now: Timestamp,
}

/// The part that all views of one file system share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Arc<Client>,
    pub(super) mount: u32,
    identity: Identity,
    pub(super) block_size: u32,
    pub(super) size: u64,
    pub(super) free: u64,
    state: Mutex<State>,
}

/// A view of a mounted file system: the whole of it, or one of its subvolumes.
#[derive(Debug)]
pub(crate) struct KernelFs {
    pub(super) shared: Arc<Shared>,
    root: u64,
    read_only: bool,
}

impl KernelFs {
    /// Mounts a part of a disk, read-only. Of a btrfs the view is its default subvolume.
    pub(crate) fn open(
        client: Arc<Client>,
        disk: &str,
        start: u64,
        size: u64,
        identity: Identity,
    ) -> Result<Self> {
        let mounted = client.mount(disk, start, size, identity.kind.name())?;
        Self::of_mount(client, identity, &mounted)
    }

    /// The mount as the broker describes it.
    pub(super) fn of_mount(
        client: Arc<Client>,
        identity: Identity,
        mounted: &Mounted,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            client,
            mount: mounted.mount,
            identity,
            block_size: mounted.block_size,
            size: mounted.size,
            free: mounted.free,
            state: Mutex::default(),
        });
        Self::view(shared, &mounted.default)
    }

    /// A view whose root is the directory at `path`.
    fn view(shared: Arc<Shared>, path: &[u8]) -> Result<Self> {
        let subvolumes = shared.identity.kind == Kind::Btrfs;
        let root = {
            let mut state = shared.lock();
            let mut at = shared.top(&mut state)?;
            for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                at = shared
                    .lookup(&mut state, at, name)?
                    .ok_or_else(|| Error::NotFound(display_name(path)))?;
            }
            state.directory(at)?;
            at
        };
        let read_only = subvolumes && shared.client.subvolume_read_only(shared.mount, path)?;
        Ok(Self { shared, root, read_only })
    }

    /// The state, to change one of these nodes.
    fn change(&self, nodes: &[NodeId]) -> Result<MutexGuard<'_, State>> {
        if self.read_only {
            return Err(Error::ReadOnly(
                "the subvolume is marked read-only (btrfs property ro)".into(),
            ));
        }
        let state = self.shared.lock();
        for node in nodes {
            if state.node(node.0)?.stat.fixed {
                return Err(Error::ReadOnly(
                    "it has the attribute immutable or append-only (chattr -i -a)".into(),
                ));
            }
        }
        Ok(state)
    }

    fn insert(
        &mut self,
        dir: NodeId,
        name: &[u8],
        file_type: FileType,
        attributes: Attributes,
        target: Option<&[u8]>,
    ) -> Result<NodeId> {
        let mut state = self.change(&[dir])?;
        check_name(name)?;
        if self.shared.lookup(&mut state, dir.0, name)?.is_some() {
            return Err(Error::Exists(display_name(name)));
        }
        let path = state.path_of(dir.0, name)?;
        let number = state.new_node(self.shared.identity.now, file_type, attributes, target);
        state.add_name(dir.0, name, number)?;
        state.touch(dir.0, self.shared.identity.now)?;
        if file_type == FileType::Directory {
            state.add_links(dir.0, 1)?;
        }
        state.make(number, file_type, path);
        Ok(NodeId(number))
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root of the whole file system.
    fn top(&self, state: &mut State) -> Result<u64> {
        if state.nodes.contains_key(&0) {
            return Ok(0);
        }
        let stat = self
            .client
            .stat(self.mount, b"")?
            .ok_or_else(|| Error::NotFound("the root directory".into()))?;
        state.nodes.insert(0, Node::existing(stat, Bytes::default()));
        state.next = 1;
        Ok(0)
    }

    fn lookup(&self, state: &mut State, dir: u64, name: &[u8]) -> Result<Option<u64>> {
        let node = state.directory(dir)?;
        if let Some(known) = node.children.get(name) {
            return Ok(*known);
        }
        if check_name(name).is_err() {
            return Ok(None);
        }
        let found = match &node.origin {
            None => None,
            Some(origin) => {
                let path = join(origin, name);
                self.client.stat(self.mount, &path)?.map(|stat| state.intern(stat, path))
            }
        };
        match found {
            Some(number) => state.add_name(dir, name, number)?,
            None => {
                state.node_mut(dir)?.children.insert(name.into(), None);
            }
        }
        Ok(found)
    }

    fn names(&self, state: &mut State, dir: u64) -> Result<Vec<(Bytes, u64)>> {
        let node = state.directory(dir)?;
        let mut names = BTreeSet::new();
        if let Some(origin) = &node.origin {
            let entries = self.client.list(self.mount, origin)?;
            names.extend(entries.into_iter().map(|(name, _)| name));
        }
        names.extend(state.directory(dir)?.children.keys().cloned());
        let mut out = Vec::new();
        for name in names {
            if let Some(number) = self.lookup(state, dir, &name)? {
                out.push((name, number));
            }
        }
        Ok(out)
    }

    fn load_xattrs<'a>(
        &self,
        state: &'a mut State,
        number: u64,
    ) -> Result<&'a mut BTreeMap<Bytes, Bytes>> {
        let node = state.node_mut(number)?;
        let loaded = match (node.xattrs.take(), &node.origin) {
            (Some(loaded), _) => loaded,
            (None, Some(origin)) => self.client.xattrs(self.mount, origin)?.into_iter().collect(),
            (None, None) => BTreeMap::new(),
        };
        Ok(node.xattrs.insert(loaded))
    }

    /// All extended attributes of a node, as they are now.
    pub(super) fn xattrs_of(
        &self,
        state: &mut State,
        number: u64,
    ) -> Result<BTreeMap<Bytes, Bytes>> {
        self.load_xattrs(state, number).cloned()
    }

    fn read_all(&self, state: &State, number: u64) -> Result<Vec<u8>> {
        let node = state.regular(number)?;
        if let Some(content) = &node.content {
            return Ok(content.clone());
        }
        let Some(origin) = &node.origin else { return Ok(Vec::new()) };
        // Files of settings grow by a line of text here, not disk images.
        let size = usize::try_from(node.stat.size)
            .ok()
            .filter(|size| *size <= APPENDED_MAX)
            .ok_or_else(|| Error::Invalid("the file is too large to be appended to".into()))?;
        let mut content = vec![0; size];
        let count = self.client.read(self.mount, origin, 0, &mut content)?;
        content.truncate(count);
        Ok(content)
    }
}

impl FileSystem for KernelFs {
    fn info(&self) -> Result<Info> {
        let Identity { kind, uuid, label, .. } = self.shared.identity.clone();
        let grown = self.shared.lock().grow.unwrap_or(self.shared.size);
        Ok(Info {
            kind,
            uuid,
            label,
            block_size: self.shared.block_size,
            size: grown,
            free: self.shared.free.saturating_add(grown - self.shared.size),
        })
    }

    fn root(&self) -> NodeId {
        NodeId(self.root)
    }

    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        Ok(self.shared.lookup(&mut self.shared.lock(), dir.0, name)?.map(NodeId))
    }

    fn readdir(&self, dir: NodeId) -> Result<Vec<DirEntry>> {
        let mut state = self.shared.lock();
        let names = self.shared.names(&mut state, dir.0)?;
        let entry = |(name, number): (Bytes, u64)| {
            let file_type = Some(state.node(number)?.stat.file_type);
            Ok(DirEntry { name: name.into_vec(), node: NodeId(number), file_type })
        };
        names.into_iter().map(entry).collect()
    }

    fn stat(&self, node: NodeId) -> Result<Stat> {
        let state = self.shared.lock();
        let stat = &state.node(node.0)?.stat;
        let is_device = matches!(stat.file_type, FileType::CharDevice | FileType::BlockDevice);
        Ok(Stat {
            node,
            file_type: stat.file_type,
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            links: stat.links,
            size: stat.size,
            blocks: stat.blocks,
            device: is_device.then_some(stat.device),
            atime: stat.atime,
            mtime: stat.mtime,
            ctime: stat.ctime,
        })
    }

    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let state = self.shared.lock();
        let node = state.regular(node.0)?;
        match (&node.content, &node.origin) {
            (Some(content), _) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                let rest = &content[start..];
                let count = rest.len().min(buf.len());
                buf[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
            (None, Some(origin)) => self.shared.client.read(self.shared.mount, origin, offset, buf),
            (None, None) => Ok(0),
        }
    }

    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        let state = self.shared.lock();
        let node = state.node(node.0)?;
        match (&node.target, &node.origin) {
            (Some(target), _) => Ok(target.to_vec()),
            (None, Some(origin)) if node.stat.file_type == FileType::Symlink => {
                Ok(self.shared.client.read_link(self.shared.mount, origin)?.into_vec())
            }
            _ => Err(Error::WrongType("the node".into(), "not a symbolic link")),
        }
    }

    fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let xattrs = self.shared.xattrs_of(&mut self.shared.lock(), node.0)?;
        Ok(xattrs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    fn create(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        self.insert(dir, name, FileType::Regular, attributes, None)
    }

    fn mkdir(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        self.insert(dir, name, FileType::Directory, attributes, None)
    }

    fn symlink(
        &mut self,
        dir: NodeId,
        name: &[u8],
        target: &[u8],
        attributes: Attributes,
    ) -> Result<NodeId> {
        let attributes = Attributes { mode: 0o777, ..attributes };
        self.insert(dir, name, FileType::Symlink, attributes, Some(target))
    }

    fn replace(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.change(&[node])?.set_content(node.0, content.to_vec(), self.shared.identity.now)
    }

    fn append(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        let mut state = self.change(&[node])?;
        let mut all = self.shared.read_all(&state, node.0)?;
        all.extend_from_slice(content);
        state.set_content(node.0, all, self.shared.identity.now)
    }

    fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        let now = self.shared.identity.now;
        let mut state = self.change(&[dir])?;
        let number = self
            .shared
            .lookup(&mut state, dir.0, name)?
            .ok_or_else(|| Error::NotFound(display_name(name)))?;
        if state.node(number)?.stat.file_type == FileType::Directory {
            return Err(Error::IsADirectory(display_name(name)));
        }
        drop(state);
        let mut state = self.change(&[dir, NodeId(number)])?;
        let path = state.path_of(dir.0, name)?;
        state.drop_name(dir.0, name, number)?;
        state.add_links(number, -1)?;
        state.node_mut(number)?.stat.ctime = now;
        state.touch(dir.0, now)?;
        state.steps.push(Step::Remove { path, directory: false });
        Ok(())
    }

    fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        let now = self.shared.identity.now;
        let mut state = self.change(&[dir])?;
        let number = self
            .shared
            .lookup(&mut state, dir.0, name)?
            .ok_or_else(|| Error::NotFound(display_name(name)))?;
        state.directory(number).map_err(|_| Error::NotADirectory(display_name(name)))?;
        if !self.shared.names(&mut state, number)?.is_empty() {
            return Err(Error::NotEmpty(display_name(name)));
        }
        let path = state.path_of(dir.0, name)?;
        state.drop_name(dir.0, name, number)?;
        state.add_links(dir.0, -1)?;
        state.touch(dir.0, now)?;
        state.steps.push(Step::Remove { path, directory: true });
        Ok(())
    }

    fn rename(&mut self, from_dir: NodeId, from: &[u8], to_dir: NodeId, to: &[u8]) -> Result<()> {
        let now = self.shared.identity.now;
        let mut state = self.change(&[from_dir, to_dir])?;
        check_name(to)?;
        let number = self
            .shared
            .lookup(&mut state, from_dir.0, from)?
            .ok_or_else(|| Error::NotFound(display_name(from)))?;
        let is_dir = state.node(number)?.stat.file_type == FileType::Directory;
        let target = self.shared.lookup(&mut state, to_dir.0, to)?;
        if target == Some(number) {
            return Ok(());
        }
        if is_dir && state.is_above(number, to_dir.0)? {
            return Err(Error::Invalid(format!(
                "{}: a directory cannot be moved into itself",
                display_name(from)
            )));
        }
        if let Some(target) = target {
            let target_is_dir = state.node(target)?.stat.file_type == FileType::Directory;
            match (is_dir, target_is_dir) {
                (true, false) => return Err(Error::NotADirectory(display_name(to))),
                (false, true) => return Err(Error::IsADirectory(display_name(to))),
                (true, true) if !self.shared.names(&mut state, target)?.is_empty() => {
                    return Err(Error::NotEmpty(display_name(to)));
                }
                _ => {}
            }
            state.drop_name(to_dir.0, to, target)?;
            match is_dir {
                true => state.add_links(to_dir.0, -1)?,
                false => state.add_links(target, -1)?,
            }
        }
        let (from_path, to_path) = (state.path_of(from_dir.0, from)?, state.path_of(to_dir.0, to)?);
        state.drop_name(from_dir.0, from, number)?;
        state.add_name(to_dir.0, to, number)?;
        if is_dir && from_dir != to_dir {
            state.add_links(from_dir.0, -1)?;
            state.add_links(to_dir.0, 1)?;
        }
        state.node_mut(number)?.stat.ctime = now;
        state.touch(from_dir.0, now)?;
        state.touch(to_dir.0, now)?;
        state.steps.push(Step::Rename { from: from_path, to: to_path });
        Ok(())
    }

    fn chmod(&mut self, node: NodeId, mode: u16) -> Result<()> {
        let mut state = self.change(&[node])?;
        state.set(node.0, self.shared.identity.now)?.stat.mode = mode & 0o7777;
        Ok(())
    }

    fn chown(&mut self, node: NodeId, uid: u32, gid: u32) -> Result<()> {
        let mut state = self.change(&[node])?;
        let node = state.set(node.0, self.shared.identity.now)?;
        (node.stat.uid, node.stat.gid) = (uid, gid);
        Ok(())
    }

    fn set_times(&mut self, node: NodeId, times: Times) -> Result<()> {
        let mut state = self.change(&[node])?;
        let node = state.set(node.0, self.shared.identity.now)?;
        node.stat.atime = times.atime.unwrap_or(node.stat.atime);
        node.stat.mtime = times.mtime.unwrap_or(node.stat.mtime);
        Ok(())
    }

    fn set_xattr(&mut self, node: NodeId, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut state = self.change(&[node])?;
        let xattrs = self.shared.load_xattrs(&mut state, node.0)?;
        match value {
            Some(value) => {
                xattrs.insert(name.into(), value.into());
            }
            None => {
                xattrs.remove(name);
            }
        }
        let node = state.set(node.0, self.shared.identity.now)?;
        node.xattrs_changed.insert(name.into());
        Ok(())
    }

    fn grow(&mut self, size: u64) -> Result<u64> {
        let mut state = self.shared.lock();
        let size = size - size % u64::from(self.shared.block_size.max(1));
        if size > state.grow.unwrap_or(self.shared.size) {
            state.grow = Some(size);
        }
        Ok(state.grow.unwrap_or(self.shared.size))
    }

    fn subvolume(&self, path: &[u8]) -> Result<Option<Box<dyn FileSystem>>> {
        if self.shared.identity.kind != Kind::Btrfs {
            return Ok(None);
        }
        match Self::view(self.shared.clone(), path) {
            Ok(view) => Ok(Some(Box::new(view))),
            Err(Error::NotFound(_) | Error::NotADirectory(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_dirty(&self) -> bool {
        let state = self.shared.lock();
        !state.steps.is_empty() || state.grow.is_some()
    }

    fn commit(&mut self) -> Result<CommitReport> {
        self.shared.commit()
    }
}
