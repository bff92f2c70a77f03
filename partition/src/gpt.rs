//! Reading GUID partition tables.

use zerocopy::FromBytes;

use crate::disk::{Disk, read_bytes, read_if_there};
use crate::error::{Error, Result};
use crate::gpt_fault::{GptFault, MAX_ENTRY_ARRAY, MAX_ENTRY_SIZE};
use crate::guid::Guid;
use crate::layout::{GPT_SIGNATURE, GptEntry, GptHeader, MasterBootRecord, OS_TYPE_GPT_PROTECTIVE};
use crate::num::{to_u32, to_u64, to_usize};
use crate::table::{
    Partition, PartitionType, Raw, Role, Table, TableKind, find_overlap, overlap_error,
};

/// Attribute bit 2: bootable by a legacy BIOS.
const LEGACY_BIOS_BOOTABLE: u64 = 1 << 2;

/// The bytes of a GPT.
#[derive(Clone, Debug)]
pub(crate) struct RawGpt {
    /// The protective or hybrid MBR.
    pub(crate) mbr: MasterBootRecord,
    /// The copy that the table was read from.
    pub(crate) copy: GptCopy,
    /// Whether that is the primary one.
    pub(crate) from_primary: bool,
    /// Whether the other one is good, equal and at the end of the disk.
    pub(crate) backup_is_right: bool,
}

/// One of the two copies of a GPT.
#[derive(Clone, Debug)]
pub(crate) struct GptCopy {
    /// The header's fields.
    pub(crate) header: GptHeader,
    /// The header as it is on the disk, `header_size` bytes.
    pub(crate) header_bytes: Vec<u8>,
    /// The entry array.
    pub(crate) entries: Vec<u8>,
}

/// A copy, or why it is none.
type Attempt = std::result::Result<GptCopy, GptFault>;

/// The checksum of a header, whose own field counts as zero.
pub(crate) fn header_crc(header_bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let (before, rest) = header_bytes.split_at(header_bytes.len().min(16));
    hasher.update(before);
    hasher.update(&[0; 4]);
    hasher.update(rest.get(4..).unwrap_or(&[]));
    hasher.finalize()
}

/// Reads and checks the copy whose header is in sector `lba`.
fn read_copy(disk: &dyn Disk, sector_size: u32, lba: u64) -> Result<Attempt> {
    let unit = u64::from(sector_size);
    let disk_sectors = disk.len() / unit;
    let Some(sector) = read_if_there(disk, lba.saturating_mul(unit), to_usize(sector_size))? else {
        return Ok(Err(GptFault::BeyondEnd));
    };
    let Ok((header, _)) = GptHeader::read_from_prefix(&sector) else {
        return Ok(Err(GptFault::ShortSector));
    };
    if header.signature != GPT_SIGNATURE {
        return Ok(Err(GptFault::NoSignature));
    }
    let header_size = header.header_size.get();
    if header_size < to_u32(size_of::<GptHeader>()) || header_size > sector_size {
        return Ok(Err(GptFault::HeaderSize { found: header_size, sector_size }));
    }
    let header_bytes = sector[..to_usize(header_size)].to_vec();
    let (stored, computed) = (header.header_crc32.get(), header_crc(&header_bytes));
    if stored != computed {
        return Ok(Err(GptFault::HeaderChecksum { stored, computed }));
    }
    if header.my_lba.get() != lba {
        return Ok(Err(GptFault::OtherSector(header.my_lba.get())));
    }
    let entry_size = header.size_of_partition_entry.get();
    let count = header.number_of_partition_entries.get();
    if !(128..=MAX_ENTRY_SIZE).contains(&entry_size) || !entry_size.is_power_of_two() {
        return Ok(Err(GptFault::EntrySize(entry_size)));
    }
    let length = u64::from(count) * u64::from(entry_size);
    if count == 0 || length > MAX_ENTRY_ARRAY {
        return Ok(Err(GptFault::EntryCount { count, entry_size }));
    }
    let (first, last) = (header.first_usable_lba.get(), header.last_usable_lba.get());
    if first < 2 || first > last.saturating_add(1) || last == u64::MAX {
        return Ok(Err(GptFault::Usable { first, last }));
    }
    let array_start = header.partition_entry_lba.get();
    let array_sectors = length.div_ceil(unit);
    let array_end = array_start.saturating_add(array_sectors);
    if array_start < 2 || array_end > disk_sectors || (array_start <= lba && lba < array_end) {
        let (first, last) = (array_start, array_end - 1);
        return Ok(Err(GptFault::EntryPlace { first, last, disk_sectors }));
    }
    let entries = read_bytes(disk, array_start * unit, to_usize(length))?;
    let stored = header.partition_entry_array_crc32.get();
    let computed = crc32fast::hash(&entries);
    if stored != computed {
        return Ok(Err(GptFault::EntryChecksum { stored, computed }));
    }
    Ok(Ok(GptCopy { header, header_bytes, entries }))
}

