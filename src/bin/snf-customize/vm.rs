//! `--vm`: the same edit inside the helper VM. The program that runs virtual machines is
//! snf-image-host; it gets the disk as a descriptor and the request, with its passwords, through a
//! pipe, and answers through another.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::io::FdFlags;
use snf_image::customize::{Mode, Report};
use snf_image::failure::sentence;
use snf_image::request::{Answer, Outcome, Request};

use crate::args::Apply;
use crate::exit::{Exit, Failure};
use crate::output::Listener;
use crate::signals::Progress;

/// The program that runs the helper VM.
const HOST: &str = "snf-image-host";
/// A further directory to look in, beside that of this program and the PATH.
pub(crate) const LIBRARY: &str = "/usr/lib/snf-image";
/// A longer answer is none of ours.
const ANSWER_MAX: u64 = 16 << 20;

/// Has the helper VM do what is asked for.
pub(crate) fn customize(
    args: &Apply,
    request: &Request,
    disk: &File,
    listener: &mut Listener,
    progress: &Progress,
) -> Result<Report, Failure> {
    let fail = |problem: String| Failure::new(Exit::Vm, problem);
    let text = request.write().map_err(|error| fail(sentence(&error)))?;
    // The child inherits this descriptor and opens the disk anew through it.
    rustix::io::fcntl_setfd(disk, FdFlags::empty())
        .map_err(|errno| fail(format!("cannot pass the disk on: {errno}")))?;
    let program = host_program();
    let mut command = Command::new(&program);
    command.arg("customize-vm").arg("--disk-fd").arg(disk.as_raw_fd().to_string());
    if request.mode == Mode::DryRun {
        command.arg("--read-only");
    }
    if let Some(directory) = &args.helper {
        command.arg("--helper").arg(directory);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // From here on the child decides the meaning of a signal: it knows whether the disk was written.
    progress.begin_writing();
    let mut child = command.spawn().map_err(|error| {
        fail(format!(
            "cannot run {}, which runs the helper VM: {error}; install it beside snf-customize, in \
             {LIBRARY} or in the PATH",
            program.display()
        ))
    })?;
    progress.pass_signals_to(i32::try_from(child.id()).unwrap_or(0));
    let answer = converse(&mut child, text.expose());
    let status = child.wait();
    progress.pass_signals_to(0);
    let answer = answer.map_err(|problem| {
        // One that was killed may have written before.
        let killed = status.as_ref().is_ok_and(|status| status.signal().is_some());
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let problem = sentence(&problem);
        let text = format!("{} gave no answer ({status}): {problem}", program.display());
        if killed && request.mode == Mode::Commit {
            let unknown =
                format!("{text}; nobody knows whether {} was written", args.disk.display());
            return Failure::new(Exit::Commit, unknown);
        }
        fail(text)
    })?;
    judge(args, answer, listener)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// The pipe broke.
    #[error(transparent)]
    Read(#[from] std::io::Error),
    /// Words of somebody else.
    #[error(transparent)]
    Parse(#[from] serde_json::Error),
}

/// Sends the request and reads the answer.
fn converse(child: &mut Child, request: &[u8]) -> Result<Answer, NoAnswer> {
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing has something else to say.
        let _ = stdin.write_all(request);
    }
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(ANSWER_MAX).read_to_end(&mut text)?;
    }
    Ok(serde_json::from_slice(&text)?)
}

/// Turns an answer into a report or a failure.
fn judge(args: &Apply, answer: Answer, listener: &mut Listener) -> Result<Report, Failure> {
    for warning in answer.warnings {
        listener.warn(warning);
    }
    let disk = args.disk.display();
    let outcome = answer.outcome.as_deref().map(|text| Outcome::parse(text.as_bytes()));
    if answer.interrupted && !answer.wrote {
        return Err(Failure::new(Exit::Interrupted, format!("interrupted; {disk} is as it was")));
    }
    let (exit, message) = match (outcome, answer.error) {
        (Some(Ok(Outcome { report: Some(report), .. })), None) => {
            for warning in &report.warnings {
                listener.warn(warning.clone());
            }
            return Ok(report);
        }
        (Some(Ok(Outcome { failure: Some(failed), warnings, .. })), _) => {
            for warning in warnings {
                listener.warn(warning);
            }
            (Exit::from(failed.family), failed.message)
        }
        (_, Some(error)) => (Exit::Vm, error),
        (Some(Err(error)), None) => (Exit::Vm, sentence(&error)),
        (_, None) if args.dry_run => {
            (Exit::Vm, "the helper VM was done and left no report".to_owned())
        }
        (_, None) => {
            // Everything is written, and the report was too long to be sent.
            return Err(Failure::new(
                Exit::Commit,
                format!("the helper VM has changed {disk} as asked, but its report got lost"),
            ));
        }
    };
    if answer.wrote {
        return Err(Failure::new(
            Exit::Commit,
            format!(
                "{message}; writing had begun: ext3, ext4, xfs and btrfs are consistent once they \
                 are opened next, other file systems need their own check"
            ),
        ));
    }
    Err(Failure::new(exit, message))
}

/// Beside this program, in the directory for programs that nobody calls by hand, or in the PATH.
pub(crate) fn host_program() -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent);
    let candidates = [
        beside.map(|dir| dir.join(HOST)),
        beside.map(|dir| dir.join("../lib/snf-image").join(HOST)),
        Some(Path::new(LIBRARY).join(HOST)),
    ];
    let found = candidates.into_iter().flatten().find(|path| path.is_file());
    found.unwrap_or_else(|| HOST.into())
}
