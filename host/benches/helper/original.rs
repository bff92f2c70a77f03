//! The original's way: the kernel with Debian's initrd, a Debian on a disk of its own, and tasks in
//! shell on the mounted image.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::{Place, Result, check, during, parameters};

pub(crate) const NAME: &str = "the original's way";
/// The task in which the stand-in makes keys that our host makes beforehand.
const KEYS: &str = "DeleteSSHKeys";
/// How long it may take, for coreutils' timeout.
const LIMIT: &str = "300";
/// The exit status of timeout when it had to end QEMU.
const TIMED_OUT: i32 = 124;

/// Its runs.
pub(crate) struct Original {
    directory: PathBuf,
    rules: PathBuf,
    pub(crate) runs: Vec<OriginalRun>,
    /// Why a run did not count; after the first there are no more.
    pub(crate) failure: Option<String>,
}

/// One run.
pub(crate) struct OriginalRun {
    /// QEMU start to exit.
    pub(crate) seconds: f64,
    /// The notes of its tasks, in milliseconds since the kernel's clock began.
    pub(crate) marks: Vec<(String, f64)>,
}

impl OriginalRun {
    /// The same without the time that its keys took, in seconds.
    pub(crate) fn without_keys(&self) -> f64 {
        let mut pairs = self.marks.windows(2);
        let keys = pairs.find(|pair| pair[0].0 == KEYS).map_or(0.0, |pair| pair[1].1 - pair[0].1);
        self.seconds - keys / 1000.0
    }
}

impl Original {
    /// `directory`: what `cargo xtask bench helper` has built.
    pub(crate) fn new(place: &Place, directory: &Path) -> Result<Self> {
        let rules = place.work.join("rules.img");
        let parameters = parameters()?.0;
        fs::copy(format!("/proc/self/fd/{}", parameters.as_raw_fd()), &rules)
            .map_err(during(format!("write {}", rules.display())))?;
        Ok(Self { directory: directory.to_owned(), rules, runs: Vec::new(), failure: None })
    }

    /// Starts it once more, unless it has failed before.
    pub(crate) fn measure(&mut self, place: &Place) -> Result<()> {
        if self.failure.is_some() {
            return Ok(());
        }
        match self.run(place)? {
            Ok(run) => self.runs.push(run),
            Err(error) => {
                println!("{NAME}: failed: {error}");
                self.failure = Some(error);
            }
        }
        Ok(())
    }

    fn run(&self, place: &Place) -> Result<Result<OriginalRun>> {
        drop(place.disk()?);
        let (result, log) = (place.work.join("result"), place.work.join("log"));
        for file in [&result, &log] {
            fs::write(file, "").map_err(during(format!("write {}", file.display())))?;
        }
        let drive = |path: &Path, more: &str| {
            format!("file={},format=raw,if=virtio,cache=unsafe{more}", path.display())
        };
        let file = |name: &str| self.directory.join(name);
        let mut qemu = Command::new("timeout");
        qemu.args([LIMIT, "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot"]);
        qemu.args(["-accel", "tcg", "-m", "512", "-device", "virtio-rng-pci"]);
        qemu.arg("-kernel").arg(file("vmlinuz")).arg("-initrd").arg(file("initrd"));
        qemu.args(["-append", "quiet root=/dev/vda rw console=ttyS0 init=/tasks"]);
        qemu.arg("-drive").arg(drive(&file("root.img"), ",snapshot=on"));
        qemu.arg("-drive").arg(drive(&place.disk_path(), ""));
        qemu.arg("-drive").arg(drive(&self.rules, ",readonly=on"));
        qemu.arg("-serial").arg(format!("file:{}", log.display()));
        qemu.arg("-serial").arg(format!("file:{}", result.display()));
        let started = Instant::now();
        let ended = qemu.output().map_err(during("run timeout and QEMU"))?;
        let seconds = started.elapsed().as_secs_f64();
        let read = |path: &Path| {
            let bytes = fs::read(path).map_err(during(format!("read {}", path.display())))?;
            Ok::<_, String>(String::from_utf8_lossy(&bytes).into_owned())
        };
        if ended.status.code() == Some(TIMED_OUT) {
            return Ok(Err(format!(
                "no end within {LIMIT} s; its log: {}",
                last_words(&read(&log)?)
            )));
        }
        if !ended.status.success() {
            let words = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
            return Ok(Err(format!("QEMU ended with {}: {words}", ended.status)));
        }
        let log = read(&log)?;
        // The terminal of the guest makes two characters of a line's end.
        let said = read(&result)?;
        if said.trim() != "SUCCESS" {
            return Ok(Err(format!("its result is {said:?}; its log: {}", last_words(&log))));
        }
        if let Err(error) = check::customized(place)? {
            return Ok(Err(error));
        }
        let marks = log.lines().filter_map(|line| {
            let (what, time) = line.trim().strip_prefix("time ")?.rsplit_once(' ')?;
            Some((what.to_owned(), time.parse::<f64>().ok()? * 1000.0))
        });
        Ok(Ok(OriginalRun { seconds, marks: marks.collect() }))
    }

    /// The shortest run.
    pub(crate) fn best(&self) -> Option<&OriginalRun> {
        self.runs.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds))
    }
}

fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(8)..].join(" / ")
}
