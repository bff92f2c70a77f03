//! The families that a run's errors fall into, for exit codes and for the way from the helper VM.

use serde::{Deserialize, Serialize};

use crate::customize::CustomizeError;
use crate::storage::StorageError;
use crate::task::TaskError;

/// What kind of error ended a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Something that was asked for cannot be done on this guest.
    Failed,
    /// A property has a value that it cannot have.
    Usage,
    /// No system was found, or the image is of a kind that is not supported.
    Refused,
    /// The image contradicts itself.
    Corrupt,
    /// The disk cannot be read.
    Device,
}

impl Family {
    /// The family of an error.
    pub fn of(error: &CustomizeError) -> Self {
        match error {
            CustomizeError::Storage(StorageError::Partition(error))
            | CustomizeError::Table(error) => Self::of_table(error),
            CustomizeError::Storage(StorageError::Device(_)) | CustomizeError::Read(_) => {
                Self::Device
            }
            CustomizeError::Storage(StorageError::Swap(_)) => Self::Refused,
            CustomizeError::Detect(_) | CustomizeError::Unfit(_) => Self::Refused,
            CustomizeError::Property(_) => Self::Usage,
            CustomizeError::Task { source: TaskError::Fs(error), .. } => Self::of_fs(error),
            CustomizeError::Task { .. } => Self::Failed,
            CustomizeError::Commit(error) => Self::of_fs(&error.source),
        }
    }

    fn of_fs(error: &snf_fs::Error) -> Self {
        match error {
            snf_fs::Error::Unsupported { .. } => Self::Refused,
            snf_fs::Error::Corrupt { .. } => Self::Corrupt,
            snf_fs::Error::Device(_) => Self::Device,
            _ => Self::Failed,
        }
    }

    fn of_table(error: &snf_partition::Error) -> Self {
        match error {
            snf_partition::Error::Corrupt { .. } => Self::Corrupt,
            snf_partition::Error::Io { .. } => Self::Device,
            _ => Self::Refused,
        }
    }
}
