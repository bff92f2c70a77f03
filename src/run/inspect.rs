//! Looking at an image without changing it.

mod facts;
mod packages;
mod windows;

use std::sync::Arc;

use serde::Serialize;
use snf_fs::error::display_name;
use snf_fs::{BlockDevice, Tree};

use crate::ask::event::Event;
use crate::ask::luks_key::LuksKey;
use crate::ask::properties::Properties;
use crate::craft::random::{Clock, Entropy};
use crate::craft::sentence::sentence;
use crate::guest::disk::{Disk, DiskSummary, GroupSummary, VolumeSummary};
use crate::guest::host_keys::{KeyFile, public_keys};
use crate::guest::stack::Sources;
use crate::guest::{Guest, OsFamily, passwd};
use crate::run::customize::CustomizeError;
use crate::run::failure::Family;

pub use facts::{Fact, Facts};
pub use packages::{Package, Packages};
pub use windows::WindowsSummary;

/// How many users are listed.
const USERS_MAX: usize = 1000;

/// The content of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// `GPT`, `MBR`; none for a bare file system.
    pub table: Option<String>,
    /// The disk's identifier.
    pub disk_id: Option<String>,
    /// The disk's size in bytes.
    pub size: u64,
    /// The guest's further disks.
    pub disks: Vec<DiskSummary>,
    /// The content of each volume, and why it is the root or is not.
    pub volumes: Vec<VolumeSummary>,
    /// The volume groups.
    pub groups: Vec<GroupSummary>,
    /// The guest, if one was found.
    pub guest: Option<GuestSummary>,
    /// Why no guest was found.
    pub problem: Option<String>,
    /// The family of that problem, for the exit code; none when the disk simply holds no system:
    /// that is a result.
    #[serde(skip)]
    pub family: Option<Family>,
    /// Warnings.
    pub warnings: Vec<String>,
}

/// A guest's description of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuestSummary {
    /// The number of the root partition; none where the root is no partition.
    pub root_partition: Option<u32>,
    /// The root's place in words: `partition 2`, `logical volume rl/root`.
    pub root: String,
    /// The path of the ostree deployment that boots next, where the root is one.
    pub deployment: Option<String>,
    /// `OSFAMILY`.
    pub os_family: Option<&'static str>,
    /// The system in words.
    pub system: String,
    /// The distribution's `ID`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The host name.
    pub hostname: Option<String>,
    /// `/etc/machine-id`: `missing`, `empty`, `uninitialized`, or the id.
    pub machine_id: String,
    /// Users that can have a password.
    pub users: Vec<UserSummary>,
    /// The mounted file systems.
    pub mounts: Vec<MountSummary>,
    /// The public host keys.
    pub host_keys: Vec<HostKeySummary>,
    /// Whether cloud-init is there and switched on.
    pub cloud_init: bool,
    /// The parts of a Linux guest, with the evidence.
    pub facts: Option<Facts>,
    /// The installed packages of a Linux guest whose package manager is known.
    pub packages: Option<Packages>,
    /// The description of a Windows.
    pub windows: Option<WindowsSummary>,
}

/// A user of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserSummary {
    /// Login name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// `set`, `locked`, `none` (no password is asked for), `unknown`.
    pub password: &'static str,
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MountSummary {
    /// Its mount point.
    pub path: String,
    /// Its kind.
    pub kind: String,
    /// Its UUID.
    pub uuid: String,
    /// Size in bytes.
    pub size: u64,
    /// Free bytes.
    pub free: u64,
}

/// A public host key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostKeySummary {
    /// The file.
    pub path: String,
    /// The algorithm, as the file says.
    pub algorithm: String,
    /// `SHA256:…`.
    pub fingerprint: String,
}

/// Looks at the image on `disks`, of which the first holds it. Only a damaged partition table, or
/// a key that opens nothing, is an error; that no system is found is said in the result.
///
/// # Errors
/// [`CustomizeError::Stack`].
pub fn inspect(
    disks: &[Arc<dyn BlockDevice>],
    keys: &[LuksKey],
    properties: &Properties,
) -> Result<Inspection, CustomizeError> {
    // Nothing random is kept and nothing is written.
    let (entropy, clock) = (Entropy::seeded(0), Clock::fixed(0));
    let sources = Sources { keys, ..Sources::of(disks, &entropy, &clock) };
    let disk = Disk::open_with(&sources)?;
    let mut inspection = Inspection {
        table: disk.table.clone(),
        disk_id: disk.disk_id.clone(),
        size: disk.size,
        disks: disk.more.clone(),
        volumes: Vec::new(),
        groups: disk.groups.iter().map(GroupSummary::of).collect(),
        guest: None,
        problem: None,
        family: None,
        warnings: disk.warnings.clone(),
    };
    let mut events: Vec<Event> = Vec::new();
    match Guest::open(disk, properties, &mut events) {
        Err(refused) => {
            inspection.volumes = refused.disk.summary();
            inspection.problem = Some(sentence(&refused.error));
            let absent = refused.error.is_absence();
            inspection.family =
                (!absent).then(|| Family::of(&CustomizeError::Detect(refused.error)));
        }
        Ok(guest) => {
            inspection.volumes = guest.disk.summary();
            inspection.warnings.extend(events.into_iter().filter_map(Event::into_warning));
            inspection.guest = Some(summary(&guest, &mut inspection.warnings));
        }
    }
    Ok(inspection)
}

