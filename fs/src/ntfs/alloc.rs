//! Clusters: `$Bitmap`.
//!
//! Freed clusters stay out of use until the commit: until then their old content may be wanted again.

use std::ops::Range;
use std::sync::Arc;

use super::attribute::{Attribute, Mapping};
use super::inode::Inode;
use super::layout::records;
use super::pieces::Step;
use super::runs::{Run, Runs};
use super::units::Lcn;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u8, to_u64, to_usize};

/// Bytes of the bitmap that are looked at at once.
const CHUNK: u64 = 64 << 10;
/// Bitmaps are written in pieces of this size.
const SECTOR: u64 = 512;
/// Free runs that are kept in mind while none is long enough.
const CANDIDATES: usize = 1 << 16;
/// The part of the volume after the MFT that is left to it as long as there is room elsewhere.
const ZONE: u64 = 8;

fn corrupt(detail: String) -> Error {
    Error::corrupt("$Bitmap", "record 6", detail)
}

/// Sets or clears bits; whether all of them were the other way before.
pub(super) fn change_bits(bytes: &mut [u8], bits: Range<u64>, value: bool) -> bool {
    let mut all_changed = true;
    let mut bit = bits.start;
    while bit < bits.end {
        let at = to_usize(bit / 8);
        let count = (8 - bit % 8).min(bits.end - bit);
        let mask = to_u8(((1u16 << count) - 1) << (bit % 8));
        let Some(byte) = bytes.get_mut(at) else { return false };
        if value {
            all_changed &= *byte & mask == 0;
            *byte |= mask;
        } else {
            all_changed &= *byte & mask == mask;
            *byte &= !mask;
        }
        bit += count;
    }
    all_changed
}

impl Volume {
    /// `$Bitmap`, which covers the volume.
    fn bitmap(&self) -> Result<Arc<Inode>> {
        let inode = self.inode(records::BITMAP)?;
        let bytes = inode.data().map_or(0, Attribute::size);
        match mapping(&inode) {
            Some(mapping)
                if bytes >= self.geometry.clusters.div_ceil(8)
                    && mapping.runs.allocated() == mapping.runs.clusters() =>
            {
                Ok(inode)
            }
            _ => Err(corrupt(format!(
                "its $DATA has {bytes} bytes or holes, for {} clusters",
                self.geometry.clusters
            ))),
        }
    }

    /// Calls `visit` for each run of free clusters in a range, until it says `false`. What was
    /// freed since the last commit does not count as free.
    pub(super) fn scan_free(
        &self,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> bool,
    ) -> Result<bool> {
        let inode = self.bitmap()?;
        let Some(data) = inode.data() else { return Ok(true) };
        let mut open: Option<u64> = None;
        let mut give = |run: Range<u64>| {
            let mut from = run.start;
            for freed in self.space.freed.within(run.clone()) {
                if from < freed.start && !visit(from..freed.start) {
                    return false;
                }
                from = freed.end;
            }
            from >= run.end || visit(from..run.end)
        };
        let mut at = range.start / 8;
        let end = range.end.div_ceil(8);
        while at < end {
            let mut bytes = vec![0; to_usize(CHUNK.min(end - at))];
            self.read_metadata(data, at, &mut bytes)?;
            for (index, &byte) in bytes.iter().enumerate() {
                let first = (at + to_u64(index)) * 8;
                match (byte, open) {
                    (0xff, None) => continue,
                    (0, Some(_)) if first + 8 <= range.end => continue,
                    _ => {}
                }
                for bit in 0..8 {
                    let cluster = first + bit;
                    if cluster < range.start {
                        continue;
                    }
                    let free = byte >> bit & 1 == 0 && cluster < range.end;
                    match open {
                        None if free => open = Some(cluster),
                        Some(start) if !free => {
                            open = None;
                            if !give(start..cluster.min(range.end)) {
                                return Ok(false);
                            }
                        }
                        _ => {}
                    }
                }
            }
            at += to_u64(bytes.len());
        }
        Ok(open.is_none_or(|start| give(start..range.end)))
    }

    /// Clusters that are free or will be with the commit.
    pub fn free_clusters(&self) -> Result<u64> {
        let mut free = 0;
        let all = 0..self.geometry.clusters;
        self.scan_free(all.clone(), &mut |run| {
            free += run.end - run.start;
            true
        })?;
        Ok(free + self.space.freed.within(all).map(|run| run.end - run.start).sum::<u64>())
    }

    /// The clusters after the MFT that only it should have.
    fn mft_zone(&self) -> Range<u64> {
        let last = mapping(&self.mft).and_then(|mapping| mapping.runs.iter().next_back());
        let start = last.and_then(|run| Some((run.lcn? + run.count).0)).unwrap_or(0);
        start..(start + self.geometry.clusters / ZONE).min(self.geometry.clusters)
    }

