//! From a guest path to a node, inside the tree and nowhere else.

use super::{Tree, at_path};
use crate::error::{Error, Result, display_name};
use crate::filesystem::{FileType, NodeId, Stat};

/// How many symbolic links one path may pass, as in Linux.
pub const SYMLINK_MAX: usize = 40;
/// How many bytes a path, or the target of a symbolic link, may have.
pub const PATH_MAX: usize = 4096;

/// A node of one of the file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) mount: usize,
    pub(super) node: NodeId,
}

/// One step of the way from the root: the root's name is empty.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) place: Place,
    pub(super) name: Vec<u8>,
}

/// The way a path took: existing nodes from the root on, then the names that do not exist.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) frames: Vec<Frame>,
    pub(super) missing: Vec<Vec<u8>>,
    /// The path ended with a slash: only a directory will do.
    pub(super) must_be_dir: bool,
    requested: Vec<u8>,
}

/// The end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The canonical path: no symbolic link, no `.` or `..` in it.
    pub path: Vec<u8>,
    /// The node there, or `None` when only its directory exists.
    pub stat: Option<Stat>,
}

impl Walk {
    /// The canonical path, missing names included.
    pub(super) fn path(&self) -> Vec<u8> {
        let mut path = Vec::new();
        let names = self.frames.iter().skip(1).map(|frame| &frame.name).chain(&self.missing);
        for name in names {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        path
    }

    /// The path as it was asked for, and where it led when that is elsewhere.
    pub(super) fn display(&self) -> String {
        let path = self.path();
        if path == self.requested {
            return display_name(&path);
        }
        format!("{} (which is {})", display_name(&self.requested), display_name(&path))
    }

    /// The last existing node on the way.
    pub(super) fn last(&self) -> Place {
        // The walk begins with the root and never drops it.
        self.frames[self.frames.len() - 1].place
    }

    /// The node, or [`Error::NotFound`].
    pub(super) fn existing(&self) -> Result<Place> {
        if self.missing.is_empty() { Ok(self.last()) } else { Err(self.not_found()) }
    }

    pub(super) fn not_found(&self) -> Error {
        Error::NotFound(self.display())
    }

    /// Directory and name of the path's last step, for operations on names. The node itself may
    /// be missing; more than one missing name is [`Error::NotFound`].
    pub(super) fn entry(&self) -> Result<(Place, &[u8])> {
        if let [name] = self.missing.as_slice() {
            return Ok((self.last(), name));
        }
        if !self.missing.is_empty() {
            return Err(self.not_found());
        }
        let [.., parent, last] = self.frames.as_slice() else {
            return Err(Error::Invalid("/: the root directory stays as it is".into()));
        };
        if parent.place.mount != last.place.mount {
            return Err(Error::Invalid(format!(
                "{}: a mount point stays as it is",
                self.display()
            )));
        }
        Ok((parent.place, &last.name))
    }
}

/// Puts the components of `path` on the stack of names still to be walked, the first on top.
fn push_components(pending: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let start = pending.len();
    pending.extend(names.map(<[u8]>::to_vec));
    pending[start..].reverse();
}

/// Whether a path's form says that it names a directory.
fn wants_directory(path: &[u8]) -> bool {
    path.ends_with(b"/") || path.ends_with(b"/.") || path == b"."
}

impl Tree {
    fn top(&self) -> Frame {
        let place = Place { mount: 0, node: self.mounts[0].fs.root() };
        Frame { place, name: Vec::new() }
    }

    /// Walks `path`; `follow` says whether a symbolic link at its very end is followed (one that
    /// is followed by a slash always is).
    pub(super) fn walk(&self, path: &[u8], follow: bool) -> Result<Walk> {
        if path.len() > PATH_MAX {
            let start = display_name(&path[..64]);
            return Err(Error::NameTooLong(format!(
                "{start}... ({} bytes, at most {PATH_MAX})",
                path.len()
            )));
        }
        if !path.starts_with(b"/") || path.contains(&0) {
            return Err(Error::Invalid(format!(
                "\"{}\" is not an absolute path in the guest",
                display_name(path)
            )));
        }
        let mut walk = Walk {
            frames: vec![self.top()],
            missing: Vec::new(),
            must_be_dir: wants_directory(path),
            requested: path.to_vec(),
        };
        let mut pending = Vec::new();
        push_components(&mut pending, path);
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == b".." {
                if walk.frames.len() > 1 {
                    walk.frames.pop();
                }
                continue;
            }
            let dir = walk.last();
            let mut here = walk.path();
            if here != b"/" {
                here.push(b'/');
            }
            here.extend_from_slice(&name);
            if name.len() > self.fs(dir).name_max() {
                return Err(Error::NameTooLong(display_name(&here)));
            }
            let Some(place) = self.step(dir, &name).map_err(at_path(&here))? else {
                walk.missing.push(name);
                walk.missing.extend(pending.into_iter().rev());
                if walk.missing.iter().any(|name| name == b"..") {
                    return Err(Error::NotFound(display_name(path)));
                }
                return Ok(walk);
            };
            let file_type = self.stat_place(place).map_err(at_path(&here))?.file_type;
            let is_final = pending.is_empty();
            if file_type == FileType::Symlink && (!is_final || follow || walk.must_be_dir) {
                links += 1;
                if links > SYMLINK_MAX {
                    return Err(Error::SymlinkLoop(display_name(path)));
                }
                let target = self.fs(place).read_link(place.node).map_err(at_path(&here))?;
                if target.is_empty() || target.len() > PATH_MAX || target.contains(&0) {
                    return Err(Error::corrupt(
                        "symbolic link",
                        display_name(&here),
                        format!("the target has {} bytes or a zero byte", target.len()),
                    ));
                }
                if target.starts_with(b"/") {
                    walk.frames.truncate(1);
                }
                walk.must_be_dir |= is_final && wants_directory(&target);
                push_components(&mut pending, &target);
                continue;
            }
            if file_type != FileType::Directory && (!is_final || walk.must_be_dir) {
                return Err(Error::NotADirectory(display_name(&here)));
            }
            walk.frames.push(Frame { place, name });
        }
        Ok(walk)
    }

    /// One name further: the node in `dir`, or the root of what is mounted on it.
    fn step(&self, dir: Place, name: &[u8]) -> Result<Option<Place>> {
        let Some(node) = self.fs(dir).lookup(dir.node, name)? else { return Ok(None) };
        let place = self.covered(Place { mount: dir.mount, node });
        match self.blocked.iter().find(|(blocked, _)| *blocked == place) {
            Some((_, reason)) => Err(Error::Invalid(reason.clone())),
            None => Ok(Some(place)),
        }
    }

    /// The place that one finds at `place`: the root of what is mounted there, if something is.
    pub(super) fn covered(&self, mut place: Place) -> Place {
        // A mount covers what was mounted before it, so each is looked at once.
        for (index, mount) in self.mounts.iter().enumerate() {
            if mount.at == Some(place) {
                place = Place { mount: index, node: mount.fs.root() };
            }
        }
        place
    }
}
