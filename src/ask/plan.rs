//! The request for an image, from any door: Ganeti's
//! environment, the rules on the parameter floppy, or the command line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ask::cloud_seed::CloudSeed;
use crate::ask::luks_key::LuksKey;
use crate::ask::network::Nic;
use crate::ask::prepared::Prepared;
use crate::ask::properties::{Properties, PropertyError};
use crate::ask::task_id::TaskId;
use crate::craft::secret::Secret;
use crate::edit::Edit;

/// The kind of image: the layout of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ImageFormat {
    /// A whole disk with a partition table.
    #[default]
    DiskDump,
    /// A bare ext2/3/4 file system; on a Ganeti disk it is in the first partition.
    ExtDump,
    /// A bare NTFS file system; on a Ganeti disk it is in the first partition.
    NtfsDump,
}

impl ImageFormat {
    /// The name that `img_format` uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::DiskDump => "diskdump",
            Self::ExtDump => "extdump",
            Self::NtfsDump => "ntfsdump",
        }
    }

    /// The format of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::DiskDump, Self::ExtDump, Self::NtfsDump]
            .into_iter()
            .find(|format| format.name() == name)
    }
}

/// A password to set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Password {
    /// Clear text, to be hashed as the image's own system would.
    Clear(Secret),
    /// A crypt(3) hash, set as it is.
    Hash(Secret),
    /// Hashes of a clear text that stays outside the helper VM: for each user in turn, one by each
    /// method that the image may ask for.
    Hashes(Vec<Secret>),
}

/// The user whose password or keys are set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// Every user that the `USERS` property names (default: root).
    Default,
    /// One user by name.
    Named(String),
}

impl Who {
    /// The names of the users, in the order of the request.
    ///
    /// # Errors
    ///
    /// `USERS` is no list of names.
    pub(crate) fn users<'a>(
        &'a self,
        properties: &'a Properties,
    ) -> Result<Vec<&'a str>, PropertyError> {
        match self {
            Self::Named(name) => Ok(vec![name]),
            Self::Default => Ok(properties.users()?.unwrap_or_else(|| vec!["root"])),
        }
    }
}

/// One file of the personality.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonalityFile {
    /// Absolute path in the guest.
    pub path: String,
    /// Content.
    pub contents: Secret,
    /// Owner: a name of the guest's passwd or a number. `None`: root, or what an existing file has, where
    /// that is kept.
    pub owner: Option<String>,
    /// Group, likewise.
    pub group: Option<String>,
    /// Permission bits. `None`: 0440, or what the existing file has.
    pub mode: Option<u16>,
    /// The request's origin, for messages (`img_personality[2]`).
    pub origin: String,
    /// Whether an existing file keeps owner and mode that are not given or gets the
    /// personality's defaults (root, root, 0440).
    pub keep_existing: bool,
}

/// The treatment of `/etc/machine-id`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MachineId {
    /// A fresh random id, in every place that has one.
    #[default]
    New,
    /// An empty file: systemd makes an id at the next boot.
    Empty,
    /// The word `uninitialized`: the same, and systemd takes that boot for the first one (units with
    /// `ConditionFirstBoot`).
    Uninitialized,
    /// As it is.
    Keep,
    /// This one: 32 lower-case hexadecimal digits.
    Given(String),
}

/// The treatment of the SSH host keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HostKeys {
    /// Remove them and write fresh ones.
    #[default]
    New,
    /// Remove them only.
    Remove,
    /// As they are.
    Keep,
}

/// The parts that are for Windows only.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsRequest {
    /// Product key.
    pub product_key: Option<Secret>,
    /// Time zone, by the name that Windows has for it (`GMT Standard Time`).
    pub time_zone: Option<String>,
    /// Time zone where the answer file has none and none is asked for.
    pub default_time_zone: Option<String>,
    /// An answer file (`unattend.xml`), for images without one of their own, or, with
    /// `IGNORE_UNATTEND`, in place of it.
    pub answer_file: Option<Secret>,
    /// The same for Windows XP and Server 2003 (`sysprep.inf`).
    pub sysprep_inf: Option<Secret>,
}

/// The volume that gets the room of a larger disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grow {
    /// The last one on the disk, or, when its content does not grow, the root.
    #[default]
    Last,
    /// The root, wherever it is.
    Root,
    /// This partition.
    Partition(u32),
    /// This logical volume.
    Logical {
        /// The name of its group.
        group: String,
        /// Its own.
        name: String,
    },
}

