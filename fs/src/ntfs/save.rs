//! From a file in memory to its records.
//!
//! Attributes stay in the first record while they fit. The others leave it in this order: values that may
//! lie in clusters go there; then the file gets an attribute list, and attributes that are not
//! needed at once move to records of their own. Those are written anew, never in place, so that a
//! file changes as a whole with its first record.

use std::cmp::Ordering;
use std::sync::Arc;

use super::attribute::{Attribute, Body, Mapping};
use super::inode::{Inode, ListEntry};
use super::layout::{
    ATTRIBUTE_LIST, DATA, FILE_NAME, INDEX_ROOT, Reference, STANDARD_INFORMATION, records,
};
use super::pieces::Step;
use super::record::Record;
use super::units::{RecordNumber, Vcn};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::to_u16;

/// An attribute's instance that has no number yet.
pub(super) const UNNUMBERED: u16 = u16::MAX;
/// Attribute lists of Windows are not larger.
const LIST_MAX: usize = 256 << 10;
/// Room for an attribute list in clusters: its header and a few runs.
const MAPPED_LIST: usize = 64 + 40;

/// A part of an attribute in one of the records.
struct Part {
    attribute: usize,
    /// Index of its first run.
    from: usize,
    bytes: Vec<u8>,
}

/// The content of each record of a file: the first is the base record.
type Layout = Vec<Vec<Part>>;

impl Volume {
    /// Writes a file to its records, of which it may need more or fewer than before.
    pub(super) fn save(&mut self, inode: &mut Inode) -> Result<()> {
        let old = self.read_record(inode.number)?;
        let mut base = old.clone();
        self.sort(inode);
        self.spill(inode, base.room())?;
        base.head.sequence_number = inode.sequence.into();
        base.head.reference_count = inode.links.into();
        base.head.flags = inode.flags.into();
        let total: usize = inode.attributes.iter().map(Attribute::encoded_size).sum();
        let before = (std::mem::take(&mut inode.extensions), inode.list.take());
        if total <= base.room() {
            self.number(inode, &mut base, before.1.is_some());
            let encoded: Vec<u8> = inode
                .attributes
                .iter()
                .flat_map(|a| a.encode(a.instance, 0, usize::MAX, &self.geometry).0)
                .collect();
            base.set_attributes(&encoded)?;
            for &number in &before.0 {
                self.release_record(number)?;
            }
        } else {
            self.save_with_list(inode, &mut base, &before.0)?;
        }
        if let Some(Attribute { body: Body::Mapped(mapping), .. }) = before.1 {
            self.release(mapping.runs.iter())?;
        }
        if inode.number == records::MFT {
            // The places of its records may have changed.
            self.mft = Arc::new(inode.clone());
        }
        if !base.same_content(&old) {
            self.write_record(&base, Step::Record)?;
        }
        self.forget(inode.number);
        if inode.number != records::MFT {
            self.remember(&Arc::new(inode.clone()));
        }
        Ok(())
    }

    /// Attributes stand in the order of their types and names.
    fn sort(&self, inode: &mut Inode) {
        let upcase = self.upcase.clone();
        inode.attributes.sort_by(|a, b| {
            a.type_code.cmp(&b.type_code).then_with(|| match a.name == b.name {
                true => Ordering::Equal,
                false => upcase.compare(&a.name, &b.name),
            })
        });
    }

    /// Moves values to clusters until the attributes fit, or no more can be moved.
    fn spill(&mut self, inode: &mut Inode, room: usize) -> Result<()> {
        loop {
            let total: usize = inode.attributes.iter().map(Attribute::encoded_size).sum();
            if total <= room {
                return Ok(());
            }
            let largest = inode
                .attributes
                .iter_mut()
                .filter(|a| a.value().is_some() && a.may_be_mapped())
                .filter(|a| a.encoded_size() > a.mapped_size())
                .max_by_key(|a| a.encoded_size());
            let Some(attribute) = largest else { return Ok(()) };
            let Body::Resident(value) =
                std::mem::replace(&mut attribute.body, Body::Mapped(Mapping::default()))
            else {
                return Ok(());
            };
            attribute.body = Body::Mapped(self.write_new(&value)?);
        }
    }

