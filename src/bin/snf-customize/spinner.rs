//! One line on a terminal that says what takes long: it appears after a second and is gone at the end. There
//! is none where standard error is no terminal, and none with `--quiet` or `--json`.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A step that ends sooner needs no line.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the line changes.
const TICK: Duration = Duration::from_millis(120);

/// The line that is shown, or will be.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn shown() -> Option<ProgressBar> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The line, as long as this lives.
pub(crate) struct Spinner(());

impl Spinner {
    /// Begins to wait; nothing is ever shown unless `wanted`.
    pub(crate) fn start(message: impl Into<String>, wanted: bool) -> Self {
        if !wanted || !io::stderr().is_terminal() {
            return Self(());
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        // The template is ours, and right.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(message.into());
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        let wait = move || {
            std::thread::sleep(PATIENCE);
            if !bar.is_finished() {
                bar.set_draw_target(ProgressDrawTarget::stderr());
                bar.enable_steady_tick(TICK);
            }
        };
        // Without a thread there is no line, which is no harm.
        let _ = std::thread::Builder::new().name("spinner".into()).spawn(wait);
        Self(())
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        clear();
    }
}

/// Takes the line away for good.
pub(crate) fn clear() {
    if let Some(bar) = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).take() {
        bar.finish_and_clear();
    }
}

/// Says what is done now.
pub(crate) fn say(message: impl Into<String>) {
    if let Some(bar) = shown() {
        bar.set_message(message.into());
    }
}

/// Writes something else, with the line out of the way.
pub(crate) fn aside<T>(write: impl FnOnce() -> T) -> T {
    match shown() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}
