//! The index of a directory of several blocks: where the entry of a hash is, and which block has room.

use crate::error::Result;
use crate::num::to_usize;
use crate::xfs::da::{self, Place};
use crate::xfs::num;
use crate::xfs::volume::Volume;

const XFS_DIR2_LEAF1_MAGIC: u16 = 0xD2F1;
pub(super) const XFS_DIR3_LEAF1_MAGIC: u16 = 0x3DF1;
const XFS_DIR2_LEAFN_MAGIC: u16 = 0xD2FF;
pub(super) const XFS_DIR3_LEAFN_MAGIC: u16 = 0x3DFF;
const XFS_DIR2_FREE_MAGIC: u32 = 0x5844_3246;
pub(super) const XFS_DIR3_FREE_MAGIC: u32 = 0x5844_4633;
/// The mark of a block that is not there.
pub(super) const NO_BLOCK: u16 = 0xFFFF;

/// A leaf of the index.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    /// Its block; 0 while it has none.
    pub(super) block: u64,
    /// Hash, and place of the entry in units of 8 bytes, in order.
    pub(super) entries: Vec<(u32, u32)>,
}

impl Volume {
    /// The first block of the index, and the first block of the list of free places.
    pub(super) fn dir_spaces(&self) -> (u64, u64) {
        let log = self.sb.raw.sb_blocklog;
        ((1 << 35) >> log, (2 << 35) >> log)
    }

    /// The entries of a leaf, without stale ones.
    pub(super) fn dir_leaf(&self, place: Place<'_>, bytes: &[u8]) -> Result<Vec<(u32, u32)>> {
        let wrong = |detail: &str| place.corrupt("directory leaf", detail);
        let v5 = self.sb.is_v5();
        let right = match da::info_magic(bytes) {
            XFS_DIR3_LEAF1_MAGIC | XFS_DIR3_LEAFN_MAGIC => v5,
            XFS_DIR2_LEAF1_MAGIC | XFS_DIR2_LEAFN_MAGIC => !v5,
            _ => false,
        };
        if !right {
            return Err(wrong("its magic number is wrong"));
        }
        let head = self.da_header();
        let count = usize::from(num::be16(bytes, if v5 { 56 } else { 12 }));
        let list = bytes.get(head..head + count * 8).ok_or_else(|| wrong("it is too full"))?;
        let entries: Vec<(u32, u32)> =
            list.chunks_exact(8).map(|entry| (num::be32(entry, 0), num::be32(entry, 4))).collect();
        if entries.windows(2).any(|pair| pair[0].0 > pair[1].0) {
            return Err(wrong("its hashes are not in order"));
        }
        Ok(entries.into_iter().filter(|(_, address)| *address != 0).collect())
    }

    /// The block after a leaf.
    pub(super) fn dir_leaf_next(bytes: &[u8]) -> Option<u64> {
        Some(u64::from(num::be32(bytes, 0))).filter(|&next| next != 0)
    }

    /// The largest free place of each data block, out of the end of the one leaf.
    pub(super) fn dir_leaf_bests(&self, place: Place<'_>, bytes: &[u8]) -> Result<Vec<u16>> {
        let count = to_usize(num::be32(bytes, bytes.len() - 4));
        let end = bytes.len() - 4;
        let used = self.da_header()
            + usize::from(num::be16(bytes, if self.sb.is_v5() { 56 } else { 12 })) * 8;
        let start = count.checked_mul(2).and_then(|size| end.checked_sub(size));
        let start = start.filter(|&start| start >= used);
        let start =
            start.ok_or_else(|| place.corrupt("directory leaf", "its tail is too large"))?;
        Ok(bytes[start..end].chunks_exact(2).map(|best| num::be16(best, 0)).collect())
    }

    /// The largest free place of each data block, out of one block of the list of them.
    pub(super) fn dir_free(
        &self,
        place: Place<'_>,
        bytes: &[u8],
        first: usize,
    ) -> Result<Vec<u16>> {
        let wrong = |detail: &str| place.corrupt("directory free list", detail);
        let v5 = self.sb.is_v5();
        let magic = if v5 { XFS_DIR3_FREE_MAGIC } else { XFS_DIR2_FREE_MAGIC };
        if num::be32(bytes, 0) != magic {
            return Err(wrong("its magic number is wrong"));
        }
        let at = if v5 { 48 } else { 4 };
        let valid = to_usize(num::be32(bytes, at + 4));
        if to_usize(num::be32(bytes, at)) != first || valid > self.dir_free_most() {
            return Err(wrong("its counts are impossible"));
        }
        let head = self.da_header();
        Ok(bytes[head..head + valid * 2].chunks_exact(2).map(|best| num::be16(best, 0)).collect())
    }

    /// Data blocks that one block of the list of free places speaks of.
    pub(super) fn dir_free_most(&self) -> usize {
        (self.sb.dir_block_size() - self.da_header()) / 2
    }

    /// Entries of a leaf of several.
    pub(super) fn dir_leaf_most(&self) -> usize {
        (self.sb.dir_block_size() - self.da_header()) / 8
    }
}
