//! Files put together from their records: attribute lists, streams in parts, and who uses which
//! cluster.

use std::collections::{BTreeMap, BTreeSet};

use super::raw::{Attribute, Body, Mapping, RECORD_MASK, Reader, Stream, le32, le64, shown};
use super::records::{Mft, Record, list_entries};
use super::report::Report;
use crate::error::Result;
use crate::num::{to_u64, to_usize};

/// A name that a file says it has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// ParentDirectory, as a file reference.
    pub parent: u64,
    /// The name.
    pub name: Vec<u16>,
    /// Flags: 0 POSIX, 1 Windows, 2 DOS, 3 both.
    pub space: u8,
}

impl FileName {
    /// Reads the value of a `$FILE_NAME`, which is also the key of a directory's entry.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let length = 2 * usize::from(*value.get(64)?);
        let name = super::raw::units(value.get(66..66 + length)?);
        Some(Self { parent: le64(value, 0), name, space: value[65] })
    }
}

/// A file or directory.
#[derive(Clone, Debug, Default)]
pub struct Inode {
    /// ReferenceCount of the base record.
    pub links: u16,
    /// Whether the base record says it is a directory.
    pub directory: bool,
    /// Its names, in order.
    pub names: Vec<FileName>,
    /// SecurityId of its `$STANDARD_INFORMATION`, 0 when it has none.
    pub security: u32,
    /// Bytes of its unnamed `$DATA`.
    pub size: Option<u64>,
    /// Tag of its reparse point.
    pub reparse: Option<u32>,
    /// Names of its indexes.
    pub indexes: Vec<Vec<u16>>,
}

/// A value that later checks need.
#[derive(Clone, Debug)]
pub enum Value {
    /// In the record.
    Resident(Vec<u8>),
    /// In clusters.
    Mapped(Stream),
}

/// Clusters and who has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// First cluster.
    pub start: u64,
    /// First cluster after.
    pub end: u64,
    /// The base record.
    pub inode: u64,
    /// The attribute's type.
    pub kind: u32,
}

/// Key of a [`Value`]: base record, type and name of the attribute.
pub type Key = (u64, u32, Vec<u16>);

/// All files of a volume.
#[derive(Default)]
pub struct Files {
    /// By number of their base record.
    pub inodes: BTreeMap<u64, Inode>,
    /// The content of system files and directories.
    pub values: BTreeMap<Key, Value>,
    /// Clusters in use, unsorted.
    pub claims: Vec<Claim>,
}

impl Files {
    /// The bytes of a value of at most `most` bytes.
    pub fn read(&self, reader: &Reader<'_>, key: &Key, most: u64) -> Result<Option<Vec<u8>>> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Resident(bytes)) => Ok(Some(bytes.clone())),
            Some(Value::Mapped(stream)) => {
                reader.stream(stream, 0, to_usize(stream.size.min(most)))
            }
        }
    }
}

/// Puts all files together.
pub fn assemble(reader: &Reader<'_>, mft: &Mft, report: &mut Report) -> Result<Files> {
    let mut files = Files::default();
    for (number, record) in mft.records.iter().enumerate() {
        let (Some(record), number) = (record, to_u64(number)) else { continue };
        // The MFT's own extension records have a base of number 0, and its sequence number.
        if record.base != 0 {
            extension(mft, record, number, report);
            continue;
        }
        let parts = gather(reader, mft, record, number, report)?;
        let mut groups: BTreeMap<(u32, &[u16]), Vec<&Attribute>> = BTreeMap::new();
        let mut inode =
            Inode { links: record.links, directory: record.flags & 2 != 0, ..Inode::default() };
        for part in &parts {
            if part.kind == 0x30 {
                name(part, number, &mut inode, report);
            } else {
                groups.entry((part.kind, &part.name)).or_default().push(part);
            }
        }
        inode.names.sort();
        if !groups.contains_key(&(0x10, &[])) && number != 15 && !(12..24).contains(&number) {
            let text = "it has no $STANDARD_INFORMATION".to_owned();
            report.error("standard-information", format!("record {number}"), text);
        }
        for ((kind, name), parts) in groups {
            let Some((size, value)) =
                group(reader, number, kind, name, parts, &mut files.claims, report)
            else {
                continue;
            };
            match (kind, &value) {
                (0x10, Value::Resident(bytes)) if bytes.len() >= 72 => {
                    inode.security = le32(bytes, 52);
                }
                (0x80, _) if name.is_empty() => inode.size = Some(size),
                (0x90, _) => inode.indexes.push(name.to_vec()),
                (0xc0, Value::Resident(bytes)) => inode.reparse = Some(le32(bytes, 0)),
                (0xc0, Value::Mapped(stream)) => {
                    let bytes = reader.stream(stream, 0, 4)?.unwrap_or_default();
                    inode.reparse = Some(le32(&bytes, 0));
                }
                _ => {}
            }
            if number < 24 || matches!(kind, 0x90 | 0xa0 | 0xb0) {
                files.values.insert((number, kind, name.to_vec()), value);
            }
        }
        files.inodes.insert(number, inode);
    }
    Ok(files)
}

