//! Changing a text of the guest: what the verbs for lines share.

use snf_fs::error::display_name;
use snf_fs::{Attributes, FileType};

use super::{GuestPath, place};
use crate::guest::{CONFIG_MAX, Guest};
use crate::task::{Session, TaskError};

/// Changes the bytes of a file that exists; owner, permissions and labels stay. A file that `change`
/// leaves as it is is not written.
///
/// # Errors
/// When there is no such file, it is longer than 16 MiB, or `change` says so.
pub(super) fn rewrite(
    guest: &mut Guest,
    session: &mut Session<'_>,
    path: &GuestPath,
    follow: bool,
    change: impl FnOnce(&[u8]) -> Result<Vec<u8>, TaskError>,
) -> Result<(), TaskError> {
    let spot = place::to_write(guest, session, path, follow)?;
    let stat = guest.tree.lstat(&spot.path)?;
    if stat.file_type != FileType::Regular {
        let shown = display_name(&spot.path);
        return Err(TaskError::request(format!("{shown} is not a regular file")));
    }
    let old = guest.tree.read(&spot.path, CONFIG_MAX)?;
    let new = change(&old)?;
    if new == old {
        return Ok(());
    }
    guest.tree.write(
        &spot.path,
        &new,
        Attributes { mode: stat.mode, uid: stat.uid, gid: stat.gid },
    )?;
    super::write::drop_privileges(&mut guest.tree, &spot.path, &stat, false)
}

/// The line end of a text: that of its first line.
pub(super) fn line_end(text: &[u8]) -> &'static [u8] {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(at) if at > 0 && text[at - 1] == b'\r' => b"\r\n",
        _ => b"\n",
    }
}

/// Adds a line to a text, whose last line is ended first.
pub(super) fn with_line(text: &[u8], line: &[u8]) -> Vec<u8> {
    let end = line_end(text);
    let mut new = text.to_vec();
    if !new.is_empty() && !new.ends_with(b"\n") {
        new.extend_from_slice(end);
    }
    new.extend_from_slice(line);
    new.extend_from_slice(end);
    new
}

/// The lines of a text, each with its end.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
}
