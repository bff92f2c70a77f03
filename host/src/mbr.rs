//! The partition table that a bare file system gets: one bootable primary partition from sector
//! 2048 to the end of the disk.

/// First sector of the partition.
pub const FIRST_SECTOR: u64 = 2048;
/// First byte of the partition.
pub const PARTITION_OFFSET: u64 = FIRST_SECTOR * 512;

/// `partition type`: Linux.
pub const TYPE_LINUX: u8 = 0x83;
/// `partition type`: NTFS.
pub const TYPE_NTFS: u8 = 0x07;

/// The first sector of a disk of `disk_size` bytes. A disk beyond the table's reach (2 TiB) gets
/// a partition as large as the table can say. `None` when there is no room for a partition.
pub fn single_partition(
    disk_size: u64,
    partition_type: u8,
    signature: [u8; 4],
) -> Option<[u8; 512]> {
    let sectors = (disk_size / 512).checked_sub(FIRST_SECTOR).filter(|n| *n > 0)?;
    let sectors = u32::try_from(sectors).unwrap_or(u32::MAX);
    let first = FIRST_SECTOR as u32;
    let mut sector = [0u8; 512];
    sector[..BOOT_CODE.len()].copy_from_slice(&BOOT_CODE);
    sector[440..444].copy_from_slice(&signature);
    let entry = &mut sector[446..462];
    entry[0] = 0x80;
    entry[1..4].copy_from_slice(&chs(u64::from(first)));
    entry[4] = partition_type;
    entry[5..8].copy_from_slice(&chs(u64::from(first) + u64::from(sectors) - 1));
    entry[8..12].copy_from_slice(&first.to_le_bytes());
    entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Some(sector)
}

/// Cylinder, head and sector as a table holds them, for 255 heads and 63 sectors; what lies
/// beyond is said with the customary largest value.
fn chs(lba: u64) -> [u8; 3] {
    let (cylinder, head, sector) = (lba / (255 * 63), lba / 63 % 255, lba % 63 + 1);
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    [head as u8, (sector as u8) | ((cylinder >> 2) as u8 & 0xc0), cylinder as u8]
}

/// Boot sector code: finds the active partition, loads its first sector with the BIOS's extended
/// read and jumps there as the BIOS would (DL: the drive, DS:SI: the table entry).
const BOOT_CODE: [u8; 0] = [];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sfdisk_agrees() {
        let disk = tempfile::NamedTempFile::new().unwrap();
        let size = 100 << 20;
        disk.as_file().set_len(size).unwrap();
        let sector = single_partition(size, TYPE_LINUX, [0x78, 0x56, 0x34, 0x12]).unwrap();
        std::os::unix::fs::FileExt::write_all_at(disk.as_file(), &sector, 0).unwrap();
        let out = std::process::Command::new("sfdisk").arg("-d").arg(disk.path()).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains("label-id: 0x12345678"), "{text}");
        assert!(
            text.contains("start=        2048, size=      202752, type=83, bootable"),
            "{text}"
        );
        let out = std::process::Command::new("sfdisk").arg("-V").arg(disk.path()).output().unwrap();
        assert!(out.status.success(), "{out:?}");
    }

    #[test]
    fn limits() {
        assert!(single_partition(1 << 20, TYPE_LINUX, [0; 4]).is_none());
        assert!(single_partition((1 << 20) + 511, TYPE_LINUX, [0; 4]).is_none());
        let small = single_partition((1 << 20) + 512, TYPE_NTFS, [0; 4]).unwrap();
        assert_eq!(&small[446..462], &[0x80, 32, 33, 0, 7, 32, 33, 0, 0, 8, 0, 0, 1, 0, 0, 0]);
        let large = single_partition(1 << 45, TYPE_NTFS, [0; 4]).unwrap();
        assert_eq!(&large[458..462], &[0xff; 4]);
    }
}
