//! The run itself: open the disk, find the guest, do the tasks in memory, commit.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use snf_fs::tree::CommitError;
use snf_fs::{BlockDevice, DeviceError, Tree};

use crate::event::{Event, EventSink};
use crate::guest::detect::{self, DetectError};
use crate::guest::disk::{Content, Disk};
use crate::guest::mounter::Mounter;
use crate::plan::{HostKeys, Plan};
use crate::properties::PropertyError;
use crate::random::{Clock, Entropy};
use crate::storage::{Storage, StorageError};
use crate::task::{
    self, Context, DiskContext, Fingerprint, Fit, HostKeyMaker, Needs, TASKS, Task, TaskError,
};

pub use crate::inspect::{Inspection, inspect};

/// Whether the changes reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Everything is done in memory and nothing is written.
    DryRun,
    /// The changes are written when all tasks have succeeded.
    Commit,
}

/// Why a run failed. Before [`CustomizeError::Commit`] nothing has been written.
#[derive(Debug, thiserror::Error)]
pub enum CustomizeError {
    /// The partition table.
    #[error("cannot read the partition table: {0}")]
    Table(#[from] snf_partition::Error),
    /// No root file system was chosen.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// A property has a value that it cannot have.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The request cannot be met on this image, whatever is in its files.
    #[error("{0}")]
    Request(String),
    /// A task failed.
    #[error("{task}: {source}")]
    Task {
        /// Which one.
        task: &'static str,
        /// Why.
        #[source]
        source: TaskError,
    },
    /// The partition table or a swap area could not be read or written.
    #[error("the partition table could not be changed: {0}")]
    Storage(#[from] StorageError),
    /// The disk failed to read, and whoever read may have taken it for something else.
    #[error("the disk cannot be read everywhere: {0}; nothing was changed")]
    Read(#[source] DeviceError),
    /// The changes could not be written, or not all.
    #[error(transparent)]
    Commit(#[from] CommitError),
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

/// What one file system's commit did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystemReport {
    /// Where it is mounted in the guest.
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

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether it was written.
    pub mode: Mode,
    /// The guest's system in words; empty when it was not recognised.
    pub system: String,
    /// The number of the root partition; none for a disk without a table.
    pub root_partition: Option<u32>,
    /// The tasks that ran, in order.
    pub tasks: Vec<TaskReport>,
    /// Tasks that the properties leave out.
    pub excluded: Vec<Cow<'static, str>>,
    /// What changed of the partition table, one sentence for each change.
    pub partition_table: Vec<String>,
    /// What changed, by path.
    pub changes: Vec<ChangeReport>,
    /// Host keys that were made.
    pub fingerprints: Vec<Fingerprint>,
    /// Warnings given.
    pub warnings: Vec<String>,
    /// What was written.
    pub file_systems: Vec<FileSystemReport>,
    /// How long it took to open the disk and find the guest.
    pub open_milliseconds: u64,
    /// How long the commit took.
    pub commit_milliseconds: u64,
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
    let instance = Instance { disk, others: Vec::new(), mounter: None };
    customize_instance(instance, plan, entropy, clock, events, mode)
}

/// What a run works on.
pub struct Instance {
    /// The disk that holds the image.
    pub disk: Arc<dyn BlockDevice>,
    /// The instance's further disks, in their order: `SWAP` may name one of them.
    pub others: Vec<Arc<dyn BlockDevice>>,
    /// Who opens the file systems that no engine knows, if somebody can.
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
    let started = Instant::now();
    let (tasks, excluded) = select(plan)?;
    let mut key_maker = HostKeyMaker::new(entropy);
    if let (Some(hostname), HostKeys::New) = (&plan.hostname, plan.host_keys)
        && tasks.iter().any(|task| task.name == "DeleteSSHKeys")
    {
        let comment = format!("root@{hostname}");
        for key in plan.prepared.keys(&comment) {
            key_maker.give(key.clone());
        }
        // Unless it was given, the slowest part of a run begins before the image is looked at.
        key_maker.start_rsa(&comment);
    }
    for name in &excluded {
        events.event(Event::Info(format!("{name}: left out, as the image's properties say")));
    }
    if tasks.is_empty() {
        return Ok(Report::nothing(mode, excluded));
    }
    let Instance { disk, others, mounter } = instance;
    let storage = Storage::new(disk, others).with_mounter(mounter);
    let mut context = DiskContext::new(plan, storage, entropy, clock, events);
    let mut reports = Vec::new();
    for task in tasks.iter().filter(|task| task.needs == Needs::Disk) {
        let started = Instant::now();
        context.events.event(Event::TaskStart(task.name));
        task.run_on_disk(&mut context)
            .map_err(|source| CustomizeError::Task { task: task.name, source })?;
        context.events.event(Event::TaskEnd(task.name));
        reports.push(TaskReport { name: task.name.into(), milliseconds: milliseconds(started) });
    }
    let (mut disk, storage, warnings, grown) = context.into_parts().map_err(open_error)?;
    let on_guest: Vec<&'static Task> =
        tasks.into_iter().filter(|task| task.needs != Needs::Disk).collect();
    let table = storage.table().map(|plan| plan.describe().lines().map(str::to_owned).collect());
    let mut report = if on_guest.is_empty() {
        let mut report = Report::nothing(mode, excluded);
        report.open_milliseconds = milliseconds(started);
        storage.check_reads().map_err(CustomizeError::Read)?;
        if mode == Mode::Commit {
            commit(&storage, None, &mut disk, grown, &mut report)?;
        }
        report
    } else {
        let all = (disk, storage, grown);
        run(all, on_guest, excluded, plan, key_maker, entropy, clock, events, mode, started)?
    };
    reports.append(&mut report.tasks);
    report.tasks = reports;
    report.warnings.splice(0..0, warnings);
    report.partition_table = table.unwrap_or_default();
    Ok(report)
}

/// A table that cannot be read is told as that.
fn open_error(error: StorageError) -> CustomizeError {
    match error {
        StorageError::Partition(error) => CustomizeError::Table(error),
        other => CustomizeError::Storage(other),
    }
}

/// Writes what waits: the partition table and swap areas, the guest's file systems, and the one
/// that grew and is not mounted. In this order a cut leaves partitions that are at worst larger
/// than their file systems.
fn commit(
    storage: &Storage,
    tree: Option<&mut Tree>,
    disk: &mut Disk,
    grown: Option<usize>,
    report: &mut Report,
) -> Result<(), CustomizeError> {
    let started = Instant::now();
    storage.commit().map_err(StorageError::from)?;
    let mut commits = match tree {
        Some(tree) => tree.commit()?,
        None => Vec::new(),
    };
    if let Some(volume) = grown.and_then(|index| disk.volumes.get_mut(index)) {
        let place = volume.place();
        if let Content::Open(fs) = &mut volume.content {
            commits.push((place, fs.commit().map_err(TaskError::from).map_err(grow_error)?));
        }
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

fn grow_error(source: TaskError) -> CustomizeError {
    CustomizeError::Task { task: "FilesystemResizeUnmounted", source }
}

/// The tasks that the plan asks for, in order, and the names of those that its properties leave
/// out.
fn select(plan: &Plan) -> Result<(Vec<&'static Task>, Vec<&'static str>), CustomizeError> {
    if let Some(names) = &plan.only_tasks
        && let Some(unknown) = names.iter().find(|name| task::find(name).is_none())
    {
        return Err(CustomizeError::Request(format!(
            "there is no task \"{}\"; the tasks are {}",
            unknown.escape_debug(),
            TASKS.map(|task| task.name).join(", ")
        )));
    }
    let mut tasks = Vec::new();
    let mut excluded = Vec::new();
    for task in TASKS.into_iter().filter(|task| task.wanted(plan)) {
        if plan.properties.excluded(task.name, task.needs != Needs::Disk)? {
            excluded.push(task.name);
        } else {
            tasks.push(task);
        }
    }
    // Every other task works on the mounted guest.
    if excluded.contains(&"MountImage") {
        let on_guest = tasks.iter().filter(|task| task.needs != Needs::Disk);
        excluded.extend(on_guest.map(|task| task.name));
        tasks.retain(|task| task.needs == Needs::Disk);
    }
    // The command line that asks for the disk's tasks alone needs no guest.
    let nothing_else = |task: &&Task| task.needs == Needs::Disk || task.name == "MountImage";
    if plan.only_tasks.is_some() && tasks.iter().all(nothing_else) {
        tasks.retain(|task| {
            task.needs == Needs::Disk
                || plan.only_tasks.iter().flatten().any(|n| n.eq_ignore_ascii_case(task.name))
        });
    }
    Ok((tasks, excluded))
}

#[allow(clippy::too_many_arguments)]
fn run(
    (mut disk, storage, grown): (Disk, Storage, Option<usize>),
    tasks: Vec<&'static Task>,
    excluded: Vec<&'static str>,
    plan: &Plan,
    key_maker: HostKeyMaker,
    entropy: &Entropy,
    clock: &Clock,
    events: &mut dyn EventSink,
    mode: Mode,
    started: Instant,
) -> Result<Report, CustomizeError> {
    let needs_os = tasks.iter().any(|task| task.fit(plan, None) == Fit::Refuse);
    let root = detect::find_root(&mut disk, &plan.properties, needs_os);
    // Without this, a partition that could not be read is one without a system.
    storage.check_reads().map_err(CustomizeError::Read)?;
    let root = root?;
    let warnings = std::mem::take(&mut disk.warnings);
    let volume = &mut disk.volumes[root.volume];
    let root_partition = volume.number;
    let Content::Open(fs) = std::mem::replace(&mut volume.content, Content::Mounted) else {
        return Err(CustomizeError::Request(format!(
            "{} holds no file system that can be edited",
            volume.place()
        )));
    };
    let mut context = Context {
        plan,
        tree: Tree::new(fs),
        disk,
        storage,
        root: root.volume,
        family: root.family,
        distro: root.distro,
        windows: root.windows,
        answer: None,
        later: None,
        entropy,
        clock,
        events,
        key_maker,
        fingerprints: Vec::new(),
        warnings: Vec::new(),
    };
    for warning in warnings {
        context.warn(format!("partition table: {warning}"));
    }
    let tasks = fitting(tasks, &context)?;
    let open_milliseconds = milliseconds(started);
    let mut reports = Vec::new();
    for task in &tasks {
        let started = Instant::now();
        context.events.event(Event::TaskStart(task.name));
        task.run_on_guest(&mut context)
            .map_err(|source| CustomizeError::Task { task: task.name, source })?;
        context.events.event(Event::TaskEnd(task.name));
        reports.push(TaskReport { name: task.name.into(), milliseconds: milliseconds(started) });
        if task.name == "MountImage" {
            if tasks.iter().any(|task| task.name == "DeleteSSHKeys") {
                task::begin_host_keys(&mut context)
                    .map_err(|source| CustomizeError::Task { task: "DeleteSSHKeys", source })?;
            }
            task::install_labels(&mut context)
                .map_err(|source| CustomizeError::Task { task: "SELinuxAutorelabel", source })?;
            if tasks.iter().any(|task| task.name == "EnforcePersonality") {
                // The one part of a run that may not fit into one transaction of a journal. It is
                // split on the way; all that follows, passwords and keys with it, is in the last.
                task::begin_personality(&mut context).map_err(|source| CustomizeError::Task {
                    task: "EnforcePersonality",
                    source,
                })?;
            }
        }
    }
    let changes = context.tree.changes().iter();
    let mut report = Report {
        mode,
        system: context.distro.name.clone(),
        root_partition,
        tasks: reports,
        excluded: excluded.into_iter().map(Cow::from).collect(),
        partition_table: Vec::new(),
        changes: changes
            .map(|change| ChangeReport { path: change.display(), kind: change.kind.name().into() })
            .collect(),
        fingerprints: std::mem::take(&mut context.fingerprints),
        warnings: std::mem::take(&mut context.warnings),
        file_systems: Vec::new(),
        open_milliseconds,
        commit_milliseconds: 0,
    };
    context.storage.check_reads().map_err(CustomizeError::Read)?;
    if mode == Mode::Commit {
        let Context { storage, tree, disk, later, .. } = &mut context;
        commit(storage, Some(tree), disk, grown, &mut report)?;
        if let Some(growth) = later {
            growth.apply(storage).map_err(|source| CustomizeError::Task {
                task: "FilesystemResizeAfterUmount",
                source,
            })?;
        }
    }
    Ok(report)
}

/// The tasks that mean something on this system. One that cannot be done on it is an error before
/// the first one runs.
fn fitting(
    tasks: Vec<&'static Task>,
    context: &Context<'_>,
) -> Result<Vec<&'static Task>, CustomizeError> {
    let mut fitting = Vec::new();
    for task in tasks {
        match task.fit(context.plan, context.family) {
            Fit::Run => fitting.push(task),
            Fit::Skip => {}
            Fit::Refuse => return Err(refusal(task, context)),
        }
    }
    Ok(fitting)
}

fn refusal(task: &Task, context: &Context<'_>) -> CustomizeError {
    let families = match task.needs {
        Needs::System(families) | Needs::Where(families) => families,
        Needs::Disk | Needs::Files => &[],
    };
    CustomizeError::Request(match context.family {
        Some(family) => format!(
            "{} cannot be done on a system of the family {}; it works on {}. Leave the request \
             out, or exclude the task with the property EXCLUDE_TASK_{}",
            task.name,
            family.name(),
            families.iter().map(|family| family.name()).collect::<Vec<_>>().join(", "),
            task.name
        ),
        None => format!(
            "{} needs to know the system, and {} holds none that is recognised; set OSFAMILY",
            task.name,
            context.disk.volumes[context.root].place()
        ),
    })
}

impl Report {
    fn nothing(mode: Mode, excluded: Vec<&'static str>) -> Self {
        Self {
            mode,
            system: String::new(),
            root_partition: None,
            tasks: Vec::new(),
            excluded: excluded.into_iter().map(Cow::from).collect(),
            partition_table: Vec::new(),
            changes: Vec::new(),
            fingerprints: Vec::new(),
            warnings: Vec::new(),
            file_systems: Vec::new(),
            open_milliseconds: 0,
            commit_milliseconds: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::guest::disk::Volume;
    use crate::plan::{MachineId, PersonalityFile};
    use crate::secret::Secret;
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
        let entropy = Entropy::seeded(1);
        let (tasks, excluded) = select(plan).map_err(|error| error.to_string())?;
        let key_maker = HostKeyMaker::new(&entropy);
        let (clock, started) = (Clock::fixed(0), Instant::now());
        let disk = Disk::of_volumes(volumes);
        let tasks = tasks.into_iter().filter(|task| task.needs != Needs::Disk).collect();
        let all = (disk, Storage::default(), None);
        run(all, tasks, excluded, plan, key_maker, &entropy, &clock, events, mode, started)
            .map_err(|error| error.to_string())
    }

    fn bare() -> Vec<Volume> {
        vec![Volume::open(None, Box::new(MemoryFs::new()))]
    }

    fn write_plan() -> Plan {
        Plan {
            personality: vec![write("/a/b")],
            only_tasks: Some(BTreeSet::from(["EnforcePersonality".to_owned()])),
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
                Event::TaskStart("MountImage"),
                Event::TaskEnd("MountImage"),
                Event::TaskStart("EnforcePersonality"),
                Event::TaskEnd("EnforcePersonality")
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
        plan.only_tasks = None;
        plan.machine_id = MachineId::Keep;
        plan.host_keys = HostKeys::Keep;
        on(bare(), &plan, &mut Vec::new(), Mode::Commit).unwrap();
        plan.hostname = Some("vm".into());
        plan.properties.set("OSFAMILY", "netbsd");
        let error = on(bare(), &plan, &mut Vec::new(), Mode::Commit).unwrap_err();
        assert!(error.contains("AssignHostname cannot be done on a system of the family netbsd"));
    }

    #[test]
    fn exclusions() {
        let mut plan = write_plan();
        plan.only_tasks = None;
        let names = |plan: &Plan| {
            let (tasks, excluded) = select(plan).unwrap();
            (tasks.iter().map(|task| task.name).collect::<Vec<_>>(), excluded)
        };
        let on_disk = ["FixPartitionTable", "FilesystemResizeUnmounted"];
        let on_guest = [
            "MountImage",
            "InstallUnattend",
            "FilesystemResizeMounted",
            "ChangeMachineId",
            "DeleteSSHKeys",
            "DisableRemoteDesktopConnections",
            "SELinuxAutorelabel",
            "EnforcePersonality",
            "FilesystemResizeAfterUmount",
        ];
        assert_eq!(names(&plan), ([&on_disk[..], &on_guest[..]].concat(), vec![]));
        plan.properties.set("exclude_task_deletesshkeys", "yes");
        assert_eq!(names(&plan).1, ["DeleteSSHKeys"]);
        plan.properties.set("EXCLUDE_TASK_MountImage", "1");
        assert_eq!(names(&plan).0, on_disk);
        assert_eq!(names(&plan).1.len(), on_guest.len());
        plan.properties.set("EXCLUDE_ALL_TASKS", "maybe");
        assert!(select(&plan).is_err());
        plan.only_tasks = Some(BTreeSet::from(["Nope".to_owned()]));
        assert!(select(&plan).err().unwrap().to_string().contains("no task \"Nope\""));
    }

    #[test]
    fn nothing_is_committed_when_a_task_fails() {
        let mut plan = write_plan();
        plan.personality.push(write("/a/b/c"));
        let error = on(bare(), &plan, &mut Vec::new(), Mode::Commit).unwrap_err();
        assert_eq!(error, "EnforcePersonality: /a/b: not a directory");
    }
}
