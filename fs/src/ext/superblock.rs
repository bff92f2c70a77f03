//! The superblock: its place, its fields, and whether the engine can work with it.
//!
//! Source: the kernel's Documentation/filesystems/ext4/super.rst.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::feature::{Compat, Incompat, RoCompat};
pub use super::feature::{compat, incompat, ro_compat};
use super::units::{GroupNo, Ino};
use crate::error::{Error, Result};
use crate::num::{low32, to_u32};

/// Byte offset of the primary superblock on the device.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Size of the superblock in bytes.
pub const SUPERBLOCK_SIZE: usize = 1024;
/// `s_magic`.
pub const EXT_MAGIC: u16 = 0xEF53;

/// The superblock as it is on disk. All fields are little-endian.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)] // the names are the specification's
pub struct RawSuperblock {
    pub s_inodes_count: U32,
    pub s_blocks_count_lo: U32,
    pub s_r_blocks_count_lo: U32,
    pub s_free_blocks_count_lo: U32,
    pub s_free_inodes_count: U32,
    pub s_first_data_block: U32,
    pub s_log_block_size: U32,
    pub s_log_cluster_size: U32,
    pub s_blocks_per_group: U32,
    pub s_clusters_per_group: U32,
    pub s_inodes_per_group: U32,
    pub s_mtime: U32,
    pub s_wtime: U32,
    pub s_mnt_count: U16,
    pub s_max_mnt_count: U16,
    pub s_magic: U16,
    pub s_state: U16,
    pub s_errors: U16,
    pub s_minor_rev_level: U16,
    pub s_lastcheck: U32,
    pub s_checkinterval: U32,
    pub s_creator_os: U32,
    pub s_rev_level: U32,
    pub s_def_resuid: U16,
    pub s_def_resgid: U16,
    pub s_first_ino: U32,
    pub s_inode_size: U16,
    pub s_block_group_nr: U16,
    pub s_feature_compat: U32,
    pub s_feature_incompat: U32,
    pub s_feature_ro_compat: U32,
    pub s_uuid: [u8; 16],
    pub s_volume_name: [u8; 16],
    pub s_last_mounted: [u8; 64],
    pub s_algorithm_usage_bitmap: U32,
    pub s_prealloc_blocks: u8,
    pub s_prealloc_dir_blocks: u8,
    pub s_reserved_gdt_blocks: U16,
    pub s_journal_uuid: [u8; 16],
    pub s_journal_inum: U32,
    pub s_journal_dev: U32,
    pub s_last_orphan: U32,
    pub s_hash_seed: [U32; 4],
    pub s_def_hash_version: u8,
    pub s_jnl_backup_type: u8,
    pub s_desc_size: U16,
    pub s_default_mount_opts: U32,
    pub s_first_meta_bg: U32,
    pub s_mkfs_time: U32,
    pub s_jnl_blocks: [U32; 17],
    pub s_blocks_count_hi: U32,
    pub s_r_blocks_count_hi: U32,
    pub s_free_blocks_count_hi: U32,
    pub s_min_extra_isize: U16,
    pub s_want_extra_isize: U16,
    pub s_flags: U32,
    pub s_raid_stride: U16,
    pub s_mmp_interval: U16,
    pub s_mmp_block: U64,
    pub s_raid_stripe_width: U32,
    pub s_log_groups_per_flex: u8,
    pub s_checksum_type: u8,
    pub s_encryption_level: u8,
    pub s_reserved_pad: u8,
    pub s_kbytes_written: U64,
    pub s_snapshot_inum: U32,
    pub s_snapshot_id: U32,
    pub s_snapshot_r_blocks_count: U64,
    pub s_snapshot_list: U32,
    pub s_error_count: U32,
    pub s_first_error_time: U32,
    pub s_first_error_ino: U32,
    pub s_first_error_block: U64,
    pub s_first_error_func: [u8; 32],
    pub s_first_error_line: U32,
    pub s_last_error_time: U32,
    pub s_last_error_ino: U32,
    pub s_last_error_line: U32,
    pub s_last_error_block: U64,
    pub s_last_error_func: [u8; 32],
    pub s_mount_opts: [u8; 64],
    pub s_usr_quota_inum: U32,
    pub s_grp_quota_inum: U32,
    pub s_overhead_clusters: U32,
    pub s_backup_bgs: [U32; 2],
    pub s_encrypt_algos: [u8; 4],
    pub s_encrypt_pw_salt: [u8; 16],
    pub s_lpf_ino: U32,
    pub s_prj_quota_inum: U32,
    pub s_checksum_seed: U32,
    pub s_wtime_hi: u8,
    pub s_mtime_hi: u8,
    pub s_mkfs_time_hi: u8,
    pub s_lastcheck_hi: u8,
    pub s_first_error_time_hi: u8,
    pub s_last_error_time_hi: u8,
    pub s_first_error_errcode: u8,
    pub s_last_error_errcode: u8,
    pub s_encoding: U16,
    pub s_encoding_flags: U16,
    pub s_orphan_file_inum: U32,
    pub s_reserved: [U32; 94],
    pub s_checksum: U32,
}

