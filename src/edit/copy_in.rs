//! `--copy-in`: local files and whole directories.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snf_fs::{Attributes, FileType};

use super::path::pair;
use super::{Act, Action, BadEdit, GuestPath, How, SourceError, Verb, local_xattr, place};
use crate::guest::{Guest, removal};
use crate::task::{Session, TaskError};

/// A local file or directory, copied into a directory of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CopyIn {
    /// The file or directory beside the program.
    local: PathBuf,
    /// The directory in the guest.
    directory: GuestPath,
}

impl CopyIn {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let (local, directory) = pair(text, "LOCAL:GUESTDIR (such as site:/srv/www)")?;
        let local = PathBuf::from(local);
        let this = Self { local, directory };
        this.check()?;
        Ok(Action::CopyIn(this))
    }
}

impl Act for CopyIn {
    const VERBS: &'static [Verb] = &[Verb {
        name: "copy-in",
        metavar: "LOCAL:GUESTDIR",
        help: "Copy a local file, or a directory with all that is in it, into a directory of the \
               guest: root's, with the local permissions, extended attributes and capabilities; \
               symbolic links stay links, and so do hard links within it.",
        follows: false,
        parse: Self::parse,
    }];
    const LOCAL: bool = true;

    fn check(&self) -> Result<(), BadEdit> {
        let local = &self.local;
        if local.file_name().is_none() {
            return Err(BadEdit::new(format!(
                "'{}' has no name that the copy could have; name the directory itself",
                local.display()
            )));
        }
        Ok(())
    }

    fn subject(&self) -> String {
        self.local.display().to_string()
    }

    fn look(&self) -> Result<(), SourceError> {
        let metadata = fs::symlink_metadata(&self.local).map_err(failed(&self.local))?;
        if metadata.is_file() {
            File::open(&self.local).map_err(failed(&self.local))?;
        } else if metadata.is_dir() {
            fs::read_dir(&self.local).map_err(failed(&self.local))?;
        }
        Ok(())
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let spot = place::find(guest, &self.directory, true)?;
        guest.tree.mkdir_all(&spot.path, place::PARENTS)?;
        let name = self.local.file_name().unwrap_or_default().as_bytes();
        let mut stack = vec![(self.local.clone(), place::join(&spot.path, name))];
        let mut lost = 0;
        let mut dropped: Vec<String> = Vec::new();
        // The first name of each file that has several.
        let mut names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        // Directories get their permissions at the end: of those that exist they stay as they are.
        while let Some((local, path)) = stack.pop() {
            let metadata = fs::symlink_metadata(&local).map_err(failed(&local))?;
            if metadata.is_dir() {
                lost += directory(guest, &local, &path, &metadata)?;
                for entry in fs::read_dir(&local).map_err(failed(&local))? {
                    let entry = entry.map_err(failed(&local))?;
                    let inside = place::join(&path, entry.file_name().as_bytes());
                    stack.push((entry.path(), inside));
                }
            } else if let Some(first) = names.get(&(metadata.dev(), metadata.ino())) {
                vacate(guest, &path)?;
                guest.tree.link(first, &path)?;
            } else if let Some(less) = other(guest, &local, &path, &metadata)? {
                lost += less;
                if dropped_bits(&metadata) != 0 {
                    dropped.push(local.display().to_string());
                }
                if metadata.nlink() > 1 {
                    names.insert((metadata.dev(), metadata.ino()), path);
                }
            } else {
                let shown = local.display();
                session.warn(format!("--copy-in: {shown} is no file, directory or link: left out"));
            }
            guest.tree.seal()?;
        }
        if let Some(first) = dropped.first() {
            let more = match dropped.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            session.warn(format!(
                "--copy-in: the set-id bits of {first}{more} were left out: the copy is root's, and the \
                 original belongs to somebody else; --chmod sets them"
            ));
        }
        if lost > 0 {
            session.warn(format!(
                "--copy-in: {lost} extended attributes of {} were left out: the file system of {} does \
                 not hold them",
                self.local.display(),
                self.directory
            ));
        }
        Ok(())
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> SourceError + '_ {
    move |source| SourceError::new("local file", path, source)
}

/// The set-id bits that mean the rights of somebody else than root. The copy is root's, and with them
/// whoever owns the original would get root's rights in the guest.
fn foreign_bits(owner: u32, group: u32, mode: u32) -> u32 {
    // Without the right to execute for the group, that bit means locking.
    let group = group != 0 && mode & 0o010 != 0;
    (if owner != 0 { 0o4000 } else { 0 }) | (if group { 0o2000 } else { 0 })
}

/// The set-id bits of a file that its copy does not have.
fn dropped_bits(metadata: &Metadata) -> u32 {
    if !metadata.is_file() {
        return 0;
    }
    metadata.mode() & foreign_bits(metadata.uid(), metadata.gid(), metadata.mode())
}

