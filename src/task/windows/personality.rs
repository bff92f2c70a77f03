//! EnforcePersonality on Windows: paths with backslashes and drive letters; owner, group and mode
//! mean nothing there.

use snf_fs::error::display_name;

use super::super::{Guest, Session, TaskError};
use super::files;
use crate::guest::windows::path;
use crate::plan::PersonalityFile;

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
        let about = |text: String| TaskError::request(format!("{}: {text}", file.origin));
        let guest_path = path::from_windows(&file.path).map_err(|problem| {
            about(format!("\"{}\" {problem}", display_name(file.path.as_bytes())))
        })?;
        files::write(guest, &guest_path, file.contents.expose())?;
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
