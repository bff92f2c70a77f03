//! The formats that a device can hold: the one table of signatures.

/// The place of a signature on a device.
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

/// Bytes at a known place that tell one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The kind, as `blkid` names it where it does (`LVM2_member`).
    pub kind: &'static str,
    /// The format's name for people.
    pub name: &'static str,
    /// The place of the bytes.
    pub place: Place,
    /// The bytes there.
    pub magic: &'static [u8],
    /// The way to go on with a volume or container that these crates do not open; `None` for a file
    /// system, and for volumes that are opened.
    pub remedy: Option<&'static str>,
}

impl Signature {
    /// Byte offset from the start of the device, where that is the same on every device.
    pub const fn offset(&self) -> Option<u64> {
        match self.place {
            Place::At(offset) => Some(offset),
            Place::BeforeEnd(..) | Place::Every { .. } => None,
        }
    }

    const fn or(self, remedy: &'static str) -> Self {
        Self { remedy: Some(remedy), ..self }
    }
}

const fn at(
    kind: &'static str,
    name: &'static str,
    offset: u64,
    magic: &'static [u8],
) -> Signature {
    Signature { kind, name, place: Place::At(offset), magic, remedy: None }
}

const fn raid(place: Place) -> Signature {
    Signature {
        kind: "linux_raid_member",
        name: "Linux software RAID",
        place,
        magic: b"\xfc\x4e\x2b\xa9",
        remedy: Some("assemble the array in a running system and give its device"),
    }
}

/// An uberblock of the first label, in either order of bytes.
const fn zfs(magic: &'static [u8]) -> Signature {
    Signature {
        kind: "zfs_member",
        name: "ZFS",
        place: Place::Every { start: 128 << 10, end: 256 << 10, step: 1 << 10 },
        magic,
        remedy: Some("import the pool in a running system and edit the files there"),
    }
}

/// File systems and containers that a partition or a whole disk may hold, in the order in which
/// they are looked for. ext and FAT are not among them: their few bytes of magic need more checks
/// beside them.
pub const SIGNATURES: &[Signature] = &[
    at("ntfs", "NTFS", 3, b"NTFS    "),
    at("exfat", "exFAT", 3, b"EXFAT   "),
    at("ReFS", "ReFS", 3, b"ReFS\0\0\0\0").or("only Windows edits ReFS"),
    at("BitLocker", "BitLocker", 3, b"-FVE-FS-").or("decrypt it in Windows with manage-bde -off"),
    at("xfs", "XFS", 0, b"XFSB"),
    at("crypto_LUKS", "LUKS", 0, b"LUKS\xba\xbe"),
    at("squashfs", "squashfs", 0, b"hsqs"),
    at("LVM2_member", "LVM physical volume", 512 + 24, b"LVM2 001"),
    at("LVM2_member", "LVM physical volume", 24, b"LVM2 001"),
    at("LVM1_member", "LVM1", 0, b"HM\x01\0").or("convert it with vgconvert"),
    at("LVM1_member", "LVM1", 0, b"HM\x02\0").or("convert it with vgconvert"),
    at("swap", "swap", 4086, b"SWAPSPACE2"),
    at("swap", "swap", 4086, b"SWAP-SPACE"),
    at("f2fs", "F2FS", 1024, b"\x10\x20\xf5\xf2"),
    at("erofs", "EROFS", 1024, b"\xe2\xe1\xf5\xe0"),
    at("jfs", "JFS", 32768, b"JFS1"),
    at("iso9660", "ISO 9660", 32769, b"CD001"),
    raid(Place::At(4096)),
    raid(Place::At(0)),
    // Version 1.0: 8 KiB before the end, at a multiple of 4 KiB.
    raid(Place::BeforeEnd(8 << 10, 4 << 10)),
    // Version 0.90: in the last whole 64 KiB.
    raid(Place::BeforeEnd(64 << 10, 64 << 10)),
    at("btrfs", "btrfs", 65536 + 64, b"_BHRfS_M"),
    at("reiserfs", "ReiserFS", 65536 + 52, b"ReIsEr"),
    at("ufs", "UFS2", 65536 + 1372, b"\x19\x01\x54\x19"),
    at("ufs", "UFS1", 8192 + 1372, b"\x54\x19\x01\x00"),
    at(
        "bcache",
        "bcache",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
    )
    .or("detach the cache and edit the device in a running system"),
    at(
        "bcachefs",
        "bcachefs",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
    )
    .or("mount it in a running system and edit the files there"),
    zfs(b"\x0c\xb1\xba\0\0\0\0\0"),
    zfs(b"\0\0\0\0\0\xba\xb1\x0c"),
    at("stratis", "Stratis", 512 + 4, b"!Stra0tis\x86\xff\x02^\x41rh")
        .or("edit the file system in a running system"),
    at("vdo", "VDO", 0, b"dmvdo001").or("edit the volume in a running system"),
    at("DM_integrity", "dm-integrity", 0, b"integrt\0")
        .or("open it in a running system with integritysetup"),
    at("DM_verity_hash", "dm-verity hashes", 0, b"verity\0\0")
        .or("a verified image must not change"),
    at("ceph_bluestore", "Ceph BlueStore", 0, b"bluestore block device")
        .or("it holds a part of a cluster's objects, and no file system"),
];

/// The first bytes of every qcow2 image.
pub const QCOW2: [u8; 4] = *b"QFI\xfb";

const CONVERT: &str = "convert it with qemu-img convert -O raw";

/// Formats in which a disk travels before it is raw. A file of such a kind was most likely given by
/// mistake; its bytes alone are no reason to unpack it.
pub const WRAPPED: &[Signature] = &[
    at("qcow2", "qcow2", 0, &QCOW2).or(CONVERT),
    at("vmdk", "VMDK", 0, b"KDMV").or(CONVERT),
    at("vhdx", "VHDX", 0, b"vhdxfile").or(CONVERT),
    at("vpc", "VHD", 0, b"conectix").or(CONVERT),
    at("vdi", "VDI", 64, b"\x7f\x10\xda\xbe").or(CONVERT),
    at("gzip", "gzip", 0, b"\x1f\x8b\x08").or("unpack it with gunzip"),
    at("xz", "xz", 0, b"\xfd7zXZ\0").or("unpack it with unxz"),
    at("zstd", "zstd", 0, b"\x28\xb5\x2f\xfd").or("unpack it with unzstd"),
    // After `BZh` and the level: the first block begins with the digits of pi.
    at("bzip2", "bzip2", 4, b"1AY&SY").or("unpack it with bunzip2"),
];

/// Bytes from the start of a device that hold every signature with a fixed offset.
pub const WINDOW: u64 = 72 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_with_a_fixed_offset_lie_in_the_window() {
        for signature in SIGNATURES.iter().chain(WRAPPED) {
            let length = u64::try_from(signature.magic.len()).unwrap();
            let end = signature.offset().map_or(0, |offset| offset + length);
            assert!(end <= WINDOW && length > 0, "{}", signature.name);
        }
    }

    #[test]
    fn no_two_are_the_same() {
        let all: Vec<_> = SIGNATURES.iter().chain(WRAPPED).collect();
        for (index, one) in all.iter().enumerate() {
            for other in &all[..index] {
                assert!((one.place, one.magic) != (other.place, other.magic), "{}", one.name);
            }
        }
    }
}
