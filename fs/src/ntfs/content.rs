//! Writing content: always to clusters that were free, so that the old content is whole until the
//! commit.

use super::attribute::{Attribute, Body, Mapping};
use super::inode::Inode;
use super::layout::attribute_flags::{COMPRESSION_MASK, SPARSE};
use super::mft::end_of;
use super::pieces::Step;
use super::save::UNNUMBERED;
use super::units::Vcn;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// Clusters are filled up with zeros to the next boundary of this size.
const SECTOR: usize = 512;
/// Bytes between ValidDataLength and FileSize that an append fills with zeros.
const GAP_MAX: u64 = 256 << 20;

impl Volume {
    /// Writes a value to new clusters.
    pub(super) fn write_new(&mut self, value: &[u8]) -> Result<Mapping> {
        let size = to_u64(value.len());
        let runs = self.allocate(self.geometry.clusters_for(size), None)?;
        let mut done = 0;
        for run in runs.iter() {
            let room = to_usize(run.count * self.geometry.cluster);
            let part = &value[done..value.len().min(done + room)];
            self.write_at_run(run.lcn.unwrap_or_default().byte(self.geometry.cluster), part)?;
            done += part.len();
        }
        Ok(Mapping { runs, size, valid: size, unit: 0 })
    }

    fn write_at_run(&mut self, place: u64, part: &[u8]) -> Result<()> {
        let mut bytes = part.to_vec();
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        self.store.write(place, bytes, Step::Fresh)
    }

    /// Replaces the value of an attribute, which is made where there is none. The file is not
    /// saved.
    pub(super) fn set_value(
        &mut self,
        inode: &mut Inode,
        type_code: u32,
        name: &[u16],
        value: &[u8],
    ) -> Result<()> {
        let fits = value.len() < self.geometry.record;
        let body = if fits {
            Body::Resident(value.to_vec())
        } else {
            Body::Mapped(self.write_new(value)?)
        };
        let old = inode.remove(type_code, name);
        let mut new = Attribute::resident(type_code, name, Vec::new());
        new.body = body;
        new.instance = UNNUMBERED;
        if let Some(old) = old {
            new.instance = old.instance;
            new.resident_flags = old.resident_flags;
            new.flags = old.flags & !(COMPRESSION_MASK | SPARSE);
            self.release_value(&old)?;
        }
        inode.attributes.push(new);
        Ok(())
    }

    /// Frees the clusters of a value that is not needed any more.
    pub(super) fn release_value(&mut self, attribute: &Attribute) -> Result<()> {
        match attribute.mapping() {
            Some(mapping) => self.release(mapping.runs.iter()),
            None => Ok(()),
        }
    }

    /// Adds to the end of a value that is neither compressed nor sparse. The file is not saved.
    pub(super) fn append_value(
        &mut self,
        inode: &mut Inode,
        type_code: u32,
        name: &[u16],
        more: &[u8],
    ) -> Result<()> {
        let Some(attribute) = inode.find(type_code, name) else {
            return self.set_value(inode, type_code, name, more);
        };
        let Body::Mapped(mapping) = &attribute.body else {
            let mut value = attribute.value().cloned().unwrap_or_default();
            value.extend_from_slice(more);
            return self.set_value(inode, type_code, name, &value);
        };
        let gap = mapping.size - mapping.valid;
        if gap > GAP_MAX {
            return Err(Error::unsupported(
                format!("adding to a file of which {gap} bytes were never written"),
                "write the whole file",
            ));
        }
        let mut mapping = mapping.clone();
        let cluster = self.geometry.cluster;
        // Bytes that were never written are zeros from now on.
        let mut bytes = vec![0; to_usize(gap)];
        bytes.extend_from_slice(more);
        let start = mapping.valid;
        let end = start + to_u64(bytes.len());
        let have = mapping.runs.clusters();
        let wanted = self.geometry.clusters_for(end).saturating_sub(have);
        let new = self.allocate(wanted, end_of(&mapping))?;
        new.iter().for_each(|run| mapping.runs.push(run));
        // The sector in which old and new meet is written whole. After the valid end it holds
        // nothing that counts, so that it may be written before the commit.
        let from = start / to_u64(SECTOR) * to_u64(SECTOR);
        let mut all = vec![0; to_usize(start - from)];
        if !all.is_empty() {
            let old = Attribute { body: Body::Mapped(mapping.clone()), ..attribute.clone() };
            self.read_content(&old, from, &mut all)?;
        }
        all.extend_from_slice(&bytes);
        all.resize(all.len().next_multiple_of(SECTOR), 0);
        let mut done = 0;
        while done < all.len() {
            let at = from + to_u64(done);
            let Some(place) = mapping.runs.find(Vcn::of_byte(at, cluster)) else {
                return Err(inode.corrupt("its clusters end before its size"));
            };
            let Some(lcn) = place.lcn else {
                return Err(inode.corrupt("it has a hole and is not sparse"));
            };
            let rest = place.count.saturating_mul(cluster) - at % cluster;
            let count = to_usize(rest.min(to_u64(all.len() - done)));
            let part = all[done..done + count].to_vec();
            self.store.write(lcn.byte(cluster) + at % cluster, part, Step::Fresh)?;
            done += count;
        }
        mapping.size = end;
        mapping.valid = end;
        if let Some(attribute) = inode.find_mut(type_code, name) {
            attribute.body = Body::Mapped(mapping);
        }
        Ok(())
    }
}
