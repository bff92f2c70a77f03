//! Limits that a process with passwords puts on itself.

use rustix::fs::Mode;
use rustix::process::DumpableBehavior;

use crate::node::log;

/// Passwords pass through this process: no core dump, no debugger, no file that others read.
pub fn harden() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::warning(&format!("cannot forbid core dumps: {error}"));
    }
}
