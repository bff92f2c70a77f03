//! The snapshot table. Snapshots are listed and kept, not made or removed.

use snf_fs::error::display_name;
use zerocopy::FromBytes;

use super::error::{Error, Result};
use super::image::Image;
use super::layout::{Geometry, MAX_L1_BYTES, MAX_SNAPSHOTS, RawSnapshot};
use crate::file::GrowableDevice;

/// As QEMU: the longest snapshot table, in bytes.
const MAX_TABLE: u64 = 64 << 20;
/// Of a name or id this much is kept, in bytes: 65,536 snapshots have bounded names.
const MAX_SHOWN: usize = 128;
/// Extra data up to the disk's size, in bytes.
const EXTRA_DISK_SIZE: u64 = 16;

/// An internal snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id, printable.
    pub id: String,
    /// Its name, printable.
    pub name: String,
    /// Size of the disk at the time in bytes, where the image says it.
    pub disk_size: Option<u64>,
    /// The offset of its level 1 table in the file, in bytes.
    pub(crate) l1_offset: u64,
    /// Entries of that table.
    pub(crate) l1_size: u64,
}

/// The snapshot table's place and content.
pub(crate) struct SnapshotTable {
    /// Bytes of the table, from the offset in the header.
    pub(crate) length: u64,
    pub(crate) snapshots: Vec<Snapshot>,
}

/// Reads `count` entries from `offset`.
pub(crate) fn read(
    file: &dyn GrowableDevice,
    geo: Geometry,
    offset: u64,
    count: u32,
) -> Result<SnapshotTable> {
    if count == 0 {
        return Ok(SnapshotTable { length: 0, snapshots: Vec::new() });
    }
    let wrong = |at: u64, detail: String| Err(Error::corrupt("snapshot table", at, detail));
    if count > MAX_SNAPSHOTS || !geo.is_aligned(offset) || offset == 0 {
        return wrong(offset, format!("{count} snapshots, at most {MAX_SNAPSHOTS} are possible"));
    }
    let mut snapshots = Vec::new();
    let mut at = offset;
    for number in 0..count {
        let mut head = [0; size_of::<RawSnapshot>()];
        let body = at.checked_add(head.len() as u64).filter(|body| *body <= file.len());
        let Some(body) = body else {
            return wrong(at, format!("entry {number} lies beyond the end of the file"));
        };
        file.read_at(at, &mut head)?;
        let raw = RawSnapshot::read_from_bytes(&head)
            .map_err(|_| Error::corrupt("snapshot table", at, "an entry has a wrong length"))?;
        let extra = u64::from(raw.extra_data_size.get());
        let (id, name) = (u64::from(raw.id_size.get()), u64::from(raw.name_size.get()));
        let end = body + extra + id + name;
        if end > file.len() || end - offset > MAX_TABLE {
            return wrong(at, format!("entry {number} is too long or ends beyond the file"));
        }
        let text = |from: u64, length: u64| -> Result<String> {
            let mut bytes = vec![0; (length as usize).min(MAX_SHOWN)];
            file.read_at(from, &mut bytes)?;
            Ok(display_name(&bytes))
        };
        let disk_size = match extra >= EXTRA_DISK_SIZE {
            true => {
                let mut word = [0; 8];
                file.read_at(body + 8, &mut word)?;
                Some(u64::from_be_bytes(word))
            }
            false => None,
        };
        let (l1_offset, l1_size) = (raw.l1_table_offset.get(), u64::from(raw.l1_size.get()));
        let inside = l1_offset.checked_add(l1_size * 8).is_some_and(|end| end <= file.len());
        if l1_size * 8 > MAX_L1_BYTES || (l1_size > 0 && (!geo.is_aligned(l1_offset) || !inside)) {
            return wrong(at, format!("entry {number} has its L1 table at {l1_offset}"));
        }
        snapshots.push(Snapshot {
            id: text(body + extra, id)?,
            name: text(body + extra + id, name)?,
            disk_size,
            l1_offset,
            l1_size,
        });
        at = end.next_multiple_of(8);
    }
    Ok(SnapshotTable { length: at - offset, snapshots })
}

impl Image {
    pub(crate) fn snapshot_table(&self) -> Result<SnapshotTable> {
        let raw = &self.header.raw;
        read(&*self.file, self.geo, raw.snapshots_offset.get(), raw.nb_snapshots.get())
    }

    pub(crate) fn list_snapshots(&self) -> Result<Vec<Snapshot>> {
        self.snapshot_table().map(|table| table.snapshots)
    }
}
