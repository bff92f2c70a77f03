//! The report of a run.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use snf_fs::tree::Change;

use crate::task::{Fingerprint, Grown, TaskId};

/// Whether the changes reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Everything is done in memory and nothing is written.
    DryRun,
    /// The changes are written when all tasks have succeeded.
    Commit,
}

/// A task that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Its name.
    pub name: Cow<'static, str>,
    /// How long it took.
    pub milliseconds: u64,
}

/// A path that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// The canonical path in the guest.
    pub path: String,
    /// `created`, `replaced`, `removed`, `attributes`.
    pub kind: Cow<'static, str>,
}

/// The commit of one file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemReport {
    /// Its mount point in the guest.
    pub mounted_on: String,
    /// Blocks of metadata changed in place.
    pub metadata_blocks: u64,
    /// Blocks of data written.
    pub data_blocks: u64,
    /// Journal transactions used.
    pub transactions: u32,
    /// Whether an unclean journal was replayed first.
    pub replayed: bool,
}

/// The report of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether it was written.
    pub mode: Mode,
    /// The guest's system in words; empty when it was not recognised.
    pub system: String,
    /// The number of the root partition; none where the root is no partition.
    pub root_partition: Option<u32>,
    /// The root's place in words: `partition 2`, `logical volume rl/root`; empty when none was
    /// looked for.
    pub root: String,
    /// The tasks that ran, in order.
    pub tasks: Vec<TaskReport>,
    /// Tasks that the properties leave out.
    pub excluded: Vec<Cow<'static, str>>,
    /// The changes of the partition table, one sentence each.
    pub partition_table: Vec<String>,
    /// The file system that got larger.
    pub grown: Option<Grown>,
    /// The changes, by path.
    pub changes: Vec<ChangeReport>,
    /// Host keys that were made.
    pub fingerprints: Vec<Fingerprint>,
    /// Warnings given.
    pub warnings: Vec<String>,
    /// The commits of the file systems.
    pub file_systems: Vec<FileSystemReport>,
    /// How long it took to open the disk and find the guest.
    pub open_milliseconds: u64,
    /// How long the commit took.
    pub commit_milliseconds: u64,
}

impl ChangeReport {
    pub(crate) fn of(change: Change) -> Self {
        Self { path: change.display(), kind: change.kind.name().into() }
    }
}

impl Report {
    /// A run that has done nothing yet.
    pub(crate) fn new(mode: Mode, excluded: &[TaskId]) -> Self {
        Self {
            mode,
            system: String::new(),
            root_partition: None,
            root: String::new(),
            tasks: Vec::new(),
            excluded: excluded.iter().map(|task| Cow::from(task.name())).collect(),
            partition_table: Vec::new(),
            grown: None,
            changes: Vec::new(),
            fingerprints: Vec::new(),
            warnings: Vec::new(),
            file_systems: Vec::new(),
            open_milliseconds: 0,
            commit_milliseconds: 0,
        }
    }
}
