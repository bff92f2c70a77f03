//! The places in which Windows looks for an answer file at the first start after sysprep.

use super::super::{Guest, TaskError};
use super::files;
use crate::ask::windows_path;
use crate::guest::windows::answer::AnswerFile;
use crate::guest::windows::{Windows, hives, path};

/// The places below the root, in the order in which Windows looks ("Windows Setup Automation
/// Overview", implicit answer file search order), `%` standing for its directory.
const PLACES: [&str; 7] = [
    "%/Panther/Unattend/Unattend.xml",
    "%/Panther/Unattend/Autounattend.xml",
    "%/Panther/unattend.xml",
    "%/System32/Sysprep/Unattend.xml",
    "%/System32/Sysprep/Panther/Unattend.xml",
    "/Unattend.xml",
    "/Autounattend.xml",
];

/// The place of ours when there is none: sysprep keeps the one that it was given there, too.
pub(super) fn own_place(windows: &Windows) -> String {
    windows.below("Panther/unattend.xml")
}

/// The answer files that the image has, the one that Windows finds first in front. That is the one
/// that the registry names, if it does.
pub(super) fn existing(guest: &Guest, windows: &Windows) -> Result<Vec<Vec<u8>>, TaskError> {
    let mut found = Vec::new();
    let system = hives::peek(&guest.tree, &windows.directory, "SYSTEM")?;
    let named = system.map(|system| system.text("Setup", "UnattendFile")).transpose()?.flatten();
    // Windows, too, ignores a file that is missing or on another drive.
    if let Some(named) = named.and_then(|named| windows_path::from_windows(named.trim()).ok()) {
        found.extend(path::find(&guest.tree, &named)?);
    }
    for place in PLACES {
        let place = place.replacen('%', &windows.directory, 1);
        if let Some(path) = path::find(&guest.tree, &place)?
            && guest.tree.is_file(&path)?
            && !found.contains(&path)
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// The image's own answer file: the first that is not one of an earlier setup.
pub(super) fn own(guest: &Guest, windows: &Windows) -> Result<Option<Vec<u8>>, TaskError> {
    for path in existing(guest, windows)? {
        let bytes = guest.tree.read(&path, files::TEXT_MAX)?;
        let file = AnswerFile::parse(&bytes, super::architecture(windows)).map_err(|source| {
            let file = format!("the image's answer file {}", snf_fs::error::display_name(&path));
            let remedy = " (mend it, or have it replaced with the property IGNORE_UNATTEND)";
            TaskError::Answer { file, remedy, source }
        })?;
        if !file.is_spent() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
