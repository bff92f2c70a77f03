//! Directories in their inode.

use super::data::{Entry, type_number, type_of};
use crate::error::{Error, Result};
use crate::num::{low32, to_u8, to_u16, to_usize};
use crate::xfs::inode::{Fork, Inode};
use crate::xfs::num;
use crate::xfs::units::Ino;
use crate::xfs::volume::Volume;

/// The parent, and the entries without `.` and `..`.
pub(super) fn parse(volume: &Volume, inode: &Inode) -> Result<(Ino, Vec<Entry>)> {
    let wrong = |detail: &str| {
        Error::corrupt("directory in its inode", format!("inode {}", inode.ino), detail)
    };
    // The size was checked with the inode.
    let bytes = &inode.fork(Fork::Data)[..to_usize(inode.size())];
    let (Some(&count), Some(&large)) = (bytes.first(), bytes.get(1)) else {
        return Err(wrong("it is too short"));
    };
    let wide = if large > 0 { 8 } else { 4 };
    let number = |at: usize| {
        Ino(if wide == 8 {
            num::be64(bytes, at) & ((1 << 56) - 1)
        } else {
            num::be32(bytes, at).into()
        })
    };
    let parent = number(2);
    let ftype = usize::from(volume.sb.has_ftype());
    let mut at = 2 + wide;
    let mut entries = Vec::with_capacity(count.into());
    for _ in 0..count {
        let length = usize::from(bytes.get(at).copied().unwrap_or(0));
        let name = bytes.get(at + 3..at + 3 + length).unwrap_or_default();
        let end = at + 3 + length + ftype + wide;
        if name.is_empty() || end > bytes.len() || name.contains(&0) || name.contains(&b'/') {
            return Err(wrong("an entry does not fit, or its name is impossible"));
        }
        let ino = number(end - wide);
        if !volume.sb.is_inode(ino) {
            return Err(wrong("it names an inode that cannot be"));
        }
        let file_type = if ftype == 1 { type_of(bytes[at + 3 + length]) } else { None };
        entries.push(Entry { name: name.to_vec(), ino, file_type });
        at = end;
    }
    if at != bytes.len() || !volume.sb.is_inode(parent) {
        return Err(wrong("its size or its parent is impossible"));
    }
    Ok((parent, entries))
}

/// The bytes of a directory in its inode; `None` when it is too large for `room`.
pub(super) fn build(
    volume: &Volume,
    parent: Ino,
    entries: &[Entry],
    room: usize,
) -> Option<Vec<u8>> {
    let large = |ino: Ino| ino.0 > u32::MAX.into();
    let count =
        entries.iter().filter(|entry| large(entry.ino)).count() + usize::from(large(parent));
    let wide = count > 0;
    let mut bytes = vec![u8::try_from(entries.len()).ok()?, u8::try_from(count).ok()?];
    let number = |bytes: &mut Vec<u8>, ino: Ino| {
        if wide {
            bytes.extend(ino.0.to_be_bytes());
        } else {
            bytes.extend(low32(ino.0).to_be_bytes());
        }
    };
    number(&mut bytes, parent);
    // The place of the entries in a block, after `.` and `..`.
    let mut offset = volume.dir_data_header() + volume.dir_entry_size(1) + volume.dir_entry_size(2);
    for entry in entries {
        bytes.push(to_u8(entry.name.len()));
        bytes.extend(to_u16(offset).to_be_bytes());
        bytes.extend(&entry.name);
        if volume.sb.has_ftype() {
            bytes.push(type_number(entry.file_type));
        }
        number(&mut bytes, entry.ino);
        offset += volume.dir_entry_size(entry.name.len());
    }
    // It must fit into one block, too.
    let block = offset + (entries.len() + 2) * 8 + 8;
    (bytes.len() <= room && block <= volume.sb.dir_block_size()).then_some(bytes)
}
