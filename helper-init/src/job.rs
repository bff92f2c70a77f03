//! The job itself: from the parameter disk to the customized image. Runs in the worker, without
//! any right but the open disks.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use snf_fs::ext::{Ext, Options};
use snf_fs::{BlockDevice, FileSystem, FileType};
use snf_image::customize::{Instance, Mode, Report, customize_instance};
use snf_image::event::{Event, EventSink};
use snf_image::failure::{Family, sentence};
use snf_image::guest::mounter::Mounter;
use snf_image::random::{Clock, Entropy};
use snf_image::request::{self, Failed, Outcome, Request};
use snf_image::rules::{MAX_SIZE, Rules};
use snf_image::secret::Secret;
use snf_image::wire::TRIAL_FILE;
use zeroize::Zeroizing;

use crate::disks::Disks;
use crate::error::JobError;
use crate::kernel::KernelMounter;

/// Does what the parameter disk says: the rules of Ganeti's door, or a request of
/// `snf-customize`, whose report goes into `report`.
pub(crate) fn run(
    parameters: Arc<dyn BlockDevice>,
    disks: &Disks,
    broker: Option<OwnedFd>,
    events: &mut dyn EventSink,
    report: &mut Vec<u8>,
) -> Result<(), JobError> {
    let disk = ParameterDisk::open(parameters)?;
    if disk.file(TRIAL_FILE)?.is_some() {
        return Ok(());
    }
    if let Some(text) = disk.file(request::FILE)? {
        return requested(text.expose(), disks, broker, events, report);
    }
    let rules = disk.rules()?;
    let mut plan = rules.plan().map_err(JobError::Plan)?;
    plan.windows.answer_file = disk.file("unattend.xml")?;
    plan.windows.sysprep_inf = disk.file("sysprep.inf")?;
    drop(disk);
    let devices = rules.devices();
    let device = devices.first().ok_or(JobError::NoDevice)?;
    let disk = disks.get(device).ok_or_else(|| {
        let known: Vec<&str> = disks.keys().map(String::as_str).collect();
        JobError::UnknownDisk { device: device.clone(), known: known.join(", ") }
    })?;
    let mut entropy = entropy()?;
    // SWAP may name one of the instance's further disks by its letter.
    let others = devices.iter().skip(1).map_while(|device| disks.get(device).cloned()).collect();
    let instance = Instance {
        disk: disk.clone(),
        members: Vec::new(),
        others,
        mounter: mounter(broker, device),
    };
    let clock = Clock::system();
    let done = customize_instance(instance, &plan, &mut entropy, &clock, events, Mode::Commit)?;
    disk.flush()?;
    tell(&done, events);
    Ok(())
}

/// The disk of a request: it is the only one.
const DISK: &str = "/dev/vda";

/// Does what `snf-customize` asks for.
fn requested(
    text: &[u8],
    disks: &Disks,
    broker: Option<OwnedFd>,
    events: &mut dyn EventSink,
    report: &mut Vec<u8>,
) -> Result<(), JobError> {
    let request = Request::parse(text)?;
    let disk = disks.get(DISK).ok_or(JobError::NoDisk)?;
    let mut entropy = match request.seed {
        Some(seed) => Entropy::seeded(seed),
        None => entropy()?,
    };
    let instance = Instance {
        disk: disk.clone(),
        members: Vec::new(),
        others: Vec::new(),
        mounter: mounter(broker, DISK),
    };
    let mut events = Warnings { events, warnings: Vec::new() };
    let (plan, clock, mode) = (&request.plan, &request.clock, request.mode);
    let result = customize_instance(instance, plan, &mut entropy, clock, &mut events, mode);
    let (outcome, result) = match result {
        Ok(done) => {
            if mode == Mode::Commit {
                disk.flush()?;
            }
            tell(&done, events.events);
            (Outcome { report: Some(done), failure: None, warnings: Vec::new() }, Ok(()))
        }
        Err(error) => {
            let failed = Failed { family: Family::of(&error), message: sentence(&error) };
            let outcome =
                Outcome { report: None, failure: Some(failed), warnings: events.warnings };
            (outcome, Err(error.into()))
        }
    };
    *report = outcome.write();
    result
}

/// Passes events on and keeps the warnings for the report.
struct Warnings<'a> {
    events: &'a mut dyn EventSink,
    warnings: Vec<String>,
}

