//! One way to start a VM, its runs, and when in a run what was heard.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use snf_image_host::helper::{
    Acceleration, HelperConfig, HelperError, HelperReport, HelperSink, MonitorMessage, SECTOR_SIZE,
    VmDisk, VmRequest, protocol::HELLO, run_helper,
};
use snf_image_host::node::cancel::Cancel;

use crate::tiny::ENDING_EXIT;
use crate::{Place, Result, check, parameters};

/// The work of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// End at the kernel's first instruction.
    Firmware,
    /// Boot, and end at once.
    Off,
    /// Boot, and a whole customization.
    Full,
    /// The same without the boot: it goes on from the helper's snapshot.
    Snapshot,
}

impl Kind {
    /// Whether the disk is customized.
    pub(crate) fn customizes(self) -> bool {
        matches!(self, Self::Full | Self::Snapshot)
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Off => "off",
            Self::Full => "full",
            Self::Snapshot => "snapshot",
        }
    }
}

/// One way to start a VM.
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    directory: PathBuf,
    qemu: PathBuf,
    pub(crate) runs: Vec<Run>,
    /// Why a run did not count; after the first there are no more.
    pub(crate) failure: Option<String>,
}

/// One run that came to its end. Times are milliseconds from just before QEMU's start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// From QEMU's start to its exit.
    pub(crate) seconds: f64,
    /// When the first line was heard.
    pub(crate) first: Option<f64>,
    /// When our init said hello.
    pub(crate) hello: Option<f64>,
    /// When the kernel said that it powers off or restarts.
    pub(crate) last: Option<f64>,
    /// The notes of the init, in milliseconds since the kernel's clock began.
    pub(crate) marks: Vec<(String, f64)>,
    /// QEMU's largest resident size in KiB.
    pub(crate) resident: u64,
}

impl Run {
    /// From QEMU's start to its exit.
    pub(crate) fn end(&self) -> f64 {
        self.seconds * 1000.0
    }
}

impl Variant {
    pub(crate) fn new(name: String, kind: Kind, directory: &Path, qemu: &Path) -> Self {
        Self {
            name,
            kind,
            directory: directory.to_owned(),
            qemu: qemu.to_owned(),
            runs: Vec::new(),
            failure: None,
        }
    }

    /// Starts it once more, unless it has failed before.
    pub(crate) fn measure(&mut self, place: &Place) -> Result<()> {
        if self.failure.is_some() {
            return Ok(());
        }
        match self.run(place, HelperConfig::default().memory_mib)? {
            Ok(run) => self.runs.push(run),
            Err(error) => {
                println!("{}: failed: {error}", self.name);
                self.failure = Some(error);
            }
        }
        Ok(())
    }

    /// One run, or why it does not count. An error outside it is one of the bench.
    pub(crate) fn run(&self, place: &Place, memory_mib: u32) -> Result<Result<Run>> {
        let customizes = self.kind.customizes();
        let disk = if customizes { place.disk()? } else { place.empty_disk()? };
        let config = HelperConfig {
            directory: self.directory.clone(),
            acceleration: Acceleration::Tcg,
            qemu: self.qemu.clone(),
            memory_mib,
            ..HelperConfig::default()
        };
        let request = VmRequest {
            disks: vec![VmDisk::Open(disk)],
            parameters: parameters()?.0,
            hypervisor: "kvm".into(),
            flush_later: true,
            sector_size: SECTOR_SIZE,
        };
        let mut heard = Heard { started: Instant::now(), run: Run::default() };
        let result = run_helper(&config, &request, &Cancel::new(), &mut heard);
        let mut run = heard.run;
        run.seconds = heard.started.elapsed().as_secs_f64();
        if let Err(error) = self.judge(&run, result) {
            return Ok(Err(error));
        }
        // The content of the disk does not differ from run to run, and checking it takes a second.
        if customizes
            && self.runs.is_empty()
            && let Err(error) = check::customized(place)?
        {
            return Ok(Err(error));
        }
        Ok(Ok(run))
    }

    /// Whether a run came to the end that it should have.
    fn judge(
        &self,
        run: &Run,
        result: std::result::Result<HelperReport, HelperError>,
    ) -> Result<()> {
        match (self.kind, result) {
            (Kind::Firmware, Err(HelperError::QemuFailed { status, .. }))
                if status == ENDING_EXIT && run.first.is_some() =>
            {
                Ok(())
            }
            (Kind::Off, Err(HelperError::NoResult { .. })) if run.last.is_some() => Ok(()),
            (Kind::Full, Ok(_)) => Ok(()),
            (Kind::Snapshot, Ok(report)) if report.resumed => Ok(()),
            (Kind::Snapshot, Ok(_)) => Err("it booted: the helper has no snapshot".to_owned()),
            (_, Err(error)) => Err(error.to_string()),
            (_, Ok(_)) => Err("a VM without our init reported SUCCESS".to_owned()),
        }
    }

    /// The shortest run.
    pub(crate) fn best(&self) -> Option<&Run> {
        self.runs.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds))
    }
}

/// Takes the times of what the VM says.
struct Heard {
    started: Instant,
    run: Run,
}

impl HelperSink for Heard {
    fn console(&mut self, line: &str) {
        let now = self.started.elapsed().as_secs_f64() * 1000.0;
        self.run.first.get_or_insert(now);
        if line.starts_with(HELLO) {
            self.run.hello = Some(now);
        }
        if line.contains("reboot: Power down") || line.contains("reboot: Restarting system") {
            self.run.last = Some(now);
            self.run.resident = self.run.resident.max(largest_child());
        }
        if let Some((what, time)) = line.strip_prefix("time ").and_then(|l| l.rsplit_once(' '))
            && let Ok(time) = time.parse()
        {
            self.run.marks.push((what.to_owned(), time));
            // They come when the VM has done its work and is still there.
            self.run.resident = self.run.resident.max(largest_child());
        }
    }
    fn warning(&mut self, text: &str) {
        println!("warning: {text}");
    }
    fn monitor(&mut self, _: MonitorMessage) {}
}

/// The largest resident size, in KiB, that a child of this process has had.
fn largest_child() -> u64 {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let of = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    children.split_whitespace().filter_map(of).max().unwrap_or(0)
}
