//! External back-ends: programs of the admin's that know further places for images (`src/`) and
//! disks (`dst/`). docs/host.md has their protocol.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use snf_storage::Program;

use crate::limits::ANSWER_BYTES;
use crate::node::cancel::{Cancel, Cancelled};
use crate::node::config::Config;
use crate::node::log;
use crate::node::trust::{self, Distrust};

mod destination;
mod pipes;
mod source;

pub use destination::ProgramDestination;
use pipes::Pipes;
pub use source::ProgramSource;

/// The priority of our own back-ends, and of programs whose names have no number.
pub const OWN_PRIORITY: u8 = 50;

/// Why a back-end cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The folder cannot be read.
    #[error("cannot read the back-ends in {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Others than root could change what root runs.
    #[error("the back-end {name} is refused (it can be disabled)")]
    Distrust {
        /// Its name.
        name: String,
        /// The reason, and how to mend it.
        source: Distrust,
    },
    /// It did something else than the protocol says.
    #[error("the back-end {name} {problem}")]
    Failed {
        /// Its name.
        name: String,
        /// Its mistake.
        problem: String,
    },
    /// A signal came.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// The use of a folder of back-ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Back-ends that read images.
    Source,
    /// Back-ends that write disks.
    Destination,
}

impl Kind {
    /// The folder's name.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Source => "src",
            Self::Destination => "dst",
        }
    }

    /// The names of our own back-ends.
    pub fn own(self) -> &'static [&'static str] {
        match self {
            Self::Source => &["null", "local", "file", "network"],
            Self::Destination => &["local", "qemu"],
        }
    }
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its file's name without the priority.
    pub name: String,
    /// 0 to 99; the highest is asked first.
    pub priority: u8,
    /// The program.
    pub path: PathBuf,
}

/// How back-ends are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// BACKENDS_DIR.
    pub folder: PathBuf,
    /// BACKEND_TIMEOUT: how long one may be silent.
    pub patience: Duration,
    /// Their environment; never a secret.
    pub variables: Vec<(String, String)>,
}

impl Settings {
    /// The settings of the configuration.
    pub fn of(config: &Config) -> Self {
        let debug = if config.image_debug { "yes" } else { "no" };
        Self {
            folder: config.backends_dir.clone(),
            patience: config.backend_timeout,
            variables: vec![
                ("IMAGE_DIR".into(), config.image_dir.display().to_string()),
                ("IMAGE_DEBUG".into(), debug.into()),
            ],
        }
    }
}

/// The back-ends of one folder.
#[derive(Debug)]
pub struct Backends {
    settings: Settings,
    kind: Kind,
    /// In the order in which they are asked.
    pub programs: Vec<Backend>,
    /// Names that a `.disabled` file takes out, our own among them.
    pub disabled: BTreeSet<String>,
}

/// The choice for an id or a URI.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// Our own back-end.
    Own,
    /// This program.
    Program(Backend),
    /// Nobody: our own back-end of that name would, but it is disabled.
    Disabled(&'static str),
    /// Nobody.
    Nobody,
}

