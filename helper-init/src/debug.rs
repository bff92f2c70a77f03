//! HELPER_DEBUG: after a failure the VM stays up for a while, with a shell on serial 4. The shell
//! is a process as confined as the worker is, with the disks opened for reading only: what it looks
//! at is the image that has just made the run fail.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::pid1::uptime;
use crate::serial;
use crate::shell::{Go, Shell};
use crate::supervise::Lines;
use crate::worker::{confine, open_disks};

/// First argument of a shell.
pub(crate) const ARGUMENT: &str = "shell";
/// How often a shell that died is started again.
const SHELLS: usize = 20;
/// Longest command line.
const LINE_LIMIT: usize = 4096;
/// What is kept of the kernel's log.
const KERNEL_LOG_LIMIT: usize = 256 << 10;

/// PID 1: has a shell run until it is told to power off, or for as long as `limit`.
pub(crate) fn run(rules_dev: &str, error: &str, limit: Duration, lines: &mut Lines) {
    lines.log(&format!(
        "HELPER_DEBUG: the VM stays up for at most {} s, with a shell on serial 4",
        limit.as_secs()
    ));
    let deadline = uptime() + limit;
    for _ in 0..SHELLS {
        match one_shell(rules_dev, error, deadline) {
            Ok(true) => return,
            Ok(false) => lines.log("HELPER_DEBUG: the shell died; here is another one"),
            Err(e) => {
                lines.log(&format!("HELPER_DEBUG: no shell: {e}"));
                return;
            }
        }
    }
}

/// Whether the VM is to end now.
fn one_shell(rules_dev: &str, error: &str, deadline: Duration) -> io::Result<bool> {
    let mut child = Command::new("/proc/self/exe")
        .args([ARGUMENT, rules_dev, error])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or(rustix::io::Errno::SRCH)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_sub(uptime());
        if left.is_zero() {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            child.wait()?;
            return Ok(true);
        }
        let timeout =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(child.wait()?.success()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The shell's process: exit status 0 means power off.
pub(crate) fn shell(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let rules_dev = arguments.next().unwrap_or_default();
    let error = arguments.next().unwrap_or_default();
    let Ok(mut line) = serial::open_raw("/dev/ttyS3") else { return ExitCode::SUCCESS };
    let kernel_log = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/kmsg");
    let prepared = open_disks(&rules_dev, false).and_then(|disks| confine().map(|()| disks));
    let disks = match prepared {
        Ok(disks) => disks,
        Err(problem) => {
            let _ = writeln!(line, "no shell: {problem}");
            return ExitCode::SUCCESS;
        }
    };
    let mut shell = Shell::new(disks, error, kernel_log.ok().map(KernelLog));
    match talk(&mut shell, &mut line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reads commands and answers them until one says to end.
fn talk(shell: &mut Shell, line: &mut File) -> io::Result<()> {
    let mut command = Vec::new();
    shell.greet(line)?;
    let mut buffer = [0; 512];
    loop {
        let count = match line.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        for &byte in &buffer[..count] {
            if !matches!(byte, b'\n' | b'\r') {
                if command.len() < LINE_LIMIT {
                    command.push(byte);
                }
                continue;
            }
            let text = String::from_utf8_lossy(&std::mem::take(&mut command)).into_owned();
            if shell.command(text.trim(), line)? == Go::PowerOff {
                return Ok(());
            }
        }
    }
}

/// The kernel's log, read without waiting.
pub(crate) struct KernelLog(File);

impl KernelLog {
    /// Its lines so far, the newest where there are too many. Each read of the device is one
    /// record: `priority,sequence,time,flags;text`.
    pub(crate) fn read(&mut self) -> Vec<String> {
        let _ = io::Seek::seek(&mut self.0, io::SeekFrom::Start(0));
        let mut lines = Vec::new();
        let mut size = 0;
        let mut record = [0; 8192];
        // A record that was overwritten meanwhile is EPIPE, and the next read goes on.
        let mut gaps = 0;
        while size < KERNEL_LOG_LIMIT && gaps < 100 {
            match self.0.read(&mut record) {
                Ok(count) if count > 0 => {
                    size += count;
                    let text = String::from_utf8_lossy(&record[..count]);
                    let (head, message) = text.split_once(';').unwrap_or(("", &text));
                    let time: u64 =
                        head.split(',').nth(2).and_then(|t| t.parse().ok()).unwrap_or(0);
                    let message = message.lines().next().unwrap_or_default();
                    lines.push(format!(
                        "[{:5}.{:06}] {message}",
                        time / 1_000_000,
                        time % 1_000_000
                    ));
                }
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {
                    gaps += 1;
                }
                _ => break,
            }
        }
        lines
    }
}
