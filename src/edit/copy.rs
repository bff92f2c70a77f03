//! `--copy`: a copy of a file or directory within the guest, with all its attributes.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use snf_fs::{Attributes, FileType, NodeId, Times, Tree};

use super::path::pair;
use super::place::{self, Spot};
use super::relocate::target;
use super::{Act, Action, BadEdit, GuestPath, How, Verb};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// A file is copied through memory.
const FILE_MAX: u64 = 256 << 20;
/// The label is the new place's business.
const SELINUX: &[u8] = b"security.selinux";

/// A copy of a file or directory of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// The source.
    from: GuestPath,
    /// The path of the copy, or the directory that it goes into.
    to: GuestPath,
}

impl Copy {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let (from, to) = pair(text, "GUESTPATH:NEWPATH")?;
        Ok(Action::Copy(Self { from: GuestPath::new(from)?, to }))
    }
}

impl Act for Copy {
    const VERBS: &'static [Verb] = &[Verb {
        name: "copy",
        metavar: "GUESTPATH:NEWPATH",
        help: "Copy a file or directory within the guest with owners, modes, times and extended \
               attributes, into NEWPATH if that is a directory.",
        follows: false,
        parse: Self::parse,
    }];

    fn check(&self) -> Result<(), BadEdit> {
        Ok(())
    }

    fn subject(&self) -> String {
        self.from.to_string()
    }

    fn run(&self, guest: &mut Guest, _: &mut Session<'_>) -> Result<(), TaskError> {
        let Spot { path: from, .. } = place::find(guest, &self.from, false)?;
        guest.tree.lstat(&from)?;
        let Spot { path: to, .. } = target(guest, &from, &self.to)?;
        if to == from || to.strip_prefix(from.as_slice()).is_some_and(|r| r.starts_with(b"/")) {
            return Err(TaskError::request(format!(
                "{} cannot be copied to itself or into itself",
                self.from
            )));
        }
        place::make_parents(&mut guest.tree, &to)?;
        copy(&mut guest.tree, from, to)
    }
}

/// Copies what is at `from`, with all that is in it.
fn copy(tree: &mut Tree, from: Vec<u8>, to: Vec<u8>) -> Result<(), TaskError> {
    // Directories get their attributes and times after their content.
    let mut finish = Vec::new();
    let mut names: HashMap<NodeId, Vec<u8>> = HashMap::new();
    let mut stack = vec![(from, to)];
    while let Some((from, to)) = stack.pop() {
        let stat = tree.lstat(&from)?;
        let attributes = Attributes { mode: stat.mode, uid: stat.uid, gid: stat.gid };
        let old = match tree.lstat(&to) {
            Ok(old) => Some(old.file_type),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error.into()),
        };
        let is_dir = stat.file_type == FileType::Directory;
        if old.is_some_and(|old| old != FileType::Directory) {
            tree.unlink(&to)?;
        }
        if !is_dir
            && stat.links > 1
            && let Some(first) = names.get(&stat.node)
        {
            tree.link(first, &to)?;
            continue;
        }
        match stat.file_type {
            FileType::Directory => {
                if old != Some(FileType::Directory) {
                    tree.mkdir(&to, attributes)?;
                }
                for entry in tree.read_dir(&from)? {
                    stack.push((place::join(&from, &entry.name), place::join(&to, &entry.name)));
                }
                finish.push((from, to));
                continue;
            }
            FileType::Regular => {
                let content = tree.read(&from, FILE_MAX)?;
                tree.write_from(&to, &mut content.as_slice(), attributes)?;
            }
            FileType::Symlink => {
                let target = tree.read_link(&from)?;
                tree.symlink(&to, &target, attributes)?;
            }
            other => tree.mknod(&to, other, stat.device, attributes)?,
        }
        if stat.links > 1 {
            names.insert(stat.node, to.clone());
        }
        dress(tree, &from, &to)?;
        tree.seal()?;
    }
    finish.into_iter().rev().try_for_each(|(from, to)| dress(tree, &from, &to))
}

/// Gives a copy the attributes of what it is a copy of.
fn dress(tree: &mut Tree, from: &[u8], to: &[u8]) -> Result<(), TaskError> {
    let stat = tree.lstat(from)?;
    tree.lchown(to, stat.uid, stat.gid)?;
    for (name, value) in tree.xattrs(from)? {
        if name != SELINUX {
            tree.set_xattr(to, &name, Some(&value))?;
        }
    }
    if stat.file_type != FileType::Symlink {
        tree.chmod(to, stat.mode)?;
    }
    let times = Times { atime: Some(stat.atime), mtime: Some(stat.mtime) };
    Ok(tree.set_link_times(to, times)?)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, runs};

    #[test]
    fn trees_are_copied_whole() {
        let mut guest = Guest::debian();
        guest.write("/srv/d/in/x", "x");
        guest.tree().chmod("/srv/d/in/x", 0o4750).unwrap();
        guest.tree().chown("/srv/d/in/x", 7, 8).unwrap();
        guest.tree().set_xattr("/srv/d/in/x", b"user.a", Some(b"b")).unwrap();
        guest.tree().link("/srv/d/in/x", "/srv/d/y").unwrap();
        guest.symlink("/srv/d/link", "in/x");
        runs(&mut guest, "copy", "/srv/d:/srv/e");
        assert_eq!(guest.attributes("/srv/e/in/x"), (0o4750, 7, 8));
        assert_eq!(guest.tree().xattr("/srv/e/in/x", b"user.a").unwrap().unwrap(), b"b");
        assert_eq!(guest.tree().stat("/srv/e/y").unwrap().links, 2);
        assert_eq!(guest.tree().read_link("/srv/e/link").unwrap(), b"in/x");
        runs(&mut guest, "copy", "/srv/d:/srv/e");
        assert_eq!(guest.read("/srv/e/d/y"), "x");
        assert!(fails(&mut guest, "copy", "/srv/d:/srv/d/in").contains("into itself"));
    }
}