impl EventSink for Warnings<'_> {
    fn event(&mut self, event: Event) {
        if let Event::Warning(text) = &event {
            self.warnings.push(text.clone());
        }
        self.events.event(event);
    }
}

/// Waits until the kernel's pool is seeded: nothing is ever made from a guess.
fn entropy() -> Result<Entropy, JobError> {
    Entropy::from_os().map_err(JobError::Random)
}

fn mounter(broker: Option<OwnedFd>, disk: &str) -> Option<Arc<dyn Mounter>> {
    broker.map(|broker| Arc::new(KernelMounter::new(broker, disk)) as _)
}

fn tell(report: &Report, events: &mut dyn EventSink) {
    events.event(Event::Info(format!(
        "{}{} files changed",
        if report.system.is_empty() { String::new() } else { format!("{}: ", report.system) },
        report.changes.len()
    )));
}

/// The file system of the parameter disk.
struct ParameterDisk(Ext);

impl ParameterDisk {
    fn open(device: Arc<dyn BlockDevice>) -> Result<Self, JobError> {
        Ext::open(device, Options::default()).map(Self).map_err(JobError::Disk)
    }

    fn rules(&self) -> Result<Rules, JobError> {
        let text = self.file("rules")?.ok_or(JobError::NoRules)?;
        Rules::parse(text.expose()).map_err(JobError::Rules)
    }

    /// The content of a file in the root directory, if there is one of that name.
    fn file(&self, name: &'static str) -> Result<Option<Secret>, JobError> {
        let fs = &self.0;
        let Some(node) = fs.lookup(fs.root(), name.as_bytes()).map_err(JobError::Disk)? else {
            return Ok(None);
        };
        let stat = fs.stat(node).map_err(JobError::Disk)?;
        let size = usize::try_from(stat.size).ok().filter(|&size| size <= MAX_SIZE);
        let (FileType::Regular, Some(size)) = (stat.file_type, size) else {
            return Err(JobError::NotAFile(name));
        };
        let mut text = Zeroizing::new(vec![0; size]);
        let mut filled = 0;
        while filled < size {
            let count =
                fs.read(node, filled as u64, &mut text[filled..]).map_err(JobError::Disk)?;
            if count == 0 {
                return Err(JobError::Short(name));
            }
            filled += count;
        }
        Ok(Some(Secret::new(std::mem::take(&mut *text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::MemoryDevice;
    use snf_fs::ext::mkfs::build_ext2_image;

    fn floppy(files: &[(&str, &[u8], u16)]) -> Arc<dyn BlockDevice> {
        let now = snf_fs::Timestamp::default();
        Arc::new(MemoryDevice::new(build_ext2_image(1440 << 10, files, now, [1; 16], "").unwrap()))
    }

    fn error(parameters: Arc<dyn BlockDevice>, disks: &Disks) -> String {
        sentence(&run(parameters, disks, None, &mut Vec::new(), &mut Vec::new()).unwrap_err())
    }

    #[test]
    fn whatever_is_wrong_is_said() {
        let none = Disks::new();
        let blank = Arc::new(MemoryDevice::new(vec![0; 1440 << 10]));
        assert!(error(blank, &none).starts_with("cannot read the parameter disk: "));
        assert!(error(floppy(&[]), &none).contains("no file `rules`"));
        let trial = floppy(&[(TRIAL_FILE, b"", 0o600)]);
        run(trial, &none, None, &mut Vec::new(), &mut Vec::new()).unwrap();
        let garbage = error(floppy(&[("rules", b"\xff\x00 $(reboot)", 0o600)]), &none);
        assert!(garbage.starts_with("the rules cannot be read: "), "{garbage}");
        let empty = error(floppy(&[("rules", b"", 0o600)]), &none);
        assert!(empty.contains("TYPE"), "{empty}");
        let rules = b"export SNF_IMAGE_TYPE=diskdump\n";
        assert!(error(floppy(&[("rules", rules, 0o600)]), &none).contains("SNF_IMAGE_DEV"));
        let rules = b"export SNF_IMAGE_TYPE=diskdump\nexport SNF_IMAGE_DEV=([0]=\"/dev/vdb\")\n";
        let mut disks = Disks::new();
        disks.insert("/dev/vda".into(), Arc::new(MemoryDevice::new(vec![0; 1 << 20])));
        let missing = error(floppy(&[("rules", rules, 0o600)]), &disks);
        assert!(missing.contains("\"/dev/vdb\"; this VM has /dev/vda"), "{missing}");
    }
}
