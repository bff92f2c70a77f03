//! Reading by node: for walks over many files, each of which would else be looked up from the root.

use super::resolve::Place;
use super::{Tree, at_path};
use crate::error::{Error, Result};
use crate::filesystem::{FileType, NodeId, Stat};
use crate::num::to_u64;

/// A node of a tree. It stays valid until something is removed from the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub(super) Place);

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct Child {
    /// The name's bytes.
    pub name: Vec<u8>,
    /// The node that one finds there: the root of the file system that is mounted there, if one is.
    pub handle: Handle,
    /// Why nothing may be said of what is there ([`Tree::block`]).
    pub blocked: Option<String>,
}

impl Tree {
    /// The node that a path leads to; `follow` says whether a symbolic link at its end is followed.
    ///
    /// # Errors
    /// As [`Tree::stat`].
    pub fn handle(&self, path: impl AsRef<[u8]>, follow: bool) -> Result<Handle> {
        self.walk(path.as_ref(), follow)?.existing().map(Handle)
    }

    /// A number for the file system that a node lies on: the same for all its nodes.
    pub fn file_system_of(&self, handle: Handle) -> usize {
        handle.0.mount
    }

    /// The attributes of a node, as `lstat` gives them.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub fn stat_handle(&self, handle: Handle) -> Result<Stat> {
        self.stat_place(handle.0)
    }

    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] for another node; [`Error::Corrupt`] and [`Error::Device`].
    pub fn children(&self, handle: Handle) -> Result<Vec<Child>> {
        let entries = self.fs(handle.0).readdir(handle.0.node)?;
        let mut children: Vec<Child> = entries
            .into_iter()
            .map(|entry| {
                let (handle, blocked) = self.child(handle.0.mount, entry.node);
                Child { name: entry.name, handle, blocked }
            })
            .collect();
        children.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(children)
    }

    fn child(&self, mount: usize, node: NodeId) -> (Handle, Option<String>) {
        let place = self.covered(Place { mount, node });
        let blocked = self.blocked.iter().find(|(blocked, _)| *blocked == place);
        (Handle(place), blocked.map(|(_, reason)| reason.clone()))
    }

    /// Reads from a regular file; the count is less than `buf.len()` only at the end of the file.
    ///
    /// # Errors
    /// [`Error::WrongType`] for a node that is no regular file; [`Error::Unsupported`],
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub fn read_handle(&self, handle: Handle, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.fs(handle.0).read(handle.0.node, offset, buf)
    }

    /// Gives the content of a regular file to `take`, piece by piece from its beginning. The error
    /// of `take` ends the reading.
    ///
    /// # Errors
    /// As [`Tree::read_handle`], converted; and the errors of `take`.
    pub fn stream<E: From<Error>>(
        &self,
        handle: Handle,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let size = self.stat_handle(handle)?.size;
        let mut buf = vec![0; usize::try_from(size).unwrap_or(usize::MAX).clamp(1, PIECE)];
        let mut offset = 0;
        while offset < size {
            let wanted =
                usize::try_from(size - offset).map_or(buf.len(), |left| left.min(buf.len()));
            let count = self.read_handle(handle, offset, &mut buf[..wanted])?.min(wanted);
            if count == 0 {
                break;
            }
            take(&buf[..count])?;
            offset += to_u64(count);
        }
        Ok(())
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`Error::WrongType`] for another node; [`Error::Corrupt`] and [`Error::Device`].
    pub fn read_link_handle(&self, handle: Handle) -> Result<Vec<u8>> {
        self.fs(handle.0).read_link(handle.0.node)
    }

    /// All extended attributes of a node, sorted by name.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub fn xattrs_handle(&self, handle: Handle) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut xattrs = self.fs(handle.0).xattrs(handle.0.node)?;
        xattrs.sort();
        Ok(xattrs)
    }

    /// Visits `path` and everything below it, each directory before its content and names in order.
    /// A symbolic link at the end of `path` is followed; those below it are not. `visit` says
    /// whether to go into a directory. Directories on another file system are gone into, too.
    ///
    /// # Errors
    /// As [`Tree::stat`], converted; [`Error::Corrupt`] for directories inside themselves; and the
    /// errors of `visit`.
    pub fn visit<E: From<Error>>(
        &self,
        path: impl AsRef<[u8]>,
        mut visit: impl FnMut(&Visited<'_>) -> Result<Descend, E>,
    ) -> Result<(), E> {
        let walk = self.walk(path.as_ref(), true)?;
        let start = Handle(walk.existing()?);
        let mut path = walk.path();
        if path == b"/" {
            path.clear();
        }
        // The entries that are left in each open directory.
        let mut open: Vec<(std::vec::IntoIter<Child>, Place, usize)> = Vec::new();
        let mut next = Some((start, None));
        loop {
            if let Some((handle, blocked)) = next.take() {
                let shown: &[u8] = if path.is_empty() { b"/" } else { &path };
                let stat = self.stat_handle(handle).map_err(at_path(shown))?;
                let visited =
                    Visited { path: shown, handle, stat: &stat, blocked: blocked.as_deref() };
                let descend = visit(&visited)?;
                if descend == Descend::Yes
                    && stat.file_type == FileType::Directory
                    && blocked.is_none()
                {
                    if open.len() >= DEPTH_MAX
                        || open.iter().any(|(_, place, _)| *place == handle.0)
                    {
                        let error =
                            Error::corrupt("directory", "", "it is inside itself, or too deep");
                        return Err(at_path(shown)(error).into());
                    }
                    let children = self.children(handle).map_err(at_path(shown))?;
                    open.push((children.into_iter(), handle.0, path.len()));
                }
            }
            let Some((children, _, length)) = open.last_mut() else { return Ok(()) };
            path.truncate(*length);
            match children.next() {
                Some(child) => {
                    path.push(b'/');
                    path.extend_from_slice(&child.name);
                    next = Some((child.handle, child.blocked));
                }
                None => {
                    open.pop();
                }
            }
        }
    }
}

