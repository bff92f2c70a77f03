//! The journal: replay of a dirty one at open, and commits that a power cut cannot tear.
//!
//! [`open_volume`] opens a file system; when its journal is dirty, the replay is laid over the device
//! in memory and nothing is written. [`commit`] writes everything: with a journal each transaction of
//! the [`Store`](super::store::Store) becomes one jbd2 transaction, without one the writes are ordered.
//!
//! The order of writes follows from how jbd2 and e2fsck treat a file system after a cut:
//! - The kernel looks at the log only if the file system's superblock has `needs_recovery`; else it
//!   empties it. So that flag is on the device before the log has a start.
//! - `e2fsck -p`, which a boot runs, gives up where that flag is clear and the log has a start. So the
//!   log is empty on the device before the flag goes.
//! - `s_start` and `s_sequence` are in one sector of the journal's superblock. Before it is written
//!   the old state holds, after it the new one, for everything of the transaction.
//! - Our transactions start at the first block of an empty log, one at a time. So no revoke records
//!   are needed: nothing older is in the log.

mod area;
mod commit;
mod find;
pub mod format;
mod ordered;
mod orphan;
mod replay;
mod seal;
pub(super) mod state;
mod writer;

use std::sync::Arc;

use area::Area;

use super::superblock::{STATE_ERROR, incompat};
use super::volume::{Options, Volume};
use super::{mmp, superblock::compat};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ext::units::FsBlock;

pub use commit::commit;
pub use seal::{seal, transaction_capacity};

/// Opens the file system on `device`. The second value is true if its journal was dirty: then
/// reading shows the state after the replay, and the next [`commit`] writes it. Orphans are finished
/// too, where the file system may be written.
pub fn open_volume(device: Arc<dyn BlockDevice>, options: Options) -> Result<(Volume, bool)> {
    let (mut vol, dirty) = open_replayed(device, options)?;
    if vol.check_writable().is_ok() {
        orphan::clean(&mut vol)?;
    }
    Ok((vol, dirty))
}

/// [`open_volume`], with orphans left as they are.
pub fn open_replayed(device: Arc<dyn BlockDevice>, options: Options) -> Result<(Volume, bool)> {
    let mut vol = Volume::open(device, options)?;
    mmp::check(&vol)?;
    let flagged = vol.sb.has_incompat(incompat::RECOVER);
    if !vol.has_journal() {
        if flagged {
            return Err(Error::corrupt(
                "superblock",
                "byte 1024",
                "needs_recovery without has_journal",
            ));
        }
        return Ok((vol, false));
    }
    let mut area = find::find(&vol)?;
    let dirty = area.is_dirty();
    if dirty {
        let device = vol.store.device().clone();
        let replay = replay::scan(&area, &device)?;
        check_fast_commits(&area, &device, replay.end)?;
        // The transaction at the end may be in the log in part; its number is not used again.
        area.next_sequence = replay.end.wrapping_add(1);
        vol.store.set_replayed(replay.blocks);
        // Errors noted in the superblock are newer than any copy of it in the log.
        let noted = vol.sb.raw.s_state.get() & STATE_ERROR;
        vol.reload_superblock()?;
        vol.sb.raw.s_state.set(vol.sb.raw.s_state.get() | noted);
        if !vol.sb.has_compat(compat::HAS_JOURNAL) {
            return Err(Error::corrupt(
                "journal",
                "the superblock in it",
                "replaying the journal would remove has_journal",
            ));
        }
        // A journal that overwrites the file system with rubbish is refused now, not half way
        // through a commit.
        if !find::find(&vol)?.is_same_place(&area) {
            return Err(Error::corrupt(
                "journal",
                format!("inode {}", vol.sb.raw.s_journal_inum),
                "replaying the journal would move the journal itself",
            ));
        }
    }
    vol.sb.set_incompat(incompat::RECOVER, false);
    if flagged || dirty {
        recount(&mut vol);
    }
    vol.journal.area = Some(area);
    Ok((vol, dirty))
}

/// Refuses blocks that belong to the journal, although a bitmap says that they are free: what is
/// written to them at once could not be taken back.
pub fn check_apart(vol: &Volume, first: FsBlock, count: u64) -> Result<()> {
    let Some(area) = &vol.journal.area else { return Ok(()) };
    match first.run(count).find(|&block| area.contains(block)) {
        Some(block) => Err(Error::corrupt(
            "journal",
            format!("block {block}"),
            "it belongs to the journal or to its map, and a bitmap says that it is free",
        )),
        None => Ok(()),
    }
}

/// The kernel keeps the superblock's free counts in memory while a file system is mounted: after a
/// replay they are the sums over the group descriptors.
fn recount(vol: &mut Volume) {
    // 64 TiB in groups of 128 MiB; a hostile superblock may claim more than can be read in time.
    const MAX_GROUPS: u32 = 1 << 19;
    let groups = vol.sb.group_count();
    let (mut clusters, mut inodes) = (0u64, 0u32);
    if groups > MAX_GROUPS {
        return;
    }
    for group in vol.sb.groups() {
        // A damaged group is reported when it is needed.
        let Ok(descriptor) = vol.group(group) else { return };
        clusters = clusters.saturating_add(u64::from(descriptor.free_blocks_count()));
        inodes = inodes.saturating_add(descriptor.free_inodes_count());
    }
    vol.sb.set_free_blocks_count(clusters << vol.sb.cluster_bits());
    vol.sb.raw.s_free_inodes_count.set(inodes);
}

/// Refuses a journal whose fast commits the kernel would replay.
fn check_fast_commits(area: &Area, device: &dyn BlockDevice, end: u32) -> Result<()> {
    const TAG_HEAD: u16 = 9;
    let Some(start) = area.fast_commit_start() else { return Ok(()) };
    let mut block = vec![0; area.form.block_size];
    area.read(device, start, &mut block)?;
    // The area is in use if it starts with a head (tag, length, features, transaction; all of it
    // little-endian) that belongs to the transaction after the last complete one.
    let tag = u16::from_le_bytes([block[0], block[1]]);
    let transaction = u32::from_le_bytes([block[8], block[9], block[10], block[11]]);
    if tag == TAG_HEAD && transaction == end {
        return Err(Error::unsupported(
            "an unclean journal with fast commits (fast_commit)",
            "mount and unmount the file system once on a Linux system with kernel 5.10 or later \
             (e2fsck would lose the latest changes)",
        ));
    }
    Ok(())
}
