//! FilesystemResizeUnmounted: the file system of the last partition fills it.

use super::{DiskContext, Needs, Run, Task, TaskError};
use crate::guest::disk::Content;
use snf_fs::Kind;

pub(super) static TASK: Task = Task {
    name: "FilesystemResizeUnmounted",
    number: 20,
    summary: "enlarge the file system of the last partition to the partition's size",
    needs: Needs::Disk,
    applies: |_| true,
    run: Run::Disk(run),
};

/// Independent of whether the partition grew in this run: it may have been larger than its file
/// system before.
fn run(context: &mut DiskContext<'_>) -> Result<(), TaskError> {
    let wanted = context.plan.properties.swap()?;
    let Some(number) = context.storage.last_volume(wanted.as_ref())? else {
        context.info("the disk has no partition whose file system could be enlarged");
        return Ok(());
    };
    let disk = context.disk()?;
    let Some(index) = disk.volumes.iter().position(|volume| volume.number == number) else {
        return Ok(());
    };
    let volume = &mut disk.volumes[index];
    let (place, what, size) = (volume.place(), volume.describe(), volume.size);
    if let Content::Broken(error) = &volume.content {
        let text = format!("the file system of {place} ({what}) keeps its size: {error}");
        context.warn(text);
        return Ok(());
    }
    let Content::Open(fs) = &mut volume.content else {
        context.info(format!("{place} ({what}) has no file system that can be enlarged offline"));
        return Ok(());
    };
    let info = fs.info()?;
    if info.kind == Kind::Ntfs {
        context.info(format!("{place} ({what}) is enlarged by Windows, or when all else is done"));
        return Ok(());
    }
    let before = info.size;
    if before >= size {
        context.info(format!("the file system of {place} fills it already"));
        return Ok(());
    }
    match fs.grow(size) {
        Ok(after) if after > before => {
            context.grown = Some(index);
            context.info(format!(
                "the file system of {place} is enlarged from {before} to {after} bytes"
            ));
        }
        Ok(_) => {
            context.info(format!("the file system of {place} is as large as it can be"));
        }
        // The image is as good as before: a guest with a small file system beats none.
        Err(error @ snf_fs::Error::Unsupported { .. }) => {
            context.warn(format!("the file system of {place} ({what}) keeps its size: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
