//! Reading the value of an attribute, wherever and however it is kept.

use super::attribute::{Attribute, Body, Mapping};
use super::lznt1;
use super::units::Vcn;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// No compression unit is larger: 16 clusters of 4 KiB.
const UNIT_BYTES_MAX: u64 = 1 << 20;

/// How the bytes of clusters are read.
#[derive(Clone, Copy)]
enum Way {
    /// Through the cache.
    Metadata,
    /// Past it.
    Content,
}

fn corrupt(attribute: &Attribute, detail: &str) -> Error {
    let name = crate::error::display_name(&crate::utf16::to_utf8(&attribute.name));
    Error::corrupt("attribute", format!("{:#x} \"{name}\"", attribute.type_code), detail)
}

impl Volume {
    /// Fills `buf` from a value that the system itself uses. It must have the bytes.
    pub fn read_metadata(&self, attribute: &Attribute, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read_exact(attribute, offset, buf, Way::Metadata)
    }

    /// Fills `buf` from the value of an attribute. It must have the bytes.
    pub fn read_content(&self, attribute: &Attribute, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.read_exact(attribute, offset, buf, Way::Content)
    }

    /// Reads from a value; the count is less than `buf.len()` only at its end.
    pub fn read_value(&self, attribute: &Attribute, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let count = to_usize(attribute.size().saturating_sub(offset).min(to_u64(buf.len())));
        self.read_content(attribute, offset, &mut buf[..count])?;
        Ok(count)
    }

    /// The whole value, which has at most `most` bytes.
    pub fn whole_value(&self, attribute: &Attribute, most: u64) -> Result<Vec<u8>> {
        if attribute.size() > most {
            let detail = format!("it has {} bytes, and {most} are the most", attribute.size());
            return Err(corrupt(attribute, &detail));
        }
        let mut bytes = vec![0; to_usize(attribute.size())];
        self.read_content(attribute, 0, &mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(
        &self,
        attribute: &Attribute,
        offset: u64,
        buf: &mut [u8],
        way: Way,
    ) -> Result<()> {
        if attribute.is_encrypted() && !buf.is_empty() {
            return Err(Error::unsupported(
                "reading a file that is encrypted (EFS)",
                "decrypt it in Windows, whose keys it needs",
            ));
        }
        let end = offset.checked_add(to_u64(buf.len()));
        if end.is_none_or(|end| end > attribute.size()) {
            return Err(corrupt(attribute, "it is shorter than what uses it wants"));
        }
        match &attribute.body {
            Body::Resident(value) => {
                let from = to_usize(offset);
                buf.copy_from_slice(&value[from..from + buf.len()]);
                Ok(())
            }
            Body::Mapped(mapping) => {
                // The bytes after the valid part are zeros, whatever the clusters hold.
                let valid = to_usize(mapping.valid.saturating_sub(offset).min(to_u64(buf.len())));
                buf[valid..].fill(0);
                if attribute.is_compressed() && mapping.unit > 0 {
                    self.read_compressed(attribute, mapping, offset, &mut buf[..valid])
                } else {
                    self.read_clusters(attribute, mapping, offset, &mut buf[..valid], way)
                }
            }
        }
    }

    fn read_clusters(
        &self,
        attribute: &Attribute,
        mapping: &Mapping,
        offset: u64,
        buf: &mut [u8],
        way: Way,
    ) -> Result<()> {
        let cluster = self.geometry.cluster;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + to_u64(done);
            let Some(place) = mapping.runs.find(Vcn::of_byte(at, cluster)) else {
                return Err(corrupt(attribute, "its clusters end before its size"));
            };
            let rest = place.count.saturating_mul(cluster) - at % cluster;
            let count = to_usize(rest.min(to_u64(buf.len() - done)));
            let part = &mut buf[done..done + count];
            match (place.lcn, way) {
                (None, _) => part.fill(0),
                (Some(lcn), Way::Metadata) => {
                    self.store.read(lcn.byte(cluster) + at % cluster, part)?
                }
                (Some(lcn), Way::Content) => {
                    self.store.read_content(lcn.byte(cluster) + at % cluster, part)?;
                }
            }
            done += count;
        }
        Ok(())
    }

    /// Reads compressed content: unit by unit, each of which is stored as it is, or is a hole, or
    /// begins with fewer clusters than it has and ends with a hole.
    fn read_compressed(
        &self,
        attribute: &Attribute,
        mapping: &Mapping,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let cluster = self.geometry.cluster;
        let clusters = 1u64 << mapping.unit;
        let size = clusters.saturating_mul(cluster);
        if size > UNIT_BYTES_MAX {
            return Err(corrupt(attribute, &format!("its compression units have {size} bytes")));
        }
        let mut unit = vec![0; to_usize(size)];
        let mut done = 0;
        while done < buf.len() {
            let at = offset + to_u64(done);
            let within = to_usize(at % size);
            let count = (unit.len() - within).min(buf.len() - done);
            self.read_unit(attribute, mapping, Vcn(at / size * clusters), &mut unit)?;
            buf[done..done + count].copy_from_slice(&unit[within..within + count]);
            done += count;
        }
        Ok(())
    }

    fn read_unit(
        &self,
        attribute: &Attribute,
        mapping: &Mapping,
        first: Vcn,
        unit: &mut [u8],
    ) -> Result<()> {
        let cluster = self.geometry.cluster;
        let clusters = to_u64(unit.len()) / cluster;
        let mut taken: u64 = 0;
        while taken < clusters {
            match mapping.runs.find(first + taken) {
                Some(place) if place.lcn.is_some() => taken += place.count,
                _ => break,
            }
        }
        let taken = taken.min(clusters);
        unit.fill(0);
        let offset = first.byte(cluster);
        if taken == clusters {
            return self.read_clusters(attribute, mapping, offset, unit, Way::Content);
        }
        if taken == 0 {
            return Ok(());
        }
        let mut packed = vec![0; to_usize(taken * cluster)];
        self.read_clusters(attribute, mapping, offset, &mut packed, Way::Content)?;
        lznt1::expand_unit(&packed, unit)
            .map_err(|text| corrupt(attribute, &format!("the unit at byte {offset}: {text}")))
    }
}
