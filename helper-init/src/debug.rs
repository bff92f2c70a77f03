//! HELPER_DEBUG: after a failure the VM stays up for a while, with a shell on serial 4. The shell
//! is a process as confined as the worker is, with the disks opened for reading only: what it looks
//! at is the image that has just made the run fail.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use snf_image::failure::sentence;

use crate::confine::confine;
use crate::disks::open_disks;
use crate::kernel_log::KernelLog;
use crate::lines::Lines;
use crate::serial;
use crate::shell::{Go, Shell};

/// First argument of a shell.
pub(crate) const ARGUMENT: &str = "shell";
/// How often a shell that died is started again.
const SHELLS: usize = 20;
/// Longest command line.
const LINE_LIMIT: usize = 4096;

/// PID 1: has a shell run until it is told to power off. The host ends the VM when nobody does.
pub(crate) fn run(rules_dev: &str, error: &str, lines: &mut Lines) {
    lines.log("HELPER_DEBUG: the VM stays up, with a shell on serial 4");
    for _ in 0..SHELLS {
        match one_shell(rules_dev, error) {
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
fn one_shell(rules_dev: &str, error: &str) -> io::Result<bool> {
    let status = Command::new("/proc/self/exe")
        .args([ARGUMENT, rules_dev, error])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(status.success())
}

/// The shell's process: exit status 0 means power off.
pub(crate) fn shell(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let rules_dev = arguments.next().unwrap_or_default();
    let error = arguments.next().unwrap_or_default();
    let Ok(mut line) = serial::open_raw("/dev/ttyS3") else { return ExitCode::SUCCESS };
    let kernel_log = KernelLog::open().ok();
    let prepared = open_disks(&rules_dev, false).and_then(|disks| confine().map(|()| disks));
    let disks = match prepared {
        Ok(disks) => disks,
        Err(problem) => {
            let _ = writeln!(line, "no shell: {}", sentence(&problem));
            return ExitCode::SUCCESS;
        }
    };
    let mut shell = Shell::new(disks, error, kernel_log);
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
