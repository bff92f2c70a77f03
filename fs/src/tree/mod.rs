//! A guest's file tree: a root file system with others mounted in it, edited by path.
//!
//! Paths are resolved by our own code and inside the tree only: an absolute symbolic link starts
//! at the tree's root and `..` of the root is the root, so no path, however hostile, can leave the
//! image. Everything that changes is recorded under its canonical path, for reports and dry runs.

mod changes;
mod edit;
mod handle;
mod resolve;
#[cfg(test)]
mod tests;
mod view;

pub use changes::{Change, ChangeKind, Changes};
pub use handle::{Child, DEPTH_MAX, Descend, Handle, Visited};
pub use resolve::{PATH_MAX, Resolved, SYMLINK_MAX};

use crate::error::{Error, Result, display_name};
use crate::filesystem::{CommitReport, FileSystem, FileType, Info, Stat};
use resolve::Place;

/// Decides the `security.selinux` label of a new node from its canonical path and type; `None`
/// leaves the default, which is a copy of its directory's label.
pub type Labeler = Box<dyn Fn(&[u8], FileType) -> Option<Vec<u8>> + Send>;

/// The effect of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The file is new.
    Created,
    /// The file has new content.
    Replaced,
    /// The file already had this very content: nothing was written.
    Unchanged,
}

/// One file system of the tree.
struct Mount {
    path: Vec<u8>,
    at: Option<Place>,
    fs: Box<dyn FileSystem>,
    read_only: Option<String>,
}

/// A root file system and what is mounted in it.
pub struct Tree {
    mounts: Vec<Mount>,
    blocked: Vec<(Place, String)>,
    changes: Changes,
    labeler: Option<Labeler>,
}

/// Why a commit failed, and how far it had come.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write the changes to the file system at {path}{}",
    describe_committed(.committed)
)]
#[non_exhaustive]
pub struct CommitError {
    /// The mount point of the file system that failed.
    pub path: String,
    /// The failure.
    #[source]
    pub source: Error,
    /// Mount points of the file systems that had been written before.
    pub committed: Vec<String>,
}

fn describe_committed(committed: &[String]) -> String {
    if committed.is_empty() {
        " (no other file system was changed)".into()
    } else {
        format!(" (already written: {})", committed.join(", "))
    }
}

impl Tree {
    /// A tree whose root is `root`.
    pub fn new(root: Box<dyn FileSystem>) -> Self {
        let root = Mount { path: b"/".to_vec(), at: None, fs: root, read_only: None };
        Self { mounts: vec![root], blocked: Vec::new(), changes: Changes::default(), labeler: None }
    }

    /// Says why the root must not be changed. From then on every change of it is an error that says
    /// so.
    pub fn forbid_changes(&mut self, reason: String) {
        if let Some(root) = self.mounts.first_mut() {
            root.read_only = Some(reason);
        }
    }

    /// Mounts a file system on the directory that `path` leads to. `read_only` says why it must
    /// not be changed, if so.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]); [`Error::NotADirectory`] where it
    /// is no directory.
    pub fn mount(
        &mut self,
        path: impl AsRef<[u8]>,
        fs: Box<dyn FileSystem>,
        read_only: Option<String>,
    ) -> Result<()> {
        let (place, path) = self.mount_point(path.as_ref())?;
        self.mounts.push(Mount { path, at: Some(place), fs, read_only });
        Ok(())
    }

    /// Says that a file system belongs on the directory that `path` leads to, but cannot be opened
    /// and why. From then on every path through that directory is an error that says so, because
    /// what the directory shows here is not what the guest sees there.
    ///
    /// # Errors
    /// The error of the path's resolution ([`Tree::stat`]).
    pub fn block(&mut self, path: impl AsRef<[u8]>, reason: impl Into<String>) -> Result<()> {
        let (place, _) = self.mount_point(path.as_ref())?;
        self.blocked.push((place, reason.into()));
        Ok(())
    }

    fn mount_point(&self, path: &[u8]) -> Result<(Place, Vec<u8>)> {
        let walk = self.walk(path, true)?;
        let place = walk.existing()?;
        if self.stat_place(place)?.file_type != FileType::Directory {
            return Err(Error::NotADirectory(walk.display()));
        }
        if walk.frames.len() == 1 {
            return Err(Error::Invalid(format!(
                "{}: a second file system cannot be mounted on the root",
                walk.display()
            )));
        }
        Ok((place, walk.path()))
    }

    /// Mount point and identity of each file system, the root first.
    pub fn mounts(&self) -> Vec<(&[u8], Result<Info>)> {
        self.mounts.iter().map(|mount| (mount.path.as_slice(), mount.fs.info())).collect()
    }