const _: () = assert!(size_of::<RawSuperblock>() == SUPERBLOCK_SIZE);

/// `s_state`: unmounted cleanly.
pub const STATE_VALID: u16 = 0x1;
/// `s_state`: the kernel found errors.
pub const STATE_ERROR: u16 = 0x2;

/// A superblock that was read, verified and found to be within what this engine knows.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// The fields as they are on disk.
    pub raw: RawSuperblock,
}

impl Superblock {
    /// Parses and verifies the 1024 bytes at [`SUPERBLOCK_OFFSET`] of a device of `device_size`
    /// bytes. Every field that later code computes with is bounded here.
    pub fn parse(bytes: &[u8], device_size: u64) -> Result<Self> {
        let corrupt = |detail: String| Error::corrupt("superblock", "byte 1024", detail);
        let raw = RawSuperblock::read_from_bytes(bytes)
            .map_err(|_| corrupt(format!("{} bytes, 1024 expected", bytes.len())))?;
        if raw.s_magic.get() != EXT_MAGIC {
            return Err(corrupt(format!(
                "s_magic is {:#06x}, {EXT_MAGIC:#06x} expected",
                raw.s_magic.get()
            )));
        }
        let sb = Self { raw };
        if sb.raw.s_rev_level.get() > 1 {
            return Err(Error::unsupported(
                format!("s_rev_level {}", sb.raw.s_rev_level.get()),
                "use an image made by mke2fs of any release since 1997",
            ));
        }
        let unknown = sb.incompat().without(Incompat::KNOWN);
        if unknown.intersects(incompat::JOURNAL_DEV) {
            return Err(Error::unsupported(
                "a file system that is an external journal (journal_dev)",
                "give the device that holds the files",
            ));
        }
        if !unknown.is_empty() {
            return Err(Error::unsupported(
                format!("the incompatible feature {unknown}"),
                "make the image without it (mke2fs -O ^feature)",
            ));
        }
        if sb.has_metadata_csum() {
            if sb.raw.s_checksum_type != 1 {
                return Err(corrupt(format!(
                    "s_checksum_type is {}, 1 (crc32c) expected",
                    sb.raw.s_checksum_type
                )));
            }
            let found = sb.raw.s_checksum.get();
            let expected = sb.checksum();
            if found != expected {
                return Err(corrupt(format!(
                    "s_checksum is {found:#010x}, {expected:#010x} expected"
                )));
            }
        }
        sb.check_geometry(device_size)?;
        Ok(sb)
    }

