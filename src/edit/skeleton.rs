//! A new home directory with what `/etc/skel` holds.

use snf_fs::{Attributes, FileType, Times, Tree};

use super::place::{self, PARENTS};
use crate::task::TaskError;

/// The most that a skeleton may hold: it comes from the image.
const ENTRIES_MAX: usize = 10_000;
/// The most bytes that its files may have together: they wait in memory.
const BYTES_MAX: u64 = 64 << 20;

/// Makes a home at `home` and copies the skeleton into it, all owned by the user. The modes are the
/// skeleton's; labels are the new place's.
///
/// # Errors
/// Errors of the tree, and when the skeleton is no such thing.
pub(super) fn make_home(
    tree: &mut Tree,
    skeleton: &str,
    home: &[u8],
    attributes: Attributes,
) -> Result<(), TaskError> {
    if let Some(slash) = home.iter().rposition(|byte| *byte == b'/').filter(|slash| *slash > 0) {
        tree.mkdir_all(&home[..slash], PARENTS)?;
    }
    tree.mkdir(home, attributes)?;
    tree.chmod(home, attributes.mode)?;
    if !tree.is_dir(skeleton)? {
        return Ok(());
    }
    let (mut left, mut bytes) = (ENTRIES_MAX, BYTES_MAX);
    let mut stack = vec![(skeleton.as_bytes().to_vec(), home.to_vec())];
    while let Some((from, to)) = stack.pop() {
        for entry in tree.read_dir(&from)? {
            left = left.checked_sub(1).ok_or_else(|| {
                TaskError::request(format!(
                    "{skeleton} of the guest has more than {ENTRIES_MAX} files, which a new home \
                     would get; make the home without it (home= of a directory that exists)"
                ))
            })?;
            let (from, to) = (place::join(&from, &entry.name), place::join(&to, &entry.name));
            let stat = tree.lstat(&from)?;
            let own = Attributes { mode: stat.mode, ..attributes };
            match stat.file_type {
                FileType::Directory => {
                    tree.mkdir(&to, own)?;
                    tree.chmod(&to, stat.mode)?;
                    stack.push((from, to));
                    continue;
                }
                FileType::Regular => {
                    bytes = bytes.checked_sub(stat.size).ok_or_else(|| {
                        TaskError::request(format!(
                            "{skeleton} of the guest has more than {} MiB, which a new home would get; \
                             make the home without it (home= of a directory that exists)",
                            BYTES_MAX >> 20
                        ))
                    })?;
                    let content = tree.read(&from, BYTES_MAX)?;
                    tree.write(&to, &content, own)?;
                    tree.chmod(&to, stat.mode)?;
                }
                FileType::Symlink => {
                    let target = tree.read_link(&from)?;
                    tree.symlink(&to, &target, own)?;
                }
                _ => continue,
            }
            let times = Times { atime: Some(stat.atime), mtime: Some(stat.mtime) };
            tree.set_link_times(&to, times)?;
        }
    }
    Ok(())
}
