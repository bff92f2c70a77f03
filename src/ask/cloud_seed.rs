//! The parts of a seed for cloud-init that a person gives beside the user data.

use serde::{Deserialize, Serialize};

use crate::craft::secret::Secret;

/// Parts of a NoCloud seed; those that are missing are made here, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudSeed {
    /// `meta-data`, in place of the one that is made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<Secret>,
    /// `network-config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_config: Option<Secret>,
    /// `vendor-data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_data: Option<Secret>,
}

impl CloudSeed {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        self.meta_data.is_none() && self.network_config.is_none() && self.vendor_data.is_none()
    }
}
