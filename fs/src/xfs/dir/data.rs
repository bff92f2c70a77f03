//! Blocks that hold the entries of a directory.

use crate::error::Result;
use crate::filesystem::FileType;
use crate::num::{to_u8, to_u16, to_u32, to_usize};
use crate::xfs::da::Place;
use crate::xfs::num;
use crate::xfs::store::{BufferType, Bytes};
use crate::xfs::units::{Daddr, Ino};
use crate::xfs::volume::Volume;

const XFS_DIR2_BLOCK_MAGIC: u32 = 0x5844_3242;
const XFS_DIR3_BLOCK_MAGIC: u32 = 0x5844_4233;
const XFS_DIR2_DATA_MAGIC: u32 = 0x5844_3244;
const XFS_DIR3_DATA_MAGIC: u32 = 0x5844_4433;
const UNUSED: u16 = 0xFFFF;

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) ino: Ino,
    pub(crate) file_type: Option<FileType>,
}

/// An entry, and the byte in its block where it is.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) at: usize,
    pub(super) entry: Entry,
}

/// The number of a type in an entry.
pub(super) fn type_number(file_type: Option<FileType>) -> u8 {
    match file_type {
        Some(FileType::Regular) => 1,
        Some(FileType::Directory) => 2,
        Some(FileType::CharDevice) => 3,
        Some(FileType::BlockDevice) => 4,
        Some(FileType::Fifo) => 5,
        Some(FileType::Socket) => 6,
        Some(FileType::Symlink) => 7,
        None => 0,
    }
}

/// The type of a number; `None` for "unknown" and for numbers that are none.
pub(super) fn type_of(number: u8) -> Option<FileType> {
    Some(match number {
        1 => FileType::Regular,
        2 => FileType::Directory,
        3 => FileType::CharDevice,
        4 => FileType::BlockDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        7 => FileType::Symlink,
        _ => return None,
    })
}

/// Whether the bytes are a directory's only block.
pub(super) fn is_single(bytes: &[u8]) -> bool {
    matches!(num::be32(bytes, 0), XFS_DIR2_BLOCK_MAGIC | XFS_DIR3_BLOCK_MAGIC)
}

/// The free places between entries: byte and length.
fn gaps(volume: &Volume, items: &[Item], end: usize) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut next = volume.dir_data_header();
    for item in items {
        if item.at > next {
            out.push((next, item.at - next));
        }
        next = item.at + volume.dir_entry_size(item.entry.name.len());
    }
    if next < end {
        out.push((next, end - next));
    }
    out
}

impl Volume {
    /// Bytes before the entries.
    pub(super) fn dir_data_header(&self) -> usize {
        if self.sb.is_v5() { 64 } else { 16 }
    }

    /// Bytes that an entry takes.
    pub(super) fn dir_entry_size(&self, name: usize) -> usize {
        (11 + name + usize::from(self.sb.has_ftype())).next_multiple_of(8)
    }

    /// All entries of a data block, in order, `.` and `..` among them.
    pub(super) fn dir_items(&self, place: Place<'_>, bytes: &[u8]) -> Result<Vec<Item>> {
        let wrong = |at: usize, detail: &str| {
            place.corrupt("directory block", format!("byte {at}: {detail}"))
        };
        let v5 = self.sb.is_v5();
        let single = is_single(bytes);
        let magic = match (v5, single) {
            (true, true) => XFS_DIR3_BLOCK_MAGIC,
            (true, false) => XFS_DIR3_DATA_MAGIC,
            (false, true) => XFS_DIR2_BLOCK_MAGIC,
            (false, false) => XFS_DIR2_DATA_MAGIC,
        };
        if num::be32(bytes, 0) != magic {
            return Err(wrong(0, "its magic number is wrong"));
        }
        let mut end = bytes.len();
        if single {
            let leaves = to_usize(num::be32(bytes, bytes.len() - 8));
            end = leaves
                .checked_mul(8)
                .and_then(|leaves| end.checked_sub(8 + leaves))
                .ok_or_else(|| wrong(end - 8, "its count of entries is impossible"))?;
        }
        let mut items = Vec::new();
        let mut at = self.dir_data_header();
        while at < end {
            if num::be16(bytes, at) == UNUSED {
                let length = usize::from(num::be16(bytes, at + 2));
                if length == 0 || length % 8 != 0 || length > end - at {
                    return Err(wrong(at, "a free place of impossible length"));
                }
                at += length;
                continue;
            }
            let length = usize::from(bytes.get(at + 8).copied().unwrap_or(0));
            let size = self.dir_entry_size(length);
            if length == 0 || size > end - at {
                return Err(wrong(at, "an entry that does not fit"));
            }
            if usize::from(num::be16(bytes, at + size - 2)) != at {
                return Err(wrong(at, "the tag of an entry is wrong"));
            }
            let name = bytes[at + 9..at + 9 + length].to_vec();
            if name.contains(&0) || name.contains(&b'/') {
                return Err(wrong(at, "a name with a zero or a slash"));
            }
            let ino = Ino(num::be64(bytes, at));
            if !self.sb.is_inode(ino) {
                return Err(wrong(at, "it names an inode that cannot be"));
            }
            let file_type =
                if self.sb.has_ftype() { type_of(bytes[at + 9 + length]) } else { None };
            items.push(Item { at, entry: Entry { name, ino, file_type } });
            at += size;
        }
        Ok(items)
    }

