//! The commit: everything that was changed in one transaction of the log.
//!
//! 1. Content, and structures in blocks that were free, go to their places; flush.
//! 2. All other changed buffers go into the log as one transaction; flush. From here on it is done:
//!    whoever mounts replays it.
//! 3. The buffers go to their places; flush.
//! 4. The record "unmounted": the log is clean; flush.
//!
//! The sequence numbers (LSN) in the buffers stay as they were, or are 0 where a structure is made
//! anew. A replay skips a buffer whose number says that it is newer than the log; after a cut in
//! step 3 half of a buffer may be on the device, so none must say that.

use super::record::Writer;
use super::{Ring, dirty, op};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::filesystem::CommitReport;
use crate::num::{low32, to_u16, to_u32, to_u64};
use crate::xfs::num;
use crate::xfs::store::{BufferType, Bytes};
use crate::xfs::units::Daddr;
use crate::xfs::volume::Volume;

/// Bytes that one bit of a buffer's map stands for.
const CHUNK: usize = 128;
/// Bytes of a buffer that go into one region.
const REGION: usize = 4096;
/// `XFS_LI_BUF`.
const XFS_LI_BUF: u16 = 0x123C;
/// `XFS_TRANS_HEADER_MAGIC` and `XFS_TRANS_CHECKPOINT`.
const TRANS_MAGIC: u32 = 0x5452_414E;
const CHECKPOINT: u32 = 40;
/// `XLOG_UNMOUNT_TYPE`.
const UNMOUNT_TYPE: u16 = 0x556E;
/// Bits of `sb_qflags` that say that the counts of quotas are right.
const QUOTAS_CHECKED: u16 = 0x0004 | 0x0020 | 0x0100 | 0x0400;
/// Most bytes of one write.
const WRITE: usize = 1 << 20;

/// A buffer on its way to the device.
type Outgoing = (Daddr, BufferType, Bytes);

/// Writes all changes.
///
/// # Errors
/// [`Error::NoSpace`] where they do not fit into the log, [`Error::Device`], and what freeing blocks
/// gives.
pub(in crate::xfs) fn commit(volume: &mut Volume) -> Result<CommitReport> {
    if !volume.store.is_dirty() && volume.freed.is_empty() {
        return Ok(CommitReport::default());
    }
    volume.check_writable()?;
    volume.attempt(|volume| {
        volume.free_all()?;
        bring_up_to_date(volume)
    })?;
    let report = write(volume);
    volume.freeing = false;
    volume.failed = report.is_err();
    if report.is_ok() {
        volume.store.committed();
        volume.grown_from = None;
    }
    report
}

/// Counts in the superblock what the groups have, and lets the kernel count quotas again.
fn bring_up_to_date(volume: &mut Volume) -> Result<()> {
    let (mut blocks, mut inodes, mut free) = (0i64, 0i64, 0i64);
    let new = volume.grown_from.map_or(Daddr(u64::MAX), |ag| volume.sb.ag_sector(ag, 0));
    let changed: Vec<(Daddr, BufferType, Bytes)> = volume
        .store
        .changed()
        .filter(|(_, c)| matches!(c.buffer_type, BufferType::Agf | BufferType::Agi))
        .map(|(at, changed)| (at, changed.buffer_type, changed.bytes.clone()))
        .collect();
    for (at, buffer_type, now) in changed {
        let mut before = vec![0; now.len()];
        // Of a group that is new, the device has anything but a header.
        if at < new {
            volume.store.device().read_at(at.byte(), &mut before)?;
        }
        let change = |at: usize| i64::from(num::be32(&now, at)) - i64::from(num::be32(&before, at));
        if buffer_type == BufferType::Agf {
            // agf_freeblks, agf_flcount, agf_btreeblks.
            blocks += change(52) + change(48) + change(60);
        } else {
            inodes += change(16);
            free += change(28);
        }
    }
    let add = |count: u64, change: i64| {
        count.checked_add_signed(change).ok_or_else(|| {
            Error::corrupt("superblock", "sector 0", "its counters are not what the groups have")
        })
    };
    let raw = &mut volume.sb.raw;
    raw.sb_fdblocks.set(add(raw.sb_fdblocks.get(), blocks)?);
    raw.sb_icount.set(add(raw.sb_icount.get(), inodes)?);
    raw.sb_ifree.set(add(raw.sb_ifree.get(), free)?);
    raw.sb_qflags.set(raw.sb_qflags.get() & !QUOTAS_CHECKED);
    volume.store_superblock()?;
    if volume.grown_from.is_some() { volume.copy_superblocks() } else { Ok(()) }
}

