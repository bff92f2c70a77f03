//! From memory to the device.
//!
//! NTFS has a log that only its own driver can write; what takes its place here is an order of the
//! writes, with a flush behind each step:
//!
//! 1. content of clusters that were free: nothing on the volume leads to them;
//! 2. the mark that the volume needs a check, in `$MFTMirr` and then in `$Volume` itself;
//! 3. `$Bitmap` and the MFT's bitmap with all that was or will be in use; records that were free;
//! 4. records in use: each file changes as a whole, with its first record;
//! 5. index blocks and other metadata in place;
//! 6. records that are free now, and the bitmaps as they will be;
//! 7. the mark is taken away.
//!
//! A cut before 2 leaves the old volume. A cut after it leaves one that Windows checks by itself at
//! the next start: every file has its old or its new content, and what a check has to mend is in
//! indexes and bitmaps, which it makes anew from the records.

use super::layout::{VOLUME_INFORMATION, records};
use super::pieces::{Piece, Step};
use super::record::{Record, corrupt};
use super::state::{DIRTY, FLAGS_AT};
use super::volume::{Space, Volume};
use crate::error::Result;
use crate::filesystem::CommitReport;

/// Pieces that lie side by side are written together, up to this many bytes.
const WRITE_MAX: usize = 1 << 20;
/// Records and index blocks are written one by one: the fewer sectors, the fewer are torn.
const ALONE: usize = 0;
/// The unit in which a report counts.
const BLOCK: u64 = 4096;

impl Volume {
    /// Writes all changes.
    pub(super) fn commit(&mut self) -> Result<CommitReport> {
        let pieces: Vec<(u64, Piece)> =
            self.store.pending().iter().map(|(offset, piece)| (offset, piece.clone())).collect();
        if pieces.is_empty() {
            return Ok(CommitReport::default());
        }
        let of = |step: Step| {
            let these = pieces.iter().filter(move |(_, piece)| piece.step == step);
            these.map(|(offset, piece)| (*offset, piece.bytes().to_vec()))
        };
        let data_blocks = self.write_all(of(Step::Fresh), WRITE_MAX)?;
        self.flush()?;
        let mut mark = self.volume_record()?;
        self.write_mark(&mut mark, true)?;

        let (mut first, mut last) = (Vec::new(), Vec::new());
        for (offset, bytes) in of(Step::Bitmap) {
            let mut both = vec![0; bytes.len()];
            self.store.read_committed(offset, &mut both)?;
            both.iter_mut().zip(&bytes).for_each(|(old, new)| *old |= new);
            if both != bytes {
                last.push((offset, bytes));
            }
            first.push((offset, both));
        }
        let mut metadata_blocks = self.write_all(first, WRITE_MAX)?;
        metadata_blocks += self.write_all(of(Step::NewRecord), ALONE)?;
        self.flush()?;
        metadata_blocks += self.write_all(of(Step::Record), ALONE)?;
        self.flush()?;
        metadata_blocks += self.write_all(of(Step::Change), ALONE)?;
        self.flush()?;
        metadata_blocks += self.write_all(of(Step::FreedRecord), ALONE)?;
        metadata_blocks += self.write_all(last, WRITE_MAX)?;
        self.flush()?;
        self.write_mark(&mut mark, false)?;

        self.store.committed();
        let Space { next_cluster, inherited, .. } = std::mem::take(&mut self.space);
        self.space = Space { next_cluster, inherited, ..Space::default() };
        Ok(CommitReport { metadata_blocks, data_blocks, transactions: 0, replayed: false })
    }

    /// Writes in the order of the places, neighbours together up to `most` bytes; how many blocks
    /// that were.
    fn write_all(
        &self,
        writes: impl IntoIterator<Item = (u64, Vec<u8>)>,
        most: usize,
    ) -> Result<u64> {
        let mut blocks = 0;
        let mut open: Option<(u64, Vec<u8>)> = None;
        let mut write = |open: Option<(u64, Vec<u8>)>| -> Result<()> {
            if let Some((offset, bytes)) = open {
                self.store.device().write_at(offset, &bytes)?;
                blocks += (bytes.len() as u64).div_ceil(BLOCK);
            }
            Ok(())
        };
        for (offset, bytes) in writes {
            match &mut open {
                Some((start, last))
                    if *start + last.len() as u64 == offset && last.len() + bytes.len() <= most =>
                {
                    last.extend_from_slice(&bytes);
                }
                _ => write(open.replace((offset, bytes)))?,
            }
        }
        write(open)?;
        Ok(blocks)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.store.device().flush()?)
    }

    /// The record of `$Volume` as the device has it.
    fn volume_record(&self) -> Result<Record> {
        let mut bytes = vec![0; self.geometry.record];
        let mut done = 0;
        for (place, count) in self.record_places(records::VOLUME)? {
            self.store.read_committed(place, &mut bytes[done..done + count])?;
            done += count;
        }
        Record::parse(records::VOLUME, bytes)
    }

    /// Sets or takes away the mark that the volume needs a check: first in the copy, then in the
    /// record that counts.
    fn write_mark(&self, record: &mut Record, dirty: bool) -> Result<()> {
        let geometry = &self.geometry;
        let flags = record
            .resident_mut(VOLUME_INFORMATION, geometry)?
            .and_then(|value| value.get_mut(FLAGS_AT..FLAGS_AT + 2));
        let Some([low, _]) = flags else {
            return Err(corrupt(records::VOLUME, "its $VOLUME_INFORMATION is not in it"));
        };
        *low = *low & !(DIRTY as u8) | if dirty { DIRTY as u8 } else { 0 };
        let bytes = record.to_bytes()?;
        let offset = records::VOLUME * geometry.record as u64;
        let copy = match records::VOLUME < self.mirror.1 {
            true => self.places(&self.mirror.0, offset, bytes.len()).unwrap_or_default(),
            false => Vec::new(),
        };
        for places in [copy, self.record_places(records::VOLUME)?] {
            let mut done = 0;
            for (place, count) in places {
                self.store.device().write_at(place, &bytes[done..done + count])?;
                done += count;
            }
            self.flush()?;
        }
        // The next write has the next number.
        *record = Record::parse(records::VOLUME, bytes)?;
        Ok(())
    }
}
