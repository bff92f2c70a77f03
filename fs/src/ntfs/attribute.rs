//! Attributes: as one record holds them, and as a file has them with all their parts together.

use std::ops::Range;

use zerocopy::{FromBytes, IntoBytes};

use super::boot::Geometry;
use super::layout::{
    AttributeHeader, DATA, END, INDEX_ALLOCATION, INDEX_ROOT, Nonresident, Resident,
    attribute_flags::{COMPRESSED, ENCRYPTED, SPARSE},
};
use super::runs::{Run, Runs};
use super::units::Vcn;
use crate::num::{to_u8, to_u16, to_u32, to_u64, to_usize};
use crate::utf16::{unit_bytes, units};

const HEADER: usize = size_of::<AttributeHeader>();
/// The offset of a resident attribute's name.
const RESIDENT_HEAD: usize = HEADER + size_of::<Resident>();
/// The offset of a non-resident attribute's name; eight bytes on with TotalAllocated.
const NONRESIDENT_HEAD: usize = HEADER + size_of::<Nonresident>();
/// Names of attributes have at most 255 units, and one compression unit at most 64 KiB clusters.
const UNIT_MAX: u8 = 16;

/// The clusters of a non-resident attribute, and how many bytes of them count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Their place.
    pub runs: Runs,
    /// FileSize: bytes of the value.
    pub size: u64,
    /// ValidDataLength: bytes from here to the size read as zeros.
    pub valid: u64,
    /// CompressionUnitSize: the power of two of clusters that are compressed together; 0 for none.
    pub unit: u8,
}

/// The place of an attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In the record.
    Resident(Vec<u8>),
    /// In clusters.
    Mapped(Mapping),
}

/// A whole attribute of a file, or, as [`parse`] gives it, one record's part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// TypeCode.
    pub type_code: u32,
    /// Name; empty for most.
    pub name: Vec<u16>,
    /// Flags: see [`super::layout::attribute_flags`].
    pub flags: u16,
    /// Instance: a number of its own in its record.
    pub instance: u16,
    /// ResidentFlags: 1 when it is the key of an index.
    pub resident_flags: u8,
    /// LowestVcn of a part.
    pub lowest_vcn: Vcn,
    /// Its value.
    pub body: Body,
}

impl Attribute {
    /// A resident attribute.
    pub fn resident(type_code: u32, name: &[u16], value: Vec<u8>) -> Self {
        let resident_flags = u8::from(type_code == super::layout::FILE_NAME);
        Self {
            type_code,
            name: name.to_vec(),
            flags: 0,
            instance: 0,
            resident_flags,
            lowest_vcn: Vcn(0),
            body: Body::Resident(value),
        }
    }

    /// The value, where it is resident.
    pub fn value(&self) -> Option<&Vec<u8>> {
        match &self.body {
            Body::Resident(value) => Some(value),
            Body::Mapped(_) => None,
        }
    }

    /// The clusters, where it is not resident.
    pub fn mapping(&self) -> Option<&Mapping> {
        match &self.body {
            Body::Resident(_) => None,
            Body::Mapped(mapping) => Some(mapping),
        }
    }

    /// Bytes of the value.
    pub fn size(&self) -> u64 {
        match &self.body {
            Body::Resident(value) => to_u64(value.len()),
            Body::Mapped(mapping) => mapping.size,
        }
    }

    /// Whether it is compressed or sparse and has TotalAllocated for that.
    fn is_thin(&self) -> bool {
        self.flags & (COMPRESSED | SPARSE) != 0
    }

    /// AllocatedLength as a directory entry has it: bytes of clusters taken.
    pub fn allocated(&self, geometry: &Geometry) -> u64 {
        match &self.body {
            Body::Resident(value) => to_u64(value.len()).next_multiple_of(8),
            Body::Mapped(mapping) if self.is_thin() => mapping.runs.allocated() * geometry.cluster,
            Body::Mapped(mapping) => mapping.runs.clusters() * geometry.cluster,
        }
    }

    /// The offset of the value or the mapping pairs in a record's part of the attribute.
    fn body_offset(&self) -> usize {
        let head = match &self.body {
            Body::Resident(_) => RESIDENT_HEAD,
            Body::Mapped(_) if self.is_thin() => NONRESIDENT_HEAD + 8,
            Body::Mapped(_) => NONRESIDENT_HEAD,
        };
        (head + 2 * self.name.len()).next_multiple_of(8)
    }

