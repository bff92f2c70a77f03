//! Devices for tests: one that records what is written and can cut the power at any point, one that
//! fails on demand, and counters.
#![allow(clippy::as_conversions)] // for tests only

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::device::{BlockDevice, MemoryDevice};
use crate::error::DeviceError;

/// The unit that a device writes wholly or not at all.
pub const SECTOR: usize = 512;

/// Something that happened to a [`RecordingDevice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These bytes were written at this offset.
    Write(u64, Vec<u8>),
    /// All before was made durable.
    Flush,
}

/// A device in memory that remembers every write and flush since it was made.
#[derive(Debug)]
pub struct RecordingDevice {
    before: Vec<u8>,
    now: MemoryDevice,
    events: Mutex<Vec<Event>>,
}

impl RecordingDevice {
    /// A device that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { before: bytes.clone(), now: MemoryDevice::new(bytes), events: Mutex::default() }
    }

    /// The events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The whole content now.
    pub fn to_vec(&self) -> Vec<u8> {
        self.now.to_vec()
    }

    /// The content if the power had been cut after the first `count` events and the device had
    /// written everything at once.
    pub fn prefix(&self, count: usize) -> Vec<u8> {
        let mut bytes = self.before.clone();
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events.iter().take(count) {
            apply(&mut bytes, event);
        }
        bytes
    }

    /// The content if the power had been cut after the first `count` events, and of what was not
    /// flushed some writes had been done, in any order, and some not; with `torn`, writes of more
    /// than 1 KiB (a superblock) in part, sector by sector. `seed` decides.
    pub fn cut(&self, count: usize, seed: u64, torn: bool) -> Vec<u8> {
        self.cut_above(count, seed, if torn { 1024 } else { usize::MAX })
    }

    /// The same on a device that does only single sectors wholly or not at all: every longer write
    /// may be done in part.
    pub fn torn(&self, count: usize, seed: u64) -> Vec<u8> {
        self.cut_above(count, seed, SECTOR)
    }

    fn cut_above(&self, count: usize, seed: u64, whole: usize) -> Vec<u8> {
        let mut random = Random(seed);
        let events = self.events();
        let events = &events[..count.min(events.len())];
        let durable =
            events.iter().rposition(|event| *event == Event::Flush).map_or(0, |at| at + 1);
        let bytes = self.prefix(durable);
        let tears = |_, length| length > whole;
        scatter(bytes, &mut random, loose(&events[durable..], tears))
    }

    /// Every kind of state that a cut between two flushes can leave: of the writes between them each
    /// one alone, all but each one, and `random` mixtures of their sectors in any order. Writes that
    /// lie within `whole` are never torn. `visit` gets a name for the state and the content.
    pub fn losses(&self, whole: &Range<u64>, random: u64, mut visit: impl FnMut(&str, Vec<u8>)) {
        let events = self.events();
        let mut first = 0;
        for epoch in events.split_inclusive(|event| *event == Event::Flush) {
            let durable = self.prefix(first);
            let span = format!("events {first}..{}", first + epoch.len());
            let writes: Vec<&Event> =
                epoch.iter().filter(|event| matches!(event, Event::Write(..))).collect();
            for (index, &one) in writes.iter().enumerate() {
                let mut alone = durable.clone();
                apply(&mut alone, one);
                visit(&format!("{span}, write {index} alone"), alone);
                let mut rest = durable.clone();
                for (_, &event) in writes.iter().enumerate().filter(|&(other, _)| other != index) {
                    apply(&mut rest, event);
                }
                visit(&format!("{span}, all but write {index}"), rest);
            }
            let tears =
                |start, length| !(whole.start <= start && start + length as u64 <= whole.end);
            for seed in 0..if writes.is_empty() { 0 } else { random } {
                let mut generator = Random(first as u64 * random + seed);
                let bytes = scatter(durable.clone(), &mut generator, loose(epoch, tears));
                visit(&format!("{span}, mixture {seed}"), bytes);
            }
            first += epoch.len();
        }
    }
}

