//! Signals: before the first write they end the run at once, after it they have to wait.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use snf_fs::{BlockDevice, DeviceError};

use crate::exit::Exit;
use crate::terminal;

/// Whether a write has begun.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<State>);

#[derive(Debug, Default)]
struct State {
    wrote: AtomicBool,
    /// Bytes that are written now go to places that nothing refers to.
    free: AtomicBool,
    /// Held while the flag changes, and by a signal that ends the program.
    change: Mutex<()>,
    /// The process that does the work, 0 for this one: signals are its business then.
    worker: AtomicI32,
}

impl Progress {
    /// Called before every write: the first one closes the door to signals.
    pub(crate) fn begin_writing(&self) {
        if !self.wrote() && !self.0.free.load(Ordering::Acquire) {
            let _guard = self.lock();
            self.0.wrote.store(true, Ordering::Release);
            crate::MEMORY.begin_writing();
        }
    }

    /// Does work that writes only where nothing refers to what is written before the commit: the disk
    /// is as good as it was.
    pub(crate) fn of_free_places<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.0.free.swap(true, Ordering::AcqRel);
        let result = work();
        self.0.free.store(before, Ordering::Release);
        result
    }

    /// The write that was about to begin was not done.
    pub(crate) fn nothing_written(&self) {
        self.0.wrote.store(false, Ordering::Release);
    }

    /// Whether a write has begun.
    pub(crate) fn wrote(&self) -> bool {
        self.0.wrote.load(Ordering::Acquire)
    }

    /// From here on signals go to a child process, which says what became of the disk; 0: they
    /// are our own again.
    pub(crate) fn pass_signals_to(&self, process: i32) {
        self.0.worker.store(process, Ordering::Release);
    }

    fn pass(&self) {
        let process = self.0.worker.load(Ordering::Acquire);
        if let Some(pid) = rustix::process::Pid::from_raw(process).filter(|_| process > 0) {
            // It may have ended just now.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.0.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device that tells when the first write begins.
pub(crate) struct Watched<D> {
    device: D,
    progress: Progress,
}

impl<D> Watched<D> {
    pub(crate) fn new(device: D, progress: Progress) -> Self {
        Self { device, progress }
    }

    pub(crate) fn device(&self) -> &D {
        &self.device
    }

    /// Something is about to change.
    pub(crate) fn begin(&self) {
        self.progress.begin_writing();
    }
}

impl<D: BlockDevice> BlockDevice for Watched<D> {
    fn len(&self) -> u64 {
        self.device.len()
    }
    fn sector_size(&self) -> u32 {
        self.device.sector_size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.begin();
        self.device.write_at(offset, buf)
    }
    // Nothing refers to what is written there: until the commit the disk is as good as it was.
    fn write_free(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.device.write_free(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.device.flush()
    }
}

/// From here on a signal before the first write calls `tell` and ends the program with
/// [`Exit::Interrupted`]; one that comes later has no effect: half of a commit would be worse than
/// all of it. If the system gives no thread, signals do what they always did.
pub(crate) fn heed(progress: &Progress, tell: impl FnOnce() + Send + 'static) {
    // A write over the limit of file sizes shall be an error like any other and not the end.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]) else { return };
    let progress = progress.clone();
    let wait = move || {
        for _ in signals.forever() {
            let guard = progress.lock();
            if !progress.wrote() {
                terminal::restore();
                tell();
                std::process::exit(Exit::Interrupted.code().into());
            }
            progress.pass();
            drop(guard);
        }
    };
    let _ = std::thread::Builder::new().name("signals".into()).spawn(wait);
}
