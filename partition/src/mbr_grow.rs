//! Planning changes of an MBR.

use zerocopy::FromZeros;
use zerocopy::little_endian::{U16, U32};

use crate::error::{Error, Result};
use crate::grow::Layout;
use crate::layout::{MBR_SIGNATURE, MasterBootRecord, PartitionRecord};
use crate::mbr::{RawEbr, RawMbr};
use crate::num::{low8, to_usize};
use crate::plan::{Change, Plan, Write};
use crate::relocate::Shift;
use crate::table::{Partition, PartitionType, Raw, Role, Table};
use crate::types::MBR_LINUX_SWAP;

/// Type of an extended partition that is made, and of the links in the chain: what fdisk writes.
const EXTENDED: u8 = 0x05;

/// Cylinder, head and sector of a sector in the geometry that LBA BIOSes pretend (255 heads, 63
/// sectors), packed as a record has them; the largest value beyond the 1024th cylinder.
pub(crate) fn chs(lba: u64) -> [u8; 3] {
    let cylinder = lba / (255 * 63);
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    let head = lba / 63 % 255;
    let sector = lba % 63 + 1;
    [low8(head), low8(cylinder >> 8 << 6) | low8(sector), low8(cylinder)]
}

/// A record's 32-bit field.
fn field(value: u64, what: &str) -> Result<U32> {
    u32::try_from(value).map(U32::new).map_err(|_| {
        Error::Invalid(format!(
            "{what} {value} does not fit into an MBR, which ends at 2^32 sectors"
        ))
    })
}

/// A record for `size` sectors from `start`, of which `start - base` is written.
fn record(os_type: u8, start: u64, base: u64, size: u64) -> Result<PartitionRecord> {
    Ok(PartitionRecord {
        boot_indicator: 0,
        starting_chs: chs(start),
        os_type,
        ending_chs: chs(start + size - 1),
        starting_lba: field(start - base, "the start sector")?,
        size_in_lba: field(size, "the size in sectors")?,
    })
}

/// Gives a record another place; its type and flag stay.
fn place(record: &mut PartitionRecord, start: u64, base: u64, size: u64) -> Result<()> {
    record.starting_lba = field(start - base, "the start sector")?;
    record.starting_chs = chs(start);
    record.ending_chs = chs(start + size - 1);
    Ok(())
}

/// Gives a record a new end and leaves its start alone.
fn resize(record: &mut PartitionRecord, start: u64, end: u64) -> Result<()> {
    record.size_in_lba = field(end - start, "the size in sectors")?;
    record.ending_chs = chs(end - 1);
    Ok(())
}

fn ebrs(table: &Table) -> &[RawEbr] {
    match &table.raw {
        Raw::Mbr(raw) => &raw.ebrs,
        Raw::Gpt(_) => &[],
    }
}

/// The sectors of all EBRs.
pub(crate) fn ebr_sectors(table: &Table) -> impl Iterator<Item = u64> {
    ebrs(table).iter().map(|ebr| ebr.lba)
}

/// The first sector after all EBRs.
pub(crate) fn after_last_ebr(table: &Table) -> u64 {
    ebrs(table).iter().map(|ebr| ebr.lba + 1).max().unwrap_or(0)
}

/// Whether the first EBR of an extended partition is missing or describes nothing, so that the
/// first logical partition belongs there.
pub(crate) fn has_empty_first_ebr(table: &Table, extended: &Partition) -> bool {
    ebrs(table)
        .iter()
        .find(|ebr| ebr.lba == extended.start)
        .is_none_or(|ebr| ebr.data.is_none() && ebr.link.is_none())
}