    fn check_geometry(&self, device_size: u64) -> Result<()> {
        let corrupt = |detail: String| Err(Error::corrupt("superblock", "byte 1024", detail));
        let raw = &self.raw;
        if raw.s_log_block_size.get() > 6 {
            return corrupt(format!("s_log_block_size is {}, at most 6", raw.s_log_block_size));
        }
        let block_size = self.block_size();
        let bits = u64::from(block_size) * 8;
        let clusters = raw.s_clusters_per_group.get();
        if self.has_ro_compat(ro_compat::BIGALLOC) {
            if raw.s_log_cluster_size.get() < raw.s_log_block_size.get()
                || raw.s_log_cluster_size.get() > 20
            {
                return corrupt(format!("s_log_cluster_size is {}", raw.s_log_cluster_size));
            }
            if clusters == 0
                || u64::from(clusters) > bits
                || u64::from(raw.s_blocks_per_group.get())
                    != u64::from(clusters) << self.cluster_bits()
            {
                return corrupt(format!("s_clusters_per_group is {clusters}"));
            }
        } else if raw.s_blocks_per_group.get() == 0
            || u64::from(raw.s_blocks_per_group.get()) > bits
        {
            return corrupt(format!(
                "s_blocks_per_group is {}, 1 to {bits} expected",
                raw.s_blocks_per_group
            ));
        }
        let inode_size = self.inode_size();
        if !(128..=block_size).contains(&inode_size) || !inode_size.is_power_of_two() {
            return corrupt(format!("s_inode_size is {inode_size}"));
        }
        let inodes_per_group = raw.s_inodes_per_group.get();
        if inodes_per_group == 0 || u64::from(inodes_per_group) > bits {
            return corrupt(format!("s_inodes_per_group is {inodes_per_group}"));
        }
        if self.has_incompat(incompat::BIT64) {
            let size = u32::from(raw.s_desc_size.get());
            if !(64..=1024).contains(&size) || !size.is_power_of_two() || size > block_size {
                return corrupt(format!("s_desc_size is {size}"));
            }
        }
        let first = u64::from(raw.s_first_data_block.get());
        let want_first = u64::from(block_size == 1024 && self.cluster_bits() == 0);
        if first != want_first {
            return corrupt(format!("s_first_data_block is {first}, {want_first} expected"));
        }
        let blocks = self.blocks_count();
        if blocks <= first || blocks > device_size / u64::from(block_size) {
            return corrupt(format!(
                "s_blocks_count is {blocks}, but the device holds {} blocks of {block_size} bytes",
                device_size / u64::from(block_size)
            ));
        }
        let groups = (blocks - first).div_ceil(u64::from(raw.s_blocks_per_group.get()));
        let inodes = groups * u64::from(inodes_per_group);
        if u64::from(raw.s_inodes_count.get()) != inodes {
            return corrupt(format!(
                "s_inodes_count is {}, {inodes} expected ({groups} groups)",
                raw.s_inodes_count
            ));
        }
        // With eight inodes in each group, the reserved ones reach into the second.
        if raw.s_rev_level.get() >= 1
            && (raw.s_first_ino.get() < 11 || raw.s_first_ino.get() > raw.s_inodes_count.get())
        {
            return corrupt(format!("s_first_ino is {}", raw.s_first_ino));
        }
        let descriptor_blocks = groups.div_ceil(u64::from(block_size / self.desc_size()));
        if self.has_incompat(incompat::META_BG)
            && u64::from(raw.s_first_meta_bg.get()) > descriptor_blocks
        {
            return corrupt(format!(
                "s_first_meta_bg is {}, but there are {descriptor_blocks} descriptor blocks",
                raw.s_first_meta_bg
            ));
        }
        if raw.s_log_groups_per_flex > 31 {
            return corrupt(format!("s_log_groups_per_flex is {}", raw.s_log_groups_per_flex));
        }
        Ok(())
    }

    /// crc32c of everything before `s_checksum`.
    pub fn checksum(&self) -> u32 {
        let bytes = self.raw.as_bytes();
        super::checksum::crc32c(!0, &bytes[..SUPERBLOCK_SIZE - 4])
    }

    /// The bytes to write, with a fresh checksum where the file system has them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut raw = self.raw.clone();
        if self.has_metadata_csum() {
            raw.s_checksum = U32::new(self.checksum());
        }
        raw.as_bytes().to_vec()
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> u32 {
        1024 << self.raw.s_log_block_size.get()
    }

    /// log2 of blocks in a cluster (0 without bigalloc).
    pub fn cluster_bits(&self) -> u32 {
        if self.has_ro_compat(ro_compat::BIGALLOC) {
            self.raw.s_log_cluster_size.get().saturating_sub(self.raw.s_log_block_size.get())
        } else {
            0
        }
    }

