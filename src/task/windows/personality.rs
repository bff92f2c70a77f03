//! EnforcePersonality on Windows: paths with backslashes and drive letters; owner, group and mode
//! mean nothing there.

use snf_fs::error::display_name;

use super::super::{FileError, Guest, Session, TaskError};
use super::files;
use crate::ask::plan::PersonalityFile;
use crate::ask::windows_path;

/// Writes the files of the plan.
pub(in super::super) fn enforce(
    guest: &mut Guest,
    session: &mut Session<'_>,
) -> Result<(), TaskError> {
    let plan = session.plan;
    let ignored = |file: &&PersonalityFile| {
        file.owner.is_some() || file.group.is_some() || file.mode.is_some()
    };
    for file in &plan.personality {
        write(guest, file).map_err(|error| FileError::of(&file.origin, error))?;
    }
    let count = plan.personality.iter().filter(ignored).count();
    if count > 0 {
        session.info(format!(
            "owner, group and mode of {count} file{} are ignored: on Windows a new file has the \
             permissions of its directory",
            if count == 1 { "" } else { "s" }
        ));
    }
    Ok(())
}

fn write(guest: &mut Guest, file: &PersonalityFile) -> Result<(), TaskError> {
    let path = windows_path::from_windows(&file.path)
        .map_err(|problem| TaskError::Path { path: display_name(file.path.as_bytes()), problem })?;
    files::write(guest, &path, file.contents.expose()).map(drop)
}
