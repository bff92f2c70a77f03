//! Removing whole directories of a guest.

use snf_fs::{FileType, Result, Tree};

/// Removes a path with all below it. A mount point on the way is an error.
///
/// # Errors
/// Errors of the tree.
pub fn remove(tree: &mut Tree, path: Vec<u8>) -> Result<()> {
    let stat = tree.lstat(&path)?;
    if stat.file_type != FileType::Directory {
        return tree.unlink(&path);
    }
    // Each directory is looked at twice: its files go and its directories are put on top of it,
    // and when it is on top again it is empty.
    let mut stack = vec![(path, false)];
    while let Some((dir, emptied)) = stack.pop() {
        if emptied {
            tree.rmdir(&dir)?;
            continue;
        }
        let entries = tree.read_dir(&dir)?;
        stack.push((dir.clone(), true));
        for entry in entries {
            let path = [&dir[..], b"/", &entry.name].concat();
            match tree.lstat(&path)?.file_type {
                FileType::Directory => stack.push((path, false)),
                _ => tree.unlink(&path)?,
            }
        }
        tree.seal()?;
    }
    Ok(())
}
