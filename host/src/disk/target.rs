//! The disk that an image is laid onto: a block device or a plain file, written in place and
//! never made shorter or longer.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::num::NonZero;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::Errno;
use snf_claim::Purpose;

use crate::disk::buffer::{ALIGNMENT, AlignedBuffer, align_down, align_up};
use crate::disk::destination::Destination;
use crate::disk::error::TargetError;
use crate::disk::within;
use crate::node::cancel::Cancel;
use crate::node::config::Rest;

/// How a range of the disk is made to read as zeros, from cheapest to dearest. A way that the
/// device refuses once is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroWay {
    /// Give the blocks back: the kernel promises zeros or refuses.
    Punch,
    /// Let the kernel write zeros.
    ZeroRange,
    /// Write zeros.
    Write,
}

/// One disk, open for writing.
pub struct Target {
    path: PathBuf,
    file: File,
    /// The same with O_DIRECT, where it can be had.
    direct: Option<File>,
    block_device: bool,
    size: u64,
    zero_way: ZeroWay,
    rest: Rest,
    /// Zeros to write when nothing better works; made when first needed.
    zeros: Option<AlignedBuffer>,
    /// Bytes that were written through the page cache and not sent on to the disk yet.
    unsent: Range<u64>,
}

/// Zeroing goes in steps of this many bytes, so that a signal is seen in between.
const ZERO_STEP: u64 = 256 << 20;
/// Bytes at both ends of what the image leaves free that are zeroed whatever it costs: old
/// partition tables, RAID and LVM labels live there.
const LABEL_AREA: u64 = 1 << 20;
/// Writes through the page cache, on file systems without O_DIRECT, are sent to the disk in pieces of
/// this many bytes. Left alone the kernel would begin after half a minute, and a flush at the end would
/// wait for all of it. Small pieces keep a disk from reading the image meanwhile: with 8 MiB a copy took
/// over half as long again.
const BEHIND: u64 = 64 << 20;

