//! A file or directory: all attributes of its records together.

use std::collections::BTreeSet;

use zerocopy::{FromBytes, IntoBytes};

use super::attribute::{Attribute, Body, join};
use super::file_name::FileName;
use super::layout::{
    ATTRIBUTE_LIST, AttributeListEntry, DATA, FILE_NAME, REPARSE_POINT, Reference,
    STANDARD_INFORMATION, StandardInformation, record_flags,
};
use super::record::{Record, corrupt};
use super::units::{RecordNumber, Vcn};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u8, to_u16, to_usize};
use crate::utf16::units;

/// No attribute list is larger; Windows has the same limit.
const LIST_MAX: u64 = 256 << 10;

/// A file or directory in memory. Changes reach the volume through [`Volume::save`].
#[derive(Clone, Debug)]
pub struct Inode {
    /// The number of its first record.
    pub number: RecordNumber,
    /// SequenceNumber of its first record.
    pub sequence: u16,
    /// ReferenceCount: how many names it has, short ones among them.
    pub links: u16,
    /// Flags of its first record.
    pub flags: u16,
    /// Its attributes but the attribute list, by type and name.
    pub attributes: Vec<Attribute>,
    /// Its other records, in the order in which the attribute list first names them.
    pub extensions: Vec<RecordNumber>,
    /// The attribute list's own clusters, where it is not resident.
    pub list: Option<Attribute>,
}

impl Inode {
    /// The reference that names it.
    pub fn reference(&self) -> Reference {
        Reference::new(self.number, self.sequence)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.flags & record_flags::DIRECTORY != 0
    }

    /// An error about it.
    pub fn corrupt(&self, detail: impl Into<String>) -> Error {
        corrupt(self.number, detail)
    }

    /// The attribute of a type and name.
    pub fn find(&self, type_code: u32, name: &[u16]) -> Option<&Attribute> {
        self.attributes.iter().find(|a| a.type_code == type_code && a.name == name)
    }

    /// The attribute of a type and name, to be changed.
    pub fn find_mut(&mut self, type_code: u32, name: &[u16]) -> Option<&mut Attribute> {
        self.attributes.iter_mut().find(|a| a.type_code == type_code && a.name == name)
    }

    /// Takes an attribute out.
    pub fn remove(&mut self, type_code: u32, name: &[u16]) -> Option<Attribute> {
        let at = self.attributes.iter().position(|a| a.type_code == type_code && a.name == name)?;
        Some(self.attributes.remove(at))
    }

    /// The unnamed `$DATA`.
    pub fn data(&self) -> Option<&Attribute> {
        self.find(DATA, &[])
    }

    /// `$STANDARD_INFORMATION`; the fields that NTFS 1.2 does not have are zero then.
    pub fn standard_information(&self) -> Result<StandardInformation> {
        let value = self.find(STANDARD_INFORMATION, &[]).and_then(Attribute::value);
        let Some(value) = value.filter(|value| value.len() >= 48) else {
            return Err(self.corrupt("it has no $STANDARD_INFORMATION that can be read"));
        };
        let mut bytes = [0; size_of::<StandardInformation>()];
        let length = bytes.len().min(value.len());
        bytes[..length].copy_from_slice(&value[..length]);
        StandardInformation::read_from_bytes(&bytes)
            .map_err(|_| self.corrupt("its $STANDARD_INFORMATION cannot be read"))
    }

    /// Replaces `$STANDARD_INFORMATION`, which keeps its length.
    pub fn set_standard_information(&mut self, information: &StandardInformation) {
        if let Some(Attribute { body: Body::Resident(value), .. }) =
            self.find_mut(STANDARD_INFORMATION, &[])
        {
            let bytes = information.as_bytes();
            let length = bytes.len().min(value.len());
            value[..length].copy_from_slice(&bytes[..length]);
        }
    }

    /// All its names, short ones among them.
    pub fn names(&self) -> Result<Vec<FileName>> {
        let names = self.attributes.iter().filter(|a| a.type_code == FILE_NAME);
        names
            .map(|attribute| {
                attribute
                    .value()
                    .and_then(|value| FileName::parse(value))
                    .ok_or_else(|| self.corrupt("its $FILE_NAME cannot be read"))
            })
            .collect()
    }

    /// The tag of its reparse point and whether Microsoft or Linux gave it, where it has one in
    /// its record.
    pub fn is_reparse_point(&self) -> bool {
        self.find(REPARSE_POINT, &[]).is_some()
    }
}

/// An entry of an attribute list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// AttributeTypeCode.
    pub type_code: u32,
    /// Name.
    pub name: Vec<u16>,
    /// LowestVcn.
    pub lowest_vcn: Vcn,
    /// SegmentReference.
    pub segment: Reference,
    /// Instance.
    pub instance: u16,
}

