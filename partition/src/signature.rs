//! What begins on a device: the one table of signatures.

/// Bytes at a fixed place that tell one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The kind, as `blkid` names it (`LVM2_member`).
    pub kind: &'static str,
    /// The format's name for people.
    pub name: &'static str,
    /// Byte offset from the start of the device.
    pub offset: u64,
    /// The bytes there.
    pub magic: &'static [u8],
}

const fn entry(
    kind: &'static str,
    name: &'static str,
    offset: u64,
    magic: &'static [u8],
) -> Signature {
    Signature { kind, name, offset, magic }
}

/// File systems and containers that a partition or a whole disk may hold. ext and FAT are not
/// among them: their few bytes of magic need more checks beside them.
pub const SIGNATURES: &[Signature] = &[
    entry("ntfs", "NTFS", 3, b"NTFS    "),
    entry("exfat", "exFAT", 3, b"EXFAT   "),
    entry("ReFS", "ReFS", 3, b"ReFS\0\0\0\0"),
    entry("BitLocker", "BitLocker", 3, b"-FVE-FS-"),
    entry("xfs", "XFS", 0, b"XFSB"),
    entry("crypto_LUKS", "LUKS", 0, b"LUKS\xba\xbe"),
    entry("squashfs", "squashfs", 0, b"hsqs"),
    entry("LVM2_member", "LVM physical volume", 512 + 24, b"LVM2 001"),
    entry("LVM2_member", "LVM physical volume", 24, b"LVM2 001"),
    entry("swap", "swap", 4086, b"SWAPSPACE2"),
    entry("swap", "swap", 4086, b"SWAP-SPACE"),
    entry("f2fs", "F2FS", 1024, b"\x10\x20\xf5\xf2"),
    entry("erofs", "EROFS", 1024, b"\xe2\xe1\xf5\xe0"),
    entry("jfs", "JFS", 32768, b"JFS1"),
    entry("iso9660", "ISO 9660", 32769, b"CD001"),
    entry("linux_raid_member", "Linux RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    entry("linux_raid_member", "Linux RAID member", 0, b"\xfc\x4e\x2b\xa9"),
    entry("btrfs", "btrfs", 65536 + 64, b"_BHRfS_M"),
    entry("reiserfs", "ReiserFS", 65536 + 52, b"ReIsEr"),
    entry("ufs", "UFS2", 65536 + 1372, b"\x19\x01\x54\x19"),
    entry("ufs", "UFS1", 8192 + 1372, b"\x54\x19\x01\x00"),
];

/// Bytes from the start of a device that hold all of [`SIGNATURES`].
pub const WINDOW: u64 = 72 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lie_in_the_window() {
        for signature in SIGNATURES {
            let end = signature.offset + signature.magic.len() as u64;
            assert!(end <= WINDOW && !signature.magic.is_empty(), "{}", signature.name);
        }
    }
}
