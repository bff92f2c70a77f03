//! Commits to a file system without a journal: the order of writes is all there is.
//!
//! First the superblock is marked "not clean", so that a boot after a power cut runs e2fsck. Then, each step flushed before the next:
//! 1. file content, and metadata in blocks that were free: nothing refers to them yet;
//! 2. inode tables: from here on a replaced file has its new content, and a new one exists without
//!    a name;
//! 3. directories and block maps that were there before: names appear and go;
//! 4. bitmaps and group descriptors, which e2fsck computes from the rest anyway;
//! 5. the superblock with its counters, clean again.
//!
//! A cut leaves each file that was replaced with its old or its new content, but of several files
//! some may be old and some new. Files that were being made may be found in `lost+found`, names that
//! were being removed may be gone or still there. Everything else stays, and `e2fsck -fy` mends
//! bitmaps, counters and link counts.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::little_endian::U16;

use super::writer::{Writer, read_superblock, zero};
use crate::error::Result;
use crate::ext::store::{Block, Transaction};
use crate::ext::superblock::{STATE_VALID, SUPERBLOCK_OFFSET};
use crate::ext::units::{FsBlock, GroupNo};
use crate::ext::volume::Volume;
use crate::filesystem::CommitReport;
use crate::num::to_u64;

/// Steps after the first superblock write and before the last.
const STEPS: usize = 4;

/// Writes all transactions.
pub(super) fn commit(vol: &Volume, report: &mut CommitReport) -> Result<()> {
    let device = vol.store.device().clone();
    let mut sb = read_superblock(&device)?;
    let state = sb.raw.s_state.get();
    sb.raw.s_state = U16::new(state & !STATE_VALID);
    device.write_at(SUPERBLOCK_OFFSET, &sb.to_bytes())?;
    device.flush()?;
    for transaction in vol.store.transactions() {
        if !transaction.zero.is_empty() {
            zero(&device, vol.block_size(), &transaction.zero)?;
        }
        let steps = sort(vol, transaction)?;
        for step in steps {
            let mut writer = Writer::new(&device, vol.block_size());
            for (number, content) in step {
                writer.write(number, content)?;
            }
            writer.finish()?;
            device.flush()?;
        }
        report.metadata_blocks += to_u64(transaction.meta.len());
        report.data_blocks += to_u64(transaction.data.len()) + transaction.written;
    }
    device.write_at(SUPERBLOCK_OFFSET, &vol.sb.to_bytes())?;
    device.flush()?;
    Ok(())
}

/// The blocks of each step, in order of their place.
fn sort<'t>(
    vol: &Volume,
    transaction: &'t Transaction,
) -> Result<[BTreeMap<FsBlock, &'t Block>; STEPS]> {
    let places = Places::new(vol, transaction)?;
    let (sb_block, _) = vol.superblock_position();
    let mut steps: [BTreeMap<FsBlock, &Block>; STEPS] = Default::default();
    for (&number, block) in &transaction.data {
        steps[0].insert(number, block);
    }
    for (&number, block) in &transaction.meta {
        let step = if number == sb_block {
            continue; // written on its own at the end
        } else if places.bookkeeping.contains(&number) {
            3
        } else if places.in_inode_table(number) {
            1
        } else if was_free(vol, number)? {
            0
        } else {
            2
        };
        steps[step].insert(number, block);
    }
    Ok(steps)
}

/// The places of the touched groups' metadata.
struct Places {
    /// Bitmaps, descriptors, and the block with the superblock.
    bookkeeping: BTreeSet<FsBlock>,
    /// First block of each inode table and the block after its last.
    tables: BTreeMap<FsBlock, FsBlock>,
}

impl Places {
    /// Looks at every group whose descriptor changes: allocation and inode changes elsewhere do
    /// not exist, but an inode may be in a group that keeps its counters, so all groups that an
    /// inode table of a changed block may belong to are looked at too.
    fn new(vol: &Volume, transaction: &Transaction) -> Result<Self> {
        let mut places = Self { bookkeeping: BTreeSet::new(), tables: BTreeMap::new() };
        places.bookkeeping.insert(vol.superblock_position().0);
        let groups = vol.sb.group_count();
        let flex = 1u32.checked_shl(u32::from(vol.sb.raw.s_log_groups_per_flex)).unwrap_or(1);
        let mut wanted: BTreeSet<GroupNo> = BTreeSet::new();
        for &number in transaction.meta.keys() {
            let group = vol.group_of_block(number);
            let first = group.get() - group.get() % flex;
            wanted.extend(GroupNo::all(first..first.saturating_add(flex).min(groups)));
        }
        for group in wanted {
            let descriptor = vol.group(group)?;
            places.bookkeeping.insert(vol.descriptor_position(group).0);
            places.bookkeeping.insert(descriptor.block_bitmap());
            places.bookkeeping.insert(descriptor.inode_bitmap());
            let start = descriptor.inode_table();
            places.tables.insert(start, start + vol.inode_table_blocks());
        }
        Ok(places)
    }

    fn in_inode_table(&self, number: FsBlock) -> bool {
        self.tables.range(..=number).next_back().is_some_and(|(_, &end)| number < end)
    }
}

/// Whether a block was free on the device, before all changes.
fn was_free(vol: &Volume, number: FsBlock) -> Result<bool> {
    let group = vol.group_of_block(number);
    let bitmap = vol.group(group)?.block_bitmap();
    let mut byte = [0];
    let bit =
        number.get().saturating_sub(vol.group_first_block(group).get()) >> vol.sb.cluster_bits();
    let at = bitmap.byte(vol.block_size()) + bit / 8;
    vol.store.device().read_at(at, &mut byte)?;
    Ok(byte[0] >> (bit % 8) & 1 == 0)
}