/// How the room of a larger disk is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// The volume that grows.
    pub what: Grow,
    /// Whether the partitions after it stay where they are.
    pub no_move: bool,
}

impl Growth {
    /// Whether a person asked for it, so that it must happen or be an error.
    pub fn is_insisted_on(&self) -> bool {
        self.what != Grow::Last
    }
}

/// The tasks of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tasks {
    /// All that apply.
    #[default]
    All,
    /// Only these, each with the words of the request that ask for it (`--hostname`).
    Only(BTreeMap<TaskId, Vec<String>>),
}

impl Tasks {
    /// Only these tasks, without words.
    pub fn only(tasks: impl IntoIterator<Item = TaskId>) -> Self {
        Self::Only(tasks.into_iter().map(|task| (task, Vec::new())).collect())
    }

    /// Whether all tasks are to run that apply.
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// Whether a task is among them.
    pub fn contains(&self, task: TaskId) -> bool {
        match self {
            Self::All => true,
            Self::Only(tasks) => tasks.contains_key(&task),
        }
    }

    /// The words that asked for this task, else its name.
    pub fn words(&self, task: TaskId) -> Asked {
        let words = match self {
            Self::All => None,
            Self::Only(tasks) => tasks.get(&task),
        };
        match words.map(Vec::as_slice) {
            None | Some([]) => Asked { words: task.name().to_owned(), several: false },
            Some([one]) => Asked { words: one.clone(), several: false },
            Some(several) => Asked { words: several.join(" and "), several: true },
        }
    }
}

/// The part of a request that asked for a task, in the request's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    words: String,
    several: bool,
}

impl Asked {
    /// One thing that was asked for in these words.
    pub(crate) fn one(words: &str) -> Self {
        Self { words: words.to_owned(), several: false }
    }

    /// The verb in its number.
    pub(crate) fn verb<'a>(&self, one: &'a str, several: &'a str) -> &'a str {
        if self.several { several } else { one }
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
    }
}

/// Everything that one run is asked to do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// How the disk is laid out.
    pub format: ImageFormat,
    /// Properties of image and instance, merged.
    pub properties: Properties,
    /// The keys of encrypted containers on the disk.
    pub luks_keys: Vec<LuksKey>,
    /// Host name to set.
    pub hostname: Option<String>,
    /// Passwords to set.
    pub passwords: Vec<(Who, Password)>,
    /// Lines in authorized_keys format to append.
    pub auth_keys: Vec<(Who, String)>,
    /// Files to write.
    pub personality: Vec<PersonalityFile>,
    /// Operations of `sysprep`, by name ([`crate::task::prepare_system`]); done before everything else.
    #[serde(default)]
    pub sysprep: Vec<String>,
    /// Edits, in the order in which they are made.
    pub edits: Vec<Edit>,
    /// The machine id.
    pub machine_id: MachineId,
    /// The SSH host keys.
    pub host_keys: HostKeys,
    /// The instance's network interfaces; none are configured when there are none.
    pub nics: Vec<Nic>,
    /// The parts that are for Windows only.
    pub windows: WindowsRequest,
    /// How the room of a larger disk is used.
    pub growth: Growth,
    /// User data for cloud-init.
    pub cloud_userdata: Option<Secret>,
    /// Further parts of a seed for cloud-init.
    #[serde(default)]
    pub cloud_seed: CloudSeed,
    /// The user whom cloud-init is to make, in place of the image's default user.
    #[serde(default)]
    pub cloud_user: Option<String>,
    /// Whether cloud-init is to tell more.
    pub cloud_init_debug: bool,
    /// Results that were computed before the run.
    pub prepared: Prepared,
    /// The tasks to run. The command line runs only those that its options ask for, Ganeti's create
    /// runs all.
    pub tasks: Tasks,
}

impl Plan {
    /// Whether cloud-init is to take part: the image is made for it (`CLOUD_INIT`), or there are
    /// user data for it.
    pub fn wants_cloud_init(&self) -> bool {
        // A value that is neither yes nor no was refused before.
        self.cloud_userdata.is_some()
            || !self.cloud_seed.is_empty()
            || self.properties.boolean("CLOUD_INIT").unwrap_or(false)
    }
}
