//! Reading and changing the tree of one mount by path, never outside it: every path is opened
//! beneath the mount's root, and a symbolic link on the way is an error (the worker has resolved
//! them all).

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, Dir, Gid, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, StatxTimestamp,
    Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use snf_fs::{FileType, Timestamp};

use super::wire::{Bytes, MESSAGE_MAX, Meta, NodeStat};

/// A directory's listing is refused beyond this many names, and like a node's attributes beyond this
/// many bytes: it travels as one message.
const ENTRIES_MAX: usize = 500_000;
const LIST_MAX: usize = MESSAGE_MAX / 2;
/// Linux's limit for a value or a list of names.
const XATTR_MAX: usize = 64 << 10;
/// The name of a file that is not complete yet. One that a cut has left is replaced.
const NEW: &str = ".snf-image.new";

type Result<T> = std::result::Result<T, Errno>;

/// The root directory of a mount.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// A content that is being written.
#[derive(Debug)]
pub(super) struct Pending {
    file: File,
    parent: OwnedFd,
    name: Bytes,
    /// The temporary name, unless it is written in place.
    temporary: Option<String>,
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

/// Directory and last name; of the root itself the root and `.`.
fn split(path: &[u8]) -> Result<(&[u8], &[u8])> {
    let good = |name: &[u8]| {
        !name.is_empty() && name != b"." && name != b".." && name.len() <= 255 && !name.contains(&0)
    };
    if path.is_empty() {
        return Ok((b".", b"."));
    }
    if !path.split(|byte| *byte == b'/').all(good) {
        return Err(Errno::INVAL);
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => Ok((&path[..at], &path[at + 1..])),
        None => Ok((b".", path)),
    }
}

fn time(time: StatxTimestamp) -> Timestamp {
    Timestamp { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
}

fn timestamps(meta: &Meta) -> Timestamps {
    let spec =
        |time: Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: spec(meta.atime), last_modification: spec(meta.mtime) }
}

impl Root {
    /// Opens the directory that a file system is mounted on.
    pub(super) fn open(target: &std::path::Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(target, OFlags::RDONLY | flags, Mode::empty()).map(Self)
    }

    /// The root as a descriptor, for requests about the whole file system.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    fn open_at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat2(&self.0, path, flags, Mode::empty(), beneath())
    }

    fn parent<'a>(&self, path: &'a [u8]) -> Result<(OwnedFd, &'a [u8])> {
        let (directory, name) = split(path)?;
        Ok((self.open_at(directory, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    /// A directory of the tree, opened for reading.
    pub(super) fn directory(&self, path: &[u8]) -> Result<OwnedFd> {
        split(path)?;
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// `None`: there is no such name.
    pub(super) fn stat(&self, path: &[u8]) -> Result<Option<NodeStat>> {
        let (parent, name) = self.parent(path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = match rustix::fs::statx(&parent, name, flags, StatxFlags::BASIC_STATS) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let device = u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor);
        let fixed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
        Ok(Some(NodeStat {
            identity: (device, stat.stx_ino),
            file_type: file_type(rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()))
                .ok_or(Errno::INVAL)?,
            mode: stat.stx_mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            links: stat.stx_nlink,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
            atime: time(stat.stx_atime),
            mtime: time(stat.stx_mtime),
            ctime: time(stat.stx_ctime),
            fixed: stat.stx_attributes.intersects(fixed),
        }))
    }

    /// The names in a directory.
    pub(super) fn list(&self, path: &[u8]) -> Result<Vec<(Bytes, Option<FileType>)>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in Dir::new(self.directory(path)?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            bytes += name.len() + 16;
            if entries.len() >= ENTRIES_MAX || bytes > LIST_MAX {
                return Err(Errno::NOMEM);
            }
            entries.push((name.into(), file_type(entry.file_type())));
        }
        Ok(entries)
    }

    /// A piece of a regular file; less than asked for only at its end.
    pub(super) fn read(&self, path: &[u8], offset: u64, length: usize) -> Result<Vec<u8>> {
        split(path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.open_at(path, flags)?);
        let mode = rustix::fs::fstat(&file)?.st_mode;
        if rustix::fs::FileType::from_raw_mode(mode) != rustix::fs::FileType::RegularFile {
            return Err(Errno::INVAL);
        }
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The target of a symbolic link.
    pub(super) fn read_link(&self, path: &[u8]) -> Result<Vec<u8>> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::readlinkat(&parent, name, Vec::new())?.into_bytes())
    }

    /// All extended attributes, also of a symbolic link itself.
    pub(super) fn xattrs(&self, path: &[u8]) -> Result<Vec<(Bytes, Bytes)>> {
        let (parent, name) = self.parent(path)?;
        let at = at_path(&parent, name);
        let mut names = vec![0; XATTR_MAX];
        let length = match rustix::fs::llistxattr(&*at, &mut names[..]) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(error) => return Err(error),
        };
        let mut xattrs = Vec::new();
        let mut bytes = 0;
        let mut value = vec![0; XATTR_MAX];
        for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let length = rustix::fs::lgetxattr(&*at, name, &mut value[..])?;
            bytes += name.len() + length;
            if bytes > LIST_MAX {
                return Err(Errno::NOMEM);
            }
            xattrs.push((name.into(), value[..length].into()));
        }
        Ok(xattrs)
    }

    /// Begins a new content for a file, which has a name of its own until it is complete.
    pub(super) fn begin(&self, path: &[u8], in_place: bool) -> Result<Pending> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        if in_place {
            let file = rustix::fs::openat(&parent, name, flags | OFlags::TRUNC, Mode::empty())?;
            return Ok(Pending { file: file.into(), parent, name: name.into(), temporary: None });
        }
        let mut temporary = NEW.to_owned();
        for number in 1..100 {
            // A leftover of a power cut. A directory of the guest's that has the name stays.
            let _ = rustix::fs::unlinkat(&parent, &*temporary, AtFlags::empty());
            let create = flags | OFlags::CREATE | OFlags::EXCL;
            match rustix::fs::openat(&parent, &*temporary, create, Mode::RUSR | Mode::WUSR) {
                Ok(file) => {
                    let temporary = Some(temporary);
                    return Ok(Pending { file: file.into(), parent, name: name.into(), temporary });
                }
                Err(Errno::EXIST) => temporary = format!("{NEW}{number}"),
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }

    /// Makes a directory.
    pub(super) fn make_directory(&self, path: &[u8], meta: &Meta) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
        set(&parent, name, meta)
    }

    /// Makes a symbolic link.
    pub(super) fn make_symlink(&self, path: &[u8], target: &[u8], meta: &Meta) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::symlinkat(target, &parent, name)?;
        set(&parent, name, meta)
    }

    /// Removes a name.
    pub(super) fn remove(&self, path: &[u8], directory: bool) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(&parent, name, flags)
    }

    /// Renames as `rename(2)` does.
    pub(super) fn rename(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        rustix::fs::renameat(&from_parent, from_name, &to_parent, to_name)
    }

    /// Sets owner, mode, extended attributes and times.
    pub(super) fn set(&self, path: &[u8], meta: &Meta) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        set(&parent, name, meta)
    }
}

