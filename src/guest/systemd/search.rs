//! The file of a unit.

use snf_fs::{FileType, Result, Tree};

use super::UnitName;

/// The folders of units, of which the first one counts: the administrator's, those of local packages,
/// those of packages. `/run` is empty before the machine runs.
pub(super) const DIRS: [&str; 4] = [
    super::CONFIG,
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The files that define a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its file, or a link to one elsewhere.
    File(Vec<u8>),
    /// A link to `/dev/null`, or an empty file.
    Masked(Vec<u8>),
    /// A link to another unit.
    Alias(UnitName),
    /// Nothing.
    Nothing,
}

/// Looks for a unit of exactly this name.
///
/// # Errors
/// Errors of the tree.
pub fn find(tree: &Tree, unit: &UnitName) -> Result<Found> {
    for dir in DIRS {
        let path = format!("{dir}/{unit}").into_bytes();
        let stat = match tree.lstat(&path) {
            Ok(stat) => stat,
            Err(error) if error.is_not_found() => continue,
            // A file where a directory should be holds no units.
            Err(snf_fs::Error::NotADirectory(_)) => continue,
            Err(error) => return Err(error),
        };
        match stat.file_type {
            FileType::Regular if stat.size == 0 => return Ok(Found::Masked(path)),
            FileType::Regular => return Ok(Found::File(path)),
            FileType::Symlink => {
                let target = tree.read_link(&path)?;
                if leads_to_null(&target) {
                    return Ok(Found::Masked(path));
                }
                let name = target.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                return Ok(match UnitName::of_entry(name) {
                    Some(other) if other != *unit => Found::Alias(other),
                    // A unit that lies elsewhere, linked in; a link that leads nowhere is nothing.
                    _ if tree.is_file(&path)? => Found::File(path),
                    _ => Found::Nothing,
                });
            }
            _ => {}
        }
    }
    Ok(Found::Nothing)
}

/// Whether the target of a link is the mark of a masked unit.
pub(super) fn leads_to_null(target: &[u8]) -> bool {
    target == b"/dev/null" || (target.starts_with(b"../") && target.ends_with(b"/dev/null"))
}