    /// The file system mounted at exactly this canonical path.
    pub fn file_system(&self, path: impl AsRef<[u8]>) -> Option<&dyn FileSystem> {
        self.mounts.iter().rev().find(|mount| mount.path == path.as_ref()).map(|m| &*m.fs)
    }

    /// Says how new nodes are to be labelled where the policy of the image tells.
    pub fn set_labeler(&mut self, labeler: Labeler) {
        self.labeler = Some(labeler);
    }

    /// The changes so far.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Whether anything waits for [`Tree::commit`].
    pub fn is_dirty(&self) -> bool {
        self.mounts.iter().any(|mount| mount.fs.is_dirty())
    }

    /// Marks a consistent point in every file system: see [`FileSystem::seal`].
    ///
    /// # Errors
    /// The errors of the file systems.
    pub fn seal(&mut self) -> Result<()> {
        self.mounts.iter_mut().try_for_each(|mount| mount.fs.seal())
    }

    /// Whether every file system has the room that its commit needs: see
    /// [`FileSystem::check_commit`]. Nothing is written.
    ///
    /// # Errors
    /// [`CommitError`] names the file system that has not.
    pub fn check_commit(&mut self) -> Result<(), CommitError> {
        for mount in self.mounts.iter_mut().filter(|mount| mount.fs.is_dirty()) {
            let path = display_name(&mount.path);
            let fail = |source| CommitError { path, source, committed: Vec::new() };
            mount.fs.check_commit().map_err(fail)?;
        }
        Ok(())
    }

    /// Writes everything: the file systems mounted last first, the root, which holds passwords and
    /// keys, at the end.
    ///
    /// # Errors
    /// [`CommitError`] names the file system that failed, why, and which ones were written before
    /// it.
    pub fn commit(&mut self) -> Result<Vec<(String, CommitReport)>, CommitError> {
        let mut reports: Vec<(String, CommitReport)> = Vec::new();
        for mount in self.mounts.iter_mut().rev() {
            if !mount.fs.is_dirty() {
                continue;
            }
            let path = display_name(&mount.path);
            match mount.fs.commit() {
                Ok(report) => reports.push((path, report)),
                Err(source) => {
                    let committed = reports.into_iter().map(|(path, _)| path).collect();
                    return Err(CommitError { path, source, committed });
                }
            }
        }
        Ok(reports)
    }

    /// Gives the file systems back, the root first.
    pub fn into_file_systems(self) -> Vec<Box<dyn FileSystem>> {
        self.mounts.into_iter().map(|mount| mount.fs).collect()
    }

    fn fs(&self, place: Place) -> &dyn FileSystem {
        &*self.mounts[place.mount].fs
    }

    fn stat_place(&self, place: Place) -> Result<Stat> {
        self.fs(place).stat(place.node)
    }

    /// The file system of `place`, to be changed: an error where it is mounted read-only.
    fn writable(&mut self, place: Place, path: &[u8]) -> Result<&mut dyn FileSystem> {
        let mount = &mut self.mounts[place.mount];
        match &mount.read_only {
            Some(reason) => Err(Error::ReadOnly(format!("{}: {reason}", display_name(path)))),
            None => Ok(&mut *mount.fs),
        }
    }
}

/// Adds the guest path to an engine's error, which knows nodes and names only.
fn at_path(path: &[u8]) -> impl Fn(Error) -> Error + '_ {
    move |error| {
        let path = display_name(path);
        match error {
            Error::Corrupt { structure, position, detail } => {
                Error::Corrupt { structure, position: format!("{position} ({path})"), detail }
            }
            Error::Unsupported { what, remedy } => {
                Error::Unsupported { what: format!("{path}: {what}"), remedy }
            }
            Error::NotFound(_) => Error::NotFound(path),
            Error::Exists(_) => Error::Exists(path),
            Error::NotADirectory(_) => Error::NotADirectory(path),
            Error::IsADirectory(_) => Error::IsADirectory(path),
            Error::NotEmpty(_) => Error::NotEmpty(path),
            Error::WrongType(_, what) => Error::WrongType(path, what),
            Error::NameTooLong(_) => Error::NameTooLong(path),
            Error::NoSpace(what) => Error::NoSpace(format!("{path}: {what}")),
            Error::ReadOnly(what) => Error::ReadOnly(format!("{path}: {what}")),
            Error::Content(_, source) => Error::Content(path, source),
            Error::Invalid(what) => Error::Invalid(format!("{path}: {what}")),
            other => other,
        }
    }
}
