//! FilesystemResizeMounted: Windows enlarges its own volume at the first start.

use super::super::{Context, Needs, Run, Task, TaskError};
use super::Way;
use super::script::{self, Part};

pub(in super::super) static TASK: Task = Task {
    name: "FilesystemResizeMounted",
    number: 40,
    summary: "have Windows enlarge its volume with diskpart at the first start",
    needs: Needs::Where(super::WINDOWS),
    applies: |_| true,
    run: Run::Guest(run),
};

/// `extend` takes the space behind the volume, also that of a partition that has grown already.
const TEXT: &str = "@echo off\r\n\
    > \"%~dp0extend.txt\" echo select volume %SystemDrive:~0,1%\r\n\
    >> \"%~dp0extend.txt\" echo extend noerr\r\n\
    >> \"%~dp0extend.txt\" echo extend filesystem noerr\r\n\
    diskpart /s \"%~dp0extend.txt\"\r\n\
    del /f /q \"%~dp0extend.txt\"\r\n\
    exit /b 0\r\n";

fn run(context: &mut Context<'_>) -> Result<(), TaskError> {
    if super::offline_resize::wanted(context)? {
        context.info("the file system is enlarged offline, and not by Windows");
        return Ok(());
    }
    let instead = "set OFFLINE_NTFSRESIZE to have it enlarged offline";
    if super::is_legacy(context) {
        context.warn(format!(
            "this old Windows cannot enlarge the volume that it runs from, which keeps its size; \
             {instead}"
        ));
        return Ok(());
    }
    if super::way(context)? == Way::Offline {
        context.warn(format!(
            "the volume keeps its size: the image is not generalized, so nothing enlarges it at the \
             first start; {instead}"
        ));
        return Ok(());
    }
    script::install(context, Part::Extend, TEXT.as_bytes())
}
