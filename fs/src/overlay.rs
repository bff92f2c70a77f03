//! A device whose writes stay in memory until they are committed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::BlockDevice;
use crate::error::DeviceError;
use crate::num::{to_u64, to_usize};
use crate::ranges::Ranges;

/// Granularity of what is kept for reading.
const BLOCK: u64 = 4096;
/// Most bytes that are held. Only metadata is written here before the commit: growing a file
/// system by 16 TiB stays below, and an image cannot make us hold more.
const MAX_HELD: u64 = 256 << 20;

/// A device whose writes stay in memory until [`Overlay::commit`] writes them in the order in
/// which they were made, with a flush wherever one was asked for. From then on it is the device
/// itself. Dropped before that, it leaves the device byte for byte as it was.
///
/// Partition tables and swap signatures, which have no journal, wait here for the moment at which
/// the rest of a run is known to be good. A read that failed in the meantime says that it is not:
/// whoever read may have taken the failure for damage, and gone another way.
pub struct Overlay {
    device: Arc<dyn BlockDevice>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether writes go straight to the device.
    open: bool,
    /// The work of the commit.
    log: Vec<Operation>,
    /// The ranges that will be copied: reads of the copy see the original until the commit.
    copies: Vec<Copy>,
    /// The blocks that differ from the device, as they are now.
    blocks: BTreeMap<u64, Vec<u8>>,
    /// Bytes in `log`.
    held: u64,
    /// The first read that the device failed.
    failed_read: Option<DeviceError>,
    /// Takes what is written to free places, where the device must not have even that.
    apart: Option<Apart>,
    /// Whether that waits in memory like everything else.
    hold_free: bool,
}

/// A file in which free places have their content, at their offsets on the device.
struct Apart {
    file: File,
    written: Ranges,
}

/// A range of the device that is to be copied to another place on it.
#[derive(Clone, Copy)]
struct Copy {
    from: u64,
    to: u64,
    length: u64,
}

enum Operation {
    Write { offset: u64, bytes: Vec<u8> },
    Copy(Copy),
    Flush,
}

impl Overlay {
    /// Holds what will be written to `device`.
    pub fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self { device, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that wait for the commit.
    pub fn held(&self) -> u64 {
        self.state().held
    }

    /// Writes what comes for free places ([`BlockDevice::write_free`]) to `file`, at the same offsets,
    /// instead of to the device: for a run that must not write, and may be longer than memory.
    pub fn keep_apart(&self, file: File) {
        self.state().apart = Some(Apart { file, written: Ranges::default() });
    }

    /// Holds what comes for free places in memory, with everything else: for a run that must not write and
    /// has no place for a file.
    pub fn hold_free(&self) {
        self.state().hold_free = true;
    }

    /// The first failure of the device to read, if there was one before the commit.
    ///
    /// # Errors
    /// The first [`DeviceError`] of a read since the last call.
    pub fn check_reads(&self) -> Result<(), DeviceError> {
        self.state().check_reads()
    }

    /// Writes all that was held, in order; nothing if the device failed to read before. After an
    /// error of a write the device may have a part of it, and reads still see all.
    ///
    /// # Errors
    /// [`DeviceError`] of the device below. Some of the writes may be done then.
    pub fn commit(&self) -> Result<(), DeviceError> {
        let mut state = self.state();
        state.check_reads()?;
        for operation in &state.log {
            match operation {
                Operation::Write { offset, bytes } => self.device.write_at(*offset, bytes)?,
                Operation::Copy(copy) => copy.run(&*self.device)?,
                Operation::Flush => self.device.flush()?,
            }
        }
        if !matches!(state.log.last(), None | Some(Operation::Flush)) {
            self.device.flush()?;
        }
        *state = State { open: true, ..State::default() };
        Ok(())
    }

    /// Copies `length` bytes from one place on the device to another when the commit comes to it, in
    /// its turn among the writes. Until then reads of the copy see the original. Writes that
    /// were held for either range before are not seen through the copy: copies come first.
    ///
    /// # Errors
    /// [`DeviceError`] when one of the ranges leaves the device, when they overlap each other, or
    /// when the copy overlaps an earlier one.
    pub fn copy(&self, from: u64, to: u64, length: u64) -> Result<(), DeviceError> {
        let mut state = self.state();
        let copy = Copy { from, to, length };
        let size = self.device.len();
        let within = |start: u64| start.checked_add(length).is_some_and(|end| end <= size);
        let apart = |a: u64, b: u64, n: u64| a + length <= b || b + n <= a;
        if !within(from) || !within(to) || !apart(from, to, length) {
            let text = format!("{length} bytes from {from} cannot be copied on {size} bytes");
            return Err(Self::error("copy", to, 0, text));
        }
        if !state.copies.iter().all(|other| apart(to, other.to, other.length)) {
            return Err(Self::error("copy", to, 0, "two copies in one place".to_owned()));
        }
        if state.open {
            return copy.run(&*self.device);
        }
        state.copies.push(copy);
        state.log.push(Operation::Copy(copy));
        Ok(())
    }

    fn error(operation: &'static str, offset: u64, length: usize, text: String) -> DeviceError {
        let source = io::Error::new(io::ErrorKind::InvalidInput, text);
        DeviceError { operation, offset, length, source }
    }
}

impl Copy {
    /// Bytes that are copied at once.
    const PIECE: u64 = 1 << 20;

