//! A second MFT for the time of a commit, so that one sector decides which one counts.
//!
//! The boot sector names the first cluster of the MFT and of its mirror, and the MFT's first record
//! names all others. So the records that change are copied, changed, to clusters that were free,
//! with a first record whose run list leads to the copies; the mirror is copied in the same way.
//! One write of 512 bytes, which a disk does wholly or not at all, then makes the copies count.
//! Afterwards the records' own places, which nothing leads to any more, take the new records, and
//! a second write of the boot sector makes them count again. At every moment all records, the
//! mirror and all that they lead to are of one state.
//!
//! In between the copies carry the mark that the volume needs a check: a cut there leaves clusters
//! marked as in use that nothing uses.

use std::collections::BTreeMap;
use std::ops::Range;

use zerocopy::FromBytes;

use super::attribute::{Attribute, Body, Mapping};
use super::inode::{Inode, ListEntry, read_list};
use super::layout::{ATTRIBUTE_LIST, BootSector, DATA, VOLUME_INFORMATION, records};
use super::mft::runs_end;
use super::pieces::{Piece, Step};
use super::record::{Record, corrupt};
use super::runs::Runs;
use super::state::{DIRTY, FLAGS_AT};
use super::units::{Lcn, RecordNumber, Vcn};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// The records that `$MFTMirr` has at least, and drivers compare.
const MIRRORED: u64 = 4;
/// Pieces of the MFT that are copied, at most: each costs two runs in one of its records.
const PIECES_MAX: usize = 64;
/// Bytes of the MFT that are copied, at most. What lies between two pieces is copied along when
/// there are too many.
const BYTES_MAX: u64 = 1 << 30;

/// Bytes and the place on the volume that they go to.
pub(super) type Write = (u64, Vec<u8>);
/// Records that differ between the copies and their own places.
pub(super) type Changed = BTreeMap<RecordNumber, Vec<u8>>;

/// Records that are copied.
pub(super) struct Source {
    /// The clusters of the MFT or of its mirror.
    pub runs: Runs,
    /// The byte of those at which the copy begins.
    pub start: u64,
    /// The byte of those at which the last record ends.
    pub end: u64,
}

/// The data with which one commit switches twice.
pub(super) struct Shadow {
    /// Records of MFT and mirror, and the clusters for their copies, which were free.
    pub moved: Vec<(Source, Runs)>,
    /// The records that are different in the copies.
    pub changed: Changed,
    /// `$Bitmap` and the MFT's bitmap with all that is in use before, meanwhile and after.
    pub bitmaps: Vec<Write>,
    /// The boot sector that leads to the records' own places.
    pub boot: BootSector,
    /// The boot sector that leads to the copies.
    pub switched: BootSector,
}

/// How an attempt at the copies ended.
enum Tried {
    Done(Box<Shadow>),
    /// The records of the MFT do not hold the list of its clusters with the copies in it.
    NotDescribed,
    /// That much is not copied.
    TooMuch,
}

/// A volume that has no room for the copies. Without them a cut could cost files, so that nothing
/// is written at all.
fn no_room(needed: u64, in_one: u64, free: u64, cluster: u64) -> Error {
    let in_one =
        if in_one > 1 { format!(", {in_one} of them in one piece") } else { String::new() };
    Error::NoSpace(format!(
        "a change that no power cut can tear needs {needed} free clusters of {cluster} bytes{in_one} \
         for copies of MFT records, and {free} are left; free some space in Windows, or enlarge the \
         volume first"
    ))
}

/// A volume whose MFT is in so many pieces that the copies cannot be described.
fn too_many_pieces(pieces: usize) -> Error {
    Error::NoSpace(format!(
        "a change that no power cut can tear needs a copy of the MFT's list of its clusters, and with \
         the {pieces} pieces of this MFT it does not fit into its records; defragment the MFT in Windows"
    ))
}

