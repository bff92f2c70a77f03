//! The table as the rest of the program sees it, and the decision which kind a disk has.

use std::fmt;

use crate::bare;
use crate::disk::{Disk, read_bytes};
use crate::error::{Error, Result};
use crate::gpt::{self, RawGpt};
use crate::guid::Guid;
use crate::layout::{MBR_SIGNATURE, MasterBootRecord, OS_TYPE_GPT_PROTECTIVE};
use crate::mbr::{self, RawMbr};
use crate::num::to_usize;
use crate::types;

/// The kind of a partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableKind {
    /// Master boot record, with or without logical partitions.
    Mbr,
    /// GUID partition table.
    Gpt,
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mbr => "MBR",
            Self::Gpt => "GPT",
        })
    }
}

/// The purpose of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartitionType {
    /// The type byte of an MBR record.
    Mbr(u8),
    /// The type GUID of a GPT entry.
    Gpt(Guid),
}

impl PartitionType {
    /// The type's name for people, where this crate knows it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Mbr(os_type) => types::mbr_name(os_type),
            Self::Gpt(guid) => types::gpt_name(&guid.to_string()),
        }
    }

    /// Whether the type says Linux swap.
    pub fn is_linux_swap(self) -> bool {
        match self {
            Self::Mbr(os_type) => os_type == types::MBR_LINUX_SWAP,
            Self::Gpt(guid) => guid.to_string() == types::GPT_LINUX_SWAP,
        }
    }
}

impl fmt::Display for PartitionType {
    /// `0x83 (Linux)`, or the GUID and its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mbr(os_type) => write!(f, "0x{os_type:02x}")?,
            Self::Gpt(guid) => write!(f, "{guid}")?,
        }
        match self.name() {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// The place of a partition in the table's structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A GPT entry or one of the four MBR records.
    Primary,
    /// An MBR record that contains the logical partitions. It holds no file system.
    Extended,
    /// In an extended partition; numbers from 5.
    Logical,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The number that the kernel gives it (`sda2`: 2).
    pub number: u32,
    /// First sector.
    pub start: u64,
    /// Length in sectors; never 0.
    pub size: u64,
    /// Its purpose.
    pub partition_type: PartitionType,
    /// GPT's unique GUID.
    pub guid: Option<Guid>,
    /// GPT's name (`PARTLABEL`), empty elsewhere. It comes from the image: escape it before it
    /// goes into a log.
    pub name: String,
    /// `PARTUUID` as `blkid` prints it; an MBR without a disk identifier has none.
    pub partuuid: Option<String>,
    /// MBR: the active flag. GPT: the legacy BIOS bootable attribute.
    pub bootable: bool,
    /// GPT's attribute bits; 0 for an MBR.
    pub attributes: u64,
    /// Its place in the structure.
    pub role: Role,
}

impl Partition {
    /// The sector after the last one.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Whether it is in an extended partition.
    pub fn is_logical(&self) -> bool {
        self.role == Role::Logical
    }

    /// Whether it is a container of logical partitions and so cannot hold a file system.
    pub fn is_extended(&self) -> bool {
        self.role == Role::Extended
    }
}

/// A partition table that was read and found consistent.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its kind.
    pub kind: TableKind,
    /// The sector size that the table counts in.
    pub sector_size: u32,
    /// Size of the disk in such sectors.
    pub disk_sectors: u64,
    /// The disk's identifier as `blkid` prints `PTUUID`: eight hexadecimal digits or a GUID;
    /// `None` for an MBR whose identifier is 0.
    pub disk_id: Option<String>,
    /// All partitions by number, extended ones included.
    pub partitions: Vec<Partition>,
    /// Faults that do no harm to reading: a backup GPT that does not match,
    /// for example. One sentence each.
    pub warnings: Vec<String>,
    /// The table's own bytes.
    pub(crate) raw: Raw,
}

/// The bytes that a change starts from.
#[derive(Clone, Debug)]
pub(crate) enum Raw {
    /// Of an MBR.
    Mbr(RawMbr),
    /// Of a GPT.
    Gpt(RawGpt),
}