fn attributes(metadata: &Metadata) -> Attributes {
    let mode = metadata.permissions().mode() & 0o7777 & !dropped_bits(metadata);
    let mode = mode as u16;
    Attributes { mode, uid: 0, gid: 0 }
}

/// The node at the path now, not followed.
fn there(guest: &Guest, path: &[u8]) -> Result<Option<FileType>, TaskError> {
    match guest.tree.lstat(path) {
        Ok(stat) => Ok(Some(stat.file_type)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn directory(
    guest: &mut Guest,
    local: &Path,
    path: &[u8],
    metadata: &Metadata,
) -> Result<usize, TaskError> {
    match there(guest, path)? {
        Some(FileType::Directory) => return Ok(0),
        Some(_) => removal::remove(&mut guest.tree, path.to_vec())?,
        None => {}
    }
    guest.tree.mkdir(path, attributes(metadata))?;
    copy_xattrs(guest, local, path)
}

/// Gives a copy the extended attributes of what it is a copy of, and says how many its file system
/// does not hold.
fn copy_xattrs(guest: &mut Guest, local: &Path, path: &[u8]) -> Result<usize, TaskError> {
    let mut lost = 0;
    for (name, value) in local_xattr::of(local).map_err(failed(local))? {
        match guest.tree.set_xattr(path, &name, Some(&value)) {
            Ok(()) => {}
            Err(snf_fs::Error::Unsupported { .. }) => lost += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(lost)
}

/// Makes room for a copy. A link in the guest is replaced and not followed: what is copied is what is
/// seen there. A file is made anew, so that no other name of it changes.
fn vacate(guest: &mut Guest, path: &[u8]) -> Result<(), TaskError> {
    match there(guest, path)? {
        None => Ok(()),
        Some(FileType::Directory) => {
            Err(snf_fs::Error::IsADirectory(snf_fs::error::display_name(path)).into())
        }
        Some(_) => Ok(guest.tree.unlink(path)?),
    }
}

/// Copies what is no directory, and says how many attributes were left out; `None` for what is not
/// copied.
fn other(
    guest: &mut Guest,
    local: &Path,
    path: &[u8],
    metadata: &Metadata,
) -> Result<Option<usize>, TaskError> {
    if !metadata.is_file() && !metadata.is_symlink() {
        return Ok(None);
    }
    vacate(guest, path)?;
    if metadata.is_symlink() {
        let target = fs::read_link(local).map_err(failed(local))?;
        let link = Attributes { mode: 0o777, uid: 0, gid: 0 };
        guest.tree.symlink(path, target.as_os_str().as_bytes(), link)?;
    } else {
        let mut file = File::open(local).map_err(failed(local))?;
        guest.tree.write_from(path, &mut file, attributes(metadata))?;
        return copy_xattrs(guest, local, path).map(Some);
    }
    Ok(Some(0))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};
    use super::*;

    #[test]
    fn set_id_bits_of_others_are_left_out() {
        for (owner, group, mode, foreign) in [
            (0, 0, 0o6755, 0),
            (1000, 1000, 0o6755, 0o6000),
            (1000, 0, 0o6755, 0o4000),
            (0, 1000, 0o6755, 0o2000),
            (0, 1000, 0o2744, 0),
            (1000, 1000, 0o755, 0),
        ] {
            assert_eq!(
                mode & foreign_bits(owner, group, mode),
                foreign,
                "{owner} {group} {mode:o}"
            );
        }
    }

    #[test]
    fn directories_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("site");
        fs::create_dir_all(site.join("a/b")).unwrap();
        fs::write(site.join("a/b/x"), "new").unwrap();
        fs::set_permissions(site.join("a/b/x"), fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::symlink("b/x", site.join("a/link")).unwrap();
        let mut guest = Guest::debian();
        guest.write("/srv/site/a/b/x", "old");
        guest.write("/srv/site/a/kept", "kept");
        guest.tree().link("/srv/site/a/b/x", "/srv/other").unwrap();
        runs(&mut guest, "copy-in", &format!("{}:/srv", site.display()));
        assert_eq!(guest.read("/srv/site/a/b/x"), "new");
        assert_eq!(guest.attributes("/srv/site/a/b/x"), (0o750, 0, 0));
        assert_eq!(guest.tree().read_link("/srv/site/a/link").unwrap(), b"b/x");
        assert_eq!(
            (guest.read("/srv/site/a/kept"), guest.read("/srv/other")),
            ("kept".into(), "old".into())
        );
        guest.mkdir("/srv/site/a/link2");
        let missing = fails(&mut guest, "copy-in", "/none/here:/srv");
        assert!(missing.contains("/none/here"), "{missing}");
        assert!(parse("copy-in", "..:/srv").is_err() && parse("copy-in", "x").is_err());
    }
}
