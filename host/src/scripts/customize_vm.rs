//! `snf-image-host customize-vm`: the half of `snf-customize --vm` that runs the helper VM. The
//! request comes on standard input (it holds passwords), the disk as an inherited descriptor, and
//! the answer goes to standard output. It needs no root.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use rustix::process::Signal;
use snf_image::request::{self, Answer};
use snf_image::secret::Secret;
use zeroize::Zeroizing;

use crate::helper::{
    HelperError, HelperSink, MonitorMessage, SECTOR_SIZE, VmDisk, VmRequest, run_helper,
};
use crate::node::cancel::Cancel;
use crate::node::config::{self, Config};
use crate::node::harden::harden;
use crate::scripts::create::{CreateError, helper_config, parameter_disk};

/// A request larger than this fits onto no parameter disk.
const REQUEST_MAX: u64 = 16 << 20;

/// Why there is no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum CustomizeVmError {
    /// Not called as snf-customize does.
    #[error("customize-vm is called by snf-customize --vm: {0}")]
    Usage(String),
    /// Reading the request or writing the answer failed.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// Signals cannot be watched.
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
}

struct Options {
    disk: String,
    read_only: bool,
    helper: Option<PathBuf>,
}

impl Options {
    fn parse(args: Vec<OsString>) -> Result<Self, CustomizeVmError> {
        let usage = |problem: String| CustomizeVmError::Usage(problem);
        let (mut disk, mut read_only, mut helper) = (None, false, None);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value =
                || args.next().ok_or_else(|| usage(format!("{} needs a value", arg.display())));
            match arg.to_str() {
                Some("--disk-fd") => {
                    let number = value()?.to_string_lossy().parse::<u16>();
                    let number = number.map_err(|_| usage("--disk-fd takes a number".into()))?;
                    disk = Some(format!("/proc/self/fd/{number}"));
                }
                Some("--read-only") => read_only = true,
                Some("--helper") => helper = Some(value()?.into()),
                _ => return Err(usage(format!("unknown argument {arg:?}"))),
            }
        }
        let disk = disk.ok_or_else(|| usage("there is no --disk-fd".into()))?;
        Ok(Self { disk, read_only, helper })
    }
}

/// Runs the request and prints the answer. An error is one that leaves no answer.
pub fn run(args: Vec<OsString>) -> Result<(), CustomizeVmError> {
    harden();
    let options = Options::parse(args)?;
    // The caller has gone: nobody is there to hear the answer.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    let cancel = Cancel::on_signals().map_err(CustomizeVmError::Signals)?;
    let request = read_secret(io::stdin().take(REQUEST_MAX + 1))
        .map_err(|error| CustomizeVmError::Io("read the request", error))?;
    let mut sink = Sink::default();
    let result = attempt(&options, request, &cancel, &mut sink);
    let mut answer = sink.answer;
    if let Err(failure) = result {
        answer.interrupted = failure.interrupted;
        answer.error = Some(failure.message);
    }
    let text = serde_json::to_vec(&answer)
        .map_err(|error| CustomizeVmError::Io("write the answer", error.into()))?;
    let mut out = io::stdout().lock();
    out.write_all(&text)
        .and_then(|()| out.flush())
        .map_err(|error| CustomizeVmError::Io("write the answer", error))
}

