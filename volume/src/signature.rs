//! Volumes and containers that this crate does not open, told by their signatures, so that a
//! refusal can name them.

use snf_fs::BlockDevice;

use crate::Result;

/// Where a signature lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// This byte.
    At(u64),
    /// The device's size rounded down to a multiple of the second number, less the first.
    BeforeEnd(u64, u64),
    /// Any multiple of the step in a range of bytes.
    Every {
        /// First byte.
        start: u64,
        /// Byte after the last one.
        end: u64,
        /// Bytes from one place to the next.
        step: u64,
    },
}

/// A kind of volume that is named and not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The kind, as `blkid` names it where it does.
    pub kind: &'static str,
    /// The name that people know.
    pub name: &'static str,
    /// Where the signature lies.
    pub place: Place,
    /// The bytes there.
    pub magic: &'static [u8],
    /// The way to go on.
    pub remedy: &'static str,
}

const MD: &[u8] = b"\xfc\x4e\x2b\xa9";
const MD_REMEDY: &str = "assemble the array in a running system and give its device";
const ZFS_REMEDY: &str = "import the pool in a running system and edit the files there";
/// The uberblocks of the first label.
const UBERBLOCKS: Place = Place::Every { start: 128 << 10, end: 256 << 10, step: 1 << 10 };

const fn foreign(
    kind: &'static str,
    name: &'static str,
    place: Place,
    magic: &'static [u8],
    remedy: &'static str,
) -> Foreign {
    Foreign { kind, name, place, magic, remedy }
}

/// Every kind that [`identify`] knows, in the order in which it looks.
pub const FOREIGN: &[Foreign] = &[
    foreign(
        "BitLocker",
        "BitLocker",
        Place::At(3),
        b"-FVE-FS-",
        "decrypt it in Windows with manage-bde -off",
    ),
    foreign("ReFS", "ReFS", Place::At(3), b"ReFS\0\0\0\0", "only Windows edits ReFS"),
    foreign("LVM1_member", "LVM1", Place::At(0), b"HM\x01\0", "convert it with vgconvert"),
    foreign("LVM1_member", "LVM1", Place::At(0), b"HM\x02\0", "convert it with vgconvert"),
    foreign("linux_raid_member", "Linux software RAID", Place::At(4096), MD, MD_REMEDY),
    foreign("linux_raid_member", "Linux software RAID", Place::At(0), MD, MD_REMEDY),
    // Version 1.0: 8 KiB before the end, at a multiple of 4 KiB.
    foreign(
        "linux_raid_member",
        "Linux software RAID",
        Place::BeforeEnd(8 << 10, 4 << 10),
        MD,
        MD_REMEDY,
    ),
    // Version 0.90: in the last whole 64 KiB.
    foreign(
        "linux_raid_member",
        "Linux software RAID",
        Place::BeforeEnd(64 << 10, 64 << 10),
        MD,
        MD_REMEDY,
    ),
    foreign(
        "bcache",
        "bcache",
        Place::At(4096 + 24),
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        "detach the cache and edit the device in a running system",
    ),
    foreign(
        "bcachefs",
        "bcachefs",
        Place::At(4096 + 24),
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
        "mount it in a running system and edit the files there",
    ),
    foreign("zfs_member", "ZFS", UBERBLOCKS, b"\x0c\xb1\xba\0\0\0\0\0", ZFS_REMEDY),
    foreign("zfs_member", "ZFS", UBERBLOCKS, b"\0\0\0\0\0\xba\xb1\x0c", ZFS_REMEDY),
    foreign(
        "stratis",
        "Stratis",
        Place::At(512 + 4),
        b"!Stra0tis\x86\xff\x02^\x41rh",
        "edit the file system in a running system",
    ),
    foreign("vdo", "VDO", Place::At(0), b"dmvdo001", "edit the volume in a running system"),
    foreign(
        "DM_integrity",
        "dm-integrity",
        Place::At(0),
        b"integrt\0",
        "open it in a running system with integritysetup",
    ),
    foreign(
        "DM_verity_hash",
        "dm-verity hashes",
        Place::At(0),
        b"verity\0\0",
        "a verified image must not change",
    ),
    foreign(
        "ceph_bluestore",
        "Ceph BlueStore",
        Place::At(0),
        b"bluestore block device",
        "it holds a part of a cluster's objects, and no file system",
    ),
];

/// The foreign kind that a device holds. Reads a few sectors, and 128 KiB for ZFS.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
pub fn identify(device: &dyn BlockDevice) -> Result<Option<&'static Foreign>> {
    for foreign in FOREIGN {
        if holds(device, foreign)? {
            return Ok(Some(foreign));
        }
    }
    Ok(None)
}

fn holds(device: &dyn BlockDevice, foreign: &Foreign) -> Result<bool> {
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

    fn disk(foreign: &Foreign) -> Vec<u8> {
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
        for foreign in FOREIGN {
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
        for foreign in FOREIGN {
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