/// The sector size with which a valid primary GPT is found.
pub(crate) fn has_primary(disk: &dyn Disk, sizes: &[u32; 2]) -> Result<Option<u32>> {
    for &sector_size in sizes {
        if read_copy(disk, sector_size, 1)?.is_ok() {
            return Ok(Some(sector_size));
        }
    }
    Ok(None)
}

/// Reads the table of a disk whose sector 0 is a protective or hybrid MBR.
pub(crate) fn read(disk: &dyn Disk, sizes: &[u32; 2], mbr: &MasterBootRecord) -> Result<Table> {
    let mut primary_reason = GptFault::NoSignature;
    for (i, &sector_size) in sizes.iter().enumerate() {
        match read_copy(disk, sector_size, 1)? {
            Ok(copy) => {
                let warnings = check_backup(disk, sector_size, &copy)?;
                return table(disk, sector_size, mbr, copy, true, warnings);
            }
            Err(reason) if i == 0 || primary_reason == GptFault::NoSignature => {
                primary_reason = reason;
            }
            Err(_) => {}
        }
    }
    let mut tried = Vec::new();
    for (i, &sector_size) in sizes.iter().enumerate() {
        for lba in backup_places(disk, sector_size, mbr) {
            match read_copy(disk, sector_size, lba)? {
                Ok(copy) => {
                    let warnings = vec![format!(
                        "the primary GPT in sector 1 is damaged ({primary_reason}); the backup in \
                         sector {lba} is used"
                    )];
                    return table(disk, sector_size, mbr, copy, false, warnings);
                }
                // Reasons for a sector size that is not the disk's own would only confuse.
                Err(reason) if i == 0 => tried.push(format!("sector {lba}: {reason}")),
                Err(_) => {}
            }
        }
    }
    Err(Error::corrupt(
        "GPT",
        "sector 1",
        format!(
            "{primary_reason}; and no valid backup was found ({}); repair the table with gdisk",
            tried.join("; ")
        ),
    ))
}

/// The places of a backup when the primary header cannot tell: in the last sector; or, when the
/// disk was enlarged, where the protective MBR says that the disk ended.
fn backup_places(disk: &dyn Disk, sector_size: u32, mbr: &MasterBootRecord) -> Vec<u64> {
    let mut places = Vec::new();
    let disk_sectors = disk.len() / u64::from(sector_size);
    if disk_sectors > 2 {
        places.push(disk_sectors - 1);
    }
    for entry in &mbr.partition_record {
        let lba = u64::from(entry.size_in_lba.get());
        if entry.os_type == OS_TYPE_GPT_PROTECTIVE
            && entry.starting_lba.get() == 1
            && lba > 1
            && lba < disk_sectors
            && !places.contains(&lba)
        {
            places.push(lba);
        }
    }
    places
}

