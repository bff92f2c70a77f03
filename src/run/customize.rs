//! The run itself: open the disk, find the guest, do the tasks in memory, commit.

use std::sync::Arc;
use std::time::Instant;

use snf_fs::tree::{Change, ChangeKind, CommitError};
use snf_fs::{BlockDevice, DeviceError, Tree};

use crate::ask::event::{Event, EventSink};
use crate::ask::plan::{Asked, Plan, Tasks};
use crate::ask::properties::PropertyError;
use crate::craft::random::{Clock, Entropy};
use crate::craft::sentence::sentence;
use crate::edit::{self, Edit};
use crate::guest::detect::DetectError;
use crate::guest::disk::{Content, Disk};
use crate::guest::mounter::Mounter;
use crate::guest::stack::StackError;
use crate::guest::storage::{Storage, StorageError};
use crate::guest::{Guest, OsFamily};
use crate::run::report::{ChangeReport, FileSystemReport, TaskReport};
use crate::task::{
    self, FileError, Fit, GuestWork, LazyDisk, Needs, Session, TASKS, Task, TaskError, TaskId, Work,
};

pub use crate::run::report::{Mode, Report};

/// Why a run failed. Before [`CustomizeError::Commit`] nothing has been written. The causes are in
/// the chain of sources: [`crate::run::failure::sentence`] tells them all.
#[derive(Debug, thiserror::Error)]
pub enum CustomizeError {
    /// The disks cannot be opened: a partition table, or a key.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// No root file system was chosen.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// A property has a value that it cannot have.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// A task cannot be done on this system.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A file that was asked for cannot be written.
    #[error(transparent)]
    File(#[from] Box<FileError>),
    /// A task failed.
    #[error("{asked}")]
    Task {
        /// The one that is meant.
        task: TaskId,
        /// The words that asked for it.
        asked: Asked,
        /// Why.
        #[source]
        source: Box<TaskError>,
    },
    /// The partition table or a swap area could not be read or written.
    #[error("the partition table could not be changed")]
    Storage(#[from] StorageError),
    /// The disk failed to read, and whoever read may have taken it for something else.
    #[error("the disk cannot be read everywhere, and nothing was changed")]
    Read(#[source] DeviceError),
    /// The changes could not be compared with the old state.
    #[error("what changed cannot be shown")]
    Diff(#[source] snf_fs::Error),
    /// The changes could not be written, or not all.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A task that cannot be done on the system that was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The system is of another family.
    #[error(
        "{asked} {} for {} images; this one is {}{hint}",
        .asked.verb("is", "are"),
        titles(.works_on),
        .family.title()
    )]
    Family {
        /// The words that asked for the task.
        asked: Asked,
        /// The guest's family.
        family: OsFamily,
        /// The families that the task works on.
        works_on: &'static [OsFamily],
        /// How to leave the task out; empty where nobody needs to be told.
        hint: String,
    },
    /// No system was recognised.
    #[error(
        "{asked} {} to know the system, and {place} holds none that is recognised; name it with the \
         property OSFAMILY",
        .asked.verb("needs", "need")
    )]
    Unknown {
        /// The words that asked for the task.
        asked: Asked,
        /// The root's volume.
        place: String,
    },
}

/// `Linux and Windows`.
fn titles(families: &[OsFamily]) -> String {
    // Old Windows goes without saying where there is a newer one.
    let named = families.iter().filter(|family| **family != OsFamily::WindowsLegacy);
    named.map(|family| family.title()).collect::<Vec<_>>().join(" and ")
}

