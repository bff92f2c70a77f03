//! The parts of a volume that everything else stands on: its shape, the MFT, records and files.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::attribute::{Attribute, Body, join};
use super::boot::Geometry;
use super::inode::{self, Inode};
use super::layout::{ATTRIBUTE_LIST, DATA, Reference, records};
use super::pieces::Step;
use super::record::{Record, corrupt};
use super::runs::Runs;
use super::store::Store;
use super::units::{Lcn, RecordNumber, Vcn};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::filesystem::Timestamp;
use crate::num::{to_u64, to_usize};
use crate::ranges::Ranges;
use crate::utf16::{UPCASE_BYTES, UpCase};

/// Files kept in memory. Beyond these many, or beyond these many runs of theirs, all are dropped.
const INODES_MAX: usize = 512;
const INODE_RUNS_MAX: usize = 1 << 18;

#[derive(Default)]
struct Inodes {
    by_number: HashMap<RecordNumber, Arc<Inode>>,
    runs: usize,
}

/// The state that every allocation changes, and a failed attempt puts back.
#[derive(Clone, Default)]
pub(super) struct Space {
    /// Clusters freed since the last commit. Until the next, their content must stay.
    pub freed: Ranges,
    /// Clusters that were free at the last commit and have been taken since.
    pub fresh: Ranges,
    /// Records freed since the last commit.
    pub freed_records: BTreeSet<RecordNumber>,
    /// Records that were free at the last commit and are in use now.
    pub new_records: BTreeSet<RecordNumber>,
    /// Security ids of what is made in directories with a security id: files and directories.
    pub inherited: BTreeMap<(u32, bool), u32>,
    /// Whether names in a directory get short ones, as far as that was looked at.
    pub short_names: BTreeMap<RecordNumber, bool>,
    /// The cluster at which the search for free ones goes on.
    pub next_cluster: Lcn,
    /// Below this number no record is free.
    pub next_record: RecordNumber,
}

/// One NTFS volume.
pub struct Volume {
    /// Its shape.
    pub geometry: Geometry,
    /// Its bytes.
    pub store: Store,
    /// The time that new and changed files get.
    pub now: Timestamp,
    /// Its table of capital letters.
    pub upcase: Arc<UpCase>,
    /// `$MFT`.
    pub(super) mft: Arc<Inode>,
    pub(super) space: Space,
    /// The place of `$MFTMirr` and its number of records.
    pub(super) mirror: (Runs, u64),
    inodes: RefCell<Inodes>,
}

impl Volume {
    /// Reads the boot sector, the MFT's own records and `$UpCase`.
    pub fn open(device: Arc<dyn BlockDevice>) -> Result<Self> {
        let geometry = Geometry::read(&*device)?;
        let store = Store::new(device, geometry.size);
        let empty = Inode {
            number: records::MFT,
            sequence: 1,
            links: 0,
            flags: 0,
            attributes: Vec::new(),
            extensions: Vec::new(),
            list: None,
        };
        let mut volume = Self {
            geometry,
            store,
            now: Timestamp::default(),
            upcase: Arc::new(UpCase::unicode()),
            mft: Arc::new(empty),
            space: Space::default(),
            mirror: (Runs::default(), 0),
            inodes: RefCell::default(),
        };
        volume.load_mft()?;
        let upcase = volume.inode(records::UP_CASE)?;
        let mut bytes = vec![0; UPCASE_BYTES];
        match upcase.data() {
            Some(data) if data.size() == to_u64(UPCASE_BYTES) => {
                volume.read_content(data, 0, &mut bytes)?;
            }
            _ => return Err(upcase.corrupt("the $DATA of $UpCase has not 131072 bytes")),
        }
        volume.upcase = Arc::new(UpCase::from_bytes(&bytes)?);
        let mirror = volume.inode(records::MFT_MIRR)?;
        match mirror.data() {
            Some(Attribute { body: Body::Mapped(mapping), .. }) => {
                let count = mapping.size / to_u64(geometry.record);
                volume.mirror = (mapping.runs.clone(), count);
            }
            _ => return Err(mirror.corrupt("$MFTMirr has no $DATA in clusters")),
        }
        Ok(volume)
    }

