//! What the tasks work with that change the disk before the guest is looked for.

use crate::event::{Event, EventSink};
use crate::guest::disk::Disk;
use crate::plan::Plan;
use crate::random::{Clock, Entropy};
use crate::storage::{Storage, StorageError};

/// The disk, the request and where to tell what happens.
pub struct DiskContext<'a> {
    /// What is asked for.
    pub plan: &'a Plan,
    /// The instance's disks.
    pub storage: Storage,
    /// Randomness.
    pub entropy: &'a Entropy,
    /// The time.
    pub clock: &'a Clock,
    /// Where events go.
    pub events: &'a mut dyn EventSink,
    /// Warnings given.
    pub warnings: Vec<String>,
    /// The disk's volumes, once somebody has looked.
    opened: Option<Disk>,
    /// Index of the volume whose file system grew.
    pub(crate) grown: Option<usize>,
}

impl<'a> DiskContext<'a> {
    /// Nothing done yet.
    pub fn new(
        plan: &'a Plan,
        storage: Storage,
        entropy: &'a Entropy,
        clock: &'a Clock,
        events: &'a mut dyn EventSink,
    ) -> Self {
        let warnings = Vec::new();
        Self { plan, storage, entropy, clock, events, warnings, opened: None, grown: None }
    }

    /// The volumes of the disk as it will be. The partition table must not change after this.
    pub fn disk(&mut self) -> Result<&mut Disk, StorageError> {
        let disk = match self.opened.take() {
            Some(disk) => disk,
            None => {
                let mounter = self.storage.mounter();
                Disk::open_with(&self.storage.image(), self.entropy, self.clock, mounter)?
            }
        };
        Ok(self.opened.insert(disk))
    }

    /// The disk, its storage, and the index of the volume whose file system grew.
    pub(crate) fn into_parts(
        mut self,
    ) -> Result<(Disk, Storage, Vec<String>, Option<usize>), StorageError> {
        self.disk()?;
        let disk = self.opened.take().unwrap_or_else(|| Disk::of_volumes(Vec::new()));
        Ok((disk, self.storage, self.warnings, self.grown))
    }

    /// Tells a warning and keeps it for the report.
    pub fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.warnings.push(text.clone());
        self.events.event(Event::Warning(text));
    }

    /// Tells something.
    pub fn info(&mut self, text: impl Into<String>) {
        self.events.event(Event::Info(text.into()));
    }
}
