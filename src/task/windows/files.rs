//! Writing and deleting files of a Windows guest. Owner, group and mode mean nothing there: a new
//! file has the security of its directory.

use snf_fs::{Attributes, FileType};

use super::super::{Guest, TaskError};
use crate::guest::windows::path;

pub(in super::super) const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
const DIRECTORY: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
/// Answer files and scripts are read up to this size.
pub(in super::super) const TEXT_MAX: u64 = 4 << 20;

/// Writes a file, its directories made where they are missing. Names are found without regard to
/// case; gives the path in the guest's own spelling.
pub(in super::super) fn write(
    guest: &mut Guest,
    path: &str,
    content: &[u8],
) -> Result<Vec<u8>, TaskError> {
    let place = path::place(&guest.tree, path)?;
    if let Some(slash) = place.iter().rposition(|byte| *byte == b'/')
        && slash > 0
    {
        guest.tree.mkdir_all(&place[..slash], DIRECTORY)?;
    }
    guest.tree.write(&place, content, FILE)?;
    Ok(place)
}

/// The content of a file, found without regard to case.
pub(in super::super) fn read(guest: &Guest, path: &str) -> Result<Option<Vec<u8>>, TaskError> {
    match path::find(&guest.tree, path)? {
        Some(path) => Ok(Some(guest.tree.read(path, TEXT_MAX)?)),
        None => Ok(None),
    }
}

/// Deletes a file that may hold secrets, its content overwritten with zeros first: what is small
/// is in the file's own record, which stays. Other kinds of file are left alone.
pub(in super::super) fn wipe(guest: &mut Guest, path: &[u8]) -> Result<bool, TaskError> {
    let stat = guest.tree.lstat(path)?;
    if stat.file_type != FileType::Regular {
        return Ok(false);
    }
    let size = usize::try_from(stat.size.min(TEXT_MAX)).unwrap_or(0);
    guest.tree.write(path, &vec![0; size], FILE)?;
    guest.tree.unlink(path)?;
    Ok(true)
}
