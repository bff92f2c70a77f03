//! The questions to virsh. It runs in the locale C, and its answers are bounded.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::exit::{Exit, Failure};

/// The document of a domain has some kilobytes.
const ANSWER_MAX: u64 = 4 << 20;

/// virsh on one libvirt.
pub(super) struct Virsh<'a> {
    connect: Option<&'a str>,
}

/// The state of a domain.
pub(super) struct State {
    /// As virsh says it: `shut off`, `running`, `paused`, ...
    pub(super) running: String,
    /// Whether libvirt keeps the memory of a run that is to go on (managed save).
    pub(super) saved: bool,
}

fn failure(problem: String) -> Failure {
    Failure::new(Exit::Device, problem)
}

impl<'a> Virsh<'a> {
    pub(super) fn new(connect: Option<&'a str>) -> Self {
        Self { connect }
    }

    /// Runs virsh and gives what it says. `what` is the purpose, for messages.
    fn ask(&self, what: &str, words: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new("virsh");
        if let Some(uri) = self.connect {
            command.args(["--connect", uri]);
        }
        command.arg("--quiet").args(words).env("LC_ALL", "C").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            match error.kind() {
            std::io::ErrorKind::NotFound => failure(
                "-d: virsh, which knows the domains, is not installed; install libvirt-clients, or \
                 name the disk"
                    .to_owned(),
            ),
            _ => failure(format!("-d: cannot run virsh: {error}")),
        }
        })?;
        // Errors are short: they wait in the pipe.
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(ANSWER_MAX).read_to_end(&mut out);
            read.map_err(|error| failure(format!("-d: cannot read from virsh: {error}")))?;
        }
        if let Some(stderr) = child.stderr.take() {
            // Without its words the status says enough.
            let _ = stderr.take(ANSWER_MAX).read_to_end(&mut errors);
        }
        let status =
            child.wait().map_err(|e| failure(format!("-d: cannot wait for virsh: {e}")))?;
        if !status.success() {
            let errors = String::from_utf8_lossy(&errors);
            let words = errors.lines().map(str::trim).rfind(|line| !line.is_empty());
            let words = words.map_or_else(|| status.to_string(), str::to_owned);
            let words = words.trim_start_matches("error: ");
            return Err(failure(format!("{what}: virsh says: {words}")));
        }
        if out.len() as u64 >= ANSWER_MAX {
            return Err(failure(format!("{what}: virsh says more than {ANSWER_MAX} bytes")));
        }
        String::from_utf8(out).map_err(|_| failure(format!("{what}: virsh gives no text")))
    }

    /// The disks of a libvirt on another machine are not here.
    pub(super) fn refuse_elsewhere(&self) -> Result<(), Failure> {
        let uri = self.ask("-d: which libvirt", &["uri"])?;
        let uri = uri.trim();
        let host = uri
            .split_once("://")
            .map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or(""));
        match host {
            "" | "localhost" => Ok(()),
            host => Err(failure(format!(
                "-d: the libvirt {uri} is on the machine {host}, and its disks are there; run \
                 snf-customize there"
            ))),
        }
    }

    /// Whether the domain runs.
    pub(super) fn state(&self, domain: &str) -> Result<State, Failure> {
        let text = self.ask(&format!("-d {domain}"), &["dominfo", "--domain", domain])?;
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.map(|value| value.trim().to_owned())
        };
        let running = field("State").ok_or_else(|| {
            failure(format!("-d {domain}: virsh does not say the state of the domain"))
        })?;
        Ok(State { running, saved: field("Managed save").as_deref() == Some("yes") })
    }

    /// The document of the domain as its next start will have it.
    pub(super) fn document(&self, domain: &str) -> Result<String, Failure> {
        self.ask(&format!("-d {domain}"), &["dumpxml", "--inactive", "--domain", domain])
    }

    /// The path of a volume of a storage pool.
    pub(super) fn volume(&self, pool: &str, volume: &str) -> Result<PathBuf, Failure> {
        let what = format!("-d: the volume {volume} of the pool {pool}");
        let path = self.ask(&what, &["vol-path", "--pool", pool, "--vol", volume])?;
        Ok(path.trim().into())
    }
}
