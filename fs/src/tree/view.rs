//! Reading by path.

use super::{Resolved, Tree, at_path};
use crate::error::{Error, Result};
use crate::filesystem::{DirEntry, FileType, Stat};
use crate::num::{to_u64, to_usize};

/// How much is read from an engine at once.
const CHUNK: u64 = 1 << 20;

impl Tree {
    /// The answer of `stat`: a symbolic link at the end is followed.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::NotADirectory`] for a path that leads nowhere,
    /// [`Error::SymlinkLoop`] and [`Error::NameTooLong`] for one that has no end, and what the file
    /// system says.
    pub fn stat(&self, path: impl AsRef<[u8]>) -> Result<Stat> {
        let walk = self.walk(path.as_ref(), true)?;
        self.stat_place(walk.existing()?).map_err(at_path(&walk.path()))
    }

    /// The answer of `lstat`: a symbolic link at the end is not followed.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn lstat(&self, path: impl AsRef<[u8]>) -> Result<Stat> {
        let walk = self.walk(path.as_ref(), false)?;
        self.stat_place(walk.existing()?).map_err(at_path(&walk.path()))
    }

    /// The answer of `stat`, or `None` when there is nothing.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn stat_optional(&self, path: impl AsRef<[u8]>) -> Result<Option<Stat>> {
        optional(self.stat(path))
    }

    /// Whether the path leads to something. A dangling symbolic link does not.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.stat_optional(path)?.is_some())
    }

    /// Whether the path leads to a directory.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn is_dir(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.stat_optional(path)?.is_some_and(|stat| stat.file_type == FileType::Directory))
    }

    /// Whether the path leads to a regular file.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn is_file(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.stat_optional(path)?.is_some_and(|stat| stat.file_type == FileType::Regular))
    }

    /// The place that the path leads to, symbolic links followed to the end. The last name may be missing.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn resolve(&self, path: impl AsRef<[u8]>) -> Result<Resolved> {
        let walk = self.walk(path.as_ref(), true)?;
        let path = walk.path();
        if walk.missing.len() > 1 {
            return Err(walk.not_found());
        }
        let stat = if walk.missing.is_empty() {
            Some(self.stat_place(walk.last()).map_err(at_path(&path))?)
        } else {
            None
        };
        Ok(Resolved { path, stat })
    }

    /// The canonical path of something that exists, itself a symbolic link perhaps: only those on
    /// the way are followed.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn resolve_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let walk = self.walk(path.as_ref(), false)?;
        walk.existing()?;
        Ok(walk.path())
    }

    /// The place that a path would lead to after [`Tree::mkdir_all`] of its directory: the canonical path,
    /// with all that is missing.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn resolve_missing(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        Ok(self.walk(path.as_ref(), true)?.path())
    }

    /// The whole content of a regular file of at most `limit` bytes; a longer one is an error.
    ///
    /// # Errors
    /// As [`Tree::stat`]. [`Error::IsADirectory`] or [`Error::WrongType`] where it is no regular
    /// file, [`Error::Invalid`] where it is longer than `limit`.
    pub fn read(&self, path: impl AsRef<[u8]>, limit: u64) -> Result<Vec<u8>> {
        let walk = self.walk(path.as_ref(), true)?;
        let place = walk.existing()?;
        let path = walk.path();
        let stat = self.stat_place(place).map_err(at_path(&path))?;
        match stat.file_type {
            FileType::Regular => {}
            FileType::Directory => return Err(Error::IsADirectory(walk.display())),
            _ => return Err(Error::WrongType(walk.display(), "not a regular file")),
        }
        if stat.size > limit {
            return Err(Error::Invalid(format!(
                "{}: {} bytes, which is more than the {limit} that such a file may have",
                walk.display(),
                stat.size
            )));
        }
        let mut content = Vec::new();
        while to_u64(content.len()) < stat.size {
            let start = content.len();
            let wanted = to_usize((stat.size - to_u64(start)).min(CHUNK));
            content.resize(start + wanted, 0);
            let fs = self.fs(place);
            let count = fs
                .read(place.node, to_u64(start), &mut content[start..])
                .map_err(at_path(&path))?;
            content.truncate(start + count.min(wanted));
            if count == 0 {
                break;
            }
        }
        Ok(content)
    }

    /// Up to `length` bytes at `offset` of a regular file; fewer only at its end.
    ///
    /// # Errors
    /// As [`Tree::stat`]. [`Error::IsADirectory`] or [`Error::WrongType`] where it is no regular
    /// file.
    pub fn read_range(
        &self,
        path: impl AsRef<[u8]>,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>> {
        let walk = self.walk(path.as_ref(), true)?;
        let place = walk.existing()?;
        let path = walk.path();
        let stat = self.stat_place(place).map_err(at_path(&path))?;
        if stat.file_type != FileType::Regular {
            return Err(Error::WrongType(walk.display(), "not a regular file"));
        }
        let wanted = to_usize(stat.size.saturating_sub(offset).min(to_u64(length)));
        let mut content = vec![0; wanted];
        let mut filled = 0;
        while filled < wanted {
            let part = content.get_mut(filled..).unwrap_or_default();
            match self.fs(place).read(place.node, offset + to_u64(filled), part) {
                Ok(0) => break,
                Ok(count) => filled += count.min(wanted - filled),
                Err(error) => return Err(at_path(&path)(error)),
            }
        }
        content.truncate(filled);
        Ok(content)
    }

    /// Like [`Tree::read`], but `None` when there is no such file.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn read_optional(&self, path: impl AsRef<[u8]>, limit: u64) -> Result<Option<Vec<u8>>> {
        optional(self.read(path, limit))
    }

    /// The target of the symbolic link at the path's end.
    ///
    /// # Errors
    /// As [`Tree::stat`]. [`Error::WrongType`] where it is no symbolic link.
    pub fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        let walk = self.walk(path.as_ref(), false)?;
        let place = walk.existing()?;
        self.fs(place).read_link(place.node).map_err(at_path(&walk.path()))
    }

    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// As [`Tree::stat`]. [`Error::NotADirectory`] where it is no directory.
    pub fn read_dir(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>> {
        let walk = self.walk(path.as_ref(), true)?;
        let place = walk.existing()?;
        let path = walk.path();
        if self.stat_place(place).map_err(at_path(&path))?.file_type != FileType::Directory {
            return Err(Error::NotADirectory(walk.display()));
        }
        let mut entries = self.fs(place).readdir(place.node).map_err(at_path(&path))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The entries of a directory, sorted by name; none when there is no such directory.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn read_dir_optional(&self, path: impl AsRef<[u8]>) -> Result<Vec<DirEntry>> {
        Ok(optional(self.read_dir(path))?.unwrap_or_default())
    }

    /// All extended attributes, of the symbolic link itself where the path ends with one.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn xattrs(&self, path: impl AsRef<[u8]>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let walk = self.walk(path.as_ref(), false)?;
        let place = walk.existing()?;
        self.fs(place).xattrs(place.node).map_err(at_path(&walk.path()))
    }

    /// One extended attribute, of the symbolic link itself where the path ends with one.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn xattr(&self, path: impl AsRef<[u8]>, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.xattrs(path)?.into_iter().find(|(n, _)| n == name).map(|(_, value)| value))
    }
}

fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
