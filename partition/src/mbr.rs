//! Reading MBR tables: four records in sector 0, and chains of extended boot records (EBR), one
//! for each logical partition.

use std::collections::BTreeSet;

use crate::disk::{Disk, read_if_there};
use crate::error::{Error, Result};
use crate::layout::{MBR_SIGNATURE, MasterBootRecord, PartitionRecord};
use crate::num::to_usize;
use crate::table::{
    Partition, PartitionType, Raw, Role, Table, TableKind, find_overlap, overlap_error,
};

/// How many EBRs are followed in all. The kernel stops at 252 partitions, sfdisk at about 60, and
/// no installer makes more than a dozen.
pub(crate) const MAX_EBRS: usize = 128;

/// The bytes of an MBR table.
#[derive(Clone, Debug)]
pub(crate) struct RawMbr {
    /// Sector 0, whole.
    pub(crate) sector: Vec<u8>,
    /// The EBRs in the order of their chains.
    pub(crate) ebrs: Vec<RawEbr>,
}

/// One EBR.
#[derive(Clone, Debug)]
pub(crate) struct RawEbr {
    /// Its sector.
    pub(crate) lba: u64,
    /// Its bytes, a whole sector.
    pub(crate) sector: Vec<u8>,
    /// Number of the extended partition that it belongs to.
    pub(crate) extended: u32,
    /// Record that describes a logical partition, and that partition's number.
    pub(crate) data: Option<(usize, u32)>,
    /// Record that links to the next EBR, and that EBR's sector.
    pub(crate) link: Option<(usize, u64)>,
}

/// Reads the table whose sector 0 is given. An empty table is a table.
pub(crate) fn read(
    disk: &dyn Disk,
    sector: &[u8],
    record: &MasterBootRecord,
) -> Result<Option<Table>> {
    let sector_size = disk.sector_size();
    let disk_sectors = disk.len() / u64::from(sector_size);
    let disk_id = match record.unique_mbr_disk_signature.get() {
        0 => None,
        id => Some(format!("{id:08x}")),
    };
    let mut table = Table {
        kind: TableKind::Mbr,
        sector_size,
        disk_sectors,
        disk_id,
        partitions: Vec::new(),
        warnings: Vec::new(),
        raw: Raw::Mbr(RawMbr { sector: sector.to_vec(), ebrs: Vec::new() }),
    };
    for (entry, number) in record.partition_record.iter().zip(1..) {
        check_indicator(entry, number)?;
        if entry.is_unused() {
            continue;
        }
        let start = u64::from(entry.starting_lba.get());
        let size = u64::from(entry.size_in_lba.get());
        let role = if entry.is_extended() { Role::Extended } else { Role::Primary };
        let position = || format!("partition record {number}");
        if start == 0 {
            return Err(Error::corrupt(
                "MBR",
                position(),
                "the partition starts at sector 0, where the MBR itself is",
            ));
        }
        if start + size > disk_sectors {
            return Err(Error::corrupt(
                "MBR",
                position(),
                format!(
                    "the partition ends at sector {}, and the disk has {disk_sectors} sectors; \
                     the image is cut off or the disk too small",
                    start + size
                ),
            ));
        }
        table.partitions.push(partition(&table.disk_id, number, start, size, entry, role));
    }
    if let Some(pair) = find_overlap(table.partitions.iter()) {
        return Err(overlap_error("MBR", pair));
    }
    let extended: Vec<Partition> =
        table.partitions.iter().filter(|p| p.is_extended()).cloned().collect();
    let mut chain = Chain {
        disk,
        sector_size,
        ebrs: Vec::new(),
        visited: BTreeSet::new(),
        next_number: 5,
        logical: Vec::new(),
    };
    for container in &extended {
        chain.follow(container, &table.disk_id, &mut table.warnings)?;
    }
    if let Some(pair) = find_overlap(chain.logical.iter()) {
        return Err(overlap_error("EBR", pair));
    }
    table.partitions.append(&mut chain.logical);
    table.raw = Raw::Mbr(RawMbr { sector: sector.to_vec(), ebrs: chain.ebrs });
    Ok(Some(table))
}

/// The kernel and blkid both take a sector with another indicator for something else than an MBR.
fn check_indicator(entry: &PartitionRecord, number: u32) -> Result<()> {
    match entry.boot_indicator {
        0 | 0x80 => Ok(()),
        other => Err(Error::corrupt(
            "MBR",
            format!("partition record {number}"),
            format!("the boot indicator is 0x{other:02x}, expected 0x00 or 0x80"),
        )),
    }
}

