//! The key of an encrypted container.

use serde::{Deserialize, Serialize};

use crate::craft::secret::Secret;

/// A passphrase or the content of a key file, and the LUKS container that it is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LuksKey {
    /// The container: its UUID, the number of the partition that holds it, or the logical volume
    /// that holds it (`rl/data`, `/dev/mapper/rl-data`).
    pub target: String,
    /// The passphrase or key.
    pub secret: Secret,
}