impl CustomizeError {
    /// Names what asked for the task that failed.
    fn of(task: TaskId, plan: &Plan) -> impl Fn(TaskError) -> Self {
        let asked = plan.tasks.words(task);
        move |source| match source {
            // It names the file's place in the request itself.
            TaskError::File(error) => Self::File(error),
            source => Self::Task { task, asked: asked.clone(), source: Box::new(source) },
        }
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Does what the plan asks for to the image on `disk`. All tasks work in memory; the disk is
/// written at the end, and only in [`Mode::Commit`] and when every task succeeded.
pub fn customize(
    disk: Arc<dyn BlockDevice>,
    plan: &Plan,
    entropy: &mut Entropy,
    clock: &Clock,
    events: &mut dyn EventSink,
    mode: Mode,
) -> Result<Report, CustomizeError> {
    let instance = Instance { disk, members: Vec::new(), others: Vec::new(), mounter: None };
    customize_instance(instance, plan, entropy, clock, events, mode)
}

/// The disks of a run.
pub struct Instance {
    /// The disk that holds the image.
    pub disk: Arc<dyn BlockDevice>,
    /// Further disks that hold parts of the guest: they are looked into, too.
    pub members: Vec<Arc<dyn BlockDevice>>,
    /// The instance's further disks, in their order: `SWAP` may name one of them.
    pub others: Vec<Arc<dyn BlockDevice>>,
    /// Opens the file systems that no engine knows, where that is possible.
    pub mounter: Option<Arc<dyn Mounter>>,
}

/// Like [`customize`], for an instance with more than a disk.
pub fn customize_instance(
    instance: Instance,
    plan: &Plan,
    entropy: &mut Entropy,
    clock: &Clock,
    events: &mut dyn EventSink,
    mode: Mode,
) -> Result<Report, CustomizeError> {
    customize_seen(instance, plan, entropy, clock, events, mode, &mut |_| Ok(()))
}

/// Like [`customize_instance`], with somebody who looks at the guest's files as they will be, once every
/// task has succeeded and before anything is written.
///
/// # Errors
/// As [`customize`], and what `look` says.
pub fn customize_seen(
    instance: Instance,
    plan: &Plan,
    entropy: &mut Entropy,
    clock: &Clock,
    events: &mut dyn EventSink,
    mode: Mode,
    look: &mut dyn FnMut(&Tree) -> Result<(), CustomizeError>,
) -> Result<Report, CustomizeError> {
    let started = Instant::now();
    let (tasks, excluded) = select(plan)?;
    let Instance { disk, members, others, mounter } = instance;
    let storage = Storage::new(disk, others).with_members(members).with_mounter(mounter);
    if mode == Mode::DryRun && !plan.edits.is_empty() {
        storage.keep_apart();
    }
    let mut session = Session::new(plan, entropy, clock, storage, events);
    guest_work(&tasks).for_each(|(_, work)| work.early(&mut session));
    for task in &excluded {
        session.info(format!("{task}: left out, as the image's properties say"));
    }
    for problem in plan.properties.misspelt_exclusions() {
        session.warn(sentence(&problem));
    }
    let mut report = Report::new(mode, &excluded);
    if tasks.is_empty() {
        report.warnings = session.report.warnings;
        return Ok(report);
    }
    let mut disk = work_on_disk(&tasks, &mut session, &mut report)?;
    if tasks.iter().any(|task| !matches!(task.work, Work::Disk(_))) {
        let mut guest = work_on_guest(disk, &tasks, &mut session, &mut report, started)?;
        look(&guest.tree)?;
        if mode == Mode::Commit {
            commit(&session, Some(&mut guest.tree), &mut guest.disk, &mut report)?;
        }
    } else {
        report.open_milliseconds = milliseconds(started);
        session.storage.check_reads().map_err(CustomizeError::Read)?;
        if mode == Mode::Commit {
            commit(&session, None, &mut disk, &mut report)?;
        }
    }
    report.warnings = session.report.warnings;
    report.fingerprints = session.report.fingerprints;
    Ok(report)
}

/// The tasks that the plan asks for, in order, and those that its properties leave out.
fn select(plan: &Plan) -> Result<(Vec<&'static Task>, Vec<TaskId>), CustomizeError> {
    let on_guest = |task: &&Task| !matches!(task.work, Work::Disk(_));
    let mut tasks = Vec::new();
    let mut excluded = Vec::new();
    for task in TASKS.into_iter().filter(|task| task.wanted(plan)) {
        if plan.properties.excluded(task.id)? {
            excluded.push(task.id);
        } else {
            tasks.push(task);
        }
    }
    // Every other task works on the mounted guest.
    if !tasks.iter().any(|task| matches!(task.work, Work::Mount)) {
        excluded.extend(tasks.iter().filter(|task| on_guest(task)).map(|task| task.id));
        tasks.retain(|task| !on_guest(task));
    }
    // The command line that asks for the disk's tasks alone needs no guest.
    let on_files = |task: &&Task| matches!(task.work, Work::Guest(_) | Work::Edits);
    if !plan.tasks.is_all() && !tasks.iter().any(on_files) {
        tasks.retain(|task| !on_guest(task) || plan.tasks.contains(task.id));
    }
    Ok((tasks, excluded))
}

/// The tasks that work on a guest.
fn guest_work<'a>(
    tasks: &'a [&'static Task],
) -> impl Iterator<Item = (&'static Task, &'static GuestWork)> + 'a {
    tasks.iter().filter_map(|task| match &task.work {
        Work::Guest(work) => Some((*task, work)),
        Work::Disk(_) | Work::Mount | Work::Edits => None,
    })
}

