//! Freeing the blocks that a cut takes off a file, run by run.

use super::mapping::corrupt;
use crate::error::Result;
use crate::ext::alloc::free_blocks;
use crate::ext::inode::Inode;
use crate::ext::units::{FileBlock, FsBlock};
use crate::ext::volume::Volume;
use crate::num::to_u32;

/// Collects adjoining runs, so that each bitmap is written once, and keeps clusters that the rest
/// of the file or an earlier run shares.
pub(super) struct Release {
    /// The cluster that holds the last blocks before the cut.
    kept: Option<u64>,
    /// The lowest cluster freed so far: runs come from the end of the file to its start.
    last: Option<u64>,
    /// First block and length of the run to free next.
    pending: Option<(FsBlock, u64)>,
    /// Clusters freed.
    clusters: u64,
}

/// Long enough to cover several groups, short enough to count in 32 bits.
const LONGEST: u64 = 1 << 20;

impl Release {
    /// For a cut that leaves a part of the cluster `kept`.
    pub(super) fn new(kept: Option<u64>) -> Self {
        Self { kept, last: None, pending: None, clusters: 0 }
    }

    /// Frees `len` blocks from `start` that were logical blocks `lblk` and on.
    pub(super) fn add(
        &mut self,
        vol: &mut Volume,
        inode: &Inode,
        lblk: FileBlock,
        start: FsBlock,
        len: u32,
    ) -> Result<()> {
        let shift = vol.sb.cluster_bits();
        if shift == 0 {
            return self.enqueue(vol, start, u64::from(len));
        }
        let mask = u64::from(vol.sb.cluster_blocks()) - 1;
        if u64::from(lblk) & mask != start.get() & mask {
            return Err(corrupt(
                inode,
                "extent",
                format!(
                    "logical block {lblk} is at block {start}, at another place in its cluster"
                ),
            ));
        }
        let end = start + u64::from(len);
        let mut first = start.get() >> shift;
        let mut past = end.get().div_ceil(1 << shift);
        // Blocks cut out of a cluster that stays keep their old content until the commit, too.
        if self.last == Some(past - 1) {
            past -= 1;
        }
        if first < past && self.kept == Some(first) {
            first += 1;
        }
        if first < past && self.kept == Some(past - 1) {
            past -= 1;
        }
        let whole = FsBlock::new(first << shift).min(end);
        let whole_end = FsBlock::new(past << shift).max(start);
        if first < past {
            vol.store.forget(start..whole.max(start));
            vol.store.forget(whole_end.min(end)..end);
        } else {
            vol.store.forget(start..end);
        }
        if first < past {
            self.last = Some(first);
            self.clusters += past - first;
            let first = first << shift;
            let past = (past << shift).min(vol.sb.blocks_count());
            self.enqueue(vol, FsBlock::new(first), past - first)?;
        }
        Ok(())
    }

    fn enqueue(&mut self, vol: &mut Volume, start: FsBlock, len: u64) -> Result<()> {
        if vol.sb.cluster_bits() == 0 {
            self.clusters += len;
        }
        match &mut self.pending {
            Some((first, have)) if *have + len <= LONGEST && start + len == *first => {
                *first = start;
                *have += len;
                Ok(())
            }
            Some((first, have)) if *have + len <= LONGEST && *first + *have == start => {
                *have += len;
                Ok(())
            }
            _ => {
                self.flush(vol)?;
                self.pending = Some((start, len));
                Ok(())
            }
        }
    }

    fn flush(&mut self, vol: &mut Volume) -> Result<()> {
        match self.pending.take() {
            Some((start, len)) => free_blocks(vol, start, to_u32(len)),
            None => Ok(()),
        }
    }

    /// Frees the rest and takes all of it off `i_blocks`.
    pub(super) fn finish(mut self, vol: &mut Volume, inode: &mut Inode) -> Result<()> {
        self.flush(vol)?;
        let blocks = (self.clusters << vol.sb.cluster_bits()).cast_signed();
        inode.add_blocks(-blocks, &vol.sb)
    }
}
