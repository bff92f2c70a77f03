//! Results that were computed before the run.

use serde::{Deserialize, Serialize};

use crate::craft::sshkey::KeyPair;

/// Results that were computed before the run. Each is used once at most: for the first key of its
/// kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    /// A fresh host key of each kind. RSA's takes seconds; the small ones take code that a VM
    /// without KVM has to translate first.
    pub keys: Vec<KeyPair>,
}

impl Prepared {
    /// The keys that were made with this comment.
    pub fn keys(&self, comment: &str) -> impl Iterator<Item = &KeyPair> {
        let ending = format!(" {comment}\n");
        self.keys.iter().filter(move |key| key.public.ends_with(&ending))
    }
}
