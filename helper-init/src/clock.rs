//! The VM's own clock. It measures and orders; it never ends a run: under TCG on a busy machine it
//! has been seen to run 25 times too fast. Time limits are the host's.

use std::time::Duration;

/// Time since the kernel started.
pub(crate) fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}
