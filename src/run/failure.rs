//! The end of a run: the family of an error, for exit codes and for the way out of the helper VM,
//! and its sentence.

use serde::{Deserialize, Serialize};

use crate::guest::accounts::AccountError;
use crate::guest::detect::DetectError;
use crate::guest::growth::NoGrowth;
use crate::guest::stack::StackError;
use crate::guest::storage::StorageError;
use crate::guest::systemd::UnitError;
use crate::guest::windows::RegistryError;
use crate::guest::windows::registry::HiveError;
use crate::run::customize::CustomizeError;
use crate::task::TaskError;

pub use crate::craft::sentence::sentence;

/// The kind of error that ended a run. The later one of two says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Something that was asked for cannot be done on this guest.
    Failed,
    /// A key, a password or a content file that was given is of no use.
    Input,
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
            CustomizeError::Stack(error) => Self::of_stack(error),
            CustomizeError::Storage(error) => Self::of_storage(error),
            CustomizeError::Read(_) => Self::Device,
            CustomizeError::Detect(error) => Self::of_detect(error),
            CustomizeError::Unfit(_) => Self::Refused,
            CustomizeError::Property(_) => Self::Usage,
            CustomizeError::File(error) => Self::of_task(&error.source),
            CustomizeError::Task { source, .. } => Self::of_task(source),
            CustomizeError::Diff(error) => Self::of_fs(error),
            CustomizeError::Commit(error) => Self::of_fs(&error.source),
        }
    }

    fn of_task(error: &TaskError) -> Self {
        match error {
            TaskError::Fs(error)
            | TaskError::Account(AccountError::Fs(error))
            | TaskError::Unit(UnitError::Fs(error)) => Self::of_fs(error),
            TaskError::Registry(RegistryError::Fs(error)) => Self::of_fs(error),
            TaskError::Registry(RegistryError::Hive {
                source: HiveError::Corrupt { .. }, ..
            }) => Self::Corrupt,
            TaskError::Registry(RegistryError::Hive { source: HiveError::Read(error), .. }) => {
                Self::of_fs(error)
            }
            TaskError::Source(_) => Self::Input,
            TaskError::Storage(error) => Self::of_storage(error),
            TaskError::Property(_) => Self::Usage,
            TaskError::File(error) => Self::of_task(&error.source),
            TaskError::Growth(NoGrowth::NoRoot { problem, .. }) => Self::of_detect(problem),
            TaskError::Growth(NoGrowth::Missing { .. } | NoGrowth::MissingLogical { .. }) => {
                Self::Usage
            }
            TaskError::Volume { source, .. } => Self::of_volume(source),
            TaskError::Growth(_) => Self::Refused,
            _ => Self::Failed,
        }
    }

    /// Damage that hides the system says more than the missing system.
    fn of_detect(error: &DetectError) -> Self {
        match error {
            DetectError::Property(_) => Self::Usage,
            other => other
                .causes()
                .map(Self::of_fs)
                .chain(other.closed().map(Self::of_volume))
                .max()
                .map_or(Self::Refused, |worst| worst.max(Self::Refused)),
        }
    }

    fn of_stack(error: &StackError) -> Self {
        match error {
            StackError::Table(error) | StackError::TableOf { source: error, .. } => {
                Self::of_table(error)
            }
            StackError::Key { source, .. } => Self::of_volume(source),
            StackError::NoContainer { .. } => Self::Input,
        }
    }

    fn of_volume(error: &snf_volume::Error) -> Self {
        match error {
            snf_volume::Error::WrongKey(_) => Self::Input,
            snf_volume::Error::Device(_) => Self::Device,
            snf_volume::Error::Corrupt { .. }
            | snf_volume::Error::Json(_)
            | snf_volume::Error::Argon2(_) => Self::Corrupt,
            _ => Self::Refused,
        }
    }

    fn of_storage(error: &StorageError) -> Self {
        match error {
            StorageError::Partition(error) => Self::of_table(error),
            StorageError::Stack(error) => Self::of_stack(error),
            StorageError::Device(_) => Self::Device,
            StorageError::Swap(_) => Self::Refused,
        }
    }

    /// The family of an error of a file system.
    pub fn of_fs(error: &snf_fs::Error) -> Self {
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
