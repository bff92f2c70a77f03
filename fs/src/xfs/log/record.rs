//! Records of the log.

use super::{Head, Ring, SECTOR, XLOG_HEADER_MAGIC_NUM};
use crate::device::BlockDevice;
use crate::error::Result;
use crate::num::{low32, to_u32, to_u64, to_usize};
use crate::xfs::num;

/// Bytes of a record, header included: no more headers are needed.
const RECORD: usize = 32_768;
/// Bytes of an operation's header.
pub(super) const OP_HEADER: usize = 12;
/// `sizeof(struct xlog_rec_header)`: what the checksum covers of the header.
const HEADER_SUMMED: usize = 328;
/// Records between two flushes. The kernel takes a damaged record for one that was on its way only
/// among the last eight.
const RECORDS_TO_FLUSH: usize = 7;
/// `XLOG_FMT_LINUX_LE`: values inside the operations are little-endian.
const FORMAT: u32 = 1;

/// Writes records at the end of a log.
pub(super) struct Writer<'a> {
    device: &'a dyn BlockDevice,
    ring: Ring,
    uuid: [u8; 16],
    pub(super) head: Head,
    /// The place from which a replay begins.
    tail: u64,
    payload: Vec<u8>,
    operations: u32,
    unflushed: usize,
    transaction: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        device: &'a dyn BlockDevice,
        ring: Ring,
        head: Head,
        uuid: [u8; 16],
        transaction: u32,
    ) -> Self {
        let tail = u64::from(head.cycle) << 32 | head.sector;
        let (payload, operations) = (Vec::new(), 0);
        Self { device, ring, uuid, head, tail, payload, operations, unflushed: 0, transaction }
    }

    /// Adds an operation of the transaction.
    pub(super) fn operation(&mut self, flags: u8, content: &[u8]) -> Result<()> {
        self.any_operation(self.transaction, 0x69, flags, content)
    }

    pub(super) fn any_operation(
        &mut self,
        transaction: u32,
        client: u8,
        flags: u8,
        content: &[u8],
    ) -> Result<()> {
        if self.payload.len() + OP_HEADER + content.len() > RECORD - SECTOR {
            self.finish()?;
        }
        self.payload.extend(transaction.to_be_bytes());
        self.payload.extend(to_u32(content.len()).to_be_bytes());
        self.payload.extend([client, flags, 0, 0]);
        self.payload.extend(content);
        self.operations += 1;
        Ok(())
    }

    /// Writes the record that is begun.
    pub(super) fn finish(&mut self) -> Result<()> {
        if self.payload.is_empty() {
            return Ok(());
        }
        if self.unflushed == RECORDS_TO_FLUSH {
            self.device.flush()?;
            self.unflushed = 0;
        }
        let mut payload = std::mem::take(&mut self.payload);
        let total = (SECTOR + payload.len()).next_multiple_of(self.ring.round);
        payload.resize(total - SECTOR, 0);
        let length = self.ring.length;
        let start = self.head.sector;
        let cycle_at = |sector: u64| {
            if sector < length { self.head.cycle } else { next_cycle(self.head.cycle) }
        };
        let mut record = vec![0; SECTOR];
        num::put32(&mut record, 0, XLOG_HEADER_MAGIC_NUM);
        num::put32(&mut record, 4, self.head.cycle);
        num::put32(&mut record, 8, 2);
        num::put32(&mut record, 12, to_u32(payload.len()));
        num::put64(&mut record, 16, u64::from(self.head.cycle) << 32 | start);
        num::put64(&mut record, 24, self.tail);
        num::put32(&mut record, 36, low32(self.head.last));
        num::put32(&mut record, 40, self.operations);
        for (index, sector) in payload.chunks_exact_mut(SECTOR).enumerate() {
            // The first four bytes of a sector make room for its cycle.
            num::put32(&mut record, 44 + index * 4, num::be32(sector, 0));
            num::put32(sector, 0, cycle_at(start + 1 + to_u64(index)));
        }
        num::put32(&mut record, 300, FORMAT);
        num::put(&mut record, 304, &self.uuid);
        num::put32(&mut record, 320, to_u32(RECORD));
        // The checksum's place is zero still.
        let crc = crc32c::crc32c_append(crc32c::crc32c(&record[..HEADER_SUMMED]), &payload);
        num::put(&mut record, 32, &crc.to_le_bytes());
        record.extend(payload);
        let sectors = to_u64(record.len() / SECTOR);
        let first = to_usize(sectors.min(length - start)) * SECTOR;
        self.device.write_at(self.ring.byte(start), &record[..first])?;
        if first < record.len() {
            self.device.write_at(self.ring.byte(0), &record[first..])?;
        }
        self.head.last = start;
        self.head.sector = start + sectors;
        if self.head.sector >= length {
            self.head.sector -= length;
            self.head.cycle = next_cycle(self.head.cycle);
        }
        self.operations = 0;
        self.unflushed += 1;
        Ok(())
    }

    /// Writes what is begun and lets it last.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.finish()?;
        self.device.flush()?;
        self.unflushed = 0;
        Ok(())
    }

    /// From here on nothing before is replayed.
    pub(super) fn move_tail(&mut self) {
        self.tail = u64::from(self.head.cycle) << 32 | self.head.sector;
    }
}

/// The cycle after one; never the magic number of a header.
fn next_cycle(cycle: u32) -> u32 {
    let next = cycle.wrapping_add(1);
    if next == XLOG_HEADER_MAGIC_NUM { next + 1 } else { next }
}
