//! Talking to a running program without ever waiting for it in vain: its streams are looked at
//! together, what it says on its error output goes into the log, and silence has an end.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use snf_storage::Program;

use crate::node::cancel::Cancel;
use crate::node::log;

/// How often a wait looks whether it was asked to stop.
const TICK: Duration = Duration::from_millis(250);
/// Lines of a program that go into the log, and how long one may be.
const MAX_LINES: usize = 200;
const MAX_LINE: usize = 1000;

/// A running back-end and our ends of its streams.
pub struct Pipes {
    program: Program,
    name: String,
    patience: Duration,
    cancel: Cancel,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    words: Vec<u8>,
    lines: usize,
    last_line: String,
}

impl Pipes {
    /// Takes the streams that were piped.
    pub fn new(
        mut program: Program,
        name: &str,
        patience: Duration,
        cancel: &Cancel,
    ) -> io::Result<Self> {
        let child = program.child();
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        if let Some(stream) = &stdin {
            rustix::io::ioctl_fionbio(stream, true)?;
        }
        if let Some(stream) = &stdout {
            rustix::io::ioctl_fionbio(stream, true)?;
        }
        if let Some(stream) = &stderr {
            rustix::io::ioctl_fionbio(stream, true)?;
        }
        Ok(Self {
            program,
            name: name.to_owned(),
            patience,
            cancel: cancel.clone(),
            stdin,
            stdout,
            stderr,
            words: Vec::new(),
            lines: 0,
            last_line: String::new(),
        })
    }

    /// The back-end's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next bytes of its output; 0 at the end of it.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let deadline = Instant::now() + self.patience;
        loop {
            self.listen();
            let Some(stdout) = &mut self.stdout else { return Ok(0) };
            match stdout.read(buf) {
                Ok(0) => {
                    self.stdout = None;
                    return Ok(0);
                }
                Ok(n) => return Ok(n),
                Err(error) if waits(&error) => self.wait(deadline, "has sent nothing")?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives it all of `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        let mut deadline = Instant::now() + self.patience;
        while written < bytes.len() {
            self.listen();
            self.overhear();
            let Some(stdin) = &mut self.stdin else { return Err(io::ErrorKind::BrokenPipe.into()) };
            match stdin.write(&bytes[written..]) {
                Ok(n) => {
                    written += n;
                    deadline = Instant::now() + self.patience;
                }
                Err(error) if waits(&error) => self.wait(deadline, "has read nothing")?,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.stdin = None;
                    let status = self.finish()?;
                    return Err(io::Error::other(format!(
                        "stopped reading before the image had ended ({})",
                        self.words_of(status)
                    )));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Closes its input and waits for its end.
    pub fn finish(&mut self) -> io::Result<ExitStatus> {
        self.stdin = None;
        let deadline = Instant::now() + self.patience;
        loop {
            self.listen();
            self.overhear();
            if let Some(status) = self.program.status()? {
                self.listen();
                self.say_rest();
                return Ok(status);
            }
            self.cancel.check().map_err(io::Error::other)?;
            if Instant::now() >= deadline {
                return Err(self.silent("has not ended"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Fails unless it ended well.
    pub fn finish_well(&mut self) -> io::Result<()> {
        let status = self.finish()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("failed: {}", self.words_of(status))))
    }

    /// An exit status in words, with the last that was said before it.
    fn words_of(&self, status: ExitStatus) -> String {
        let mut text = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            _ => "an unknown status".to_owned(),
        };
        if !self.last_line.is_empty() {
            text.push_str(&format!("; its last words: {}", self.last_line));
        }
        text
    }

    fn silent(&self, what: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{what} for {} s (BACKEND_TIMEOUT)", self.patience.as_secs_f64()),
        )
    }

    /// Waits a moment for any of its streams.
    fn wait(&mut self, deadline: Instant, what: &str) -> io::Result<()> {
        self.cancel.check().map_err(io::Error::other)?;
        let now = Instant::now();
        if now >= deadline {
            return Err(self.silent(what));
        }
        let left = (deadline - now).min(TICK);
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = Vec::new();
        if let Some(stream) = &self.stdin {
            fds.push(PollFd::new(stream, PollFlags::OUT));
        }
        if let Some(stream) = &self.stdout {
            fds.push(PollFd::new(stream, PollFlags::IN));
        }
        if let Some(stream) = &self.stderr {
            fds.push(PollFd::new(stream, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what it said on its error output into the log.
    fn listen(&mut self) {
        let mut buf = [0; 4096];
        while let Some(stderr) = &mut self.stderr {
            match stderr.read(&mut buf) {
                Ok(0) => self.stderr = None,
                Ok(n) => self.hear(&buf[..n]),
                Err(error) if waits(&error) => return,
                Err(_) => self.stderr = None,
            }
        }
    }

    /// The output of a program that only has to read is words, too.
    fn overhear(&mut self) {
        let mut buf = [0; 4096];
        while let Some(stdout) = &mut self.stdout {
            match stdout.read(&mut buf) {
                Ok(0) => self.stdout = None,
                Ok(n) => self.hear(&buf[..n]),
                Err(error) if waits(&error) => return,
                Err(_) => self.stdout = None,
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.say_rest();
            } else if self.words.len() < MAX_LINE {
                self.words.push(*byte);
            }
        }
    }

    fn say_rest(&mut self) {
        let words = std::mem::take(&mut self.words);
        let text = String::from_utf8_lossy(words.trim_ascii());
        if text.is_empty() {
            return;
        }
        self.lines += 1;
        if self.lines <= MAX_LINES {
            log::line(&format!("BACKEND {}: {text}", self.name));
        }
        self.last_line = text.into_owned();
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