impl Target {
    /// Opens a disk and claims it: nobody else may use it (another run, a virtual machine, a loop
    /// device, a mount, a device made of it). The claim lasts as long as the target or a duplicate
    /// of [`Target::file`] is open.
    ///
    /// # Errors
    ///
    /// The disk cannot be opened, is no disk, or is busy. Nothing was written.
    pub fn open(path: &Path) -> Result<Self, TargetError> {
        let open_error = |source| TargetError::Open { path: path.to_owned(), source };
        let busy = |source| TargetError::Busy { path: path.to_owned(), source };
        // The kind is looked at before the open: opening a pipe would wait for ever, and opening
        // some devices does things.
        let kind = std::fs::metadata(path).map_err(open_error)?.file_type();
        let block_device = kind.is_block_device();
        if !block_device && !kind.is_file() {
            return Err(TargetError::Kind(path.to_owned()));
        }
        let mut flags = OFlags::NONBLOCK;
        if block_device {
            flags |= OFlags::EXCL;
        }
        let open = |flags: OFlags| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
                .open(path)
        };
        let mut file = open(flags).map_err(|error| {
            let user = is(&error, &[Errno::BUSY]).then(|| std::fs::metadata(path).ok());
            match user.flatten().and_then(|found| snf_claim::user_of(&found)) {
                Some(user) => busy(user),
                None => open_error(error),
            }
        })?;
        let now = file.metadata().map_err(open_error)?.file_type();
        if now.is_block_device() != block_device || !(block_device || now.is_file()) {
            return Err(TargetError::Kind(path.to_owned()));
        }
        snf_claim::claim(&file, Purpose::Write).map_err(busy)?;
        let size = file.seek(SeekFrom::End(0)).map_err(open_error)?;
        let direct = open(OFlags::NONBLOCK | OFlags::DIRECT).ok();
        Ok(Self::with(path, file, direct, block_device, size))
    }

    /// A disk that the caller has open and claimed.
    ///
    /// # Errors
    ///
    /// It cannot be looked at, or is no disk.
    pub fn of_claimed(path: &Path, mut file: File) -> Result<Self, TargetError> {
        let open_error = |source| TargetError::Open { path: path.to_owned(), source };
        let kind = file.metadata().map_err(open_error)?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(TargetError::Kind(path.to_owned()));
        }
        let size = file.seek(SeekFrom::End(0)).map_err(open_error)?;
        // Another description of the same disk, which the claim does not need to cover.
        let again = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = (OFlags::NONBLOCK | OFlags::DIRECT).bits();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(i32::try_from(flags).unwrap_or(0));
        let direct = options.open(again).ok();
        Ok(Self::with(path, file, direct, kind.is_block_device(), size))
    }

    fn with(path: &Path, file: File, direct: Option<File>, block_device: bool, size: u64) -> Self {
        Self {
            path: path.to_owned(),
            file,
            direct,
            block_device,
            size,
            zero_way: ZeroWay::Punch,
            rest: Rest::default(),
            zeros: None,
            unsent: 0..0,
        }
    }

    /// Sets the treatment of the blocks after an image.
    pub fn with_rest(mut self, rest: Rest) -> Self {
        self.rest = rest;
        self
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The open file, for reading back and for the VM.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is a block device (and not a file).
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    fn error(&self, operation: &'static str, offset: u64, source: io::Error) -> TargetError {
        TargetError::Io { path: self.path.clone(), operation, offset, source }
    }

    fn check_range(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(self.error(
                "write",
                offset,
                io::Error::other(format!(
                    "{length} bytes would pass the end of the disk ({} bytes)",
                    self.size
                )),
            )),
        }
    }

    /// Writes all of `bytes` at `offset`.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        self.check_range(offset, bytes.len() as u64)?;
        let aligned = offset.is_multiple_of(ALIGNMENT as u64)
            && bytes.len().is_multiple_of(ALIGNMENT)
            && bytes.as_ptr().align_offset(ALIGNMENT) == 0;
        if let Some(direct) = self.direct.as_ref().filter(|_| aligned) {
            match direct.write_all_at(bytes, offset) {
                Ok(()) => return Ok(()),
                // A device with stranger demands than 4096 bytes: through the page cache then.
                Err(error) if is(&error, &[Errno::INVAL]) => self.direct = None,
                Err(error) => return Err(self.error("write", offset, error)),
            }
        }
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| self.error("write", offset, error))?;
        self.send_on(offset, bytes.len() as u64);
        Ok(())
    }

    /// Has the kernel begin to write what lies in the page cache, without waiting for it.
    fn send_on(&mut self, offset: u64, length: u64) {
        // A step back is rare and small: the flush takes it along.
        if offset < self.unsent.end {
            return;
        }
        let start = if self.unsent.is_empty() { offset } else { self.unsent.start };
        self.unsent = start..offset + length;
        if self.unsent.end - start >= BEHIND {
            self.begin_flush();
        }
    }

    /// Has the kernel begin to write all that it was not told to write yet.
    pub fn begin_flush(&mut self) {
        let Range { start, end } = self.unsent;
        if let Some(waiting) = NonZero::new(end.saturating_sub(start)) {
            // To drop pages the kernel must write them first: that is what this starts. The pages
            // themselves stay, as those that are being written are not dropped.
            let _ = rustix::fs::fadvise(&self.file, start, Some(waiting), Advice::DontNeed);
            self.unsent = end..end;
        }
    }

    /// Copies a whole file of `size` bytes to `offset` inside the file system that both lie on, where
    /// it can do that without moving the bytes (shared blocks, a server's own copy). False where it
    /// cannot.
    pub fn share(
        &mut self,
        file: &File,
        offset: u64,
        size: u64,
        cancel: &Cancel,
    ) -> Result<bool, TargetError> {
        if self.block_device || offset.checked_add(size).is_none_or(|end| end > self.size) {
            return Ok(false);
        }
        if offset == 0 && rustix::fs::ioctl_ficlone(&self.file, file).is_ok() {
            return Ok(true);
        }
        let target = self.file.try_clone();
        let Some(target) = target.ok().filter(|target| within::can(file, target)) else {
            return Ok(false);
        };
        within::copy(file, &target, offset, size, cancel, |start, end| {
            self.zero(start, end - start, cancel)
        })
    }

    /// Makes `length` bytes from `offset` read as zeros, whatever was there.
    pub fn zero(&mut self, offset: u64, length: u64, cancel: &Cancel) -> Result<(), TargetError> {
        self.check_range(offset, length)?;
        let end = offset + length;
        let mut at = offset;
        while at < end {
            cancel.check()?;
            let Some(start) = self.next_data(at, end)? else { return Ok(()) };
            let stop = self.data_end(start, end)?.min(start.saturating_add(ZERO_STEP));
            self.zero_now(start, stop)?;
            at = stop;
        }
        Ok(())
    }

    /// Zeroes the space after the image (`from` to the end of the disk). If the device can
    /// give the space back this covers all of it, else what [`Rest`] says.
    pub fn zero_tail(&mut self, from: u64, cancel: &Cancel) -> Result<(), TargetError> {
        let end = self.size;
        if from >= end {
            return Ok(());
        }
        if !self.block_device || self.rest == Rest::Everything {
            return self.zero(from, end - from, cancel);
        }
        // Only whole blocks can be punched.
        let head_end = align_up(from.saturating_add(LABEL_AREA)).min(end);
        self.zero(from, head_end - from, cancel)?;
        let tail_start = align_down(end.saturating_sub(LABEL_AREA)).max(head_end);
        self.zero(tail_start, end - tail_start, cancel)?;
        let mut at = head_end;
        while self.zero_way == ZeroWay::Punch && at < tail_start {
            cancel.check()?;
            let stop = at.saturating_add(ZERO_STEP).min(tail_start);
            if self.punch_or_step_down(at, stop)? {
                at = stop;
            }
        }
        Ok(())
    }

    /// The first byte in `at..end` that is not known to be a hole. Only files have holes.
    fn next_data(&self, at: u64, end: u64) -> Result<Option<u64>, TargetError> {
        if self.block_device {
            return Ok(Some(at));
        }
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(found) if found < end => Ok(Some(found.max(at))),
            Ok(_) | Err(Errno::NXIO) => Ok(None),
            // A file system without the call: everything may be data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
            Err(error) => Err(self.error("read", at, error.into())),
        }
    }

    /// The end of the data that begins at `start`, at most `end`.
    fn data_end(&self, start: u64, end: u64) -> Result<u64, TargetError> {
        if self.block_device {
            return Ok(end);
        }
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(start)) {
            Ok(found) => Ok(if found > start { found.min(end) } else { end }),
            Err(_) => Ok(end),
        }
    }

    fn zero_now(&mut self, start: u64, stop: u64) -> Result<(), TargetError> {
        // Only whole blocks can be punched; the ragged ends are written.
        let inner_start = start.next_multiple_of(ALIGNMENT as u64).min(stop);
        let inner_stop = align_down(stop).max(inner_start);
        self.write_zeros(start, inner_start)?;
        self.write_zeros(inner_stop, stop)?;
        if inner_start == inner_stop {
            return Ok(());
        }
        while self.zero_way != ZeroWay::Write {
            if self.punch_or_step_down(inner_start, inner_stop)? {
                return Ok(());
            }
        }
        self.write_zeros(inner_start, inner_stop)
    }

    /// One try at zeroing without writing; a refusal moves on to the next way.
    fn punch_or_step_down(&mut self, start: u64, stop: u64) -> Result<bool, TargetError> {
        let mode = match self.zero_way {
            ZeroWay::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            ZeroWay::ZeroRange => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
            ZeroWay::Write => return Ok(false),
        };
        match rustix::fs::fallocate(&self.file, mode, start, stop - start) {
            Ok(()) => Ok(true),
            Err(Errno::INTR) => Ok(false),
            Err(
                Errno::OPNOTSUPP
                | Errno::NOSYS
                | Errno::INVAL
                | Errno::NODEV
                | Errno::PERM
                | Errno::IO,
            ) => {
                self.zero_way = match self.zero_way {
                    ZeroWay::Punch => ZeroWay::ZeroRange,
                    _ => ZeroWay::Write,
                };
                Ok(false)
            }
            Err(error) => Err(self.error("zero", start, error.into())),
        }
    }

    fn write_zeros(&mut self, start: u64, stop: u64) -> Result<(), TargetError> {
        if start >= stop {
            return Ok(());
        }
        let zeros = match self.zeros.take() {
            Some(zeros) => zeros,
            None => {
                AlignedBuffer::new(4 << 20).map_err(|error| self.error("zero", start, error))?
            }
        };
        let mut at = start;
        let mut result = Ok(());
        while at < stop && result.is_ok() {
            let length = (stop - at).min(zeros.as_slice().len() as u64);
            result = self.write(at, &zeros.as_slice()[..length as usize]);
            at += length;
        }
        self.zeros = Some(zeros);
        result
    }

    /// Returns when everything written is on stable storage.
    pub fn flush(&mut self) -> Result<(), TargetError> {
        self.file.sync_data().map_err(|error| self.error("flush", 0, error))
    }
}

