//! FilesystemResizeUnmounted: the file system that grows fills its partition.

use snf_fs::Kind;

use super::{LaterGrowth, LazyDisk, Session, Task, TaskError, TaskId, Work, fix_partition_table};
use crate::craft::sentence::sentence;
use crate::guest::disk::Content;
use crate::task::session::Grown;

pub(super) static TASK: Task = Task {
    id: TaskId::FilesystemResizeUnmounted,
    summary: "enlarge the file system of the last partition or the root to the partition's size",
    applies: |_| true,
    work: Work::Disk(run),
};

/// Independent of whether the partition grew in this run: it may have been larger than its file
/// system before.
fn run(disk: &mut LazyDisk, session: &mut Session<'_>) -> Result<(), TaskError> {
    if session.growing.is_none() {
        // FixPartitionTable was left out, found no table, or has told why nothing grows.
        let table = session.storage.read_table()?;
        if table.is_some() && session.tabled {
            return Ok(());
        }
        session.growing = fix_partition_table::choose(disk, table.as_ref(), session)?;
    }
    let Some(choice) = session.growing.clone() else { return Ok(()) };
    let insisted = session.plan.growth.is_insisted_on();
    let disk = disk.open(session)?;
    let Some(index) = choice.volume(disk) else { return Ok(()) };
    let volume = &mut disk.volumes[index];
    let (place, what, size) = (volume.place(), volume.describe(), volume.size);
    if let Content::Broken(error) = &volume.content {
        let why = sentence(&**error);
        let text = format!("the file system of {place} ({what}) keeps its size: {why}");
        session.warn(text);
        return Ok(());
    }
    let Content::Open(fs) = &mut volume.content else {
        let text = format!(
            "{place} ({what}) has no file system that can be enlarged offline: the guest has to \
             use the room"
        );
        if insisted {
            session.warn(text)
        } else {
            session.info(text)
        }
        return Ok(());
    };
    let info = fs.info()?;
    let before = info.size;
    if info.kind == Kind::Ntfs {
        if !insisted {
            session
                .info(format!("{place} ({what}) is enlarged by Windows, or when all else is done"));
            return Ok(());
        }
        if let Some((later, after)) = LaterGrowth::plan(volume, session)? {
            session.later = Some(later);
            session.grown = Some(Grown { place, what, before, after });
        }
        return Ok(());
    }
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
            session.grown = Some(Grown { place, what, before, after });
        }
        Ok(_) => {
            session.info(format!("the file system of {place} is as large as it can be"));
        }
        // The image is as good as before: a guest with a small file system beats none.
        Err(error @ snf_fs::Error::Unsupported { .. }) if !insisted => {
            session.warn(format!("the file system of {place} ({what}) keeps its size: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
