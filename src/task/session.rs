//! The run, as the tasks see it; the guest comes separately.

use serde::{Deserialize, Serialize};

use super::{LaterGrowth, Logins};
use crate::ask::event::{Event, EventSink};
use crate::ask::plan::Plan;
use crate::craft::random::{Clock, Entropy};
use crate::craft::sshkey::HostKeyMaker;
use crate::guest::disk::Disk;
use crate::guest::growth::Choice;
use crate::guest::stack::Sources;
use crate::guest::storage::{Storage, StorageError};

/// A host key that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The private key's path in the guest.
    pub path: String,
    /// `RSA`, `ECDSA`, `ED25519`.
    pub kind: String,
    /// Its size in bits.
    pub bits: u32,
    /// `SHA256:…`.
    pub fingerprint: String,
}

/// A file system that gets larger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grown {
    /// Its place (`partition 2`, `the disk`).
    pub place: String,
    /// The file system in a few words.
    pub what: String,
    /// Its size in bytes as it is.
    pub before: u64,
    /// Its size in bytes as it will be.
    pub after: u64,
}

/// One run: the request, the sources of randomness and time, and what came out so far.
pub struct Session<'a> {
    /// The request.
    pub plan: &'a Plan,
    /// Randomness; a task takes a stream of its own from it.
    pub entropy: &'a Entropy,
    /// The time.
    pub clock: &'a Clock,
    /// The changes to the instance's disks beside their file systems.
    pub storage: Storage,
    /// Makes host keys, the slow one since the beginning of the run.
    pub host_keys: HostKeyMaker,
    /// Events, warnings and fingerprints so far.
    pub report: Reporter<'a>,
    /// Users whom an edit makes: their passwords and keys are set then.
    pub(crate) new_users: Vec<String>,
    /// The passwords and keys that were set, where it is told at the end what keeps their users out.
    pub(crate) logins: Option<Vec<Logins>>,
    /// Whether the partition table has been decided on.
    pub(crate) tabled: bool,
    /// The file system that grew.
    pub(crate) grown: Option<Grown>,
    /// The growth, once a task has decided it.
    pub(crate) growing: Option<Choice>,
    /// A file system that grows when all else has been written.
    pub(crate) later: Option<LaterGrowth>,
}

impl<'a> Session<'a> {
    /// A run at its beginning.
    pub fn new(
        plan: &'a Plan,
        entropy: &'a Entropy,
        clock: &'a Clock,
        storage: Storage,
        events: &'a mut dyn EventSink,
    ) -> Self {
        let host_keys = HostKeyMaker::new(entropy);
        let report = Reporter::new(events);
        Self {
            plan,
            entropy,
            clock,
            storage,
            host_keys,
            report,
            new_users: Vec::new(),
            logins: None,
            tabled: false,
            grown: None,
            growing: None,
            later: None,
        }
    }

    /// Tells a warning and keeps it for the report.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.report.event(Event::Warning(text.into()));
    }

    /// Tells something.
    pub fn info(&mut self, text: impl Into<String>) {
        self.report.event(Event::Info(text.into()));
    }
}

/// Passes events on and keeps what belongs into the report.
pub struct Reporter<'a> {
    events: &'a mut dyn EventSink,
    /// Warnings given.
    pub warnings: Vec<String>,
    /// Host keys made.
    pub fingerprints: Vec<Fingerprint>,
}

impl<'a> Reporter<'a> {
    /// Nothing told yet.
    pub fn new(events: &'a mut dyn EventSink) -> Self {
        Self { events, warnings: Vec::new(), fingerprints: Vec::new() }
    }
}

impl EventSink for Reporter<'_> {
    fn event(&mut self, event: Event) {
        if let Event::Warning(text) = &event {
            self.warnings.push(text.clone());
        }
        self.events.event(event);
    }
}

/// The disk's volumes, opened when a task first asks for them.
#[derive(Default)]
pub struct LazyDisk(Option<Disk>);

impl LazyDisk {
    /// The volumes of the disk as it will be. The partition table must not change after this.
    ///
    /// # Errors
    /// When a partition table cannot be read, or a key opens nothing.
    pub fn open(&mut self, session: &Session<'_>) -> Result<&mut Disk, StorageError> {
        let disk = self.take(session)?;
        Ok(self.0.insert(disk))
    }

    /// Closes the volumes: the partition table is about to change.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// The volumes, for whoever works on them next.
    ///
    /// # Errors
    /// As [`LazyDisk::open`].
    pub fn take(&mut self, session: &Session<'_>) -> Result<Disk, StorageError> {
        match self.0.take() {
            Some(disk) => Ok(disk),
            None => {
                let storage = &session.storage;
                let (disks, mounter) = (storage.disks(), storage.mounter());
                let (entropy, clock) = (session.entropy, session.clock);
                let keys = &session.plan.luks_keys;
                Ok(Disk::open_with(&Sources { disks: &disks, keys, mounter, entropy, clock })?)
            }
        }
    }
}