/// Runs one task between its two events, and notes how long it took.
fn step(
    task: TaskId,
    session: &mut Session<'_>,
    report: &mut Report,
    work: impl FnOnce(&mut Session<'_>) -> Result<(), TaskError>,
) -> Result<(), CustomizeError> {
    let started = Instant::now();
    session.report.event(Event::TaskStart(task));
    work(session).map_err(CustomizeError::of(task, session.plan))?;
    session.report.event(Event::TaskEnd(task));
    let milliseconds = milliseconds(started);
    report.tasks.push(TaskReport { name: task.name().into(), milliseconds });
    Ok(())
}

/// Does the tasks that work on the bare disk, and gives the disk as it will be.
fn work_on_disk(
    tasks: &[&'static Task],
    session: &mut Session<'_>,
    report: &mut Report,
) -> Result<Disk, CustomizeError> {
    let mut disk = LazyDisk::default();
    for task in tasks {
        if let Work::Disk(work) = task.work {
            step(task.id, session, report, |session| work(&mut disk, session))?;
        }
    }
    let disk = disk.take(session).map_err(open_error)?;
    if let Some(plan) = session.storage.table() {
        report.partition_table = plan.describe().lines().map(str::to_owned).collect();
    }
    report.grown = session.grown.clone();
    Ok(disk)
}

/// A table that cannot be read is told as that.
fn open_error(error: StorageError) -> CustomizeError {
    match error {
        StorageError::Partition(error) => CustomizeError::Stack(error.into()),
        StorageError::Stack(error) => CustomizeError::Stack(error),
        other => CustomizeError::Storage(other),
    }
}

/// Finds and mounts the guest and does the tasks that work on it.
fn work_on_guest(
    mut disk: Disk,
    tasks: &[&'static Task],
    session: &mut Session<'_>,
    report: &mut Report,
    started: Instant,
) -> Result<Guest, CustomizeError> {
    let plan = session.plan;
    let table_warnings = std::mem::take(&mut disk.warnings);
    let edits = edit::wanted(tasks, plan);
    let needs_os = tasks.iter().any(|task| task.fit(plan, None) == Fit::Refuse)
        || edits.iter().any(|edit| edit.needs_system());
    let found = Guest::find(disk, &plan.properties, needs_os);
    // Without this, a partition that could not be read is one without a system.
    session.storage.check_reads().map_err(CustomizeError::Read)?;
    let mut guest = found.map_err(|refused| refused.error)?;
    for warning in table_warnings {
        session.warn(warning);
    }
    if let Some(path) = &guest.disk.volumes[guest.root].deployment {
        session.info(format!("the deployment {path} is the one that boots next"));
    }
    let tasks = fitting(tasks, &guest, plan)?;
    session.logins = Some(Vec::new());
    session.new_users = if edits.is_empty() { Vec::new() } else { edit::new_users(plan) };
    edits.iter().try_for_each(|edit| edit_fits(edit, &guest))?;
    report.open_milliseconds = milliseconds(started);
    for task in tasks.iter().filter(|task| matches!(task.work, Work::Mount)) {
        step(task.id, session, report, |session| Ok(guest.mount(&mut session.report)?))?;
    }
    task::label_new_files(&mut guest)
        .map_err(CustomizeError::of(TaskId::SELinuxAutorelabel, plan))?;
    for (task, work) in guest_work(&tasks) {
        work.begin(&mut guest, session).map_err(CustomizeError::of(task.id, plan))?;
    }
    for task in &tasks {
        match &task.work {
            Work::Guest(work) => {
                step(task.id, session, report, |session| work.run(&mut guest, session))?;
            }
            Work::Edits => {
                step(task.id, session, report, |session| edit::run(&mut guest, session))?;
            }
            Work::Disk(_) | Work::Mount => {}
        }
    }
    task::tell_logins(&guest, session).map_err(CustomizeError::of(TaskId::ChangePassword, plan))?;
    warn_of_hidden(&guest, session);
    report.system = guest.distro.name.clone();
    report.root_partition = guest.root_partition();
    report.root = guest.disk.volumes[guest.root].place();
    report.changes = guest.tree.changes().iter().map(ChangeReport::of).collect();
    session.storage.check_reads().map_err(CustomizeError::Read)?;
    guest.tree.check_commit()?;
    Ok(guest)
}

/// Warns of files that are written where the running guest has something else mounted, once for each mount point.
fn warn_of_hidden(guest: &Guest, session: &mut Session<'_>) {
    for (dir, why) in &guest.hidden {
        let hidden = |change: &Change| {
            let rest = change.path.strip_prefix(dir.as_slice());
            change.kind != ChangeKind::Removed && rest.is_some_and(|rest| rest.starts_with(b"/"))
        };
        let mut changes = guest.tree.changes().iter().filter(hidden);
        let Some(first) = changes.next() else { continue };
        let more = match changes.count() {
            0 => String::new(),
            more => format!(" and {more} more paths"),
        };
        session
            .warn(format!("{}{more} will be hidden when the guest runs: {why}", first.display()));
    }
}

/// The tasks that mean something on this system. One that cannot be done on it is an error before
/// the first one runs.
fn fitting(
    tasks: &[&'static Task],
    guest: &Guest,
    plan: &Plan,
) -> Result<Vec<&'static Task>, Unfit> {
    let mut fitting = Vec::new();
    for &task in tasks {
        match (task.fit(plan, guest.family), guest.family) {
            (Fit::Run, _) => fitting.push(task),
            (Fit::Skip, _) => {}
            (Fit::Refuse, Some(family)) => {
                let (asked, works_on) =
                    (plan.tasks.words(task.id), task.families().unwrap_or_default());
                let hint = match &plan.tasks {
                    Tasks::All => {
                        format!("; exclude it with the property EXCLUDE_TASK_{}", task.id)
                    }
                    Tasks::Only(_) => String::new(),
                };
                return Err(Unfit::Family { asked, family, works_on, hint });
            }
            (Fit::Refuse, None) => {
                let place = guest.disk.volumes[guest.root].place();
                return Err(Unfit::Unknown { asked: plan.tasks.words(task.id), place });
            }
        }
    }
    Ok(fitting)
}

/// An edit that cannot be made on this system is an error before the first task runs.
fn edit_fits(edit: &Edit, guest: &Guest) -> Result<(), Unfit> {
    let Needs::System(works_on) = edit.action.needs() else { return Ok(()) };
    let asked = Asked::one(&edit.origin);
    match guest.family {
        Some(family) if works_on.contains(&family) => Ok(()),
        Some(family) => Err(Unfit::Family { asked, family, works_on, hint: String::new() }),
        None => Err(Unfit::Unknown { asked, place: guest.disk.volumes[guest.root].place() }),
    }
}

/// Writes what waits: the partition table and swap areas, the guest's file systems, and the one
/// that grew and is not mounted. In this order a cut leaves partitions that are at worst larger
/// than their file systems.
fn commit(
    session: &Session<'_>,
    tree: Option<&mut Tree>,
    disk: &mut Disk,
    report: &mut Report,
) -> Result<(), CustomizeError> {
    let started = Instant::now();
    session.storage.commit().map_err(StorageError::from)?;
    let mut commits = match tree {
        Some(tree) => tree.commit()?,
        None => Vec::new(),
    };
    for volume in disk.volumes.iter_mut().filter(|volume| volume.grown) {
        let place = volume.place();
        if let Content::Open(fs) = &mut volume.content {
            let fail = CustomizeError::of(TaskId::FilesystemResizeUnmounted, session.plan);
            commits.push((place, fs.commit().map_err(TaskError::from).map_err(fail)?));
        }
    }
    if let Some(growth) = &session.later {
        let fail = CustomizeError::of(TaskId::FilesystemResizeAfterUmount, session.plan);
        growth.apply(&session.storage).map_err(fail)?;
    }
    let reports = commits.into_iter().map(|(mounted_on, commit)| FileSystemReport {
        mounted_on,
        metadata_blocks: commit.metadata_blocks,
        data_blocks: commit.data_blocks,
        transactions: commit.transactions,
        replayed: commit.replayed,
    });
    report.file_systems = reports.collect();
    report.commit_milliseconds = milliseconds(started);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::plan::{HostKeys, MachineId, PersonalityFile};
    use crate::craft::secret::Secret;
    use crate::guest::disk::Volume;
    use snf_fs::MemoryFs;

    fn write(path: &str) -> PersonalityFile {
        PersonalityFile {
            path: path.into(),
            contents: Secret::new("x"),
            owner: None,
            group: None,
            mode: None,
            origin: "--write".into(),
            keep_existing: true,
        }
    }

    fn on(
        volumes: Vec<Volume>,
        plan: &Plan,
        events: &mut Vec<Event>,
        mode: Mode,
    ) -> Result<Report, String> {
        let (entropy, clock) = (Entropy::seeded(1), Clock::fixed(0));
        let (tasks, excluded) = select(plan).map_err(|error| sentence(&error))?;
        let disk = Disk::of_volumes(volumes);
        let mut session = Session::new(plan, &entropy, &clock, Storage::default(), events);
        let mut report = Report::new(mode, &excluded);
        let run = || {
            let started = Instant::now();
            let mut guest = work_on_guest(disk, &tasks, &mut session, &mut report, started)?;
            if mode == Mode::Commit {
                commit(&session, Some(&mut guest.tree), &mut guest.disk, &mut report)?;
            }
            Ok(())
        };
        run().map_err(|error: CustomizeError| sentence(&error))?;
        Ok(report)
    }

    fn bare() -> Vec<Volume> {
        vec![Volume::open(None, Box::new(MemoryFs::new()))]
    }

    fn write_plan() -> Plan {
        Plan {
            personality: vec![write("/a/b")],
            tasks: Tasks::Only([(TaskId::EnforcePersonality, vec!["--write".into()])].into()),
            ..Plan::default()
        }
    }

    #[test]
    fn files_need_no_system() {
        let mut events = Vec::new();
        let report = on(bare(), &write_plan(), &mut events, Mode::Commit).unwrap();
        let paths: Vec<&str> = report.changes.iter().map(|c| c.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/a/b"]);
        assert_eq!(report.file_systems.len(), 1);
        assert_eq!(
            events,
            [
                Event::TaskStart(TaskId::MountImage),
                Event::TaskEnd(TaskId::MountImage),
                Event::TaskStart(TaskId::EnforcePersonality),
                Event::TaskEnd(TaskId::EnforcePersonality)
            ]
        );
        let report = on(bare(), &write_plan(), &mut events, Mode::DryRun).unwrap();
        assert!(report.file_systems.is_empty() && report.changes.len() == 2);
    }

    #[test]
    fn systems_are_needed_where_they_are() {
        let plan = Plan { hostname: Some("vm".into()), ..Plan::default() };
        let error = on(bare(), &plan, &mut Vec::new(), Mode::Commit).unwrap_err();
        assert!(error.starts_with("no operating system was found"), "{error}");
        let mut plan = write_plan();
        plan.tasks = Tasks::All;
        plan.machine_id = MachineId::Keep;
        plan.host_keys = HostKeys::Keep;
        on(bare(), &plan, &mut Vec::new(), Mode::Commit).unwrap();
        plan.hostname = Some("vm".into());
        plan.properties.set("OSFAMILY", "netbsd");
        let error = on(bare(), &plan, &mut Vec::new(), Mode::Commit).unwrap_err();
        assert_eq!(
            error,
            "AssignHostname is for Linux and Windows images; this one is NetBSD; exclude it with the \
             property EXCLUDE_TASK_AssignHostname"
        );
        let words = ["--root-password", "--ssh-key"].map(str::to_owned).to_vec();
        plan.tasks = Tasks::Only([(TaskId::ChangePassword, words)].into());
        plan.auth_keys = vec![(crate::ask::plan::Who::Default, "x".into())];
        let error = on(bare(), &plan, &mut Vec::new(), Mode::Commit).unwrap_err();
        assert_eq!(
            error,
            "--root-password and --ssh-key are for Linux and Windows images; this one is NetBSD"
        );
    }

    #[test]
    fn exclusions() {
        let mut plan = write_plan();
        plan.tasks = Tasks::All;
        let names = |plan: &Plan| {
            let (tasks, excluded) = select(plan).unwrap();
            (tasks.iter().map(|task| task.id).collect::<Vec<_>>(), excluded)
        };
        let on_disk = [TaskId::FixPartitionTable, TaskId::FilesystemResizeUnmounted];
        let on_guest = [
            TaskId::MountImage,
            TaskId::InstallUnattend,
            TaskId::FilesystemResizeMounted,
            TaskId::ChangeMachineId,
            TaskId::DeleteSSHKeys,
            TaskId::DisableRemoteDesktopConnections,
            TaskId::SELinuxAutorelabel,
            TaskId::EnforcePersonality,
            TaskId::FilesystemResizeAfterUmount,
        ];
        assert_eq!(names(&plan), ([&on_disk[..], &on_guest[..]].concat(), vec![]));
        plan.properties.set("exclude_task_deletesshkeys", "yes");
        assert_eq!(names(&plan).1, [TaskId::DeleteSSHKeys]);
        plan.properties.set("EXCLUDE_TASK_MountImage", "1");
        assert_eq!(names(&plan).0, on_disk);
        assert_eq!(names(&plan).1.len(), on_guest.len());
        plan.properties.set("EXCLUDE_ALL_TASKS", "maybe");
        assert!(select(&plan).is_err());
    }

    #[test]
    fn nothing_is_committed_when_a_task_fails() {
        let mut plan = write_plan();
        plan.personality.push(write("/a/b/c"));
        let error = on(bare(), &plan, &mut Vec::new(), Mode::Commit).unwrap_err();
        assert_eq!(error, "--write: /a/b: not a directory");
    }
}
