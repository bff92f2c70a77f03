//! The tasks: each is one file and one value that says its name, number, what it needs and when
//! it applies. `--list-tasks`, exclusion properties and events come from that.

mod add_swap;
mod assign_hostname;
mod change_machine_id;
mod change_password;
mod configure_network;
mod context;
mod delete_ssh_keys;
mod disk_context;
mod enforce_personality;
mod filesystem_resize_unmounted;
mod fix_partition_table;
#[cfg(test)]
mod hostile;
mod initialize_datasource;
mod mount_image;
mod run_custom_task;
mod selinux_autorelabel;
#[cfg(test)]
pub(crate) mod testing;
mod windows;

pub use assign_hostname::check as check_hostname;
pub use change_machine_id::check as check_machine_id;
pub use context::{Context, Fingerprint, HostKeyMaker};
pub(crate) use delete_ssh_keys::begin as begin_host_keys;
pub use disk_context::DiskContext;
pub(crate) use enforce_personality::begin as begin_personality;
pub(crate) use selinux_autorelabel::install as install_labels;
pub(crate) use windows::offline_resize::LaterGrowth;

use crate::crypt::CryptError;
use crate::guest::OsFamily;
use crate::plan::Plan;
use crate::properties::PropertyError;
use crate::storage::StorageError;

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The guest's file system.
    #[error(transparent)]
    Fs(#[from] snf_fs::Error),
    /// The password cannot be hashed.
    #[error("the password of {user}: {source}")]
    Crypt {
        /// Whose password.
        user: String,
        /// Why.
        #[source]
        source: CryptError,
    },
    /// The disk: its partition table, a swap area.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A property has a value that it cannot have.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// What was asked for cannot be done on this guest.
    #[error("{0}")]
    Request(String),
}

impl TaskError {
    pub(crate) fn request(text: impl Into<String>) -> Self {
        Self::Request(text.into())
    }
}

/// What a task needs to know of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The disk only: it runs before the guest is looked for, and works where there is none.
    Disk,
    /// The guest's file systems, whatever is on them.
    Files,
    /// A guest whose system is one of these: on another one it is an error.
    System(&'static [OsFamily]),
    /// The same, but on another system there is nothing to do.
    Where(&'static [OsFamily]),
}

/// Whether a task can be done on a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is done.
    Run,
    /// It means nothing there.
    Skip,
    /// It was asked for and cannot be done there.
    Refuse,
}

/// One customization step.
pub struct Task {
    /// Its name, as `EXCLUDE_TASK_…` and the events spell it.
    pub name: &'static str,
    /// Its place in the order.
    pub number: u8,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// Whether the plan asks for it.
    pub applies: fn(&Plan) -> bool,
    /// Does it, in memory.
    pub run: Run,
}

/// What a task does.
#[derive(Clone, Copy)]
pub enum Run {
    /// Works on the disk, before the guest is looked for.
    Disk(fn(&mut DiskContext<'_>) -> Result<(), TaskError>),
    /// Works on the guest.
    Guest(fn(&mut Context<'_>) -> Result<(), TaskError>),
}

impl Task {
    /// Whether this run is to do the task: the plan asks for it and does not leave it out.
    pub fn wanted(&self, plan: &Plan) -> bool {
        let named = plan
            .only_tasks
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name.eq_ignore_ascii_case(self.name)));
        (named || self.number == mount_image::TASK.number) && (self.applies)(plan)
    }

    /// Whether the task is for a guest of this family. A run of all tasks passes over those that
    /// are for Linux on a Windows, and the other way round; one that was named is insisted on.
    pub fn fit(&self, plan: &Plan, family: Option<OsFamily>) -> Fit {
        let (families, quiet) = match self.needs {
            Needs::Disk | Needs::Files => return Fit::Run,
            Needs::System(families) => (families, false),
            Needs::Where(families) => (families, true),
        };
        if family.is_some_and(|family| families.contains(&family)) {
            return Fit::Run;
        }
        let for_windows = families.iter().all(|family| family.is_windows());
        let on_windows = family.is_some_and(OsFamily::is_windows);
        if quiet || (plan.only_tasks.is_none() && (for_windows || on_windows)) {
            return Fit::Skip;
        }
        Fit::Refuse
    }

    /// Runs a task that works on the guest; of another one there is nothing to do here.
    pub fn run_on_guest(&self, context: &mut Context<'_>) -> Result<(), TaskError> {
        match self.run {
            Run::Guest(run) => run(context),
            Run::Disk(_) => Ok(()),
        }
    }

    /// Runs a task that works on the disk; of another one there is nothing to do here.
    pub fn run_on_disk(&self, context: &mut DiskContext<'_>) -> Result<(), TaskError> {
        match self.run {
            Run::Disk(run) => run(context),
            Run::Guest(_) => Ok(()),
        }
    }
}

const LINUX: &[OsFamily] = &[OsFamily::Linux];
const LINUX_AND_WINDOWS: &[OsFamily] =
    &[OsFamily::Linux, OsFamily::Windows, OsFamily::WindowsLegacy];

/// All tasks, in their order.
pub const TASKS: [&Task; 17] = [
    &fix_partition_table::TASK,
    &filesystem_resize_unmounted::TASK,
    &mount_image::TASK,
    &initialize_datasource::TASK,
    &windows::install_unattend::TASK,
    &windows::extend::TASK,
    &add_swap::TASK,
    &assign_hostname::TASK,
    &change_machine_id::TASK,
    &change_password::TASK,
    &configure_network::TASK,
    &delete_ssh_keys::TASK,
    &windows::remote_desktop::TASK,
    &selinux_autorelabel::TASK,
    &enforce_personality::TASK,
    &run_custom_task::TASK,
    &windows::offline_resize::TASK,
];

/// The task of that name.
pub fn find(name: &str) -> Option<&'static Task> {
    TASKS.into_iter().find(|task| task.name.eq_ignore_ascii_case(name))
}

/// Directories over which the running guest mounts something else: what is written there now will
/// not be seen.
pub(crate) fn hidden_at_boot(canonical: &[u8]) -> Option<&'static str> {
    ["/dev", "/proc", "/sys", "/run"].into_iter().find(|dir| {
        canonical
            .strip_prefix(dir.as_bytes())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_numbers() {
        assert!(TASKS.windows(2).all(|pair| pair[0].number <= pair[1].number));
        for task in TASKS {
            assert!(std::ptr::eq(find(&task.name.to_lowercase()).unwrap(), task));
            assert!(!task.summary.is_empty() && !task.summary.ends_with('.'));
        }
    }

    #[test]
    fn what_boot_hides() {
        assert_eq!(hidden_at_boot(b"/dev/keys"), Some("/dev"));
        assert_eq!(hidden_at_boot(b"/run"), Some("/run"));
        assert_eq!(hidden_at_boot(b"/device"), None);
    }
}
