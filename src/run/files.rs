//! The files on a disk, to be read: the guest's tree, or one file system of the disk.

use std::sync::Arc;

use snf_fs::BlockDevice;

use crate::ask::event::{Event, EventSink};
use crate::ask::luks_key::LuksKey;
use crate::ask::properties::Properties;
use crate::craft::random::{Clock, Entropy};
use crate::guest::Guest;
use crate::guest::disk::Disk;
use crate::guest::stack::Sources;
use crate::run::customize::CustomizeError;

/// The files of a disk that are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files<'a> {
    /// The guest's tree: its root, and what its `/etc/fstab` mounts. On a disk without a system, the
    /// only file system that there is.
    #[default]
    Guest,
    /// The same, where the root is this volume, named as `ROOT_PARTITION` does.
    GuestOn(&'a str),
    /// One volume's own file system, named in the same way; nothing is mounted in it.
    Partition(&'a str),
}

/// Opens a guest for reading as a run with these properties does: to see what there was beside what there
/// will be. What the run warns of is not told twice.
///
/// # Errors
/// As [`open`].
pub fn open_beside(
    disks: &[Arc<dyn BlockDevice>],
    keys: &[LuksKey],
    properties: &Properties,
) -> Result<Guest, CustomizeError> {
    let (entropy, clock) = (Entropy::seeded(0), Clock::fixed(0));
    let sources = Sources { keys, ..Sources::of(disks, &entropy, &clock) };
    let disk = Disk::open_with(&sources)?;
    let mut guest = Guest::find(disk, properties, false)
        .map_err(|refused| CustomizeError::Detect(refused.error))?;
    let mut events: Vec<Event> = Vec::new();
    // A file system that could not be mounted ended the run before.
    let _ = guest.mount(&mut events);
    Ok(guest)
}

/// Opens the files on `disks` for reading; the first one holds the image. A file system that cannot be mounted is a warning, and a
/// path through its mount point an error.
///
/// # Errors
/// When the disk cannot be read, or holds no such files.
pub fn open(
    disks: &[Arc<dyn BlockDevice>],
    keys: &[LuksKey],
    files: Files<'_>,
    events: &mut dyn EventSink,
) -> Result<Guest, CustomizeError> {
    // Nothing random is kept and nothing is written.
    let (entropy, clock) = (Entropy::seeded(0), Clock::fixed(0));
    let sources = Sources { keys, ..Sources::of(disks, &entropy, &clock) };
    let disk = Disk::open_with(&sources)?;
    let mut properties = Properties::default();
    if let Files::GuestOn(name) | Files::Partition(name) = files {
        properties.set("ROOT_PARTITION", name);
    }
    let refuse = |refused: Box<crate::guest::Refused>| CustomizeError::Detect(refused.error);
    if let Files::Partition(_) = files {
        return Guest::find(disk, &properties, false).map_err(refuse);
    }
    match Guest::open(disk, &properties, events) {
        Ok(guest) => Ok(guest),
        // A disk of data: its files can be read all the same.
        Err(refused) if refused.error.is_absence() && files == Files::Guest => {
            let crate::guest::Refused { disk, error } = *refused;
            Guest::find(disk, &properties, false).map_err(|_| CustomizeError::Detect(error))
        }
        Err(refused) => Err(refuse(refused)),
    }
}