impl Destination for Target {
    fn name(&self) -> String {
        self.path().display().to_string()
    }

    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TargetError> {
        Self::write(self, offset, bytes)
    }

    fn share(
        &mut self,
        file: &File,
        offset: u64,
        size: u64,
        cancel: &Cancel,
    ) -> Result<bool, TargetError> {
        Self::share(self, file, offset, size, cancel)
    }

    fn zero(&mut self, offset: u64, length: u64, cancel: &Cancel) -> Result<(), TargetError> {
        Self::zero(self, offset, length, cancel)
    }

    fn zero_tail(&mut self, from: u64, cancel: &Cancel) -> Result<(), TargetError> {
        Self::zero_tail(self, from, cancel)
    }

    fn begin_flush(&mut self) -> Result<(), TargetError> {
        Self::begin_flush(self);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TargetError> {
        Self::flush(self)
    }
}

fn is(error: &io::Error, which: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|raw| which.iter().any(|e| e.raw_os_error() == raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn old_disk(size: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![0xaa; size]).unwrap();
        file
    }

    #[test]
    fn zeroes_exactly_what_it_is_told() {
        for way in [ZeroWay::Punch, ZeroWay::ZeroRange, ZeroWay::Write] {
            let file = old_disk(40_000);
            let mut target = Target::open(file.path()).unwrap();
            target.zero_way = way;
            target.zero(5, 20_000, &Cancel::new()).unwrap();
            target.zero(30_000, 0, &Cancel::new()).unwrap();
            let bytes = std::fs::read(file.path()).unwrap();
            assert_eq!(bytes.len(), 40_000);
            assert!(
                bytes
                    .iter()
                    .enumerate()
                    .all(|(n, b)| { *b == if (5..20_005).contains(&n) { 0 } else { 0xaa } })
            );
        }
    }

    #[test]
    fn the_tail_goes_and_the_length_stays() {
        let file = old_disk(3 << 20);
        let mut target = Target::open(file.path()).unwrap();
        target.zero_tail(12_345, &Cancel::new()).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(bytes.len(), 3 << 20);
        assert!(bytes[..12_345].iter().all(|b| *b == 0xaa));
        assert!(bytes[12_345..].iter().all(|b| *b == 0));
    }

    #[test]
    fn the_tail_of_a_device_that_gives_nothing_back() {
        for (rest, left) in [(Rest::Labels, 2 << 20), (Rest::Everything, 0)] {
            let file = old_disk((5 << 20) - 4096);
            let mut target = Target::open(file.path()).unwrap().with_rest(rest);
            target.block_device = true;
            target.zero_way = ZeroWay::Write;
            target.zero_tail((1 << 20) - 4096, &Cancel::new()).unwrap();
            let bytes = std::fs::read(file.path()).unwrap();
            let from = (1 << 20) - 4096;
            assert!(bytes[..from].iter().all(|b| *b == 0xaa));
            assert_eq!(bytes[from..].iter().filter(|b| **b == 0xaa).count(), left, "{rest:?}");
        }
    }

    #[test]
    fn never_past_the_end_and_only_disks() {
        let file = old_disk(8192);
        let mut target = Target::open(file.path()).unwrap();
        assert!(target.write(8192, &[1]).is_err());
        assert!(target.write(u64::MAX, &[1]).is_err());
        assert!(target.zero(8000, 193, &Cancel::new()).is_err());
        assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 8192);
        let error = |path: &str| Target::open(Path::new(path)).map(drop).unwrap_err().to_string();
        assert!(error("/dev/null").contains("neither a block device nor a plain file"));
        assert!(error("/tmp").contains("neither a block device nor a plain file"));
        assert!(error("/nonexistent/disk").contains("cannot open the disk /nonexistent/disk"));
    }

    #[test]
    fn a_signal_stops_the_zeroing() {
        let file = old_disk(8192);
        let mut target = Target::open(file.path()).unwrap();
        let cancel = Cancel::new();
        cancel.request(15);
        assert!(matches!(target.zero(0, 8192, &cancel), Err(TargetError::Cancelled(_))));
    }
}
