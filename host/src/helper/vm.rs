//! A running QEMU, from its start to the end of its process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::debug::DebugSocket;
use super::lines::{Lines, SerialPairs};
use super::walls::ControlGroup;
use super::{HelperError, HelperSink};

/// How often a silent run looks whether it was asked to stop. A signal also ends the wait.
const CANCEL_INTERVAL: Duration = Duration::from_millis(500);

/// A running QEMU and our ends of its lines. It does not outlive this value.
pub(super) struct Vm {
    child: Child,
    /// After QEMU has ended, whatever it may have left goes with its group.
    _group: Option<ControlGroup>,
    /// Keeps the number that QEMU runs as from other runs.
    _lock: Option<File>,
    pidfd: OwnedFd,
    reaped: bool,
    /// When it was started.
    pub(super) started: Instant,
    /// Its serial lines and error output.
    pub(super) lines: Lines,
    /// HELPER_DEBUG: the way to the shell.
    pub(super) debug: Option<DebugSocket>,
    /// Our end of its monitor, where it has one.
    pub(super) monitor: Option<UnixStream>,
    /// Whether it goes on from a snapshot.
    pub(super) resumes: bool,
    /// The words of this run, for the init of a VM that goes on.
    pub(super) words: String,
    /// Of one that is to be saved: what a VM has to be like to go on from there.
    pub(super) machine: Option<Vec<String>>,
}

/// The parts that a [`Vm`] is made of beside its process.
pub(super) struct Parts {
    pub(super) group: Option<ControlGroup>,
    pub(super) lock: Option<File>,
    pub(super) pairs: SerialPairs,
    pub(super) debug: Option<DebugSocket>,
    pub(super) monitor: Option<UnixStream>,
    pub(super) resumes: bool,
    pub(super) words: String,
    pub(super) machine: Option<Vec<String>>,
}

impl Vm {
    /// Takes charge of a QEMU that was started at `started`.
    pub(super) fn watch(
        mut child: Child,
        started: Instant,
        parts: Parts,
    ) -> Result<Self, HelperError> {
        let stderr = child.stderr.take();
        let pidfd = Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            .map_err(HelperError::system("watch QEMU"));
        let watched = pidfd.and_then(|pidfd| Ok((pidfd, Lines::new(parts.pairs, stderr)?)));
        let (pidfd, lines) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok(Self {
            child,
            _group: parts.group,
            _lock: parts.lock,
            pidfd,
            reaped: false,
            started,
            lines,
            debug: parts.debug,
            monitor: parts.monitor,
            resumes: parts.resumes,
            words: parts.words,
            machine: parts.machine,
        })
    }

    /// Listens until QEMU ends (true), something was heard, or the deadline passes (false).
    pub(super) fn wait(
        &mut self,
        deadline: Instant,
        sink: &mut dyn HelperSink,
    ) -> Result<bool, HelperError> {
        // Now and then the caller looks whether it was asked to stop.
        let left = deadline.saturating_duration_since(Instant::now()).min(CANCEL_INTERVAL);
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let exited = {
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            fds.extend(self.lines.poll_fds());
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => return Ok(false),
                Err(e) => return Err(HelperError::system("wait for QEMU")(e)),
            }
            fds.first().is_some_and(|fd| !fd.revents().is_empty())
        };
        self.lines.listen(sink);
        Ok(exited)
    }

    /// Asks QEMU to end.
    pub(super) fn terminate(&self) {
        // It may have ended by itself just now; reap() will tell.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    /// Ends QEMU and whatever it may have started. Only called before it was waited for, so its
    /// number cannot be somebody else's.
    fn kill_group(&self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    /// Ends QEMU at once.
    pub(super) fn kill(&mut self, sink: &mut dyn HelperSink) -> Result<ExitStatus, HelperError> {
        self.kill_group();
        self.reap(sink)
    }

    /// QEMU has ended: its status, after all that its lines still hold was heard.
    pub(super) fn reap(&mut self, sink: &mut dyn HelperSink) -> Result<ExitStatus, HelperError> {
        let status = self.child.wait().map_err(HelperError::system("wait for QEMU"))?;
        self.reaped = true;
        self.lines.finish(sink);
        Ok(status)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}
