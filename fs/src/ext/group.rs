//! Block group descriptors.
//!
//! Source: the kernel's Documentation/filesystems/ext4/group_descr.rst.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checksum::{crc16, crc32c};
use super::superblock::{Superblock, ro_compat};
use super::units::{FsBlock, GroupNo};
use crate::error::{Error, Result};
use crate::num::{low16, low32, to_usize};

/// `bg_flags`: the inode bitmap and table are not initialised.
pub const BG_INODE_UNINIT: u16 = 0x1;
/// `bg_flags`: the block bitmap is not initialised.
pub const BG_BLOCK_UNINIT: u16 = 0x2;
/// `bg_flags`: the inode table is zeroed.
pub const BG_INODE_ZEROED: u16 = 0x4;

/// A group descriptor of 64 bytes; of the 32-byte form the second half is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)] // the names are the specification's
pub struct RawGroupDescriptor {
    pub bg_block_bitmap_lo: U32,
    pub bg_inode_bitmap_lo: U32,
    pub bg_inode_table_lo: U32,
    pub bg_free_blocks_count_lo: U16,
    pub bg_free_inodes_count_lo: U16,
    pub bg_used_dirs_count_lo: U16,
    pub bg_flags: U16,
    pub bg_exclude_bitmap_lo: U32,
    pub bg_block_bitmap_csum_lo: U16,
    pub bg_inode_bitmap_csum_lo: U16,
    pub bg_itable_unused_lo: U16,
    pub bg_checksum: U16,
    pub bg_block_bitmap_hi: U32,
    pub bg_inode_bitmap_hi: U32,
    pub bg_inode_table_hi: U32,
    pub bg_free_blocks_count_hi: U16,
    pub bg_free_inodes_count_hi: U16,
    pub bg_used_dirs_count_hi: U16,
    pub bg_itable_unused_hi: U16,
    pub bg_exclude_bitmap_hi: U32,
    pub bg_block_bitmap_csum_hi: U16,
    pub bg_inode_bitmap_csum_hi: U16,
    pub bg_reserved: U32,
}

const _: () = assert!(size_of::<RawGroupDescriptor>() == 64);

/// One block group as the rest of the engine sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupDescriptor {
    /// The fields as they are on disk.
    pub raw: RawGroupDescriptor,
    /// Whether the `_hi` half is on disk.
    wide: bool,
}