    /// Reads a data block; `None` in a hole.
    pub(super) fn dir_data(&self, place: Place<'_>) -> Result<Option<Bytes>> {
        self.da_read(place, "directory block", false)
    }

    /// The largest free place of a block with these entries.
    pub(super) fn dir_best(&self, items: &[Item]) -> usize {
        let gaps = gaps(self, items, self.sb.dir_block_size());
        gaps.iter().map(|(_, length)| *length).max().unwrap_or(0)
    }

    /// The first free place of `size` bytes.
    pub(super) fn dir_gap(&self, items: &[Item], size: usize) -> Option<usize> {
        let gaps = gaps(self, items, self.sb.dir_block_size());
        gaps.iter().find(|(_, length)| *length >= size).map(|(at, _)| *at)
    }

    /// Puts entries one after the other, from the block's start.
    pub(super) fn dir_pack(&self, entries: impl Iterator<Item = Entry>) -> (Vec<Item>, usize) {
        let mut at = self.dir_data_header();
        let mut items = Vec::new();
        for entry in entries {
            let size = self.dir_entry_size(entry.name.len());
            items.push(Item { at, entry });
            at += size;
        }
        (items, at)
    }

    /// Writes a data block; as the directory's only block it also has the index.
    pub(super) fn dir_write_data(
        &mut self,
        place: Place<'_>,
        at: Daddr,
        items: &[Item],
        single: bool,
    ) -> Result<()> {
        let magic = if single { XFS_DIR3_BLOCK_MAGIC } else { XFS_DIR3_DATA_MAGIC };
        let mut bytes = self.da_block(place, at, magic);
        let mut end = bytes.len();
        if single {
            end -= 8 + items.len() * 8;
            num::put32(&mut bytes, self.sb.dir_block_size() - 8, to_u32(items.len()));
            let mut index: Vec<(u32, u32)> = items
                .iter()
                .map(|item| (num::hash(&item.entry.name), to_u32(item.at / 8)))
                .collect();
            index.sort_unstable();
            for (n, (hash, address)) in index.iter().enumerate() {
                num::put32(&mut bytes, end + n * 8, *hash);
                num::put32(&mut bytes, end + n * 8 + 4, *address);
            }
        }
        for item in items {
            let entry = &item.entry;
            num::put64(&mut bytes, item.at, entry.ino.0);
            bytes[item.at + 8] = to_u8(entry.name.len());
            num::put(&mut bytes, item.at + 9, &entry.name);
            if self.sb.has_ftype() {
                bytes[item.at + 9 + entry.name.len()] = type_number(entry.file_type);
            }
            let size = self.dir_entry_size(entry.name.len());
            num::put16(&mut bytes, item.at + size - 2, to_u16(item.at));
        }
        let mut free = gaps(self, items, end);
        for &(start, length) in &free {
            num::put16(&mut bytes, start, UNUSED);
            num::put16(&mut bytes, start + 2, to_u16(length));
            num::put16(&mut bytes, start + length - 2, to_u16(start));
        }
        // The three largest, the first of equal ones first.
        free.sort_by_key(|(_, length)| std::cmp::Reverse(*length));
        for (n, (start, length)) in free.iter().take(3).enumerate() {
            num::put16(&mut bytes, 48 + n * 4, to_u16(*start));
            num::put16(&mut bytes, 50 + n * 4, to_u16(*length));
        }
        let buffer_type = if single { BufferType::DirBlock } else { BufferType::DirData };
        self.da_write(at, buffer_type, bytes, false)
    }
}