    /// Bytes in a record, as a whole.
    pub fn encoded_size(&self) -> usize {
        let body = match &self.body {
            Body::Resident(value) => value.len(),
            Body::Mapped(mapping) => mapping.runs.encode(0, usize::MAX).0.len(),
        };
        (self.body_offset() + body).next_multiple_of(8)
    }

    /// Bytes in a record when it is made non-resident in one run.
    pub fn mapped_size(&self) -> usize {
        (NONRESIDENT_HEAD + 2 * self.name.len()).next_multiple_of(8) + 16
    }

    /// Whether its value may lie in clusters.
    pub fn may_be_mapped(&self) -> bool {
        // 0xd0 is $EA_INFORMATION; types of 0xe0 and up are $EA and what Windows adds.
        matches!(self.type_code, DATA | 0x50 | 0xb0 | 0xc0 | 0xe0 | 0x100)
    }

    /// The least room in which a part of it makes sense: it must hold one run.
    pub fn least_part(&self) -> usize {
        match &self.body {
            Body::Resident(_) => self.encoded_size(),
            // One pair has at most 17 bytes, and there is the end mark.
            Body::Mapped(_) => self.body_offset() + 24,
        }
    }

    /// The attribute, or its runs from index `from` on, as bytes in at most `room`; and the index
    /// of the first run that found no room.
    pub fn encode(
        &self,
        instance: u16,
        from: usize,
        room: usize,
        geometry: &Geometry,
    ) -> (Vec<u8>, usize) {
        let body_at = self.body_offset();
        let mut out = self.head(instance);
        let mut next = 0;
        let name_at;
        match &self.body {
            Body::Resident(value) => {
                let resident = Resident {
                    value_length: to_u32(value.len()).into(),
                    value_offset: to_u16(body_at).into(),
                    resident_flags: self.resident_flags,
                    reserved: 0,
                };
                out.extend_from_slice(resident.as_bytes());
                name_at = out.len();
                out.extend(unit_bytes(&self.name));
                out.resize(body_at, 0);
                out.extend_from_slice(value);
            }
            Body::Mapped(mapping) => {
                let (pairs, index) = mapping.runs.encode(from, room.saturating_sub(body_at));
                next = index;
                let lowest = mapping.runs.get(from).map_or(Vcn(0), |(vcn, _)| vcn);
                let highest = mapping.runs.get(next).map_or(mapping.runs.end(), |(vcn, _)| vcn);
                name_at = self.put_mapped(&mut out, mapping, lowest..highest, &pairs, geometry);
            }
        }
        (finish(out, name_at), next)
    }

    /// The part of a mapped attribute that covers some virtual clusters, as bytes; `None` where it
    /// is resident.
    pub fn encode_part(
        &self,
        instance: u16,
        vcns: Range<Vcn>,
        geometry: &Geometry,
    ) -> Option<Vec<u8>> {
        let mapping = self.mapping()?;
        let runs: Runs = mapping.runs.part(vcns.clone()).collect();
        let (pairs, _) = runs.encode(0, usize::MAX);
        let mut out = self.head(instance);
        let name_at = self.put_mapped(&mut out, mapping, vcns, &pairs, geometry);
        Some(finish(out, name_at))
    }

    fn head(&self, instance: u16) -> Vec<u8> {
        let head = AttributeHeader {
            type_code: self.type_code.into(),
            record_length: 0.into(),
            form_code: u8::from(matches!(self.body, Body::Mapped(_))),
            name_length: to_u8(self.name.len().min(255)),
            name_offset: 0.into(),
            flags: self.flags.into(),
            instance: instance.into(),
        };
        head.as_bytes().to_vec()
    }

