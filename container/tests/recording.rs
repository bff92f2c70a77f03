//! A growing file that remembers every write and can cut the power, or fail, at any point.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use snf_container::GrowableDevice;
use snf_fs::testing::{Random, SECTOR};
use snf_fs::{BlockDevice, DeviceError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Write(u64, Vec<u8>),
    Flush,
}

/// The operation that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// This write and all after it.
    Write(u64),
    /// This flush and all after it.
    Flush(u64),
    /// Growing beyond so many bytes.
    Full(u64),
}

pub struct Recording {
    before: Vec<u8>,
    now: Mutex<Vec<u8>>,
    events: Mutex<Vec<Event>>,
    fault: Fault,
    writes: AtomicU64,
    flushes: AtomicU64,
}

impl Recording {
    pub fn new(bytes: Vec<u8>, fault: Fault) -> Self {
        Self {
            before: bytes.clone(),
            now: Mutex::new(bytes),
            events: Mutex::default(),
            fault,
            writes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        }
    }

    pub fn to_vec(&self) -> Vec<u8> {
        self.now.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }

    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// The file after a cut after `count` events: what was flushed is there; of the rest some
    /// sectors are, written in any order.
    pub fn cut(&self, count: usize, seed: u64) -> Vec<u8> {
        let mut random = Random(seed);
        let events = self.events.lock().unwrap();
        let events = &events[..count];
        let durable =
            events.iter().rposition(|event| *event == Event::Flush).map_or(0, |at| at + 1);
        let mut bytes = self.before.clone();
        for event in &events[..durable] {
            apply(&mut bytes, event);
        }
        let mut loose: Vec<Event> = Vec::new();
        for event in &events[durable..] {
            let Event::Write(offset, data) = event else { continue };
            // One in four writes is torn into its sectors.
            if data.len() > SECTOR && random.below(4) == 0 {
                for (index, sector) in data.chunks(SECTOR).enumerate() {
                    loose.push(Event::Write(offset + (index * SECTOR) as u64, sector.to_vec()));
                }
            } else {
                loose.push(event.clone());
            }
        }
        let keep = [0, 15, 16, 8, 8, 8, 4, 12][random.below(8)];
        let in_order = random.below(2) == 0;
        while !loose.is_empty() {
            let at = if in_order { 0 } else { random.below(loose.len()) };
            let event = loose.remove(at);
            if random.below(16) < keep {
                apply(&mut bytes, &event);
            }
        }
        bytes
    }
}

fn apply(bytes: &mut Vec<u8>, event: &Event) {
    if let Event::Write(offset, data) = event {
        let end = *offset as usize + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[*offset as usize..end].copy_from_slice(data);
    }
}

fn fail(operation: &'static str, offset: u64, length: usize, errno: i32) -> DeviceError {
    DeviceError { operation, offset, length, source: io::Error::from_raw_os_error(errno) }
}

impl BlockDevice for Recording {
    fn len(&self) -> u64 {
        self.now.lock().unwrap().len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        let now = self.now.lock().unwrap();
        let range = offset as usize..offset as usize + buf.len();
        buf.copy_from_slice(now.get(range).ok_or_else(|| fail("read", offset, buf.len(), 5))?);
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        if matches!(self.fault, Fault::Write(from) if number >= from) {
            return Err(fail("write", offset, buf.len(), 5));
        }
        let mut now = self.now.lock().unwrap();
        let range = offset as usize..offset as usize + buf.len();
        now.get_mut(range).ok_or_else(|| fail("write", offset, buf.len(), 5))?.copy_from_slice(buf);
        self.events.lock().unwrap().push(Event::Write(offset, buf.to_vec()));
        Ok(())
    }
    fn flush(&self) -> Result<(), DeviceError> {
        let number = self.flushes.fetch_add(1, Ordering::Relaxed);
        if matches!(self.fault, Fault::Flush(from) if number >= from) {
            return Err(fail("flush", 0, 0, 5));
        }
        self.events.lock().unwrap().push(Event::Flush);
        Ok(())
    }
}

impl GrowableDevice for Recording {
    fn set_len(&self, size: u64) -> Result<(), DeviceError> {
        if matches!(self.fault, Fault::Full(most) if size > most) {
            return Err(fail("grow to", size, 0, 28));
        }
        self.now.lock().unwrap().resize(size as usize, 0);
        Ok(())
    }
}
