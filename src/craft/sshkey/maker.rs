//! Host keys made while other work goes on.

use std::sync::mpsc;

use super::{KeyError, KeyPair, KeyType, generate};
use crate::craft::random::Entropy;

/// Makes SSH host keys. An RSA key takes longer than the rest of a run, so a thread makes it from
/// the moment that somebody knows it will be needed.
pub struct HostKeyMaker {
    entropy: Entropy,
    rsa: Option<(String, mpsc::Receiver<Result<KeyPair, KeyError>>)>,
    prepared: Vec<KeyPair>,
}

impl HostKeyMaker {
    /// Draws from streams of its own.
    pub fn new(entropy: &Entropy) -> Self {
        Self { entropy: entropy.derive("host keys"), rsa: None, prepared: Vec::new() }
    }

    /// Takes over a key that was made beforehand: it is the first of its kind that is asked for.
    pub fn give(&mut self, key: KeyPair) {
        self.prepared.push(key);
    }

    /// Begins to make an RSA key with this comment, unless that has begun.
    pub fn start_rsa(&mut self, comment: &str) {
        if self.rsa.is_some() || self.prepared.iter().any(|key| key.key_type == KeyType::Rsa) {
            return;
        }
        let (sender, receiver) = mpsc::channel();
        let mut entropy = self.stream(KeyType::Rsa);
        let text = comment.to_owned();
        let started = std::thread::Builder::new().name("rsa".into()).spawn(move || {
            // Nobody waits any more when the run has failed: that is all right.
            let _ = sender.send(generate(KeyType::Rsa, &text, &mut entropy));
        });
        if started.is_ok() {
            self.rsa = Some((comment.to_owned(), receiver));
        }
    }

    /// A key of a kind: the first one (`index` 0), or a further one.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn make(
        &mut self,
        key_type: KeyType,
        comment: &str,
        index: usize,
    ) -> Result<KeyPair, KeyError> {
        if index == 0
            && let Some(given) = self.prepared.iter().position(|key| key.key_type == key_type)
        {
            return Ok(self.prepared.swap_remove(given));
        }
        if key_type == KeyType::Rsa
            && index == 0
            && let Some((started, receiver)) = self.rsa.take()
            && started == comment
            && let Ok(made) = receiver.recv()
        {
            return made;
        }
        let mut entropy = match index {
            0 => self.stream(key_type),
            _ => self.entropy.derive(&format!("{} {index}", key_type.name())),
        };
        generate(key_type, comment, &mut entropy)
    }

    fn stream(&self, key_type: KeyType) -> Entropy {
        self.entropy.derive(key_type.name())
    }
}
