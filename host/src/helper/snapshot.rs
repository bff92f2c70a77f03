//! A helper VM that was saved after its start. Under TCG a boot takes most of a run's time and is the
//! same each time; a run that goes on from a snapshot skips it. `update-helper` makes the
//! snapshot, and it fits as long as QEMU, the machine, and the helper are what they were.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use serde_json::json;
use snf_image::random::Entropy;
use snf_image::wire::{self, SEED_SIZE};
use zeroize::Zeroizing;

use super::image::HelperImage;
use super::protocol::VmResult;
use super::qmp::{Qmp, QmpError};
use super::start::{Way, start};
use super::update::{keep, new_file};
use super::vm::Vm;
use super::{
    Acceleration, HelperConfig, HelperError, HelperSink, MonitorMessage, SECTOR_SIZE, VmDisk,
    VmRequest,
};
use crate::node::cancel::Cancel;

/// Name of the description within HELPER_DIR.
pub(super) const DESCRIPTION: &str = "snapshot.json";
/// The first part of the names of snapshots.
pub(super) const PREFIX: &str = "snapshot-";
/// How long loading one may take; it takes a tenth of a second.
const LOAD_LIMIT: Duration = Duration::from_secs(20);
/// How long booting and saving may take.
const MAKE_LIMIT: Duration = Duration::from_secs(60);
/// Size of disks that are never looked at: a floppy's.
const DISK: u64 = 1440 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Description {
    /// File name of the snapshot beside this file.
    file: String,
    /// The result of [`machine`] for the VM that was saved.
    machine: Vec<String>,
}

/// The properties that a VM shares with its snapshot: the program, the devices, the kernel. QEMU's
/// own affairs (the files of the disks, the user, the sandbox) are left out.
pub(super) fn machine(
    config: &HelperConfig,
    helper: &HelperImage,
    arguments: &[String],
) -> Option<Vec<String>> {
    const LEFT_OUT: [&str; 10] = [
        "-add-fd",
        "-append",
        "-blockdev",
        "-chardev",
        "-incoming",
        "-initrd",
        "-kernel",
        "-mon",
        "-runas",
        "-sandbox",
    ];
    let program = find_program(&config.qemu)?;
    let metadata = fs::metadata(&program).ok()?;
    let description = &helper.description;
    let mut machine = vec![
        format!("{} {} {}", program.display(), metadata.len(), metadata.mtime()),
        description.version.clone(),
        description.kernel.clone(),
        description.initramfs.clone(),
        helper.command_line(),
    ];
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match LEFT_OUT.contains(&argument.as_str()) {
            true => drop(arguments.next()),
            false => machine.push(argument.clone()),
        }
    }
    Some(machine)
}

/// The file that a program's name or path leads to.
fn find_program(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return fs::canonicalize(program).ok();
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .find_map(|directory| fs::canonicalize(directory.join(program)).ok())
}

/// The snapshot in HELPER_DIR, if there is one of such a machine.
pub(super) fn find(directory: &Path, machine: &[String]) -> Option<File> {
    let text = fs::read_to_string(directory.join(DESCRIPTION)).ok()?;
    let description: Description = serde_json::from_str(&text).ok()?;
    let named = description.file.starts_with(PREFIX) && !description.file.contains('/');
    if !named || description.machine != machine {
        return None;
    }
    File::open(directory.join(description.file)).ok()
}

