//! PID 1 watches the worker: passes on what it says, ends it when its time is up, and finds the
//! words for whatever end it comes to.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal};

use crate::cmdline::CommandLine;
use crate::kernel::Broker;
use crate::pid1::uptime;
use crate::report::{LIMIT, Message};
use crate::serial::{Serial, one_line};
use crate::worker;
use snf_image::request::REPORT_MAX;

/// The monitor protocol's bounds (the host enforces the same).
const MONITOR_LINE: usize = 512;
const MONITOR_LINES: usize = 100;
/// Room that is kept for the error that may come last.
const MONITOR_RESERVE: usize = 2;
/// Longest line on the console.
const LOG_LINE: usize = 900;
/// Most steps whose time is noted.
const MARKS: usize = 64;
/// Most lines the worker may log.
const LOG_LINES: usize = 2000;

/// The console and the monitor line.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    log: Serial,
    monitor: Serial,
    monitor_lines: usize,
    log_lines: usize,
    /// When what was reached, since the kernel's start.
    marks: Vec<(String, Duration)>,
    /// The report that `snf-customize` wants; follows the result.
    pub(crate) report: String,
}

impl Lines {
    /// Opens both.
    pub(crate) fn open() -> Self {
        Self {
            log: Serial::open("/dev/ttyS0"),
            monitor: Serial::open("/dev/ttyS2"),
            monitor_lines: 0,
            log_lines: 0,
            marks: Vec::new(),
            report: String::new(),
        }
    }

    /// Notes that something begins now.
    pub(crate) fn mark(&mut self, what: &str) {
        self.mark_at(what, uptime());
    }

    /// Notes that something began at `time`.
    pub(crate) fn mark_at(&mut self, what: &str, time: Duration) {
        if self.marks.len() < MARKS {
            self.marks.push((what.to_owned(), time));
        }
    }

    /// Logs the notes, in milliseconds since the kernel's start.
    pub(crate) fn log_marks(&mut self) {
        for (what, time) in std::mem::take(&mut self.marks) {
            self.log(&format!("time {what} {:.1}", time.as_secs_f64() * 1000.0));
        }
    }

    /// A line for the host's log.
    pub(crate) fn log(&mut self, text: &str) {
        self.log_lines += 1;
        if self.log_lines <= LOG_LINES {
            self.log.line(&one_line(text, LOG_LINE));
        }
    }

    /// A message of the monitor protocol. When the host's bound is near, only an error is still
    /// sent: one line too many would end the listening.
    pub(crate) fn monitor(&mut self, kind: &str, text: &str) {
        let last = if kind == "ERROR" { MONITOR_LINES } else { MONITOR_LINES - MONITOR_RESERVE };
        if self.monitor_lines < last {
            self.monitor_lines += 1;
            self.monitor.line(&format!("{kind}:{}", one_line(text, MONITOR_LINE - kind.len() - 1)));
        }
    }

    /// Returns when all has left.
    pub(crate) fn drain(&self) {
        self.log.drain();
        self.monitor.drain();
    }
}

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
    /// The result line.
    pub(crate) fn line(self) -> &'static str {
        match self {
            Self::Done => "SUCCESS",
            Self::NeedsDrivers => "AGAIN: filesystems",
        }
    }
}

/// Starts the worker and returns its result.
pub(crate) fn run(line: &CommandLine, started: Duration, lines: &mut Lines) -> Result<End, String> {
    lines.mark("worker");
    if line.fault.as_deref() == Some("kernel") {
        let _ = std::fs::write("/proc/sysrq-trigger", "c");
    }
    let (mut broker, socket) =
        Broker::new().map_err(|e| format!("cannot make a pair of sockets: {e}"))?;
    let child = Command::new("/proc/self/exe")
        .args([worker::ARGUMENT, &line.rules_dev])
        .args(&line.fault)
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start the worker: {e}"))?;
    let mut worker = Worker::watch(child)?;
    let deadline = line.timeout.map(|limit| started + limit);
    let mut overdue = false;
    loop {
        let left = deadline.map(|d| d.saturating_sub(uptime()));
        if left.is_some_and(|l| l.is_zero()) && !overdue {
            overdue = true;
            let _ = rustix::process::pidfd_send_signal(&worker.pidfd, Signal::KILL);
        }
        let exited = worker.wait(if overdue { None } else { left }, &mut broker, lines)?;
        if exited {
            break;
        }
    }
    let status = worker.child.wait().map_err(|e| format!("cannot wait for the worker: {e}"))?;
    // What it said last may still be in the pipes.
    for _ in 0..64 {
        worker.listen(lines);
    }
    if overdue {
        let limit = line.timeout.unwrap_or_default().as_secs();
        return Err(format!(
            "the customization did not finish within {limit} s and was stopped{}",
            worker.doing()
        ));
    }
    worker.verdict(status)
}

struct Worker {
    child: Child,
    pidfd: OwnedFd,
    messages: Lined<std::process::ChildStdout>,
    stderr: Lined<std::process::ChildStderr>,
    task: Option<String>,
    last_words: VecDeque<String>,
    end: Option<Result<End, String>>,
}

