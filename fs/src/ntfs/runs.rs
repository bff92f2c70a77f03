//! Run lists: which clusters hold the value of a non-resident attribute.

use std::ops::Range;

use super::boot::Geometry;
use super::units::{Lcn, Vcn};
use crate::num::to_u8;

/// Most runs of one attribute: 64 MiB of them in memory at the worst. The largest attribute list
/// leads to some two million.
const RUNS_MAX: usize = 2 << 20;

/// Clusters that follow each other, or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first of them; `None` for a hole.
    pub lcn: Option<Lcn>,
    /// How many, at least 1.
    pub count: u64,
}

/// All runs of an attribute, by the virtual cluster numbers that they cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// First VCN of each run, and the run.
    list: Vec<(Vcn, Run)>,
    clusters: u64,
}

/// The place of a virtual cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The cluster; `None` in a hole.
    pub lcn: Option<Lcn>,
    /// How many clusters follow there, this one among them.
    pub count: u64,
}

fn signed(bytes: &[u8]) -> i64 {
    let fill = if bytes.last().is_some_and(|&byte| byte >= 0x80) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_le_bytes(wide)
}

/// The fewest bytes that give `value` back through [`signed`].
fn shortest(value: i64) -> ([u8; 8], usize) {
    let bytes = value.to_le_bytes();
    let length = (1..8).find(|&length| signed(&bytes[..length]) == value).unwrap_or(8);
    (bytes, length)
}

impl Runs {
    /// Clusters covered, holes among them.
    pub fn clusters(&self) -> u64 {
        self.clusters
    }

    /// Clusters that are not in holes.
    pub fn allocated(&self) -> u64 {
        self.iter().filter(|run| run.lcn.is_some()).map(|run| run.count).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The runs, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Run> + '_ {
        self.list.iter().map(|&(_, run)| run)
    }

    /// The run with this index and the VCN where it begins.
    pub fn get(&self, index: usize) -> Option<(Vcn, Run)> {
        self.list.get(index).copied()
    }

    /// Adds a run at the end, to the last one where it follows that.
    pub fn push(&mut self, run: Run) {
        if run.count == 0 {
            return;
        }
        if let Some((_, last)) = self.list.last_mut() {
            let follows = match (last.lcn, run.lcn) {
                (Some(a), Some(b)) => a + last.count == b,
                (None, None) => true,
                _ => false,
            };
            if follows {
                last.count += run.count;
                self.clusters += run.count;
                return;
            }
        }
        self.list.push((self.end(), run));
        self.clusters += run.count;
    }

    /// The virtual cluster after the last one.
    pub fn end(&self) -> Vcn {
        Vcn(self.clusters)
    }

    /// The place of a virtual cluster; `None` beyond the end.
    pub fn find(&self, vcn: Vcn) -> Option<Place> {
        let index = self.list.partition_point(|&(first, _)| first <= vcn).checked_sub(1)?;
        let (first, run) = *self.list.get(index)?;
        let within = vcn - first;
        let count = run.count.checked_sub(within).filter(|&rest| rest > 0)?;
        Some(Place { lcn: run.lcn.map(|lcn| lcn + within), count })
    }

    /// Cuts it off after `clusters` clusters and returns the runs that it loses.
    pub fn truncate(&mut self, clusters: u64) -> Vec<Run> {
        let mut cut = Vec::new();
        while let Some(&(first, run)) = self.list.last() {
            if first + run.count <= Vcn(clusters) {
                break;
            }
            self.list.pop();
            let keep = clusters.saturating_sub(first.0);
            if keep > 0 {
                self.list.push((first, Run { lcn: run.lcn, count: keep }));
            }
            let lcn = run.lcn.map(|lcn| lcn + keep);
            cut.push(Run { lcn, count: run.count - keep });
        }
        self.clusters = self.clusters.min(clusters);
        cut
    }

