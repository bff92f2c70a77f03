//! The file system or container on a device, by its signature.

use snf_fs::{BlockDevice, DeviceError};
use snf_partition::signature::{SIGNATURES, WRAPPED};
use uuid::Uuid;

/// The facts in a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The kind, as `blkid` names it (`ext4`, `vfat`, `LVM2_member`).
    pub kind: &'static str,
    /// UUID or serial number as `blkid` prints it, where this module reads it.
    pub uuid: Option<String>,
    /// Label, where this module reads it.
    pub label: Option<String>,
}

impl Signature {
    fn plain(kind: &'static str) -> Self {
        Self { kind, uuid: None, label: None }
    }
}

/// The content of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A signature that is known.
    Known(Signature),
    /// The device begins with zeros: most likely it was never formatted.
    Empty,
    /// Something without a known signature.
    Unknown,
}

/// ext2, ext3 or ext4: which one, the engine says.
pub const EXT: &str = "ext";
/// The kind that the NTFS engine opens.
pub const NTFS: &str = "ntfs";
/// The kind that the btrfs engine opens.
pub const BTRFS: &str = "btrfs";
/// XFS.
pub const XFS: &str = "xfs";
/// FAT12, FAT16 or FAT32.
pub const FAT: &str = "vfat";

/// The command that makes a raw disk of a file of this kind; none for other kinds.
pub fn unwrapping(kind: &str) -> Option<&'static str> {
    WRAPPED.iter().find(|format| format.kind == kind)?.remedy
}

/// Looks at the device. Only its first 68 KiB and, for ext, no more than the first 4 are read.
pub fn probe(device: &dyn BlockDevice) -> Result<Probe, DeviceError> {
    let head = read(device, 0, 4608)?;
    let at = |offset: usize, bytes: &[u8]| {
        head.get(offset..).is_some_and(|rest| rest.starts_with(bytes))
    };
    let known = |signature| Ok(Probe::Known(signature));
    if at(1080, b"\x53\xef") {
        return known(Signature::plain(EXT));
    }
    if at(0, b"XFSB") {
        return known(Signature {
            kind: XFS,
            uuid: head.get(32..48).and_then(uuid),
            label: head.get(108..120).and_then(text),
        });
    }
    if at(3, b"NTFS    ") {
        let serial = head.get(72..80).and_then(|b| <[u8; 8]>::try_from(b).ok());
        return known(Signature {
            kind: NTFS,
            uuid: serial.map(|serial| format!("{:016X}", u64::from_le_bytes(serial))),
            label: None,
        });
    }
    for (offset, magic) in [(4086, b"SWAPSPACE2"), (4086, b"SWAP-SPACE")] {
        if at(offset, magic) {
            return known(Signature {
                kind: "swap",
                uuid: head.get(1036..1052).and_then(uuid),
                label: head.get(1052..1068).and_then(text),
            });
        }
    }
    if at(510, b"\x55\xaa")
        && let Some((serial, label)) = [(54, 39), (82, 67)].into_iter().find_map(|(magic, id)| {
            at(magic, b"FAT").then(|| (head.get(id..id + 4), head.get(id + 4..id + 15)))
        })
    {
        let serial = serial.and_then(|b| <[u8; 4]>::try_from(b).ok()).map(u32::from_le_bytes);
        let label = label.and_then(text).filter(|label| label != "NO NAME");
        return known(Signature {
            kind: FAT,
            uuid: serial.map(|s| format!("{:04X}-{:04X}", s >> 16, s & 0xffff)),
            label,
        });
    }
    let btrfs = read(device, 65536, 1024)?;
    if btrfs.get(64..72) == Some(b"_BHRfS_M") {
        return known(Signature {
            kind: BTRFS,
            uuid: btrfs.get(32..48).and_then(uuid),
            label: btrfs.get(299..555).and_then(text),
        });
    }
    for format in SIGNATURES.iter().chain(WRAPPED) {
        let Some(offset) = format.offset() else { continue };
        if read(device, offset, format.magic.len())? == format.magic {
            return known(Signature::plain(format.kind));
        }
    }
    if head.iter().all(|byte| *byte == 0) {
        return Ok(Probe::Empty);
    }
    Ok(Probe::Unknown)
}

/// Reads up to `length` bytes at `offset`: fewer where the device ends before.
fn read(device: &dyn BlockDevice, offset: u64, length: usize) -> Result<Vec<u8>, DeviceError> {
    let length = device.len().saturating_sub(offset).min(length as u64) as usize;
    let mut buf = vec![0; length];
    if length > 0 {
        device.read_at(offset, &mut buf)?;
    }
    Ok(buf)
}

fn uuid(bytes: &[u8]) -> Option<String> {
    Some(Uuid::from_slice(bytes).ok()?.to_string())
}

/// A label: up to the first zero byte, without blanks at its end; `None` when nothing is left.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let label = String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned();
    (!label.is_empty()).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::MemoryDevice;

    fn of(parts: &[(usize, &[u8])]) -> Probe {
        let mut bytes = vec![0; 128 << 10];
        for (offset, part) in parts {
            bytes[*offset..*offset + part.len()].copy_from_slice(part);
        }
        probe(&MemoryDevice::new(bytes)).unwrap()
    }

    #[test]
    fn signatures() {
        assert_eq!(of(&[]), Probe::Empty);
        assert_eq!(of(&[(0, b"MZ")]), Probe::Unknown);
        assert_eq!(of(&[(1080, b"\x53\xef")]), Probe::Known(Signature::plain("ext")));
        assert_eq!(of(&[(536, b"LVM2 001")]), Probe::Known(Signature::plain("LVM2_member")));
        let fat = of(&[
            (510, b"\x55\xaa"),
            (82, b"FAT32   "),
            (67, b"\x34\x12\xcd\xab"),
            (71, b"ESP        "),
        ]);
        let expected =
            Signature { kind: "vfat", uuid: Some("ABCD-1234".into()), label: Some("ESP".into()) };
        assert_eq!(fat, Probe::Known(expected));
        let swap = of(&[(4086, b"SWAPSPACE2"), (1036, &[0x11; 16]), (1052, b"swp")]);
        let expected = Signature {
            kind: "swap",
            uuid: Some("11111111-1111-1111-1111-111111111111".into()),
            label: Some("swp".into()),
        };
        assert_eq!(swap, Probe::Known(expected));
        let Probe::Known(btrfs) = of(&[(65536 + 64, b"_BHRfS_M")]) else { panic!("not btrfs") };
        assert_eq!((btrfs.kind, btrfs.label), ("btrfs", None));
    }

    #[test]
    fn every_wrapped_format_says_what_to_do() {
        for format in WRAPPED {
            let (kind, offset) = (format.kind, format.offset().unwrap() as usize);
            assert_eq!(of(&[(offset, format.magic)]), Probe::Known(Signature::plain(kind)));
            assert!(unwrapping(kind).is_some(), "{kind}");
        }
        assert_eq!(unwrapping("xfs"), None);
    }

    #[test]
    fn short_devices() {
        for size in [0, 1, 511, 1080, 1081, 4095] {
            let device = MemoryDevice::new(vec![0; size]);
            assert_eq!(probe(&device).unwrap(), Probe::Empty, "{size}");
        }
    }
}
