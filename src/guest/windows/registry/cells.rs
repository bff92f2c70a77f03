//! Allocation of cells: from free ones, else in a new bin at the hive's end.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::error::{HiveError, Result};
use super::format::{CELL_HEADER, HiveBin, PAGE};
use super::hive::{Hive, SIZE_MAX, base_block};

impl Hive {
    /// A new cell with this content; what is left of it is zeros.
    pub(super) fn new_cell(&mut self, content: &[u8]) -> Result<u32> {
        let offset = self.allocate(content.len())?;
        let cell = self.cell_mut("cell", offset)?;
        cell.fill(0);
        cell[..content.len()].copy_from_slice(content);
        Ok(offset)
    }

    /// Allocates a cell for `length` bytes. Its content is what it was.
    fn allocate(&mut self, length: usize) -> Result<u32> {
        if length > SIZE_MAX / 2 {
            return Err(HiveError::Invalid(format!("{length} bytes do not fit into a hive")));
        }
        let size = (length + CELL_HEADER).next_multiple_of(8) as u32;
        // The smallest that is large enough, the first of those.
        let found = self.free.iter().filter(|(_, free)| **free >= size).min_by_key(|(_, s)| **s);
        let (offset, free) = match found {
            Some((offset, free)) => (*offset, *free),
            None => self.add_bin(size)?,
        };
        self.free.remove(&offset);
        // Every rest is a multiple of 8, and 8 bytes are a cell.
        if free > size {
            self.set_size(offset + size, i64::from(free - size));
            self.free.insert(offset + size, free - size);
        }
        self.set_size(offset, -i64::from(size));
        self.mark(offset, true);
        Ok(offset)
    }

    /// Makes an allocated cell free and joins it with free neighbours in its bin. Its content is
    /// overwritten: it may have been a password's hash.
    pub(super) fn release(&mut self, structure: &'static str, offset: u32) -> Result<()> {
        let cell = self.cell_mut(structure, offset)?;
        cell.fill(0);
        let mut size = (cell.len() + CELL_HEADER) as u32;
        let mut start = offset;
        self.mark(offset, false);
        let index = self.bins.partition_point(|(bin, _)| *bin <= offset);
        let (bin, length) = self.bins[index.saturating_sub(1)];
        if let Some(next) = self.free.remove(&(offset + size)) {
            if offset + size < bin + length {
                size += next;
            } else {
                self.free.insert(offset + size, next);
            }
        }
        if let Some((&before, &free)) = self.free.range(..offset).next_back()
            && before + free == offset
            && before >= bin
        {
            self.free.remove(&before);
            start = before;
            size += free;
        }
        self.set_size(start, i64::from(size));
        self.free.insert(start, size);
        Ok(())
    }

    /// Replaces the content of a cell: in place where it fits, else in a new cell. Gives where it
    /// is now. The rest of the cell is zeros.
    pub(super) fn replace_cell(
        &mut self,
        structure: &'static str,
        offset: u32,
        content: &[u8],
    ) -> Result<u32> {
        let cell = self.cell_mut(structure, offset)?;
        if content.len() <= cell.len() {
            cell.fill(0);
            cell[..content.len()].copy_from_slice(content);
            return Ok(offset);
        }
        let new = self.new_cell(content)?;
        self.release(structure, offset)?;
        Ok(new)
    }

    fn set_size(&mut self, offset: u32, size: i64) {
        self.changed = true;
        let start = PAGE + offset as usize;
        let size = i32::try_from(size).unwrap_or(i32::MAX);
        if let Some(place) = self.data.get_mut(start..start + CELL_HEADER) {
            place.copy_from_slice(&size.to_le_bytes());
        }
    }

    /// Adds a bin whose one free cell has at least `size` bytes; gives that cell.
    fn add_bin(&mut self, size: u32) -> Result<(u32, u32)> {
        let header = size_of::<HiveBin>() as u32;
        let length = (size + header).next_multiple_of(PAGE as u32);
        let start = self.bins_size();
        let end = PAGE + start as usize + length as usize;
        if end > SIZE_MAX {
            return Err(HiveError::Invalid("the hive would grow beyond 1 GiB".into()));
        }
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        let bin = HiveBin {
            signature: *b"hbin",
            offset: U32::new(start),
            size: U32::new(length),
            reserved: [0; 8],
            timestamp: U64::new(0),
            spare: U32::new(0),
        };
        let at = PAGE + start as usize;
        self.data[at..end].fill(0);
        self.data[at..at + header as usize].copy_from_slice(bin.as_bytes());
        self.bins.push((start, length));
        let mut base = base_block(&self.data)?;
        base.hive_bins_data_size.set(self.bins_size());
        self.put_base(&mut base);
        let cell = (start + header, length - header);
        self.set_size(cell.0, i64::from(cell.1));
        self.free.insert(cell.0, cell.1);
        Ok(cell)
    }
}