/// The guest's description of itself; unreadable parts become `warnings`.
fn summary(guest: &Guest, warnings: &mut Vec<String>) -> GuestSummary {
    let mut summary = GuestSummary {
        root_partition: guest.root_partition(),
        root: guest.disk.volumes[guest.root].place(),
        deployment: guest.disk.volumes[guest.root].deployment.clone(),
        os_family: guest.family.map(OsFamily::name),
        system: guest.distro.name.clone(),
        id: guest.distro.id.clone(),
        version: guest.distro.version.clone(),
        mounts: mounts(&guest.tree),
        ..GuestSummary::default()
    };
    if let Some(windows) = &guest.windows {
        windows::fill(&guest.tree, windows, &mut summary, warnings);
        return summary;
    }
    // Each on its own: what one file hides must not hide the rest.
    let results = [
        guest.hostname().map(|name| summary.hostname = name),
        machine_id(guest).map(|state| summary.machine_id = state),
        users(guest).map(|users| summary.users = users),
        host_keys(guest).map(|keys| summary.host_keys = keys),
        guest.has_cloud_init().map(|found| summary.cloud_init = found),
    ];
    warnings.extend(results.into_iter().filter_map(Result::err).map(|error| sentence(&error)));
    let mut problems = Vec::new();
    let facts = Facts::of(guest, &mut problems);
    if let Some(manager) = &facts.package_manager {
        match Packages::of(&guest.tree, &manager.value, &manager.evidence) {
            Ok(packages) => summary.packages = Some(packages),
            Err(error) => problems.push(error),
        }
    }
    summary.facts = Some(facts);
    warnings.extend(problems.iter().map(|error| sentence(error)));
    summary
}

fn mounts(tree: &Tree) -> Vec<MountSummary> {
    let mounts = tree.mounts();
    let known = mounts.into_iter().filter_map(|(path, info)| info.ok().map(|info| (path, info)));
    known
        .map(|(path, info)| MountSummary {
            path: display_name(path),
            kind: info.kind.name().to_owned(),
            uuid: info.uuid,
            size: info.size,
            free: info.free,
        })
        .collect()
}

fn machine_id(guest: &Guest) -> snf_fs::Result<String> {
    let Some(text) = guest.config("/etc/machine-id")? else { return Ok("missing".into()) };
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok("empty".into());
    }
    Ok(display_name(&text[..text.len().min(64)]))
}

fn users(guest: &Guest) -> snf_fs::Result<Vec<UserSummary>> {
    let passwd = guest.config("/etc/passwd")?.unwrap_or_default();
    let shadow = guest.config("/etc/shadow")?;
    // Accounts of services have no shell and are of no interest here.
    let is_person = |user: &passwd::User| {
        user.uid == 0
            || !["nologin", "false", "sync", "shutdown", "halt"]
                .iter()
                .any(|shell| user.shell.ends_with(shell.as_bytes()))
    };
    Ok(passwd::users(&passwd)
        .filter(is_person)
        .take(USERS_MAX)
        .map(|user| {
            let field = match (&shadow, user.password.as_slice()) {
                (Some(shadow), b"x") => passwd::password_of(shadow, &user.name),
                (_, field) => Some(field),
            };
            UserSummary {
                name: display_name(&user.name),
                uid: user.uid,
                home: display_name(&user.home),
                shell: display_name(&user.shell),
                password: match field {
                    None => "unknown",
                    Some(b"") => "none",
                    Some([b'!' | b'*', ..] | b"x") => "locked",
                    Some(_) => "set",
                },
            }
        })
        .collect())
}

fn host_keys(guest: &Guest) -> snf_fs::Result<Vec<HostKeySummary>> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use sha2::{Digest, Sha256};

    let mut keys = Vec::new();
    for KeyFile { path, text } in public_keys(&guest.tree)? {
        let text = String::from_utf8_lossy(&text);
        let mut words = text.split_whitespace();
        let (Some(algorithm), Some(blob)) = (words.next(), words.next()) else { continue };
        let Ok(blob) = STANDARD.decode(blob) else { continue };
        keys.push(HostKeySummary {
            path: display_name(&path),
            algorithm: display_name(algorithm.as_bytes()),
            fingerprint: format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob))),
        });
    }
    Ok(keys)
}
