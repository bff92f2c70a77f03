//! The bounds of what an image or a request may ask for, in bytes and in steps, with their reasons.
//!
//! The maker of an image chooses how long its files are, how deep they nest and how much they name.
//! Each such amount ends somewhere, so that a run takes bounded memory and time. The engines have
//! their own bounds beside their formats (`snf-fs`, `snf-partition`), and the host has a table of its
//! own. [`LIMITS`] lists those of this library; a test goes through the table and asks for one more than each allows.

/// Memory of a whole run of `snf-customize` or `snf-image-host`. The bounds below keep a run far under
/// it; only files that the command line itself names (`--write`, 512 MiB each) come near.
pub const MEMORY_BYTES: usize = 3 << 30;
/// A path, as Linux allows it (PATH_MAX with its end).
pub const PATH_BYTES: usize = 4095;
/// A configuration file of the guest that is read whole.
pub const CONFIG_BYTES: u64 = 16 << 20;
/// SSH host keys of a guest.
pub const HOST_KEYS: usize = 16;
/// Files that the `Include` lines of `sshd_config` name together.
pub const SSHD_FILES: usize = 200;
/// Levels of `Include` in `sshd_config`.
pub const SSHD_LEVELS: usize = 16;
/// Files that one pattern with `*` names.
pub const GLOB_FILES: usize = 1000;
/// Lines of an SELinux policy's `file_contexts`.
pub const POLICY_LINES: usize = 50_000;
/// Steps for one character of a path through all patterns of `file_contexts`.
pub const POLICY_STEPS: u64 = 1 << 20;
/// Steps for one character of a path through one pattern of `file_contexts`.
pub const POLICY_PATTERN_STEPS: u64 = 4096;
/// Memory of one compiled pattern of `file_contexts`.
pub const POLICY_PATTERN_BYTES: usize = 1 << 20;
/// Names that one message lists; a person reads it.
pub(crate) const NAMES: usize = 20;
/// Elements within elements of an XML answer file.
pub const XML_LEVELS: usize = 64;
/// Elements of an XML answer file.
pub const XML_ELEMENTS: usize = 100_000;
/// Users that `USERS` names.
pub const USERS: usize = 64;
/// The rules of a deployment, with the files that they carry.
pub const RULES_BYTES: usize = 16 << 20;
/// Lists and objects within each other in JSON: `serde_json`'s own bound.
pub const JSON_LEVELS: usize = 127;
/// A path of a personality file.
pub const PERSONALITY_PATH_BYTES: usize = 4096;
/// A registry hive that is read as a whole (SYSTEM, SAM).
pub const HIVE_BYTES: u64 = 128 << 20;
/// A transaction log of a registry hive.
pub const HIVE_LOG_BYTES: u64 = 64 << 20;

/// One bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The amount that is bounded.
    pub of: &'static str,
    /// The most that is taken.
    pub most: u64,
    /// The unit of the bound.
    pub unit: &'static str,
    /// Why it is that much.
    pub why: &'static str,
}

/// A row of a table of bounds.
pub const fn limit(of: &'static str, most: u64, unit: &'static str, why: &'static str) -> Limit {
    Limit { of, most, unit, why }
}

/// All of them.
pub const LIMITS: &[Limit] = &[
    limit(
        "path of AuthorizedKeysFile",
        PATH_BYTES as u64,
        "bytes",
        "no kernel opens a longer one; each %h may stand for thousands of bytes",
    ),
    limit(
        "configuration file",
        CONFIG_BYTES,
        "bytes",
        "it is held in memory; no guest has a larger one",
    ),
    limit(
        "SSH host keys",
        HOST_KEYS as u64,
        "keys",
        "sshd knows four kinds; an RSA key takes a quarter of a second to make",
    ),
    limit(
        "files of sshd_config",
        SSHD_FILES as u64,
        "files",
        "each may have 16 MiB; a distribution has two or three",
    ),
    limit("levels of Include", SSHD_LEVELS as u64, "levels", "sshd's own bound"),
    limit("files of a pattern", GLOB_FILES as u64, "files", "each is opened"),
    limit("lines of file_contexts", POLICY_LINES as u64, "lines", "a real policy has some 7,000"),
    limit(
        "patterns of file_contexts",
        POLICY_STEPS,
        "steps a character",
        "some 7,000 patterns of 40 characters; each new file is compared with them",
    ),
    limit(
        "a pattern of file_contexts",
        POLICY_PATTERN_STEPS,
        "steps a character",
        "`(a?){1000}` would take a thousand times its length",
    ),
    limit("levels of XML", XML_LEVELS as u64, "levels", "answer files have some eight"),
    limit("elements of XML", XML_ELEMENTS as u64, "elements", "answer files have some hundreds"),
    limit(
        "users",
        USERS as u64,
        "names",
        "the password of each is hashed by several methods, a tenth of a second together",
    ),
    limit(
        "levels of JSON",
        JSON_LEVELS as u64,
        "levels",
        "each takes stack; OS parameters have four",
    ),
    limit(
        "path of a personality file",
        PERSONALITY_PATH_BYTES as u64,
        "bytes",
        "no kernel opens a longer one",
    ),
    limit(
        "registry hive",
        HIVE_BYTES,
        "bytes",
        "it is held in memory, twice when it is written; those of a large server have some 30 MB",
    ),
    limit(
        "log of a registry hive",
        HIVE_LOG_BYTES,
        "bytes",
        "there are three, and they are held in memory",
    ),
    limit(
        "rules",
        RULES_BYTES as u64,
        "bytes",
        "they travel on one small disk and are held in memory",
    ),
];

#[cfg(test)]
mod tests;
