//! Planning changes of a GPT.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, Result};
use crate::gpt::{GptCopy, RawGpt, header_crc};
use crate::grow::{Layout, SwapLayout};
use crate::guid::Guid;
use crate::layout::{GptEntry, GptHeader, MasterBootRecord, OS_TYPE_GPT_PROTECTIVE};
use crate::mbr_grow::chs;
use crate::num::{to_u64, to_usize};
use crate::plan::{Change, Plan, Write};
use crate::table::{Partition, PartitionType, Role, Table};
use crate::types::GPT_LINUX_SWAP;

/// The name that an added swap partition gets.
const SWAP_NAME: &str = "Linux swap";

/// Sectors that the entry array takes.
fn array_sectors(table: &Table, raw: &RawGpt) -> u64 {
    to_u64(raw.copy.entries.len()).div_ceil(u64::from(table.sector_size))
}

/// The last usable sector once the backup is at the end of the disk.
pub(crate) fn last_usable(table: &Table, raw: &RawGpt) -> Result<u64> {
    let last = table.disk_sectors.checked_sub(2 + array_sectors(table, raw));
    let end = table.partitions.iter().map(Partition::end).max().unwrap_or(0);
    let first = raw.copy.header.first_usable_lba.get();
    match last {
        Some(last) if last + 1 >= end && last >= first => Ok(last),
        _ => Err(Error::Invalid(format!(
            "the backup GPT must be at the end of the disk ({} sectors), and the partitions reach \
             to sector {}, so that it has no room; make the disk larger",
            table.disk_sectors,
            end.max(first)
        ))),
    }
}

/// The change as bytes.
pub(crate) fn plan(table: &Table, raw: &RawGpt, layout: Layout) -> Result<Plan> {
    let mut partitions = table.partitions.clone();
    let mut changes = Vec::new();
    let mut entries = raw.copy.entries.clone();
    let entry_size = to_usize(raw.copy.header.size_of_partition_entry.get());
    let mut mirrored = Vec::new();
    if let Some((number, end)) = layout.last
        && let Some(partition) = partitions.iter_mut().find(|p| p.number == number)
    {
        let before = partition.clone();
        partition.size = end - partition.start;
        let entry = slot(&mut entries, entry_size, number)?;
        // Only the 8 bytes of ending_lba change.
        entry[40..48].copy_from_slice(&(end - 1).to_le_bytes());
        changes.push(Change::Resize { before: before.clone(), after: partition.clone() });
        mirrored.push((before, partition.clone()));
    }
    if let Some(shift) = &layout.shift {
        for partition in partitions.iter_mut().filter(|p| shift.moves(p.number)) {
            let before = partition.clone();
            partition.start += shift.delta;
            let entry = slot(&mut entries, entry_size, partition.number)?;
            // starting_lba and ending_lba.
            entry[32..40].copy_from_slice(&partition.start.to_le_bytes());
            entry[40..48].copy_from_slice(&(partition.end() - 1).to_le_bytes());
            changes.push(Change::Move { before: before.clone(), after: partition.clone() });
            mirrored.push((before, partition.clone()));
        }
    }
    if let Some(swap) = layout.swap {
        let partition = add_swap(slot(&mut entries, entry_size, swap.number)?, &swap)?;
        changes.push(Change::Add(partition.clone()));
        partitions.push(partition);
        partitions.sort_by_key(|p| p.number);
    }

    let last_lba = table.disk_sectors - 1;
    let header = &raw.copy.header;
    let primary_array = if raw.from_primary {
        header.partition_entry_lba.get()
    } else {
        restored_array(table, raw)?
    };
    let array_end = primary_array.saturating_add(array_sectors(table, raw));
    let touched = layout.last.map(|(number, _)| number).into_iter();
    let touched = touched.chain(layout.swap.map(|swap| swap.number));
    for partition in touched.filter_map(|n| partitions.iter().find(|p| p.number == n)) {
        if partition.start < array_end {
            return Err(Error::Invalid(format!(
                "partition {} cannot use the space after it, because the GPT's entries are there \
                 (sectors {primary_array} to {}); move them to sector 2 with sgdisk -j 2",
                partition.number,
                array_end - 1
            )));
        }
    }
    let backup_array = last_lba - array_sectors(table, raw);
    let fields = Fields { last_lba, last_usable: last_usable(table, raw)?, entries: &entries };
    let primary = fields.header(&raw.copy, 1, primary_array);
    let backup = fields.header(&raw.copy, last_lba, backup_array);
    let unit = u64::from(table.sector_size);
    let primary_changes = !raw.from_primary || primary != raw.copy.header_bytes;
    let backup_changes = !raw.backup_is_right || primary_changes;

    let write = |header: Vec<u8>, lba: u64, array: u64| -> Vec<Write> {
        let mut sector = vec![0; to_usize(unit)];
        sector[..header.len()].copy_from_slice(&header);
        vec![(array * unit, entries.clone()), (lba * unit, sector)]
    };
    let mut stages = Vec::new();
    if backup_changes {
        stages.push(write(backup, last_lba, backup_array));
        let from = if raw.from_primary { header.alternate_lba.get() } else { header.my_lba.get() };
        changes.push(Change::WriteBackup { from, to: last_lba });
    }
    if primary_changes {
        stages.push(write(primary, 1, primary_array));
    }
    if !raw.from_primary {
        // The copy that the table was read from is overwritten last.
        stages.reverse();
        changes.push(Change::RestorePrimary);
    }
    let mbr = fix_mbr(&raw.mbr, table.disk_sectors, &mirrored);
    if mbr.as_bytes() != raw.mbr.as_bytes() {
        stages.push(vec![(0, mbr.as_bytes().to_vec())]);
        changes.push(Change::FixProtectiveMbr);
    }
    Ok(Plan {
        sector_size: table.sector_size,
        partitions,
        changes,
        stages,
        notes: layout.notes,
        moves: Vec::new(),
        obstacle: None,
    })
}

