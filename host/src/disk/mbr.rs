//! The partition table that a bare file system gets: one bootable primary partition from sector
//! 2048 to the end of the disk, after boot code that starts it.

pub use snf_partition::{FRESH_START as FIRST_SECTOR, TYPE_LINUX, TYPE_NTFS};

/// Sectors of the disks that Ganeti's hypervisors show to their guests.
const SECTOR_SIZE: u32 = 512;
/// First byte of the partition.
pub const PARTITION_OFFSET: u64 = FIRST_SECTOR * SECTOR_SIZE as u64;

/// The first sector of a disk of `disk_size` bytes. A disk beyond the table's reach (2 TiB) gets
/// a partition as large as the table can say. `None` when there is no room for a partition.
pub fn single_partition(disk_size: u64, partition_type: u8, signature: [u8; 4]) -> Option<Vec<u8>> {
    let id = u32::from_le_bytes(signature);
    let plan = snf_partition::fresh_mbr(disk_size, SECTOR_SIZE, partition_type, id).ok()?;
    plan.stages().first()?.first().map(|(_, sector)| sector.clone())
}

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
        assert_eq!(&large[458..462], &(u32::MAX - 2048).to_le_bytes());
    }
}