    /// Adds what a mapped attribute has after its header, with the pairs of the virtual clusters
    /// `vcns`; where its name is.
    fn put_mapped(
        &self,
        out: &mut Vec<u8>,
        mapping: &Mapping,
        vcns: Range<Vcn>,
        pairs: &[u8],
        geometry: &Geometry,
    ) -> usize {
        let body_at = self.body_offset();
        // Sizes stand in the first part only.
        let is_first = vcns.start == Vcn(0);
        let first = |value: u64| if is_first { value } else { 0 };
        let nonresident = Nonresident {
            lowest_vcn: vcns.start.0.into(),
            highest_vcn: vcns.end.0.wrapping_sub(1).into(),
            mapping_pairs_offset: (to_u16(body_at)).into(),
            compression_unit_size: if is_first { mapping.unit } else { 0 },
            reserved: [0; 5],
            allocated_length: first(mapping.runs.clusters() * geometry.cluster).into(),
            file_size: first(mapping.size).into(),
            valid_data_length: first(mapping.valid).into(),
        };
        out.extend_from_slice(nonresident.as_bytes());
        if self.is_thin() {
            let total = first(mapping.runs.allocated() * geometry.cluster);
            out.extend_from_slice(&total.to_le_bytes());
        }
        let name_at = out.len();
        out.extend(unit_bytes(&self.name));
        out.resize(body_at, 0);
        out.extend_from_slice(pairs);
        name_at
    }
}

/// Pads an encoded attribute, and sets its length and where its name is.
fn finish(mut out: Vec<u8>, name_at: usize) -> Vec<u8> {
    out.resize(out.len().next_multiple_of(8), 0);
    let length = (to_u32(out.len())).to_le_bytes();
    out[4..8].copy_from_slice(&length);
    // Windows sets the offset whether there is a name or not.
    out[10..12].copy_from_slice(&(to_u16(name_at)).to_le_bytes());
    out
}

/// Reads the attributes that begin at byte `first` of a record. The error says in words what is wrong.
pub fn parse(record: &[u8], first: usize, geometry: &Geometry) -> Result<Vec<Attribute>, String> {
    let mut out: Vec<Attribute> = Vec::new();
    let mut at = first;
    loop {
        let rest = record.get(at..).unwrap_or(&[]);
        let Some(kind) = rest.first_chunk::<4>() else {
            return Err(format!("its attributes run to byte {at} without an end"));
        };
        if u32::from_le_bytes(*kind) == END {
            return Ok(out);
        }
        let Ok((head, _)) = AttributeHeader::read_from_prefix(rest) else {
            return Err(format!("an attribute begins at byte {at}, too near to the end"));
        };
        let (kind, length) = (head.type_code.get(), to_usize(head.record_length.get()));
        if length < RESIDENT_HEAD || !length.is_multiple_of(8) || length > rest.len() {
            return Err(format!("attribute {kind:#x} at byte {at} has {length} bytes"));
        }
        if kind == 0 || kind % 16 != 0 || out.last().is_some_and(|last| last.type_code > kind) {
            return Err(format!("attribute {kind:#x} at byte {at} is not in its order"));
        }
        let attribute = parse_one(&head, &rest[..length], geometry)
            .map_err(|text| format!("attribute {kind:#x} at byte {at}: {text}"))?;
        out.push(attribute);
        at += length;
    }
}

fn parse_one(
    head: &AttributeHeader,
    bytes: &[u8],
    geometry: &Geometry,
) -> Result<Attribute, String> {
    let (from, length) = (usize::from(head.name_offset.get()), 2 * usize::from(head.name_length));
    let name = if length == 0 { Some(&[][..]) } else { bytes.get(from..from + length) };
    let Some(name) = name else {
        return Err(format!("its name of {length} bytes at byte {from} is not in it"));
    };
    let flags = head.flags.get();
    let mut attribute = Attribute {
        type_code: head.type_code.get(),
        name: units(name),
        flags,
        instance: head.instance.get(),
        resident_flags: 0,
        lowest_vcn: Vcn(0),
        body: Body::Resident(Vec::new()),
    };
    let rest = &bytes[HEADER..];
    match head.form_code {
        0 => {
            let Ok((form, _)) = Resident::read_from_prefix(rest) else {
                return Err("it is too short".to_owned());
            };
            let (from, length) =
                (usize::from(form.value_offset.get()), to_usize(form.value_length.get()));
            let Some(value) = bytes.get(from..from.saturating_add(length)) else {
                return Err(format!("its value of {length} bytes at byte {from} is not in it"));
            };
            attribute.resident_flags = form.resident_flags;
            attribute.body = Body::Resident(value.to_vec());
        }
        1 => {
            let Ok((form, _)) = Nonresident::read_from_prefix(rest) else {
                return Err("it is too short".to_owned());
            };
            attribute.lowest_vcn = Vcn(form.lowest_vcn.get());
            let pairs = bytes.get(usize::from(form.mapping_pairs_offset.get())..).unwrap_or(&[]);
            let mut runs = Runs::default();
            runs.decode(pairs, geometry)?;
            let covered = form.highest_vcn.get().wrapping_add(1).checked_sub(form.lowest_vcn.get());
            if covered != Some(runs.clusters()) {
                return Err(format!(
                    "its runs have {} clusters for the VCNs {} to {}",
                    runs.clusters(),
                    form.lowest_vcn.get(),
                    form.highest_vcn.get().cast_signed()
                ));
            }
            let mut mapping = Mapping { runs, ..Mapping::default() };
            if attribute.lowest_vcn == Vcn(0) {
                mapping.size = form.file_size.get();
                mapping.valid = form.valid_data_length.get();
                mapping.unit = form.compression_unit_size;
                let (size, valid) = (mapping.size, mapping.valid);
                if valid > size || mapping.unit > UNIT_MAX {
                    return Err(format!(
                        "{valid} of {size} bytes are valid, CompressionUnitSize is {}",
                        mapping.unit
                    ));
                }
            }
            attribute.body = Body::Mapped(mapping);
        }
        form => return Err(format!("its FormCode is {form}")),
    }
    Ok(attribute)
}

