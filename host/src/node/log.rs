//! Lines for Ganeti's OS log: always valid UTF-8, one line a message, never a panic when nobody
//! reads them.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

static DEBUG: AtomicBool = AtomicBool::new(false);
static LOST: AtomicBool = AtomicBool::new(false);

/// Whether [`debug`] says something (IMAGE_DEBUG, or Ganeti's DEBUG_LEVEL).
pub fn set_debug(on: bool) {
    DEBUG.store(on, Ordering::Relaxed);
}

/// A detail, for somebody who looks for what went wrong. Never the value of an OS parameter.
pub fn debug(text: impl FnOnce() -> String) {
    if DEBUG.load(Ordering::Relaxed) {
        line(&format!("snf-image: debug: {}", text()));
    }
}

/// Writes one line to standard error. Hidden characters in the text are escaped, so that one
/// message stays one line and commands no terminal.
pub fn line(text: &str) {
    let mut out = snf_image::shown::line(text);
    out.push('\n');
    // One write call a line keeps lines of several processes apart.
    match std::io::stderr().lock().write_all(out.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            LOST.store(true, Ordering::Relaxed);
        }
        // Nobody reads any more: nobody misses anything.
        Ok(()) | Err(_) => {}
    }
}

/// Whether a line was lost although somebody keeps the log (its disk is full): the run is then not
/// one that went well.
pub fn is_incomplete() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Something that stops nothing.
pub fn warning(text: &str) {
    line(&format!("snf-image: warning: {text}"));
}

/// Why the run ends.
pub fn error(text: &str) {
    line(&format!("snf-image: error: {text}"));
}

/// A step of the run.
pub fn info(text: &str) {
    line(&format!("snf-image: {text}"));
}

/// An error and what caused it, as one sentence.
pub use snf_image::failure::sentence as chain;
