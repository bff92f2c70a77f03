//! Changing by path.

use std::io::Read;

use super::resolve::{Place, Walk};
use super::{ChangeKind, Tree, Written, at_path};
use crate::error::{Error, Result, display_name};
use crate::filesystem::{Attributes, FileType, NodeId, Times};
use crate::num::to_u64;

/// The extended attribute that holds an SELinux label.
const SELINUX: &[u8] = b"security.selinux";
/// A content of fewer bytes is held in memory while it is compared.
const HEAD: u64 = 1 << 20;
/// A file is compared with what is to be written to it up to this size.
const COMPARE_MAX: u64 = 16 << 20;

impl Tree {
    /// Writes a whole file. One that exists keeps its node, owner, mode and extended attributes;
    /// a new one gets `attributes` and its label. Symbolic links are followed, also a dangling one
    /// at the end, whose target is then made.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says. [`Error::IsADirectory`] or [`Error::WrongType`]
    /// where something else is there.
    pub fn write(
        &mut self,
        path: impl AsRef<[u8]>,
        content: &[u8],
        attributes: Attributes,
    ) -> Result<Written> {
        let walk = self.walk(path.as_ref(), true)?;
        let full = walk.path();
        if !walk.missing.is_empty() {
            if walk.must_be_dir {
                return Err(Error::IsADirectory(walk.display()));
            }
            let (dir, name) = walk.entry()?;
            let fs = self.writable(dir, &full)?;
            let node = fs.create(dir.node, name, attributes).map_err(at_path(&full))?;
            fs.replace(node, content).map_err(at_path(&full))?;
            self.label(dir, node, &full, FileType::Regular)?;
            self.changes.record(&full, ChangeKind::Created);
            return Ok(Written::Created);
        }
        let place = self.regular(&walk)?;
        let size = self.stat_place(place).map_err(at_path(&full))?.size;
        if size == to_u64(content.len())
            && size <= COMPARE_MAX
            && self.read(&full, COMPARE_MAX)? == content
        {
            return Ok(Written::Unchanged);
        }
        self.writable(place, &full)?.replace(place.node, content).map_err(at_path(&full))?;
        self.changes.record(&full, ChangeKind::Replaced);
        Ok(Written::Replaced)
    }

    /// Like [`Tree::write`], for a content that memory need not hold ([`FileSystem::write_from`]). A
    /// small one is compared with what is there, and replaces it as [`Tree::write`] does.
    ///
    /// # Errors
    /// Those of [`Tree::write`], and [`Error::Content`].
    ///
    /// [`FileSystem::write_from`]: crate::FileSystem::write_from
    pub fn write_from(
        &mut self,
        path: impl AsRef<[u8]>,
        content: &mut dyn Read,
        attributes: Attributes,
    ) -> Result<Written> {
        let walk = self.walk(path.as_ref(), true)?;
        let full = walk.path();
        if walk.missing.is_empty() {
            let place = self.regular(&walk)?;
            let mut head = Vec::new();
            let failed = |error| Error::Content(display_name(&full), error);
            content.take(HEAD).read_to_end(&mut head).map_err(failed)?;
            if to_u64(head.len()) < HEAD {
                return self.write(&full, &head, attributes);
            }
            let mut whole = head.as_slice().chain(content);
            let fs = self.writable(place, &full)?;
            fs.write_from(place.node, &mut whole).map_err(at_path(&full))?;
            self.changes.record(&full, ChangeKind::Replaced);
            return Ok(Written::Replaced);
        }
        if walk.must_be_dir {
            return Err(Error::IsADirectory(walk.display()));
        }
        let (dir, name) = walk.entry()?;
        let fs = self.writable(dir, &full)?;
        let node = fs.create(dir.node, name, attributes).map_err(at_path(&full))?;
        fs.write_from(node, content).map_err(at_path(&full))?;
        self.label(dir, node, &full, FileType::Regular)?;
        self.changes.record(&full, ChangeKind::Created);
        Ok(Written::Created)
    }