    /// Blocks in a cluster, the unit of allocation (1 without bigalloc).
    pub fn cluster_blocks(&self) -> u32 {
        1 << self.cluster_bits()
    }

    /// Clusters in a full group: bits of a block bitmap that count.
    pub fn clusters_per_group(&self) -> u32 {
        self.raw.s_blocks_per_group.get() >> self.cluster_bits()
    }

    /// Bytes in an inode on disk.
    pub fn inode_size(&self) -> u32 {
        if self.raw.s_rev_level.get() == 0 { 128 } else { u32::from(self.raw.s_inode_size.get()) }
    }

    /// First inode that is not reserved.
    pub fn first_ino(&self) -> Ino {
        if self.raw.s_rev_level.get() == 0 { Ino::new(11) } else { self.raw.s_first_ino.into() }
    }

    /// Bytes in a group descriptor.
    pub fn desc_size(&self) -> u32 {
        if self.has_incompat(incompat::BIT64) { u32::from(self.raw.s_desc_size.get()) } else { 32 }
    }

    /// All blocks of the file system.
    pub fn blocks_count(&self) -> u64 {
        let hi =
            if self.has_incompat(incompat::BIT64) { self.raw.s_blocks_count_hi.get() } else { 0 };
        u64::from(hi) << 32 | u64::from(self.raw.s_blocks_count_lo.get())
    }

    /// Sets the number of blocks.
    pub fn set_blocks_count(&mut self, count: u64) {
        self.raw.s_blocks_count_lo = U32::new(low32(count));
        if self.has_incompat(incompat::BIT64) {
            self.raw.s_blocks_count_hi = U32::new(low32(count >> 32));
        }
    }

    /// Free clusters times blocks in a cluster: the field counts blocks.
    pub fn free_blocks_count(&self) -> u64 {
        let hi = if self.has_incompat(incompat::BIT64) {
            self.raw.s_free_blocks_count_hi.get()
        } else {
            0
        };
        u64::from(hi) << 32 | u64::from(self.raw.s_free_blocks_count_lo.get())
    }

    /// Sets the number of free blocks.
    pub fn set_free_blocks_count(&mut self, count: u64) {
        self.raw.s_free_blocks_count_lo = U32::new(low32(count));
        if self.has_incompat(incompat::BIT64) {
            self.raw.s_free_blocks_count_hi = U32::new(low32(count >> 32));
        }
    }

    /// Blocks that only root may take.
    pub fn r_blocks_count(&self) -> u64 {
        let hi =
            if self.has_incompat(incompat::BIT64) { self.raw.s_r_blocks_count_hi.get() } else { 0 };
        u64::from(hi) << 32 | u64::from(self.raw.s_r_blocks_count_lo.get())
    }

    /// Sets the number of blocks that only root may take.
    pub fn set_r_blocks_count(&mut self, count: u64) {
        self.raw.s_r_blocks_count_lo = U32::new(low32(count));
        if self.has_incompat(incompat::BIT64) {
            self.raw.s_r_blocks_count_hi = U32::new(low32(count >> 32));
        }
    }

    /// All block groups.
    pub fn groups(&self) -> impl DoubleEndedIterator<Item = GroupNo> + Clone + use<> {
        GroupNo::all(0..self.group_count())
    }

    /// Number of block groups.
    pub fn group_count(&self) -> u32 {
        let first = u64::from(self.raw.s_first_data_block.get());
        to_u32((self.blocks_count() - first).div_ceil(u64::from(self.raw.s_blocks_per_group.get())))
    }

    /// Features that anybody may ignore.
    pub fn compat(&self) -> Compat {
        Compat::from_bits(self.raw.s_feature_compat.get())
    }

    /// Features that a reader must know.
    pub fn incompat(&self) -> Incompat {
        Incompat::from_bits(self.raw.s_feature_incompat.get())
    }

    /// Features that a writer must know.
    pub fn ro_compat(&self) -> RoCompat {
        RoCompat::from_bits(self.raw.s_feature_ro_compat.get())
    }

