//! Looking at an image without changing it.

mod windows;

use std::sync::Arc;

use serde::Serialize;
use snf_fs::error::display_name;
use snf_fs::{BlockDevice, Tree};

use crate::customize::CustomizeError;
use crate::event::Event;
use crate::guest::detect;
use crate::guest::disk::{Content, Disk, VolumeSummary};
use crate::guest::{OsFamily, passwd};
use crate::plan::Plan;
use crate::properties::Properties;
use crate::random::{Clock, Entropy};
use crate::storage::Storage;
use crate::task::{self, Context, HostKeyMaker};

pub use windows::WindowsSummary;

/// How many users are listed.
const USERS_MAX: usize = 1000;

/// What is on a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// `GPT`, `MBR`; none for a bare file system.
    pub table: Option<String>,
    /// The disk's identifier.
    pub disk_id: Option<String>,
    /// The disk's size in bytes.
    pub size: u64,
    /// What lies in each partition, and why it is the root or is not.
    pub volumes: Vec<VolumeSummary>,
    /// The guest, if one was found.
    pub guest: Option<GuestSummary>,
    /// Why no guest was found.
    pub problem: Option<String>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
}

/// What a guest says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuestSummary {
    /// The number of the root partition; none for a bare file system.
    pub root_partition: Option<u32>,
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
    /// What is mounted where.
    pub mounts: Vec<MountSummary>,
    /// The public host keys.
    pub host_keys: Vec<HostKeySummary>,
    /// Whether cloud-init is there and switched on.
    pub cloud_init: bool,
    /// What there is to say of a Windows only.
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
    /// Where.
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

/// Looks at the image on `disk`. Only a damaged partition table is an error; that no system is
/// found is said in the result.
pub fn inspect(
    disk: Arc<dyn BlockDevice>,
    properties: &Properties,
) -> Result<Inspection, CustomizeError> {
    // Nothing random is kept and nothing is written.
    let (entropy, clock) = (Entropy::seeded(0), Clock::fixed(0));
    let mut disk = Disk::open(&disk, &entropy, &clock)?;
    let mut inspection = Inspection {
        table: disk.table.clone(),
        disk_id: disk.disk_id.clone(),
        size: disk.size,
        volumes: Vec::new(),
        guest: None,
        problem: None,
        warnings: disk.warnings.clone(),
    };
    let root = detect::find_root(&mut disk, properties, true);
    inspection.volumes = disk.summary();
    let root = match root {
        Ok(root) => root,
        Err(error) => {
            inspection.problem = Some(error.to_string());
            return Ok(inspection);
        }
    };
    let volume = &mut disk.volumes[root.volume];
    let number = volume.number;
    let Content::Open(fs) = std::mem::replace(&mut volume.content, Content::Mounted) else {
        return Ok(inspection);
    };
    let plan = Plan::default();
    let mut events: Vec<Event> = Vec::new();
    let mut context = Context {
        plan: &plan,
        tree: Tree::new(fs),
        disk,
        storage: Storage::default(),
        root: root.volume,
        family: root.family,
        distro: root.distro,
        windows: root.windows,
        answer: None,
        later: None,
        entropy: &entropy,
        clock: &clock,
        events: &mut events,
        key_maker: HostKeyMaker::new(&entropy),
        fingerprints: Vec::new(),
        warnings: Vec::new(),
    };
    if let Some(mount) = task::find("MountImage")
        && let Err(error) = mount.run_on_guest(&mut context)
    {
        context.warn(error.to_string());
    }
    let mut guest = GuestSummary {
        root_partition: number,
        os_family: context.family.map(OsFamily::name),
        system: context.distro.name.clone(),
        id: context.distro.id.clone(),
        version: context.distro.version.clone(),
        mounts: mounts(&context.tree),
        ..GuestSummary::default()
    };
    if let Some(found) = context.windows.clone() {
        windows::fill(&mut context, &found, &mut guest);
        inspection.warnings.append(&mut context.warnings);
        inspection.guest = Some(guest);
        return Ok(inspection);
    }
    // Each on its own: what one file hides must not hide the rest.
    let results = [
        context.hostname().map(|name| guest.hostname = name),
        machine_id(&context).map(|state| guest.machine_id = state),
        users(&context).map(|users| guest.users = users),
        host_keys(&context).map(|keys| guest.host_keys = keys),
        context.has_cloud_init().map(|found| guest.cloud_init = found),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        context.warn(error.to_string());
    }
    inspection.warnings.append(&mut context.warnings);
    inspection.guest = Some(guest);
    Ok(inspection)
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

fn machine_id(context: &Context<'_>) -> snf_fs::Result<String> {
    let Some(text) = context.config("/etc/machine-id")? else { return Ok("missing".into()) };
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok("empty".into());
    }
    Ok(display_name(&text[..text.len().min(64)]))
}

fn users(context: &Context<'_>) -> snf_fs::Result<Vec<UserSummary>> {
    let passwd = context.config("/etc/passwd")?.unwrap_or_default();
    let shadow = context.config("/etc/shadow")?;
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

fn host_keys(context: &Context<'_>) -> snf_fs::Result<Vec<HostKeySummary>> {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use sha2::{Digest, Sha256};

    let mut keys = Vec::new();
    for entry in context.tree.read_dir_optional("/etc/ssh")? {
        if !entry.name.starts_with(b"ssh_host_") || !entry.name.ends_with(b"_key.pub") {
            continue;
        }
        let path = [b"/etc/ssh/".as_slice(), &entry.name].concat();
        if !context.tree.is_file(&path)? {
            continue;
        }
        let text = context.tree.read(&path, 1 << 20)?;
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