    /// Copies on the device. Zeros that are there already are not written, so that a sparse file
    /// stays sparse.
    fn run(self, device: &dyn BlockDevice) -> Result<(), DeviceError> {
        let mut buf = vec![0; to_usize(Self::PIECE.min(self.length))];
        let mut there = Vec::new();
        let mut done = 0;
        while done < self.length {
            let piece = to_usize((self.length - done).min(Self::PIECE));
            let bytes = &mut buf[..piece];
            device.read_at(self.from + done, bytes)?;
            there.resize(if bytes.iter().all(|byte| *byte == 0) { piece } else { 0 }, 0);
            if !there.is_empty() {
                device.read_at(self.to + done, &mut there)?;
            }
            if there != *bytes {
                device.write_at(self.to + done, bytes)?;
            }
            done += to_u64(piece);
        }
        Ok(())
    }

    /// Replaces what was read at `offset` by the original, where the copy covers it.
    fn show(
        self,
        device: &dyn BlockDevice,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), DeviceError> {
        let end = offset + to_u64(buf.len());
        let (first, last) = (self.to.max(offset), (self.to + self.length).min(end));
        if first >= last {
            return Ok(());
        }
        let part = &mut buf[to_usize(first - offset)..to_usize(last - offset)];
        device.read_at(self.from + (first - self.to), part)
    }
}

impl State {
    /// Reads what the device will hold after the copies and before the writes.
    fn read_below(
        &self,
        device: &dyn BlockDevice,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), DeviceError> {
        device.read_at(offset, buf)?;
        self.copies.iter().try_for_each(|copy| copy.show(device, offset, buf))
    }

    fn check_reads(&self) -> Result<(), DeviceError> {
        self.failed_read.as_ref().map_or(Ok(()), |error| Err(again(error)))
    }
}

/// The same error once more.
fn again(error: &DeviceError) -> DeviceError {
    let source = match error.source.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.source.kind(), error.source.to_string()),
    };
    DeviceError { source, ..*error }
}

/// The parts of `offset..offset + length` block by block: the block, where in it the part begins,
/// where in the buffer, and how long it is.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + to_u64(done);
        let within = to_usize(at % BLOCK);
        let count = (to_usize(BLOCK) - within).min(length - done);
        let part = (at / BLOCK, within, done, count);
        done += count;
        (count > 0).then_some(part)
    })
}

impl BlockDevice for Overlay {
    fn len(&self) -> u64 {
        self.device.len()
    }