    /// Gives numbers to the attributes of a file without a list: those that have one keep it,
    /// unless they come from several records.
    fn number(&self, inode: &mut Inode, base: &mut Record, had_list: bool) {
        let mut next = base.head.next_attribute_instance.get();
        let new = inode.attributes.iter().filter(|a| a.instance == UNNUMBERED).count();
        let renumber = had_list || usize::from(next) + new >= usize::from(UNNUMBERED);
        if renumber {
            next = 0;
        }
        for attribute in &mut inode.attributes {
            if renumber || attribute.instance == UNNUMBERED {
                attribute.instance = next;
                next += 1;
            }
        }
        base.head.next_attribute_instance = next.into();
    }

    fn save_with_list(
        &mut self,
        inode: &mut Inode,
        base: &mut Record,
        old_extensions: &[RecordNumber],
    ) -> Result<()> {
        let room = base.room();
        let capacity = Record::new(records::MFT, &self.geometry).room();
        // Resident as long as it takes no more than a quarter of the record.
        let mut reserved = room / 4;
        let (layout, size) = self.lay_out(inode, room - reserved, capacity)?;
        let (mut layout, mapped) =
            if Attribute::resident(ATTRIBUTE_LIST, &[], vec![0; size]).encoded_size() <= reserved {
                (layout, false)
            } else {
                reserved = MAPPED_LIST;
                (self.lay_out(inode, room - reserved, capacity)?.0, true)
            };
        let mut reusable = old_extensions.to_vec();
        let mut segments = vec![inode.reference()];
        let first = layout.remove(0);
        for parts in &layout {
            let bytes: Vec<u8> = parts.iter().flat_map(|part| part.bytes.iter().copied()).collect();
            let count = to_u16(parts.len());
            let number = self.place_extension(inode, &bytes, count, &mut reusable)?;
            segments.push(number);
        }
        layout.insert(0, first);
        inode.extensions = segments[1..].iter().map(|segment| segment.number()).collect();
        for &number in &reusable {
            self.release_record(number)?;
        }

        // Instance 0 of the base record is the list itself.
        let mut entries: Vec<(usize, usize, ListEntry)> = Vec::new();
        for (slot, parts) in layout.iter().enumerate() {
            for (index, part) in parts.iter().enumerate() {
                let attribute = &inode.attributes[part.attribute];
                let lowest_vcn = attribute
                    .mapping()
                    .and_then(|mapping| mapping.runs.get(part.from))
                    .map_or(Vcn(0), |(vcn, _)| vcn);
                let entry = ListEntry {
                    type_code: attribute.type_code,
                    name: attribute.name.clone(),
                    lowest_vcn,
                    segment: segments[slot],
                    instance: to_u16(index) + u16::from(slot == 0),
                };
                entries.push((part.attribute, part.from, entry));
            }
        }
        entries.sort_by_key(|(attribute, from, _)| (*attribute, *from));
        let value: Vec<u8> = entries.iter().flat_map(|(_, _, entry)| entry.to_bytes()).collect();
        let mut list = Attribute::resident(ATTRIBUTE_LIST, &[], value);
        if let (true, Body::Resident(value)) = (mapped, &list.body) {
            list.body = Body::Mapped(self.write_new(value)?);
        }
        let encoded = list.encode(0, 0, usize::MAX, &self.geometry).0;
        let mut bytes: Vec<u8> = Vec::new();
        let mut listed = false;
        for part in &layout[0] {
            if !listed && inode.attributes[part.attribute].type_code > ATTRIBUTE_LIST {
                bytes.extend_from_slice(&encoded);
                listed = true;
            }
            bytes.extend_from_slice(&part.bytes);
        }
        if !listed {
            bytes.extend_from_slice(&encoded);
        }
        if bytes.len() > room {
            return Err(Error::NoSpace(format!(
                "MFT record {} is too small for an attribute list in so many pieces",
                inode.number
            )));
        }
        base.set_attributes(&bytes)?;
        base.head.next_attribute_instance = (to_u16(layout[0].len()) + 1).into();
        inode.list = Some(list);
        Ok(())
    }