impl Volume {
    /// Works out the copies. Nothing changes.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where the volume has no room for them, or where they cannot be described.
    pub(super) fn shadow(&mut self, pieces: &[(u64, Piece)]) -> Result<Shadow> {
        let changed = self.changed_pieces(pieces)?;
        let wanted = changed.len().min(PIECES_MAX);
        let mut most = wanted;
        while most > 0 {
            match self.try_copies(&merge(&changed, most)) {
                Ok(Tried::Done(shadow)) => return Ok(*shadow),
                Ok(Tried::NotDescribed) => most -= (most / 4).max(1),
                Ok(Tried::TooMuch) => break,
                // Fewer and longer pieces than those that change find no room.
                Err(Error::NoSpace(_)) if most < wanted => break,
                Err(Error::NoSpace(_)) => return Err(self.no_room(&changed)?),
                Err(error) => return Err(error),
            }
        }
        // A copy of many runs may be one run: then a list that is full has room for it.
        let runs = self.mft.data().and_then(Attribute::mapping).map(|mapping| mapping.runs.clone());
        let runs = runs.unwrap_or_default();
        let unit = self.record_clusters();
        let last = changed.last().map_or(Vcn(0), |range| range.end);
        let ends: Vec<Vcn> = (1..=runs.len())
            .map(|index| runs.get(index).map_or(runs.end(), |(vcn, _)| vcn))
            .map(|end| Vcn(end.0.next_multiple_of(unit)).min(runs.end()))
            .filter(|&end| end >= last)
            .collect();
        let mut at = 0;
        while let Some(&end) = ends.get(at) {
            match self.try_copies(&[Vcn(0)..end]) {
                Ok(Tried::Done(shadow)) => return Ok(*shadow),
                Ok(Tried::NotDescribed) if at + 1 < ends.len() => {
                    at = (2 * at + 1).min(ends.len() - 1);
                }
                Ok(Tried::NotDescribed | Tried::TooMuch) | Err(Error::NoSpace(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Err(too_many_pieces(runs.len()))
    }

    /// Works out copies of these parts of the MFT. The clusters that they take are in use in
    /// [`Shadow::bitmaps`] only.
    fn try_copies(&mut self, ranges: &[Range<Vcn>]) -> Result<Tried> {
        let clusters: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        if clusters.saturating_mul(self.geometry.cluster) > BYTES_MAX {
            return Ok(Tried::TooMuch);
        }
        let space = self.space.clone();
        let mark = self.store.begin();
        let result = self.copies(ranges);
        self.store.roll_back(mark);
        self.space = space;
        Ok(result?.map_or(Tried::NotDescribed, |shadow| Tried::Done(Box::new(shadow))))
    }

    /// The error of a volume without room for copies of `ranges`.
    fn no_room(&self, ranges: &[Range<Vcn>]) -> Result<Error> {
        let mut free = 0;
        self.scan_free(0..self.geometry.clusters, &mut |run| {
            free += run.end - run.start;
            true
        })?;
        let clusters: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let needed = clusters + self.mirror.0.clusters();
        let in_one = self.mirrored_clusters().max(self.mirror.0.clusters());
        Ok(no_room(needed, in_one, free, self.geometry.cluster))
    }

    /// Clusters of which a record has all or none.
    fn record_clusters(&self) -> u64 {
        (to_u64(self.geometry.record) / self.geometry.cluster).max(1)
    }

    /// Clusters of the records that the mirror has.
    fn mirrored_clusters(&self) -> u64 {
        (MIRRORED * to_u64(self.geometry.record)).div_ceil(self.geometry.cluster)
    }

    /// The virtual clusters of the MFT that change, in whole records and clusters. Always among
    /// them are the first ones, and all records with a part of the MFT's own run list.
    fn changed_pieces(&self, pieces: &[(u64, Piece)]) -> Result<Vec<Range<Vcn>>> {
        let cluster = self.geometry.cluster;
        let record = to_u64(self.geometry.record);
        let Some(Mapping { runs, .. }) = self.mft.data().and_then(Attribute::mapping) else {
            return Err(self.mft.corrupt("it has no $DATA in clusters"));
        };
        let unit = self.record_clusters();
        let of = |range: Range<u64>| range.start / unit..range.end.div_ceil(unit);
        let mut units: Vec<Range<u64>> = vec![of(0..self.mirrored_clusters())];
        units.extend(self.mft.extensions.iter().map(|number| {
            let at = number.saturating_byte(self.geometry.record);
            of(at / cluster..(at + record).div_ceil(cluster))
        }));
        let (own, mirror) = (by_place(runs), by_place(&self.mirror.0));
        for (offset, piece) in pieces {
            if matches!(piece.step, Step::Fresh | Step::Bitmap) || self.is_new(*offset, piece) {
                continue;
            }
            let end = (offset + to_u64(piece.bytes().len())).div_ceil(cluster);
            let clusters = Lcn::of_byte(*offset, cluster)..Lcn(end);
            match find(&own, &clusters) {
                Some(vcn) => units.push(of(vcn.0..vcn.0 + (clusters.end - clusters.start))),
                None if find(&mirror, &clusters).is_some() => {}
                None => {
                    return Err(Error::corrupt(
                        "MFT record",
                        format!("byte {offset}"),
                        "a record changes that is neither in the MFT nor in its mirror",
                    ));
                }
            }
        }
        units.sort_by_key(|range| range.start);
        let mut out: Vec<Range<u64>> = Vec::new();
        for range in units {
            match out.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => out.push(range),
            }
        }
        let vcns = out.into_iter().map(|range| Vcn(range.start * unit)..Vcn(range.end * unit));
        Ok(vcns.map(|range| range.start..range.end.min(runs.end())).collect())
    }

    /// Whether a piece lies in clusters that were free at the last commit.
    pub(super) fn is_new(&self, offset: u64, piece: &Piece) -> bool {
        let cluster = self.geometry.cluster;
        let last = offset + to_u64(piece.bytes().len()).saturating_sub(1);
        (offset / cluster..=last / cluster).all(|lcn| self.is_fresh(Lcn(lcn)))
    }

    /// Takes clusters, all in one piece.
    fn allocate_whole(&mut self, count: u64) -> Result<Runs> {
        let runs = self.allocate(count, None)?;
        match runs.len() {
            0 | 1 => Ok(runs),
            pieces => {
                Err(Error::NoSpace(format!("{count} clusters are free in {pieces} pieces only")))
            }
        }
    }

    /// Takes clusters for the copies and works out what is in them; `None` where they cannot be
    /// described.
    fn copies(&mut self, ranges: &[Range<Vcn>]) -> Result<Option<Shadow>> {
        let (cluster, record) = (self.geometry.cluster, to_u64(self.geometry.record));
        let Some(own) = self.mft.data().and_then(Attribute::mapping).map(|m| m.runs.clone()) else {
            return Ok(None);
        };
        let mut runs = own.clone();
        let mut moved = Vec::new();
        for range in ranges {
            let count = range.end - range.start;
            let mut new = Runs::default();
            // A structure that is read before the run lists are known must be in one piece.
            if range.start == Vcn(0) {
                new = self.allocate_whole(count.min(self.mirrored_clusters()))?;
            }
            let near = runs_end(&new);
            self.allocate(count - new.clusters(), near)?.iter().for_each(|run| new.push(run));
            runs = runs.replaced(range.clone(), &new);
            let start = range.start.byte(cluster);
            moved.push((Source { runs: own.clone(), start, end: u64::MAX }, new));
        }
        let mirror = self.allocate_whole(self.mirror.0.clusters())?;
        let first = |runs: &Runs| runs.get(0).and_then(|(_, run)| run.lcn);
        let (Some(mft_lcn), Some(mirror_lcn)) = (first(&runs), first(&mirror)) else {
            return Ok(None);
        };
        let Some(changed) = self.shadow_records(runs, mirror.clone())? else { return Ok(None) };
        let end = self.mirror.1.saturating_mul(record);
        moved.push((Source { runs: self.mirror.0.clone(), start: 0, end }, mirror));

        let mut bitmaps = Vec::new();
        for (offset, piece) in self.store.pending().iter() {
            if piece.step == Step::Bitmap {
                let mut both = vec![0; piece.bytes().len()];
                self.store.read_committed(offset, &mut both)?;
                both.iter_mut().zip(piece.bytes()).for_each(|(old, new)| *old |= new);
                bitmaps.push((offset, both));
            }
        }
        let mut boot = [0; size_of::<BootSector>()];
        self.store.read_committed(0, &mut boot)?;
        let Ok(boot) = BootSector::read_from_bytes(&boot) else { return Ok(None) };
        let mut switched = boot;
        switched.mft_start_lcn = mft_lcn.0.into();
        switched.mft2_start_lcn = mirror_lcn.0.into();
        Ok(Some(Shadow { moved, changed, bitmaps, boot, switched }))
    }

    /// The records that differ between the copies and the records' own places: those of `$MFT` and
    /// `$MFTMirr` name the copies, that of `$Volume` asks for a check.
    fn shadow_records(&self, mft: Runs, mirror: Runs) -> Result<Option<Changed>> {
        let mut out = Changed::new();
        let mirr = self.inode(records::MFT_MIRR)?;
        if mirr.list.is_some() {
            return Ok(None);
        }
        for (inode, runs) in [(&*self.mft, mft), (&*mirr, mirror)] {
            let Some(records) = self.with_runs(inode, runs)? else { return Ok(None) };
            for record in records {
                out.insert(record.number, record.to_bytes()?);
            }
        }
        let mut volume = self.read_record(records::VOLUME)?;
        let flags = volume
            .resident_mut(VOLUME_INFORMATION, &self.geometry)?
            .and_then(|value| value.get_mut(FLAGS_AT..FLAGS_AT + 2));
        let Some([low, high]) = flags else {
            return Err(corrupt(records::VOLUME, "its $VOLUME_INFORMATION is not in it"));
        };
        [*low, *high] = (u16::from_le_bytes([*low, *high]) | DIRTY).to_le_bytes();
        out.insert(records::VOLUME, volume.to_bytes()?);
        Ok(Some(out))
    }

    /// A file's records with other clusters for its `$DATA`. The same records hold the list of the
    /// clusters as before, each as much of it as it has room for; `None` where they do not hold it.
    fn with_runs(&self, inode: &Inode, runs: Runs) -> Result<Option<Vec<Record>>> {
        let mut inode = inode.clone();
        match inode.find_mut(DATA, &[]) {
            Some(Attribute { body: Body::Mapped(mapping), .. }) => mapping.runs = runs,
            _ => return Ok(None),
        }
        let is_data = |part: &Attribute| part.type_code == DATA && part.name.is_empty();
        // Each record, and the attributes in it.
        let mut parts: Vec<(Record, Vec<Attribute>)> = Vec::new();
        for number in std::iter::once(inode.number).chain(inode.extensions.iter().copied()) {
            let record = self.read_record(number)?;
            let attributes = record.attributes(&self.geometry)?;
            parts.push((record, attributes));
        }
        let first_data =
            |attributes: &[Attribute]| attributes.iter().find(|a| is_data(a)).map(|a| a.lowest_vcn);
        parts.sort_by_key(|(_, attributes)| first_data(attributes).unwrap_or_default());
        let Some(lowest) = self.split_list(&inode, &parts)? else { return Ok(None) };
        let list = match &inode.list {
            Some(list) => self.changed_list(&inode, list, &lowest)?,
            None => None,
        };
        let mut out = Vec::new();
        for (mut record, attributes) in parts {
            let mut encoded = Vec::new();
            for part in attributes {
                let begin = lowest.get(&record.number).filter(|_| is_data(&part));
                let bytes = match (begin, &list) {
                    (Some(begin), _) => begin.bytes.clone(),
                    (None, Some(list)) if part.type_code == ATTRIBUTE_LIST => {
                        if part.size() != to_u64(list.len()) || part.value().is_none() {
                            return Ok(None);
                        }
                        Attribute { body: Body::Resident(list.clone()), ..part.clone() }
                            .encode(part.instance, 0, usize::MAX, &self.geometry)
                            .0
                    }
                    _ => self.unchanged(&inode, &part),
                };
                encoded.extend(bytes);
            }
            if encoded.len() > record.room() {
                return Ok(None);
            }
            record.set_attributes(&encoded)?;
            out.push(record);
        }
        Ok(Some(out))
    }

    /// A record's part of an attribute, as it is.
    fn unchanged(&self, inode: &Inode, part: &Attribute) -> Vec<u8> {
        let covered = part.mapping().map_or(0, |mapping| mapping.runs.clusters());
        let vcns = part.lowest_vcn..part.lowest_vcn + covered;
        let whole = inode.find(part.type_code, &part.name);
        whole
            .and_then(|whole| whole.encode_part(part.instance, vcns, &self.geometry))
            .unwrap_or_else(|| part.encode(part.instance, 0, usize::MAX, &self.geometry).0)
    }

    /// Shares the runs of `$DATA` out to the records that have a part of it, in their order; `None`
    /// where they do not hold all, or where a record would lie in a part that only a later one names.
    fn split_list(
        &self,
        inode: &Inode,
        parts: &[(Record, Vec<Attribute>)],
    ) -> Result<Option<BTreeMap<RecordNumber, Begin>>> {
        let Some((data, mapping)) = inode.data().and_then(|data| Some((data, data.mapping()?)))
        else {
            return Ok(None);
        };
        if let Some(same) = self.same_split(inode, data, parts) {
            return Ok(Some(same));
        }
        let (mut out, mut from) = (BTreeMap::new(), 0);
        for (record, attributes) in parts {
            let (ours, others): (Vec<_>, Vec<_>) =
                attributes.iter().partition(|a| a.type_code == DATA && a.name.is_empty());
            let [part] = ours.as_slice() else {
                if ours.is_empty() {
                    continue;
                }
                return Ok(None);
            };
            let taken: usize = others.iter().map(|part| self.unchanged(inode, part).len()).sum();
            let room = record.room().saturating_sub(taken) / 8 * 8;
            let Some((vcn, _)) = mapping.runs.get(from).filter(|_| room >= data.least_part())
            else {
                return Ok(None);
            };
            let place = record.number.saturating_byte(self.geometry.record);
            if from > 0 && Vcn::of_byte(place, self.geometry.cluster) >= vcn {
                return Ok(None);
            }
            let (bytes, next) = data.encode(part.instance, from, room, &self.geometry);
            if next == from {
                return Ok(None);
            }
            out.insert(record.number, Begin { vcn, bytes });
            from = next;
        }
        Ok((from == mapping.runs.len()).then_some(out))
    }

    /// The same virtual clusters of `$DATA` as before for each record, where all of them have room.
    fn same_split(
        &self,
        inode: &Inode,
        data: &Attribute,
        parts: &[(Record, Vec<Attribute>)],
    ) -> Option<BTreeMap<RecordNumber, Begin>> {
        let (mut out, mut end) = (BTreeMap::new(), Vcn(0));
        for (record, attributes) in parts {
            let (ours, others): (Vec<_>, Vec<_>) =
                attributes.iter().partition(|a| a.type_code == DATA && a.name.is_empty());
            let taken: usize = others.iter().map(|part| self.unchanged(inode, part).len()).sum();
            for part in &ours {
                let vcns = part.lowest_vcn..part.lowest_vcn + part.mapping()?.runs.clusters();
                let bytes = data.encode_part(part.instance, vcns.clone(), &self.geometry)?;
                let is_next = part.lowest_vcn == end && ours.len() == 1;
                if !is_next || taken + bytes.len() > record.room() {
                    return None;
                }
                end = vcns.end;
                out.insert(record.number, Begin { vcn: part.lowest_vcn, bytes });
            }
        }
        (end == data.mapping()?.runs.end()).then_some(out)
    }

    /// The attribute list with other virtual clusters for the parts of `$DATA`, where they differ.
    fn changed_list(
        &self,
        inode: &Inode,
        list: &Attribute,
        lowest: &BTreeMap<RecordNumber, Begin>,
    ) -> Result<Option<Vec<u8>>> {
        let entries = read_list(self, inode.number, list)?;
        let mut changed = entries.clone();
        for entry in changed.iter_mut().filter(|e| e.type_code == DATA && e.name.is_empty()) {
            if let Some(begin) = lowest.get(&entry.segment.number()) {
                entry.lowest_vcn = begin.vcn;
            }
        }
        let bytes = || changed.iter().flat_map(ListEntry::to_bytes).collect();
        Ok((changed != entries).then(bytes))
    }
}

/// A record's part of `$DATA`: where it begins, and its bytes.
struct Begin {
    vcn: Vcn,
    bytes: Vec<u8>,
}

/// Lays whole records over the bytes from byte `from` on of a list of records that ends at `end`.
pub(super) fn lay_over(bytes: &mut [u8], from: u64, end: u64, changed: &Changed, record: usize) {
    for (number, new) in changed {
        let offset = number.saturating_byte(record);
        let at = offset.checked_sub(from).filter(|_| offset + to_u64(record) <= end);
        let place = at.and_then(|at| bytes.get_mut(to_usize(at)..to_usize(at) + record));
        if let Some(place) = place {
            place.copy_from_slice(new);
        }
    }
}

/// Runs by their first cluster: how many they are, and their first virtual cluster.
type ByPlace = BTreeMap<Lcn, (u64, Vcn)>;

fn by_place(runs: &Runs) -> ByPlace {
    let all = (0..runs.len()).filter_map(|index| runs.get(index));
    all.filter_map(|(vcn, run)| Some((run.lcn?, (run.count, vcn)))).collect()
}

/// The virtual cluster of the first of these clusters, when all of them are in one run.
fn find(runs: &ByPlace, clusters: &Range<Lcn>) -> Option<Vcn> {
    let (&start, &(count, vcn)) = runs.range(..=clusters.start).next_back()?;
    (clusters.end <= start + count).then(|| vcn + (clusters.start - start))
}

/// At most `most` ranges that cover the given ones, with the least in between.
fn merge(ranges: &[Range<Vcn>], most: usize) -> Vec<Range<Vcn>> {
    let mut gaps: Vec<(u64, usize)> =
        ranges.windows(2).map(|two| two[1].start - two[0].end).zip(1..).collect();
    gaps.sort_unstable_by_key(|&(gap, index)| (std::cmp::Reverse(gap), index));
    let keep: std::collections::BTreeSet<usize> =
        gaps.into_iter().take(most.saturating_sub(1)).map(|(_, index)| index).collect();
    let mut out: Vec<Range<Vcn>> = Vec::new();
    for (index, range) in ranges.iter().enumerate() {
        match out.last_mut() {
            Some(last) if !keep.contains(&index) => last.end = range.end,
            _ => out.push(range.clone()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::merge;
    use crate::ntfs::units::Vcn;

    #[test]
    fn the_widest_gaps_stay() {
        let of = |ranges: &[(u64, u64)]| -> Vec<_> {
            ranges.iter().map(|&(start, end)| Vcn(start)..Vcn(end)).collect()
        };
        let ranges = of(&[(0, 4), (6, 8), (20, 21), (30, 31), (32, 40)]);
        assert_eq!(merge(&ranges, 9), ranges);
        assert_eq!(merge(&ranges, 3), of(&[(0, 8), (20, 21), (30, 40)]));
        assert_eq!(merge(&ranges[..4], 2), of(&[(0, 8), (20, 31)]));
    }
}
