//! Persistent bitmaps: which parts of the disk changed since a backup. They are not kept up to date.
//! Before the first change each bitmap that must follow all changes is marked `in_use`, which
//! says that it may have missed some; QEMU does the same while it writes. Disabled bitmaps describe
//! a time that has passed and stay valid.

use zerocopy::FromBytes;

use super::error::{Error, Result};
use super::layout::{Geometry, RawBitmapEntry, RawBitmaps};
use crate::file::GrowableDevice;

/// As QEMU: the most bitmaps.
const MAX_BITMAPS: u32 = 65_535;
/// A directory of more bytes than this is taken for an attack.
const MAX_DIRECTORY: u64 = 64 << 20;
/// As QEMU: a bitmap table has at most this many entries.
const MAX_TABLE: u32 = 1 << 24;
/// Flag: the bitmap may have missed changes.
const IN_USE: u32 = 1;
/// Flag: the bitmap must follow all changes.
const AUTO: u32 = 1 << 1;
/// Offset of the flags in an entry of the directory.
const FLAGS_AT: u64 = 12;

/// A bitmap's entry in the directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bitmap {
    /// The offset of the entry in the file, in bytes.
    at: u64,
    flags: u32,
    pub(crate) table_offset: u64,
    /// Entries of the bitmap's table.
    pub(crate) table_size: u64,
}

/// Reads the directory.
pub(crate) fn directory(
    file: &dyn GrowableDevice,
    geo: Geometry,
    raw: &RawBitmaps,
) -> Result<Vec<Bitmap>> {
    let (offset, size) = (raw.bitmap_directory_offset.get(), raw.bitmap_directory_size.get());
    let count = raw.nb_bitmaps.get();
    let wrong = |at: u64, detail: String| Error::corrupt("bitmap directory", at, detail);
    let end = offset.checked_add(size).filter(|end| *end <= file.len());
    let Some(end) = end.filter(|_| size <= MAX_DIRECTORY && geo.is_aligned(offset)) else {
        return Err(wrong(offset, format!("{size} bytes are too many, or beyond the file")));
    };
    if count == 0 || count > MAX_BITMAPS {
        return Err(wrong(offset, format!("{count} bitmaps; 1 to {MAX_BITMAPS} are valid")));
    }
    let mut found = Vec::new();
    let mut at = offset;
    for number in 0..count {
        let mut head = [0; size_of::<RawBitmapEntry>()];
        let body = at + head.len() as u64;
        if body > end {
            return Err(wrong(at, format!("entry {number} is beyond the directory's end")));
        }
        file.read_at(at, &mut head)?;
        let entry = RawBitmapEntry::read_from_bytes(&head)
            .map_err(|_| wrong(at, "an entry has a wrong length".to_owned()))?;
        let length = u64::from(entry.extra_data_size.get()) + u64::from(entry.name_size.get());
        let (table_offset, table_size) =
            (entry.bitmap_table_offset.get(), entry.bitmap_table_size.get());
        let inside = table_offset
            .checked_add(u64::from(table_size) * 8)
            .is_some_and(|end| end <= file.len());
        if !geo.is_aligned(table_offset) || !inside || table_size > MAX_TABLE {
            return Err(wrong(at, format!("entry {number} has its table at {table_offset}")));
        }
        let flags = entry.flags.get();
        found.push(Bitmap { at, flags, table_offset, table_size: table_size.into() });
        at = (body + length).next_multiple_of(8);
    }
    Ok(found)
}

/// Marks all that must follow changes as possibly wrong; whether anything was written.
pub(crate) fn mark_in_use(file: &dyn GrowableDevice, bitmaps: &[Bitmap]) -> Result<bool> {
    let mut written = false;
    for bitmap in bitmaps {
        if bitmap.flags & AUTO != 0 && bitmap.flags & IN_USE == 0 {
            file.write_at(bitmap.at + FLAGS_AT, &(bitmap.flags | IN_USE).to_be_bytes())?;
            written = true;
        }
    }
    Ok(written)
}