fn partition(
    disk_id: &Option<String>,
    number: u32,
    start: u64,
    size: u64,
    entry: &PartitionRecord,
    role: Role,
) -> Partition {
    Partition {
        number,
        start,
        size,
        partition_type: PartitionType::Mbr(entry.os_type),
        guid: None,
        name: String::new(),
        partuuid: disk_id.as_ref().map(|id| format!("{id}-{number:02x}")),
        bootable: entry.boot_indicator == 0x80,
        attributes: 0,
        role,
    }
}

/// The walk along the EBRs.
struct Chain<'a> {
    disk: &'a dyn Disk,
    sector_size: u32,
    ebrs: Vec<RawEbr>,
    visited: BTreeSet<u64>,
    next_number: u32,
    logical: Vec<Partition>,
}

impl Chain<'_> {
    /// Follows the chain of one extended partition. A record's start counts from the EBR itself
    /// for a logical partition, from the extended partition for a link.
    fn follow(
        &mut self,
        container: &Partition,
        disk_id: &Option<String>,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let mut next = Some(container.start);
        while let Some(lba) = next {
            let position = format!("sector {lba}");
            let corrupt = |detail: String| Error::corrupt("EBR", position.clone(), detail);
            if !self.visited.insert(lba) {
                return Err(corrupt(
                    "the chain of logical partitions comes back to this sector".to_owned(),
                ));
            }
            if self.visited.len() > MAX_EBRS {
                return Err(corrupt(format!(
                    "the chain of logical partitions has more than {MAX_EBRS} links"
                )));
            }
            let offset = lba.saturating_mul(u64::from(self.sector_size));
            let sector = read_if_there(self.disk, offset, to_usize(self.sector_size))?
                .ok_or_else(|| corrupt("it lies beyond the end of the disk".to_owned()))?;
            let record = MasterBootRecord::of(&sector)
                .ok_or_else(|| corrupt("the sector is too short".to_owned()))?;
            let first = lba == container.start;
            if record.signature.get() != MBR_SIGNATURE {
                if first && sector.iter().all(|byte| *byte == 0) {
                    warnings.push(format!(
                        "the extended partition {} has no EBR and so no logical partitions",
                        container.number
                    ));
                    return Ok(());
                }
                return Err(corrupt(format!(
                    "the signature is 0x{:04x}, expected 0x{MBR_SIGNATURE:04x}",
                    record.signature.get()
                )));
            }
            let mut ebr =
                RawEbr { lba, sector, extended: container.number, data: None, link: None };
            // Records 3 and 4 are not used; some old systems left garbage there.
            for (slot, entry) in record.partition_record.iter().take(2).enumerate() {
                if entry.is_unused() {
                    continue;
                }
                let relative = u64::from(entry.starting_lba.get());
                let size = u64::from(entry.size_in_lba.get());
                if entry.is_extended() {
                    if ebr.link.is_some() {
                        return Err(corrupt("it has two links to a next EBR".to_owned()));
                    }
                    let target = container.start + relative;
                    if target >= container.end() {
                        return Err(corrupt(format!(
                            "it links to sector {target}, outside of the extended partition \
                             {} (sectors {} to {})",
                            container.number,
                            container.start,
                            container.end() - 1
                        )));
                    }
                    ebr.link = Some((slot, target));
                    continue;
                }
                if ebr.data.is_some() {
                    return Err(corrupt("it describes two logical partitions".to_owned()));
                }
                let start = lba + relative;
                if relative == 0 || start + size > container.end() {
                    return Err(corrupt(format!(
                        "its logical partition {} covers sectors {start} to {}, which is not \
                         within the rest of the extended partition {} (sectors {} to {})",
                        self.next_number,
                        start + size - 1,
                        container.number,
                        lba + 1,
                        container.end() - 1
                    )));
                }
                let number = self.next_number;
                self.next_number += 1;
                ebr.data = Some((slot, number));
                self.logical.push(partition(disk_id, number, start, size, entry, Role::Logical));
            }
            next = ebr.link.map(|(_, target)| target);
            self.ebrs.push(ebr);
        }
        self.check_ebrs()
    }

    /// No EBR may be in a logical partition: writing the one would destroy the other.
    fn check_ebrs(&self) -> Result<()> {
        for ebr in &self.ebrs {
            let hit = self.logical.iter().find(|p| p.start <= ebr.lba && ebr.lba < p.end());
            if let Some(partition) = hit {
                return Err(Error::corrupt(
                    "EBR",
                    format!("sector {}", ebr.lba),
                    format!("it lies within logical partition {}", partition.number),
                ));
            }
        }
        Ok(())
    }
}