    /// Gives a file (not what a symbolic link leads to) one more name, on the same file system.
    ///
    /// # Errors
    /// Errors of resolving the paths ([`Tree::stat`]), [`Error::ReadOnly`] if the file
    /// system cannot be changed, and its own errors. [`Error::Exists`] if the name is taken.
    pub fn link(&mut self, existing: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<()> {
        let from = self.walk(existing.as_ref(), false)?;
        let place = from.existing()?;
        let walk = self.walk(path.as_ref(), false)?;
        if walk.missing.is_empty() {
            return Err(Error::Exists(walk.display()));
        }
        let (dir, name) = walk.entry()?;
        let full = walk.path();
        if dir.mount != place.mount {
            return Err(Error::Invalid(format!(
                "{} and {} are not on the same file system",
                from.display(),
                walk.display()
            )));
        }
        let fs = self.writable(dir, &full)?;
        fs.link(place.node, dir.node, name).map_err(at_path(&full))?;
        self.changes.record(&full, ChangeKind::Created);
        Ok(())
    }

    /// Makes a device node, a named pipe or a socket.
    ///
    /// # Errors
    /// Errors of resolving the path ([`Tree::stat`]), [`Error::ReadOnly`] if the file
    /// system cannot be changed, and its own errors. [`Error::Exists`] if the name is taken.
    pub fn mknod(
        &mut self,
        path: impl AsRef<[u8]>,
        file_type: FileType,
        device: Option<(u32, u32)>,
        attributes: Attributes,
    ) -> Result<()> {
        let walk = self.walk(path.as_ref(), false)?;
        if walk.missing.is_empty() {
            return Err(Error::Exists(walk.display()));
        }
        let (dir, name) = walk.entry()?;
        let full = walk.path();
        let node = self
            .writable(dir, &full)?
            .mknod(dir.node, name, file_type, device, attributes)
            .map_err(at_path(&full))?;
        self.label(dir, node, &full, file_type)?;
        self.changes.record(&full, ChangeKind::Created);
        Ok(())
    }

    /// The same as [`Tree::chown`] for what is at the path itself, a symbolic link perhaps.
    ///
    /// # Errors
    /// As [`Tree::chown`].
    pub fn lchown(&mut self, path: impl AsRef<[u8]>, uid: u32, gid: u32) -> Result<()> {
        let walk = self.walk(path.as_ref(), false)?;
        self.chown_at(&walk, uid, gid)
    }

    /// The same as [`Tree::set_times`] for what is at the path itself, a symbolic link perhaps.
    ///
    /// # Errors
    /// As [`Tree::set_times`].
    pub fn set_link_times(&mut self, path: impl AsRef<[u8]>, times: Times) -> Result<()> {
        let walk = self.walk(path.as_ref(), false)?;
        self.set_times_at(&walk, times)
    }

    /// Adds to the end of a file that exists.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says.
    pub fn append(&mut self, path: impl AsRef<[u8]>, content: &[u8]) -> Result<()> {
        let walk = self.walk(path.as_ref(), true)?;
        let place = self.regular(&walk)?;
        if content.is_empty() {
            return Ok(());
        }
        let full = walk.path();
        self.writable(place, &full)?.append(place.node, content).map_err(at_path(&full))?;
        self.changes.record(&full, ChangeKind::Replaced);
        Ok(())
    }

    /// Makes a directory whose parent exists.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and its own errors. [`Error::Exists`] if the name is taken.
    pub fn mkdir(&mut self, path: impl AsRef<[u8]>, attributes: Attributes) -> Result<()> {
        let walk = self.walk(path.as_ref(), false)?;
        if walk.missing.is_empty() {
            return Err(Error::Exists(walk.display()));
        }
        let (dir, name) = walk.entry()?;
        self.make_dir(dir, name, &walk.path(), attributes)?;
        Ok(())
    }

    /// Makes a directory and those above it that are missing, all with the same attributes, and
    /// says how many. Symbolic links on the way are followed inside the tree; something on the way
    /// that is not a directory is an error.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says.
    pub fn mkdir_all(&mut self, path: impl AsRef<[u8]>, attributes: Attributes) -> Result<usize> {
        let mut walk = self.walk(path.as_ref(), true)?;
        if walk.missing.is_empty() {
            let stat = self.stat_place(walk.last()).map_err(at_path(&walk.path()))?;
            if stat.file_type != FileType::Directory {
                return Err(Error::NotADirectory(walk.display()));
            }
            return Ok(0);
        }
        let missing = std::mem::take(&mut walk.missing);
        let mut dir = walk.last();
        let mut full = walk.path();
        for name in &missing {
            if full != b"/" {
                full.push(b'/');
            }
            full.extend_from_slice(name);
            dir.node = self.make_dir(dir, name, &full, attributes)?;
        }
        Ok(missing.len())
    }

    /// Removes a file, a symbolic link (not what it leads to) or a device node.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says.
    pub fn unlink(&mut self, path: impl AsRef<[u8]>) -> Result<()> {
        let walk = self.walk(path.as_ref(), false)?;
        walk.existing()?;
        let (dir, name) = walk.entry()?;
        let full = walk.path();
        self.writable(dir, &full)?.unlink(dir.node, name).map_err(at_path(&full))?;
        self.changes.record(&full, ChangeKind::Removed);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says. [`Error::NotEmpty`] where it has entries.
    pub fn rmdir(&mut self, path: impl AsRef<[u8]>) -> Result<()> {
        let walk = self.walk(path.as_ref(), false)?;
        walk.existing()?;
        let (dir, name) = walk.entry()?;
        let full = walk.path();
        self.writable(dir, &full)?.rmdir(dir.node, name).map_err(at_path(&full))?;
        self.changes.record(&full, ChangeKind::Removed);
        Ok(())
    }

    /// Gives a node another name on the same file system, replacing a file that has it.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says.
    pub fn rename(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Result<()> {
        let from = self.walk(from.as_ref(), false)?;
        from.existing()?;
        let to = self.walk(to.as_ref(), false)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (from.entry()?, to.entry()?);
        let (from_path, to_path) = (from.path(), to.path());
        if from_dir.mount != to_dir.mount {
            return Err(Error::Invalid(format!(
                "{} and {} are not on the same file system",
                from.display(),
                to.display()
            )));
        }
        let replaces = to.missing.is_empty();
        self.writable(from_dir, &from_path)?
            .rename(from_dir.node, from_name, to_dir.node, to_name)
            .map_err(at_path(&to_path))?;
        if from_path != to_path {
            self.changes.record(&from_path, ChangeKind::Removed);
            let kind = if replaces { ChangeKind::Replaced } else { ChangeKind::Created };
            self.changes.record(&to_path, kind);
        }
        Ok(())
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and its own errors. [`Error::Exists`] if the name is taken.
    pub fn symlink(
        &mut self,
        path: impl AsRef<[u8]>,
        target: &[u8],
        attributes: Attributes,
    ) -> Result<()> {
        let walk = self.walk(path.as_ref(), false)?;
        if walk.missing.is_empty() {
            return Err(Error::Exists(walk.display()));
        }
        let (dir, name) = walk.entry()?;
        let full = walk.path();
        let node = self
            .writable(dir, &full)?
            .symlink(dir.node, name, target, attributes)
            .map_err(at_path(&full))?;
        self.label(dir, node, &full, FileType::Symlink)?;
        self.changes.record(&full, ChangeKind::Created);
        Ok(())
    }

    /// Sets permission bits; nothing is recorded when they are right already.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says.
    pub fn chmod(&mut self, path: impl AsRef<[u8]>, mode: u16) -> Result<()> {
        let walk = self.walk(path.as_ref(), true)?;
        let (place, full) = (walk.existing()?, walk.path());
        if self.stat_place(place).map_err(at_path(&full))?.mode == mode {
            return Ok(());
        }
        self.writable(place, &full)?.chmod(place.node, mode).map_err(at_path(&full))?;
        self.changes.record(&full, ChangeKind::Attributes);
        Ok(())
    }

    /// Sets owner and group; nothing is recorded when they are right already.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says.
    pub fn chown(&mut self, path: impl AsRef<[u8]>, uid: u32, gid: u32) -> Result<()> {
        let walk = self.walk(path.as_ref(), true)?;
        self.chown_at(&walk, uid, gid)
    }

    fn chown_at(&mut self, walk: &Walk, uid: u32, gid: u32) -> Result<()> {
        let (place, full) = (walk.existing()?, walk.path());
        let stat = self.stat_place(place).map_err(at_path(&full))?;
        if (stat.uid, stat.gid) == (uid, gid) {
            return Ok(());
        }
        self.writable(place, &full)?.chown(place.node, uid, gid).map_err(at_path(&full))?;
        self.changes.record(&full, ChangeKind::Attributes);
        Ok(())
    }

    /// Sets times.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says.
    pub fn set_times(&mut self, path: impl AsRef<[u8]>, times: Times) -> Result<()> {
        let walk = self.walk(path.as_ref(), true)?;
        self.set_times_at(&walk, times)
    }

    fn set_times_at(&mut self, walk: &Walk, times: Times) -> Result<()> {
        let (place, full) = (walk.existing()?, walk.path());
        self.writable(place, &full)?.set_times(place.node, times).map_err(at_path(&full))?;
        self.changes.record(&full, ChangeKind::Attributes);
        Ok(())
    }

    /// Sets (`Some`) or removes (`None`) an extended attribute, of the symbolic link itself where
    /// the path ends with one.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says.
    pub fn set_xattr(
        &mut self,
        path: impl AsRef<[u8]>,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<()> {
        let walk = self.walk(path.as_ref(), false)?;
        let (place, full) = (walk.existing()?, walk.path());
        let xattrs = self.fs(place).xattrs(place.node).map_err(at_path(&full))?;
        let old = xattrs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice());
        if old == value {
            return Ok(());
        }
        self.writable(place, &full)?.set_xattr(place.node, name, value).map_err(at_path(&full))?;
        self.changes.record(&full, ChangeKind::Attributes);
        Ok(())
    }

    /// The label that a new node gets: what the [`super::Labeler`] says, else its directory's.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]), [`Error::ReadOnly`] where the file
    /// system cannot be changed, and what it says.
    pub fn label_for(
        &self,
        path: impl AsRef<[u8]>,
        file_type: FileType,
    ) -> Result<Option<Vec<u8>>> {
        let walk = self.walk(path.as_ref(), false)?;
        let (dir, _) = walk.entry()?;
        self.label_in(dir, &walk.path(), file_type)
    }

    fn label_in(&self, dir: Place, path: &[u8], file_type: FileType) -> Result<Option<Vec<u8>>> {
        let xattrs = self.fs(dir).xattrs(dir.node).map_err(at_path(path))?;
        let Some((_, parent)) = xattrs.into_iter().find(|(name, _)| name == SELINUX) else {
            // A directory without a label: the image knows no SELinux, or wants a relabel anyway.
            return Ok(None);
        };
        let own = self.labeler.as_ref().and_then(|labeler| labeler(path, file_type));
        Ok(Some(own.unwrap_or(parent)))
    }

    fn label(&mut self, dir: Place, node: NodeId, path: &[u8], file_type: FileType) -> Result<()> {
        if let Some(label) = self.label_in(dir, path, file_type)? {
            self.writable(dir, path)?
                .set_xattr(node, SELINUX, Some(&label))
                .map_err(at_path(path))?;
        }
        Ok(())
    }

    fn make_dir(
        &mut self,
        dir: Place,
        name: &[u8],
        full: &[u8],
        attributes: Attributes,
    ) -> Result<NodeId> {
        if self.stat_place(dir).map_err(at_path(full))?.file_type != FileType::Directory {
            return Err(Error::NotADirectory(display_name(full)));
        }
        let node =
            self.writable(dir, full)?.mkdir(dir.node, name, attributes).map_err(at_path(full))?;
        self.label(dir, node, full, FileType::Directory)?;
        self.changes.record(full, ChangeKind::Created);
        Ok(node)
    }

    /// The regular file at the end of a walk, or an error that says what is there instead.
    fn regular(&self, walk: &Walk) -> Result<Place> {
        let place = walk.existing()?;
        match self.stat_place(place).map_err(at_path(&walk.path()))?.file_type {
            FileType::Regular => Ok(place),
            FileType::Directory => Err(Error::IsADirectory(walk.display())),
            _ => Err(Error::WrongType(walk.display(), "not a regular file")),
        }
    }
}