    /// Decides which attribute goes where when `room` bytes of the base record are left for them
    /// and `capacity` bytes are in any other, and says how long the list will be.
    fn lay_out(&self, inode: &Inode, room: usize, capacity: usize) -> Result<(Layout, usize)> {
        let is_mft = inode.number == records::MFT;
        let attributes = &inode.attributes;
        // Attributes that are wanted first stay nearest.
        let rank = |index: usize| match attributes[index].type_code {
            STANDARD_INFORMATION => 0,
            INDEX_ROOT => 1,
            // The MFT's clusters must be known before its other records can be read.
            DATA if is_mft => 3,
            FILE_NAME => 2,
            _ => 4,
        };
        let mut order: Vec<usize> = (0..attributes.len()).collect();
        order.sort_by_key(|&index| {
            let size = if rank(index) == 4 { attributes[index].encoded_size() } else { 0 };
            (rank(index), size, index)
        });
        let mut left = vec![room];
        // For each part: the record, the attribute, its first run and how many bytes it may have.
        let mut places: Vec<(usize, usize, usize, usize)> = Vec::new();
        let mut rest: Vec<(usize, usize)> = Vec::new();
        for index in order {
            let attribute = &attributes[index];
            let size = attribute.encoded_size();
            if size <= left[0] {
                left[0] -= size;
                places.push((0, index, 0, size));
            } else if is_mft && attribute.type_code == DATA && attribute.least_part() <= left[0] {
                let limit = left[0] / 8 * 8;
                let (bytes, next) = attribute.encode(0, 0, limit, &self.geometry);
                left[0] -= bytes.len();
                places.push((0, index, 0, limit));
                rest.push((index, next));
            } else {
                rest.push((index, 0));
            }
        }
        rest.sort_unstable();
        for (index, from) in rest {
            let attribute = &attributes[index];
            let size = attribute.encoded_size();
            let slot = (1..left.len()).find(|&slot| from == 0 && size <= left[slot]);
            if let Some(slot) = slot {
                left[slot] -= size;
                places.push((slot, index, 0, size));
                continue;
            }
            let mut from = from;
            loop {
                if attribute.least_part() > capacity {
                    return Err(Error::NoSpace(format!(
                        "an attribute of {size} bytes fits into no MFT record (record {})",
                        inode.number
                    )));
                }
                let limit = capacity / 8 * 8;
                let (bytes, next) = attribute.encode(0, from, limit, &self.geometry);
                left.push(capacity.saturating_sub(bytes.len()));
                places.push((left.len() - 1, index, from, limit));
                match attribute.mapping() {
                    Some(mapping) if next < mapping.runs.len() => from = next,
                    _ => break,
                }
            }
        }
        places.sort_unstable();
        let mut layout: Layout = left.iter().map(|_| Vec::new()).collect();
        let mut size = 0;
        for (slot, index, from, limit) in places {
            // Instance 0 of the base record is the list.
            let instance = to_u16(layout[slot].len()) + u16::from(slot == 0);
            let bytes = attributes[index].encode(instance, from, limit, &self.geometry).0;
            layout[slot].push(Part { attribute: index, from, bytes });
            size += ListEntry::size(attributes[index].name.len());
        }
        if size > LIST_MAX {
            return Err(Error::NoSpace(format!(
                "the file in MFT record {} is in more pieces than an attribute list can name",
                inode.number
            )));
        }
        Ok((layout, size))
    }

    /// Puts attributes into a record that continues the file: one that holds just these already,
    /// or a new one.
    fn place_extension(
        &mut self,
        inode: &Inode,
        attributes: &[u8],
        count: u16,
        reusable: &mut Vec<RecordNumber>,
    ) -> Result<Reference> {
        let build = |mut record: Record| {
            record.head.next_attribute_instance = count.into();
            record.set_attributes(attributes).map(|()| record)
        };
        for at in 0..reusable.len() {
            let old = self.read_record(reusable[at])?;
            if build(old.clone()).is_ok_and(|new| new.same_content(&old)) {
                reusable.remove(at);
                return Ok(old.reference());
            }
        }
        // One that this transaction made may be written over; so may, in the MFT's own case, any
        // other when there are no more.
        let again = reusable.iter().position(|number| self.space.new_records.contains(number));
        let record = match again {
            Some(at) => self.read_record(reusable.remove(at))?,
            None => match self.allocate_record(Some(inode.reference())) {
                Ok(record) => record,
                Err(Error::NoSpace(_)) if inode.number == records::MFT && !reusable.is_empty() => {
                    self.read_record(reusable.remove(0))?
                }
                Err(error) => return Err(error),
            },
        };
        let record = build(record)?;
        self.write_record(&record, Step::Record)?;
        Ok(record.reference())
    }
}
