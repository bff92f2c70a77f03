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

use super::attribute::{Attribute, Body};
use super::inode::Inode;
use super::layout::{BootSector, DATA, VOLUME_INFORMATION, records};
use super::pieces::{Piece, Step};
use super::record::Record;
use super::runs::{Run, Runs};
use super::state::{DIRTY, FLAGS_AT};
use super::units::{Lcn, Vcn};
use super::volume::Volume;
use crate::error::{Error, Result};

/// The records that `$MFTMirr` has at least, and drivers compare.
const MIRRORED: u64 = 4;
/// Pieces of the MFT that are copied, at most: each costs two runs in its first record.
const PIECES_MAX: usize = 64;
/// Bytes of the MFT that are copied, at most. What lies between two pieces is copied along when
/// there are too many.
const BYTES_MAX: u64 = 64 << 20;

/// Bytes and the place on the volume that they go to.
pub(super) type Write = (u64, Vec<u8>);

/// What one commit needs to switch twice.
pub(super) struct Shadow {
    /// Copies of records and mirror, for clusters that were free.
    pub copies: Vec<Write>,
    /// `$Bitmap` and the MFT's bitmap with all that is in use before, meanwhile and after.
    pub bitmaps: Vec<Write>,
    /// The boot sector that leads to the records' own places.
    pub boot: BootSector,
    /// The boot sector that leads to the copies.
    pub switched: BootSector,
}

impl Volume {
    /// Works out the copies; `None` where the volume has no room for them, or where they cannot be
    /// described: an MFT whose run list does not fit into one record. Nothing changes.
    pub(super) fn shadow(&mut self, pieces: &[(u64, Piece)]) -> Result<Option<Shadow>> {
        let Some(changed) = self.changed_pieces(pieces) else { return Ok(None) };
        let mut most = changed.len().min(PIECES_MAX);
        while most > 0 {
            let ranges = merge(&changed, most);
            let clusters: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            if clusters.saturating_mul(self.geometry.cluster) > BYTES_MAX {
                return Ok(None);
            }
            // The clusters of the copies are in use in `bitmaps` only.
            let space = self.space.clone();
            let mark = self.store.begin();
            let result = self.copies(&ranges);
            self.store.roll_back(mark);
            self.space = space;
            match result {
                Ok(None) => most /= 2,
                Err(Error::NoSpace(_)) => return Ok(None),
                other => return other,
            }
        }
        Ok(None)
    }