    fn sector_size(&self) -> u32 {
        self.device.sector_size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let mut state = self.state();
        if let Err(error) = state.read_below(&*self.device, offset, buf) {
            if !state.open {
                state.failed_read.get_or_insert_with(|| again(&error));
            }
            return Err(error);
        }
        if let Some(apart) = &state.apart {
            let end = offset.saturating_add(to_u64(buf.len()));
            for run in apart.written.within(offset..end) {
                let part = to_usize(run.start - offset)..to_usize(run.end - offset);
                let length = part.len();
                apart.file.read_exact_at(&mut buf[part], run.start).map_err(|source| {
                    DeviceError { operation: "read", offset: run.start, length, source }
                })?;
            }
        }
        if state.blocks.is_empty() {
            return Ok(());
        }
        let first = offset / BLOCK;
        let last = (offset + to_u64(buf.len())) / BLOCK;
        if state.blocks.range(first..=last).next().is_none() {
            return Ok(());
        }
        for (block, within, done, count) in parts(offset, buf.len()) {
            if let Some(bytes) = state.blocks.get(&block) {
                buf[done..done + count].copy_from_slice(&bytes[within..within + count]);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        let mut state = self.state();
        if state.open {
            return self.device.write_at(offset, buf);
        }
        let size = self.device.len();
        if offset.checked_add(to_u64(buf.len())).is_none_or(|end| end > size) {
            let text = format!("beyond the end of the device ({size} bytes)");
            return Err(Self::error("write", offset, buf.len(), text));
        }
        if state.held + to_u64(buf.len()) > MAX_HELD {
            let text = format!("more than {} MiB wait to be written", MAX_HELD >> 20);
            return Err(Self::error("hold", offset, buf.len(), text));
        }
        for (block, within, done, count) in parts(offset, buf.len()) {
            if !state.blocks.contains_key(&block) {
                let mut bytes = vec![0; to_usize(BLOCK)];
                let start = block * BLOCK;
                let there = to_usize((size - start).min(BLOCK));
                state.read_below(&*self.device, start, &mut bytes[..there])?;
                state.blocks.insert(block, bytes);
            }
            let Some(bytes) = state.blocks.get_mut(&block) else { continue };
            bytes[within..within + count].copy_from_slice(&buf[done..done + count]);
        }
        state.held += to_u64(buf.len());
        state.log.push(Operation::Write { offset, bytes: buf.to_vec() });
        Ok(())
    }

    fn write_free(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        let mut state = self.state();
        let end = offset.saturating_add(to_u64(buf.len()));
        // A write that waits for the same place must come before, and the source of a copy must stay.
        let meets = |start: u64, length: u64| start < end && offset < start.saturating_add(length);
        let copied = |copy: &Copy| meets(copy.from, copy.length) || meets(copy.to, copy.length);
        if state.hold_free
            || state.copies.iter().any(copied)
            || state.blocks.range(offset / BLOCK..=end / BLOCK).next().is_some()
        {
            drop(state);
            return self.write_at(offset, buf);
        }
        let Some(apart) = &mut state.apart else { return self.device.write_free(offset, buf) };
        if end > self.device.len() {
            let text = format!("beyond the end of the device ({} bytes)", self.device.len());
            return Err(Self::error("write", offset, buf.len(), text));
        }
        apart.file.write_all_at(buf, offset).map_err(|source| DeviceError {
            operation: "keep apart",
            offset,
            length: buf.len(),
            source,
        })?;
        apart.written.insert(offset..end);
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        let mut state = self.state();
        if state.open {
            return self.device.flush();
        }
        if matches!(state.log.last(), Some(Operation::Write { .. } | Operation::Copy(_))) {
            state.log.push(Operation::Flush);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::MemoryDevice;
    use crate::testing::{Fault, FaultDevice};

    #[test]
    fn holds_until_commit_and_is_transparent_after() {
        let device = Arc::new(MemoryDevice::new((0..10_000).map(|i| i as u8).collect()));
        let before = device.to_vec();
        let overlay = Overlay::new(device.clone());
        let mut expected = before.clone();
        for (offset, length) in [(4090, 10), (9990, 10), (0, 9000), (4094, 4), (5, 0)] {
            let bytes = vec![offset as u8; length];
            overlay.write_at(offset as u64, &bytes).unwrap();
            overlay.flush().unwrap();
            expected[offset..offset + length].copy_from_slice(&bytes);
            let mut seen = vec![0; before.len()];
            overlay.read_at(0, &mut seen).unwrap();
            assert_eq!(seen, expected);
            let mut part = vec![0; 5000];
            overlay.read_at(4000, &mut part).unwrap();
            assert_eq!(part, expected[4000..9000]);
        }
        assert!(overlay.write_at(9_999, &[0; 2]).is_err());
        assert!(overlay.write_at(u64::MAX, &[0; 2]).is_err());
        assert_eq!(device.to_vec(), before);
        assert_eq!(overlay.held(), 9024);
        overlay.commit().unwrap();
        assert_eq!(device.to_vec(), expected);
        overlay.write_at(1, b"x").unwrap();
        assert_eq!(device.to_vec()[1], b'x');
        assert_eq!(overlay.held(), 0);
        overlay.commit().unwrap();
    }

    #[test]
    fn copies_are_seen_at_once_and_made_in_their_turn() {
        let device = Arc::new(MemoryDevice::new((0..40_000u32).map(|i| (i / 7) as u8).collect()));
        let before = device.to_vec();
        let overlay = Overlay::new(device.clone());
        overlay.copy(1000, 20_000, 9000).unwrap();
        overlay.flush().unwrap();
        overlay.write_at(20_010, b"patched").unwrap();
        overlay.write_at(1000, &[0xee; 9000]).unwrap();
        let mut expected = before.clone();
        expected.copy_within(1000..10_000, 20_000);
        expected[20_010..20_017].copy_from_slice(b"patched");
        expected[1000..10_000].fill(0xee);
        let mut seen = vec![0; before.len()];
        overlay.read_at(0, &mut seen).unwrap();
        assert!(seen == expected);
        assert_eq!(device.to_vec(), before);
        for (from, to, length) in [(0, 100, 200), (39_000, 0, 2000), (0, 39_000, 2000)] {
            assert!(overlay.copy(from, to, length).is_err());
        }
        assert!(overlay.copy(0, 28_999, 10).is_err());
        overlay.commit().unwrap();
        assert!(device.to_vec() == expected);
    }

    #[test]
    fn free_places_are_written_at_once_or_kept_apart() {
        let device = Arc::new(MemoryDevice::new(vec![7; 20_000]));
        let overlay = Overlay::new(device.clone());
        overlay.write_at(0, b"held").unwrap();
        overlay.write_free(1, b"too").unwrap();
        assert_eq!(device.to_vec(), [7; 20_000]);
        overlay.write_free(9000, &[1; 100]).unwrap();
        assert_eq!(device.to_vec()[9000..9101], [&[1; 100][..], &[7]].concat());
        assert_eq!(overlay.held(), 7);

        let before = device.to_vec();
        let overlay = Overlay::new(device.clone());
        overlay.keep_apart(tempfile::tempfile().unwrap());
        overlay.write_free(5000, &[2; 5000]).unwrap();
        assert!(overlay.write_free(19_999, &[0; 2]).is_err());
        let mut seen = vec![0; 20_000];
        overlay.read_at(0, &mut seen).unwrap();
        let expected = [&before[..5000], &[2; 5000], &before[10_000..]].concat();
        assert!(seen == expected && device.to_vec() == before);
    }

    #[test]
    fn a_read_that_failed_prevents_the_commit() {
        let memory = Arc::new(MemoryDevice::new(vec![0; 8192]));
        let overlay = Overlay::new(Arc::new(FaultDevice::new(memory.clone(), Fault::Read(1))));
        let mut bytes = [0; 512];
        overlay.write_at(0, b"x").unwrap();
        overlay.check_reads().unwrap();
        assert!(overlay.read_at(4096, &mut bytes).is_err());
        overlay.read_at(4096, &mut bytes).unwrap();
        let error = overlay.commit().unwrap_err();
        assert_eq!((error.offset, error.source.raw_os_error()), (4096, Some(5)));
        assert_eq!(memory.to_vec(), [0; 8192]);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let overlay = Overlay::new(Arc::new(MemoryDevice::new(vec![0; 1 << 20])));
        let chunk = vec![1; 1 << 20];
        let error = (0..300).find_map(|_| overlay.write_at(0, &chunk).err()).unwrap();
        assert!(error.source.to_string().contains("256 MiB"), "{error:?}");
    }
}
