//! One MFT record: its header, and the bytes around the attributes.

use zerocopy::{FromBytes, IntoBytes};

use super::attribute::{self, Attribute};
use super::boot::Geometry;
use super::fixup;
use super::layout::{AttributeHeader, END, FileRecord, Reference, Resident, record_flags};
use super::units::RecordNumber;
use crate::error::{Error, Result};
use crate::num::{to_u16, to_u32, to_usize};

/// Bytes after the last attribute: the end mark, and four bytes of padding.
pub const END_MARK: usize = 8;
const HEAD: usize = size_of::<FileRecord>();

/// A record whose update sequence has been checked and undone.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its number.
    pub number: RecordNumber,
    /// Its header.
    pub head: FileRecord,
    bytes: Vec<u8>,
}

/// An error about a record.
pub fn corrupt(number: RecordNumber, detail: impl Into<String>) -> Error {
    Error::corrupt("MFT record", format!("record {number}"), detail)
}

impl Record {
    /// Checks a record as the device has it.
    pub fn parse(number: RecordNumber, mut bytes: Vec<u8>) -> Result<Self> {
        fixup::apply(&mut bytes, b"FILE").map_err(|text| corrupt(number, text))?;
        let Ok((head, _)) = FileRecord::read_from_prefix(&bytes) else {
            return Err(corrupt(number, format!("it has {} bytes", bytes.len())));
        };
        let sequence = usize::from(head.update_sequence_array_offset.get());
        let after = sequence + 2 * usize::from(head.update_sequence_array_size.get());
        let first = usize::from(head.first_attribute_offset.get());
        // Before NTFS 3.1 the header had 42 bytes.
        if sequence < 42 || first < after || first % 8 != 0 || first + END_MARK > bytes.len() {
            return Err(corrupt(
                number,
                format!("its update sequence is at byte {sequence}, its attributes at {first}"),
            ));
        }
        if sequence >= HEAD && head.segment_number.get() != number.low() {
            return Err(corrupt(number, format!("it says it is {}", head.segment_number.get())));
        }
        Ok(Self { number, head, bytes })
    }

    /// A record that was never in use.
    pub fn new(number: RecordNumber, geometry: &Geometry) -> Self {
        let array = geometry.record / fixup::STRIDE + 1;
        let first = (HEAD + 2 * array).next_multiple_of(8);
        let head = FileRecord {
            signature: *b"FILE",
            update_sequence_array_offset: to_u16(HEAD).into(),
            update_sequence_array_size: to_u16(array).into(),
            lsn: 0.into(),
            sequence_number: 1.into(),
            reference_count: 0.into(),
            first_attribute_offset: to_u16(first).into(),
            flags: 0.into(),
            first_free_byte: to_u32(first + END_MARK).into(),
            bytes_available: to_u32(geometry.record).into(),
            base_file_record_segment: 0.into(),
            next_attribute_instance: 0.into(),
            unused: 0.into(),
            segment_number: number.low().into(),
        };
        let mut bytes = vec![0; geometry.record];
        // No attributes.
        bytes[first..first + 4].copy_from_slice(&END.to_le_bytes());
        Self { number, head, bytes }
    }

    /// Takes over the number of the last update sequence, so that the next one differs.
    pub fn continue_updates(&mut self, old: &Self) {
        let own = usize::from(self.head.update_sequence_array_offset.get());
        let at = usize::from(old.head.update_sequence_array_offset.get());
        if let (Some(from), Some(to)) =
            (old.bytes.get(at..at + 2), self.bytes.get_mut(own..own + 2))
        {
            to.copy_from_slice(from);
        }
    }

    /// Whether a file has it.
    pub fn is_in_use(&self) -> bool {
        self.head.flags.get() & record_flags::IN_USE != 0
    }

    /// The record that this one continues, or `None` in a file's first record.
    pub fn base(&self) -> Option<Reference> {
        let base = self.head.base_file_record_segment.get();
        (base != 0).then_some(Reference(base))
    }

    /// The reference that names this record.
    pub fn reference(&self) -> Reference {
        Reference::new(self.number, self.head.sequence_number.get())
    }

    /// Bytes that attributes can have, without the end mark.
    pub fn room(&self) -> usize {
        let first = usize::from(self.head.first_attribute_offset.get());
        self.bytes.len().saturating_sub(first + END_MARK)
    }

    /// Its attributes, or parts of them.
    pub fn attributes(&self, geometry: &Geometry) -> Result<Vec<Attribute>> {
        let first = usize::from(self.head.first_attribute_offset.get());
        attribute::parse(&self.bytes, first, geometry).map_err(|text| corrupt(self.number, text))
    }

    /// Replaces all attributes by encoded ones, which must fit ([`Record::room`]).
    pub fn set_attributes(&mut self, attributes: &[u8]) -> Result<()> {
        if attributes.len() > self.room() {
            let detail = format!("it has no room for {} bytes of attributes", attributes.len());
            return Err(corrupt(self.number, detail));
        }
        let first = usize::from(self.head.first_attribute_offset.get());
        let end = first + attributes.len();
        self.bytes[first..end].copy_from_slice(attributes);
        self.bytes[end..].fill(0);
        self.bytes[end..end + 4].copy_from_slice(&END.to_le_bytes());
        self.head.first_free_byte = to_u32(end + END_MARK).into();
        Ok(())
    }

    /// The value of a resident attribute without a name, to be changed in place.
    pub fn resident_mut(
        &mut self,
        type_code: u32,
        geometry: &Geometry,
    ) -> Result<Option<&mut [u8]>> {
        // This checks all lengths.
        self.attributes(geometry)?;
        let mut at = usize::from(self.head.first_attribute_offset.get());
        while let Some(rest) = self.bytes.get(at..) {
            let Ok((head, after)) = AttributeHeader::read_from_prefix(rest) else { break };
            if head.type_code.get() == END {
                break;
            }
            let found = head.type_code.get() == type_code && head.name_length == 0;
            if let (true, 0, Ok((form, _))) =
                (found, head.form_code, Resident::read_from_prefix(after))
            {
                let from = at + usize::from(form.value_offset.get());
                return Ok(self.bytes.get_mut(from..from + to_usize(form.value_length.get())));
            }
            at += to_usize(head.record_length.get());
        }
        Ok(None)
    }

    /// The record as it is to be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        // The header may be shorter than the structure: then the update sequence begins within.
        let head = HEAD.min(usize::from(self.head.update_sequence_array_offset.get()));
        bytes[..head].copy_from_slice(&self.head.as_bytes()[..head]);
        fixup::protect(&mut bytes).map_err(|text| corrupt(self.number, text))?;
        Ok(bytes)
    }

    /// Whether two records say the same, whatever was written how often.
    pub fn same_content(&self, other: &Self) -> bool {
        let first = usize::from(self.head.first_attribute_offset.get());
        self.head.as_bytes() == other.head.as_bytes() && self.bytes[first..] == other.bytes[first..]
    }
}