impl Pending {
    /// Writes the next piece.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// The content is complete: it takes its place. With `sync` it is on the disk before that.
    pub(super) fn finish(self, meta: &Meta, sync: bool) -> Result<()> {
        let name = self.temporary.as_deref().map_or(&*self.name, str::as_bytes);
        let finish = || {
            set(&self.parent, name, meta)?;
            if sync {
                rustix::fs::fsync(&self.file)?;
            }
            match &self.temporary {
                Some(temporary) => rustix::fs::renameat(
                    &self.parent,
                    temporary.as_str(),
                    &self.parent,
                    &*self.name,
                ),
                None => Ok(()),
            }
        };
        finish().inspect_err(|_| {
            if let Some(temporary) = &self.temporary {
                let _ = rustix::fs::unlinkat(&self.parent, temporary.as_str(), AtFlags::empty());
            }
        })
    }
}

/// Owner first: changing it takes set-id bits and capabilities away.
fn set(parent: &OwnedFd, name: &[u8], meta: &Meta) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), no_follow)?;
    let mode = rustix::fs::statat(parent, name, no_follow)?.st_mode;
    // A symbolic link has no mode. Nobody else changes the tree between these two.
    if rustix::fs::FileType::from_raw_mode(mode) != rustix::fs::FileType::Symlink {
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(meta.mode.into()), AtFlags::empty())?;
    }
    let at = at_path(parent, name);
    for (name, value) in &meta.xattrs {
        match value {
            Some(value) => rustix::fs::lsetxattr(&*at, &**name, value, XattrFlags::empty())?,
            None => match rustix::fs::lremovexattr(&*at, &**name) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            },
        }
    }
    rustix::fs::utimensat(parent, name, &timestamps(meta), no_follow)
}

/// A path that leads to `name` in `parent` and to nothing else: for the calls that know no
/// directory descriptors. They follow no symbolic link at its end.
fn at_path(parent: &impl AsFd, name: &[u8]) -> Box<OsStr> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    OsStr::from_bytes(&path).into()
}

fn file_type(kind: rustix::fs::FileType) -> Option<FileType> {
    Some(match kind {
        rustix::fs::FileType::RegularFile => FileType::Regular,
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        rustix::fs::FileType::Fifo => FileType::Fifo,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::Unknown => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(dir.path().join("root/sub")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, dir.path().join("root/link")).unwrap();
        std::os::unix::fs::symlink("../../outside/file", dir.path().join("root/sub/up")).unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        let bad: [&[u8]; 9] = [
            b"..",
            b"../outside",
            b"/etc",
            b"sub/../..",
            b".",
            b"a//b",
            b"a/",
            b"sub/./x",
            b"a\0b",
        ];
        let meta = Meta {
            mode: 0o777,
            uid: 0,
            gid: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            xattrs: Vec::new(),
        };
        for path in bad {
            assert_eq!(root.stat(path), Err(Errno::INVAL), "{path:?}");
            assert!(root.list(path).is_err() && root.read(path, 0, 1).is_err());
            assert!(root.begin(path, false).is_err() && root.remove(path, false).is_err());
            assert!(root.set(path, &meta).is_err() && root.xattrs(path).is_err());
            assert!(root.rename(b"sub", path).is_err() && root.rename(path, b"y").is_err());
        }
        // Symbolic links are seen and never followed.
        assert_eq!(root.stat(b"link").unwrap().unwrap().file_type, FileType::Symlink);
        assert!(root.stat(b"link/file").is_err());
        assert!(root.list(b"link").is_err());
        assert!(root.read(b"sub/up", 0, 1).is_err());
        assert!(root.begin(b"link/new", false).is_err());
        assert!(root.begin(b"sub/up", true).is_err());
        assert!(root.make_directory(b"link/new", &meta).is_err());
        assert!(root.remove(b"link/file", false).is_err());
        // A new node replaces the link itself, not its target.
        let mut pending = root.begin(b"sub/up", false).unwrap();
        pending.write(b"new").unwrap();
        pending.finish(&meta, true).unwrap();
        assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"x");
        assert_eq!(root.read(b"sub/up", 0, 9).unwrap(), b"new");
        root.set(b"link", &meta).unwrap();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(std::fs::read_dir(dir.path().join("root/sub")).unwrap().count(), 1);
    }
}
