//! Our ends of QEMU's lines: the serial lines of the VM and QEMU's own error output.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ChildStderr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use snf_image::wire::HostLine;

use super::protocol::{LogReader, MonitorReader, ProtocolError, ResultReader, clean_line};
use super::{HelperError, HelperSink, MonitorMessage};

/// Most bytes that are kept of QEMU's error output. The first words are the ones that tell.
const STDERR_LIMIT: usize = 8192;
/// How long lines whose other end is closed may take to end.
const FINISH_LIMIT: Duration = Duration::from_secs(2);

/// The first three serial lines as socket pairs: our ends, and QEMU's.
pub(super) struct SerialPairs {
    ours: [UnixStream; 3],
    /// QEMU's ends, to be inherited.
    pub(super) theirs: [UnixStream; 3],
}

impl SerialPairs {
    /// Makes them.
    pub(super) fn make() -> Result<Self, HelperError> {
        let pair = || -> io::Result<(UnixStream, UnixStream)> {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            Ok((ours, theirs))
        };
        let make = || -> io::Result<Self> {
            let ((a, x), (b, y), (c, z)) = (pair()?, pair()?, pair()?);
            Ok(Self { ours: [a, b, c], theirs: [x, y, z] })
        };
        make().map_err(HelperError::system("make socket pairs"))
    }
}

/// The lines that are listened to.
pub(super) struct Lines {
    serial: [Option<UnixStream>; 3],
    stderr: Option<ChildStderr>,
    stderr_bytes: Vec<u8>,
    /// Serial 1.
    pub(super) log: LogReader,
    /// Serial 2.
    pub(super) result: ResultReader,
    monitor: MonitorReader,
    /// How the monitor line broke the protocol.
    pub(super) protocol_error: Option<ProtocolError>,
    /// The task that has begun and not ended.
    task: Option<String>,
}

impl Lines {
    /// Takes up our ends; QEMU's are closed here, so that a line ends with QEMU.
    pub(super) fn new(
        pairs: SerialPairs,
        stderr: Option<ChildStderr>,
    ) -> Result<Self, HelperError> {
        if let Some(stderr) = &stderr {
            rustix::io::ioctl_fionbio(stderr, true)
                .map_err(HelperError::system("set up QEMU's error output"))?;
        }
        Ok(Self {
            serial: pairs.ours.map(Some),
            stderr,
            stderr_bytes: Vec::new(),
            log: LogReader::default(),
            result: ResultReader::default(),
            monitor: MonitorReader::default(),
            protocol_error: None,
            task: None,
        })
    }

    /// The descriptors to poll.
    pub(super) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let serial = self.serial.iter().flatten().map(AsFd::as_fd);
        let all = serial.chain(self.stderr.as_ref().map(AsFd::as_fd));
        all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
    }

    /// Says a line on serial 2.
    pub(super) fn say(&mut self, line: &[u8]) -> io::Result<()> {
        self.serial[1].as_mut().ok_or(io::ErrorKind::BrokenPipe)?.write_all(line)
    }

    /// Tells the init that the time is up. If it cannot hear that, the soft limit ends the run.
    pub(super) fn stop(&mut self, limit: Duration) {
        let order = HostLine::Stop { seconds: limit.as_secs() };
        let _ = self.say(format!("{order}\n").as_bytes());
    }

    /// The task that runs, in words for the end of a sentence.
    pub(super) fn doing(&self) -> String {
        self.task.as_ref().map(|task| format!(" in task {task}")).unwrap_or_default()
    }

    /// Takes what the lines hold, at most a bounded piece of each.
    pub(super) fn listen(&mut self, sink: &mut dyn HelperSink) {
        let mut buffer = [0; 16384];
        for n in 0..self.serial.len() {
            let Some(count) = read(&mut self.serial[n], &mut buffer) else { continue };
            let bytes = &buffer[..count];
            match n {
                0 => self.log.feed(bytes, &mut |line| sink.console(line)),
                1 => self.result.feed(bytes),
                _ => {
                    let task = &mut self.task;
                    let heard = self.monitor.feed(bytes, &mut |message| {
                        match &message {
                            MonitorMessage::TaskStart(name) => *task = Some(name.clone()),
                            MonitorMessage::TaskEnd(_) => *task = None,
                            _ => {}
                        }
                        sink.monitor(message);
                    });
                    self.protocol_error = self.protocol_error.take().or(heard.err());
                }
            }
        }
        if let Some(count) = read(&mut self.stderr, &mut buffer) {
            let room = STDERR_LIMIT.saturating_sub(self.stderr_bytes.len());
            self.stderr_bytes.extend_from_slice(&buffer[..count.min(room)]);
        }
    }

    /// QEMU has ended and closed its ends: hears all that the lines still hold, which is bounded.
    pub(super) fn finish(&mut self, sink: &mut dyn HelperSink) {
        let limit = Instant::now() + FINISH_LIMIT;
        while (self.serial.iter().any(Option::is_some) || self.stderr.is_some())
            && Instant::now() < limit
        {
            self.listen(sink);
        }
        self.log.finish(&mut |line| sink.console(line));
        let unfinished = self.monitor.finish();
        self.protocol_error = self.protocol_error.take().or(unfinished.err());
    }

    /// QEMU's error output, as part of a sentence.
    pub(super) fn stderr_text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr_bytes);
        let lines: Vec<String> = text
            .lines()
            .map(|line| clean_line(line.as_bytes()))
            .filter(|line| !line.trim().is_empty() && !line.contains("warning:"))
            .take(4)
            .collect();
        if lines.is_empty() { "no message".to_owned() } else { lines.join(" / ") }
    }

    /// The last words of the console, as part of a sentence.
    pub(super) fn last_words(&self) -> String {
        let last: Vec<&str> = match self.log.panic() {
            Some(panic) => vec![panic],
            None => self.log.tail().collect(),
        };
        if last.is_empty() { "none".to_owned() } else { last.join(" / ") }
    }
}

/// Reads what a line holds. A line that has ended is closed.
fn read<R: Read>(line: &mut Option<R>, buffer: &mut [u8]) -> Option<usize> {
    match line.as_mut()?.read(buffer) {
        Ok(count) if count > 0 => return Some(count),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        _ => *line = None,
    }
    None
}
