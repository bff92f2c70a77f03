//! The structures of NTFS 3.1 on disk, with the names of their fields as Microsoft's own documents
//! have them (MS-FSCC, "Master File Table" in the Win32 reference) and, where those are silent, as
//! the linux-ntfs documentation has them. All numbers are little-endian.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::units::RecordNumber;
use crate::num::low16;

/// `$STANDARD_INFORMATION`.
pub const STANDARD_INFORMATION: u32 = 0x10;
/// `$ATTRIBUTE_LIST`.
pub const ATTRIBUTE_LIST: u32 = 0x20;
/// `$FILE_NAME`.
pub const FILE_NAME: u32 = 0x30;
/// `$OBJECT_ID`.
pub const OBJECT_ID: u32 = 0x40;
/// `$SECURITY_DESCRIPTOR`: of files that have no id in `$Secure`.
pub const SECURITY_DESCRIPTOR: u32 = 0x50;
/// `$VOLUME_NAME`.
pub const VOLUME_NAME: u32 = 0x60;
/// `$VOLUME_INFORMATION`.
pub const VOLUME_INFORMATION: u32 = 0x70;
/// `$DATA`.
pub const DATA: u32 = 0x80;
/// `$INDEX_ROOT`.
pub const INDEX_ROOT: u32 = 0x90;
/// `$INDEX_ALLOCATION`.
pub const INDEX_ALLOCATION: u32 = 0xa0;
/// `$BITMAP`.
pub const BITMAP: u32 = 0xb0;
/// `$REPARSE_POINT`.
pub const REPARSE_POINT: u32 = 0xc0;
/// The mark after a record's last attribute.
pub const END: u32 = 0xffff_ffff;

/// The numbers of the system's own records.
pub mod records {
    use super::RecordNumber;

    /// `$MFT`.
    pub const MFT: RecordNumber = RecordNumber(0);
    /// `$MFTMirr`.
    pub const MFT_MIRR: RecordNumber = RecordNumber(1);
    /// `$LogFile`.
    pub const LOG_FILE: RecordNumber = RecordNumber(2);
    /// `$Volume`.
    pub const VOLUME: RecordNumber = RecordNumber(3);
    /// The root directory.
    pub const ROOT: RecordNumber = RecordNumber(5);
    /// `$Bitmap`.
    pub const BITMAP: RecordNumber = RecordNumber(6);
    /// `$Secure`.
    pub const SECURE: RecordNumber = RecordNumber(9);
    /// `$UpCase`.
    pub const UP_CASE: RecordNumber = RecordNumber(10);
    /// `$Extend`.
    pub const EXTEND: RecordNumber = RecordNumber(11);
    /// Records that only the MFT's own run list may be continued in.
    pub const MFT_EXTENSIONS: std::ops::Range<RecordNumber> = RecordNumber(15)..RecordNumber(24);
    /// The first record that is not one of the system's own, on disks as Windows makes them.
    pub const FIRST_USER: RecordNumber = RecordNumber(24);
    /// Names in the root directory of records below this are not shown.
    pub const FIRST_VISIBLE: RecordNumber = RecordNumber(16);
}

/// Flags of an attribute.
pub mod attribute_flags {
    /// LZNT1.
    pub const COMPRESSED: u16 = 0x0001;
    /// The bits that name the way of compression.
    pub const COMPRESSION_MASK: u16 = 0x00ff;
    /// EFS.
    pub const ENCRYPTED: u16 = 0x4000;
    /// It may have holes.
    pub const SPARSE: u16 = 0x8000;
}

/// FileAttributes of `$STANDARD_INFORMATION` and `$FILE_NAME`.
pub mod file_attributes {
    /// Wants to be archived.
    pub const ARCHIVE: u32 = 0x20;
    /// Sparse.
    pub const SPARSE_FILE: u32 = 0x200;
    /// A reparse point.
    pub const REPARSE_POINT: u32 = 0x400;
    /// Compressed; on a directory: what is made in it is.
    pub const COMPRESSED: u32 = 0x800;
    /// A directory; in `$FILE_NAME` only.
    pub const DIRECTORY: u32 = 0x1000_0000;
}

/// The first 512 bytes of a volume.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct BootSector {
    pub jump: [u8; 3],
    pub oem: [u8; 8],
    pub bytes_per_sector: U16,
    pub sectors_per_cluster: u8,
    pub reserved_sectors: U16,
    pub unused_1: [u8; 5],
    pub media: u8,
    pub unused_2: [u8; 18],
    pub number_sectors: U64,
    pub mft_start_lcn: U64,
    pub mft2_start_lcn: U64,
    pub clusters_per_file_record_segment: u8,
    pub unused_3: [u8; 3],
    pub default_clusters_per_index_allocation_buffer: u8,
    pub unused_4: [u8; 3],
    pub serial_number: U64,
    pub checksum: U32,
    pub boot_code: [u8; 426],
    pub end_marker: [u8; 2],
}

