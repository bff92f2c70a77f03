//! From memory to the device.
//!
//! NTFS has a log that only its own driver can write. A second MFT takes its place here
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
//! If a volume has no room for the copies, nothing is written: [`Volume::check_commit`] says it
//! before any other file system of the guest changes.

use zerocopy::IntoBytes;

use super::layout::BootSector;
use super::pieces::{Piece, Step};
use super::runs::Runs;
use super::shadow::{Changed, Shadow, Source, Write, lay_over};
use super::volume::{Space, Volume};
use crate::error::Result;
use crate::filesystem::CommitReport;
use crate::num::{to_u64, to_usize};

/// Pieces that lie side by side are written together, up to this many bytes.
const WRITE_MAX: usize = 1 << 20;
/// The unit in which a report counts.
const BLOCK: u64 = 4096;

impl Volume {
    /// Writes all changes.
    pub(super) fn commit(&mut self) -> Result<CommitReport> {
        let pieces = self.waiting();
        if pieces.is_empty() {
            return Ok(CommitReport::default());
        }
        let shadow = self.shadow(&pieces)?;
        let (data_blocks, metadata_blocks) = self.commit_switched(&pieces, shadow)?;
        self.store.committed();
        let Space { next_cluster, inherited, .. } = std::mem::take(&mut self.space);
        self.space = Space { next_cluster, inherited, ..Space::default() };
        Ok(CommitReport { metadata_blocks, data_blocks, transactions: 0, replayed: false })
    }

    /// Whether there is room for a commit of what waits. Nothing is written.
    pub(super) fn check_commit(&mut self) -> Result<()> {
        let pieces = self.waiting();
        if !pieces.is_empty() {
            self.shadow(&pieces)?;
        }
        Ok(())
    }

    fn waiting(&self) -> Vec<(u64, Piece)> {
        self.store.pending().iter().map(|(offset, piece)| (offset, piece.clone())).collect()
    }

    /// Writes all changes around two writes of the boot sector; how many blocks of content and of
    /// metadata that were.
    fn commit_switched(&self, pieces: &[(u64, Piece)], shadow: Shadow) -> Result<(u64, u64)> {
        let Shadow { moved, changed, bitmaps, boot, switched } = shadow;
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
        for (from, to) in &moved {
            metadata_blocks += self.write_copy(from, to, &changed)?;
        }
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

    /// Writes a copy of records to other clusters, with the changed ones in it; how many blocks that
    /// were.
    fn write_copy(&self, from: &Source, to: &Runs, changed: &Changed) -> Result<u64> {
        let cluster = self.geometry.cluster;
        let size = to.clusters().saturating_mul(cluster);
        let (mut blocks, mut done) = (0, 0);
        while done < size {
            // Whole records.
            let mut bytes = vec![0; to_usize((size - done).min(to_u64(WRITE_MAX)))];
            self.read_runs(&from.runs, from.start + done, &mut bytes)?;
            lay_over(&mut bytes, from.start + done, from.end, changed, self.geometry.record);
            let places = self.places(to, done, bytes.len()).unwrap_or_default();
            let mut part = 0;
            let writes = places.into_iter().map(|(place, count)| {
                part += count;
                (place, bytes[part - count..part].to_vec())
            });
            blocks += self.write_all(writes, WRITE_MAX)?;
            done += to_u64(bytes.len());
        }
        Ok(blocks)
    }

    /// Writes the first 512 bytes of the volume: a disk does so wholly or not at all.
    fn write_boot(&self, boot: &BootSector) -> Result<()> {
        self.store.device().write_at(0, boot.as_bytes())?;
        self.flush()
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
                blocks += to_u64(bytes.len()).div_ceil(BLOCK);
            }
            Ok(())
        };
        for (offset, bytes) in writes {
            match &mut open {
                Some((start, last))
                    if *start + to_u64(last.len()) == offset
                        && last.len() + bytes.len() <= most =>
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
}
