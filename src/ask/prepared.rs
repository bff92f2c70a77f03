//! Results that were computed before the run.

use serde::{Deserialize, Serialize};

use crate::craft::crypt::Method;
use crate::craft::secret::Secret;
use crate::craft::sshkey::KeyPair;

/// Results that were computed before the run. Each is used once at most: for the first key of its
/// kind, for the first user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    /// A fresh host key of each kind. RSA's takes seconds; the small ones take code that a VM
    /// without KVM has to translate first.
    pub keys: Vec<KeyPair>,
    /// crypt(3) hashes of the plan's clear-text password, by different methods.
    pub password_hashes: Vec<Secret>,
}

impl Prepared {
    /// The hash that was made by a method.
    pub fn hash(&self, method: Method) -> Option<&Secret> {
        let prefix = method.prefix().as_bytes();
        self.password_hashes.iter().find(|hash| hash.expose().starts_with(prefix))
    }

    /// The keys that were made with this comment.
    pub fn keys(&self, comment: &str) -> impl Iterator<Item = &KeyPair> {
        let ending = format!(" {comment}\n");
        self.keys.iter().filter(move |key| key.public.ends_with(&ending))
    }
}
