//! Why a sector holds no copy of a GPT.

use crate::layout::GptHeader;

/// Largest entry array that is read. 128 entries of 128 bytes (16 KiB) are usual; this is 64
/// times as much.
pub(crate) const MAX_ENTRY_ARRAY: u64 = 1 << 20;
/// Largest entry. The specification allows any power of two from 128.
pub(crate) const MAX_ENTRY_SIZE: u32 = 4096;

/// The fault of a copy, as it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GptFault {
    /// The sector does not exist.
    #[error("it lies beyond the end of the disk")]
    BeyondEnd,
    /// A header does not fit into the sector.
    #[error("the sector is too short")]
    ShortSector,
    /// Something else is there.
    #[error("there is no signature \"EFI PART\"")]
    NoSignature,
    /// The size of the header.
    #[error(
        "the header size is {found}, expected {} to {sector_size}",
        size_of::<GptHeader>()
    )]
    HeaderSize { found: u32, sector_size: u32 },
    /// The checksum of the header.
    #[error("the header's checksum is {stored:08x}, its content gives {computed:08x}")]
    HeaderChecksum { stored: u32, computed: u32 },
    /// A header that was copied here.
    #[error("the header says that it is in sector {0}")]
    OtherSector(u64),
    /// The size of an entry.
    #[error("an entry has {0} bytes, expected a power of two from 128 to {MAX_ENTRY_SIZE}")]
    EntrySize(u32),
    /// The number of entries.
    #[error(
        "it has {count} entries of {entry_size} bytes, expected 1 entry to {MAX_ENTRY_ARRAY} \
         bytes in all"
    )]
    EntryCount { count: u32, entry_size: u32 },
    /// The sectors for partitions.
    #[error("the usable sectors are {first} to {last}")]
    Usable { first: u64, last: u64 },
    /// The place of the entries.
    #[error(
        "the entries would be in sectors {first} to {last}, on the disk's {disk_sectors} sectors"
    )]
    EntryPlace { first: u64, last: u64, disk_sectors: u64 },
    /// The checksum of the entries.
    #[error("the entries' checksum is {stored:08x}, their content gives {computed:08x}")]
    EntryChecksum { stored: u32, computed: u32 },
}