/// The faults of the backup of a good primary copy.
fn check_backup(disk: &dyn Disk, sector_size: u32, primary: &GptCopy) -> Result<Vec<String>> {
    let lba = primary.header.alternate_lba.get();
    let last = (disk.len() / u64::from(sector_size)).saturating_sub(1);
    let mut warnings = Vec::new();
    match read_copy(disk, sector_size, lba)? {
        Err(reason) => {
            warnings.push(format!("the backup GPT in sector {lba} is damaged: {reason}"))
        }
        Ok(backup) if backup.entries != primary.entries => warnings
            .push(format!("the backup GPT in sector {lba} lists other partitions; it is ignored")),
        Ok(_) if lba != last => warnings.push(format!(
            "the backup GPT is in sector {lba} and not in the disk's last sector ({last})"
        )),
        Ok(_) => {}
    }
    Ok(warnings)
}

/// Makes the table of a checked copy.
fn table(
    disk: &dyn Disk,
    sector_size: u32,
    mbr: &MasterBootRecord,
    copy: GptCopy,
    from_primary: bool,
    mut warnings: Vec<String>,
) -> Result<Table> {
    let backup_is_right = from_primary && warnings.is_empty();
    let disk_sectors = disk.len() / u64::from(sector_size);
    let header = &copy.header;
    let entry_size = to_usize(header.size_of_partition_entry.get());
    let first_usable = header.first_usable_lba.get();
    let last_usable = header.last_usable_lba.get();
    let mut partitions = Vec::new();
    for (bytes, number) in copy.entries.chunks_exact(entry_size).zip(1..) {
        let Ok((entry, _)) = GptEntry::read_from_prefix(bytes) else { continue };
        let type_guid = Guid(entry.partition_type_guid);
        if type_guid.is_zero() {
            continue;
        }
        let (start, end) = (entry.starting_lba.get(), entry.ending_lba.get());
        let position = || format!("partition entry {number}");
        if start > end || end >= disk_sectors {
            // A table that goes on after the end of the disk is that of a longer one.
            let cut = match start <= end && end <= last_usable {
                true => {
                    let sectors = (last_usable - disk_sectors).saturating_add(1);
                    let missing = sectors.div_ceil((1 << 20) / u64::from(sector_size));
                    format!(
                        "; {missing} MiB or more are missing at its end: was a download or copy cut?"
                    )
                }
                false => String::new(),
            };
            return Err(Error::corrupt(
                "GPT",
                position(),
                format!(
                    "the partition covers sectors {start} to {end}, and the disk has \
                     {disk_sectors} sectors{cut}"
                ),
            ));
        }
        let array_start = header.partition_entry_lba.get();
        let array_end = array_start + to_u64(copy.entries.len()).div_ceil(u64::from(sector_size));
        if start < 2 || (start < array_end && array_start <= end) {
            return Err(Error::corrupt(
                "GPT",
                position(),
                format!("the partition (sectors {start} to {end}) covers the table itself"),
            ));
        }
        if start < first_usable || end > last_usable {
            warnings.push(format!(
                "GPT partition {number} (sectors {start} to {end}) is not within the usable \
                 sectors {first_usable} to {last_usable}"
            ));
        }
        let guid = Guid(entry.unique_partition_guid);
        let units: Vec<u16> =
            entry.partition_name.iter().map(|unit| unit.get()).take_while(|u| *u != 0).collect();
        let attributes = entry.attributes.get();
        partitions.push(Partition {
            number,
            start,
            size: end - start + 1,
            partition_type: PartitionType::Gpt(type_guid),
            guid: Some(guid),
            name: String::from_utf16_lossy(&units),
            partuuid: Some(guid.to_string()),
            bootable: attributes & LEGACY_BIOS_BOOTABLE != 0,
            attributes,
            role: Role::Primary,
        });
    }
    if let Some(pair) = find_overlap(partitions.iter()) {
        return Err(overlap_error("GPT", pair));
    }
    Ok(Table {
        kind: TableKind::Gpt,
        sector_size,
        disk_sectors,
        disk_id: Some(Guid(header.disk_guid).to_string()),
        partitions,
        warnings,
        raw: Raw::Gpt(RawGpt { mbr: *mbr, copy, from_primary, backup_is_right }),
    })
}