/// The line for an init that goes on: the words of the run, the time, and a seed.
pub(super) fn words(run: &str) -> io::Result<Zeroizing<String>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed: Zeroizing<[u8; SEED_SIZE]> = Zeroizing::new(Entropy::from_os()?.bytes());
    let mut line = Zeroizing::new(String::with_capacity(run.len() + 256));
    line.push_str(&format!(
        "{run} {}={}.{:09} {}=",
        wire::words::TIME,
        now.as_secs(),
        now.subsec_nanos(),
        wire::words::SEED
    ));
    for byte in seed.iter() {
        for digit in [byte >> 4, byte & 15] {
            line.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    line.push('\n');
    Ok(line)
}

/// Why a snapshot is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum WakeError {
    /// QEMU's monitor.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// The kernel gives no seed.
    #[error("cannot get random bytes")]
    Random(#[source] io::Error),
    /// The init cannot be reached.
    #[error("cannot tell the helper what to do")]
    Say(#[source] io::Error),
}

impl Vm {
    /// Waits until the snapshot is loaded, tells the init about this run and lets it go on. The
    /// error says why that cannot be; nothing was done then.
    pub(super) fn wake(&mut self, cancel: &Cancel) -> Result<(), WakeError> {
        let Some(monitor) = self.monitor.take() else { return Ok(()) };
        let mut qmp = Qmp::open(monitor, Instant::now() + LOAD_LIMIT, cancel)?;
        qmp.wait_for("query-status", "paused", "internal-error")?;
        let line = words(&self.words).map_err(WakeError::Random)?;
        self.lines.say(line.as_bytes()).map_err(WakeError::Say)?;
        Ok(qmp.ask("cont", &json!({})).map(drop)?)
    }
}

/// Throws what a VM says away.
struct Deaf;

impl HelperSink for Deaf {
    fn console(&mut self, _: &str) {}
    fn warning(&mut self, _: &str) {}
    fn monitor(&mut self, _: MonitorMessage) {}
}

/// Boots the helper of a configuration under TCG and saves it. Returns the snapshot's size.
pub fn make(config: &HelperConfig, cancel: &Cancel) -> Result<u64, HelperError> {
    let helper = HelperImage::open(&config.directory)?;
    let memory = |name: &str, size| -> io::Result<File> {
        let file = File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?);
        file.set_len(size)?;
        Ok(file)
    };
    let system = |action: &'static str| HelperError::system(action);
    let request = VmRequest {
        disks: vec![VmDisk::Open(memory("disk", DISK).map_err(system("make a disk"))?)],
        parameters: memory("rules", DISK).map_err(system("make a disk"))?,
        hypervisor: String::new(),
        flush_later: true,
        sector_size: SECTOR_SIZE,
    };
    let mut vm = start(config, &helper, &request, Acceleration::Tcg, Way::Save)?;
    let machine = vm.machine.take().ok_or_else(|| HelperError::QemuMissing {
        qemu: config.qemu.clone(),
        source: io::ErrorKind::NotFound.into(),
    })?;
    let deadline = Instant::now() + MAKE_LIMIT;
    let ready = loop {
        let ended = vm.wait(deadline, &mut Deaf)?;
        if let Some(result) = vm.lines.result.result() {
            break result.clone();
        }
        cancel.check()?;
        if ended || Instant::now() >= deadline {
            vm.kill(&mut Deaf)?;
            let last = format!("{} ({})", vm.lines.last_words(), vm.lines.stderr_text());
            return Err(HelperError::NoResult { last });
        }
    };
    match ready {
        VmResult::Ready => {}
        VmResult::Error(text) => return Err(HelperError::Failed(text)),
        other => return Err(HelperError::Garbage(format!("{other:?} where READY was expected"))),
    }
    let directory = &config.directory;
    let file = new_file(directory).map_err(system("make a file for the snapshot"))?;
    let Some(monitor) = vm.monitor.take() else {
        return Err(HelperError::Garbage("no monitor".to_owned()));
    };
    let save = || -> Result<(), QmpError> {
        let mut qmp = Qmp::open(monitor, deadline, cancel)?;
        qmp.ask("stop", &json!({}))?;
        // As fast as it goes; the default is what a network can take.
        qmp.ask("migrate-set-parameters", &json!({ "max-bandwidth": 1_u64 << 40 }))?;
        qmp.give("snapshot", file.as_file().as_fd())?;
        qmp.ask("migrate", &json!({ "uri": "fd:snapshot" }))?;
        qmp.wait_for("query-migrate", "completed", "failed")
    };
    let saved = save();
    vm.kill(&mut Deaf)?;
    cancel.check()?;
    saved.map_err(|e| HelperError::system("save the helper VM")(io::Error::other(e)))?;
    let stamp = helper.description.kernel.rsplit('-').next().unwrap_or_default();
    let name = format!("{PREFIX}{stamp}");
    let persist = || -> io::Result<u64> {
        let size = file.as_file().metadata()?.len();
        keep(file, &directory.join(&name))?;
        let description = serde_json::to_string(&Description { file: name, machine })?;
        let mut new = new_file(directory)?;
        writeln!(new, "{description}")?;
        keep(new, &directory.join(DESCRIPTION))?;
        Ok(size)
    };
    persist().map_err(HelperError::system("keep the snapshot"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_snapshot_of_the_same_machine_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let machine = ["qemu 1 2", "-m", "128M"].map(str::to_owned);
        assert!(find(dir.path(), &machine).is_none());
        let write = |file: &str| {
            let description = Description { file: file.to_owned(), machine: machine.to_vec() };
            let text = serde_json::to_string(&description).unwrap();
            fs::write(dir.path().join(DESCRIPTION), text).unwrap();
        };
        write("snapshot-1");
        assert!(find(dir.path(), &machine).is_none(), "the file is not there");
        fs::write(dir.path().join("snapshot-1"), "x").unwrap();
        assert!(find(dir.path(), &machine).is_some());
        assert!(find(dir.path(), &machine[..2]).is_none());
        write("snapshot-/../../etc/passwd");
        assert!(find(dir.path(), &machine).is_none());
        fs::write(dir.path().join(DESCRIPTION), "{").unwrap();
        assert!(find(dir.path(), &machine).is_none());
    }

    #[test]
    fn words_end_a_line_and_differ() {
        let (one, two) = (words("a=b").unwrap(), words("a=b").unwrap());
        assert!(one.starts_with("a=b snf_image_time=") && one.ends_with('\n'));
        assert_eq!(one.lines().count(), 1);
        let seed = |line: &str| line.rsplit('=').next().unwrap().trim().to_owned();
        assert_eq!(seed(&one).len(), 64);
        assert_ne!(seed(&one), seed(&two));
    }

    #[test]
    fn programs_are_found_as_a_shell_does() {
        assert_eq!(find_program(Path::new("/bin/sh")), fs::canonicalize("/bin/sh").ok());
        assert!(find_program(Path::new("sh")).is_some());
        assert!(find_program(Path::new("no-such-program")).is_none());
    }
}