macro_rules! split_u32 {
    ($(#[$doc:meta])* $get:ident, $set:ident, $lo:ident, $hi:ident) => {
        $(#[$doc])*
        pub fn $get(&self) -> u32 {
            u32::from(self.raw.$hi.get()) << 16 | u32::from(self.raw.$lo.get())
        }
        /// Sets it.
        pub fn $set(&mut self, value: u32) {
            self.raw.$lo = U16::new(low16(value));
            if self.wide {
                self.raw.$hi = U16::new(low16(value >> 16));
            }
        }
    };
}

macro_rules! split_block {
    ($(#[$doc:meta])* $get:ident, $set:ident, $lo:ident, $hi:ident) => {
        $(#[$doc])*
        pub fn $get(&self) -> FsBlock {
            FsBlock::new(u64::from(self.raw.$hi.get()) << 32 | u64::from(self.raw.$lo.get()))
        }
        /// Sets it.
        pub fn $set(&mut self, block: FsBlock) {
            // The two halves of the number.
            self.raw.$lo = U32::new(low32(block.get()));
            if self.wide {
                self.raw.$hi = U32::new(low32(block.get() >> 32));
            }
        }
    };
}

impl GroupDescriptor {
    /// Parses the `desc_size` bytes of group `group` and verifies their checksum.
    pub fn parse(bytes: &[u8], group: GroupNo, sb: &Superblock) -> Result<Self> {
        let descriptor = Self::parse_unverified(bytes, sb);
        if sb.has_group_csum() {
            let found = descriptor.raw.bg_checksum.get();
            let expected = descriptor.checksum(bytes, group, sb);
            if found != expected {
                return Err(Error::corrupt(
                    "group descriptor",
                    format!("group {group}"),
                    format!("bg_checksum is {found:#06x}, {expected:#06x} expected"),
                ));
            }
        }
        Ok(descriptor)
    }

    /// Parses without looking at the checksum.
    pub fn parse_unverified(bytes: &[u8], sb: &Superblock) -> Self {
        let mut buf = [0u8; 64];
        let size = to_usize(sb.desc_size()).min(64).min(bytes.len());
        buf[..size].copy_from_slice(&bytes[..size]);
        let raw = RawGroupDescriptor::read_from_bytes(&buf).unwrap_or_default();
        Self { raw, wide: sb.desc_size() >= 64 }
    }

    /// An empty descriptor in the width that `sb` uses.
    pub fn empty(sb: &Superblock) -> Self {
        Self { raw: RawGroupDescriptor::default(), wide: sb.desc_size() >= 64 }
    }

    /// Writes the descriptor into its place (`desc_size` bytes; bytes past 64 stay), with a fresh
    /// checksum where the file system has them.
    pub fn write_to(&self, bytes: &mut [u8], group: GroupNo, sb: &Superblock) {
        let size = to_usize(sb.desc_size()).min(64).min(bytes.len());
        let mut copy = self.clone();
        bytes[..size].copy_from_slice(&copy.raw.as_bytes()[..size]);
        if sb.has_group_csum() {
            copy.raw.bg_checksum = U16::new(copy.checksum(bytes, group, sb));
            bytes[..size].copy_from_slice(&copy.raw.as_bytes()[..size]);
        }
    }

    /// `bg_checksum` for these on-disk bytes (all `desc_size` of them count).
    fn checksum(&self, bytes: &[u8], group: GroupNo, sb: &Superblock) -> u16 {
        const AT: usize = 0x1E;
        let size = to_usize(sb.desc_size()).min(bytes.len());
        let bytes = &bytes[..size];
        if sb.has_metadata_csum() {
            let mut crc = crc32c(sb.checksum_seed(), &group.to_le_bytes());
            crc = crc32c(crc, &bytes[..AT]);
            crc = crc32c(crc, &[0, 0]);
            crc = crc32c(crc, &bytes[AT + 2..]);
            low16(crc)
        } else if sb.has_ro_compat(ro_compat::GDT_CSUM) {
            let mut crc = crc16(!0, &sb.raw.s_uuid);
            crc = crc16(crc, &group.to_le_bytes());
            crc = crc16(crc, &bytes[..AT]);
            crc16(crc, &bytes[AT + 2..])
        } else {
            0
        }
    }

    split_block!(/// Block of the block bitmap.
        block_bitmap, set_block_bitmap, bg_block_bitmap_lo, bg_block_bitmap_hi);
    split_block!(/// Block of the inode bitmap.
        inode_bitmap, set_inode_bitmap, bg_inode_bitmap_lo, bg_inode_bitmap_hi);
    split_block!(/// First block of the inode table.
        inode_table, set_inode_table, bg_inode_table_lo, bg_inode_table_hi);
    split_u32!(/// Free clusters in the group.
        free_blocks_count, set_free_blocks_count, bg_free_blocks_count_lo, bg_free_blocks_count_hi);
    split_u32!(/// Free inodes in the group.
        free_inodes_count, set_free_inodes_count, bg_free_inodes_count_lo, bg_free_inodes_count_hi);
    split_u32!(/// Directories in the group.
        used_dirs_count, set_used_dirs_count, bg_used_dirs_count_lo, bg_used_dirs_count_hi);
    split_u32!(/// Inodes at the end of the table that were never used.
        itable_unused, set_itable_unused, bg_itable_unused_lo, bg_itable_unused_hi);
    split_u32!(/// crc32c of the block bitmap (16 bits of it in a 32-byte descriptor).
        block_bitmap_csum, set_block_bitmap_csum, bg_block_bitmap_csum_lo, bg_block_bitmap_csum_hi);
    split_u32!(/// crc32c of the inode bitmap (16 bits of it in a 32-byte descriptor).
        inode_bitmap_csum, set_inode_bitmap_csum, bg_inode_bitmap_csum_lo, bg_inode_bitmap_csum_hi);

    /// `bg_flags`.
    pub fn flags(&self) -> u16 {
        self.raw.bg_flags.get()
    }

    /// Whether a `bg_flags` bit is on.
    pub fn has_flag(&self, flag: u16) -> bool {
        self.flags() & flag != 0
    }

    /// Turns a `bg_flags` bit on or off.
    pub fn set_flag(&mut self, flag: u16, on: bool) {
        let flags = if on { self.flags() | flag } else { self.flags() & !flag };
        self.raw.bg_flags = U16::new(flags);
    }

    /// Whether checksums of bitmaps have 32 bits (64-byte descriptors) or 16.
    pub fn is_wide(&self) -> bool {
        self.wide
    }
}
