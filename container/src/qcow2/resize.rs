//! Growth: of the disk, of the level 1 table, of the refcount table.

use super::error::{Error, Result};
use super::image::Image;
use super::layout::{MAX_L1_BYTES, MAX_REFCOUNT_TABLE_BYTES};
use super::width;

impl Image {
    /// Makes the disk longer; the new part reads as zeros.
    pub(crate) fn grow(&mut self, size: u64) -> Result<()> {
        self.check_grow(size)?;
        let needed = self.geo.l1_needed(size);
        self.begin_change()?;
        if needed > self.tables.l1.len() as u64 {
            self.grow_l1(needed)?;
        }
        // Bytes beyond the old end may be anything: the rest of the last cluster, and what the
        // backing file has there. They become zeros while they cannot be seen.
        let cluster_size = self.geo.cluster_size();
        let below = self.backing.as_ref().map_or(0, |backing| backing.len()).min(size);
        let end = self.size.max(below).next_multiple_of(cluster_size);
        if size > self.size {
            self.zero_range(self.size, end)?;
        }
        self.commit()?;
        self.header.raw.size.set(size);
        self.switch_header()?;
        self.size = size;
        Ok(())
    }

    /// Whether the disk can have this size.
    pub(crate) fn check_grow(&self, size: u64) -> Result<()> {
        if size < self.size {
            return Err(Error::Invalid("a disk in a qcow2 image cannot be made smaller"));
        }
        if !size.is_multiple_of(512) {
            return Err(Error::Invalid("a disk's size must be a multiple of 512 bytes"));
        }
        if self.extensions.bitmaps.is_some() {
            return Err(Error::unsupported(
                "has bitmaps, which would no longer fit a larger disk",
                "remove them with qemu-img bitmap --remove",
            ));
        }
        if self.geo.version < 3 && self.header.raw.nb_snapshots.get() > 0 {
            return Err(Error::unsupported(
                "is version 2 with snapshots, which do not say the size of their disk",
                "make it version 3 with qemu-img amend -o compat=v3",
            ));
        }
        let needed = self.geo.l1_needed(size);
        if needed * 8 > MAX_L1_BYTES {
            let limit = MAX_L1_BYTES / 8 * self.geo.l2_span();
            return Err(Error::TooLarge {
                what: format!("a disk of {size} bytes"),
                limit: format!("{limit} bytes with clusters of {}", self.geo.cluster_size()),
            });
        }
        Ok(())
    }

    /// Writes the header. After a failure it is unknown which one is on disk.
    fn switch_header(&mut self) -> Result<()> {
        let done = self.header.write(&*self.file).and_then(|()| Ok(self.file.flush()?));
        self.failed |= done.is_err();
        done
    }

    /// Gives the level 1 table `needed` entries: where it is if its last cluster has room, in new
    /// clusters otherwise.
    fn grow_l1(&mut self, needed: u64) -> Result<()> {
        let cluster_size = self.geo.cluster_size();
        let entries = self.tables.l1.len() as u64;
        let old_clusters = self.geo.clusters(entries * 8);
        let clusters = self.geo.clusters(needed * 8);
        if clusters == old_clusters {
            let at = self.tables.l1_offset + entries * 8;
            super::ensure_len(&*self.file, self.tables.l1_offset + needed * 8)?;
            self.file.write_at(at, &vec![0; ((needed - entries) * 8) as usize])?;
            self.commit()?;
            self.header.raw.l1_size.set(needed as u32);
            self.switch_header()?;
            self.tables.l1.resize(needed as usize, 0);
            return Ok(());
        }
        let offset = self.allocate(clusters)?;
        // The new clusters are counted, and all entries are at rest.
        self.commit()?;
        let mut words = self.tables.l1.clone();
        words.resize((clusters * cluster_size / 8) as usize, 0);
        for (number, piece) in words.chunks(8192).enumerate() {
            self.file.write_at(offset + number as u64 * 65_536, &super::bytes(piece))?;
        }
        self.file.flush()?;
        self.header.raw.l1_table_offset.set(offset);
        self.header.raw.l1_size.set(needed as u32);
        self.switch_header()?;
        let old = self.tables.l1_offset / cluster_size;
        words.truncate(needed as usize);
        self.tables.l1 = words;
        self.tables.l1_offset = offset;
        let (refcounts, _) = self.counting()?;
        let new = offset / cluster_size;
        (new..new + clusters).for_each(|cluster| refcounts.metadata.add(cluster));
        (old..old + old_clusters).for_each(|cluster| refcounts.free_later(cluster));
        Ok(())
    }

    /// Replaces the full refcount table by one half as long again, just beyond what the old one
    /// describes, with the blocks that describe the new table.
    pub(crate) fn grow_refcount_table(&mut self) -> Result<()> {
        let geo = self.geo;
        let cluster_size = geo.cluster_size();
        let had_pending = self.refcounts.as_ref().is_some_and(|counts| !counts.pending.is_empty());
        self.commit()?;
        if had_pending {
            // Clusters have become free.
            return Ok(());
        }
        let (refcounts, file) = self.counting()?;
        let (entries, start) = (refcounts.table.len() as u64, refcounts.covered());
        let (per_block, per_cluster) = (geo.refcounts_per_block(), cluster_size / 8);
        let most = MAX_REFCOUNT_TABLE_BYTES / cluster_size;
        let mut clusters = (entries * 3 / 2).div_ceil(per_cluster).max(entries / per_cluster + 1);
        let blocks = loop {
            let blocks = clusters.div_ceil(per_block - 1);
            if entries + blocks <= clusters * per_cluster {
                break blocks;
            }
            clusters += 1;
        };
        if clusters > most {
            return Err(Error::TooLarge {
                what: "the refcount table".to_owned(),
                limit: format!("{MAX_REFCOUNT_TABLE_BYTES} bytes"),
            });
        }
        let total = blocks + clusters;
        super::ensure_len(file, (start + total).saturating_mul(cluster_size))?;
        let mut table = refcounts.table.clone();
        for number in 0..blocks {
            let mut block = vec![0; cluster_size as usize];
            let used = total.saturating_sub(number * per_block).min(per_block);
            for index in 0..used as usize {
                width::set(&mut block, index, geo.refcount_order, 1);
            }
            let offset = (start + number) * cluster_size;
            file.write_at(offset, &block)?;
            table.push(offset);
        }
        table.resize((clusters * per_cluster) as usize, 0);
        let offset = (start + blocks) * cluster_size;
        file.write_at(offset, &super::bytes(&table))?;
        file.flush()?;
        self.header.raw.refcount_table_offset.set(offset);
        self.header.raw.refcount_table_clusters.set(clusters as u32);
        self.switch_header()?;
        let (refcounts, _) = self.counting()?;
        refcounts.moved(offset, table, start..start + total);
        Ok(())
    }
}
