//! The file allocation table, in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::boot::{Geometry, Width};
use super::units::{Cluster, TableByte};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::{low8, to_u32, to_u64, to_usize};

/// The bits of an entry of FAT32 that count.
const MASK: u32 = 0x0fff_ffff;
/// Entries from here on end a chain, whatever the width (they are widened when read).
const LAST: u32 = 0x0fff_fff8;
/// The entry that ends a chain of ours.
const END: u32 = MASK;
/// A cluster that cannot be used.
const BAD: u32 = 0x0fff_fff7;

/// All entries, with changes that are not on the device yet.
pub(super) struct Table {
    /// As they are to be, but that freed ones keep their chains.
    entries: Vec<u32>,
    width: Width,
    /// The device's entries, of those that changed.
    old: BTreeMap<Cluster, u32>,
    /// Clusters that become free at the commit, and are not used before.
    freed: BTreeSet<Cluster>,
    /// The start of the search for a free cluster.
    next: Cluster,
    free: u32,
}

impl Table {
    pub(super) fn read(device: &dyn BlockDevice, geometry: &Geometry) -> Result<Self> {
        let count = geometry.end.index();
        let bytes = (to_u64(count) * geometry.width.bits()).div_ceil(8);
        let mut raw = vec![0; to_usize(bytes)];
        let at = geometry.table + geometry.active.unwrap_or(0) * geometry.table_size;
        device.read_at(at.get(), &mut raw)?;
        let byte = |at: usize| u32::from(raw.get(at).copied().unwrap_or(0));
        let entry = |index: usize| match geometry.width {
            Width::Fat12 => {
                let at = index * 3 / 2;
                let pair = byte(at) | byte(at + 1) << 8;
                widen(if index.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }, 0xff7, 0xfff)
            }
            Width::Fat16 => widen(byte(2 * index) | byte(2 * index + 1) << 8, 0xfff7, 0xffff),
            Width::Fat32 => {
                let low = byte(4 * index) | byte(4 * index + 1) << 8;
                low | byte(4 * index + 2) << 16 | byte(4 * index + 3) << 24
            }
        };
        let entries: Vec<u32> = (0..count).map(entry).collect();
        let free = to_u32(entries[2..].iter().filter(|&&entry| entry & MASK == 0).count());
        let width = geometry.width;
        let (old, freed) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { entries, width, old, freed, next: Cluster::FIRST, free })
    }

    /// Free clusters, those among them that become free at the commit.
    pub(super) fn free(&self) -> u32 {
        self.free + to_u32(self.freed.len())
    }

    pub(super) fn is_changed(&self) -> bool {
        !self.old.is_empty() || !self.freed.is_empty()
    }

    /// The cluster after the last one.
    fn end(&self) -> Cluster {
        Cluster::new(to_u32(self.entries.len()))
    }

    fn set(&mut self, cluster: Cluster, value: u32) {
        let entry = &mut self.entries[cluster.index()];
        let new = *entry & !MASK | value & MASK;
        if new != *entry {
            self.old.entry(cluster).or_insert(*entry);
            *entry = new;
        }
    }

    /// The clusters of a chain. An end that is none, a loop, or a chain of more than `most`
    /// clusters is an error.
    pub(super) fn chain(&self, first: Cluster, most: usize) -> Result<Vec<Cluster>> {
        let bad = |detail: String| {
            Err(Error::corrupt("cluster chain", format!("cluster {first}"), detail))
        };
        let (mut out, mut at) = (Vec::new(), first);
        loop {
            if !at.is_before(self.end()) {
                return bad(format!("it leads to cluster {at} of {}", self.entries.len()));
            }
            if out.len() >= most.min(self.entries.len()) {
                return bad(format!("it has more than {} clusters, or is a loop", out.len()));
            }
            out.push(at);
            match self.entries[at.index()] & MASK {
                LAST.. => return Ok(out),
                0 => return bad(format!("it leads to cluster {at}, which is free")),
                BAD => return bad(format!("it leads to cluster {at}, which is marked as bad")),
                next => at = Cluster::new(next),
            }
        }
    }

    /// Takes `count` free clusters and makes them a chain; nothing changes when there are too few.
    pub(super) fn allocate(&mut self, count: usize) -> Result<Vec<Cluster>> {
        if count > to_usize(self.free) {
            return Err(Error::NoSpace(format!("{count} clusters wanted, {} are free", self.free)));
        }
        let end = self.end();
        let order = self.next.until(end).chain(Cluster::FIRST.until(self.next));
        let free = |cluster: &Cluster| {
            self.entries[cluster.index()] & MASK == 0 && !self.freed.contains(cluster)
        };
        let taken: Vec<Cluster> = order.filter(free).take(count).collect();
        if taken.len() < count {
            return Err(Error::NoSpace(format!("{count} clusters wanted")));
        }
        for pair in taken.windows(2) {
            self.set(pair[0], pair[1].get());
        }
        if let Some(&last) = taken.last() {
            self.set(last, END);
            let next = Cluster::new(last.get() + 1);
            self.next = if next < end { next } else { Cluster::FIRST };
        }
        self.free -= to_u32(count);
        Ok(taken)
    }

    /// Lets the chain that ends in `last` go on at `first`.
    pub(super) fn join(&mut self, last: Cluster, first: Cluster) {
        self.set(last, first.get());
    }

    /// Lets clusters become free at the commit. Those that are new since the last one are free at
    /// once, and `true` is said for them.
    pub(super) fn release(&mut self, cluster: Cluster) -> bool {
        let is_new = self.is_new(cluster);
        if is_new {
            self.set(cluster, 0);
            self.old.remove(&cluster);
            self.free += 1;
        } else {
            self.freed.insert(cluster);
        }
        is_new
    }

    /// Whether a cluster was free at the last commit and is not now.
    pub(super) fn is_new(&self, cluster: Cluster) -> bool {
        self.old.get(&cluster).is_some_and(|old| old & MASK == 0)
    }

    /// The pieces of the table, a sector each, in which something changed since the last call.
    pub(super) fn take_changes(&mut self, sector: u64) -> Vec<(TableByte, Vec<u8>)> {
        let bits = self.width.bits();
        let mut sectors = BTreeSet::new();
        for &cluster in self.old.keys() {
            let entry = u64::from(cluster.get());
            let first = entry * bits / 8;
            let last = ((entry + 1) * bits).div_ceil(8) - 1;
            sectors.extend([first / sector, last / sector]);
        }
        self.old.clear();
        sectors
            .into_iter()
            .map(|index| TableByte::new(index * sector))
            .map(|at| (at, self.encode(at, sector)))
            .collect()
    }

    /// Frees the clusters that were replaced.
    pub(super) fn free_released(&mut self) {
        for cluster in std::mem::take(&mut self.freed) {
            self.set(cluster, 0);
            self.free += 1;
        }
    }

    /// Bytes of the table from `from`. Bytes after the last entry are not ours and are cut off.
    fn encode(&self, from: TableByte, length: u64) -> Vec<u8> {
        let from = from.get();
        let end = (to_u64(self.entries.len()) * self.width.bits()) / 8;
        let entry = |index: u64| self.entries.get(to_usize(index)).copied().unwrap_or(0);
        let byte = |at: u64| match self.width {
            Width::Fat12 => {
                let pair = at / 3 * 2;
                match at % 3 {
                    0 => entry(pair),
                    1 => entry(pair) >> 8 & 15 | (entry(pair + 1) & 15) << 4,
                    _ => entry(pair + 1) >> 4,
                }
            }
            Width::Fat16 => entry(at / 2) >> (8 * (at % 2)),
            Width::Fat32 => entry(at / 4) >> (8 * (at % 4)),
        };
        // Half an entry at the very end of FAT12 shares its byte with nothing.
        let end = if self.width == Width::Fat12 {
            end.max((to_u64(self.entries.len()) * 3).div_ceil(2))
        } else {
            end
        };
        (from..(from + length).min(end)).map(|at| low8(byte(at))).collect()
    }
}

