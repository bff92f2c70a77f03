//! FilesystemResizeAfterUmount: NTFS enlarged offline, where that is asked for.

use std::sync::Arc;

use snf_fs::ntfs::{Ntfs, grow};
use snf_fs::{BlockDevice, Kind, Overlay, Slice};

use super::super::{Guest, Needs, Session, Task, TaskError, TaskId, Work};
use crate::ask::properties::PropertyError;
use crate::guest::disk::Volume;
use crate::guest::storage::{Storage, StorageError};

pub(in super::super) static TASK: Task = Task {
    id: TaskId::FilesystemResizeAfterUmount,
    summary: "enlarge NTFS offline to the size of its partition (OFFLINE_NTFSRESIZE)",
    applies: |_| true,
    work: Work::guest(Needs::Where(super::WINDOWS), run),
};

/// Without a mark that has Windows check the volume at the next start.
const NO_CHECK: &str = "OFFLINE_NTFSRESIZE_NOCHECK";

/// Whether the volume is to be enlarged here, and not by Windows.
pub(super) fn wanted(session: &Session<'_>) -> Result<bool, PropertyError> {
    let properties = &session.plan.properties;
    Ok(properties.boolean("OFFLINE_NTFSRESIZE")? || properties.boolean(NO_CHECK)?)
}

/// A volume that grows when everything else has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaterGrowth {
    start: u64,
    size: u64,
    check: bool,
}

/// Tries it on a copy in memory, so that a volume that cannot grow is an error before the first
/// byte is written.
fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if !wanted(session)? {
        return Ok(());
    }
    let ntfs = guest.tree.mounts().first().and_then(|(_, info)| info.as_ref().ok()).map(|i| i.kind);
    let Some(volume) = guest.disk.volumes.get(guest.root) else { return Ok(()) };
    if ntfs != Some(Kind::Ntfs) {
        session.info(format!("{} is not NTFS: it is not enlarged", volume.place()));
        return Ok(());
    }
    if let Some((growth, _)) = LaterGrowth::plan(volume, session)? {
        session.later = Some(growth);
    }
    Ok(())
}

impl LaterGrowth {
    fn new(volume: &Volume, check: bool) -> Self {
        Self { start: volume.start, size: volume.size, check }
    }

    /// Tries it, and tells about it: the growth and the size in bytes that the file system will
    /// have; `None` when it fills its volume already.
    ///
    /// # Errors
    /// When the volume cannot grow.
    pub(crate) fn plan(
        volume: &Volume,
        session: &mut Session<'_>,
    ) -> Result<Option<(Self, u64)>, TaskError> {
        let check = !session.plan.properties.boolean(NO_CHECK)?;
        let growth = Self::new(volume, check);
        let trial = Overlay::new(growth.device(&session.storage)?);
        let grown = grow::grow(&trial, growth.size, grow::Options { check })?;
        if grown.clusters == grown.before {
            session.info(format!("the file system of {} fills it already", volume.place()));
            return Ok(None);
        }
        // Growing looks at marks and at the log; a hibernated system (hiberfil.sys) is a file.
        Ntfs::open(growth.device(&session.storage)?)?.volume().check_writable()?;
        let after = grown.clusters.saturating_mul(grown.cluster_size);
        session.info(format!(
            "the file system of {} is enlarged from {} to {after} bytes{}",
            volume.place(),
            grown.before.saturating_mul(grown.cluster_size),
            if check { ", and marked for a check at the first start" } else { "" }
        ));
        Ok(Some((growth, after)))
    }

    fn device(&self, storage: &Storage) -> Result<Arc<dyn BlockDevice>, TaskError> {
        let slice = Slice::new(storage.image(), self.start, self.size);
        Ok(Arc::new(slice.map_err(StorageError::from)?))
    }

    /// Does it, after the commit.
    pub(crate) fn apply(&self, storage: &Storage) -> Result<(), TaskError> {
        let device = self.device(storage)?;
        grow::grow(&*device, self.size, grow::Options { check: self.check })?;
        Ok(())
    }
}
