//! The MFT: every record, its attributes, and what is free.

use super::raw::{
    self, Attribute, Body, RECORD_MASK, Reader, Stream, attributes, le16, le32, le64, unfix,
};
use super::report::Report;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// Most records that are looked at: more files than this are on no image.
const MOST: u64 = 64 << 20;
/// Bytes of the MFT that are read at once.
const CHUNK: usize = 1 << 20;
/// A `$DATA` value of an ordinary file is not kept.
const DATA: u32 = 0x80;

/// A record that is in use.
#[derive(Clone, Debug)]
pub struct Record {
    /// SequenceNumber.
    pub sequence: u16,
    /// ReferenceCount.
    pub links: u16,
    /// Flags: 1 in use, 2 a directory.
    pub flags: u16,
    /// BaseFileRecordSegment; 0 in a base record.
    pub base: u64,
    /// Its attributes.
    pub attributes: Vec<Attribute>,
}

/// The whole MFT.
pub struct Mft {
    /// The records in use, by number.
    pub records: Vec<Option<Box<Record>>>,
    /// The place of the MFT.
    pub stream: Stream,
}

impl Mft {
    /// The record, if it is in use and could be read.
    pub fn get(&self, number: u64) -> Option<&Record> {
        self.records.get(usize::try_from(number).ok()?)?.as_deref()
    }

    /// Whether `reference` names a record in use with this sequence number.
    pub fn is_live(&self, reference: u64) -> bool {
        self.get(reference & RECORD_MASK)
            .is_some_and(|record| u64::from(record.sequence) == reference >> 48)
    }

    /// The reference that names a record.
    pub fn reference(&self, number: u64) -> u64 {
        number | self.get(number).map_or(0, |record| u64::from(record.sequence) << 48)
    }

    /// Reads all of it.
    pub fn load(reader: &Reader<'_>, report: &mut Report) -> Result<Self> {
        let size = reader.geometry.record;
        let stream = locate(reader)?;
        let count = stream.size / to_u64(size);
        let cluster = reader.geometry.cluster;
        if stream.clusters() > reader.geometry.clusters || stream.size > stream.clusters() * cluster
        {
            let text = format!("{} bytes in {} clusters", stream.size, stream.clusters());
            return Err(Error::corrupt("$MFT", "record 0", text));
        }
        if count > MOST {
            let text = format!("checking an MFT of {count} records");
            return Err(Error::unsupported(text, format!("{MOST} are the most")));
        }
        let mut records = Vec::new();
        let step = to_u64((CHUNK / size).max(1));
        let mut number = 0;
        while number < count {
            let these = step.min(count - number);
            let chunk = reader.stream(&stream, number * to_u64(size), to_usize(these) * size)?;
            let Some(mut chunk) = chunk else {
                report.error(
                    "mft-runs",
                    format!("record {number}"),
                    "the MFT leaves the volume here".to_owned(),
                );
                break;
            };
            for bytes in chunk.chunks_exact_mut(size) {
                records.push(record(bytes, number, report));
                number += 1;
            }
        }
        Ok(Self { records, stream })
    }
}

/// The MFT's own runs, those of its extension records among them.
fn locate(reader: &Reader<'_>) -> Result<Stream> {
    let corrupt = |detail: &str| Error::corrupt("$MFT", "record 0", detail);
    let geometry = reader.geometry;
    let limit = (geometry.clusters * geometry.cluster).saturating_sub(to_u64(geometry.record));
    let at = geometry.mft * geometry.cluster;
    if at > limit {
        return Err(corrupt("it lies at the end of the volume"));
    }
    let mut bytes = reader.bytes(at, geometry.record)?;
    unfix(&mut bytes, b"FILE").map_err(|text| corrupt(&text))?;
    let own = attributes(&bytes, &mut |_, _| {});
    let data = |list: &[Attribute]| {
        list.iter().find_map(|attribute| match &attribute.body {
            Body::Mapped(mapping) if attribute.kind == DATA && attribute.name.is_empty() => {
                Some(mapping.clone())
            }
            _ => None,
        })
    };
    let first = data(&own).ok_or_else(|| corrupt("it has no $DATA that can be read"))?;
    let mut stream = Stream::new(first.size);
    stream.extend(&first.runs);
    let Some(list) = own.iter().find(|attribute| attribute.kind == 0x20) else {
        return Ok(stream);
    };
    let mut parts: Vec<(u64, u64)> = list_entries(reader, list)?
        .iter()
        .filter(|entry| entry.kind == DATA && entry.name.is_empty() && entry.lowest > 0)
        .map(|entry| (entry.lowest, entry.reference & RECORD_MASK))
        .collect();
    parts.sort_unstable();
    for (lowest, number) in parts {
        let size = geometry.record;
        let bytes = number.checked_mul(to_u64(size));
        let bytes = match bytes {
            Some(offset) => reader.stream(&stream, offset, size)?,
            None => None,
        };
        let mut bytes = bytes.ok_or_else(|| corrupt("a part of its runs is not in the MFT"))?;
        unfix(&mut bytes, b"FILE").map_err(|text| corrupt(&text))?;
        let part = data(&attributes(&bytes, &mut |_, _| {})).filter(|part| part.lowest == lowest);
        match part {
            Some(part) if lowest == stream.clusters() => stream.extend(&part.runs),
            _ => return Err(corrupt("its attribute list does not lead to all of its runs")),
        }
    }
    Ok(stream)
}