/// Entries of the narrow forms from `bad` on mean what those of FAT32 do.
fn widen(entry: u32, bad: u32, most: u32) -> u32 {
    if entry >= bad { MASK - (most - entry) } else { entry }
}

#[cfg(test)]
mod tests {
    use super::super::units::VolumeByte;
    use super::*;

    fn table(width: Width, entries: Vec<u32>) -> Table {
        let free = entries[2..].iter().filter(|&&e| e == 0).count() as u32;
        let (old, freed) = (BTreeMap::new(), BTreeSet::new());
        Table { entries, width, old, freed, next: Cluster::FIRST, free }
    }

    #[test]
    fn bytes_come_back() {
        let mut random = crate::testing::Random(8);
        for (width, most) in [(Width::Fat12, 0xfff), (Width::Fat16, 0xffff), (Width::Fat32, MASK)] {
            for count in [3usize, 4, 341, 342, 343, 1000, 1001] {
                let raw = |_| match random.below(3) {
                    0 => most - random.below(9) as u32,
                    _ => random.below(2000) as u32 % most,
                };
                let narrow: Vec<u32> = (0..count).map(raw).collect();
                let bad = most - 8;
                let wide = narrow.iter().map(|&e| widen(e, bad, most)).collect::<Vec<_>>();
                let table = table(width, wide.clone());
                let bytes = table.encode(TableByte::new(0), 1 << 20);
                let geometry = Geometry {
                    width,
                    sector: 512,
                    cluster: 512,
                    table: VolumeByte::default(),
                    table_size: 1 << 16,
                    tables: 1,
                    active: None,
                    fixed_root: None,
                    root_cluster: Cluster::FIRST,
                    data: VolumeByte::default(),
                    end: Cluster::new(count as u32),
                    info: None,
                    serial: 0,
                    label: [0; 11],
                    state: VolumeByte::default(),
                    size: 0,
                };
                let device = crate::MemoryDevice::new(bytes);
                assert_eq!(Table::read(&device, &geometry).unwrap().entries, wide);
            }
        }
    }

    #[test]
    fn chains_are_made_followed_and_freed() {
        let mut table = table(Width::Fat16, vec![END, END, 0, 4, END, 0, 0, 0, 8, 9]);
        let at = Cluster::new;
        assert_eq!(table.chain(at(3), 10).unwrap(), [3, 4].map(at));
        assert!(table.chain(at(8), 100).is_err() && table.chain(at(2), 9).is_err());
        assert!(table.chain(at(0), 9).is_err() && table.chain(at(10), 9).is_err());
        assert_eq!(table.allocate(3).unwrap(), [2, 5, 6].map(at));
        assert_eq!(table.chain(at(2), 10).unwrap(), [2, 5, 6].map(at));
        assert!(!table.release(at(3)) && !table.release(at(4)) && table.release(at(6)));
        assert!(table.allocate(3).is_err(), "clusters that wait to be freed are not used");
        assert_eq!(table.free(), 4);
        table.take_changes(512);
        table.free_released();
        assert_eq!(table.take_changes(512).len(), 1);
        assert_eq!(table.free(), 4);
        assert_eq!(table.allocate(4).unwrap().len(), 4);
    }
}
