//! FilesystemResizeUnmounted: the file system of the last partition fills it.

use super::{LazyDisk, Session, Task, TaskError, TaskId, Work};
use crate::guest::disk::Content;
use snf_fs::Kind;

pub(super) static TASK: Task = Task {
    id: TaskId::FilesystemResizeUnmounted,
    summary: "enlarge the file system of the last partition to the partition's size",
    applies: |_| true,
    work: Work::Disk(run),
};

/// Independent of whether the partition grew in this run: it may have been larger than its file
/// system before.
fn run(disk: &mut LazyDisk, session: &mut Session<'_>) -> Result<(), TaskError> {
    let wanted = session.plan.properties.swap()?;
    let Some(number) = session.storage.last_volume(wanted.as_ref())? else {
        session.info("the disk has no partition whose file system could be enlarged");
        return Ok(());
    };
    let disk = disk.open(session)?;
    let Some(index) = disk.volumes.iter().position(|volume| volume.number == number) else {
        return Ok(());
    };
    let volume = &mut disk.volumes[index];
    let (place, what, size) = (volume.place(), volume.describe(), volume.size);
    if let Content::Broken(error) = &volume.content {
        let text = format!("the file system of {place} ({what}) keeps its size: {error}");
        session.warn(text);
        return Ok(());
    }
    let Content::Open(fs) = &mut volume.content else {
        session.info(format!("{place} ({what}) has no file system that can be enlarged offline"));
        return Ok(());
    };
    let info = fs.info()?;
    if info.kind == Kind::Ntfs {
        session.info(format!("{place} ({what}) is enlarged by Windows, or when all else is done"));
        return Ok(());
    }
    let before = info.size;
    if before >= size {
        session.info(format!("the file system of {place} fills it already"));
        return Ok(());
    }
    match fs.grow(size) {
        Ok(after) if after > before => {
            volume.grown = true;
            session.info(format!(
                "the file system of {place} is enlarged from {before} to {after} bytes"
            ));
        }
        Ok(_) => {
            session.info(format!("the file system of {place} is as large as it can be"));
        }
        // The image is as good as before: a guest with a small file system beats none.
        Err(error @ snf_fs::Error::Unsupported { .. }) => {
            session.warn(format!("the file system of {place} ({what}) keeps its size: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
