//! Programs that we run, QEMU among them: each in a process group of its own, with nothing of our
//! environment, and gone when we are.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::FdFlags;
use rustix::process::{PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions};

use crate::sys;

/// Has `command` start in a process group of its own, with an empty environment but for `PATH` and a
/// locale of UTF-8, without core dumps, and with the descriptors `inherited` besides its standard
/// streams, which must be open when it is spawned; every other descriptor is closed, whoever opened
/// it. It is killed when the thread that spawns it ends.
/// `before` runs in the child first: it may make system calls, but neither allocate nor take a lock.
pub fn bind(
    command: &mut Command,
    inherited: &[BorrowedFd<'_>],
    mut before: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    let fds: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = rustix::process::getpid();
    // Tells that we have ended, also to a child that sees other process numbers.
    let watch = rustix::process::pidfd_open(parent, PidfdFlags::empty());
    command.process_group(0).current_dir("/").env_clear().env("LC_ALL", "C.UTF-8");
    let path = std::env::var_os("PATH");
    command.env("PATH", path.unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
    // Only system calls: the vector was filled before the fork.
    sys::before_exec(command, move || {
        close_on_exec();
        before()?;
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(Resource::Core, none)?;
        // After a change of user, which clears it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        let gone = match &watch {
            Ok(watch) => {
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&now))? > 0
            }
            Err(_) => rustix::process::getppid() != Some(parent),
        };
        if gone {
            return Err(io::Error::from(rustix::io::Errno::CANCELED));
        }
        // The caller holds these open over the spawn.
        for &fd in &fds {
            sys::with_descriptor(fd, |fd| rustix::io::fcntl_setfd(fd, FdFlags::empty()))?;
        }
        Ok(())
    });
}

/// Most descriptors that are looked at where `/proc` does not list them.
const DESCRIPTORS: RawFd = 4096;

/// Has every descriptor but the standard streams be closed when the program starts. `close_range`
/// with CLOSE_RANGE_CLOEXEC would do so since Linux 5.11; this works on every kernel. Makes system
/// calls only.
fn close_on_exec() {
    let close = |fd: RawFd| {
        if fd > 2 {
            // It fails where the number is not open.
            let set = |fd: BorrowedFd<'_>| rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
            let _ = sys::with_descriptor(fd, set);
        }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(list) = rustix::fs::openat(CWD, c"/proc/self/fd", flags, Mode::empty()) else {
        (3..DESCRIPTORS).for_each(close);
        return;
    };
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(list, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        if let Some(fd) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
            close(fd);
        }
    }
}

/// A running program. Dropping it ends it and whatever it has started.
#[derive(Debug)]
pub struct Program {
    child: Child,
    reaped: bool,
}

impl Program {
    /// Starts `command` with an empty environment but for `PATH`, a locale of UTF-8 and
    /// `variables`. Besides its standard streams it inherits `inherited`. It is killed when the
    /// calling thread ends, so call this on one that lives as long as the program is needed.
    ///
    /// # Errors
    /// The system's, such as that there is no such program.
    pub fn spawn(
        command: &mut Command,
        variables: &[(&str, &OsStr)],
        inherited: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        bind(command, inherited, || Ok(()));
        command.envs(variables.iter().copied());
        Ok(Self { child: command.spawn()?, reaped: false })
    }

    /// Its standard streams, to be taken.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended. Processes that it has left running in its group end then, too.
    ///
    /// # Errors
    /// The system's.
    pub fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        if !self.reaped {
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed());
            let Some(pid) = pid else { return Ok(None) };
            if rustix::process::waitid(WaitId::Pid(pid), look)?.is_none() {
                return Ok(None);
            }
            // It has not been waited for yet, so its number is not somebody else's.
            self.kill_group();
            self.reaped = true;
        }
        self.child.wait().map(Some)
    }

    fn kill_group(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    /// Waits for its end until `deadline`, or until `stop` says so; `None` when it still runs.
    ///
    /// # Errors
    /// The system's.
    pub fn wait_until(
        &mut self,
        deadline: Instant,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Option<ExitStatus>> {
        let mut nap = Duration::from_millis(1);
        loop {
            let status = self.status()?;
            if status.is_some() || Instant::now() >= deadline || stop() {
                return Ok(status);
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(50));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}
