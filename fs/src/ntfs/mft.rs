//! Records of the MFT: which are free, and more of them.

use std::ops::Range;
use std::sync::Arc;

use super::alloc::change_bits;
use super::attribute::{Attribute, Body, Mapping};
use super::inode::Inode;
use super::layout::{BITMAP, DATA, Reference, record_flags, records};
use super::pieces::Step;
use super::record::{Record, corrupt};
use super::runs::Runs;
use super::units::{Lcn, RecordNumber};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// The MFT grows by at least as many records.
const GROW: u64 = 64;
/// Bytes of the bitmap that are looked at at once.
const CHUNK: u64 = 4096;
/// Bitmaps grow by whole words.
const WORD: u64 = 8;
/// Record numbers of more than 32 bits do not fit into a record's header.
const RECORDS_MAX: u64 = 1 << 32;

impl Volume {
    fn mft_bitmap(&self) -> Result<&Attribute> {
        let bitmap = self.mft.find(BITMAP, &[]);
        let bitmap = bitmap.ok_or_else(|| self.mft.corrupt("the MFT has no $BITMAP"))?;
        if bitmap.size() < self.record_count().div_ceil(8) {
            return Err(self.mft.corrupt(format!(
                "$BITMAP has {} bytes for {} records",
                bitmap.size(),
                self.record_count()
            )));
        }
        Ok(bitmap)
    }

    /// The first free record of a range that was not in use at the last commit.
    fn find_record(&self, range: Range<RecordNumber>) -> Result<Option<RecordNumber>> {
        let bitmap = self.mft_bitmap()?;
        let mut at = range.start.0 / 8;
        let end = range.end.0.div_ceil(8);
        while at < end {
            let mut bytes = vec![0; to_usize(CHUNK.min(end - at))];
            self.read_metadata(bitmap, at, &mut bytes)?;
            for (index, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0xff) {
                for bit in (0..8).filter(|bit| byte >> bit & 1 == 0) {
                    let number = RecordNumber((at + to_u64(index)) * 8 + bit);
                    if range.contains(&number) && !self.space.freed_records.contains(&number) {
                        return Ok(Some(number));
                    }
                }
            }
            at += to_u64(bytes.len());
        }
        Ok(None)
    }

    /// Marks a record in the MFT's bitmap.
    fn mark_record(&mut self, number: RecordNumber, value: bool) -> Result<()> {
        let wrong = |volume: &Self| {
            let state = if value { "in use" } else { "free" };
            volume.mft.corrupt(format!("record {number} is {state} in $BITMAP already"))
        };
        let bitmap = self.mft_bitmap()?;
        match &bitmap.body {
            Body::Mapped(mapping) => {
                let runs = mapping.runs.clone();
                let (sector, bit) = (number.0 / 8 / 512 * 512, number.0 % (8 * 512));
                let mut bytes = [0; 512];
                self.read_runs(&runs, sector, &mut bytes)?;
                if !change_bits(&mut bytes, bit..bit + 1, value) {
                    return Err(wrong(self));
                }
                self.write_runs(&runs, sector, &bytes, Step::Bitmap)
            }
            Body::Resident(_) => {
                let mut mft = (*self.mft).clone();
                let bitmap = mft.find_mut(BITMAP, &[]).map(|attribute| &mut attribute.body);
                let Some(Body::Resident(bytes)) = bitmap else { return Err(wrong(self)) };
                if !change_bits(bytes, number.0..number.0 + 1, value) {
                    return Err(wrong(self));
                }
                self.save(&mut mft)
            }
        }
    }