    /// Takes `count` free clusters: in one piece where there is one, from `near` on where that is
    /// given (the MFT's own zone then counts as well).
    pub(super) fn allocate(&mut self, count: u64, near: Option<Lcn>) -> Result<Runs> {
        if count == 0 {
            return Ok(Runs::default());
        }
        let clusters = self.geometry.clusters;
        let start = near.unwrap_or(self.space.next_cluster).0.min(clusters);
        let zone = if near.is_some() { 0..0 } else { self.mft_zone() };
        let mut parts = Vec::new();
        for range in [start..clusters, 0..start] {
            parts.push(range.start..range.end.min(zone.start.max(range.start)));
            parts.push(range.start.max(zone.end.min(range.end))..range.end);
        }
        if near.is_some() {
            parts = vec![start..clusters, 0..start];
        }
        parts.push(zone);
        let mut found: Option<Range<u64>> = None;
        let mut candidates: Vec<Range<u64>> = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            self.scan_free(part, &mut |run| {
                if run.end - run.start >= count {
                    found = Some(run.start..run.start + count);
                    return false;
                }
                if candidates.len() < CANDIDATES {
                    candidates.push(run);
                }
                true
            })?;
            if found.is_some() {
                break;
            }
        }
        let mut taken = Vec::new();
        if let Some(run) = found {
            taken.push(run);
        } else {
            candidates.sort_by_key(|run| std::cmp::Reverse(run.end - run.start));
            let mut rest = count;
            for run in candidates {
                let these = rest.min(run.end - run.start);
                taken.push(run.start..run.start + these);
                rest -= these;
                if rest == 0 {
                    break;
                }
            }
            if rest > 0 {
                let bytes = count.saturating_mul(self.geometry.cluster);
                return Err(Error::NoSpace(format!(
                    "{bytes} bytes are wanted in {count} clusters, and {rest} of them are not free"
                )));
            }
            taken.sort_by_key(|run| run.start);
        }
        for run in &taken {
            self.mark(run.clone(), true)?;
            self.space.fresh.insert(run.clone());
        }
        if near.is_none() {
            self.space.next_cluster = Lcn(taken.last().map_or(0, |run| run.end));
        }
        Ok(taken
            .into_iter()
            .map(|run| Run { lcn: Some(Lcn(run.start)), count: run.end - run.start })
            .collect())
    }

    /// Frees clusters, with the commit.
    pub(super) fn release(&mut self, runs: impl IntoIterator<Item = Run>) -> Result<()> {
        let cluster = self.geometry.cluster;
        for run in runs {
            let Some(lcn) = run.lcn else { continue };
            let end = lcn + run.count;
            self.mark(lcn.0..end.0, false)?;
            self.space.freed.insert(lcn.0..end.0);
            self.store.forget(lcn.byte(cluster)..end.byte(cluster));
        }
        Ok(())
    }

    /// Whether a cluster was free at the last commit, so that nothing old is in it.
    pub(super) fn is_fresh(&self, cluster: Lcn) -> bool {
        self.space.fresh.contains(cluster.0)
    }

    fn mark(&mut self, clusters: Range<u64>, value: bool) -> Result<()> {
        let inode = self.bitmap()?;
        let Some(mapping) = mapping(&inode) else { return Ok(()) };
        let (first, last) = (clusters.start / 8, (clusters.end - 1) / 8);
        let from = first / SECTOR * SECTOR;
        let to = (last + 1).next_multiple_of(SECTOR);
        let mut bytes = vec![0; to_usize(to - from)];
        self.read_runs(&mapping.runs, from, &mut bytes)?;
        let bits = clusters.start - from * 8..clusters.end - from * 8;
        if !change_bits(&mut bytes, bits, value) {
            let state = if value { "in use" } else { "free" };
            return Err(corrupt(format!(
                "some of the clusters {} to {} are {state} already",
                clusters.start,
                clusters.end - 1
            )));
        }
        self.write_runs(&mapping.runs, from, &bytes, Step::Bitmap)
    }

    /// Reads metadata of a run list without holes.
    pub(super) fn read_runs(&self, runs: &Runs, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        for (place, count) in self.places(runs, offset, buf.len()).ok_or_else(ends)? {
            self.store.read(place, &mut buf[done..done + count])?;
            done += count;
        }
        Ok(())
    }

    /// Writes to the clusters of a run list without holes.
    pub(super) fn write_runs(
        &mut self,
        runs: &Runs,
        offset: u64,
        bytes: &[u8],
        step: Step,
    ) -> Result<()> {
        let places = self.places(runs, offset, bytes.len()).ok_or_else(ends)?;
        self.write_places(&places, bytes, step)
    }
}

fn ends() -> Error {
    Error::corrupt("run list", "a system file", "it ends before its value, or has a hole")
}

fn mapping(inode: &Inode) -> Option<&Mapping> {
    inode.data().and_then(Attribute::mapping)
}

#[cfg(test)]
mod tests {
    use super::change_bits;

    #[test]
    fn bits_change_and_tell() {
        let mut bytes = [0u8; 4];
        assert!(change_bits(&mut bytes, 3..21, true));
        assert_eq!(bytes, [0xf8, 0xff, 0x1f, 0]);
        assert!(!change_bits(&mut bytes, 20..22, true));
        assert!(change_bits(&mut bytes, 3..22, false));
        assert!(!change_bits(&mut bytes, 0..1, false));
        assert!(!change_bits(&mut bytes, 31..33, true));
    }
}
