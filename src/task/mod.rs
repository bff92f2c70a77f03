//! The tasks: each is one file and one value that says its name, what it needs and when it applies.
//! `--list-tasks`, exclusion properties and events come from that.

mod add_swap;
mod assign_hostname;
mod change_machine_id;
mod change_password;
mod configure_network;
pub(crate) use configure_network::network_stack;
mod delete_ssh_keys;
mod edit_guest;
mod enforce_personality;
mod filesystem_resize_unmounted;
mod fix_partition_table;
#[cfg(test)]
mod hostile;
mod initialize_datasource;
mod mount_image;
pub mod prepare_system;
mod run_custom_task;
mod selinux_autorelabel;
mod session;
#[cfg(test)]
pub(crate) mod testing;
mod windows;

pub use assign_hostname::{HostnameError, check_hostname};
pub use change_password::KeysError;
pub(crate) use change_password::{Logins, of_new_user as change_password_of, tell_logins};
pub(crate) use initialize_datasource::{on_command_line, seeded as seeds_cloud_init};
pub(crate) use selinux_autorelabel::install as label_new_files;
pub use session::{Fingerprint, Grown, LazyDisk, Reporter, Session};
pub(crate) use windows::first_boot::install as windows_first_boot;
pub(crate) use windows::offline_resize::LaterGrowth;

use crate::ask::plan::Plan;
use crate::ask::properties::PropertyError;
use crate::ask::windows_path::WindowsPathError;
use crate::craft::crypt::CryptError;
use crate::craft::local_file::SourceError;
use crate::craft::sshkey::KeyError;
use crate::guest::accounts::AccountError;
use crate::guest::growth::NoGrowth;
use crate::guest::storage::StorageError;
use crate::guest::systemd::UnitError;
use crate::guest::windows::RegistryError;
use crate::guest::windows::answer::AnswerError;
use crate::guest::{Guest, OsFamily};

