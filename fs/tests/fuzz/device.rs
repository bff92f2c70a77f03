//! An image that many runs share, with what one run puts over it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use snf_fs::{BlockDevice, DeviceError};

/// Bytes of a patch: no structure that is written is smaller.
const UNIT: usize = 512;

pub struct Patched {
    base: Arc<Vec<u8>>,
    patches: Mutex<BTreeMap<u64, [u8; UNIT]>>,
    reads: AtomicU64,
}

impl Patched {
    pub fn new(base: Arc<Vec<u8>>) -> Self {
        Self { base, patches: Mutex::default(), reads: AtomicU64::new(0) }
    }
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
    fn check(
        &self,
        operation: &'static str,
        offset: u64,
        length: usize,
    ) -> Result<(), DeviceError> {
        let end = offset.checked_add(length as u64);
        if end.is_some_and(|end| end <= self.base.len() as u64) {
            return Ok(());
        }
        let source = std::io::Error::other("beyond the end");
        Err(DeviceError { operation, offset, length, source })
    }
    pub fn bytes(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        self.read_at(offset, &mut out).unwrap();
        out
    }
}

impl BlockDevice for Patched {
    fn len(&self) -> u64 {
        self.base.len() as u64
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.check("read", offset, buf.len())?;
        self.reads.fetch_add(1 + buf.len() as u64 / 65_536, Ordering::Relaxed);
        let start = offset as usize;
        buf.copy_from_slice(&self.base[start..start + buf.len()]);
        let end = start + buf.len();
        let patches = self.patches.lock().unwrap();
        for (&unit, bytes) in patches.range((start / UNIT) as u64..end.div_ceil(UNIT) as u64) {
            let at = unit as usize * UNIT;
            let (from, to) = (at.max(start), (at + UNIT).min(end));
            buf[from - start..to - start].copy_from_slice(&bytes[from - at..to - at]);
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.check("write", offset, buf.len())?;
        let (start, end) = (offset as usize, offset as usize + buf.len());
        let mut patches = self.patches.lock().unwrap();
        for unit in start / UNIT..end.div_ceil(UNIT) {
            let at = unit * UNIT;
            let bytes = patches
                .entry(unit as u64)
                .or_insert_with(|| self.base[at..at + UNIT].try_into().unwrap());
            let (from, to) = (at.max(start), (at + UNIT).min(end));
            bytes[from - at..to - at].copy_from_slice(&buf[from - start..to - start]);
        }
        Ok(())
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}
