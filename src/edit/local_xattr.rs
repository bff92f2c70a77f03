//! Extended attributes of files beside the program that mean the same in a guest.

use std::io;
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};
use rustix::io::Errno;

/// The most that Linux has of names or of a value, in bytes.
const MOST: usize = 64 << 10;

/// The names and values of a file that are copied: what users gave it (`user.`), and its capabilities.
/// Labels are the guest's own business.
///
/// # Errors
/// The system's error; a file system without attributes has none.
pub(super) fn of(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; MOST];
    let length = match llistxattr(path, &mut names[..]) {
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if !name.starts_with(b"user.") && name != b"security.capability" {
            continue;
        }
        let mut value = vec![0; MOST];
        let length = match lgetxattr(path, name, &mut value[..]) {
            // It went away, or is not for us to read.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => continue,
            other => other?,
        };
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}