fn write(volume: &mut Volume) -> Result<CommitReport> {
    let store = &volume.store;
    let device = &**store.device();
    let ring = Ring::of(volume)?;
    let head = ring.head(device)?;
    if !head.clean || ring.is_stale_ahead(device, &head)? {
        return Err(dirty());
    }
    let (mut logged, mut direct): (Vec<Outgoing>, Vec<Outgoing>) = (Vec::new(), Vec::new());
    for (at, changed) in store.changed() {
        let list = if store.is_fresh(at) { &mut direct } else { &mut logged };
        list.push((at, changed.buffer_type, changed.bytes.clone()));
    }
    check_room(&ring, &logged)?;
    // Step 1.
    let mut first: Vec<(Daddr, Bytes)> =
        store.data().map(|(at, bytes)| (at, bytes.clone())).collect();
    let data_blocks = to_u64(first.len());
    let metadata_blocks = to_u64(logged.len() + direct.len());
    first.extend(direct.into_iter().map(|(at, _, bytes)| (at, bytes)));
    first.sort_by_key(|(at, _)| *at);
    write_all(device, first.iter().map(|(at, bytes)| (*at, bytes)))?;
    device.flush()?;
    // Step 2.
    let transaction = low32(volume.options.seed) | 1;
    let mut log = Writer::new(device, ring, head, volume.sb.raw.sb_uuid, transaction);
    log.operation(op::START, &[])?;
    let mut header = Vec::with_capacity(16);
    for word in [TRANS_MAGIC, CHECKPOINT, transaction, to_u32(logged.len())] {
        header.extend(word.to_le_bytes());
    }
    log.operation(0, &header)?;
    for (at, buffer_type, bytes) in &logged {
        log_buffer(&mut log, *at, *buffer_type, bytes)?;
    }
    log.operation(op::COMMIT, &[])?;
    log.flush()?;
    // Step 3.
    write_all(device, logged.iter().map(|(at, _, bytes)| (*at, bytes)))?;
    device.flush()?;
    // Step 4.
    log.move_tail();
    let mut unmount = [0; 8];
    unmount[..2].copy_from_slice(&UNMOUNT_TYPE.to_le_bytes());
    log.any_operation(0xB0C0_D0D0, 0xAA, op::UNMOUNT, &unmount)?;
    log.flush()?;
    Ok(CommitReport { metadata_blocks, data_blocks, transactions: 1, replayed: false })
}

/// The changes must leave half of the log: a replay needs all of it, and the record after it.
fn check_room(ring: &Ring, logged: &[Outgoing]) -> Result<()> {
    // Each region has a header, each record a sector and what it is rounded up to.
    let bytes: u64 = logged
        .iter()
        .map(|(_, _, bytes)| to_u64(bytes.len()) + 200 + to_u64(bytes.len() / REGION) * 12)
        .sum();
    let records = bytes / 24_000 + 2;
    let need = bytes + records * (512 + 4608 + to_u64(ring.round));
    let room = ring.length * 512 / 2;
    if need > room {
        return Err(Error::NoSpace(format!(
            "the changes need {} KiB of the log, and {} KiB of it can be used: make them in several runs",
            need / 1024,
            room / 1024
        )));
    }
    Ok(())
}

/// One buffer: its format with a map of what follows, and its content.
fn log_buffer(log: &mut Writer<'_>, at: Daddr, kind: BufferType, bytes: &[u8]) -> Result<()> {
    let chunks = bytes.len().div_ceil(CHUNK);
    let words = chunks.div_ceil(32);
    let regions = bytes.len().div_ceil(REGION);
    let mut format = Vec::with_capacity(24 + words * 4);
    format.extend(XFS_LI_BUF.to_le_bytes());
    format.extend((to_u16(regions) + 1).to_le_bytes());
    format.extend((kind.code() << 11).to_le_bytes());
    format.extend(to_u16(bytes.len() / 512).to_le_bytes());
    format.extend(at.0.to_le_bytes());
    format.extend(to_u32(words).to_le_bytes());
    for word in 0..words {
        let bits = (chunks - word * 32).min(32);
        format.extend(((1u64 << bits) - 1).to_le_bytes()[..4].iter());
    }
    log.operation(0, &format)?;
    for region in bytes.chunks(REGION) {
        log.operation(0, region)?;
    }
    Ok(())
}

/// Writes buffers in order, neighbours together.
fn write_all<'a>(
    device: &dyn BlockDevice,
    buffers: impl Iterator<Item = (Daddr, &'a Bytes)>,
) -> Result<()> {
    let mut run: Vec<u8> = Vec::new();
    let mut start = 0;
    for (at, bytes) in buffers {
        if !run.is_empty() && (start + to_u64(run.len()) != at.byte() || run.len() >= WRITE) {
            device.write_at(start, &run)?;
            run.clear();
        }
        if run.is_empty() {
            start = at.byte();
        }
        run.extend_from_slice(bytes);
    }
    if !run.is_empty() {
        device.write_at(start, &run)?;
    }
    Ok(())
}
