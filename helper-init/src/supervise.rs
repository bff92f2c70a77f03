//! PID 1 watches the worker: passes on what it says, ends it when the host says that its time is
//! up, and finds the words for whatever end it comes to.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use snf_image::request::REPORT_MAX;
use snf_image::wire::{HostLine, MonitorKind, ResultLine};

use crate::error::{Doing, InitError, WorkerError};
use crate::faults::Fault;
use crate::kernel::Broker;
use crate::lines::Lines;
use crate::pipe::Lined;
use crate::report::Message;
use crate::worker;

/// How a worker ends that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All is done.
    Done,
    /// Nothing is done: it needs drivers that are not in this initramfs, and the host has one
    /// with them.
    NeedsDrivers,
}

impl End {
    /// The line for the host.
    pub(crate) fn line(self) -> ResultLine {
        match self {
            Self::Done => ResultLine::Success,
            Self::NeedsDrivers => ResultLine::NeedsFileSystems,
        }
    }
}

/// The step of listening to a worker.
const WATCH: &str = "watch the worker";

/// Something that PID 1 has heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Words that were passed on, or nothing.
    Words,
    /// The worker has ended.
    Exit,
    /// The host says that the time is up.
    Stop { seconds: u64 },
}

/// Starts the worker and returns its result.
pub(crate) fn run(rules_dev: &str, lines: &mut Lines) -> Result<End, InitError> {
    lines.mark("worker");
    Fault::asked_for().in_kernel();
    let (mut broker, socket) = Broker::new().map_err(InitError::at("make a pair of sockets"))?;
    let child = Command::new("/proc/self/exe")
        .args([worker::ARGUMENT, rules_dev])
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(InitError::at("start the worker"))?;
    let mut worker = Worker::watch(child)?;
    let mut stopped = None;
    loop {
        match worker.wait(&mut broker, lines)? {
            Heard::Words => {}
            Heard::Exit => break,
            Heard::Stop { seconds } => {
                stopped.get_or_insert(seconds);
                worker.kill();
            }
        }
    }
    let status = worker.child.wait().map_err(InitError::at("wait for the worker"))?;
    // Its last words may still be in the pipes.
    for _ in 0..64 {
        worker.listen(lines);
    }
    match stopped {
        Some(seconds) => Err(WorkerError::TooLate { seconds, doing: worker.doing() }.into()),
        None => Ok(worker.verdict(status)?),
    }
}

struct Worker {
    child: Child,
    pidfd: OwnedFd,
    messages: Lined<ChildStdout>,
    stderr: Lined<ChildStderr>,
    task: Option<String>,
    last_words: VecDeque<String>,
    end: Option<Result<End, WorkerError>>,
}

impl Worker {
    fn watch(mut child: Child) -> Result<Self, InitError> {
        let stdout = child.stdout.take().ok_or(WorkerError::NoPipe)?;
        let stderr = child.stderr.take().ok_or(WorkerError::NoPipe)?;
        rustix::io::ioctl_fionbio(&stdout, true).map_err(InitError::at(WATCH))?;
        rustix::io::ioctl_fionbio(&stderr, true).map_err(InitError::at(WATCH))?;
        let pidfd = Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .map_err(InitError::at(WATCH))?;
        Ok(Self {
            child,
            pidfd,
            messages: Lined::new(stdout),
            stderr: Lined::new(stderr),
            task: None,
            last_words: VecDeque::new(),
            end: None,
        })
    }

    fn kill(&self) {
        // It may have ended by itself just now.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Listens until something happens. There is no time limit in here: the host has one.
    fn wait(&mut self, broker: &mut Broker, lines: &mut Lines) -> Result<Heard, InitError> {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        let mut add = |fd| {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            fds.len() - 1
        };
        let asks = broker.fd().map(&mut add);
        let orders = lines.host.fd().map(&mut add);
        for fd in [self.messages.fd(), self.stderr.fd()].into_iter().flatten() {
            add(fd);
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(InitError::at("wait for the worker")(e)),
        }
        let events = |at: usize| fds.get(at).map_or(PollFlags::empty(), PollFd::revents);
        let exited = !events(0).is_empty();
        let asked = asks
            .map(events)
            .is_some_and(|e| e.contains(PollFlags::IN) && !e.contains(PollFlags::HUP));
        let ordered = orders.map(events).is_some_and(|events| !events.is_empty());
        if asked && !exited {
            broker.start().map_err(InitError::at("start the process that mounts"))?;
        }
        self.listen(lines);
        let order = if ordered { lines.host.order() } else { None };
        Ok(match (exited, order) {
            (true, _) => Heard::Exit,
            (false, Some(HostLine::Stop { seconds })) => Heard::Stop { seconds },
            (false, None) => Heard::Words,
        })
    }

    fn listen(&mut self, lines: &mut Lines) {
        for line in self.messages.read() {
            match Message::decode(&line) {
                Some(message) => self.take(message, lines),
                None => lines.log("the worker said something that makes no sense"),
            }
        }
        for line in self.stderr.read() {
            let text = String::from_utf8_lossy(&line).into_owned();
            lines.log(&text);
            if self.last_words.len() >= 3 {
                self.last_words.pop_front();
            }
            self.last_words.push_back(text);
        }
    }

    fn take(&mut self, message: Message, lines: &mut Lines) {
        match message {
            Message::TaskStart(name) => {
                lines.mark(&name);
                lines.log(&format!("task {name}"));
                lines.monitor(MonitorKind::TaskStart, &name);
                self.task = Some(name);
            }
            Message::TaskEnd(name) => {
                lines.mark(match name.as_str() {
                    "MountImage" => "(labels, keys)",
                    _ => "(commit)",
                });
                lines.monitor(MonitorKind::TaskEnd, &name);
                self.task = None;
            }
            Message::Report(piece) => {
                if lines.report.len() <= REPORT_MAX {
                    lines.report.push_str(&piece);
                }
            }
            Message::Info(text) => lines.log(&text),
            Message::Warning(text) => {
                lines.log(&format!("warning: {text}"));
                lines.monitor(MonitorKind::Warning, &text);
            }
            Message::Done => {
                lines.mark("worker's end");
                self.end = Some(Ok(End::Done));
            }
            Message::NeedsDrivers => self.end = Some(Ok(End::NeedsDrivers)),
            Message::Failed(text) => self.end = Some(Err(WorkerError::Said(text))),
        }
    }

    fn doing(&self) -> Doing {
        Doing(self.task.clone())
    }

    /// The result of a worker that has ended.
    fn verdict(&mut self, status: ExitStatus) -> Result<End, WorkerError> {
        match self.end.take() {
            Some(Ok(end)) if status.success() => return Ok(end),
            Some(Err(error)) => return Err(error),
            _ => {}
        }
        let words: Vec<&str> = self.last_words.iter().map(String::as_str).collect();
        let words = words.join(" ");
        let doing = self.doing();
        // The allocator's words before it aborts, or the kernel's choice when all is used up.
        if words.contains("memory allocation of") || status.signal() == Some(9) {
            return Err(WorkerError::Memory { doing });
        }
        Err(match status.signal() {
            // SIGSYS: the system call filter.
            Some(31) => WorkerError::Forbidden { doing, words },
            Some(6) => WorkerError::Internal { doing, words },
            Some(signal) => WorkerError::Signal { signal, doing, words },
            None => WorkerError::NoResult { doing, words },
        })
    }
}
