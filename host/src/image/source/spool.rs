//! A container that cannot be read from start to end (qcow2) and that arrives as a stream is kept
//! in a file without a name until it is whole.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{SourceError, fill};
use crate::disk::buffer::is_zero;
use crate::node::cancel::Cancel;

const CHUNK: usize = 1 << 20;

/// Reads all of `reader` into a file in `dir`. `size` is that of the stream, when it is known;
/// `room` that of the disk, so that an image that cannot fit is not fetched at all; `qcow2` whether it
/// must be a qcow2 image.
pub(super) fn spool(
    mut reader: impl Read,
    size: Option<u64>,
    room: Option<u64>,
    dir: &Path,
    name: &str,
    qcow2: bool,
    cancel: &Cancel,
) -> Result<File, SourceError> {
    let bad = |problem: String| SourceError::Bad { name: name.to_owned(), problem };
    let keep_error = |source: io::Error| {
        let full = source.kind() == io::ErrorKind::StorageFull;
        let hint = if full { "; make room there, or set SPOOL_DIR to another folder" } else { "" };
        bad(format!("cannot be kept in {} (SPOOL_DIR): {source}{hint}", dir.display()))
    };
    let file = tempfile::tempfile_in(dir).map_err(keep_error)?;
    let free = rustix::fs::fstatvfs(&file).map_err(|error| keep_error(error.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if let Some(size) = size.filter(|size| *size > free) {
        return Err(bad(format!(
            "has {size} bytes, and {} (SPOOL_DIR) has room for {free}; make room there, or set \
             SPOOL_DIR to another folder",
            dir.display()
        )));
    }
    let mut buf = vec![0; CHUNK];
    let (mut position, mut limit) = (0u64, u64::MAX);
    loop {
        cancel.check()?;
        let n = fill(&mut reader, &mut buf).map_err(|source| SourceError::Io {
            name: name.to_owned(),
            offset: Some(position),
            source,
        })?;
        if position == 0 && qcow2 {
            // A wrong file is refused now and not when all of it is here.
            let holds = snf_container::qcow2::virtual_size(&buf[..n])
                .ok_or_else(|| bad(super::qcow2::NOT_QCOW2.to_owned()))?;
            if let Some(room) = room.filter(|room| holds > *room) {
                return Err(bad(format!(
                    "holds a disk of {holds} bytes, and the instance's disk has {room}"
                )));
            }
            // Tables and a little slack; what is larger has more in it than a disk.
            limit = holds.saturating_add(holds / 8).saturating_add(64 << 20);
        }
        if n == 0 {
            break;
        }
        if !is_zero(&buf[..n]) {
            file.write_all_at(&buf[..n], position).map_err(keep_error)?;
        }
        position += n as u64;
        if position > limit {
            return Err(bad(
                "is much larger than the disk it holds (it may have snapshots in it); flatten it with \
                 qemu-img convert -O qcow2"
                    .into(),
            ));
        }
    }
    file.set_len(position).map_err(keep_error)?;
    Ok(file)
}