fn record(bytes: &mut [u8], number: u64, report: &mut Report) -> Option<Box<Record>> {
    let place = || format!("record {number}");
    let magic: [u8; 4] = [bytes[0], bytes[1], bytes[2], bytes[3]];
    match &magic {
        b"FILE" => {}
        [0, 0, 0, 0] => return None,
        b"BAAD" => {
            report.error("record-baad", place(), "chkdsk found it torn".to_owned());
            return None;
        }
        other => {
            let text = format!("it begins with {}", other.escape_ascii());
            report.error("record-magic", place(), text);
            return None;
        }
    }
    if le16(bytes, 22) & 1 == 0 {
        return None;
    }
    if let Err(text) = unfix(bytes, b"FILE") {
        report.error("record-fixup", place(), text);
        return None;
    }
    if to_usize(le32(bytes, 28)) != bytes.len() {
        report.error("record-header", place(), format!("it says it has {} bytes", le32(bytes, 28)));
    }
    if le16(bytes, 4) >= 48 && u64::from(le32(bytes, 44)) != number {
        report.error("record-number", place(), format!("it says it is {}", le32(bytes, 44)));
    }
    let mut list = attributes(bytes, &mut |code, text| report.error(code, place(), text));
    for attribute in &mut list {
        if let Body::Resident(value) = &mut attribute.body
            && attribute.kind == DATA
            && number >= 24
        {
            // Only its length is needed.
            value.fill(0);
        }
    }
    Some(Box::new(Record {
        sequence: le16(bytes, 16),
        links: le16(bytes, 18),
        flags: le16(bytes, 22),
        base: le64(bytes, 32),
        attributes: list,
    }))
}

/// An entry of an attribute list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// AttributeTypeCode.
    pub kind: u32,
    /// Name.
    pub name: Vec<u16>,
    /// LowestVcn.
    pub lowest: u64,
    /// SegmentReference.
    pub reference: u64,
    /// Instance.
    pub id: u16,
}

/// No attribute list is larger.
const LIST_MOST: u64 = 256 << 10;

/// Reads an attribute list up to the first entry that is none.
pub fn list_entries(reader: &Reader<'_>, list: &Attribute) -> Result<Vec<ListEntry>> {
    let bytes = match &list.body {
        Body::Resident(value) => value.clone(),
        Body::Mapped(mapping) => {
            let mut stream = Stream::new(mapping.size);
            stream.extend(&mapping.runs);
            let size = to_usize(mapping.size.min(LIST_MOST));
            reader.stream(&stream, 0, size)?.unwrap_or_default()
        }
    };
    let (mut out, mut at) = (Vec::new(), 0);
    while at + 26 <= bytes.len() {
        let length = usize::from(le16(&bytes, at + 4));
        let (units, offset) = (usize::from(bytes[at + 6]), usize::from(bytes[at + 7]));
        let Some(entry) = bytes.get(at..at + length) else { break };
        if length < 26 || length % 8 != 0 || (units > 0 && offset + 2 * units > length) {
            break;
        }
        let name = entry.get(offset..offset + 2 * units).unwrap_or(&[]);
        out.push(ListEntry {
            kind: le32(entry, 0),
            name: raw::units(name),
            lowest: le64(entry, 8),
            reference: le64(entry, 16),
            id: le16(entry, 24),
        });
        at += length;
    }
    if at != bytes.len() {
        // An entry that matches nothing: the caller says so.
        out.push(ListEntry { kind: 0, name: Vec::new(), lowest: 0, reference: 0, id: 0 });
    }
    Ok(out)
}