/// Puts the parts of non-resident attributes together. They may come in any order; those of one
/// attribute must cover it without a gap. The error says in words what is wrong.
pub fn join(parts: Vec<Attribute>, geometry: &Geometry) -> Result<Vec<Attribute>, String> {
    let mut parts = parts;
    parts.sort_by(|a, b| {
        (a.type_code, &a.name, a.lowest_vcn).cmp(&(b.type_code, &b.name, b.lowest_vcn))
    });
    let mut out: Vec<Attribute> = Vec::new();
    for part in parts {
        let kind = part.type_code;
        let continues = part.lowest_vcn > Vcn(0);
        let last = out.last_mut().filter(|last| last.type_code == kind && last.name == part.name);
        match (last, part.body) {
            (Some(Attribute { body: Body::Mapped(whole), .. }), Body::Mapped(more))
                if continues && part.lowest_vcn == whole.runs.end() =>
            {
                for run in more.runs.iter() {
                    whole.runs.push(Run { ..run });
                }
                if whole.runs.clusters() > 1 << 52 {
                    return Err(format!("attribute {kind:#x} has too many clusters"));
                }
            }
            (last, body) => {
                if continues {
                    return Err(format!(
                        "a part of attribute {kind:#x} from VCN {} on follows no other",
                        part.lowest_vcn
                    ));
                }
                if last.is_some() && kind != super::layout::FILE_NAME {
                    return Err(format!("it has two attributes {kind:#x} of the same name"));
                }
                out.push(Attribute { body, ..part });
            }
        }
    }
    for attribute in &out {
        let Body::Mapped(mapping) = &attribute.body else {
            if matches!(attribute.type_code, INDEX_ALLOCATION) {
                return Err("its $INDEX_ALLOCATION is resident".to_owned());
            }
            continue;
        };
        let kind = attribute.type_code;
        if kind == INDEX_ROOT || kind == super::layout::FILE_NAME {
            return Err(format!("its attribute {kind:#x} is not resident"));
        }
        // NTFS counts bytes in 63 bits; a hole may claim more.
        let room = mapping.runs.clusters().saturating_mul(geometry.cluster);
        if i64::try_from(room).is_err() {
            let clusters = mapping.runs.clusters();
            return Err(format!(
                "attribute {kind:#x} has {clusters} clusters, too many for a file"
            ));
        }
        if mapping.size > room {
            return Err(format!("attribute {kind:#x} has {} bytes in {room}", mapping.size));
        }
        let taken = mapping.runs.allocated();
        if taken > geometry.clusters {
            return Err(format!("attribute {kind:#x} has {taken} clusters, more than there are"));
        }
    }
    Ok(out)
}

impl Attribute {
    /// Whether the value is encrypted by EFS.
    pub fn is_encrypted(&self) -> bool {
        self.flags & ENCRYPTED != 0
    }

    /// Whether the value is compressed by LZNT1.
    pub fn is_compressed(&self) -> bool {
        self.flags & COMPRESSED != 0
    }
}
