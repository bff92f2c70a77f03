//! Checksums of data, put in and taken out.

use super::super::layout::{Key, item_type, objectid};
use super::super::node::{HEADER, ITEM, Value};
use super::super::units::TreeId;
use super::Commit;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

const SUMS: TreeId = TreeId(objectid::CSUM_TREE);
/// Most bytes of one item of checksums.
const ITEM_MAX: usize = 4096;

fn key(at: u64) -> Key {
    Key::new(objectid::EXTENT_CSUM, item_type::EXTENT_CSUM, at)
}

impl Commit<'_> {
    /// Puts in the checksums of all new data that something refers to.
    pub(super) fn add_sums(&mut self) -> Result<()> {
        let volume = self.volume;
        let (sector, size) = (to_usize(volume.sb().sector_size), volume.sb().checksum.size());
        let room = (to_usize(volume.sb().node_size) - HEADER - 2 * ITEM).min(ITEM_MAX);
        let step = room / size * sector;
        for (&at, data) in &volume.data {
            if !data.sums || !self.new_data.contains(&at) {
                continue;
            }
            for (index, bytes) in data.bytes.chunks(step).enumerate() {
                let mut item = Vec::with_capacity(bytes.len() / sector * size);
                for bytes in bytes.chunks(sector) {
                    item.extend_from_slice(&volume.sb().checksum.of(bytes)[..size]);
                }
                let at = at + to_u64(index * step);
                self.set(SUMS, key(at), Some(Value::copy(&item)))?;
            }
        }
        Ok(())
    }

    /// Takes out the checksums of data that was freed.
    pub(super) fn remove_sums(&mut self, at: u64, bytes: u64) -> Result<()> {
        let sector = u64::from(self.volume.sb().sector_size);
        let size = to_u64(self.volume.sb().checksum.size());
        let end = at + bytes;
        let mut next = end - 1;
        loop {
            let Some((found, item)) = self.last(SUMS, key(next))? else { return Ok(()) };
            if (found.objectid, found.item_type) != (objectid::EXTENT_CSUM, item_type::EXTENT_CSUM)
            {
                return Ok(());
            }
            let start = found.offset;
            let stop = start.saturating_add(to_u64(item.len()) / size * sector);
            if stop <= at {
                return Ok(());
            }
            if !start.is_multiple_of(sector) || stop > u64::MAX / 2 {
                return Err(Error::corrupt("checksum tree", found.to_string(), "its address"));
            }
            let part = |from: u64, to: u64| {
                let index = |at: u64| to_usize((at - start) / sector * size);
                Value::copy(&item[index(from)..index(to)])
            };
            if start >= at {
                self.set(SUMS, found, None)?;
            } else {
                self.set(SUMS, found, Some(part(start, at)))?;
            }
            if stop > end {
                self.set(SUMS, key(end), Some(part(end, stop)))?;
            }
            let Some(before) = start.checked_sub(1).filter(|before| *before >= at) else {
                // One more item may reach into the range only where items overlap.
                return Ok(());
            };
            next = before;
        }
    }
}
