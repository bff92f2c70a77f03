//! Being asked to stop: SIGTERM, SIGINT and SIGHUP set a flag that every long step looks at, so
//! that guards run, the VM ends and nothing is left over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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

    /// Does something that may hang in a system call (a server that does not answer) in a thread of
    /// its own, and leaves it alone once a stop is asked for.
    pub fn wait<T: Send + 'static>(
        &self,
        action: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Cancelled> {
        let thread = std::thread::spawn(action);
        let mut nap = Duration::from_millis(1);
        while !thread.is_finished() {
            self.check()?;
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(50));
        }
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
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
    fn waiting_ends_with_the_action_or_with_a_signal() {
        let cancel = Cancel::new();
        assert_eq!(cancel.wait(|| 7), Ok(7));
        let clone = cancel.clone();
        let waits = cancel.wait(move || {
            clone.request(15);
            std::thread::sleep(Duration::from_secs(3600));
        });
        assert_eq!(waits, Err(Cancelled(15)));
    }

    #[test]
    fn clones_share() {
        let cancel = Cancel::new();
        let clone = cancel.clone();
        assert!(clone.check().is_ok());
        cancel.request(15);
        assert_eq!(clone.check(), Err(Cancelled(15)));
    }
}