/// The writes among `events`; those that `tears` (offset, length) names are taken apart into sectors.
fn loose(events: &[Event], tears: impl Fn(u64, usize) -> bool) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for event in events {
        let Event::Write(offset, data) = event else { continue };
        if tears(*offset, data.len()) {
            for (index, sector) in data.chunks(SECTOR).enumerate() {
                out.push(Event::Write(offset + (index * SECTOR) as u64, sector.to_vec()));
            }
        } else {
            out.push(event.clone());
        }
    }
    out
}

/// Does some of the writes, in any order.
fn scatter(mut bytes: Vec<u8>, random: &mut Random, mut writes: Vec<Event>) -> Vec<u8> {
    // One in eight cuts loses everything that was not flushed, and one keeps nearly all.
    let keep = match random.below(8) {
        0 => 0,
        1 => 15,
        _ => 8,
    };
    while !writes.is_empty() {
        let event = writes.swap_remove(random.below(writes.len()));
        if random.below(16) < keep {
            apply(&mut bytes, &event);
        }
    }
    bytes
}

fn apply(bytes: &mut [u8], event: &Event) {
    if let Event::Write(offset, data) = event {
        let at = *offset as usize;
        bytes[at..at + data.len()].copy_from_slice(data);
    }
}

impl BlockDevice for RecordingDevice {
    fn len(&self) -> u64 {
        self.now.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.now.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.now.write_at(offset, buf)?;
        let event = Event::Write(offset, buf.to_vec());
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        Ok(())
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(Event::Flush);
        Ok(())
    }
}

/// The operation that a [`FaultDevice`] fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The read with this number, from 0, fails with EIO.
    Read(u64),
    /// The write with this number and all after it fail with EIO.
    Write(u64),
    /// The write with this number and all after it fail with ENOSPC.
    Full(u64),
    /// The flush with this number and all after it fail with EIO.
    Flush(u64),
    /// Writes that end beyond this byte fail with ENOSPC.
    WriteBeyond(u64),
    /// Nothing fails.
    None,
}

/// A device that fails at one point.
pub struct FaultDevice {
    inner: Arc<dyn BlockDevice>,
    fault: Fault,
    counts: Counts,
}

/// How often a device was used, and for how many bytes.
#[derive(Debug, Default)]
pub struct Counts {
    /// Reads.
    pub reads: AtomicU64,
    /// Bytes read.
    pub bytes_read: AtomicU64,
    /// Writes.
    pub writes: AtomicU64,
    /// Bytes written.
    pub bytes_written: AtomicU64,
    /// Flushes.
    pub flushes: AtomicU64,
    /// The blocks of 4 KiB that were read.
    pub blocks_read: Mutex<BTreeSet<u64>>,
    /// The blocks of 4 KiB that were written.
    pub blocks_written: Mutex<BTreeSet<u64>>,
}

impl Counts {
    fn note(set: &Mutex<BTreeSet<u64>>, offset: u64, length: usize) {
        let end = (offset + length as u64).div_ceil(4096);
        set.lock().unwrap_or_else(PoisonError::into_inner).extend(offset / 4096..end);
    }

    /// Every fault that a run with these counts can meet, in turn.
    pub fn faults(&self) -> Vec<Fault> {
        let all = |counter: &AtomicU64| 0..counter.load(Ordering::Relaxed);
        let reads = all(&self.reads).map(Fault::Read);
        let writes = all(&self.writes).flat_map(|n| [Fault::Write(n), Fault::Full(n)]);
        reads.chain(writes).chain(all(&self.flushes).map(Fault::Flush)).collect()
    }

    /// Different blocks of 4 KiB read and written.
    pub fn blocks(&self) -> (usize, usize) {
        let count =
            |set: &Mutex<BTreeSet<u64>>| set.lock().unwrap_or_else(PoisonError::into_inner).len();
        (count(&self.blocks_read), count(&self.blocks_written))
    }
}

impl FaultDevice {
    /// A device over `inner` that fails as `fault` says and counts its use.
    pub fn new(inner: Arc<dyn BlockDevice>, fault: Fault) -> Self {
        Self { inner, fault, counts: Counts::default() }
    }