    /// The virtual clusters of the MFT that change, in whole records and clusters, the first of
    /// them always among them. `None` where something changes in place that is not of the MFT.
    fn changed_pieces(&self, pieces: &[(u64, Piece)]) -> Option<Vec<Range<Vcn>>> {
        let cluster = self.geometry.cluster;
        let record = self.geometry.record as u64;
        let runs = &self.mft.data()?.mapping()?.runs;
        if self.mft.list.is_some() {
            return None;
        }
        let unit = (record / cluster).max(1);
        let of = |range: Range<u64>| range.start / unit..range.end.div_ceil(unit);
        let mut units: Vec<Range<u64>> = vec![of(0..(MIRRORED * record).div_ceil(cluster))];
        let (own, mirror) = (by_place(runs), by_place(&self.mirror.0));
        for (offset, piece) in pieces {
            if matches!(piece.step, Step::Fresh | Step::Bitmap) || self.is_new(*offset, piece) {
                continue;
            }
            let end = (offset + piece.bytes().len() as u64).div_ceil(cluster);
            let clusters = Lcn::of_byte(*offset, cluster)..Lcn(end);
            match find(&own, &clusters) {
                Some(vcn) => units.push(of(vcn.0..vcn.0 + (clusters.end - clusters.start))),
                None if find(&mirror, &clusters).is_some() => {}
                None => return None,
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
        Some(vcns.map(|range| range.start..range.end.min(runs.end())).collect())
    }

    /// Whether a piece lies in clusters that were free at the last commit.
    pub(super) fn is_new(&self, offset: u64, piece: &Piece) -> bool {
        let cluster = self.geometry.cluster;
        let last = offset + (piece.bytes().len() as u64).saturating_sub(1);
        (offset / cluster..=last / cluster).all(|lcn| self.is_fresh(Lcn(lcn)))
    }

    /// Takes clusters for the copies and builds them; `None` where they cannot be described.
    fn copies(&mut self, ranges: &[Range<Vcn>]) -> Result<Option<Shadow>> {
        let cluster = self.geometry.cluster;
        let Some(own) = self.mft.data().and_then(Attribute::mapping).map(|m| m.runs.clone()) else {
            return Ok(None);
        };
        let mut runs = own.clone();
        let mut taken: Vec<(Range<Vcn>, Runs)> = Vec::new();
        for range in ranges {
            let new = self.allocate(range.end - range.start, None)?;
            runs = runs.replaced(range.clone(), &new);
            taken.push((range.clone(), new));
        }
        let mirror = self.allocate(self.mirror.0.clusters(), None)?;
        // What is read before the run lists are known must be in one piece.
        let start = |runs: &Runs| match runs.get(0) {
            Some((_, Run { lcn: Some(lcn), .. })) if runs.len() == 1 => Some(lcn),
            _ => None,
        };
        let (Some(mft_lcn), Some(mirror_lcn)) =
            (taken.first().and_then(|(_, runs)| start(runs)), start(&mirror))
        else {
            return Ok(None);
        };
        let Some(changed) = self.shadow_records(runs, mirror.clone())? else { return Ok(None) };

        let mut copies = Vec::new();
        for (range, new) in &taken {
            let mut bytes = vec![0; ((range.end - range.start) * cluster) as usize];
            self.read_runs(&own, range.start.byte(cluster), &mut bytes)?;
            lay_over(&mut bytes, range.start.byte(cluster), &changed, self.geometry.record);
            self.split(new, bytes, &mut copies);
        }
        let mirrored = self.mirror.0.clone();
        let mut bytes = vec![0; (mirrored.clusters() * cluster) as usize];
        self.read_runs(&mirrored, 0, &mut bytes)?;
        let size = self.mirror.1 as usize * self.geometry.record;
        let end = size.min(bytes.len());
        lay_over(&mut bytes[..end], 0, &changed, self.geometry.record);
        self.split(&mirror, bytes, &mut copies);

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
        Ok(Some(Shadow { copies, bitmaps, boot, switched }))
    }

    /// The records that differ between the copies and the records' own places: those of `$MFT` and
    /// `$MFTMirr` name the copies, that of `$Volume` asks for a check.
    fn shadow_records(&self, mft: Runs, mirror: Runs) -> Result<Option<BTreeMap<u64, Vec<u8>>>> {
        let mut out = BTreeMap::new();
        let mirr = self.inode(records::MFT_MIRR)?;
        for (inode, runs) in [(&*self.mft, mft), (&*mirr, mirror)] {
            let Some(record) = self.with_runs(inode, runs)? else { return Ok(None) };
            out.insert(inode.number, record.to_bytes()?);
        }
        let mut volume = self.read_record(records::VOLUME)?;
        let flags = volume
            .resident_mut(VOLUME_INFORMATION, &self.geometry)?
            .and_then(|value| value.get_mut(FLAGS_AT..FLAGS_AT + 2));
        let Some([low, high]) = flags else { return Ok(None) };
        [*low, *high] = (u16::from_le_bytes([*low, *high]) | DIRTY).to_le_bytes();
        out.insert(records::VOLUME, volume.to_bytes()?);
        Ok(Some(out))
    }

    /// A file's only record with other clusters for its `$DATA`; `None` where it does not hold
    /// them.
    fn with_runs(&self, inode: &Inode, runs: Runs) -> Result<Option<Record>> {
        if inode.list.is_some() {
            return Ok(None);
        }
        let mut inode = inode.clone();
        match inode.find_mut(DATA, &[]) {
            Some(Attribute { body: Body::Mapped(mapping), .. }) => mapping.runs = runs,
            _ => return Ok(None),
        }
        let mut record = self.read_record(inode.number)?;
        let attributes: Vec<u8> = inode
            .attributes
            .iter()
            .flat_map(|a| a.encode(a.instance, 0, usize::MAX, &self.geometry).0)
            .collect();
        if attributes.len() > record.room() {
            return Ok(None);
        }
        record.set_attributes(&attributes)?;
        Ok(Some(record))
    }

    /// Adds the writes that put `bytes` into the clusters of a run list without holes.
    fn split(&self, runs: &Runs, bytes: Vec<u8>, out: &mut Vec<Write>) {
        let mut rest = &bytes[..];
        for run in runs.iter() {
            let count = (run.count.saturating_mul(self.geometry.cluster) as usize).min(rest.len());
            let (part, behind) = rest.split_at(count);
            out.push((run.lcn.unwrap_or_default().byte(self.geometry.cluster), part.to_vec()));
            rest = behind;
        }
    }
}

/// Lays whole records over the bytes of the MFT from byte `from` on.
fn lay_over(bytes: &mut [u8], from: u64, changed: &BTreeMap<u64, Vec<u8>>, record: usize) {
    for (number, new) in changed {
        let at = number.saturating_mul(record as u64).checked_sub(from);
        let place = at.and_then(|at| bytes.get_mut(at as usize..at as usize + record));
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