fn extension(mft: &Mft, record: &Record, number: u64, report: &mut Report) {
    let base = record.base & RECORD_MASK;
    let place = format!("record {number}");
    if !mft.is_live(record.base) {
        let text = format!("it extends record {base}, which is another one by now or free");
        report.error("extension-base", place, text);
    } else if !mft
        .get(base)
        .is_some_and(|base| base.attributes.iter().any(|attribute| attribute.kind == 0x20))
    {
        let text = format!("it extends record {base}, which has no attribute list");
        report.error("extension-base", place, text);
    }
}

/// The attributes of a file, in whichever record they are.
fn gather<'m>(
    reader: &Reader<'_>,
    mft: &'m Mft,
    record: &'m Record,
    number: u64,
    report: &mut Report,
) -> Result<Vec<&'m Attribute>> {
    let mut parts: Vec<&Attribute> = record.attributes.iter().collect();
    let Some(list) = record.attributes.iter().find(|attribute| attribute.kind == 0x20) else {
        return Ok(parts);
    };
    let place = || format!("record {number}");
    let entries = list_entries(reader, list)?;
    if entries.windows(2).any(|pair| pair[0].kind > pair[1].kind) {
        let text = "its entries are not in the order of their types".to_owned();
        report.error("attribute-list", place(), text);
    }
    let mut listed = BTreeSet::new();
    let mut extensions = BTreeSet::new();
    for entry in &entries {
        let at = entry.reference & RECORD_MASK;
        let Some(other) = mft.get(at).filter(|_| mft.is_live(entry.reference)) else {
            let text = format!("an entry names record {at}, which is another one by now or free");
            report.error("attribute-list", place(), text);
            continue;
        };
        let hit = other.attributes.iter().find(|attribute| {
            attribute.kind == entry.kind && attribute.id == entry.id && attribute.name == entry.name
        });
        let Some(hit) = hit else {
            let text = format!("attribute {:#x} is not in record {at}", entry.kind);
            report.error("attribute-list", place(), text);
            continue;
        };
        if !listed.insert((at, hit.kind, hit.id)) {
            let text = format!("attribute {:#x} of record {at} is listed twice", entry.kind);
            report.error("attribute-list", place(), text);
            continue;
        }
        if let Body::Mapped(mapping) = &hit.body
            && mapping.lowest != entry.lowest
        {
            let text = format!(
                "attribute {:#x} of record {at} begins at VCN {}, not {}",
                entry.kind, mapping.lowest, entry.lowest
            );
            report.error("attribute-list", place(), text);
        }
        if at != number {
            if other.base != mft.reference(number) {
                let text = format!("record {at} extends another file");
                report.error("extension-base", place(), text);
                continue;
            }
            extensions.insert(at);
            parts.push(hit);
        }
    }
    let own = std::iter::once(number).chain(extensions);
    for at in own {
        let Some(other) = mft.get(at) else { continue };
        for attribute in &other.attributes {
            if attribute.kind != 0x20 && !listed.contains(&(at, attribute.kind, attribute.id)) {
                let text =
                    format!("attribute {:#x} of record {at} is not in the list", attribute.kind);
                report.error("attribute-list", place(), text);
            }
        }
    }
    Ok(parts)
}