/// The change as bytes.
pub(crate) fn plan(table: &Table, raw: &RawMbr, layout: Layout) -> Result<Plan> {
    let mut work = Work {
        partitions: table.partitions.clone(),
        changes: Vec::new(),
        mbr: decode(&raw.sector, "MBR", 0)?,
        ebrs: raw
            .ebrs
            .iter()
            .map(|ebr| decode(&ebr.sector, "EBR", ebr.lba))
            .collect::<Result<_>>()?,
        raw,
        shift: layout.shift.clone().unwrap_or_default(),
    };
    if let Some((number, end)) = layout.last {
        work.grow(number, end)?;
    }
    if let Some((number, end)) = layout.extended
        && work.raw_partition(number).is_some()
    {
        work.grow(number, end)?;
    }
    work.relocate()?;
    let mut new_ebr = None;
    if let Some(swap) = layout.swap {
        let mut partition = Partition {
            number: swap.number,
            start: swap.start,
            size: swap.size,
            partition_type: PartitionType::Mbr(MBR_LINUX_SWAP),
            guid: None,
            name: String::new(),
            partuuid: partuuid(table, swap.number),
            bootable: false,
            attributes: 0,
            role: Role::Primary,
        };
        if let Some(ebr) = swap.ebr {
            partition.role = Role::Logical;
            if let (Some(number), Some((_, end))) = (swap.new_extended, layout.extended) {
                work.add_extended(table, number, ebr, end)?;
            }
            new_ebr = work.add_logical(&partition, ebr)?;
        } else {
            let slot = work.mbr.partition_record.get_mut(to_usize(swap.number) - 1);
            *slot.ok_or_else(|| {
                Error::Invalid(format!("an MBR has no primary partition {}", swap.number))
            })? = record(MBR_LINUX_SWAP, swap.start, 0, swap.size)?;
        }
        work.changes.push(Change::Add(partition.clone()));
        work.partitions.push(partition);
        work.partitions.sort_by_key(|p| p.number);
    }
    let stages = work.stages(table.sector_size, new_ebr);
    Ok(Plan {
        sector_size: table.sector_size,
        partitions: work.partitions,
        changes: work.changes,
        stages,
        notes: layout.notes,
        moves: Vec::new(),
        obstacle: None,
    })
}

fn decode(sector: &[u8], structure: &'static str, lba: u64) -> Result<MasterBootRecord> {
    MasterBootRecord::of(sector).ok_or_else(|| {
        Error::corrupt(structure, format!("sector {lba}"), "the sector is too short")
    })
}

fn partuuid(table: &Table, number: u32) -> Option<String> {
    table.disk_id.as_ref().map(|id| format!("{id}-{number:02x}"))
}

/// The table while it is changed.
struct Work<'a> {
    partitions: Vec<Partition>,
    changes: Vec<Change>,
    mbr: MasterBootRecord,
    /// Beside `raw.ebrs`.
    ebrs: Vec<MasterBootRecord>,
    raw: &'a RawMbr,
    shift: Shift,
}

