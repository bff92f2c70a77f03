//! Being asked to stop: SIGTERM, SIGINT and SIGHUP set a flag that every long step looks at, so
//! that guards run, the VM ends and nothing is left behind.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// The run was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by signal {0}; the disk is not a deployed instance")]
pub struct Cancelled(pub usize);

/// Whether a signal came; clones share the answer.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    signal: Arc<AtomicUsize>,
}

impl Cancel {
    /// A flag that nothing sets but [`Cancel::request`].
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that SIGTERM, SIGINT and SIGHUP of this process set.
    pub fn on_signals() -> io::Result<Self> {
        let cancel = Self::default();
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            signal_hook::flag::register_usize(signal, cancel.signal.clone(), signal as usize)?;
        }
        Ok(cancel)
    }

    /// Asks for the stop.
    pub fn request(&self, signal: usize) {
        self.signal.store(signal, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.signal.load(Ordering::SeqCst) != 0
    }

    /// An error once a stop was asked for.
    pub fn check(&self) -> Result<(), Cancelled> {
        match self.signal.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(Cancelled(signal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share() {
        let cancel = Cancel::new();
        let clone = cancel.clone();
        assert!(clone.check().is_ok());
        cancel.request(15);
        assert_eq!(clone.check(), Err(Cancelled(15)));
    }
}
