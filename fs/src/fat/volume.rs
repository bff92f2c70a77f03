//! The volume's clusters and directories, with changes that wait for the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zerocopy::FromBytes;

use super::boot::Geometry;
use super::dir::{self, ENTRY, Entry};
use super::layout::ShortEntry;
use super::table::Table;
use super::units::{Cluster, DirId};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::to_usize;

/// No directory is larger: 65,536 entries.
const MOST_DIRECTORY: usize = 65_536 * ENTRY;
/// Bytes that one read gets at most.
const READ_TOGETHER: usize = 1 << 20;
/// Most bytes that wait for the commit.
const MOST_HELD: usize = 256 << 20;

pub(super) struct Volume {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) geometry: Geometry,
    pub(super) table: Table,
    /// Clusters that differ from the device.
    pub(super) clusters: BTreeMap<Cluster, Vec<u8>>,
    /// The root directory of FAT12 and FAT16, when it differs from the device.
    pub(super) root: Option<Vec<u8>>,
    /// Slots that were freed and are not used again, so that a node's number keeps its meaning.
    pub(super) burnt: BTreeSet<(DirId, usize)>,
}

impl Volume {
    pub(super) fn open(device: Arc<dyn BlockDevice>) -> Result<Self> {
        let geometry = Geometry::read(&*device)?;
        let table = Table::read(&*device, &geometry)?;
        let (clusters, burnt) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { device, geometry, table, clusters, root: None, burnt })
    }

    fn read_cluster(&self, cluster: Cluster, buf: &mut [u8]) -> Result<()> {
        match self.clusters.get(&cluster) {
            Some(held) => buf.copy_from_slice(&held[..buf.len()]),
            None => self.device.read_at(self.geometry.place(cluster).get(), buf)?,
        }
        Ok(())
    }

    /// Holds new content of a cluster.
    pub(super) fn write_cluster(&mut self, cluster: Cluster, bytes: Vec<u8>) -> Result<()> {
        let held = self.clusters.len() * self.geometry.cluster;
        if held + bytes.len() > MOST_HELD && !self.clusters.contains_key(&cluster) {
            return Err(Error::Invalid(format!(
                "more than {} MiB of changes to one FAT volume at a time",
                MOST_HELD >> 20
            )));
        }
        self.clusters.insert(cluster, bytes);
        Ok(())
    }

    /// Reads a part of a chain's bytes.
    pub(super) fn read_chain(&self, chain: &[Cluster], offset: u64, buf: &mut [u8]) -> Result<()> {
        let size = self.geometry.cluster;
        let mut cluster = vec![0; size];
        let (mut index, mut within) = (to_usize(offset) / size, to_usize(offset) % size);
        let mut done = 0;
        while done < buf.len() {
            let Some(&number) = chain.get(index) else {
                let text = format!("{} clusters, and byte {offset} is wanted", chain.len());
                return Err(Error::corrupt("cluster chain", "its end", text));
            };
            if within == 0 {
                let together = self.together(&chain[index..], buf.len() - done);
                if together > 0 {
                    let count = together * size;
                    let place = self.geometry.place(number).get();
                    self.device.read_at(place, &mut buf[done..done + count])?;
                    done += count;
                    index += together;
                    continue;
                }
            }
            let count = (size - within).min(buf.len() - done);
            self.read_cluster(number, &mut cluster)?;
            buf[done..done + count].copy_from_slice(&cluster[within..within + count]);
            done += count;
            (index, within) = (index + 1, 0);
        }
        Ok(())
    }

    /// How many clusters at the begin of a chain one read gets: they lie side by side, are as the
    /// device has them, and fit into so many bytes.
    fn together(&self, chain: &[Cluster], bytes: usize) -> usize {
        let Some(first) = chain.first() else { return 0 };
        let most = bytes.min(READ_TOGETHER) / self.geometry.cluster;
        let wanted = first.until(Cluster::new(u32::MAX));
        let side_by_side = wanted.zip(chain.iter().take(most)).take_while(|(wanted, cluster)| {
            wanted == *cluster && !self.clusters.contains_key(cluster)
        });
        side_by_side.count()
    }

    /// The clusters of a file's content.
    pub(super) fn file_chain(&self, entry: &Entry) -> Result<Vec<Cluster>> {
        if entry.cluster.is_none() && entry.size == 0 {
            return Ok(Vec::new());
        }
        self.table.chain(entry.cluster, usize::MAX)
    }

    fn dir_chain(&self, dir: DirId) -> Result<Vec<Cluster>> {
        let first = if dir.is_root() { self.geometry.root_cluster } else { dir.cluster() };
        self.table.chain(first, MOST_DIRECTORY.div_ceil(self.geometry.cluster))
    }

    /// All bytes of a directory.
    pub(super) fn dir_bytes(&self, dir: DirId) -> Result<Vec<u8>> {
        if let (DirId::ROOT, Some((at, size))) = (dir, self.geometry.fixed_root) {
            if let Some(root) = &self.root {
                return Ok(root.clone());
            }
            let mut bytes = vec![0; size];
            self.device.read_at(at.get(), &mut bytes)?;
            return Ok(bytes);
        }
        let chain = self.dir_chain(dir)?;
        let mut bytes = vec![0; chain.len() * self.geometry.cluster];
        self.read_chain(&chain, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Replaces the bytes of a directory, of which the length stays; only clusters that change are
    /// held.
    pub(super) fn set_dir_bytes(&mut self, dir: DirId, bytes: Vec<u8>) -> Result<()> {
        if let (DirId::ROOT, Some(_)) = (dir, self.geometry.fixed_root) {
            self.root = Some(bytes);
            return Ok(());
        }
        let size = self.geometry.cluster;
        let chain = self.dir_chain(dir)?;
        let mut old = vec![0; chain.len() * size];
        self.read_chain(&chain, 0, &mut old)?;
        let changes = bytes.chunks(size).zip(old.chunks(size));
        for (cluster, (new, old)) in chain.into_iter().zip(changes) {
            if old != new {
                self.write_cluster(cluster, new.to_vec())?;
            }
        }
        Ok(())
    }

    /// The entries of a directory.
    pub(super) fn entries(&self, dir: DirId) -> Result<Vec<Entry>> {
        Ok(dir::parse(&self.dir_bytes(dir)?))
    }

    /// Puts entries in a row into a directory, which becomes longer where it must; gives the slot
    /// of the last one.
    pub(super) fn add(&mut self, dir: DirId, entries: &[[u8; ENTRY]]) -> Result<usize> {
        let mut bytes = self.dir_bytes(dir)?;
        let burnt = &self.burnt;
        let avoid = |slot: usize| burnt.contains(&(dir, slot));
        let slot = match dir::room(&bytes, entries.len(), &avoid) {
            (Some(slot), _) => slot,
            (None, from) => {
                let needed = (from + entries.len()) * ENTRY;
                let more = (needed - bytes.len()).div_ceil(self.geometry.cluster);
                let fixed = dir.is_root() && self.geometry.fixed_root.is_some();
                let size = bytes.len() + more * self.geometry.cluster;
                if fixed || size > MOST_DIRECTORY {
                    return Err(Error::NoSpace("the directory takes no more entries".to_owned()));
                }
                let chain = self.dir_chain(dir)?;
                let new = self.table.allocate(more)?;
                for &cluster in &new {
                    self.write_cluster(cluster, vec![0; self.geometry.cluster])?;
                }
                if let (Some(&last), Some(&first)) = (chain.last(), new.first()) {
                    self.table.join(last, first);
                }
                bytes.resize(size, 0);
                from
            }
        };
        dir::put(&mut bytes, slot, entries);
        self.set_dir_bytes(dir, bytes)?;
        Ok(slot + entries.len() - 1)
    }

    /// Changes the short entry at a slot.
    pub(super) fn change(
        &mut self,
        dir: DirId,
        slot: usize,
        change: impl FnOnce(&mut ShortEntry),
    ) -> Result<()> {
        let mut bytes = self.dir_bytes(dir)?;
        let raw = bytes.get_mut(slot * ENTRY..(slot + 1) * ENTRY);
        if let Some(Ok(raw)) = raw.map(ShortEntry::mut_from_bytes) {
            change(raw);
        }
        self.set_dir_bytes(dir, bytes)
    }

    /// Frees an entry's slots.
    pub(super) fn erase(&mut self, dir: DirId, entry: &Entry) -> Result<()> {
        let mut bytes = self.dir_bytes(dir)?;
        dir::erase(&mut bytes, entry.slots.clone());
        self.burnt.extend(entry.slots.clone().map(|slot| (dir, slot)));
        self.set_dir_bytes(dir, bytes)
    }

    /// Lets a chain become free.
    pub(super) fn release(&mut self, chain: &[Cluster]) {
        for &cluster in chain {
            if self.table.release(cluster) {
                self.clusters.remove(&cluster);
            }
        }
    }

    /// Takes clusters for `content` and holds it there; gives the first one, none for no content.
    pub(super) fn store(&mut self, content: &[u8]) -> Result<Cluster> {
        let size = self.geometry.cluster;
        let chain = self.table.allocate(content.len().div_ceil(size))?;
        for (&cluster, part) in chain.iter().zip(content.chunks(size)) {
            let mut bytes = part.to_vec();
            bytes.resize(size, 0);
            if let Err(error) = self.write_cluster(cluster, bytes) {
                self.release(&chain);
                return Err(error);
            }
        }
        Ok(chain.first().copied().unwrap_or(Cluster::NONE))
    }
}