    /// Finds all parts of the MFT. Its first record says where the next ones are, which may say
    /// where others are.
    fn load_mft(&mut self) -> Result<()> {
        let at = self.geometry.mft_lcn.byte(self.geometry.cluster);
        let mut bytes = vec![0; self.geometry.record];
        self.store.read(at, &mut bytes)?;
        let base = Record::parse(records::MFT, bytes)?;
        if !base.is_in_use() || base.base().is_some() {
            return Err(corrupt(records::MFT, "it is not the first record of a file in use"));
        }
        let mut parts = base.attributes(&self.geometry)?;
        let is_data = |part: &Attribute| part.type_code == DATA && part.name.is_empty();
        let list = parts.iter().find(|part| part.type_code == ATTRIBUTE_LIST).cloned();
        let mut data: Vec<Attribute> = parts.extract_if(.., |part| is_data(part)).collect();
        let joined = |data: &[Attribute]| -> Result<Vec<Attribute>> {
            let mut data = data.to_vec();
            // The whole size is known from the first part on, the clusters are not yet.
            if let Some(Attribute { body: Body::Mapped(mapping), .. }) = data.first_mut() {
                mapping.size = 0;
                mapping.valid = 0;
            }
            join(data, &self.geometry).map_err(|text| corrupt(records::MFT, text))
        };
        let mut mft = Inode { attributes: joined(&data)?, ..(*self.mft).clone() };
        if mft.data().and_then(Attribute::mapping).is_none() {
            return Err(mft.corrupt("it has no $DATA in clusters"));
        }
        self.mft = Arc::new(mft.clone());
        if let Some(list) = list {
            let entries = inode::read_list(self, records::MFT, &list)?;
            let mut segments: Vec<(Vcn, RecordNumber)> = entries
                .iter()
                .filter(|entry| entry.type_code == DATA && entry.name.is_empty())
                .filter(|entry| entry.segment.number() != records::MFT)
                .map(|entry| (entry.lowest_vcn, entry.segment.number()))
                .collect();
            segments.sort_unstable();
            for (_, number) in segments {
                let more = self.read_mapped_record(number)?.attributes(&self.geometry)?;
                data.extend(more.into_iter().filter(is_data));
                mft.attributes = joined(&data)?;
                self.mft = Arc::new(mft.clone());
            }
        }
        let whole = inode::load(self, &base)?;
        let size = whole.data().map_or(0, Attribute::size);
        if records::FIRST_VISIBLE.byte(self.geometry.record).is_none_or(|end| size < end) {
            return Err(whole.corrupt(format!("the MFT has only {size} bytes")));
        }
        if whole
            .data()
            .and_then(Attribute::mapping)
            .is_some_and(|m| m.runs.allocated() < m.runs.clusters())
        {
            return Err(whole.corrupt("the MFT has a hole"));
        }
        self.mft = Arc::new(whole);
        Ok(())
    }

    /// Records that the MFT has room for.
    pub fn record_count(&self) -> u64 {
        self.mft.data().map_or(0, Attribute::size) / to_u64(self.geometry.record)
    }

    /// The places of a record's bytes: two pieces if a record is larger
    /// than a cluster.
    pub(super) fn record_places(&self, number: RecordNumber) -> Result<Vec<(u64, usize)>> {
        let runs = self.mft.data().and_then(Attribute::mapping).map(|mapping| &mapping.runs);
        let offset = number.byte(self.geometry.record);
        match (runs, offset) {
            (Some(runs), Some(offset)) => self
                .places(runs, offset, self.geometry.record)
                .ok_or_else(|| corrupt(number, "the MFT has no clusters for it")),
            _ => Err(corrupt(number, "the MFT has no clusters for it")),
        }
    }

    /// The places of bytes of a run list without holes; `None` if they are not in it.
    pub(super) fn places(
        &self,
        runs: &Runs,
        offset: u64,
        length: usize,
    ) -> Option<Vec<(u64, usize)>> {
        let cluster = self.geometry.cluster;
        let (mut out, mut done) = (Vec::new(), 0);
        while done < length {
            let at = offset.checked_add(to_u64(done))?;
            let place = runs.find(Vcn::of_byte(at, cluster))?;
            let rest = place.count.saturating_mul(cluster) - at % cluster;
            let count = to_usize(rest.min(to_u64(length - done)));
            out.push((place.lcn?.byte(cluster) + at % cluster, count));
            done += count;
        }
        Some(out)
    }

