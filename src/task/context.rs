//! What a task works with.

use std::sync::mpsc;

use serde::{Deserialize, Serialize};
use snf_fs::Tree;
use snf_fs::error::display_name;

use super::LaterGrowth;
use crate::event::{Event, EventSink};
use crate::guest::OsFamily;
use crate::guest::disk::Disk;
use crate::guest::distro::Distro;
use crate::guest::windows::Windows;
use crate::plan::Plan;
use crate::random::{Clock, Entropy};
use crate::sshkey::{self, KeyPair, KeyType};
use crate::storage::Storage;

/// Files of configuration are read up to this size.
pub(crate) const CONFIG_MAX: u64 = 16 << 20;

/// A host key that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Where the private key lies in the guest.
    pub path: String,
    /// `RSA`, `ECDSA`, `ED25519`.
    pub kind: String,
    /// Its size in bits.
    pub bits: u32,
    /// `SHA256:…`.
    pub fingerprint: String,
}

/// The guest, the request and where to tell what happens.
pub struct Context<'a> {
    /// What is asked for.
    pub plan: &'a Plan,
    /// The guest's files.
    pub tree: Tree,
    /// The guest's disk.
    pub disk: Disk,
    /// What changes on the disk beside its file systems.
    pub storage: Storage,
    /// The index of the root's volume on the disk.
    pub root: usize,
    /// The guest's system; `None` when it was not recognised and need not be.
    pub family: Option<OsFamily>,
    /// The guest's distribution.
    pub distro: Distro,
    /// The guest's Windows, where it is one.
    pub windows: Option<Windows>,
    /// Where its answer file lies, once a task has installed it or found the image's own.
    pub answer: Option<Vec<u8>>,
    /// A file system that grows when all else has been written.
    pub(crate) later: Option<LaterGrowth>,
    /// Randomness; a task takes a stream of its own from it.
    pub entropy: &'a Entropy,
    /// The time.
    pub clock: &'a Clock,
    /// Where events go.
    pub events: &'a mut dyn EventSink,
    /// Makes host keys, the slow one since the beginning of the run.
    pub key_maker: HostKeyMaker,
    /// Host keys made.
    pub fingerprints: Vec<Fingerprint>,
    /// Warnings given.
    pub warnings: Vec<String>,
}

impl Context<'_> {
    /// Tells a warning and keeps it for the report.
    pub fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.warnings.push(text.clone());
        self.events.event(Event::Warning(text));
    }

    /// Tells something.
    pub fn info(&mut self, text: impl Into<String>) {
        self.events.event(Event::Info(text.into()));
    }

    /// A configuration file of the guest, or `None` when it has none.
    pub fn config(&self, path: &str) -> snf_fs::Result<Option<Vec<u8>>> {
        self.tree.read_optional(path, CONFIG_MAX)
    }

    /// The host name that the guest has now.
    pub fn hostname(&self) -> snf_fs::Result<Option<String>> {
        read_hostname(&self.tree)
    }

    /// Whether the guest boots with systemd.
    pub fn has_systemd(&self) -> snf_fs::Result<bool> {
        for path in ["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/bin/systemd"] {
            if self.tree.exists(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether cloud-init is in the guest and not switched off.
    pub fn has_cloud_init(&self) -> snf_fs::Result<bool> {
        Ok(self.tree.exists("/etc/cloud/cloud.cfg")?
            && !self.tree.exists("/etc/cloud/cloud-init.disabled")?)
    }
}

/// The first word of `/etc/hostname`, if there is one.
pub(crate) fn read_hostname(tree: &Tree) -> snf_fs::Result<Option<String>> {
    let text = tree.read_optional("/etc/hostname", CONFIG_MAX)?.unwrap_or_default();
    let line = text
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b"#"));
    Ok(line.map(|line| display_name(&line[..line.len().min(255)])))
}

/// Makes SSH host keys. An RSA key takes longer than all the rest of a run, so it is made by a
/// thread that starts as soon as it is known that one will be needed.
pub struct HostKeyMaker {
    entropy: Entropy,
    rsa: Option<(String, mpsc::Receiver<KeyPair>)>,
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
            let _ = sender.send(sshkey::generate(KeyType::Rsa, &text, &mut entropy));
        });
        if started.is_ok() {
            self.rsa = Some((comment.to_owned(), receiver));
        }
    }

    /// A key of a kind, the next one if there was one already.
    pub fn make(&mut self, key_type: KeyType, comment: &str, index: usize) -> KeyPair {
        if index == 0
            && let Some(given) = self.prepared.iter().position(|key| key.key_type == key_type)
        {
            return self.prepared.swap_remove(given);
        }
        if key_type == KeyType::Rsa
            && index == 0
            && let Some((started, receiver)) = self.rsa.take()
            && started == comment
            && let Ok(key) = receiver.recv()
        {
            return key;
        }
        let mut entropy = match index {
            0 => self.stream(key_type),
            _ => self.entropy.derive(&format!("{} {index}", key_type.name())),
        };
        sshkey::generate(key_type, comment, &mut entropy)
    }

    fn stream(&self, key_type: KeyType) -> Entropy {
        self.entropy.derive(key_type.name())
    }
}
