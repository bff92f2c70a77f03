//! FilesystemResizeUnmounted: the file system that grows fills its partition.

use snf_fs::Kind;
use snf_volume::lvm::{Change, Extent, Stamp};

use super::{LaterGrowth, LazyDisk, Session, Task, TaskError, TaskId, Work, fix_partition_table};
use crate::craft::sentence::sentence;
use crate::guest::disk::{Content, Layer};
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
    if let Some(Layer::Logical { group, name }) = &choice.within {
        enlarge_logical(disk, session, group, name)?;
    }
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
        if !insisted && session.plan.tasks.contains(TaskId::FilesystemResizeMounted) {
            session
                .info(format!("{place} ({what}) is enlarged by Windows, or when all else is done"));
            return Ok(());
        }
        match LaterGrowth::plan(volume, session) {
            Ok(Some((later, after))) => {
                session.later = Some(later);
                session.grown = Some(Grown { place, what, before, after });
            }
            Ok(None) => {}
            Err(error) if !insisted => {
                session.warn(format!(
                    "the file system of {place} ({what}) keeps its size: {}",
                    sentence(&error)
                ));
            }
            Err(error) => return Err(error),
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

/// Gives a logical volume all that is free in its group, after the physical volumes have got the room
/// of their partitions.
fn enlarge_logical(
    disk: &mut LazyDisk,
    session: &mut Session<'_>,
    group: &str,
    name: &str,
) -> Result<(), TaskError> {
    let fail = |source| TaskError::Volume { volume: format!("{group}/{name}"), source };
    let volumes = disk.open(session)?;
    let Some(found) = volumes.groups.iter().find(|found| found.group.name() == group) else {
        return Ok(());
    };
    let mut change = Change::new(&found.group).map_err(fail)?;
    let mut gained = 0;
    for volume in found.group.physical_volumes() {
        gained += change.grow_pv(&volume.id).map_err(fail)?;
    }
    let size = change.extend(name, Extent::AllFree).map_err(fail)?;
    let stamp = Stamp {
        description: "snf-image: the logical volume of the root grows".to_owned(),
        host: "snf-image".to_owned(),
        time: u64::try_from(session.clock.now().seconds).unwrap_or(0),
    };
    change.commit(&stamp).map_err(fail)?;
    // They were opened with the old sizes.
    disk.forget();
    session.info(format!(
        "logical volume {group}/{name} has {size} bytes; the group {group} gained {gained}"
    ));
    Ok(())
}