/// How much is read at once.
const PIECE: usize = 1 << 20;
/// Most directories within each other: a path of 4096 bytes has no more names.
pub const DEPTH_MAX: usize = 2048;

/// Whether to go into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// Go into it, if it is one.
    Yes,
    /// Go on after it.
    No,
}

/// A node that [`Tree::visit`] has come to.
#[derive(Clone, Copy, Debug)]
pub struct Visited<'a> {
    /// Its path; canonical.
    pub path: &'a [u8],
    /// The node.
    pub handle: Handle,
    /// Its properties.
    pub stat: &'a Stat,
    /// Why what is there is not shown ([`Tree::block`]).
    pub blocked: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryFs;

    fn tree() -> Tree {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        for path in ["/a/deep/file", "/b", "/mnt/hidden", "/a.txt"] {
            tree.write(path, path.as_bytes(), crate::Attributes { mode: 0o644, uid: 0, gid: 0 })
                .or_else(|_| {
                    let dir = path.rsplit_once('/').map_or("/", |(dir, _)| dir);
                    tree.mkdir_all(dir, crate::Attributes { mode: 0o755, uid: 0, gid: 0 })?;
                    tree.write(
                        path,
                        path.as_bytes(),
                        crate::Attributes { mode: 0o644, uid: 0, gid: 0 },
                    )
                })
                .unwrap();
        }
        tree
    }

    fn paths(tree: &Tree, start: &str) -> Vec<String> {
        let mut paths = Vec::new();
        tree.visit::<Error>(start, |visited| {
            paths.push(String::from_utf8_lossy(visited.path).into_owned());
            Ok(if visited.path == b"/a/deep" { Descend::No } else { Descend::Yes })
        })
        .unwrap();
        paths
    }

    #[test]
    fn a_walk_crosses_mounts_and_stops_where_it_is_told() {
        let mut tree = tree();
        let mut other = Tree::new(Box::new(MemoryFs::new()));
        other.write("/x", b"1", crate::Attributes { mode: 0o600, uid: 1, gid: 1 }).unwrap();
        let other = other.into_file_systems().remove(0);
        tree.mount("/mnt", other, None).unwrap();
        assert_eq!(paths(&tree, "/"), ["/", "/a", "/a/deep", "/a.txt", "/b", "/mnt", "/mnt/x"]);
        assert_eq!(paths(&tree, "/mnt"), ["/mnt", "/mnt/x"]);
        assert_eq!(paths(&tree, "/b"), ["/b"]);
        let (root, inside) = (tree.handle("/", true).unwrap(), tree.handle("/mnt", true).unwrap());
        assert_ne!(tree.file_system_of(root), tree.file_system_of(inside));
    }

    #[test]
    fn nothing_is_said_of_a_blocked_place() {
        let mut tree = tree();
        tree.block("/mnt", "it is elsewhere").unwrap();
        let mut seen = Vec::new();
        tree.visit::<Error>("/", |visited| {
            seen.extend(visited.blocked.map(|why| (visited.path.to_vec(), why.to_owned())));
            Ok(Descend::Yes)
        })
        .unwrap();
        assert_eq!(seen, [(b"/mnt".to_vec(), "it is elsewhere".to_owned())]);
        assert!(!paths(&tree, "/").contains(&"/mnt/hidden".to_owned()));
    }

    #[test]
    fn content_comes_in_pieces() {
        let mut tree = tree();
        let content: Vec<u8> = (0..PIECE * 2 + 5).map(|i| (i % 251) as u8).collect();
        tree.write("/big", &content, crate::Attributes { mode: 0o644, uid: 0, gid: 0 }).unwrap();
        let mut read = Vec::new();
        let handle = tree.handle("/big", true).unwrap();
        tree.stream::<Error>(handle, |piece| {
            read.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        assert!(read == content);
    }
}
