//! Bitmaps: bits, checksums, and the content of those that were never written.

use super::layout::metadata_of_group;
use crate::error::{Error, Result};
use crate::ext::checksum::crc32c;
use crate::ext::group::{BG_BLOCK_UNINIT, BG_INODE_UNINIT, GroupDescriptor};
use crate::ext::units::{FsBlock, GroupNo};
use crate::ext::volume::Volume;
use crate::num::{to_u32, to_usize};

/// Whether bit `bit` is set.
pub(super) fn get(bits: &[u8], bit: u32) -> bool {
    bits.get(to_usize(bit) / 8).is_some_and(|byte| byte & 1 << (bit % 8) != 0)
}

/// Sets or clears bit `bit`.
pub(super) fn put(bits: &mut [u8], bit: u32, on: bool) {
    if let Some(byte) = bits.get_mut(to_usize(bit) / 8) {
        let mask = 1 << (bit % 8);
        *byte = if on { *byte | mask } else { *byte & !mask };
    }
}

/// Sets bits `from..to`.
pub(in crate::ext) fn fill(bits: &mut [u8], from: u32, to: u32) {
    let mut bit = from;
    while bit < to {
        if bit.is_multiple_of(8) && to - bit >= 8 {
            if let Some(byte) = bits.get_mut(to_usize(bit) / 8) {
                *byte = 0xFF;
            }
            bit += 8;
        } else {
            put(bits, bit, true);
            bit += 1;
        }
    }
}

/// Clear bits among the first `count`.
pub(in crate::ext) fn count_clear(bits: &[u8], count: u32) -> u32 {
    let whole = to_usize(count) / 8;
    let set: u32 = bits.iter().take(whole).map(|byte| byte.count_ones()).sum();
    let rest = to_u32((to_u32(whole) * 8..count).filter(|&bit| get(bits, bit)).count());
    count - set - rest
}

/// The first clear bit in `from..to`.
pub(super) fn next_clear(bits: &[u8], from: u32, to: u32) -> Option<u32> {
    let mut bit = from;
    while bit < to {
        if bit.is_multiple_of(8) && bits.get(to_usize(bit) / 8) == Some(&0xFF) {
            bit += 8;
        } else if get(bits, bit) {
            bit += 1;
        } else {
            return Some(bit);
        }
    }
    None
}

/// The first set bit in `from..to`, or `to`.
pub(super) fn next_set(bits: &[u8], from: u32, to: u32) -> u32 {
    let mut bit = from;
    while bit < to {
        if bit.is_multiple_of(8) && bits.get(to_usize(bit) / 8) == Some(&0) {
            bit += 8;
        } else if get(bits, bit) {
            return bit;
        } else {
            bit += 1;
        }
    }
    to
}

/// Clusters in `group`; the last group may have fewer than the others.
pub(in crate::ext) fn clusters_in_group(vol: &Volume, group: GroupNo) -> u32 {
    let bits = vol.sb.cluster_bits();
    to_u32(u64::from(vol.group_blocks(group)).div_ceil(1 << bits))
}

fn mismatch(what: &'static str, group: GroupNo, block: FsBlock, detail: String) -> Error {
    Error::corrupt(
        what,
        format!("block {block} (group {group})"),
        format!("{detail}; run e2fsck on the image first"),
    )
}

/// Compares a bitmap's checksum; `expected` has 32 bits, a narrow descriptor keeps 16.
fn check_sum(
    what: &'static str,
    group: GroupNo,
    block: FsBlock,
    descriptor: &GroupDescriptor,
    found: u32,
    bits: u32,
) -> Result<()> {
    let mask = if descriptor.is_wide() { !0 } else { 0xFFFF };
    if found & mask == bits & mask {
        return Ok(());
    }
    let detail = format!(
        "its checksum is {:#010x}, but bg_{}_csum is {:#010x}",
        bits & mask,
        what.replace(' ', "_"),
        found & mask
    );
    Err(mismatch(what, group, block, detail))
}

/// crc32c of the bytes of a bitmap that count.
pub(in crate::ext) fn block_bitmap_sum(vol: &Volume, bits: &[u8]) -> u32 {
    let bytes = to_usize(vol.sb.clusters_per_group()) / 8;
    crc32c(vol.sb.checksum_seed(), bits.get(..bytes).unwrap_or(bits))
}

/// crc32c of the bytes of a bitmap that count.
pub(in crate::ext) fn inode_bitmap_sum(vol: &Volume, bits: &[u8]) -> u32 {
    let bytes = to_usize(vol.sb.raw.s_inodes_per_group.get()) / 8;
    crc32c(vol.sb.checksum_seed(), bits.get(..bytes).unwrap_or(bits))
}