const ENTRY_HEAD: usize = size_of::<AttributeListEntry>();

impl ListEntry {
    /// Reads an attribute list; what is wrong is said in words.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Self>, String> {
        let (mut out, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let rest = &bytes[at..];
            let Ok((head, _)) = AttributeListEntry::read_from_prefix(rest) else {
                return Err(format!("its attribute list ends within an entry, at byte {at}"));
            };
            let length = usize::from(head.record_length.get());
            let from = usize::from(head.attribute_name_offset);
            let to = from + 2 * usize::from(head.attribute_name_length);
            let name = if from == to { Some(&[][..]) } else { rest.get(from..to) };
            let (Some(name), true) =
                (name, length >= ENTRY_HEAD && length <= rest.len() && to <= length.max(from))
            else {
                return Err(format!("the entry at byte {at} of its list has {length} bytes"));
            };
            out.push(Self {
                type_code: head.attribute_type_code.get(),
                name: units(name),
                lowest_vcn: Vcn(head.lowest_vcn.get()),
                segment: Reference(head.segment_reference.get()),
                instance: head.instance.get(),
            });
            at += length;
        }
        Ok(out)
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = Self::size(self.name.len());
        let head = AttributeListEntry {
            attribute_type_code: self.type_code.into(),
            record_length: to_u16(length).into(),
            attribute_name_length: to_u8(self.name.len().min(255)),
            attribute_name_offset: to_u8(ENTRY_HEAD),
            lowest_vcn: self.lowest_vcn.0.into(),
            segment_reference: self.segment.0.into(),
            instance: self.instance.into(),
        };
        let mut out = head.as_bytes().to_vec();
        out.extend(crate::utf16::unit_bytes(&self.name));
        out.resize(length, 0);
        out
    }

    /// Bytes of an entry with a name of so many units.
    pub fn size(units: usize) -> usize {
        (ENTRY_HEAD + 2 * units).next_multiple_of(8)
    }
}

/// Reads a file whose first record this is.
pub(super) fn load(volume: &Volume, base: &Record) -> Result<Inode> {
    let geometry = &volume.geometry;
    let number = base.number;
    let mut parts = base.attributes(geometry)?;
    let mut inode = Inode {
        number,
        sequence: base.head.sequence_number.get(),
        links: base.head.reference_count.get(),
        flags: base.head.flags.get(),
        attributes: Vec::new(),
        extensions: Vec::new(),
        list: None,
    };
    let list = parts.iter().position(|part| part.type_code == ATTRIBUTE_LIST);
    if let Some(at) = list {
        let list = parts.remove(at);
        let entries = read_list(volume, number, &list)?;
        let mut found: BTreeSet<(RecordNumber, u16)> =
            parts.iter().map(|part| (number, part.instance)).collect();
        let mut seen = BTreeSet::from([number]);
        for entry in &entries {
            let record = entry.segment.number();
            if entry.type_code != ATTRIBUTE_LIST && seen.insert(record) {
                let extension = volume.read_record(record)?;
                if !extension.is_in_use()
                    || extension.reference() != entry.segment
                    || extension.base() != Some(inode.reference())
                {
                    return Err(corrupt(
                        number,
                        format!(
                            "its attribute list names record {record}, which is of another file"
                        ),
                    ));
                }
                let more = extension.attributes(geometry)?;
                found.extend(more.iter().map(|part| (record, part.instance)));
                parts.extend(more);
                inode.extensions.push(record);
            }
            if entry.type_code != ATTRIBUTE_LIST && !found.remove(&(record, entry.instance)) {
                return Err(corrupt(
                    number,
                    format!(
                        "its attribute list names an attribute {:#x} that record {record} has not",
                        entry.type_code
                    ),
                ));
            }
        }
        if let Some((record, instance)) = found.first() {
            return Err(corrupt(
                number,
                format!("attribute {instance} of record {record} is not in its attribute list"),
            ));
        }
        inode.list = Some(list);
    }
    inode.attributes = join(parts, geometry).map_err(|text| corrupt(number, text))?;
    Ok(inode)
}

/// The entries of an attribute list.
pub(super) fn read_list(
    volume: &Volume,
    number: RecordNumber,
    list: &Attribute,
) -> Result<Vec<ListEntry>> {
    if list.size() > LIST_MAX {
        return Err(corrupt(number, format!("its attribute list has {} bytes", list.size())));
    }
    if list.mapping().is_some_and(|mapping| {
        mapping.runs.clusters().saturating_mul(volume.geometry.cluster) < mapping.size
    }) {
        return Err(corrupt(number, "its attribute list has too few clusters"));
    }
    let mut bytes = vec![0; to_usize(list.size())];
    volume.read_metadata(list, 0, &mut bytes)?;
    ListEntry::parse_all(&bytes).map_err(|text| corrupt(number, text))
}