/// Reads all of a secret. A buffer that became too small is wiped: a `Vec` that grows by itself
/// leaves its content in memory that is free.
fn read_secret(mut reader: impl Read) -> io::Result<Secret> {
    let mut text = Zeroizing::new(vec![0; 64 << 10]);
    let mut filled = 0;
    loop {
        if filled == text.len() {
            let mut larger = Zeroizing::new(vec![0; 2 * text.len()]);
            larger[..filled].copy_from_slice(&text);
            text = larger;
        }
        match reader.read(&mut text[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    text.truncate(filled);
    Ok(Secret::new(std::mem::take(&mut *text)))
}

struct Failure {
    message: String,
    interrupted: bool,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { message, interrupted: false }
    }
}

impl From<HelperError> for Failure {
    fn from(error: HelperError) -> Self {
        let interrupted = matches!(error, HelperError::Cancelled(_));
        let hint = match &error {
            HelperError::NotBuilt(_) => ", or name the directory of one with --helper",
            _ => "",
        };
        let message = format!("{}{hint}", crate::node::log::chain(&error));
        Self { message, interrupted }
    }
}

fn attempt(
    options: &Options,
    request: Secret,
    cancel: &Cancel,
    sink: &mut Sink,
) -> Result<(), Failure> {
    if request.expose().len() as u64 > REQUEST_MAX {
        return Err(too_large().into());
    }
    let mut config = helper_config(&configuration(sink));
    if let Some(directory) = &options.helper {
        config.directory.clone_from(directory);
    }
    let disk = OpenOptions::new()
        .read(true)
        .write(!options.read_only)
        .open(&options.disk)
        .map_err(|error| format!("cannot open the disk again for the helper VM: {error}"))?;
    let sector_size = sector_size(&disk)
        .map_err(|error| format!("the disk's sector size cannot be found: {error}"))?;
    let before = Written::look(&disk);
    let parameters = parameter_disk(&[(request::FILE, request)]).map_err(|error| match error {
        CreateError::Floppy(_) => too_large(),
        other => crate::node::log::chain(&other),
    })?;
    let watched =
        disk.try_clone().map_err(|error| format!("cannot duplicate a descriptor: {error}"))?;
    let disk = if options.read_only { VmDisk::ReadOnly(disk) } else { VmDisk::Open(disk) };
    let request = VmRequest {
        disks: vec![disk],
        parameters,
        hypervisor: "kvm".into(),
        // A cut must leave the old image or the new one.
        flush_later: false,
        sector_size,
    };
    let result = run_helper(&config, &request, cancel, sink);
    let synced = match options.read_only {
        true => Ok(()),
        // QEMU wrote through another description of the same file.
        false => watched.sync_all(),
    };
    sink.answer.wrote = !options.read_only && before != Written::look(&watched);
    synced.map_err(|error| format!("cannot write the disk out: {error}"))?;
    Ok(result.map(drop)?)
}

/// As snf-customize takes it without the VM: a file has sectors of 512 bytes, a device its own.
fn sector_size(disk: &File) -> io::Result<u32> {
    match disk.metadata()?.file_type().is_block_device() {
        true => Ok(rustix::fs::ioctl_blksszget(disk)?),
        false => Ok(SECTOR_SIZE),
    }
}

fn too_large() -> String {
    "the files to be written do not fit onto the largest parameter disk of the helper VM (16 MiB, of \
     which text in base64 takes a third more than the files have); write large files without --vm"
        .to_owned()
}

/// The node's settings. An ordinary user may not be allowed to read them: then those that hold
/// when there are none.
fn configuration(sink: &mut Sink) -> Config {
    let named = std::env::var_os(config::PATH_VARIABLE).map(PathBuf::from);
    Config::load(named.as_deref(), None).unwrap_or_else(|error| {
        sink.answer.warnings.push(format!(
            "the defaults of the helper VM are used: {}",
            crate::node::log::chain(&error)
        ));
        Config::default()
    })
}

/// Marks that change when somebody writes to a disk.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    time: Option<(i64, i64)>,
    sectors: Option<String>,
}

impl Written {
    fn look(disk: &File) -> Self {
        let Ok(metadata) = disk.metadata() else { return Self { time: None, sectors: None } };
        if !metadata.file_type().is_block_device() {
            let time = Some((metadata.mtime(), metadata.mtime_nsec()));
            return Self { time, sectors: None };
        }
        let device = metadata.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        // The seventh number counts the sectors that were written.
        let sectors = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))
            .ok()
            .and_then(|text| text.split_whitespace().nth(6).map(str::to_owned));
        Self { time: None, sectors }
    }
}

#[derive(Default)]
struct Sink {
    answer: Answer,
}

impl HelperSink for Sink {
    fn console(&mut self, _line: &str) {}

    fn warning(&mut self, text: &str) {
        self.answer.warnings.push(text.to_owned());
    }

    fn monitor(&mut self, _message: MonitorMessage) {}

    fn report(&mut self, report: &[u8]) {
        self.answer.outcome = Some(String::from_utf8_lossy(report).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_snf_customize_calls_it() {
        let parse = |args: &[&str]| Options::parse(args.iter().map(OsString::from).collect());
        for args in [&[][..], &["--disk-fd"], &["--disk-fd", "/etc"], &["--disk-fd", "3", "x"]] {
            assert!(matches!(parse(args), Err(CustomizeVmError::Usage(_))), "{args:?}");
        }
        let options = parse(&["--disk-fd", "3", "--read-only", "--helper", "/h"]).unwrap();
        assert_eq!((options.disk.as_str(), options.read_only), ("/proc/self/fd/3", true));
        assert_eq!(options.helper, Some("/h".into()));
    }

    #[test]
    fn a_request_of_any_length_is_read() {
        for length in [0, 5, 64 << 10, (64 << 10) + 1, 1 << 20] {
            let text: Vec<u8> = (0..length).map(|n| n as u8).collect();
            assert_eq!(read_secret(&text[..]).unwrap().expose(), text);
        }
    }

    #[test]
    fn a_write_is_noticed() {
        let mut file = tempfile::tempfile().unwrap();
        let before = Written::look(&file);
        assert_eq!(before, Written::look(&file));
        std::thread::sleep(std::time::Duration::from_millis(20));
        file.write_all(b"x").unwrap();
        assert_ne!(before, Written::look(&file));
    }
}