/// The block bitmap of `group`, verified. One that was never written is computed; `descriptor`
/// then loses BLOCK_UNINIT, and [`store_blocks`] must follow.
pub(super) fn load_blocks(
    vol: &Volume,
    group: GroupNo,
    descriptor: &mut GroupDescriptor,
) -> Result<Vec<u8>> {
    let shift = vol.sb.cluster_bits();
    let first = vol.group_first_block(group);
    let count = clusters_in_group(vol, group);
    let own = metadata_of_group(vol, group)?;
    let to_bits = |&(from, to): &(FsBlock, FsBlock)| {
        (to_u32((from - first) >> shift), to_u32((to - first).div_ceil(1 << shift)))
    };
    if vol.sb.has_group_csum() && descriptor.has_flag(BG_BLOCK_UNINIT) {
        let mut bits = vec![0; vol.block_size()];
        let end = to_u32(bits.len()) * 8;
        fill(&mut bits, count, end);
        for zone in &own {
            let (from, to) = to_bits(zone);
            fill(&mut bits, from, to);
        }
        descriptor.set_flag(BG_BLOCK_UNINIT, false);
        descriptor.set_free_blocks_count(count_clear(&bits, count));
        return Ok(bits);
    }
    let block = descriptor.block_bitmap();
    let bits = vol.read_block(block)?;
    let wrong = |detail| Err(mismatch("block bitmap", group, block, detail));
    if vol.sb.has_metadata_csum() {
        let found = descriptor.block_bitmap_csum();
        check_sum("block bitmap", group, block, descriptor, found, block_bitmap_sum(vol, &bits))?;
    }
    for zone in &own {
        let (from, to) = to_bits(zone);
        if let Some(bit) = next_clear(&bits, from, to) {
            let block = first + (u64::from(bit) << shift);
            return wrong(format!("it calls block {block} of the file system's own free"));
        }
    }
    let free = count_clear(&bits, count);
    if free != descriptor.free_blocks_count() {
        return wrong(format!(
            "{free} bits are clear, but bg_free_blocks_count is {}",
            descriptor.free_blocks_count()
        ));
    }
    Ok(bits.to_vec())
}

/// Writes a block bitmap, its checksum and its group's descriptor.
pub(super) fn store_blocks(
    vol: &mut Volume,
    group: GroupNo,
    descriptor: &mut GroupDescriptor,
    bits: Vec<u8>,
) -> Result<()> {
    if vol.sb.has_metadata_csum() {
        descriptor.set_block_bitmap_csum(block_bitmap_sum(vol, &bits));
    }
    vol.store.write_meta(descriptor.block_bitmap(), bits)?;
    vol.set_group(group, descriptor)
}

/// The inode bitmap of `group`, verified. One that was never written is computed; `descriptor`
/// then loses INODE_UNINIT, and [`store_inodes`] must follow.
pub(super) fn load_inodes(
    vol: &Volume,
    group: GroupNo,
    descriptor: &mut GroupDescriptor,
) -> Result<Vec<u8>> {
    let count = vol.sb.raw.s_inodes_per_group.get();
    if vol.sb.has_group_csum() && descriptor.has_flag(BG_INODE_UNINIT) {
        let mut bits = vec![0; vol.block_size()];
        let end = to_u32(bits.len()) * 8;
        fill(&mut bits, count, end);
        descriptor.set_flag(BG_INODE_UNINIT, false);
        descriptor.set_free_inodes_count(count);
        descriptor.set_itable_unused(count);
        return Ok(bits);
    }
    let block = descriptor.inode_bitmap();
    let bits = vol.read_block(block)?;
    let wrong = |detail| Err(mismatch("inode bitmap", group, block, detail));
    if vol.sb.has_metadata_csum() {
        let found = descriptor.inode_bitmap_csum();
        check_sum("inode bitmap", group, block, descriptor, found, inode_bitmap_sum(vol, &bits))?;
    }
    let free = count_clear(&bits, count);
    if free != descriptor.free_inodes_count() {
        return wrong(format!(
            "{free} bits are clear, but bg_free_inodes_count is {}",
            descriptor.free_inodes_count()
        ));
    }
    if vol.sb.has_group_csum() {
        let unused = descriptor.itable_unused();
        let used = count.saturating_sub(unused);
        if unused > count || next_set(&bits, used, count) != count {
            return wrong(format!(
                "an inode is in use among the {unused} that bg_itable_unused calls never used"
            ));
        }
    }
    Ok(bits.to_vec())
}

/// Writes an inode bitmap, its checksum and its group's descriptor.
pub(super) fn store_inodes(
    vol: &mut Volume,
    group: GroupNo,
    descriptor: &mut GroupDescriptor,
    bits: Vec<u8>,
) -> Result<()> {
    if vol.sb.has_metadata_csum() {
        descriptor.set_inode_bitmap_csum(inode_bitmap_sum(vol, &bits));
    }
    vol.store.write_meta(descriptor.inode_bitmap(), bits)?;
    vol.set_group(group, descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits() {
        let mut bits = vec![0u8; 8];
        fill(&mut bits, 3, 21);
        assert_eq!(count_clear(&bits, 64), 64 - 18);
        assert_eq!(count_clear(&bits, 20), 3);
        assert_eq!(next_clear(&bits, 3, 64), Some(21));
        assert_eq!(next_clear(&bits, 3, 21), None);
        assert_eq!(next_set(&bits, 0, 64), 3);
        assert_eq!(next_set(&bits, 21, 60), 60);
        put(&mut bits, 8, false);
        assert_eq!(next_clear(&bits, 3, 64), Some(8));
        assert!(!get(&bits, 8) && get(&bits, 9) && !get(&bits, 1000));
    }
}
