//! The structures on the disk, with the field names of the UEFI specification (2.10, chapter 5),
//! declared once for reading and writing.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An MBR partition record (5.2.1, table 5.2). An EBR uses the same.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct PartitionRecord {
    /// 0x80: the legacy boot code boots this one.
    pub(crate) boot_indicator: u8,
    pub(crate) starting_chs: [u8; 3],
    pub(crate) os_type: u8,
    pub(crate) ending_chs: [u8; 3],
    pub(crate) starting_lba: U32,
    pub(crate) size_in_lba: U32,
}

/// The first 512 bytes of a disk (5.2.1, table 5.1); an EBR has the same shape.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct MasterBootRecord {
    pub(crate) boot_code: [u8; 440],
    pub(crate) unique_mbr_disk_signature: U32,
    pub(crate) unknown: U16,
    pub(crate) partition_record: [PartitionRecord; 4],
    pub(crate) signature: U16,
}

/// `signature` of a [`MasterBootRecord`]: bytes 55 AA.
pub(crate) const MBR_SIGNATURE: u16 = 0xaa55;
/// `os_type` of a protective MBR's record.
pub(crate) const OS_TYPE_GPT_PROTECTIVE: u8 = 0xee;

/// The GPT header (5.3.2, table 5.5).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct GptHeader {
    pub(crate) signature: [u8; 8],
    pub(crate) revision: U32,
    pub(crate) header_size: U32,
    pub(crate) header_crc32: U32,
    pub(crate) reserved: U32,
    pub(crate) my_lba: U64,
    pub(crate) alternate_lba: U64,
    pub(crate) first_usable_lba: U64,
    pub(crate) last_usable_lba: U64,
    pub(crate) disk_guid: [u8; 16],
    pub(crate) partition_entry_lba: U64,
    pub(crate) number_of_partition_entries: U32,
    pub(crate) size_of_partition_entry: U32,
    pub(crate) partition_entry_array_crc32: U32,
}

/// `signature` of a [`GptHeader`].
pub(crate) const GPT_SIGNATURE: [u8; 8] = *b"EFI PART";

/// A GPT partition entry (5.3.3, table 5.6); entries may be longer than this.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct GptEntry {
    pub(crate) partition_type_guid: [u8; 16],
    pub(crate) unique_partition_guid: [u8; 16],
    pub(crate) starting_lba: U64,
    pub(crate) ending_lba: U64,
    pub(crate) attributes: U64,
    pub(crate) partition_name: [U16; 36],
}

const _: () = assert!(size_of::<PartitionRecord>() == 16);
const _: () = assert!(size_of::<MasterBootRecord>() == 512);
const _: () = assert!(size_of::<GptHeader>() == 92);
const _: () = assert!(size_of::<GptEntry>() == 128);

impl MasterBootRecord {
    /// The record at the start of `sector`, or `None` when that is shorter than 512 bytes.
    pub(crate) fn of(sector: &[u8]) -> Option<Self> {
        Self::read_from_prefix(sector).ok().map(|(mbr, _)| mbr)
    }

    /// Puts the record back over the start of `sector`.
    pub(crate) fn put(&self, sector: &mut [u8]) {
        let bytes = self.as_bytes();
        if let Some(target) = sector.get_mut(..bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }
}

impl PartitionRecord {
    /// Whether the slot is free: the kernel goes by the size, fdisk by the type.
    pub(crate) fn is_unused(&self) -> bool {
        self.size_in_lba.get() == 0 || self.os_type == 0
    }

    /// Whether it is a container of logical partitions.
    pub(crate) fn is_extended(&self) -> bool {
        is_extended_type(self.os_type)
    }
}

/// Extended partitions: CHS, LBA and Linux.
pub(crate) fn is_extended_type(os_type: u8) -> bool {
    matches!(os_type, 0x05 | 0x0f | 0x85)
}
