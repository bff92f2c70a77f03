//! The clusters of the file that hold tables: guest data never goes there, whatever a damaged or
//! hostile entry says.

use std::collections::BTreeSet;

use super::error::{Error, Result};

/// More tables than these are not remembered: 8 MiB of memory.
const MOST: usize = 1 << 20;

/// Cluster numbers that hold tables.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// First and last cluster of each longer structure, sorted.
    ranges: Vec<(u64, u64)>,
    /// Tables of one cluster that were there at the beginning, sorted.
    singles: Vec<u64>,
    added: BTreeSet<u64>,
    removed: BTreeSet<u64>,
}

impl Metadata {
    /// Remembers the clusters `first..first + count`; call [`Metadata::seal`] before use.
    pub(crate) fn range(&mut self, first: u64, count: u64) {
        if count > 0 {
            self.ranges.push((first, first.saturating_add(count - 1)));
        }
    }

    /// Remembers one cluster; whether there was room.
    pub(crate) fn single(&mut self, cluster: u64) {
        if self.singles.len() < MOST {
            self.singles.push(cluster);
        }
    }

    /// Sorts, and refuses an image in which two structures overlap.
    pub(crate) fn seal(&mut self, cluster_size: u64) -> Result<()> {
        self.ranges.sort_unstable();
        self.singles.sort_unstable();
        let twice = |cluster: u64| {
            let detail = "two of the image's own tables share this cluster";
            Error::corrupt("metadata", cluster.saturating_mul(cluster_size), detail)
        };
        if let Some(pair) = self.ranges.windows(2).find(|pair| pair[1].0 <= pair[0].1) {
            return Err(twice(pair[1].0));
        }
        if let Some(pair) = self.singles.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(twice(pair[0]));
        }
        match self.singles.iter().find(|cluster| self.in_ranges(**cluster)) {
            Some(cluster) => Err(twice(*cluster)),
            None => Ok(()),
        }
    }

    fn in_ranges(&self, cluster: u64) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= cluster);
        after > 0 && cluster <= self.ranges[after - 1].1
    }

    /// Whether a table is there.
    pub(crate) fn contains(&self, cluster: u64) -> bool {
        if self.added.contains(&cluster) {
            return true;
        }
        (self.in_ranges(cluster) || self.singles.binary_search(&cluster).is_ok())
            && !self.removed.contains(&cluster)
    }

    /// A table is there from now on.
    pub(crate) fn add(&mut self, cluster: u64) {
        self.removed.remove(&cluster);
        self.added.insert(cluster);
    }

    /// No table is there any more.
    pub(crate) fn remove(&mut self, cluster: u64) {
        self.added.remove(&cluster);
        if self.contains(cluster) {
            self.removed.insert(cluster);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_known_and_may_move() {
        let mut metadata = Metadata::default();
        metadata.range(3, 2);
        metadata.range(0, 1);
        metadata.single(9);
        metadata.seal(512).unwrap();
        let known = |metadata: &Metadata| {
            (0..12).filter(|cluster| metadata.contains(*cluster)).collect::<Vec<_>>()
        };
        assert_eq!(known(&metadata), [0, 3, 4, 9]);
        metadata.add(10);
        metadata.remove(4);
        metadata.remove(9);
        assert_eq!(known(&metadata), [0, 3, 10]);
        metadata.add(9);
        metadata.remove(10);
        assert_eq!(known(&metadata), [0, 3, 9]);
    }

    #[test]
    fn overlaps_are_refused() {
        for (range, single) in [((2, 2), 3), ((0, 9), 20), ((5, 1), 4)] {
            let mut metadata = Metadata::default();
            metadata.range(0, 1);
            metadata.single(4);
            metadata.range(range.0, range.1);
            metadata.single(single);
            assert!(metadata.seal(512).is_err(), "{range:?} {single}");
        }
    }
}
