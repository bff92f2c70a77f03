//! `--size`: the disk gets larger when the first byte is written, and not before all is known to
//! work.

use std::fs::File;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use snf_fs::{BlockDevice, DeviceError};

use crate::exit::{Exit, Failure};
use crate::output;
use crate::signals::Progress;

/// The size of a disk as the command line has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskSize {
    /// So many bytes.
    To(u64),
    /// So many more than it has.
    By(u64),
}

impl FromStr for DiskSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "it is a number with K, M, G, T or P for units of 1024 (20G), or, with + before it, the \
             room to add (+5G)"
                .to_owned()
        };
        let (more, rest) = match text.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
            "" => 0,
            "K" | "k" => 10,
            "M" | "m" => 20,
            "G" | "g" => 30,
            "T" | "t" => 40,
            "P" | "p" => 50,
            _ => return Err(wrong()),
        };
        let bytes = number.checked_mul(1 << shift).filter(|bytes| i64::try_from(*bytes).is_ok());
        let bytes = bytes.ok_or("no disk is that large")?;
        if bytes % 512 != 0 {
            return Err("a disk has a multiple of 512 bytes".to_owned());
        }
        if bytes == 0 {
            return Err("a disk has more than 0 bytes".to_owned());
        }
        Ok(if more { Self::By(bytes) } else { Self::To(bytes) })
    }
}

impl DiskSize {
    /// The size that a disk of `now` bytes is to have.
    pub(crate) fn of(self, path: &Path, now: u64) -> Result<u64, Failure> {
        let wanted = match self {
            Self::To(bytes) => bytes,
            // QEMU rounds a raw file up, too.
            Self::By(bytes) => match now.div_ceil(512).checked_mul(512) {
                Some(whole) => whole.saturating_add(bytes).min(i64::MAX as u64 / 512 * 512),
                None => now,
            },
        };
        if wanted >= now {
            return Ok(wanted);
        }
        Err(Failure::usage(format!(
            "--size: {} has {}, and a disk is only made larger",
            path.display(),
            output::size(now)
        )))
    }
}

/// A block device has the size that it has.
pub(crate) fn refuse_block(path: &Path, block: bool) -> Result<(), Failure> {
    if !block {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!(
            "--size: {} is a block device; make it larger with its own tools (lvextend, for a \
             logical volume), then use --grow",
            path.display()
        ),
    ))
}

/// Makes the file of a raw disk longer. When that fails, nothing has been written.
pub(crate) fn lengthen(file: &File, size: u64, progress: &Progress) -> Result<(), DeviceError> {
    let first = !progress.wrote();
    progress.begin_writing();
    file.set_len(size).map_err(|source| {
        if first {
            progress.nothing_written();
        }
        DeviceError { operation: "enlarge the disk to", offset: 0, length: size as usize, source }
    })
}

type Grow = Box<dyn Fn(u64) -> Result<(), DeviceError> + Send + Sync>;

/// A disk that is as large as it is going to be; what is not there yet reads as zeros.
pub(crate) struct Resized {
    device: Arc<dyn BlockDevice>,
    before: u64,
    after: u64,
    grow: Grow,
    done: Mutex<bool>,
}

impl Resized {
    /// `device` had `before` bytes when it was opened, and has `after` once `grow` was called.
    pub(crate) fn new(device: Arc<dyn BlockDevice>, before: u64, after: u64, grow: Grow) -> Self {
        Self { device, before, after, grow, done: Mutex::new(false) }
    }

    fn ensure(&self) -> Result<(), DeviceError> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if !*done {
            (self.grow)(self.after)?;
            *done = true;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockDevice for Resized {
    fn len(&self) -> u64 {
        self.after
    }

    fn sector_size(&self) -> u32 {
        self.device.sector_size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let end = offset.saturating_add(buf.len() as u64);
        if end <= self.before || end > self.after || self.is_done() {
            return self.device.read_at(offset, buf);
        }
        let there = self.before.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (old, new) = buf.split_at_mut(there);
        new.fill(0);
        if old.is_empty() { Ok(()) } else { self.device.read_at(offset, old) }
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.ensure()?;
        self.device.write_at(offset, buf)
    }

    /// The disk need not grow to be where it is now.
    fn write_free(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        if offset.saturating_add(buf.len() as u64) > self.before {
            self.ensure()?;
        }
        self.device.write_free(offset, buf)
    }

    /// A disk that is told to be on stable storage has its size.
    fn flush(&self) -> Result<(), DeviceError> {
        self.ensure()?;
        self.device.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("20G", DiskSize::To(20 << 30)),
            ("+5G", DiskSize::By(5 << 30)),
            ("1024", DiskSize::To(1024)),
            ("2GiB", DiskSize::To(2 << 30)),
            ("3m", DiskSize::To(3 << 20)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for (text, part) in [
            ("20GB", "units of 1024"),
            ("G", "units of 1024"),
            ("-5G", "units of 1024"),
            ("1000", "multiple of 512"),
            ("0", "more than 0"),
            ("9000P", "that large"),
            ("99999999999999999999", "units of 1024"),
        ] {
            let error = text.parse::<DiskSize>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let of = |size: DiskSize, now| size.of(Path::new("d"), now);
        assert_eq!(of(DiskSize::To(1024), 1024).unwrap(), 1024);
        assert_eq!(of(DiskSize::By(512), 1000).unwrap(), 1536);
        let error = of(DiskSize::To(512), 1024).unwrap_err();
        assert!(error.message.contains("only made larger"), "{}", error.message);
    }

    #[test]
    fn grows_with_the_first_write() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1000).unwrap();
        let device = snf_fs::FileDevice::new(file.try_clone().unwrap(), 4096, 512);
        let (progress, other) = (Progress::default(), file.try_clone().unwrap());
        let grow = Box::new(move |size| lengthen(&other, size, &progress));
        let resized = Resized::new(Arc::new(device), 1000, 4096, grow);
        let mut buf = [1; 2000];
        resized.read_at(500, &mut buf).unwrap();
        assert_eq!(buf, [0; 2000]);
        assert!(resized.read_at(3000, &mut buf).is_err());
        assert_eq!(file.metadata().unwrap().len(), 1000);
        resized.write_at(4000, b"x").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4096);
        resized.read_at(2096, &mut buf).unwrap();
        assert_eq!(buf[1904], b'x');
    }
}
