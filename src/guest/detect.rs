//! The search for the operating system: its volume, and its kind.

use std::sync::Arc;

use snf_fs::{Error, Tree};

use super::disk::{Content, Disk};
use super::distro::{Distro, OS_RELEASE, RELEASE_FILES};
use super::mounter::needs_helper;
use super::ostree::{self, NoDeployment};
use super::probe::unwrapping;
use super::subvolumes;
use super::windows::Windows;
use crate::ask::properties::{OsFamily, Properties, PropertyError, RootVolume};
use crate::craft::sentence::sentence;

/// Why no root was chosen.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// `OSFAMILY` or `ROOT_PARTITION` has a value that it cannot have.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The partition does not exist.
    #[error("ROOT_PARTITION is {wanted}, but the disk has no such partition; it has {there}")]
    NoSuchPartition {
        /// The number or name asked for.
        wanted: String,
        /// The volumes that exist.
        there: String,
    },
    /// The partition that was named cannot be used.
    #[error("{place}, which ROOT_PARTITION names, cannot be the root")]
    Unusable {
        /// The one that is meant.
        place: String,
        /// Why.
        #[source]
        reason: NotRoot,
    },
    /// The partition that was named holds files, and no system is recognised in them.
    #[error(
        "{place}, which ROOT_PARTITION names, cannot be the root (if it is a system all the same, \
         set OSFAMILY)"
    )]
    Unrecognised {
        /// The one that is meant.
        place: String,
        /// Why.
        #[source]
        reason: NotRoot,
    },
    /// Nothing looks like the root of a system.
    #[error(
        "no operating system was found ({}); if one of these is the root, name it with \
         ROOT_PARTITION or --root-partition",
        tried_text(.tried)
    )]
    None {
        /// The volumes, each with the reason.
        tried: Vec<Tried>,
    },
    /// Several volumes look like roots.
    #[error(
        "more than one operating system was found ({found}); name the one to customize with \
         ROOT_PARTITION or --root-partition"
    )]
    Several {
        /// The volumes and their systems.
        found: String,
    },
    /// The root was found, and another part of the run has its file system.
    #[error("{place} holds no file system that can be edited")]
    NotEditable {
        /// The one that is meant.
        place: String,
    },
}

impl DetectError {
    /// Whether the disk simply holds no system, or more than one: nothing is damaged, nothing was
    /// asked for that is not there, and the disk is no file in another format.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::None { tried } => tried.iter().all(|tried| {
                let reason = &tried.reason;
                reason.cause().is_none()
                    && reason.closed().is_none_or(|error| error.refusal().is_some())
                    && !matches!(reason, NotRoot::NotRaw { .. })
            }),
            Self::Several { .. } => true,
            _ => false,
        }
    }

    /// The errors of file systems that kept a volume from being the root.
    pub fn causes(&self) -> impl Iterator<Item = &Error> {
        self.reasons().filter_map(NotRoot::cause)
    }

    /// The errors that kept volumes from being opened.
    pub fn closed(&self) -> impl Iterator<Item = &snf_volume::Error> {
        self.reasons().filter_map(NotRoot::closed)
    }

    fn reasons(&self) -> impl Iterator<Item = &NotRoot> {
        let (one, several): (Option<&NotRoot>, &[Tried]) = match self {
            Self::Unusable { reason, .. } | Self::Unrecognised { reason, .. } => {
                (Some(reason), &[])
            }
            Self::None { tried } => (None, tried),
            _ => (None, &[]),
        };
        one.into_iter().chain(several.iter().map(|tried| &tried.reason))
    }
}

/// A volume in which no system was found.
#[derive(Debug)]
pub struct Tried {
    /// `partition 3`, or `the disk`.
    pub place: String,
    /// Its content, in a few words.
    pub content: String,
    /// Why it is not the root.
    pub reason: NotRoot,
}

fn usr_text(distro: &Distro) -> String {
    let name = if distro.name.is_empty() { "a system" } else { &distro.name };
    match distro.id.as_str() {
        "flatcar" | "coreos" => format!(
            "the /usr of {name}, which never changes; its root is empty before the first boot, so \
             give settings as an Ignition configuration"
        ),
        _ => format!("the /usr of {name}, whose root is on another volume"),
    }
}