pub use crate::ask::task_id::{TaskId, UnknownTask};

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The guest's file system.
    #[error(transparent)]
    Fs(#[from] snf_fs::Error),
    /// The password cannot be hashed.
    #[error("the password of {user}")]
    Crypt {
        /// The user.
        user: String,
        /// Why.
        #[source]
        source: CryptError,
    },
    /// An SSH host key cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The disk: its partition table, a swap area.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A property has a value that it cannot have.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The registry of a Windows.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file that was asked for.
    #[error(transparent)]
    File(#[from] Box<FileError>),
    /// An answer file of a Windows.
    #[error("{file} cannot be used{remedy}")]
    Answer {
        /// The one that is meant.
        file: String,
        /// The remedy, in parentheses; may be empty.
        remedy: &'static str,
        /// The problem with it.
        #[source]
        source: AnswerError,
    },
    /// The host name.
    #[error(transparent)]
    Hostname(#[from] HostnameError),
    /// A user or group that was named.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The keys of a user.
    #[error("the authorized keys for {user} cannot be used")]
    Keys {
        /// The user.
        user: String,
        /// The problem with them.
        #[source]
        source: KeysError,
    },
    /// The content of a file that was asked for.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A logical volume that is to grow.
    #[error("the logical volume {volume} does not grow")]
    Volume {
        /// Its group and its name.
        volume: String,
        /// Why.
        #[source]
        source: snf_volume::Error,
    },
    /// Nothing grows, and somebody asked for it.
    #[error(transparent)]
    Growth(#[from] NoGrowth),
    /// A unit of systemd.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A path that this guest's Windows cannot open.
    #[error("\"{path}\" {problem}")]
    Path {
        /// The path, safe to print.
        path: String,
        /// The rest of the sentence.
        problem: WindowsPathError,
    },
    /// A line of a script cannot be made.
    #[error("a line of the script cannot be written")]
    Format(#[source] std::fmt::Error),
    /// This guest cannot be changed as asked: a sentence of its own, with no cause.
    #[error("{0}")]
    Request(String),
}

/// Why a file of the request was not written.
#[derive(Debug, thiserror::Error)]
#[error("{origin}")]
pub struct FileError {
    /// Its place in the request (`img_personality[2]`, `--write /etc/motd`).
    pub origin: String,
    /// Why.
    #[source]
    pub source: TaskError,
}

impl FileError {
    pub(crate) fn of(origin: &str, source: TaskError) -> TaskError {
        TaskError::File(Box::new(Self { origin: origin.to_owned(), source }))
    }
}

impl TaskError {
    pub(crate) fn request(text: impl Into<String>) -> Self {
        Self::Request(text.into())
    }
}

/// The knowledge of the guest that a task needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
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
    /// The one that is meant.
    pub id: TaskId,
    /// Its work, in one line.
    pub summary: &'static str,
    /// Whether the plan asks for it.
    pub applies: fn(&Plan) -> bool,
    /// Does it, in memory.
    pub work: Work,
}

/// The work of a task.
#[derive(Clone, Copy)]
pub enum Work {
    /// Works on the disk, before anybody looks for the guest, and also where there is none.
    Disk(fn(&mut LazyDisk, &mut Session<'_>) -> Result<(), TaskError>),
    /// Mounts the guest: [`Guest::mount`]. All work on guests needs it.
    Mount,
    /// Makes the edits of the plan on the mounted guest ([`crate::edit`]).
    Edits,
    /// Works on the mounted guest.
    Guest(GuestWork),
}

/// A step of a task that works on the guest.
type OnGuest = fn(&mut Guest, &mut Session<'_>) -> Result<(), TaskError>;

/// The steps of a task that works on the guest.
#[derive(Clone, Copy)]
pub struct GuestWork {
    /// The knowledge of the guest that it needs.
    needs: Needs,
    /// Slow work that needs nothing of the image: it begins with the run.
    early: Option<fn(&mut Session<'_>)>,
    /// A step before the first task changes the guest.
    begin: Option<OnGuest>,
    /// Does it, in its turn.
    run: OnGuest,
}

impl GuestWork {
    /// Begins slow work that needs nothing of the image.
    pub fn early(&self, session: &mut Session<'_>) {
        if let Some(early) = self.early {
            early(session);
        }
    }

    /// Does what comes before the first task.
    ///
    /// # Errors
    /// When this guest cannot be customized as asked.
    pub fn begin(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        self.begin.map_or(Ok(()), |begin| begin(guest, session))
    }

    /// Does the task, in memory.
    ///
    /// # Errors
    /// When this guest cannot be customized as asked.
    pub fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        (self.run)(guest, session)
    }
}

impl Work {
    /// Work on a guest.
    const fn guest(needs: Needs, run: OnGuest) -> Self {
        Self::Guest(GuestWork { needs, early: None, begin: None, run })
    }

    /// The same, with a step before the first task.
    const fn beginning(self, begin: OnGuest) -> Self {
        match self {
            Self::Guest(work) => Self::Guest(GuestWork { begin: Some(begin), ..work }),
            other => other,
        }
    }

    /// The same, with slow work that begins with the run.
    const fn early(self, early: fn(&mut Session<'_>)) -> Self {
        match self {
            Self::Guest(work) => Self::Guest(GuestWork { early: Some(early), ..work }),
            other => other,
        }
    }
}

impl Task {
    /// Whether the plan asks for the task. Every task on a guest has it mounted.
    pub fn wanted(&self, plan: &Plan) -> bool {
        let named = plan.tasks.contains(self.id) || matches!(self.work, Work::Mount);
        named && (self.applies)(plan)
    }

    /// Whether the plan asks for the task and its properties do not leave it out.
    ///
    /// # Errors
    /// When a property that decides it has no valid value.
    pub fn will_run(&self, plan: &Plan) -> Result<bool, PropertyError> {
        Ok(self.wanted(plan) && !plan.properties.excluded(self.id)?)
    }

    /// The families that the task is for; `None` when any guest will do.
    pub fn families(&self) -> Option<&'static [OsFamily]> {
        match self.work {
            Work::Guest(GuestWork {
                needs: Needs::System(these) | Needs::Where(these), ..
            }) => Some(these),
            _ => None,
        }
    }

    /// Whether the task is for a guest of this family. A run of all tasks passes over those that
    /// are for Linux on a Windows, and the other way round; one that was named is insisted on.
    pub fn fit(&self, plan: &Plan, family: Option<OsFamily>) -> Fit {
        let Work::Guest(GuestWork { needs, .. }) = self.work else { return Fit::Run };
        let (families, quiet) = match needs {
            Needs::Files => return Fit::Run,
            Needs::System(families) => (families, false),
            Needs::Where(families) => (families, true),
        };
        if family.is_some_and(|family| families.contains(&family)) {
            return Fit::Run;
        }
        let for_windows = families.iter().all(|family| family.is_windows());
        let on_windows = family.is_some_and(OsFamily::is_windows);
        if quiet || (plan.tasks.is_all() && (for_windows || on_windows)) {
            return Fit::Skip;
        }
        Fit::Refuse
    }
}

const LINUX: &[OsFamily] = &[OsFamily::Linux];
const LINUX_AND_WINDOWS: &[OsFamily] =
    &[OsFamily::Linux, OsFamily::Windows, OsFamily::WindowsLegacy];

/// All tasks, in their order.
pub const TASKS: [&Task; 19] = [
    &fix_partition_table::TASK,
    &filesystem_resize_unmounted::TASK,
    &mount_image::TASK,
    &prepare_system::TASK,
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
    &edit_guest::TASK,
    &selinux_autorelabel::TASK,
    &enforce_personality::TASK,
    &run_custom_task::TASK,
    &windows::offline_resize::TASK,
];

/// The task with this name.
pub fn find(id: TaskId) -> &'static Task {
    // The order of both lists is the same; a test sees to it.
    TASKS[id as usize]
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
    fn the_table_has_every_task_in_its_place() {
        for id in TaskId::ALL {
            let task = find(id);
            assert_eq!(task.id, id);
            assert!(!task.summary.is_empty() && !task.summary.ends_with('.'));
            assert_eq!(id.needs_mount(), !matches!(task.work, Work::Disk(_)), "{id}");
        }
    }

    #[test]
    fn what_boot_hides() {
        assert_eq!(hidden_at_boot(b"/dev/keys"), Some("/dev"));
        assert_eq!(hidden_at_boot(b"/run"), Some("/run"));
        assert_eq!(hidden_at_boot(b"/device"), None);
    }
}