    /// The counters.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn fail(
        operation: &'static str,
        offset: u64,
        length: usize,
        errno: i32,
    ) -> Result<(), DeviceError> {
        let source = io::Error::from_raw_os_error(errno);
        Err(DeviceError { operation, offset, length, source })
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl BlockDevice for FaultDevice {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let number = self.counts.reads.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes_read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Counts::note(&self.counts.blocks_read, offset, buf.len());
        if self.fault == Fault::Read(number) {
            return Self::fail("read", offset, buf.len(), EIO);
        }
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        let number = self.counts.writes.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes_written.fetch_add(buf.len() as u64, Ordering::Relaxed);
        Counts::note(&self.counts.blocks_written, offset, buf.len());
        match self.fault {
            Fault::Write(from) if number >= from => Self::fail("write", offset, buf.len(), EIO),
            Fault::Full(from) if number >= from => Self::fail("write", offset, buf.len(), ENOSPC),
            Fault::WriteBeyond(end) if offset + buf.len() as u64 > end => {
                Self::fail("write", offset, buf.len(), ENOSPC)
            }
            _ => self.inner.write_at(offset, buf),
        }
    }
    fn flush(&self) -> Result<(), DeviceError> {
        let number = self.counts.flushes.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::Flush(from) if number >= from => Self::fail("flush", 0, 0, EIO),
            _ => self.inner.flush(),
        }
    }
}

/// A small generator of pseudo-random numbers (splitmix64), the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next_u64() % limit.max(1) as u64) as usize
    }
}

/// The names of all types that a folder of Rust sources derives as errors, in order.
#[cfg(test)]
pub(crate) fn error_types(folder: &str) -> Vec<String> {
    let (mut out, mut todo) = (Vec::new(), vec![std::path::PathBuf::from(folder)]);
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for after in text.split(concat!("thiserror", "::Error)]\n")).skip(1) {
            let line = after.lines().find(|line| line.starts_with("pub ")).unwrap();
            out.push(line.split([' ', '(']).nth(2).unwrap().to_owned());
        }
    }
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_keeps_what_was_flushed() {
        let device = RecordingDevice::new(vec![0; 8192]);
        device.write_at(0, &[1; 2048]).unwrap();
        device.flush().unwrap();
        device.write_at(2048, &[2; 2048]).unwrap();
        device.write_at(0, &[3; 512]).unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let bytes = device.cut(4, seed, true);
            assert_eq!(bytes[512..2048], [1; 1536]);
            seen.insert((bytes[0], bytes[2048], bytes[2560]));
        }
        assert_eq!(seen.len(), 8);
        assert_eq!(device.prefix(1)[2048], 0);
        assert_eq!(device.prefix(4), device.to_vec());
    }

    #[test]
    fn losses_are_each_write_alone_and_all_but_it() {
        let device = RecordingDevice::new(vec![0; 4096]);
        device.write_at(0, &[1; 1024]).unwrap();
        device.flush().unwrap();
        device.write_at(1024, &[2; 1024]).unwrap();
        device.write_at(2048, &[3; 1024]).unwrap();
        let mut seen = BTreeSet::new();
        device.losses(&(1024..2048), 40, |_, bytes| {
            assert_eq!(bytes[1024], bytes[1536], "a write within `whole` is not torn");
            seen.insert((bytes[0], bytes[512], bytes[1024], bytes[2048], bytes[2560]));
        });
        // Before the flush four states of two sectors, after it two times four.
        assert_eq!(seen.len(), 4 + 8 - 1);
        assert!(seen.contains(&(1, 1, 0, 3, 3)) && seen.contains(&(1, 1, 2, 0, 0)));
    }

    #[test]
    fn faults_happen_where_asked() {
        let memory: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(vec![0; 4096]));
        let device = FaultDevice::new(memory.clone(), Fault::Write(1));
        assert!(device.write_at(0, &[1]).is_ok());
        assert!(device.write_at(1, &[1]).is_err());
        assert!(device.write_at(2, &[1]).is_err());
        let device = FaultDevice::new(memory.clone(), Fault::Full(0));
        assert_eq!(device.write_at(0, &[1]).unwrap_err().source.raw_os_error(), Some(ENOSPC));
        let device = FaultDevice::new(memory, Fault::WriteBeyond(10));
        assert!(device.write_at(9, &[1]).is_ok());
        let error = device.write_at(10, &[1]).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(ENOSPC));
        assert_eq!(device.counts().blocks(), (0, 1));
    }
}
