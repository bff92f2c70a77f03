//! Volumes and containers that this crate does not open, found by their signatures, so that a
//! refusal can name them. The signatures themselves are in [`snf_partition::signature`].

use snf_fs::BlockDevice;
use snf_partition::signature::SIGNATURES;
pub use snf_partition::signature::{Place, Signature};

use crate::Result;

/// Every kind that [`identify`] knows, in the order in which it looks: those with a remedy.
pub fn foreign() -> impl Iterator<Item = &'static Signature> {
    SIGNATURES.iter().filter(|signature| signature.remedy.is_some())
}

/// The foreign kind that a device holds. Reads a few sectors, and 128 KiB for ZFS.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
pub fn identify(device: &dyn BlockDevice) -> Result<Option<&'static Signature>> {
    for foreign in foreign() {
        if holds(device, foreign)? {
            return Ok(Some(foreign));
        }
    }
    Ok(None)
}

fn holds(device: &dyn BlockDevice, foreign: &Signature) -> Result<bool> {
    let length = foreign.magic.len();
    let (start, end, step) = match foreign.place {
        Place::At(at) => (at, at + length as u64, 1 << 10),
        Place::BeforeEnd(distance, multiple) => {
            let Some(at) = (device.len() / multiple * multiple).checked_sub(distance) else {
                return Ok(false);
            };
            (at, at + length as u64, 1 << 10)
        }
        Place::Every { start, end, step } => (start, end, step),
    };
    if end > device.len() {
        return Ok(false);
    }
    // At most 128 KiB.
    let mut bytes = vec![0; (end - start) as usize];
    device.read_at(start, &mut bytes)?;
    Ok(bytes.chunks(step as usize).any(|chunk| chunk.starts_with(foreign.magic)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use snf_fs::MemoryDevice;

    use super::*;

    const SIZE: usize = (1 << 20) + 5 * 4096;

    fn disk(foreign: &Signature) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        let at = match foreign.place {
            Place::At(at) => at as usize,
            Place::BeforeEnd(distance, multiple) => {
                SIZE / multiple as usize * multiple as usize - distance as usize
            }
            Place::Every { start, step, .. } => (start + 5 * step) as usize,
        };
        bytes[at..at + foreign.magic.len()].copy_from_slice(foreign.magic);
        bytes
    }

    #[test]
    fn every_kind_is_found() {
        for foreign in foreign() {
            let found = identify(&MemoryDevice::new(disk(foreign))).unwrap();
            assert_eq!(found.map(|found| found.kind), Some(foreign.kind));
        }
        for size in [0, 1, 4095, 4097, 70_000] {
            assert_eq!(identify(&MemoryDevice::new(vec![0; size])).unwrap(), None);
        }
    }

    /// blkid looks at more than the signature of some kinds. Those that it tells are ours, too.
    #[test]
    fn blkid_calls_them_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        let mut agreed = 0;
        for foreign in foreign() {
            std::fs::write(&path, disk(foreign)).unwrap();
            let mut blkid = Command::new("blkid");
            let output = blkid.args(["-p", "-o", "value", "-s", "TYPE"]).arg(&path).output();
            let told = String::from_utf8(output.unwrap().stdout).unwrap();
            if !told.trim().is_empty() {
                assert_eq!(told.trim(), foreign.kind);
                agreed += 1;
            }
        }
        assert!(agreed >= 3, "{agreed}");
    }
}