    /// Takes a free record: for a file, or (`base`) to continue that of another. It is in use in
    /// the bitmap then; its header says so once it is written.
    pub(super) fn allocate_record(&mut self, base: Option<Reference>) -> Result<Record> {
        let number = if base.is_some_and(|base| base.number() == records::MFT) {
            self.find_record(records::MFT_EXTENSIONS)?.ok_or_else(|| {
                Error::NoSpace("the MFT is in more pieces than its own records can name".into())
            })?
        } else {
            let from = self.space.next_record.max(records::FIRST_USER);
            match self.find_record(from..RecordNumber(self.record_count()))? {
                Some(number) => number,
                None => self.grow_mft()?,
            }
        };
        // One that was never written has no header.
        let mut record = Record::new(number, &self.geometry);
        match self.read_record(number) {
            Ok(old) if old.is_in_use() => {
                return Err(corrupt(number, "it is in use, and free in the MFT's $BITMAP"));
            }
            Ok(old) => {
                record.head.sequence_number = old.head.sequence_number;
                record.continue_updates(&old);
            }
            Err(Error::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        self.mark_record(number, true)?;
        if base.is_none_or(|base| base.number() != records::MFT) {
            self.space.next_record = number + 1;
        }
        self.space.new_records.insert(number);
        if record.head.sequence_number.get() == 0 {
            record.head.sequence_number = 1.into();
        }
        record.head.flags = record_flags::IN_USE.into();
        record.head.reference_count = 0.into();
        record.head.next_attribute_instance = 0.into();
        record.head.base_file_record_segment = base.map_or(0, |base| base.0).into();
        self.write_record(&record, Step::Record)?;
        Ok(record)
    }

    /// Frees a record, with the commit. Its sequence number goes on, so that what still names it
    /// names nothing.
    pub(super) fn release_record(&mut self, number: RecordNumber) -> Result<()> {
        let mut record = self.read_record(number)?;
        let sequence = record.head.sequence_number.get().checked_add(1).unwrap_or(1);
        record.head.sequence_number = sequence.into();
        record.head.flags = 0.into();
        record.head.reference_count = 0.into();
        record.head.base_file_record_segment = 0.into();
        self.write_record(&record, Step::Record)?;
        self.mark_record(number, false)?;
        self.forget(number);
        if self.space.new_records.remove(&number) {
            self.space.next_record = self.space.next_record.min(number);
        } else {
            self.space.freed_records.insert(number);
        }
        Ok(())
    }

    /// Makes the MFT larger and gives the number of the first new record.
    fn grow_mft(&mut self) -> Result<RecordNumber> {
        let (cluster, size) = (self.geometry.cluster, to_u64(self.geometry.record));
        let first = self.record_count();
        let clusters = self.geometry.clusters_for(GROW * size);
        let count = clusters * cluster / size;
        if first + count > RECORDS_MAX {
            return Err(Error::NoSpace(format!("the MFT has {first} records, and no more fit")));
        }
        let mut mft = (*self.mft).clone();
        let near = mft.data().and_then(Attribute::mapping).and_then(end_of);
        let more = self.allocate(clusters, near)?;
        let Some(Attribute { body: Body::Mapped(mapping), .. }) = mft.find_mut(DATA, &[]) else {
            return Err(mft.corrupt("it has no $DATA in clusters"));
        };
        more.iter().for_each(|run| mapping.runs.push(run));
        mapping.size += count * size;
        mapping.valid = mapping.size;
        self.grow_mft_bitmap(&mut mft, first + count)?;
        // From here on the new records have a place.
        self.mft = Arc::new(mft.clone());
        for number in RecordNumber::all(RecordNumber(first)..RecordNumber(first + count)) {
            let record = Record::new(number, &self.geometry);
            self.write_record(&record, Step::Fresh)?;
        }
        self.save(&mut mft)?;
        Ok(RecordNumber(first))
    }

    fn grow_mft_bitmap(&mut self, mft: &mut Inode, records: u64) -> Result<()> {
        let wanted = records.div_ceil(8).next_multiple_of(WORD);
        let cluster = self.geometry.cluster;
        let Some(bitmap) = mft.find_mut(BITMAP, &[]) else {
            return Err(mft.corrupt("the MFT has no $BITMAP"));
        };
        match &mut bitmap.body {
            Body::Resident(bytes) if to_u64(bytes.len()) < wanted => {
                bytes.resize(to_usize(wanted), 0);
            }
            Body::Mapped(mapping) if mapping.size < wanted => {
                let have = mapping.runs.clusters();
                let more = self.allocate(
                    self.geometry.clusters_for(wanted).saturating_sub(have),
                    end_of(mapping),
                )?;
                more.iter().for_each(|run| mapping.runs.push(run));
                // Bytes after the old size may be anything: they become zeros, sector by
                // sector, for the sector in which old and new meet is in use.
                let runs = mapping.runs.clone();
                let mut at = mapping.size / 512 * 512;
                while at < wanted {
                    let mut bytes = [0; 512];
                    let keep = to_usize(mapping.size.saturating_sub(at).min(512));
                    self.read_runs(&runs, at, &mut bytes[..keep])?;
                    let fresh = at >= have * cluster;
                    let step = if fresh { Step::Fresh } else { Step::Bitmap };
                    self.write_runs(&runs, at, &bytes, step)?;
                    at += 512;
                }
                mapping.size = wanted;
                mapping.valid = wanted;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The cluster after the last one of a run list.
pub(super) fn end_of(mapping: &Mapping) -> Option<Lcn> {
    runs_end(&mapping.runs)
}

/// The cluster after the last one of some runs.
pub(super) fn runs_end(runs: &Runs) -> Option<Lcn> {
    let last = runs.iter().next_back()?;
    Some(last.lcn? + last.count)
}