fn name(part: &Attribute, number: u64, inode: &mut Inode, report: &mut Report) {
    let parsed = match &part.body {
        Body::Resident(value) => FileName::parse(value),
        Body::Mapped(_) => None,
    };
    match parsed {
        Some(name) => inode.names.push(name),
        None => {
            let text = "its $FILE_NAME cannot be read".to_owned();
            report.error("file-name", format!("record {number}"), text);
        }
    }
}

/// Checks all parts of one attribute, claims its clusters, and gives its size and value.
fn group(
    reader: &Reader<'_>,
    number: u64,
    kind: u32,
    name: &[u16],
    mut parts: Vec<&Attribute>,
    claims: &mut Vec<Claim>,
    report: &mut Report,
) -> Option<(u64, Value)> {
    let colon = if name.is_empty() { "" } else { ":" };
    let place = format!("record {number} attribute {kind:#x}{colon}{}", shown(name));
    let mapped = |attribute: &Attribute| match &attribute.body {
        Body::Mapped(mapping) => Some(mapping.clone()),
        Body::Resident(_) => None,
    };
    parts.sort_by_key(|part| mapped(part).map_or(0, |mapping| mapping.lowest));
    let first = parts.first()?;
    if let Body::Resident(value) = &first.body {
        if parts.len() > 1 {
            report.error("attribute-twice", place, "there are two of them".to_owned());
        }
        return Some((to_u64(value.len()), Value::Resident(value.clone())));
    }
    let head = mapped(first)?;
    let mut stream = Stream::new(head.size);
    let bad_clusters = number == 8 && kind == 0x80 && !name.is_empty();
    let mut holes = false;
    let mut taken = 0u64;
    for part in &parts {
        let Some(Mapping { lowest, runs, .. }) = mapped(part) else {
            report.error("attribute-twice", place.clone(), "one part is resident".to_owned());
            continue;
        };
        if lowest != stream.clusters() {
            let text = format!("a part begins at VCN {lowest}, not {}", stream.clusters());
            report.error("vcn-gap", place.clone(), text);
        }
        for run in &runs {
            let Some(start) = run.lcn else {
                holes = true;
                continue;
            };
            taken = taken.saturating_add(run.count);
            let end = start.saturating_add(run.count);
            if end > reader.geometry.clusters {
                let text = format!(
                    "clusters {start} to {end} of a volume of {}",
                    reader.geometry.clusters
                );
                report.error("run-beyond", place.clone(), text);
                continue;
            }
            claims.push(Claim { start, end, inode: number, kind });
        }
        stream.extend(&runs);
    }
    let cluster = reader.geometry.cluster;
    let covered = stream.clusters().saturating_mul(cluster);
    let thin = first.flags & 0x8001 != 0;
    if covered != head.allocated {
        let text = format!("AllocatedLength is {}, the runs cover {covered}", head.allocated);
        report.error("allocated-length", place.clone(), text);
    }
    if head.size > head.allocated {
        let text = format!("FileSize is {}, AllocatedLength {}", head.size, head.allocated);
        report.error("file-size", place.clone(), text);
    }
    if head.initialized > head.size {
        let text = format!("ValidDataLength is {}, FileSize {}", head.initialized, head.size);
        report.error("valid-data-length", place.clone(), text);
    }
    if holes && !thin && number != 8 {
        report.error("hole", place.clone(), "it has a hole and is not sparse".to_owned());
    }
    if thin && !bad_clusters && head.total != taken.saturating_mul(cluster) {
        let text = format!(
            "TotalAllocated is {}, the runs hold {}",
            head.total,
            taken.saturating_mul(cluster)
        );
        report.error("total-allocated", place.clone(), text);
    }
    if bad_clusters && stream.clusters() != reader.geometry.clusters {
        let text =
            format!("$Bad covers {} clusters of {}", stream.clusters(), reader.geometry.clusters);
        report.warn("bad-clusters", place, text);
    }
    Some((head.size, Value::Mapped(stream)))
}
