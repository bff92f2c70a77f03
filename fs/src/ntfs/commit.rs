//! From memory to the device.
//!
//! NTFS has a log that only its own driver can write. What takes its place here is a second MFT
//! ([`super::shadow`]): the volume changes as a whole with one write of its boot sector. The steps,
//! with a flush after each:
//!
//! 1. all that goes to clusters that were free: content, index blocks, copies of the records that
//!    change; the bitmaps with all that was, is or will be in use;
//! 2. the boot sector leads to the copies: from here on everything is new;
//! 3. the records in their own places, which nothing leads to now;
//! 4. the boot sector leads to them again;
//! 5. the bitmaps as they will be.
//!
//! A cut at any moment leaves the old volume or the new one. Bitmaps may then have clusters and
//! records in use that are free, which takes room and harms nothing.
//!
//! Where a volume has no room for the copies, or an MFT in so many pieces that its run list takes
//! more than a record, the writes have an order instead ([`Volume::commit_in_place`]).

use zerocopy::IntoBytes;

use super::layout::{BootSector, VOLUME_INFORMATION, records};
use super::pieces::{Piece, Step};
use super::record::{Record, corrupt};
use super::shadow::{Shadow, Write};
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
        let (data_blocks, metadata_blocks) = match self.shadow(&pieces)? {
            Some(shadow) => self.commit_switched(&pieces, shadow)?,
            None => self.commit_in_place(&pieces)?,
        };
        self.store.committed();
        let Space { next_cluster, inherited, .. } = std::mem::take(&mut self.space);
        self.space = Space { next_cluster, inherited, ..Space::default() };
        Ok(CommitReport { metadata_blocks, data_blocks, transactions: 0, replayed: false })
    }

    /// Writes all changes around two writes of the boot sector; how many blocks of content and of
    /// metadata that were.
    fn commit_switched(&self, pieces: &[(u64, Piece)], shadow: Shadow) -> Result<(u64, u64)> {
        let Shadow { copies, bitmaps, boot, switched } = shadow;
        let of = |wanted: &dyn Fn(u64, &Piece) -> bool| -> Vec<Write> {
            let these = pieces.iter().filter(|(offset, piece)| wanted(*offset, piece));
            these.map(|(offset, piece)| (*offset, piece.bytes().to_vec())).collect()
        };
        let is_record = |piece: &Piece| !matches!(piece.step, Step::Fresh | Step::Bitmap);
        // Before the switch the bitmaps have more in use than after it.
        let mut last = Vec::new();
        for (offset, before) in &bitmaps {
            let mut after = vec![0; before.len()];
            self.store.read(*offset, &mut after)?;
            if after != *before {
                last.push((*offset, after));
            }
        }

        let data_blocks = self.write_all(of(&|_, piece| piece.step == Step::Fresh), WRITE_MAX)?;
        let new = of(&|offset, piece| is_record(piece) && self.is_new(offset, piece));
        let mut metadata_blocks = self.write_all(new, WRITE_MAX)?;
        metadata_blocks += self.write_all(copies, WRITE_MAX)?;
        metadata_blocks += self.write_all(bitmaps, WRITE_MAX)?;
        self.flush()?;
        self.write_boot(&switched)?;
        let own = of(&|offset, piece| is_record(piece) && !self.is_new(offset, piece));
        metadata_blocks += self.write_all(own, WRITE_MAX)?;
        self.flush()?;
        self.write_boot(&boot)?;
        metadata_blocks += self.write_all(last, WRITE_MAX)?;
        self.flush()?;
        Ok((data_blocks, metadata_blocks + 2))
    }

    /// Writes the first 512 bytes of the volume: a disk does so wholly or not at all.
    fn write_boot(&self, boot: &BootSector) -> Result<()> {
        self.store.device().write_at(0, boot.as_bytes())?;
        self.flush()
    }

    /// Writes all changes in an order that keeps content whole, with a flush after each step:
    ///
    /// 1. content and index blocks in clusters that were free;
    /// 2. the mark that the volume needs a check, in `$MFTMirr` and then in `$Volume` itself;
    /// 3. the bitmaps with all that was or will be in use; records that were free;
    /// 4. records in use: each file changes as a whole, with its first record;
    /// 5. index blocks that found no other place;
    /// 6. records that are free now, and the bitmaps as they will be;
    /// 7. the mark is taken away.
    fn commit_in_place(&self, pieces: &[(u64, Piece)]) -> Result<(u64, u64)> {
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
        Ok((data_blocks, metadata_blocks))
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