impl Backends {
    /// Reads the folder. One that is not there is empty.
    pub fn read(settings: &Settings, kind: Kind) -> Result<Self, BackendError> {
        let folder = settings.folder.join(kind.folder());
        let mut out = Self {
            settings: settings.clone(),
            kind,
            programs: Vec::new(),
            disabled: BTreeSet::new(),
        };
        let error = |source| BackendError::Folder { path: folder.clone(), source };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(out),
            Err(e) => return Err(error(e)),
        };
        for entry in entries {
            let path = entry.map_err(error)?.path();
            let Some(file) = path.file_name().and_then(OsStr::to_str) else { continue };
            let plain = file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !plain || file.starts_with('.') {
                continue;
            }
            if let Some(stem) = file.strip_suffix(".disabled") {
                out.disabled.insert(split_priority(stem).1.to_owned());
                continue;
            }
            // Editors' and packages' left-overs, texts: nothing that can be run.
            let left_over = [".dpkg-old", ".dpkg-dist", ".dpkg-new", ".bak", ".rpmsave"];
            if left_over.iter().any(|ending| file.ends_with(ending)) {
                continue;
            }
            let Ok(found) = fs::metadata(&path) else { continue };
            if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
                continue;
            }
            let (priority, name) = split_priority(file);
            out.programs.push(Backend { name: name.to_owned(), priority, path });
        }
        let disabled = &out.disabled;
        out.programs.retain(|program| !disabled.contains(&program.name));
        out.programs.sort_by(|a, b| b.priority.cmp(&a.priority).then(a.name.cmp(&b.name)));
        Ok(out)
    }

    /// Chooses the back-end for `place`. Ours (`own`) has priority 50 and comes before programs of the same
    /// priority.
    pub fn choose(
        &self,
        place: &str,
        own: Option<&'static str>,
        cancel: &Cancel,
    ) -> Result<Choice, BackendError> {
        let mut own_left = own.filter(|name| !self.disabled.contains(*name));
        for program in &self.programs {
            if program.priority <= OWN_PRIORITY && own_left.take().is_some() {
                return Ok(Choice::Own);
            }
            let mine = self.is_for(program, place, cancel)?;
            log::debug(|| {
                format!("back-end {}: {}", program.name, if mine { "yes" } else { "no" })
            });
            if mine {
                return Ok(Choice::Program(program.clone()));
            }
        }
        Ok(match (own_left, own) {
            (Some(_), _) => Choice::Own,
            (None, Some(name)) => Choice::Disabled(name),
            (None, None) => Choice::Nobody,
        })
    }

    /// Asks a program whether the place is one of its own (`-p`).
    fn is_for(
        &self,
        program: &Backend,
        place: &str,
        cancel: &Cancel,
    ) -> Result<bool, BackendError> {
        let (good, answer) = self.ask(program, &["-p", place], cancel)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "" | "yes" => Ok(good),
            "no" => Ok(false),
            _ if !good => Ok(false),
            other => Err(failed(
                program,
                format!("answers -p with {:?}; yes and no are valid", shorten(other)),
            )),
        }
    }

    /// Asks a program of sources for the size of the stored image in bytes (`-s`); `None` when it
    /// does not know.
    pub fn size(
        &self,
        program: &Backend,
        place: &str,
        cancel: &Cancel,
    ) -> Result<Option<u64>, BackendError> {
        let (good, answer) = self.ask(program, &["-s", place], cancel)?;
        if !good {
            return Err(failed(program, "cannot tell the size of the image (its -s failed)"));
        }
        match answer.trim() {
            "" => Ok(None),
            text => match text.parse() {
                Ok(size) => Ok(Some(size)),
                Err(_) => Err(failed(
                    program,
                    format!("answers -s with {:?}, which is no number of bytes", shorten(text)),
                )),
            },
        }
    }

    /// The image as a stream.
    pub fn open_source(
        &self,
        program: &Backend,
        place: &str,
        cancel: &Cancel,
    ) -> Result<ProgramSource, BackendError> {
        let size = self.size(program, place, cancel)?;
        let mut command = self.command(program, &[place])?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = self.spawn(program, &mut command)?;
        let pipes = Pipes::new(running, &program.name, self.settings.patience, cancel)
            .map_err(|error| failed(program, format!("cannot be listened to: {error}")))?;
        Ok(ProgramSource::new(pipes, size))
    }

    /// A place of `size` bytes that the program writes to.
    pub fn open_destination(
        &self,
        program: &Backend,
        place: &str,
        size: u64,
        cancel: &Cancel,
    ) -> Result<ProgramDestination, BackendError> {
        let mut command = self.command(program, &[place])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = self.spawn(program, &mut command)?;
        let pipes = Pipes::new(running, &program.name, self.settings.patience, cancel)
            .map_err(|error| failed(program, format!("cannot be talked to: {error}")))?;
        Ok(ProgramDestination::new(pipes, size))
    }

    fn command(&self, program: &Backend, args: &[&str]) -> Result<Command, BackendError> {
        trust::check(&program.path)
            .map_err(|source| BackendError::Distrust { name: program.name.clone(), source })?;
        let mut command = Command::new(&program.path);
        command.args(args);
        Ok(command)
    }

    fn spawn(&self, program: &Backend, command: &mut Command) -> Result<Program, BackendError> {
        let variables: Vec<(&str, &OsStr)> = self
            .settings
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), OsStr::new(value.as_str())))
            .collect();
        Program::spawn(command, &variables, &[])
            .map_err(|error| failed(program, format!("cannot be started: {error}")))
    }

    /// Runs a question to its end: whether it went well, and what was answered.
    fn ask(
        &self,
        program: &Backend,
        args: &[&str],
        cancel: &Cancel,
    ) -> Result<(bool, String), BackendError> {
        if args.last().is_some_and(|place| place.starts_with('-')) {
            // It would be taken for an option.
            return Ok((false, String::new()));
        }
        let mut command = self.command(program, args)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = self.spawn(program, &mut command)?;
        let mut pipes = Pipes::new(running, &program.name, self.settings.patience, cancel)
            .map_err(|error| failed(program, format!("cannot be listened to: {error}")))?;
        let deadline = Instant::now() + self.settings.patience;
        let mut answer = Vec::new();
        let mut buf = [0; 1024];
        let late = || failed(program, format!("does not answer {} in time", args[0]));
        loop {
            let n = pipes.read(&mut buf).map_err(|error| self.broken(program, error, cancel))?;
            answer.extend_from_slice(&buf[..n]);
            if n == 0 || answer.len() > ANSWER_BYTES {
                break;
            }
            if Instant::now() > deadline {
                return Err(late());
            }
        }
        if answer.len() > ANSWER_BYTES {
            return Err(failed(program, format!("answers {} with far too much", args[0])));
        }
        let status = pipes.finish().map_err(|error| self.broken(program, error, cancel))?;
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return Err(failed(program, format!("was ended by signal {signal}")));
        }
        Ok((status.success(), String::from_utf8_lossy(&answer).into_owned()))
    }

    fn broken(&self, program: &Backend, error: io::Error, cancel: &Cancel) -> BackendError {
        match cancel.check() {
            Err(cancelled) => cancelled.into(),
            Ok(()) => failed(program, error.to_string()),
        }
    }

    /// Logs the choice of a program.
    pub fn tell(&self, program: &Backend) {
        let what = match self.kind {
            Kind::Source => "the image comes from",
            Kind::Destination => "the image goes to",
        };
        log::info(&format!("{what} the back-end {} (priority {})", program.name, program.priority));
    }
}

