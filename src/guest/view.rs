//! Several views of one file system: each has a directory of its own as its root. The views share
//! the nodes and what waits for the commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use snf_fs::{
    Attributes, CommitReport, DirEntry, FileSystem, FileType, Info, NodeId, Result, Stat, Times,
};

/// A file system seen from one of its directories.
pub(super) struct View {
    shared: Arc<Mutex<Box<dyn FileSystem>>>,
    root: NodeId,
}

impl View {
    /// The whole of a file system.
    pub(super) fn new(fs: Box<dyn FileSystem>) -> Self {
        let root = fs.root();
        Self { shared: Arc::new(Mutex::new(fs)), root }
    }

    /// The same file system from another directory.
    pub(super) fn at(&self, root: NodeId) -> Self {
        Self { shared: self.shared.clone(), root }
    }

    fn fs(&self) -> MutexGuard<'_, Box<dyn FileSystem>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileSystem for View {
    fn info(&self) -> Result<Info> {
        self.fs().info()
    }
    fn root(&self) -> NodeId {
        self.root
    }
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>> {
        self.fs().lookup(dir, name)
    }
    fn readdir(&self, dir: NodeId) -> Result<Vec<DirEntry>> {
        self.fs().readdir(dir)
    }
    fn stat(&self, node: NodeId) -> Result<Stat> {
        self.fs().stat(node)
    }
    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.fs().read(node, offset, buf)
    }
    fn read_link(&self, node: NodeId) -> Result<Vec<u8>> {
        self.fs().read_link(node)
    }
    fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.fs().xattrs(node)
    }
    fn create(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        self.fs().create(dir, name, attributes)
    }
    fn mkdir(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId> {
        self.fs().mkdir(dir, name, attributes)
    }
    fn symlink(
        &mut self,
        dir: NodeId,
        name: &[u8],
        target: &[u8],
        attributes: Attributes,
    ) -> Result<NodeId> {
        self.fs().symlink(dir, name, target, attributes)
    }
    fn replace(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.fs().replace(node, content)
    }
    fn write_from(&mut self, node: NodeId, content: &mut dyn std::io::Read) -> Result<u64> {
        self.fs().write_from(node, content)
    }
    fn link(&mut self, node: NodeId, dir: NodeId, name: &[u8]) -> Result<()> {
        self.fs().link(node, dir, name)
    }
    fn mknod(
        &mut self,
        dir: NodeId,
        name: &[u8],
        file_type: FileType,
        device: Option<(u32, u32)>,
        attributes: Attributes,
    ) -> Result<NodeId> {
        self.fs().mknod(dir, name, file_type, device, attributes)
    }
    fn append(&mut self, node: NodeId, content: &[u8]) -> Result<()> {
        self.fs().append(node, content)
    }
    fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        self.fs().unlink(dir, name)
    }
    fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Result<()> {
        self.fs().rmdir(dir, name)
    }
    fn rename(&mut self, from_dir: NodeId, from: &[u8], to_dir: NodeId, to: &[u8]) -> Result<()> {
        self.fs().rename(from_dir, from, to_dir, to)
    }
    fn chmod(&mut self, node: NodeId, mode: u16) -> Result<()> {
        self.fs().chmod(node, mode)
    }
    fn chown(&mut self, node: NodeId, uid: u32, gid: u32) -> Result<()> {
        self.fs().chown(node, uid, gid)
    }
    fn set_times(&mut self, node: NodeId, times: Times) -> Result<()> {
        self.fs().set_times(node, times)
    }
    fn set_xattr(&mut self, node: NodeId, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        self.fs().set_xattr(node, name, value)
    }
    fn grow(&mut self, size: u64) -> Result<u64> {
        self.fs().grow(size)
    }
    fn name_max(&self) -> usize {
        self.fs().name_max()
    }
    fn keeps_owners(&self) -> bool {
        self.fs().keeps_owners()
    }
    fn subvolume(&self, path: &[u8]) -> Result<Option<Box<dyn FileSystem>>> {
        self.fs().subvolume(path)
    }
    fn is_dirty(&self) -> bool {
        self.fs().is_dirty()
    }
    fn seal(&mut self) -> Result<()> {
        self.fs().seal()
    }
    fn check_commit(&mut self) -> Result<()> {
        self.fs().check_commit()
    }

    fn commit(&mut self) -> Result<CommitReport> {
        self.fs().commit()
    }
}