    /// Whether one of these compatible features is on.
    pub fn has_compat(&self, features: Compat) -> bool {
        self.compat().intersects(features)
    }

    /// Whether one of these incompatible features is on.
    pub fn has_incompat(&self, features: Incompat) -> bool {
        self.incompat().intersects(features)
    }

    /// Whether one of these read-only compatible features is on.
    pub fn has_ro_compat(&self, features: RoCompat) -> bool {
        self.ro_compat().intersects(features)
    }

    /// Turns compatible features on or off.
    pub fn set_compat(&mut self, features: Compat, on: bool) {
        let old = self.compat();
        let new = if on { old | features } else { old.without(features) };
        self.raw.s_feature_compat = U32::new(new.bits());
    }

    /// Turns incompatible features on or off.
    pub fn set_incompat(&mut self, features: Incompat, on: bool) {
        let old = self.incompat();
        let new = if on { old | features } else { old.without(features) };
        self.raw.s_feature_incompat = U32::new(new.bits());
    }

    /// Turns read-only compatible features on or off.
    pub fn set_ro_compat(&mut self, features: RoCompat, on: bool) {
        let old = self.ro_compat();
        let new = if on { old | features } else { old.without(features) };
        self.raw.s_feature_ro_compat = U32::new(new.bits());
    }

    /// Whether the file system keeps room for descriptors by way of the resize inode.
    pub fn has_resize_inode(&self) -> bool {
        self.has_compat(compat::RESIZE_INODE)
    }

    /// Whether all metadata carries crc32c checksums.
    pub fn has_metadata_csum(&self) -> bool {
        self.has_ro_compat(ro_compat::METADATA_CSUM)
    }

    /// Whether group descriptors carry a checksum and the uninitialised flags are in use.
    pub fn has_group_csum(&self) -> bool {
        self.has_ro_compat(ro_compat::GDT_CSUM | ro_compat::METADATA_CSUM)
    }

    /// The seed of every metadata checksum: `s_checksum_seed` or crc32c of the UUID.
    pub fn checksum_seed(&self) -> u32 {
        if self.has_incompat(incompat::CSUM_SEED) {
            self.raw.s_checksum_seed.get()
        } else {
            super::checksum::crc32c(!0, &self.raw.s_uuid)
        }
    }

    /// The four words that seed directory hashes.
    pub fn hash_seed(&self) -> [u32; 4] {
        self.raw.s_hash_seed.map(|word| word.get())
    }

    /// Whether group `group` holds a copy of the superblock and the group descriptors.
    pub fn group_has_super(&self, group: GroupNo) -> bool {
        let group = group.get();
        if group == 0 {
            return true;
        }
        if self.has_compat(compat::SPARSE_SUPER2) {
            return self.raw.s_backup_bgs.iter().any(|backup| backup.get() == group);
        }
        if !self.has_ro_compat(ro_compat::SPARSE_SUPER) {
            return true;
        }
        group == 1 || [3, 5, 7].iter().any(|&base| is_power_of(group, base))
    }
}

fn is_power_of(mut n: u32, base: u32) -> bool {
    while n > 1 && n.is_multiple_of(base) {
        n /= base;
    }
    n == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_super_groups() {
        let with: Vec<u32> =
            (1..400).filter(|&g| [3, 5, 7].iter().any(|&b| is_power_of(g, b))).collect();
        assert_eq!(with, [1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343]);
    }

    #[test]
    fn the_first_meta_group_is_one_that_exists() {
        let mut image =
            crate::ext::mkfs::build_ext2_image(1 << 20, &[], Default::default(), [1; 16], "")
                .unwrap();
        image[1024 + 0x60] |= 0x10;
        for (first, good) in [(0u32, true), (1, true), (2, false), (u32::MAX, false)] {
            image[1024 + 0x104..1024 + 0x108].copy_from_slice(&first.to_le_bytes());
            match Superblock::parse(&image[1024..2048], 1 << 20) {
                Ok(_) => assert!(good, "{first}"),
                Err(error @ Error::Corrupt { .. }) => {
                    assert!(!good && error.to_string().contains("s_first_meta_bg"), "{error}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