/// The entry of a partition number.
fn slot(entries: &mut [u8], entry_size: usize, number: u32) -> Result<&mut [u8]> {
    let count = entries.len() / entry_size;
    let index = to_usize(number).checked_sub(1);
    index
        .filter(|index| *index < count)
        .and_then(|index| entries.get_mut(index * entry_size..(index + 1) * entry_size))
        .ok_or_else(|| {
            Error::Invalid(format!(
                "SWAP asks for partition {number}, and this GPT has room for partitions 1 to {count}"
            ))
        })
}

fn add_swap(entry: &mut [u8], swap: &SwapLayout) -> Result<Partition> {
    let type_guid: Guid = GPT_LINUX_SWAP.parse().map_err(Error::Invalid)?;
    let mut name = [U16::new(0); 36];
    for (unit, value) in name.iter_mut().zip(SWAP_NAME.encode_utf16()) {
        *unit = U16::new(value);
    }
    let new = GptEntry {
        partition_type_guid: type_guid.0,
        unique_partition_guid: swap.guid.0,
        starting_lba: U64::new(swap.start),
        ending_lba: U64::new(swap.start + swap.size - 1),
        attributes: U64::new(0),
        partition_name: name,
    };
    entry.fill(0);
    entry[..size_of::<GptEntry>()].copy_from_slice(new.as_bytes());
    Ok(Partition {
        number: swap.number,
        start: swap.start,
        size: swap.size,
        partition_type: PartitionType::Gpt(type_guid),
        guid: Some(swap.guid),
        name: SWAP_NAME.to_owned(),
        partuuid: Some(swap.guid.to_string()),
        bootable: false,
        attributes: 0,
        role: Role::Primary,
    })
}

/// The place of the entries of a primary GPT whose header is lost: the usual one, if that is free.
fn restored_array(table: &Table, raw: &RawGpt) -> Result<u64> {
    let end = 2 + array_sectors(table, raw);
    let first = table.partitions.iter().map(|p| p.start).min().unwrap_or(u64::MAX);
    if first >= end && raw.copy.header.first_usable_lba.get() >= end {
        return Ok(2);
    }
    Err(Error::Invalid(format!(
        "the primary GPT is damaged and cannot be restored from the backup, because its usual \
         place (sectors 1 to {}) is in use; repair the table with gdisk",
        end - 1
    )))
}

/// The fields that both headers have in common.
struct Fields<'a> {
    last_lba: u64,
    last_usable: u64,
    entries: &'a [u8],
}

impl Fields<'_> {
    /// The header for the copy in sector `my_lba`; bytes that this crate does not know stay.
    fn header(&self, copy: &GptCopy, my_lba: u64, array: u64) -> Vec<u8> {
        let mut bytes = copy.header_bytes.clone();
        let Ok((header, _)) = GptHeader::mut_from_prefix(&mut bytes) else { return bytes };
        header.my_lba = U64::new(my_lba);
        header.alternate_lba = U64::new(if my_lba == 1 { self.last_lba } else { 1 });
        header.last_usable_lba = U64::new(self.last_usable);
        header.partition_entry_lba = U64::new(array);
        header.partition_entry_array_crc32 = U32::new(crc32fast::hash(self.entries));
        let crc = header_crc(&bytes);
        if let Ok((header, _)) = GptHeader::mut_from_prefix(&mut bytes) {
            header.header_crc32 = U32::new(crc);
        }
        bytes
    }
}

/// The MBR beside the GPT: a protective record alone covers the whole disk. In a hybrid MBR the
/// protective record is somebody's choice and stays, and a record that mirrors a partition that
/// grows or moves goes with it.
fn fix_mbr(
    old: &MasterBootRecord,
    disk_sectors: u64,
    mirrored: &[(Partition, Partition)],
) -> MasterBootRecord {
    let mut mbr = *old;
    let hybrid =
        mbr.partition_record.iter().any(|r| r.os_type != OS_TYPE_GPT_PROTECTIVE && !r.is_unused());
    for record in &mut mbr.partition_record {
        let (old_start, old_size) =
            (u64::from(record.starting_lba.get()), u64::from(record.size_in_lba.get()));
        let (start, size) = if record.os_type == OS_TYPE_GPT_PROTECTIVE {
            if hybrid || old_start != 1 {
                continue;
            }
            (1, u32::try_from(disk_sectors - 1).unwrap_or(u32::MAX))
        } else {
            let mirror = mirrored.iter().find(|(p, _)| (p.start, p.size) == (old_start, old_size));
            let Some((_, after)) = mirror else { continue };
            match (u32::try_from(after.start), u32::try_from(after.size)) {
                (Ok(start), Ok(size)) => (start, size),
                _ => continue,
            }
        };
        if u64::from(start) != old_start {
            record.starting_lba = U32::new(start);
            record.starting_chs = chs(u64::from(start));
        } else if u64::from(size) == old_size {
            continue;
        }
        record.size_in_lba = U32::new(size);
        let end = u64::from(start) + u64::from(size) - 1;
        record.ending_chs = match chs(end) {
            // For "does not fit" the specification wants ff ff ff here, most tools write fe.
            [0xfe, 0xff, 0xff] if record.os_type == OS_TYPE_GPT_PROTECTIVE => {
                if record.ending_chs == [0xfe, 0xff, 0xff] { record.ending_chs } else { [0xff; 3] }
            }
            other => other,
        };
    }
    mbr
}