impl Worker {
    fn watch(mut child: Child) -> Result<Self, String> {
        let fail = |what: &str| format!("cannot watch the worker: {what}");
        let stdout = child.stdout.take().ok_or_else(|| fail("no pipe"))?;
        let stderr = child.stderr.take().ok_or_else(|| fail("no pipe"))?;
        rustix::io::ioctl_fionbio(&stdout, true).map_err(|e| fail(&e.to_string()))?;
        rustix::io::ioctl_fionbio(&stderr, true).map_err(|e| fail(&e.to_string()))?;
        let pidfd = rustix::process::Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
            .map_err(|e| fail(&e.to_string()))?;
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

    /// Listens until something happens; true when the worker has ended.
    fn wait(
        &mut self,
        left: Option<Duration>,
        broker: &mut Broker,
        lines: &mut Lines,
    ) -> Result<bool, String> {
        let timeout = left.map(|left| Timespec {
            tv_sec: left.as_secs().cast_signed(),
            tv_nsec: left.subsec_nanos().into(),
        });
        let (exited, asked) = {
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            let waits = broker.fd().is_some();
            fds.extend(broker.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            for fd in [self.messages.fd(), self.stderr.fd()].into_iter().flatten() {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            }
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(format!("cannot wait for the worker: {e}")),
            }
            let ready =
                |at: usize, flags| fds.get(at).is_some_and(|fd| fd.revents().intersects(flags));
            (
                ready(0, PollFlags::all()),
                waits && ready(1, PollFlags::IN) && !ready(1, PollFlags::HUP),
            )
        };
        if asked && !exited {
            broker.start().map_err(|e| format!("cannot start the process that mounts: {e}"))?;
        }
        self.listen(lines);
        Ok(exited)
    }

    fn listen(&mut self, lines: &mut Lines) {
        for line in self.messages.read() {
            match Message::decode(&line) {
                Some(Message::TaskStart(name)) => {
                    lines.mark(&name);
                    lines.log(&format!("task {name}"));
                    lines.monitor("TASK_START", &name);
                    self.task = Some(name);
                }
                Some(Message::TaskEnd(name)) => {
                    lines.mark(match name.as_str() {
                        "MountImage" => "(labels, keys)",
                        _ => "(commit)",
                    });
                    lines.monitor("TASK_END", &name);
                    self.task = None;
                }
                Some(Message::Report(piece)) => {
                    if lines.report.len() <= REPORT_MAX {
                        lines.report.push_str(&piece);
                    }
                }
                Some(Message::Info(text)) => lines.log(&text),
                Some(Message::Warning(text)) => {
                    lines.log(&format!("warning: {text}"));
                    lines.monitor("WARNING", &text);
                }
                Some(Message::Done) => {
                    lines.mark("worker's end");
                    self.end = Some(Ok(End::Done));
                }
                Some(Message::NeedsDrivers) => self.end = Some(Ok(End::NeedsDrivers)),
                Some(Message::Failed(text)) => self.end = Some(Err(text)),
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

    fn doing(&self) -> String {
        self.task.as_ref().map(|t| format!(" in task {t}")).unwrap_or_default()
    }

    /// The result of a worker that has ended.
    fn verdict(&mut self, status: ExitStatus) -> Result<End, String> {
        match self.end.take() {
            Some(Ok(end)) if status.success() => return Ok(end),
            Some(Err(text)) => return Err(text),
            _ => {}
        }
        let words: Vec<&str> = self.last_words.iter().map(String::as_str).collect();
        let words = words.join(" ");
        let doing = self.doing();
        // The allocator's words before it aborts, or the kernel's choice when all is used up.
        if words.contains("memory allocation of") || status.signal() == Some(9) {
            return Err(format!(
                "the helper VM ran out of memory{doing}; raise HELPER_MEMORY (the image may also \
                 be damaged)"
            ));
        }
        Err(match status.signal() {
            // SIGSYS: the system call filter.
            Some(31) => format!("the worker tried something it may not do{doing}: {words}"),
            Some(6) => format!("internal error{doing}, nothing was written: {words}"),
            Some(signal) => format!("the worker died of signal {signal}{doing}: {words}"),
            None => format!("the worker ended without a result{doing}: {words}"),
        })
    }
}

/// Cuts a pipe into lines of bounded length.
struct Lined<R> {
    reader: Option<R>,
    partial: Vec<u8>,
}

impl<R: Read + AsFd> Lined<R> {
    fn new(reader: R) -> Self {
        Self { reader: Some(reader), partial: Vec::new() }
    }

    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.reader.as_ref().map(AsFd::as_fd)
    }

    fn read(&mut self) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let Some(reader) = &mut self.reader else { return lines };
        let mut buffer = [0; 4096];
        match reader.read(&mut buffer) {
            Ok(count) if count > 0 => {
                for &byte in &buffer[..count] {
                    if byte == b'\n' {
                        lines.push(std::mem::take(&mut self.partial));
                    } else if self.partial.len() <= LIMIT {
                        self.partial.push(byte);
                    }
                }
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            _ => {
                self.reader = None;
                if !self.partial.is_empty() {
                    lines.push(std::mem::take(&mut self.partial));
                }
            }
        }
        lines
    }
}
