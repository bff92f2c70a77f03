//! Discarding: whole clusters are given up, the rest is overwritten with zeros.

use super::entry::{self, Mapping, Plain};
use super::error::Result;
use super::image::Image;

impl Image {
    /// Makes a range read as zeros and gives up the clusters within.
    pub(crate) fn discard(&mut self, offset: u64, length: u64) -> Result<()> {
        self.check_range(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        self.begin_change()?;
        self.zero_range(offset, offset + length)
    }

    /// The same from `at` to `end`, which may lie beyond the disk's end, within the last cluster.
    pub(crate) fn zero_range(&mut self, at: u64, end: u64) -> Result<()> {
        let cluster_size = self.geo.cluster_size();
        let span = self.geo.l2_span();
        let mut at = at;
        while at < end {
            let (cluster, within) = (at / cluster_size, at % cluster_size);
            let cluster_end = (cluster + 1) * cluster_size;
            let next = cluster_end.min(end);
            // The disk may end within its last cluster: that one goes, too.
            if within == 0 && (next == cluster_end || next == self.size) {
                let (index, _) = self.position(cluster);
                if self.tables.offset_of(index)?.is_none() && !self.backed(at) {
                    at = (index + 1).saturating_mul(span).min(end);
                    continue;
                }
                self.discard_cluster(cluster)?;
            } else {
                self.write_cluster(cluster, within, &vec![0; (next - at) as usize])?;
            }
            at = next;
        }
        Ok(())
    }

    fn discard_cluster(&mut self, cluster: u64) -> Result<()> {
        self.bound_memory()?;
        let mapping = self.mapping(cluster)?;
        let start = cluster * self.geo.cluster_size();
        let backed = self.backed(start);
        if let Mapping::Plain(Plain { host: None, zero, .. }) = mapping
            && (zero == self.geo.all_parts() || !backed)
        {
            return Ok(());
        }
        if backed && self.geo.version < 3 {
            // Version 2 has no entry that hides the backing file.
            let zeros = vec![0; self.geo.cluster_size() as usize];
            return self.write_cluster(cluster, 0, &zeros);
        }
        self.may_give_up(mapping)?;
        let (index, within) = self.position(cluster);
        self.own_table(index)?;
        let zero = if backed { self.geo.all_parts() } else { 0 };
        let new = Plain { zero, ..Plain::default() };
        self.tables.set_entry(index, within, entry::encode(self.geo, new))?;
        let geo = self.geo;
        let (refcounts, _) = self.counting()?;
        match mapping {
            Mapping::Plain(Plain { host: Some(host), .. }) => {
                refcounts.free_later(host / geo.cluster_size());
            }
            Mapping::Plain(_) => {}
            Mapping::Compressed { offset, size } => {
                entry::touched(geo, offset, size).for_each(|old| refcounts.free_later(old));
            }
        }
        Ok(())
    }
}
