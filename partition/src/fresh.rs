//! A new MBR in front of a bare file system.

use zerocopy::FromZeros;
use zerocopy::little_endian::{U16, U32};

use crate::boot_code::boot_code;
use crate::error::{Error, Result};
use crate::layout::{MBR_SIGNATURE, MasterBootRecord, PartitionRecord};
use crate::mbr_grow::chs;
use crate::num::{to_u32, to_usize};
use crate::plan::{Change, Plan};
use crate::table::{Partition, PartitionType, Role, TableKind};

/// Type byte for a Linux file system.
pub const TYPE_LINUX: u8 = 0x83;
/// Type byte for NTFS.
pub const TYPE_NTFS: u8 = 0x07;
/// The first sector of the partition of a [`fresh_mbr`].
pub const FRESH_START: u64 = 2048;

/// Plans an MBR for a disk that holds (or will hold) one bare file system from sector 2048 on:
/// one bootable primary partition from there to the end of the disk, and boot code of our own
/// that starts the partition's boot sector. `disk_id` becomes the disk's identifier, of which
/// `PARTUUID` is made; it should be random and not 0.
///
/// # Errors
/// [`Error::Invalid`] where the disk is too small or its sectors have a size that an MBR does not
/// know.
pub fn fresh_mbr(disk_size: u64, sector_size: u32, os_type: u8, disk_id: u32) -> Result<Plan> {
    if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
        return Err(Error::Unsupported {
            what: format!("a disk with sectors of {sector_size} bytes"),
            remedy: "512, 1024, 2048 and 4096 are".to_owned(),
        });
    }
    let disk_sectors = disk_size / u64::from(sector_size);
    let end = disk_sectors.min(u64::from(u32::MAX));
    let size = end.checked_sub(FRESH_START).filter(|size| *size > 0).ok_or_else(|| {
        Error::Invalid(format!(
            "the disk has {disk_sectors} sectors, and its partition begins at sector {FRESH_START}; \
             make the disk larger"
        ))
    })?;
    let mut notes = Vec::new();
    if end < disk_sectors {
        notes.push(format!(
            "an MBR describes no more than {end} sectors of this disk's {disk_sectors}; the rest \
             stays unused"
        ));
    }
    let mut mbr = MasterBootRecord::new_zeroed();
    mbr.boot_code = boot_code();
    mbr.unique_mbr_disk_signature = U32::new(disk_id);
    mbr.partition_record[0] = PartitionRecord {
        boot_indicator: 0x80,
        starting_chs: chs(FRESH_START),
        os_type,
        ending_chs: chs(end - 1),
        starting_lba: U32::new(to_u32(FRESH_START)),
        size_in_lba: U32::new(u32::try_from(size).unwrap_or(u32::MAX)),
    };
    mbr.signature = U16::new(MBR_SIGNATURE);
    let mut sector = vec![0; to_usize(sector_size)];
    mbr.put(&mut sector);
    let partition = Partition {
        number: 1,
        start: FRESH_START,
        size,
        partition_type: PartitionType::Mbr(os_type),
        guid: None,
        name: String::new(),
        partuuid: (disk_id != 0).then(|| format!("{disk_id:08x}-01")),
        bootable: true,
        attributes: 0,
        role: Role::Primary,
    };
    Ok(Plan {
        sector_size,
        partitions: vec![partition.clone()],
        changes: vec![Change::NewTable(TableKind::Mbr), Change::Add(partition)],
        stages: vec![vec![(0, sector)]],
        notes,
        moves: Vec::new(),
        obstacle: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, MemoryDisk, read};

    #[test]
    fn written_and_read_back() {
        let disk = MemoryDisk::new(1 << 30, 512);
        let plan = fresh_mbr(disk.len(), 512, TYPE_LINUX, 0xcafe_f00d).unwrap();
        plan.write(&disk).unwrap();
        let table = read(&disk).unwrap().unwrap();
        assert_eq!(table.partitions[0].end(), 1 << 21);
        assert!(table.partitions[0].bootable);
        assert_eq!(table.partitions[0].partuuid.as_deref(), Some("cafef00d-01"));
        assert!(plan.describe().contains("new MBR"));
    }

    #[test]
    fn too_small_and_too_large() {
        assert!(fresh_mbr(1 << 20, 512, TYPE_LINUX, 1).is_err());
        assert!(fresh_mbr(0, 0, TYPE_LINUX, 1).is_err());
        let plan = fresh_mbr(1 << 42, 512, TYPE_NTFS, 1).unwrap();
        assert_eq!(plan.partitions()[0].end(), u64::from(u32::MAX));
        assert_eq!(plan.notes().len(), 1);
    }
}