    /// The runs of some virtual clusters, clipped to them.
    pub fn part(&self, vcns: Range<Vcn>) -> impl Iterator<Item = Run> + '_ {
        let from = self.list.partition_point(|&(first, run)| first + run.count <= vcns.start);
        let touching = self.list[from..].iter().take_while(move |(first, _)| *first < vcns.end);
        touching
            .map(move |&(first, run)| {
                let skip = vcns.start.0.saturating_sub(first.0);
                let end = vcns.end.min(first + run.count);
                Run {
                    lcn: run.lcn.map(|lcn| lcn + skip),
                    count: end.0.saturating_sub(first.0 + skip),
                }
            })
            .filter(|run| run.count > 0)
    }

    /// The same runs with other clusters for the virtual clusters `vcns`, which `with` covers.
    pub fn replaced(&self, vcns: Range<Vcn>, with: &Self) -> Self {
        let before = self.part(Vcn(0)..vcns.start);
        before.chain(with.iter()).chain(self.part(vcns.end..self.end())).collect()
    }

    /// Adds mapping pairs up to their end mark, as they stand in one record. The
    /// error says in words what is wrong.
    pub fn decode(&mut self, pairs: &[u8], geometry: &Geometry) -> Result<(), String> {
        let (mut at, mut lcn) = (0, 0i64);
        loop {
            let Some(&head) = pairs.get(at) else { return Err("it has no end".to_owned()) };
            if head == 0 {
                return Ok(());
            }
            let (length, offset) = (usize::from(head & 15), usize::from(head >> 4));
            let body = pairs.get(at + 1..at + 1 + length + offset);
            let Some(body) = body.filter(|_| (1..=8).contains(&length) && offset <= 8) else {
                return Err(format!("a mapping pair begins with {head:#04x} at byte {at}"));
            };
            let count = signed(&body[..length]);
            let end = u64::try_from(count).ok().and_then(|count| self.clusters.checked_add(count));
            if count <= 0 || end.is_none_or(|end| end > 1 << 52) || self.list.len() >= RUNS_MAX {
                return Err(format!("run {} has {count} clusters", self.list.len()));
            }
            let count = count.unsigned_abs();
            let run = if offset == 0 {
                Run { lcn: None, count }
            } else {
                lcn = lcn.wrapping_add(signed(&body[length..]));
                match u64::try_from(lcn) {
                    Ok(first)
                        if first < geometry.clusters && count <= geometry.clusters - first =>
                    {
                        Run { lcn: Some(Lcn(first)), count }
                    }
                    _ => {
                        return Err(format!(
                            "a run of {count} clusters from cluster {lcn}, of {} clusters",
                            geometry.clusters
                        ));
                    }
                }
            };
            self.push(run);
            at += 1 + length + offset;
        }
    }

    /// Mapping pairs of the runs from index `from` on, with the end mark, in at most `room` bytes;
    /// and the index of the first run that they do not hold.
    pub fn encode(&self, from: usize, room: usize) -> (Vec<u8>, usize) {
        let (mut out, mut last, mut index) = (Vec::new(), 0i64, from);
        for &(_, run) in self.list.iter().skip(from) {
            let (count, length) = shortest(run.count.cast_signed());
            let (delta, offset) = match run.lcn {
                Some(lcn) => shortest((lcn.0.cast_signed()).wrapping_sub(last)),
                None => ([0; 8], 0),
            };
            if out.len() + 1 + length + offset + 1 > room {
                break;
            }
            out.push(to_u8(length) | to_u8(offset) << 4);
            out.extend_from_slice(&count[..length]);
            out.extend_from_slice(&delta[..offset]);
            last = run.lcn.map_or(last, |lcn| lcn.0.cast_signed());
            index += 1;
        }
        out.push(0);
        (out, index)
    }
}

