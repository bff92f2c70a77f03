//! The registry hives of a Windows guest, opened in place.

use snf_fs::{Attributes, Tree};

use super::path;
use crate::guest::windows::registry::{FileTime, Hive, HiveError, Peek, Recovery, needs_logs};
use crate::limits::{HIVE_BYTES, HIVE_LOG_BYTES};

/// The directory of the hives, below that of Windows.
const CONFIG: &str = "System32/config";

/// Why a hive of the guest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The hive itself.
    #[error("{path}")]
    Hive {
        /// Its path.
        path: String,
        /// The problem.
        #[source]
        source: HiveError,
    },
    /// The guest has no such hive.
    #[error("the image has no {0}; without it this is no complete Windows")]
    Missing(String),
    /// A key or value that every Windows has is not there or makes no sense.
    #[error("{hive} has no usable {what}")]
    Lacks {
        /// The hive's name.
        hive: &'static str,
        /// The key or value.
        what: String,
    },
    /// The file system.
    #[error(transparent)]
    Fs(#[from] snf_fs::Error),
}

/// A hive that is read and changed as a whole, with its logs.
#[derive(Debug)]
pub struct OpenHive {
    /// The hive.
    pub hive: Hive,
    /// Its path.
    pub path: Vec<u8>,
    /// Whether logs had to be replayed.
    pub recovery: Recovery,
}

impl OpenHive {
    /// An error about this hive.
    pub fn error(&self, source: HiveError) -> RegistryError {
        RegistryError::Hive { path: shown(&self.path), source }
    }

    /// Writes the hive back, where something changed.
    pub fn save(self, tree: &mut Tree) -> Result<(), RegistryError> {
        if self.hive.is_changed() {
            let attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };
            tree.write(&self.path, &self.hive.finish(), attributes)?;
        }
        Ok(())
    }
}

fn shown(path: &[u8]) -> String {
    snf_fs::error::display_name(path)
}

/// Opens `SYSTEM` or `SAM` of the Windows in directory `windows`. Their logs are
/// replayed.
pub fn open(
    tree: &Tree,
    windows: &str,
    name: &str,
    now: FileTime,
) -> Result<OpenHive, RegistryError> {
    let wanted = format!("{windows}/{CONFIG}/{name}");
    let path = path::find(tree, &wanted)?.ok_or(RegistryError::Missing(wanted.clone()))?;
    let data = tree.read(&path, HIVE_BYTES)?;
    let mut logs = Vec::new();
    if needs_logs(&data) {
        for suffix in ["LOG1", "LOG2", "LOG"] {
            if let Some(log) = path::find(tree, &format!("{wanted}.{suffix}"))? {
                logs.push(tree.read(&log, HIVE_LOG_BYTES)?);
            }
        }
    }
    let (hive, recovery) = Hive::open_with_logs(data, &logs, now)
        .map_err(|source| RegistryError::Hive { path: shown(&path), source })?;
    Ok(OpenHive { hive, path, recovery })
}

/// Reads a part of a hive.
type Read<'a> = Box<dyn Fn(u64, usize) -> snf_fs::Result<Vec<u8>> + 'a>;

/// A hive of which single values are read.
pub struct PeekedHive<'a> {
    peek: Peek<Read<'a>>,
    path: String,
}

impl PeekedHive<'_> {
    /// The text of a value.
    pub fn text(&self, key: &str, name: &str) -> Result<Option<String>, RegistryError> {
        self.named(self.peek.text(key, name))
    }

    /// The number of a value.
    pub fn number(&self, key: &str, name: &str) -> Result<Option<u32>, RegistryError> {
        self.named(self.peek.number(key, name))
    }

    /// The names of the subkeys of a key; `None` when there is no such key.
    pub fn subkeys(&self, key: &str) -> Result<Option<Vec<String>>, RegistryError> {
        let names =
            self.peek.key(key).and_then(|key| key.map(|key| self.peek.subkeys(&key)).transpose());
        let names = self.named(names)?;
        Ok(names.map(|names| names.iter().map(ToString::to_string).collect()))
    }

    fn named<T>(&self, result: Result<T, HiveError>) -> Result<T, RegistryError> {
        result.map_err(|source| RegistryError::Hive { path: self.path.clone(), source })
    }
}

/// Looks into a hive of any size; `None` when the guest has none of that name.
pub fn peek<'a>(
    tree: &'a Tree,
    windows: &str,
    name: &str,
) -> Result<Option<PeekedHive<'a>>, RegistryError> {
    let Some(path) = path::find(tree, &format!("{windows}/{CONFIG}/{name}"))? else {
        return Ok(None);
    };
    let text = shown(&path);
    let read = move |offset, length| tree.read_range(&path, offset, length);
    let read: Read<'a> = Box::new(read);
    match Peek::open(read) {
        Ok(peek) => Ok(Some(PeekedHive { peek, path: text })),
        Err(source) => Err(RegistryError::Hive { path: text, source }),
    }
}

/// The control set that the next start uses (`ControlSet001`).
pub fn control_set(number: impl Fn(&str) -> Option<u32>) -> Option<String> {
    let current = number("Default").or_else(|| number("Current"))?;
    (1..1000).contains(&current).then(|| format!("ControlSet{current:03}"))
}