impl Table {
    /// The partition with a number.
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.number == number)
    }

    /// The partition that is last on the disk and can hold data: extended partitions do not
    /// count.
    pub fn last_by_position(&self) -> Option<&Partition> {
        self.partitions.iter().filter(|p| !p.is_extended()).max_by_key(|p| p.start)
    }

    /// First byte and length in bytes of a partition of this table.
    pub fn byte_range(&self, partition: &Partition) -> (u64, u64) {
        let sector_size = u64::from(self.sector_size);
        (partition.start.saturating_mul(sector_size), partition.size.saturating_mul(sector_size))
    }
}

/// Sector sizes that tables are looked for in: the disk's own first, then, because an image file
/// does not say what disk it was copied from, the other common one.
pub(crate) fn candidate_sector_sizes(disk: &dyn Disk) -> Result<[u32; 2]> {
    match disk.sector_size() {
        512 => Ok([512, 4096]),
        own @ (1024 | 2048 | 4096) => Ok([own, 512]),
        other => Err(Error::Unsupported {
            what: format!("a disk with sectors of {other} bytes"),
            remedy: "512, 1024, 2048 and 4096 are".to_owned(),
        }),
    }
}

/// Reads the partition table of a disk. `None`: there is none, as on a disk that is empty or
/// holds a bare file system.
///
/// A boot sector of a file system also ends in 55 AA. It is taken for an MBR only if its four
/// records make sense as partitions of this disk and at least one is in use; or, when all four
/// are empty, if no file system is seen to begin at the first byte.
///
/// # Errors
/// [`Error::Corrupt`] and [`Error::Unsupported`] where there is a table that cannot be used,
/// [`Error::Io`] where the disk fails.
pub fn read(disk: &dyn Disk) -> Result<Option<Table>> {
    let sizes = candidate_sector_sizes(disk)?;
    if disk.len() < 2 * u64::from(sizes[0]) {
        return Ok(None);
    }
    let sector = read_bytes(disk, 0, to_usize(sizes[0]))?;
    let Some(record) = MasterBootRecord::of(&sector) else { return Ok(None) };
    if record.signature.get() != MBR_SIGNATURE {
        return without_signature(disk, &sizes);
    }
    let protective = record
        .partition_record
        .iter()
        .any(|entry| entry.os_type == OS_TYPE_GPT_PROTECTIVE && entry.starting_lba.get() == 1);
    let table = if protective {
        gpt::read(disk, &sizes, &record).map(Some)
    } else {
        mbr::read(disk, &sector, &record)
    };
    match table {
        // Records that make no sense are the code or text of a file system's boot sector.
        Err(Error::Corrupt { .. }) if bare::file_system(disk)?.is_some() => Ok(None),
        Ok(Some(table)) if table.partitions.is_empty() && table.kind == TableKind::Mbr => {
            Ok(if bare::file_system(disk)?.is_some() { None } else { Some(table) })
        }
        other => other,
    }
}

/// No 55 AA: no table, unless a GPT has lost its protective MBR, which firmware and kernel would
/// not take for a table either.
fn without_signature(disk: &dyn Disk, sizes: &[u32; 2]) -> Result<Option<Table>> {
    if bare::file_system(disk)?.is_some() {
        return Ok(None);
    }
    match gpt::has_primary(disk, sizes)? {
        Some(sector_size) => Err(Error::corrupt(
            "protective MBR",
            "sector 0",
            format!(
                "its signature 55 AA is missing, while there is a valid GPT header in sector 1 \
                 (sectors of {sector_size} bytes); write a protective MBR with gdisk, or wipe the \
                 disk's first sectors if the GPT is a leftover"
            ),
        )),
        None => Ok(None),
    }
}

/// Finds two partitions that share a sector. `partitions` may be in any order.
pub(crate) fn find_overlap<'a>(
    partitions: impl Iterator<Item = &'a Partition>,
) -> Option<(&'a Partition, &'a Partition)> {
    let mut sorted: Vec<&Partition> = partitions.collect();
    sorted.sort_by_key(|partition| (partition.start, partition.number));
    sorted.windows(2).find(|pair| pair[1].start < pair[0].end()).map(|pair| (pair[0], pair[1]))
}

/// The error for [`find_overlap`].
pub(crate) fn overlap_error(structure: &'static str, pair: (&Partition, &Partition)) -> Error {
    let (a, b) = pair;
    Error::corrupt(
        structure,
        format!("partition {}", b.number),
        format!(
            "it covers sectors {} to {}, which overlaps partition {} (sectors {} to {})",
            b.start,
            b.end() - 1,
            a.number,
            a.start,
            a.end() - 1
        ),
    )
}