impl FromIterator<Run> for Runs {
    fn from_iter<T: IntoIterator<Item = Run>>(runs: T) -> Self {
        let mut out = Self::default();
        runs.into_iter().for_each(|run| out.push(run));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn geometry(clusters: u64) -> Geometry {
        Geometry {
            sector: 512,
            cluster: 4096,
            clusters,
            size: clusters * 4096,
            record: 1024,
            mft_lcn: Lcn(4),
            mirror_lcn: Lcn(2),
            serial: 0,
        }
    }

    #[test]
    fn runs_come_back_from_their_pairs_in_parts_of_any_size() {
        let geometry = geometry(1 << 45);
        let mut random = Random(5);
        for _ in 0..300 {
            let runs: Runs = (0..random.below(30))
                .map(|_| Run {
                    lcn: (random.below(4) > 0)
                        .then(|| Lcn(random.next_u64() >> (20 + random.below(43)))),
                    count: 1 + (random.next_u64() >> (30 + random.below(33))),
                })
                .collect();
            let room = 20 + random.below(60);
            let (mut back, mut from) = (Runs::default(), 0);
            while from < runs.len() || from == 0 {
                let (pairs, next) = runs.encode(from, room);
                assert!(pairs.len() <= room);
                back.decode(&pairs, &geometry).unwrap();
                if runs.is_empty() {
                    break;
                }
                assert!(next > from);
                from = next;
            }
            assert_eq!(back, runs);
        }
    }

    #[test]
    fn hostile_pairs_are_refused() {
        let geometry = geometry(1000);
        for (pairs, word) in [
            (&[][..], "no end"),
            (&[0x11, 5], "begins with 0x11"),
            (&[0x10, 5, 0], "begins with 0x10"),
            (&[0x19; 20], "0x19"),
            (&[0x11, 0, 1, 0], "0 clusters"),
            (&[0x11, 0x80, 1, 0], "-128 clusters"),
            (&[0x11, 5, 0x80, 0], "cluster -128"),
            (&[0x12, 0xe9, 0x03, 0, 0], "1001 clusters"),
            (&[0x08, 0, 0, 0, 0, 0, 0, 0, 0x70, 0], "clusters"),
        ] {
            let error = Runs::default().decode(pairs, &geometry).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn found_and_cut() {
        let run = |lcn: Option<u64>, count| Run { lcn: lcn.map(Lcn), count };
        let mut runs: Runs = [run(Some(10), 5), run(Some(15), 2), run(None, 3), run(Some(2), 4)]
            .into_iter()
            .collect();
        assert_eq!((runs.len(), runs.clusters(), runs.allocated()), (3, 14, 11));
        assert_eq!(runs.find(Vcn(6)), Some(Place { lcn: Some(Lcn(16)), count: 1 }));
        assert_eq!(runs.find(Vcn(8)), Some(Place { lcn: None, count: 2 }));
        assert_eq!(runs.find(Vcn(14)), None);
        let clip: Vec<Run> = runs.part(Vcn(5)..Vcn(12)).collect();
        assert_eq!(clip, [run(Some(15), 2), run(None, 3), run(Some(2), 2)]);
        assert!(runs.part(Vcn(4)..Vcn(4)).next().is_none());
        let other: Runs = [run(Some(90), 3)].into_iter().collect();
        let changed: Vec<Run> = runs.replaced(Vcn(6)..Vcn(9), &other).iter().collect();
        let want = [run(Some(10), 6), run(Some(90), 3), run(None, 1), run(Some(2), 4)];
        assert_eq!(changed, want);
        assert_eq!(runs.truncate(3), [run(Some(2), 4), run(None, 3), run(Some(13), 4)]);
        assert_eq!(runs.iter().collect::<Vec<_>>(), [run(Some(10), 3)]);
        assert!(runs.truncate(3).is_empty());
        assert_eq!(runs.truncate(0), [run(Some(10), 3)]);
        assert!(runs.is_empty() && runs.find(Vcn(0)).is_none());
    }
}
