//! Numbers of FAT that must not be taken for each other.

use std::fmt;
use std::ops::Add;

use crate::num::{to_u64, to_usize};

/// A cluster. Data begin at cluster 2; on disk 0 means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Cluster(u32);

impl Cluster {
    /// No cluster.
    pub(super) const NONE: Self = Self(0);
    /// The first one with data.
    pub(super) const FIRST: Self = Self(2);

    /// Cluster `number`.
    pub(super) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub(super) const fn get(self) -> u32 {
        self.0
    }

    /// Whether this is 0: no cluster.
    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Its entry in the table.
    pub(super) fn index(self) -> usize {
        to_usize(self.0)
    }

    /// Whether it is one with data, before `end`.
    pub(super) fn is_before(self, end: Self) -> bool {
        self >= Self::FIRST && self < end
    }

    /// The clusters from this one to before `end`.
    pub(super) fn until(self, end: Self) -> impl Iterator<Item = Self> {
        (self.0..end.0).map(Self)
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A directory: the root, which has no cluster of its own in FAT12 and FAT16, or a directory by its
/// first cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DirId(Cluster);

impl DirId {
    /// The root directory of every kind of FAT.
    pub(super) const ROOT: Self = Self(Cluster::NONE);

    /// The directory that begins at a cluster.
    pub(super) const fn at(first: Cluster) -> Self {
        Self(first)
    }

    /// Its first cluster as `..` names it: none for the root.
    pub(super) const fn cluster(self) -> Cluster {
        self.0
    }

    /// Whether this is the root.
    pub(super) fn is_root(self) -> bool {
        self == Self::ROOT
    }
}

/// A byte of the volume, counted from its first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct VolumeByte(u64);

impl VolumeByte {
    /// Byte `offset` of the volume.
    pub(super) const fn new(offset: u64) -> Self {
        Self(offset)
    }

    /// Its offset, as a device takes it.
    pub(super) const fn get(self) -> u64 {
        self.0
    }
}

impl Add<u64> for VolumeByte {
    type Output = Self;

    fn add(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

/// A byte of one table, counted from the table's first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TableByte(u64);

impl TableByte {
    /// Byte `offset` of a table.
    pub(super) const fn new(offset: u64) -> Self {
        Self(offset)
    }

    /// Its offset within the table.
    pub(super) const fn get(self) -> u64 {
        self.0
    }
}

impl Add<TableByte> for VolumeByte {
    type Output = Self;

    /// The byte of the volume, where `self` is the first byte of the table.
    fn add(self, byte: TableByte) -> Self {
        Self(self.0 + byte.0)
    }
}

/// The number of a node: the place of its entry. The root has 0.
pub(super) fn node_number(dir: DirId, slot: usize) -> u64 {
    (u64::from(dir.0.0) << 32 | to_u64(slot)) + 1
}

/// The place that a node's number names; `None` for the root.
pub(super) fn node_place(number: u64) -> Option<(DirId, usize)> {
    let place = number.checked_sub(1)?;
    let cluster = crate::num::low32(place >> 32);
    Some((DirId(Cluster(cluster)), to_usize(crate::num::low32(place))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_place() {
        for (cluster, slot) in [(0, 0), (2, 7), (0x0fff_fff0, 65_535)] {
            let dir = DirId::at(Cluster::new(cluster));
            assert_eq!(node_place(node_number(dir, slot)), Some((dir, slot)));
        }
        assert_eq!(node_place(0), None);
        assert!(
            !Cluster::new(1).is_before(Cluster::new(9))
                && !Cluster::new(9).is_before(Cluster::new(9))
        );
    }
}