    fn read_mapped_record(&self, number: RecordNumber) -> Result<Record> {
        let mut bytes = vec![0; self.geometry.record];
        let mut done = 0;
        for (place, count) in self.record_places(number)? {
            self.store.read(place, &mut bytes[done..done + count])?;
            done += count;
        }
        Record::parse(number, bytes)
    }

    /// Reads a record, in use or not. One that was never written is corrupt.
    pub fn read_record(&self, number: RecordNumber) -> Result<Record> {
        if number.0 >= self.record_count() && self.record_count() > 0 {
            let detail = format!("the MFT has {} records", self.record_count());
            return Err(corrupt(number, detail));
        }
        self.read_mapped_record(number)
    }

    /// Writes a record, and its copy in `$MFTMirr` where it has one.
    pub(super) fn write_record(&mut self, record: &Record, step: Step) -> Result<()> {
        let bytes = record.to_bytes()?;
        if record.number.0 < self.mirror.1 {
            let offset = record.number.byte(self.geometry.record);
            let places = offset.and_then(|offset| self.places(&self.mirror.0, offset, bytes.len()));
            let places = places
                .ok_or_else(|| corrupt(records::MFT_MIRR, "$MFTMirr ends before its size"))?;
            self.write_places(&places, &bytes, step)?;
        }
        let places = self.record_places(record.number)?;
        self.write_places(&places, &bytes, step)
    }

    pub(super) fn write_places(
        &mut self,
        places: &[(u64, usize)],
        bytes: &[u8],
        step: Step,
    ) -> Result<()> {
        let mut done = 0;
        for &(place, count) in places {
            self.store.write(place, bytes[done..done + count].to_vec(), step)?;
            done += count;
        }
        Ok(())
    }

    /// The file whose first record this is; it must be in use.
    pub fn inode(&self, number: RecordNumber) -> Result<Arc<Inode>> {
        if number == records::MFT && !self.mft.attributes.is_empty() {
            return Ok(self.mft.clone());
        }
        if let Some(inode) = self.inodes.borrow().by_number.get(&number) {
            return Ok(inode.clone());
        }
        let record = self.read_record(number)?;
        if !record.is_in_use() {
            return Err(Error::NotFound(format!("MFT record {number}")));
        }
        if let Some(base) = record.base() {
            let detail = format!("it is a part of the file in record {}", base.number());
            return Err(corrupt(number, detail));
        }
        let inode = Arc::new(inode::load(self, &record)?);
        self.remember(&inode);
        Ok(inode)
    }

    /// The file that a directory's entry or an index names.
    pub fn referenced(&self, reference: Reference) -> Result<Arc<Inode>> {
        let inode = self.inode(reference.number())?;
        if inode.sequence != reference.sequence() && reference.sequence() != 0 {
            let detail = format!(
                "its sequence number is {}, and the reference says {}",
                inode.sequence,
                reference.sequence()
            );
            return Err(inode.corrupt(detail));
        }
        Ok(inode)
    }

    /// Keeps a file in memory.
    pub(super) fn remember(&self, inode: &Arc<Inode>) {
        let mut inodes = self.inodes.borrow_mut();
        let runs: usize =
            inode.attributes.iter().filter_map(Attribute::mapping).map(|m| m.runs.len()).sum();
        if inodes.by_number.len() >= INODES_MAX || inodes.runs + runs > INODE_RUNS_MAX {
            *inodes = Inodes::default();
        }
        inodes.runs += runs;
        inodes.by_number.insert(inode.number, inode.clone());
    }

    /// Forgets a file in memory.
    pub(super) fn forget(&self, number: RecordNumber) {
        self.inodes.borrow_mut().by_number.remove(&number);
    }

    /// Runs `work`; when it fails, every change it made is taken back. Attempts nest.
    pub fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (mft, space) = (self.mft.clone(), self.space.clone());
        let mark = self.store.begin();
        let result = work(self);
        if result.is_ok() {
            self.store.keep();
        } else {
            self.store.roll_back(mark);
            self.mft = mft;
            self.space = space;
            *self.inodes.borrow_mut() = Inodes::default();
        }
        result
    }
}
