//! The names of all properties.

/// The property that leaves out one task begins with this.
pub(super) const EXCLUDE_TASK: &str = "EXCLUDE_TASK_";

/// The properties that leave out several tasks.
pub(super) const EXCLUSIONS: [&str; 3] =
    ["EXCLUDE_ALL_TASKS", "EXCLUDE_MOUNTED_TASKS", "EXCLUDE_FILESYSTEMRESIZE_TASKS"];

/// The properties that are a yes or a no.
pub(super) const BOOLEANS: [&str; 11] = [
    "DO_SYNC",
    "IGNORE_UNATTEND",
    "OFFLINE_NTFSRESIZE",
    "OFFLINE_NTFSRESIZE_NOCHECK",
    "OFFLINE_PASSWORD",
    "CLOUD_INIT",
    "NM_NETWORKING",
    "ALLOW_MOUNTED_TASK_OVERWRITING",
    "EXCLUDE_ALL_TASKS",
    "EXCLUDE_MOUNTED_TASKS",
    "EXCLUDE_FILESYSTEMRESIZE_TASKS",
];

/// The properties with other values.
pub(super) const NAMES: [&str; 6] =
    ["OSFAMILY", "ROOT_PARTITION", "PASSWD_HASHING_METHOD", "USERS", "SWAP", "CUSTOM_TASK"];
