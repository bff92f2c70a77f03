//! The log: where it ends, whether it is clean, and the commit ([`commit`]).
//!
//! The log is a ring of sectors. Every sector begins with the number of the round (cycle) in which it
//! was written, so that the end is where that number falls. A clean log ends with a record that says
//! "unmounted".

pub(super) mod commit;
mod record;

use super::num;
use super::units::{Daddr, FsBlock};
use super::volume::Volume;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// `XLOG_HEADER_MAGIC_NUM`.
const XLOG_HEADER_MAGIC_NUM: u32 = 0xFEED_BABE;
/// Bytes of a sector of the log.
const SECTOR: usize = 512;
/// Sectors of the longest record, and of what the kernel may have on its way at once: 8 records of
/// 256 KiB.
const MOST_RECORD: u64 = 512 + 8;
const MOST_AHEAD: u64 = 4096;

/// A flag of an operation.
mod op {
    pub(super) const START: u8 = 0x01;
    pub(super) const COMMIT: u8 = 0x02;
    pub(super) const UNMOUNT: u8 = 0x20;
}

/// The end of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// The sector that is written next.
    pub(super) sector: u64,
    /// The round in which it is written.
    pub(super) cycle: u32,
    /// The sector of the last record.
    pub(super) last: u64,
    /// Whether that says "unmounted".
    pub(super) clean: bool,
}

/// The place of the log on the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    start: Daddr,
    /// Sectors.
    length: u64,
    /// Every record ends at a multiple of this many bytes.
    round: usize,
}

fn cycle_of(sector: &[u8]) -> u32 {
    let first = num::be32(sector, 0);
    // A record's header begins with its magic number, and has the cycle after it.
    if first == XLOG_HEADER_MAGIC_NUM { num::be32(sector, 4) } else { first }
}

impl Ring {
    /// The log of a file system.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it is on another device, [`Error::Corrupt`] where it cannot be.
    pub(super) fn of(volume: &Volume) -> Result<Self> {
        let sb = &volume.sb;
        let start = FsBlock(sb.raw.sb_logstart.get());
        let blocks = u64::from(sb.raw.sb_logblocks.get());
        if start.0 == 0 {
            return Err(Error::unsupported(
                "an XFS with its log on another device",
                "edit it from within the guest",
            ));
        }
        if !sb.is_range(start, blocks) {
            return Err(Error::corrupt("superblock", "sector 0", "the log is not within a group"));
        }
        let length = blocks * to_u64(sb.block_size() / SECTOR);
        let round = match to_usize(sb.raw.sb_logsunit.get()) {
            unit if sb.has_log_v2() && unit > SECTOR => unit,
            _ => SECTOR,
        };
        Ok(Self { start: sb.daddr(start), length, round })
    }

    fn byte(&self, sector: u64) -> u64 {
        Daddr(self.start.0 + sector % self.length).byte()
    }

    fn read(&self, device: &dyn BlockDevice, sector: u64) -> Result<[u8; SECTOR]> {
        let mut bytes = [0; SECTOR];
        device.read_at(self.byte(sector), &mut bytes)?;
        Ok(bytes)
    }

    /// Finds the end.
    pub(super) fn head(&self, device: &dyn BlockDevice) -> Result<Head> {
        let cycle = |sector| self.read(device, sector).map(|bytes| cycle_of(&bytes));
        let (first, last) = (cycle(0)?, cycle(self.length - 1)?);
        if first == 0 {
            // Never written.
            let clean = last == 0;
            return Ok(Head { sector: 0, cycle: 1, last: 0, clean });
        }
        let (sector, round) = if first == last {
            (0, first.wrapping_add(1))
        } else {
            let (mut low, mut high) = (0, self.length - 1);
            // `low` is of this round, `high` is not.
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if cycle(middle)? == first { low = middle } else { high = middle }
            }
            (high, first)
        };
        let mut head = Head { sector, cycle: round, last: 0, clean: false };
        for back in 1..=MOST_RECORD.min(self.length) {
            let place = (sector + self.length - back) % self.length;
            let header = self.read(device, place)?;
            if num::be32(&header, 0) != XLOG_HEADER_MAGIC_NUM {
                continue;
            }
            head.last = place;
            head.clean = self.is_unmount(device, &header, place, sector)?;
            break;
        }
        Ok(head)
    }

    /// Whether the record at `place` says "unmounted" and ends at `end`.
    fn is_unmount(
        &self,
        device: &dyn BlockDevice,
        header: &[u8],
        place: u64,
        end: u64,
    ) -> Result<bool> {
        let length = u64::from(num::be32(header, 12));
        let size = u64::from(num::be32(header, 320));
        let v2 = num::be32(header, 8) & 2 != 0;
        let headers = if v2 { size.div_ceil(32_768).clamp(1, 8) } else { 1 };
        let past = (place + headers + length / to_u64(SECTOR)) % self.length;
        if past != end || num::be32(header, 40) != 1 {
            return Ok(false);
        }
        let payload = self.read(device, place + headers)?;
        Ok(payload[9] & op::UNMOUNT != 0)
    }

    /// Whether something was written after the end that a mount would clear away first.
    fn is_stale_ahead(&self, device: &dyn BlockDevice, head: &Head) -> Result<bool> {
        let count = MOST_AHEAD.min(self.length / 2);
        let mut done = 0;
        while done < count {
            let at = (head.sector + done) % self.length;
            let take = (count - done).min(self.length - at).min(1024);
            let mut bytes = vec![0; to_usize(take) * SECTOR];
            device.read_at(self.byte(at), &mut bytes)?;
            let round = if at < head.sector { head.cycle.wrapping_add(1) } else { head.cycle };
            if bytes.chunks_exact(SECTOR).any(|sector| cycle_of(sector) == round) {
                return Ok(true);
            }
            done += take;
        }
        Ok(false)
    }
}

/// The error for a log that is to be replayed first.
pub(super) fn dirty() -> Error {
    Error::unsupported(
        "an XFS whose log holds changes that are not replayed yet (it was not unmounted)",
        "mount and unmount it once, or run xfs_repair",
    )
}