fn failed(program: &Backend, problem: impl Into<String>) -> BackendError {
    BackendError::Failed { name: program.name.clone(), problem: problem.into() }
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

/// `70-name` is `name` with the priority 70.
fn split_priority(file: &str) -> (u8, &str) {
    match file.as_bytes() {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'-', _, ..] => {
            ((tens - b'0') * 10 + (ones - b'0'), &file[3..])
        }
        _ => (OWN_PRIORITY, file),
    }
}

/// Whether the folder of back-ends is good, for `snf-image-host check`: what stands in its way,
/// or the programs in their order.
pub fn survey(folder: &Path, kind: Kind) -> Result<Vec<String>, BackendError> {
    let settings = Settings {
        folder: folder.to_owned(),
        patience: Duration::from_secs(1),
        variables: Vec::new(),
    };
    let backends = Backends::read(&settings, kind)?;
    for program in &backends.programs {
        backends.command(program, &[])?;
    }
    let mut order: Vec<(u8, bool, String)> =
        backends.programs.iter().map(|p| (p.priority, false, p.name.clone())).collect();
    let own = kind.own().iter().filter(|name| !backends.disabled.contains(**name));
    order.extend(own.map(|name| (OWN_PRIORITY, true, (*name).to_owned())));
    order.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.cmp(&a.1)));
    Ok(order.into_iter().map(|(_, _, name)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_priorities() {
        assert_eq!(split_priority("70-ceph"), (70, "ceph"));
        assert_eq!(split_priority("00-ceph"), (0, "ceph"));
        assert_eq!(split_priority("ceph"), (50, "ceph"));
        assert_eq!(split_priority("7-ceph"), (50, "7-ceph"));
        assert_eq!(split_priority("70-"), (50, "70-"));
        assert_eq!(split_priority("123-x"), (50, "123-x"));
    }
}