impl Work<'_> {
    fn raw_partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.number == number)
    }

    /// Gives a partition a new end, in its record and, for a logical one, in the link to its EBR,
    /// whose size by custom covers EBR and partition.
    fn grow(&mut self, number: u32, end: u64) -> Result<()> {
        let Some(partition) = self.partitions.iter_mut().find(|p| p.number == number) else {
            return Ok(());
        };
        if partition.end() >= end {
            return Ok(());
        }
        let before = partition.clone();
        partition.size = end - partition.start;
        let start = partition.start;
        self.changes.push(Change::Resize { before, after: partition.clone() });
        if number <= 4 {
            if let Some(record) = self.mbr.partition_record.get_mut(to_usize(number) - 1) {
                resize(record, start, end)?;
            }
            return Ok(());
        }
        let Some(index) =
            self.raw.ebrs.iter().position(|ebr| ebr.data.is_some_and(|(_, n)| n == number))
        else {
            return Ok(());
        };
        let lba = self.raw.ebrs[index].lba;
        if let Some((slot, _)) = self.raw.ebrs[index].data {
            resize(&mut self.ebrs[index].partition_record[slot], start, end)?;
        }
        for (ebr, record) in self.raw.ebrs.iter().zip(&mut self.ebrs) {
            if let Some((slot, target)) = ebr.link
                && target == lba
            {
                resize(&mut record.partition_record[slot], lba, end)?;
            }
        }
        Ok(())
    }

    /// Moves what is to move: primary records in the MBR, and EBRs with the logical partitions that
    /// they describe. Numbers in an EBR count from itself or from its extended partition.
    fn relocate(&mut self) -> Result<()> {
        let Shift { delta, from, .. } = self.shift;
        if delta == 0 {
            return Ok(());
        }
        for partition in self.partitions.iter_mut().filter(|p| self.shift.moves(p.number)) {
            let before = partition.clone();
            partition.start += delta;
            if partition.number <= 4
                && let Some(record) =
                    self.mbr.partition_record.get_mut(to_usize(partition.number) - 1)
            {
                place(record, partition.start, 0, partition.size)?;
            }
            self.changes.push(Change::Move { before, after: partition.clone() });
        }
        let new_place = |lba: u64| if lba >= from { lba + delta } else { lba };
        for (raw, ebr) in self.raw.ebrs.iter().zip(&mut self.ebrs) {
            if let Some((slot, number)) = raw.data
                && self.shift.moves(number)
                && let Some(partition) = self.partitions.iter().find(|p| p.number == number)
            {
                let record = &mut ebr.partition_record[slot];
                place(record, partition.start, new_place(raw.lba), partition.size)?;
            }
            if let Some((slot, target)) = raw.link
                && target >= from
            {
                let container = self.partitions.iter().find(|p| p.number == raw.extended);
                let record = &mut ebr.partition_record[slot];
                let size = u64::from(record.size_in_lba.get()).max(1);
                place(record, target + delta, container.map_or(0, |p| p.start), size)?;
            }
        }
        Ok(())
    }

    /// Makes an extended partition from sector `start` on.
    fn add_extended(&mut self, table: &Table, number: u32, start: u64, end: u64) -> Result<()> {
        let partition = Partition {
            number,
            start,
            size: end - start,
            partition_type: PartitionType::Mbr(EXTENDED),
            guid: None,
            name: String::new(),
            partuuid: partuuid(table, number),
            bootable: false,
            attributes: 0,
            role: Role::Extended,
        };
        if let Some(slot) = self.mbr.partition_record.get_mut(to_usize(number) - 1) {
            *slot = record(EXTENDED, start, 0, end - start)?;
        }
        self.changes.push(Change::Add(partition.clone()));
        self.partitions.push(partition);
        Ok(())
    }

    /// Adds a logical partition whose EBR is in sector `lba`: a new EBR at the end of the chain,
    /// which is returned, or, in an extended partition that is empty, the first one that is there.
    fn add_logical(
        &mut self,
        partition: &Partition,
        lba: u64,
    ) -> Result<Option<(u64, MasterBootRecord)>> {
        let data = record(MBR_LINUX_SWAP, partition.start, lba, partition.size)?;
        if let Some(index) = self.raw.ebrs.iter().position(|ebr| ebr.lba == lba) {
            self.ebrs[index].partition_record[0] = data;
            return Ok(None);
        }
        let mut ebr = MasterBootRecord::new_zeroed();
        ebr.partition_record[0] = data;
        ebr.signature = U16::new(MBR_SIGNATURE);
        if let (Some(tail), Some(record_of_tail)) = (self.raw.ebrs.last(), self.ebrs.last_mut()) {
            let container =
                self.partitions.iter().find(|p| p.number == tail.extended).map_or(0, |p| p.start);
            let slot = usize::from(tail.data.is_some_and(|(slot, _)| slot == 0));
            record_of_tail.partition_record[slot] =
                record(EXTENDED, lba, container, partition.end() - lba)?;
        }
        Ok(Some((lba, ebr)))
    }

    /// The writes, in an order that leaves a table without contradictions after each
    /// sector: EBRs that nothing points to yet, the MBR (its extended partition covers what
    /// comes), then the other EBRs from the last to the first.
    fn stages(
        &self,
        sector_size: u32,
        new_ebr: Option<(u64, MasterBootRecord)>,
    ) -> Vec<Vec<Write>> {
        let mut stages = Vec::new();
        if let Some((lba, ebr)) = &new_ebr {
            let mut sector = vec![0; to_usize(sector_size)];
            ebr.put(&mut sector);
            stages.push(vec![(lba * u64::from(sector_size), sector)]);
        }
        let moves = |raw: &RawEbr| self.shift.delta > 0 && raw.lba >= self.shift.from;
        let both = || self.raw.ebrs.iter().zip(&self.ebrs).rev();
        for (raw, record) in both().filter(|(raw, _)| moves(raw)) {
            // Written also when its bytes are the same: its place is another.
            let mut sector = raw.sector.clone();
            record.put(&mut sector);
            stages.push(vec![((raw.lba + self.shift.delta) * u64::from(sector_size), sector)]);
        }
        let mut write = |lba: u64, old: &[u8], new: &MasterBootRecord| {
            let mut sector = old.to_vec();
            new.put(&mut sector);
            if old != sector.as_slice() {
                stages.push(vec![(lba * u64::from(sector_size), sector)]);
            }
        };
        write(0, &self.raw.sector, &self.mbr);
        for (raw, record) in both().filter(|(raw, _)| !moves(raw)) {
            write(raw.lba, &raw.sector, record);
        }
        stages
    }
}

#[cfg(test)]
mod tests {
    use super::chs;

    #[test]
    fn chs_of_known_sectors() {
        assert_eq!(chs(0), [0, 1, 0]);
        assert_eq!(chs(2048), [32, 33, 0]);
        assert_eq!(chs(1024 * 255 * 63 - 1), [254, 0xff, 0xff]);
        assert_eq!(chs(1024 * 255 * 63), [0xfe, 0xff, 0xff]);
        assert_eq!(chs(u64::MAX), [0xfe, 0xff, 0xff]);
    }
}