fn tried_text(tried: &[Tried]) -> String {
    if tried.is_empty() {
        return "the partition table is empty".into();
    }
    let parts = tried.iter().map(|Tried { place, content, reason }| {
        format!("{place} ({content}): {}", sentence(reason))
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// Why a volume is not the root of a system.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotRoot {
    /// Swap space.
    #[error("swap space")]
    Swap,
    /// An encrypted container.
    #[error("LUKS, and no key was given for it: give one with --luks-key")]
    Encrypted,
    /// A container of logical volumes that belongs to no group.
    #[error("an LVM physical volume without a volume group that can be read")]
    LogicalVolumes,
    /// A container: what is in it are volumes of their own.
    #[error("{0}")]
    Container(String),
    /// The `/usr` of a system whose root is elsewhere.
    #[error("{}", usr_text(.0))]
    Usr(Box<Distro>),
    /// A physical root of ostree in which no deployment was chosen.
    #[error(transparent)]
    Deployment(#[from] NoDeployment),
    /// A root of bootc's composefs back end.
    #[error(
        "bootc keeps this system as composefs images without ostree, which is not edited here; \
         put the change into the container image, or use user data at the first boot"
    )]
    Composefs,
    /// A volume that cannot be opened.
    #[error("it cannot be opened")]
    Closed(#[source] Arc<snf_volume::Error>),
    /// A file system that only the helper VM can edit.
    #[error("{0}, which only the kernel of the helper VM can edit: use --vm")]
    NeedsHelper(&'static str),
    /// A disk image in another format, or a compressed file.
    #[error("a {kind} file and no raw disk: {remedy}")]
    NotRaw {
        /// The format.
        kind: &'static str,
        /// The command that makes a raw disk of it.
        remedy: &'static str,
    },
    /// A file system or container that nobody here handles.
    #[error("{0}, which cannot be edited")]
    Foreign(&'static str),
    /// A file system that cannot be opened.
    #[error("it cannot be opened")]
    Broken(#[source] Arc<Error>),
    /// A file system that opens, and whose files cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] Arc<Error>),
    /// The container of the logical partitions.
    #[error("it only contains the logical partitions")]
    Extended,
    /// Never written.
    #[error("nothing but zeros")]
    Empty,
    /// Another part of the run has it.
    #[error("it is in use")]
    InUse,
    /// No known signature.
    #[error("no file system that is known here")]
    Unknown,
    /// Files, but no system.
    #[error("it has no directory /etc and no Windows")]
    NoEtc,
    /// Files that look like a system's, but not enough of them.
    #[error("it has /etc, but none of {}", .0.join(", "))]
    Incomplete(Vec<&'static str>),
    /// Several subvolumes with a system.
    #[error(
        "several of its subvolumes hold a system ({0}); make the right one the default \
         (btrfs subvolume set-default)"
    )]
    Subvolumes(String),
}

impl NotRoot {
    pub(super) fn unreadable(error: Error) -> Self {
        Self::Unreadable(Arc::new(error))
    }

    /// The file system's error that caused it, if there is one.
    pub fn cause(&self) -> Option<&Error> {
        match self {
            Self::Broken(error) | Self::Unreadable(error) => Some(error),
            _ => None,
        }
    }

    /// The error for which the volume stayed closed, if that is why.
    pub fn closed(&self) -> Option<&snf_volume::Error> {
        match self {
            Self::Closed(error) => Some(error),
            _ => None,
        }
    }

    fn of(content: &Content) -> Self {
        match content {
            Content::Foreign("swap") => Self::Swap,
            Content::Foreign("crypto_LUKS") => Self::Encrypted,
            Content::Foreign("LVM2_member") => Self::LogicalVolumes,
            Content::Foreign(kind) if needs_helper(kind) => Self::NeedsHelper(kind),
            Content::Foreign(kind) => match unwrapping(kind) {
                Some(remedy) => Self::NotRaw { kind, remedy },
                None => Self::Foreign(kind),
            },
            Content::Broken(error) => Self::Broken(error.clone()),
            Content::Closed(error) => Self::Closed(error.clone()),
            Content::Container { role, .. } => Self::Container(role.clone()),
            Content::Extended => Self::Extended,
            Content::Empty => Self::Empty,
            Content::Mounted => Self::InUse,
            Content::Open(_) | Content::Unknown => Self::Unknown,
        }
    }
}

/// The root that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its index among the disk's volumes.
    pub volume: usize,
    /// The family; `None` when no system was recognised.
    pub family: Option<OsFamily>,
    /// The system's description of itself.
    pub distro: Distro,
    /// The Windows, where it is one.
    pub windows: Option<Windows>,
}

/// Chooses the deployment in each physical root of ostree: it is what is seen from then on.
fn deploy(disk: &mut Disk, verdicts: &mut [Verdict]) {
    if !verdicts.iter().any(|verdict| matches!(verdict, Verdict::Sysroot)) {
        return;
    }
    let entries = ostree::entries(disk);
    for (volume, verdict) in disk.volumes.iter_mut().zip(verdicts) {
        if !matches!(verdict, Verdict::Sysroot) {
            continue;
        }
        let Content::Open(fs) = std::mem::replace(&mut volume.content, Content::Unknown) else {
            continue;
        };
        let (fs, found) = ostree::open(fs, &entries);
        let tree = Tree::new(fs);
        *verdict = match &found {
            Err(problem) => Verdict::Not(NotRoot::Deployment(*problem)),
            Ok(_) => match examine(&tree) {
                // A deployment inside a deployment is none.
                Ok(Verdict::Sysroot) => Verdict::Files(NotRoot::NoEtc),
                Ok(verdict) => verdict,
                Err(error) => Verdict::Not(NotRoot::unreadable(error)),
            },
        };
        if let Some(fs) = tree.into_file_systems().pop() {
            volume.content = Content::Open(fs);
        }
        volume.verdict = verdict.words();
        if let Ok(found) = found {
            volume.verdict.push_str(", deployed by ostree");
            volume.deployment = Some(found.path);
            volume.views = vec![("/etc", found.etc), ("/var", found.var)];
            volume.read_only.get_or_insert_with(|| ostree::FIXED.to_owned());
        }
    }
}

/// Finds the root. `needs_os` says whether the tasks need to know the system; where they do not,
/// the only file system of a disk is good enough.
pub fn find_root(
    disk: &mut Disk,
    properties: &Properties,
    needs_os: bool,
) -> Result<Root, DetectError> {
    let family = properties.os_family()?;
    let mut verdicts: Vec<Verdict> =
        (0..disk.volumes.len()).map(|index| judge(disk, index)).collect();
    deploy(disk, &mut verdicts);
    if let Some(wanted) = wanted(disk, properties)? {
        let volume = &disk.volumes[wanted];
        let system = match &verdicts[wanted] {
            Verdict::Root(system) => Some(system),
            Verdict::Sysroot => None,
            Verdict::Files(_) if family.is_some() || !needs_os => None,
            Verdict::Files(reason) => {
                let (place, reason) = (volume.place(), reason.clone());
                return Err(DetectError::Unrecognised { place, reason });
            }
            // Something in it is meant.
            Verdict::Not(NotRoot::Container(_)) => {
                for (verdict, within) in verdicts.iter_mut().zip(disk.within(wanted)) {
                    if !within {
                        *verdict = Verdict::Not(NotRoot::Container(String::new()));
                    }
                }
                return choose(disk, verdicts, family, needs_os);
            }
            Verdict::Not(reason) => {
                let (place, reason) = (volume.place(), reason.clone());
                return Err(DetectError::Unusable { place, reason });
            }
        };
        return Ok(Root::new(wanted, family, system));
    }
    choose(disk, verdicts, family, needs_os)
}

/// The root among the volumes that may be it.
fn choose(
    disk: &Disk,
    verdicts: Vec<Verdict>,
    family: Option<OsFamily>,
    needs_os: bool,
) -> Result<Root, DetectError> {
    let roots: Vec<(usize, &System)> = verdicts
        .iter()
        .enumerate()
        .filter_map(|(index, verdict)| match verdict {
            Verdict::Root(system) => Some((index, system)),
            _ => None,
        })
        .collect();
    match roots.as_slice() {
        [(volume, system)] => {
            let mut root = Root::new(*volume, family, Some(*system));
            // /usr, which has the name of the system, may be a volume that fstab does not know.
            if let (System::Linux(distro), Some(usr)) = (system, usr(&verdicts))
                && *distro == Distro::default()
            {
                root.distro = usr.clone();
            }
            Ok(root)
        }
        [] => {
            let mut with_files: Vec<usize> = (0..verdicts.len())
                .filter(|index| matches!(verdicts[*index], Verdict::Files(_)))
                .collect();
            // An EFI system partition stands beside what is meant.
            if with_files.len() > 1 {
                with_files.retain(|index| disk.volumes[*index].kind.as_deref() != Some("vfat"));
            }
            if let ([volume], true) = (with_files.as_slice(), !needs_os || family.is_some()) {
                return Ok(Root::new(*volume, family, None));
            }
            Err(DetectError::None { tried: tried(disk, verdicts) })
        }
        _ => {
            let found = roots.iter().map(|(index, _)| {
                format!("{}: {}", disk.volumes[*index].place(), disk.volumes[*index].verdict)
            });
            Err(DetectError::Several { found: found.collect::<Vec<_>>().join("; ") })
        }
    }
}

/// The system of the only volume that is a `/usr` by itself.
fn usr(verdicts: &[Verdict]) -> Option<&Distro> {
    let mut found = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Files(NotRoot::Usr(distro)) => Some(&**distro),
        _ => None,
    });
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// The volume that `ROOT_PARTITION` names.
fn wanted(disk: &Disk, properties: &Properties) -> Result<Option<usize>, DetectError> {
    let Some(wanted) = properties.root_partition()? else { return Ok(None) };
    let found = match wanted {
        RootVolume::Partition(number) => disk.by_number(number),
        RootVolume::Named(name) => disk.volumes.iter().position(|volume| volume.answers_to(name)),
    };
    if found.is_some() {
        return Ok(found);
    }
    // A bare file system becomes partition 1 of the instance's disk.
    if wanted == RootVolume::Partition(1) && disk.table.is_none() && disk.volumes.len() == 1 {
        return Ok(Some(0));
    }
    let there = match disk.volumes.as_slice() {
        [] => "no partitions".to_owned(),
        [volume] if volume.number.is_none() => "no partition table".to_owned(),
        volumes => volumes.iter().map(super::disk::Volume::place).collect::<Vec<_>>().join(", "),
    };
    let wanted = match wanted {
        RootVolume::Partition(number) => number.to_string(),
        RootVolume::Named(name) => name.to_owned(),
    };
    Err(DetectError::NoSuchPartition { wanted, there })
}

fn tried(disk: &Disk, verdicts: Vec<Verdict>) -> Vec<Tried> {
    let volumes = disk.volumes.iter().zip(verdicts);
    let tried = volumes.filter_map(|(volume, verdict)| match verdict {
        Verdict::Root(_) | Verdict::Sysroot | Verdict::Not(NotRoot::Container(_)) => None,
        Verdict::Files(reason) | Verdict::Not(reason) => {
            Some(Tried { place: volume.place(), content: volume.describe(), reason })
        }
    });
    tried.collect()
}

impl Root {
    fn new(volume: usize, told: Option<OsFamily>, system: Option<&System>) -> Self {
        let (distro, windows) = match system {
            Some(System::Linux(distro)) => (distro.clone(), None),
            Some(System::Windows(windows)) => (windows_distro(windows), Some(windows.clone())),
            None => (Distro::default(), None),
        };
        Self { volume, family: told.or(system.map(System::family)), distro, windows }
    }
}

/// A Windows in the words that are there for distributions.
fn windows_distro(windows: &Windows) -> Distro {
    Distro {
        id: windows.family().name().to_owned(),
        version: windows.version_text(),
        name: windows.name(),
        ..Distro::default()
    }
}

/// A system that was recognised.
#[derive(Clone)]
pub(super) enum System {
    Linux(Distro),
    Windows(Windows),
}

impl System {
    fn family(&self) -> OsFamily {
        match self {
            Self::Linux(_) => OsFamily::Linux,
            Self::Windows(windows) => windows.family(),
        }
    }
}

/// The verdict on a volume.
pub(super) enum Verdict {
    /// The root of a system.
    Root(System),
    /// The physical root of ostree deployments: one of them is the root.
    Sysroot,
    /// A file system that we can edit, without a system.
    Files(NotRoot),
    /// Nothing that we can edit.
    Not(NotRoot),
}

impl Verdict {
    /// Whether a system was found.
    pub(super) fn is_system(&self) -> bool {
        matches!(self, Self::Root(_) | Self::Sysroot)
    }

    fn words(&self) -> String {
        match self {
            Self::Root(System::Linux(distro)) if distro.name.is_empty() => "a Linux system".into(),
            Self::Root(System::Linux(distro)) => distro.name.clone(),
            Self::Root(System::Windows(windows)) => windows.name(),
            Self::Sysroot => "ostree deployments".into(),
            Self::Files(reason) | Self::Not(reason) => sentence(reason),
        }
    }
}

/// Looks at one volume and notes the verdict in it.
fn judge(disk: &mut Disk, index: usize) -> Verdict {
    let volume = &mut disk.volumes[index];
    let verdict = match std::mem::replace(&mut volume.content, Content::Unknown) {
        Content::Open(fs) => {
            let (fs, verdict) = subvolumes::judge(fs);
            if let Some(fs) = fs {
                volume.content = Content::Open(fs);
            }
            verdict
        }
        other => {
            let reason = NotRoot::of(&other);
            volume.content = other;
            Verdict::Not(reason)
        }
    };
    volume.verdict = verdict.words();
    verdict
}

/// Whether a tree is the root of a system that is known.
pub(super) fn examine(tree: &Tree) -> Result<Verdict, Error> {
    if ostree::is_sysroot(tree) {
        return Ok(Verdict::Sysroot);
    }
    if ostree::is_composefs_state(tree) {
        return Ok(Verdict::Not(NotRoot::Composefs));
    }
    if !soft(tree.is_dir("/etc"))? {
        if let Some(distro) = Distro::of_usr(tree)? {
            return Ok(Verdict::Files(NotRoot::Usr(Box::new(distro))));
        }
        return match Windows::detect(tree) {
            Ok(Some(windows)) => Ok(Verdict::Root(System::Windows(windows))),
            Err(error @ (Error::Corrupt { .. } | Error::Device(_))) => Err(error),
            // A path that leads nowhere is no Windows.
            Ok(None) | Err(_) => Ok(Verdict::Files(NotRoot::NoEtc)),
        };
    }
    let distro = match Distro::detect(tree) {
        Ok(distro) => distro,
        Err(Error::SymlinkLoop(_) | Error::NotADirectory(_) | Error::Invalid(_)) => None,
        Err(error) => return Err(error),
    };
    if let Some(distro) = distro {
        return Ok(Verdict::Root(System::Linux(distro)));
    }
    let has_users = soft(tree.exists("/etc/passwd"))?;
    let programs = ["/bin", "/sbin/init", "/usr/bin", "/usr/lib/systemd", "/nix/store"];
    let has_programs = programs.iter().try_fold(false, |found, path| {
        Ok::<bool, Error>(found || soft(tree.exists(path))? || tree.lstat(path).is_ok())
    })?;
    // With /usr on a file system of its own, os-release is a symbolic link to nowhere here.
    if has_users && has_programs {
        return Ok(Verdict::Root(System::Linux(Distro::default())));
    }
    let mut missing: Vec<&str> = OS_RELEASE.to_vec();
    missing.extend(RELEASE_FILES.first().map(|(path, _)| *path));
    if !has_users {
        missing.push("/etc/passwd");
    }
    if !has_programs {
        missing.push("/bin");
    }
    Ok(Verdict::Files(NotRoot::Incomplete(missing)))
}

/// A path that leads nowhere for reasons of its own (a loop, a file on the way) is not there.
fn soft(result: Result<bool, Error>) -> Result<bool, Error> {
    match result {
        Err(Error::SymlinkLoop(_) | Error::NotADirectory(_) | Error::NameTooLong(_)) => Ok(false),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::disk::Volume;
    use snf_fs::{Attributes, FileSystem, MemoryFs};

    const ANY: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

    fn fs(files: &[(&str, &str)]) -> Box<dyn FileSystem> {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        for (path, text) in files {
            let (dir, _) = path.rsplit_once('/').unwrap();
            tree.mkdir_all(format!("{dir}/"), ANY).unwrap();
            tree.write(path, text.as_bytes(), ANY).unwrap();
        }
        tree.into_file_systems().pop().unwrap()
    }

    fn debian() -> Box<dyn FileSystem> {
        fs(&[("/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian 12\"\n")])
    }

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        let mut properties = Properties::default();
        for (name, value) in pairs {
            properties.set(name, *value);
        }
        properties
    }

    fn find(volumes: Vec<Volume>, pairs: &[(&str, &str)], needs_os: bool) -> Result<Root, String> {
        let mut disk = Disk::of_volumes(volumes);
        find_root(&mut disk, &properties(pairs), needs_os).map_err(|error| sentence(&error))
    }

    #[test]
    fn one_root_is_found() {
        let volumes =
            || vec![Volume::open(Some(1), fs(&[("/grub/x", "")])), Volume::open(Some(3), debian())];
        let root = find(volumes(), &[], true).unwrap();
        assert_eq!((root.volume, root.family), (1, Some(OsFamily::Linux)));
        assert_eq!(root.distro.name, "Debian 12");
        let root = find(volumes(), &[("ROOT_PARTITION", "1")], false).unwrap();
        assert_eq!((root.volume, root.family), (0, None));
        let error = find(volumes(), &[("ROOT_PARTITION", "1")], true).unwrap_err();
        assert!(error.contains("partition 1") && error.contains("no directory /etc"), "{error}");
        let error = find(volumes(), &[("root_partition", "2")], true).unwrap_err();
        assert!(error.ends_with("it has partition 1, partition 3"), "{error}");
        let error = find(volumes(), &[("ROOT_PARTITION", "sda1")], true).unwrap_err();
        assert!(error.contains("sda1"), "{error}");
    }

    #[test]
    fn what_was_tried_is_said() {
        let mut swap = Volume::open(Some(2), fs(&[]));
        swap.content = Content::Foreign("swap");
        let volumes = vec![Volume::open(Some(1), fs(&[("/etc/x", "")])), swap];
        let error = find(volumes, &[], true).unwrap_err();
        assert!(error.contains("partition 1 (memory): it has /etc, but none of /etc/os-release"));
        assert!(error.contains("partition 2 (swap): swap space"), "{error}");
        assert!(error.contains("--root-partition"));
        let volumes = vec![Volume::open(Some(1), debian()), Volume::open(Some(2), debian())];
        let error = find(volumes, &[], true).unwrap_err();
        assert!(error.contains("partition 1: Debian 12; partition 2: Debian 12"), "{error}");
    }

    #[test]
    fn without_a_system() {
        let bare = || vec![Volume::open(None, fs(&[("/data/x", "")]))];
        assert_eq!(find(bare(), &[], false).unwrap().family, None);
        assert_eq!(find(bare(), &[("ROOT_PARTITION", "1")], false).unwrap().volume, 0);
        assert!(find(bare(), &[], true).unwrap_err().contains("no directory /etc"));
        let told = find(bare(), &[("OSFAMILY", "Linux")], true).unwrap();
        assert_eq!(told.family, Some(OsFamily::Linux));
        assert!(find(bare(), &[("OSFAMILY", "beos")], true).unwrap_err().contains("beos"));
        assert!(find(vec![], &[], true).unwrap_err().contains("table is empty"));
    }

    #[test]
    fn hostile_trees_are_only_rejected() {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        tree.symlink("/etc", b"/../../../../etc", ANY).unwrap();
        let fs = tree.into_file_systems().pop().unwrap();
        let error = find(vec![Volume::open(None, fs)], &[], true).unwrap_err();
        assert!(error.contains("no directory /etc"), "{error}");
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        tree.mkdir_all("/etc", ANY).unwrap();
        tree.symlink("/etc/os-release", b"os-release", ANY).unwrap();
        tree.write("/etc/passwd", b"", ANY).unwrap();
        tree.symlink("/bin", b"usr/bin", ANY).unwrap();
        let fs = tree.into_file_systems().pop().unwrap();
        assert!(find(vec![Volume::open(None, fs)], &[], true).is_ok());
    }
}
