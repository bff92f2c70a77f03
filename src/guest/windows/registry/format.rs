//! The structures of a registry hive (REGF), named as "Windows registry file format
//! specification" (M. Suhanov) names them. All numbers are little-endian; every offset counts from
//! the start of the hive bins data, which is byte 4096 of the file.

use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of the base block, and the unit of hive bins.
pub(super) const PAGE: usize = 4096;
/// "No cell".
pub(super) const NONE: u32 = u32::MAX;
/// Length of a cell's size field.
pub(super) const CELL_HEADER: usize = 4;
/// A value's data that is in `data_offset` itself has this bit in `data_size`.
pub(super) const DATA_RESIDENT: u32 = 1 << 31;
/// The payload of one segment of a big data record, in bytes.
pub(super) const SEGMENT: usize = 16344;

/// The first sector of the base block, which transaction logs have too.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BaseBlock {
    pub(super) signature: [u8; 4],
    pub(super) primary_sequence_number: U32,
    pub(super) secondary_sequence_number: U32,
    pub(super) last_written_timestamp: U64,
    pub(super) major_version: U32,
    pub(super) minor_version: U32,
    pub(super) file_type: U32,
    pub(super) file_format: U32,
    pub(super) root_cell_offset: U32,
    pub(super) hive_bins_data_size: U32,
    pub(super) clustering_factor: U32,
    pub(super) file_name: [u8; 64],
    pub(super) rm_id: [u8; 16],
    pub(super) log_id: [u8; 16],
    pub(super) flags: U32,
    pub(super) tm_id: [u8; 16],
    pub(super) guid_signature: [u8; 4],
    pub(super) last_reorganized_timestamp: U64,
    pub(super) reserved: [u8; 332],
    pub(super) checksum: U32,
}

impl BaseBlock {
    /// XOR-32 over what comes before the checksum; the two values that mean something else are
    /// avoided as Windows does.
    pub(super) fn computed_checksum(&self) -> u32 {
        let words = self.as_bytes()[..508].chunks_exact(4);
        let sum = words.fold(0, |sum, word| {
            sum ^ word.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte))
        });
        match sum {
            0 => 1,
            u32::MAX => u32::MAX - 1,
            sum => sum,
        }
    }

    /// Whether the block is one, as far as its signature and checksum tell.
    pub(super) fn is_intact(&self) -> bool {
        self.signature == *b"regf" && self.checksum.get() == self.computed_checksum()
    }
}

/// Header of a hive bin.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct HiveBin {
    pub(super) signature: [u8; 4],
    pub(super) offset: U32,
    pub(super) size: U32,
    pub(super) reserved: [u8; 8],
    pub(super) timestamp: U64,
    pub(super) spare: U32,
}

/// A cell's size: negative when it is allocated.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct CellSize {
    pub(super) size: I32,
}

/// Key node, `nk`; the name follows.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct KeyNode {
    pub(super) signature: [u8; 2],
    pub(super) flags: U16,
    pub(super) last_written_timestamp: U64,
    pub(super) access_bits: U32,
    pub(super) parent: U32,
    pub(super) number_of_subkeys: U32,
    pub(super) number_of_volatile_subkeys: U32,
    pub(super) subkeys_list_offset: U32,
    pub(super) volatile_subkeys_list_offset: U32,
    pub(super) number_of_key_values: U32,
    pub(super) key_values_list_offset: U32,
    pub(super) key_security_offset: U32,
    pub(super) class_name_offset: U32,
    /// In bytes of UTF-16; the upper half holds flags since Windows Vista.
    pub(super) largest_subkey_name_length: U16,
    pub(super) virtualization_flags: U16,
    pub(super) largest_subkey_class_name_length: U32,
    pub(super) largest_value_name_length: U32,
    pub(super) largest_value_data_size: U32,
    pub(super) work_var: U32,
    pub(super) key_name_length: U16,
    pub(super) class_name_length: U16,
}

/// The key is the root of its hive.
pub(super) const KEY_HIVE_ENTRY: u16 = 0x0004;
/// The key must stay.
pub(super) const KEY_NO_DELETE: u16 = 0x0008;
/// The name is Latin-1, not UTF-16.
pub(super) const KEY_COMP_NAME: u16 = 0x0020;

/// Key value, `vk`; the name follows.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct KeyValue {
    pub(super) signature: [u8; 2],
    pub(super) name_length: U16,
    pub(super) data_size: U32,
    pub(super) data_offset: U32,
    pub(super) data_type: U32,
    pub(super) flags: U16,
    pub(super) spare: U16,
}

/// The value's name is Latin-1, not UTF-16.
pub(super) const VALUE_COMP_NAME: u16 = 0x0001;

/// Key security item, `sk`; the security descriptor follows.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct KeySecurity {
    pub(super) signature: [u8; 2],
    pub(super) reserved: [u8; 2],
    pub(super) flink: U32,
    pub(super) blink: U32,
    pub(super) reference_count: U32,
    pub(super) security_descriptor_size: U32,
}

/// Head of a subkeys list: `li`, `lf`, `lh` or `ri`; the elements follow.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct SubkeysList {
    pub(super) signature: [u8; 2],
    pub(super) number_of_elements: U16,
}

/// Big data record, `db`.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BigData {
    pub(super) signature: [u8; 2],
    pub(super) number_of_segments: U16,
    pub(super) offset_to_list_of_segments: U32,
}

/// Head of an entry of a new-format log, `HvLE`; references to pages and the pages follow.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct LogEntry {
    pub(super) signature: [u8; 4],
    pub(super) size: U32,
    pub(super) flags: U32,
    pub(super) sequence_number: U32,
    pub(super) hive_bins_data_size: U32,
    pub(super) dirty_pages_count: U32,
    pub(super) hash_1: U64,
    pub(super) hash_2: U64,
}

/// The destination of a dirty page.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct DirtyPageReference {
    pub(super) offset: U32,
    pub(super) size: U32,
}

const _: () = assert!(size_of::<BaseBlock>() == 512);
const _: () = assert!(size_of::<HiveBin>() == 32);
const _: () = assert!(size_of::<KeyNode>() == 76);
const _: () = assert!(size_of::<KeyValue>() == 20);
const _: () = assert!(size_of::<KeySecurity>() == 20);
const _: () = assert!(size_of::<LogEntry>() == 40);
