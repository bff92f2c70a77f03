//! FilesystemResizeMounted: Windows enlarges its own volume at the first start.

use super::super::{Guest, Needs, Session, Task, TaskError, TaskId, Work};
use super::Way;
use super::script::{self, Part};

pub(in super::super) static TASK: Task = Task {
    id: TaskId::FilesystemResizeMounted,
    summary: "have Windows enlarge its volume with diskpart at the first start",
    applies: |_| true,
    work: Work::guest(Needs::Where(super::WINDOWS), run),
};

/// `extend` takes the space after the volume, also that of a partition that has grown already.
const TEXT: &str = "@echo off\r\n\
    > \"%~dp0extend.txt\" echo select volume %SystemDrive:~0,1%\r\n\
    >> \"%~dp0extend.txt\" echo extend noerr\r\n\
    >> \"%~dp0extend.txt\" echo extend filesystem noerr\r\n\
    diskpart /s \"%~dp0extend.txt\"\r\n\
    del /f /q \"%~dp0extend.txt\"\r\n\
    exit /b 0\r\n";

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if super::offline_resize::wanted(session)? {
        session.info("the file system is enlarged offline, and not by Windows");
        return Ok(());
    }
    let instead = "set OFFLINE_NTFSRESIZE to have it enlarged offline";
    if super::is_legacy(guest) {
        session.warn(format!(
            "this old Windows cannot enlarge the volume that it runs from, which keeps its size; \
             {instead}"
        ));
        return Ok(());
    }
    if super::way(guest, session)? == Way::Offline {
        session.warn(format!(
            "the volume keeps its size: the image is not generalized, so nothing enlarges it at the \
             first start; {instead}"
        ));
        return Ok(());
    }
    script::install(guest, session, Part::Extend, TEXT.as_bytes())
}
