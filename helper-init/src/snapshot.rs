//! The host may save a VM that has started, and let each run go on from there: what is the same in every
//! run is done once. PID 1 stops here, before any disk was looked at, and learns from a line of the
//! host's what a run's own kernel command line would have said, what time it is, and what to seed
//! the random pool with. All that a saved pool could give had been given to another run before.

use std::path::Path;

use rustix::time::{ClockId, Timespec};
use snf_image::wire::{ResultLine, SEED_SIZE, words};
use zeroize::Zeroizing;

use crate::error::{InitError, SnapshotError};
use crate::host::Host;
use crate::sys;

/// Drivers that look at their disks when they are loaded: those belong to a run.
const LATE: [&str; 2] = ["virtio_blk", "floppy"];

/// Whether a module of the initramfs has to wait for the run.
pub(crate) fn is_late(module: &Path) -> bool {
    let name = module.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    name.split_once('-').is_some_and(|(_, name)| LATE.contains(&name))
}

/// Says that the VM can be saved, and returns the host's line. Any time may pass between the two.
pub(crate) fn pause(host: &mut Host) -> Result<Zeroizing<String>, InitError> {
    let disks = std::fs::read_dir("/sys/block").map_err(InitError::at("list disks"))?;
    for disk in disks.flatten() {
        let name = disk.file_name().to_string_lossy().into_owned();
        if name.starts_with("vd") || name.starts_with("fd") {
            return Err(SnapshotError::BuiltIn(name).into());
        }
    }
    host.say(&ResultLine::Ready);
    let line = host.hear().map_err(InitError::at("wait for the host"))?;
    let text = std::str::from_utf8(&line).map_err(SnapshotError::NotText)?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// The words that a VM needs before anything else when it goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wake {
    /// Seconds and nanoseconds since 1970.
    time: (i64, i64),
    seed: Zeroizing<[u8; SEED_SIZE]>,
}

impl Wake {
    /// Reads it from the host's line.
    pub(crate) fn parse(line: &str) -> Result<Self, SnapshotError> {
        let word = |name: &str| {
            let mut words = line.split_whitespace().filter_map(|word| word.split_once('='));
            words.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let time = word(words::TIME).and_then(|time| {
            let (seconds, nanoseconds) = time.split_once('.')?;
            Some((
                seconds.parse().ok()?,
                nanoseconds.parse().ok().filter(|n| (0..1_000_000_000).contains(n))?,
            ))
        });
        let seed = word(words::SEED).and_then(|hex| {
            let mut seed = Zeroizing::new([0; SEED_SIZE]);
            if hex.len() != 2 * SEED_SIZE {
                return None;
            }
            for (n, byte) in seed.iter_mut().enumerate() {
                *byte = u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()?;
            }
            Some(seed)
        });
        match (time, seed) {
            (Some(time), Some(seed)) => Ok(Self { time, seed }),
            (None, _) => Err(SnapshotError::NoTime),
            (_, None) => Err(SnapshotError::NoSeed),
        }
    }

    /// Sets the clock, and makes the kernel's random numbers this run's own.
    pub(crate) fn apply(&self) -> Result<(), InitError> {
        let (tv_sec, tv_nsec) = self.time;
        rustix::time::clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec })
            .map_err(InitError::at("set the clock"))?;
        let seed = || -> std::io::Result<()> {
            let random = std::fs::OpenOptions::new().read(true).write(true).open("/dev/random")?;
            sys::add_entropy(&random, &self.seed)?;
            sys::reseed(&random)?;
            Ok(())
        };
        seed().map_err(InitError::at("seed the kernel's random pool"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drivers_of_disks_wait() {
        let late = |name| is_late(Path::new("/modules").join(name).as_path());
        assert!(late("02-virtio_blk.ko") && late("07-floppy.ko"));
        assert!(!late("00-virtio.ko") && !late("03-virtio_pci.ko") && !late("virtio_blk"));
    }

    #[test]
    fn nothing_goes_on_without_time_and_seed() {
        let seed = "00ff".repeat(16);
        let good =
            format!("rules_dev=/dev/vdb snf_image_time=1700000000.000000005 snf_image_seed={seed}");
        let wake = Wake::parse(&good).unwrap();
        assert_eq!((wake.time, wake.seed[..2].to_vec()), ((1_700_000_000, 5), vec![0, 255]));
        for (bad, word) in [
            (good.replace("snf_image_time=", "x="), "time"),
            (good.replace("1700000000.", "1700000000"), "time"),
            (good.replace("000000005", "1000000000"), "time"),
            (good.replace("snf_image_seed=", "x="), "seed"),
            (good.replace("00ff", "00f"), "seed"),
            (good.replace("00ff", "00fx"), "seed"),
            (String::new(), "time"),
        ] {
            assert!(Wake::parse(&bad).unwrap_err().to_string().contains(word), "{bad}");
        }
    }
}
