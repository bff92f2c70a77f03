//! The search for the operating system: its volume, and its kind.

mod reason;
#[cfg(test)]
mod tests;

use snf_fs::{Error, Tree};

use super::disk::{Content, Disk};
use super::distro::{Distro, OS_RELEASE, RELEASE_FILES};
use super::ostree;
use super::subvolumes;
use super::windows::Windows;
use crate::ask::properties::{OsFamily, Properties, RootVolume};
use crate::craft::sentence::sentence;

pub use reason::{DetectError, NotRoot, Tried};

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
        RootVolume::Partition(number) => format!("partition {number}"),
        RootVolume::Named(name) => format!("volume {name}"),
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