/// FILE_RECORD_SEGMENT_HEADER, the head of an MFT record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct FileRecord {
    pub signature: [u8; 4],
    pub update_sequence_array_offset: U16,
    pub update_sequence_array_size: U16,
    pub lsn: U64,
    pub sequence_number: U16,
    pub reference_count: U16,
    pub first_attribute_offset: U16,
    pub flags: U16,
    pub first_free_byte: U32,
    pub bytes_available: U32,
    pub base_file_record_segment: U64,
    pub next_attribute_instance: U16,
    pub unused: U16,
    pub segment_number: U32,
}

/// Flags of a [`FileRecord`].
pub mod record_flags {
    /// FILE_RECORD_SEGMENT_IN_USE.
    pub const IN_USE: u16 = 1;
    /// FILE_FILE_NAME_INDEX_PRESENT: a directory.
    pub const DIRECTORY: u16 = 2;
}

/// ATTRIBUTE_RECORD_HEADER: what all attributes begin with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct AttributeHeader {
    pub type_code: U32,
    pub record_length: U32,
    pub form_code: u8,
    pub name_length: u8,
    pub name_offset: U16,
    pub flags: U16,
    pub instance: U16,
}

/// The fields after the header of a resident attribute.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Resident {
    pub value_length: U32,
    pub value_offset: U16,
    pub resident_flags: u8,
    pub reserved: u8,
}

/// The fields after the header of a non-resident attribute. `total_allocated` follows where the
/// attribute is compressed or sparse.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Nonresident {
    pub lowest_vcn: U64,
    pub highest_vcn: U64,
    pub mapping_pairs_offset: U16,
    pub compression_unit_size: u8,
    pub reserved: [u8; 5],
    pub allocated_length: U64,
    pub file_size: U64,
    pub valid_data_length: U64,
}

/// `$STANDARD_INFORMATION`. NTFS 1.2 has the first 48 bytes only.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct StandardInformation {
    pub creation_time: U64,
    pub last_modification_time: U64,
    pub last_change_time: U64,
    pub last_access_time: U64,
    pub file_attributes: U32,
    pub maximum_versions: U32,
    pub version_number: U32,
    pub class_id: U32,
    pub owner_id: U32,
    pub security_id: U32,
    pub quota_charged: U64,
    pub usn: U64,
}

/// `$FILE_NAME` before the name itself; also the key of a directory's entry.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct FileNameHeader {
    pub parent_directory: U64,
    pub creation_time: U64,
    pub last_modification_time: U64,
    pub last_change_time: U64,
    pub last_access_time: U64,
    pub allocated_length: U64,
    pub file_size: U64,
    pub file_attributes: U32,
    pub reparse_tag: U32,
    pub file_name_length: u8,
    pub flags: u8,
}

/// ATTRIBUTE_LIST_ENTRY before the name.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct AttributeListEntry {
    pub attribute_type_code: U32,
    pub record_length: U16,
    pub attribute_name_length: u8,
    pub attribute_name_offset: u8,
    pub lowest_vcn: U64,
    pub segment_reference: U64,
    pub instance: U16,
}

/// LFS_RESTART_PAGE_HEADER of `$LogFile`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RestartPage {
    pub signature: [u8; 4],
    pub update_sequence_array_offset: U16,
    pub update_sequence_array_size: U16,
    pub chkdsk_lsn: U64,
    pub system_page_size: U32,
    pub log_page_size: U32,
    pub restart_area_offset: U16,
    pub minor_version: U16,
    pub major_version: U16,
}

/// LFS_RESTART_AREA, as far as it matters.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RestartArea {
    pub current_lsn: U64,
    pub log_clients: U16,
    pub client_free_list: U16,
    pub client_in_use_list: U16,
    pub flags: U16,
}

const _: () = {
    assert!(size_of::<BootSector>() == 512);
    assert!(size_of::<FileRecord>() == 48);
    assert!(size_of::<AttributeHeader>() == 16);
    assert!(size_of::<Resident>() == 8);
    assert!(size_of::<Nonresident>() == 48);
    assert!(size_of::<StandardInformation>() == 72);
    assert!(size_of::<FileNameHeader>() == 66);
    assert!(size_of::<AttributeListEntry>() == 26);
    assert!(size_of::<RestartPage>() == 30);
    assert!(size_of::<RestartArea>() == 16);
};

/// The number of a record and its sequence number in one: MFT_SEGMENT_REFERENCE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference(pub u64);

impl Reference {
    /// Makes one.
    pub fn new(number: RecordNumber, sequence: u16) -> Self {
        Self(number.0 & 0xffff_ffff_ffff | u64::from(sequence) << 48)
    }
    /// SegmentNumber.
    pub fn number(self) -> RecordNumber {
        RecordNumber(self.0 & 0xffff_ffff_ffff)
    }
    /// SequenceNumber.
    pub fn sequence(self) -> u16 {
        low16(self.0 >> 48)
    }
}
