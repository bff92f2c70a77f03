//! The names of the tasks, as a type: the properties, the plan and the driver all speak of tasks,
//! and only this file compares their names as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One task of a run, in the order in which tasks run.
///
/// The names and numbers are those of the original snf-image: `EXCLUDE_TASK_<name>` properties and
/// the events of a run spell them this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskId {
    /// Makes the partition table use the whole disk.
    FixPartitionTable,
    /// Enlarges the file system of the last partition.
    FilesystemResizeUnmounted,
    /// Mounts the file systems of `/etc/fstab`.
    MountImage,
    /// Removes what a clone must not share, before it gets an identity of its own.
    PrepareSystem,
    /// Writes a seed for cloud-init.
    InitializeDatasource,
    /// Installs the answer file of Windows' setup.
    InstallUnattend,
    /// Has Windows enlarge its volume at the first start.
    FilesystemResizeMounted,
    /// Makes swap space.
    AddSwap,
    /// Sets the host name.
    AssignHostname,
    /// Sets the machine id.
    ChangeMachineId,
    /// Sets passwords and adds authorized keys.
    ChangePassword,
    /// Configures the network interfaces.
    ConfigureNetwork,
    /// Replaces the SSH host keys.
    DeleteSSHKeys,
    /// Refuses remote desktop until the passwords are set.
    DisableRemoteDesktopConnections,
    /// Makes the edits of the plan, in their order.
    EditGuest,
    /// Has the guest relabel its files.
    SELinuxAutorelabel,
    /// Writes the user's files.
    EnforcePersonality,
    /// Runs the image's own program at the first boot.
    RunCustomTask,
    /// Enlarges NTFS offline.
    FilesystemResizeAfterUmount,
}

/// A name that no task has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no task \"{}\"; the tasks are {}", .0.escape_debug(), names())]
pub struct UnknownTask(pub String);

fn names() -> String {
    TaskId::ALL.map(TaskId::name).join(", ")
}

impl TaskId {
    /// Every task, in order.
    pub const ALL: [Self; 19] = [
        Self::FixPartitionTable,
        Self::FilesystemResizeUnmounted,
        Self::MountImage,
        Self::PrepareSystem,
        Self::InitializeDatasource,
        Self::InstallUnattend,
        Self::FilesystemResizeMounted,
        Self::AddSwap,
        Self::AssignHostname,
        Self::ChangeMachineId,
        Self::ChangePassword,
        Self::ConfigureNetwork,
        Self::DeleteSSHKeys,
        Self::DisableRemoteDesktopConnections,
        Self::EditGuest,
        Self::SELinuxAutorelabel,
        Self::EnforcePersonality,
        Self::RunCustomTask,
        Self::FilesystemResizeAfterUmount,
    ];

    /// The name, as properties and events spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FixPartitionTable => "FixPartitionTable",
            Self::FilesystemResizeUnmounted => "FilesystemResizeUnmounted",
            Self::MountImage => "MountImage",
            Self::PrepareSystem => "PrepareSystem",
            Self::InitializeDatasource => "InitializeDatasource",
            Self::InstallUnattend => "InstallUnattend",
            Self::FilesystemResizeMounted => "FilesystemResizeMounted",
            Self::AddSwap => "AddSwap",
            Self::AssignHostname => "AssignHostname",
            Self::ChangeMachineId => "ChangeMachineId",
            Self::ChangePassword => "ChangePassword",
            Self::ConfigureNetwork => "ConfigureNetwork",
            Self::DeleteSSHKeys => "DeleteSSHKeys",
            Self::DisableRemoteDesktopConnections => "DisableRemoteDesktopConnections",
            Self::EditGuest => "EditGuest",
            Self::SELinuxAutorelabel => "SELinuxAutorelabel",
            Self::EnforcePersonality => "EnforcePersonality",
            Self::RunCustomTask => "RunCustomTask",
            Self::FilesystemResizeAfterUmount => "FilesystemResizeAfterUmount",
        }
    }

    /// The number of the original, for `--list-tasks`: tasks of one number stand in the order of
    /// their names.
    pub fn number(self) -> u8 {
        match self {
            Self::FixPartitionTable => 10,
            Self::FilesystemResizeUnmounted => 20,
            Self::MountImage => 30,
            Self::PrepareSystem => 32,
            Self::InitializeDatasource | Self::InstallUnattend => 35,
            Self::FilesystemResizeMounted => 40,
            Self::AddSwap
            | Self::AssignHostname
            | Self::ChangeMachineId
            | Self::ChangePassword
            | Self::ConfigureNetwork
            | Self::DeleteSSHKeys
            | Self::DisableRemoteDesktopConnections
            | Self::EditGuest
            | Self::SELinuxAutorelabel => 50,
            Self::EnforcePersonality => 60,
            Self::RunCustomTask => 70,
            Self::FilesystemResizeAfterUmount => 81,
        }
    }

    /// Whether the task works on the mounted guest (`EXCLUDE_MOUNTED_TASKS`), and not on the bare
    /// disk.
    pub fn needs_mount(self) -> bool {
        !matches!(self, Self::FixPartitionTable | Self::FilesystemResizeUnmounted)
    }

    /// Whether the task enlarges a file system (`EXCLUDE_FILESYSTEMRESIZE_TASKS`).
    pub fn resizes(self) -> bool {
        matches!(
            self,
            Self::FilesystemResizeUnmounted
                | Self::FilesystemResizeMounted
                | Self::FilesystemResizeAfterUmount
        )
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TaskId {
    type Err = UnknownTask;

    /// Upper and lower case are the same.
    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        let found = Self::ALL.into_iter().find(|task| task.name().eq_ignore_ascii_case(name));
        found.ok_or_else(|| UnknownTask(name.chars().take(60).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_the_order_is_the_numbers() {
        for task in TaskId::ALL {
            assert_eq!(task.name().to_lowercase().parse(), Ok(task));
            assert_eq!(serde_json::to_value(task).unwrap(), task.name());
        }
        assert!(TaskId::ALL.is_sorted_by_key(|task| (task.number(), *task)));
        let error = "Nope\u{1b}".parse::<TaskId>().unwrap_err().to_string();
        assert!(error.starts_with("there is no task \"Nope\\u{1b}\"; the tasks are FixPart"));
    }
}
