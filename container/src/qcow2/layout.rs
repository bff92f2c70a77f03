//! The structures of a qcow2 file and its geometry. Names are those of QEMU's
//! docs/interop/qcow2.rst; all numbers are big-endian.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The unit that a device writes wholly or not at all.
pub(crate) const SECTOR: u64 = 512;
/// Length of the header of version 2.
pub(crate) const HEADER_V2: usize = 72;
/// Length of the header of version 3 without its optional fields.
pub(crate) const HEADER_V3: usize = 104;
/// As QEMU: a larger level 1 table is taken for an attack. In bytes.
pub(crate) const MAX_L1_BYTES: u64 = 32 << 20;
/// As QEMU: the largest refcount table, in bytes.
pub(crate) const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// As QEMU: the most snapshots.
pub(crate) const MAX_SNAPSHOTS: u32 = 65_536;
/// As QEMU: the longest name of a backing file, in bytes.
pub(crate) const MAX_BACKING_NAME: u32 = 1023;
/// Bits 9 to 55 of a table entry: an offset in the file.
pub(crate) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits 9 to 63 of an entry of the refcount table.
pub(crate) const REFCOUNT_OFFSET_MASK: u64 = 0xffff_ffff_ffff_fe00;
/// Bit 63: the cluster's refcount is exactly one.
pub(crate) const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry: compressed.
pub(crate) const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of a standard L2 entry of version 3: reads as zeros.
pub(crate) const ALL_ZERO: u64 = 1;
/// Files end below this offset: entries have no more bits.
pub(crate) const MAX_OFFSET: u64 = 1 << 56;

/// Bits of `incompatible_features`.
pub(crate) mod incompatible {
    pub(crate) const DIRTY: u64 = 1;
    pub(crate) const CORRUPT: u64 = 1 << 1;
    pub(crate) const DATA_FILE: u64 = 1 << 2;
    pub(crate) const COMPRESSION_TYPE: u64 = 1 << 3;
    pub(crate) const EXTENDED_L2: u64 = 1 << 4;
}

/// Bit of `autoclear_features`: the bitmaps extension is consistent.
pub(crate) const AUTOCLEAR_BITMAPS: u64 = 1;

/// The header of both versions.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) magic: [u8; 4],
    pub(crate) version: U32,
    pub(crate) backing_file_offset: U64,
    pub(crate) backing_file_size: U32,
    pub(crate) cluster_bits: U32,
    pub(crate) size: U64,
    pub(crate) crypt_method: U32,
    pub(crate) l1_size: U32,
    pub(crate) l1_table_offset: U64,
    pub(crate) refcount_table_offset: U64,
    pub(crate) refcount_table_clusters: U32,
    pub(crate) nb_snapshots: U32,
    pub(crate) snapshots_offset: U64,
}

/// The fields that version 3 adds.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader3 {
    pub(crate) incompatible_features: U64,
    pub(crate) compatible_features: U64,
    pub(crate) autoclear_features: U64,
    pub(crate) refcount_order: U32,
    pub(crate) header_length: U32,
}

/// The head of a header extension.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtension {
    pub(crate) kind: U32,
    pub(crate) length: U32,
}

/// The bitmaps extension.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawBitmaps {
    pub(crate) nb_bitmaps: U32,
    pub(crate) reserved: U32,
    pub(crate) bitmap_directory_size: U64,
    pub(crate) bitmap_directory_offset: U64,
}

/// The fixed part of an entry of the bitmap directory.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawBitmapEntry {
    pub(crate) bitmap_table_offset: U64,
    pub(crate) bitmap_table_size: U32,
    pub(crate) flags: U32,
    pub(crate) kind: u8,
    pub(crate) granularity_bits: u8,
    pub(crate) name_size: U16,
    pub(crate) extra_data_size: U32,
}

/// The fixed part of an entry of the snapshot table.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSnapshot {
    pub(crate) l1_table_offset: U64,
    pub(crate) l1_size: U32,
    pub(crate) id_size: U16,
    pub(crate) name_size: U16,
    pub(crate) date_seconds: U32,
    pub(crate) date_nanoseconds: U32,
    pub(crate) vm_clock: U64,
    pub(crate) vm_state_size: U32,
    pub(crate) extra_data_size: U32,
}

/// Sizes that follow from the header, and the arithmetic with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    /// Whether L2 entries have a second word, with a bitmap of subclusters.
    pub(crate) extended: bool,
    /// Width of a refcount is `1 << refcount_order` bits.
    pub(crate) refcount_order: u32,
}

impl Geometry {
    pub(crate) fn cluster_size(self) -> u64 {
        1 << self.cluster_bits
    }
    /// Words of 64 bits in an L2 entry.
    pub(crate) fn entry_words(self) -> u64 {
        if self.extended { 2 } else { 1 }
    }
    pub(crate) fn l2_entries(self) -> u64 {
        self.cluster_size() / (8 * self.entry_words())
    }
    /// Bytes of the disk that one L2 table describes.
    pub(crate) fn l2_span(self) -> u64 {
        self.l2_entries() * self.cluster_size()
    }
    /// Entries of the level 1 table that a disk of `size` bytes needs.
    pub(crate) fn l1_needed(self, size: u64) -> u64 {
        size.div_ceil(self.l2_span())
    }
    pub(crate) fn refcounts_per_block(self) -> u64 {
        (self.cluster_size() * 8) >> self.refcount_order
    }
    /// Parts of a cluster that are allocated by themselves: subclusters, or the one cluster.
    pub(crate) fn parts(self) -> u64 {
        if self.extended { 32 } else { 1 }
    }
    pub(crate) fn part_size(self) -> u64 {
        self.cluster_size() / self.parts()
    }
    /// A bit for each part.
    pub(crate) fn all_parts(self) -> u32 {
        if self.extended { u32::MAX } else { 1 }
    }
    pub(crate) fn clusters(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster_size())
    }
    pub(crate) fn is_aligned(self, offset: u64) -> bool {
        offset.is_multiple_of(self.cluster_size())
    }
}
