//! Writing: where the bytes are if the disk alone uses that cluster, into a new cluster otherwise.

use super::entry::{self, Mapping, Plain};
use super::error::{Error, Result};
use super::image::Image;

impl Image {
    /// Writes `buf` at `offset` of the disk.
    pub(crate) fn write(&mut self, offset: u64, buf: &[u8]) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        if !buf.is_empty() {
            self.begin_change()?;
        }
        let cluster_size = self.geo.cluster_size();
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let within = offset % cluster_size;
            let now = (cluster_size - within).min(rest.len() as u64) as usize;
            let (data, after) = rest.split_at(now);
            self.write_cluster(offset / cluster_size, within, data)?;
            (offset, rest) = (offset + now as u64, after);
        }
        Ok(())
    }

    /// Writes `data` after the first `within` bytes of a guest cluster.
    pub(crate) fn write_cluster(&mut self, cluster: u64, within: u64, data: &[u8]) -> Result<()> {
        self.bound_memory()?;
        let mapping = self.mapping(cluster)?;
        let part_size = self.geo.part_size();
        let first = within / part_size;
        let last = (within + data.len() as u64 - 1) / part_size;
        let touched = parts(first, last);
        let plain = match mapping {
            Mapping::Plain(plain) => plain,
            Mapping::Compressed { offset, size } => {
                return self.write_anew(cluster, within, data, mapping, touched).and_then(|()| {
                    for old in entry::touched(self.geo, offset, size) {
                        self.counting()?.0.free_later(old);
                    }
                    Ok(())
                });
            }
        };
        let start = cluster * self.geo.cluster_size() + first * part_size;
        let not_zero = touched & !plain.zero != 0;
        let zero_now = touched & plain.present == 0 && (!not_zero || !self.backed(start));
        if zero_now && is_zero(data) {
            return Ok(());
        }
        if let Some(host) = plain.host.filter(|_| plain.copied) {
            let number = host / self.geo.cluster_size();
            let (refcounts, file) = self.counting()?;
            if refcounts.get(file, number)? == 1 {
                refcounts.may_free(file, number)?;
                return self.write_in_place(cluster, plain, host, within, data, touched);
            }
        }
        self.write_anew(cluster, within, data, mapping, touched)?;
        if let Some(host) = plain.host {
            let number = host / self.geo.cluster_size();
            self.counting()?.0.free_later(number);
        }
        Ok(())
    }

    /// Overwrites a cluster that the disk alone uses. Parts that were not there are filled first.
    fn write_in_place(
        &mut self,
        cluster: u64,
        plain: Plain,
        host: u64,
        within: u64,
        data: &[u8],
        touched: u32,
    ) -> Result<()> {
        let missing = touched & !plain.present;
        super::ensure_len(&*self.file, host + self.geo.cluster_size())?;
        if missing == 0 {
            return Ok(self.file.write_at(host + within, data)?);
        }
        // The table first: without room for it nothing is written.
        let (index, entry) = self.position(cluster);
        self.own_table(index)?;
        let (low, bytes) = self.with_surroundings(cluster, within, data, touched)?;
        self.file.write_at(host + low, &bytes)?;
        let present = plain.present | touched;
        let new = Plain { present, zero: plain.zero & !touched, ..plain };
        self.tables.set_entry(index, entry, entry::encode(self.geo, new))
    }

    /// Writes a guest cluster into a new cluster of the file. The caller gives up the old one.
    fn write_anew(
        &mut self,
        cluster: u64,
        within: u64,
        data: &[u8],
        mapping: Mapping,
        touched: u32,
    ) -> Result<()> {
        let (present, zero) = match mapping {
            Mapping::Plain(plain) => (plain.present | touched, plain.zero & !touched),
            Mapping::Compressed { .. } => (self.geo.all_parts(), 0),
        };
        self.may_give_up(mapping)?;
        let (index, entry) = self.position(cluster);
        self.own_table(index)?;
        let host = self.allocate(1)?;
        let number = host / self.geo.cluster_size();
        let written = self
            .with_surroundings(cluster, within, data, present)
            .and_then(|(low, bytes)| Ok(self.file.write_at(host + low, &bytes)?));
        if let Err(error) = written {
            self.counting()?.0.free_later(number);
            return Err(error);
        }
        // Allocating may have written everything; the table is still its own, but maybe not loaded.
        self.own_table(index)?;
        let new = Plain { host: Some(host), copied: true, present, zero };
        self.tables.set_entry(index, entry, entry::encode(self.geo, new))
    }

    /// Whether what the entry refers to may be counted down.
    pub(crate) fn may_give_up(&mut self, mapping: Mapping) -> Result<()> {
        let geo = self.geo;
        let (refcounts, file) = self.counting()?;
        match mapping {
            Mapping::Plain(Plain { host: Some(host), .. }) => {
                refcounts.may_free(file, host / geo.cluster_size())
            }
            Mapping::Plain(_) => Ok(()),
            Mapping::Compressed { offset, size } => entry::touched(geo, offset, size)
                .try_for_each(|cluster| refcounts.may_free(file, cluster)),
        }
    }

    /// `data` with what the disk has around it, as far as the parts in `wanted` reach; and where
    /// that begins within the cluster.
    fn with_surroundings(
        &mut self,
        cluster: u64,
        within: u64,
        data: &[u8],
        wanted: u32,
    ) -> Result<(u64, Vec<u8>)> {
        let part_size = self.geo.part_size();
        let low = u64::from(wanted.trailing_zeros()) * part_size;
        let high = u64::from(u32::BITS - wanted.leading_zeros()) * part_size;
        let at = (within - low) as usize;
        if (high - low) as usize == data.len() {
            return Ok((low, data.to_vec()));
        }
        let mut bytes = vec![0; (high - low) as usize];
        self.fill(cluster * self.geo.cluster_size() + low, &mut bytes)?;
        let Some(place) = bytes.get_mut(at..at + data.len()) else {
            return Err(Error::Invalid("a write beyond its cluster"));
        };
        place.copy_from_slice(data);
        Ok((low, bytes))
    }
}

/// Bits `first` to `last`.
fn parts(first: u64, last: u64) -> u32 {
    let count = last - first + 1;
    let ones = if count >= 32 { u32::MAX } else { (1 << count) - 1 };
    ones << first
}

pub(crate) fn is_zero(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}
