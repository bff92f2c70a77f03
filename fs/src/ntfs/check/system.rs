//! The system's own files: boot sector copy, MFT mirror, `$UpCase`, `$Volume`, `$Secure`,
//! `$Extend`.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{self, Upcase};
use super::inodes::{Files, Value};
use super::raw::{RECORD_MASK, Reader, le16, le32, le64, units};
use super::records::Mft;
use super::report::Report;
use crate::error::Result;
use crate::num::{to_u64, to_usize};

/// Security descriptors are kept twice, this far apart.
const SDS_COPY: u64 = 0x4_0000;
/// No security descriptor is larger.
const SDS_MOST: u64 = 0x1_0000 + 20;

fn name(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

/// The backup boot sector after the volume's last sector.
pub fn boot_copy(reader: &Reader<'_>, report: &mut Report) -> Result<()> {
    let geometry = reader.geometry;
    let at = geometry.sectors * geometry.sector;
    let place = || format!("byte {at}");
    if at + 512 > reader.device().len() {
        report.error("boot-copy", place(), "the volume's device ends before it".to_owned());
    } else if reader.bytes(at, 512)? != reader.bytes(0, 512)? {
        report.error("boot-copy", place(), "it differs from the boot sector".to_owned());
    }
    Ok(())
}

/// The first records against `$MFTMirr`: four of them, or as many as a large cluster holds.
pub fn mirror(reader: &Reader<'_>, mft: &Mft, files: &Files, report: &mut Report) -> Result<()> {
    let (geometry, size) = (reader.geometry, reader.geometry.record);
    let stream = match files.values.get(&(1, 0x80, Vec::new())) {
        Some(Value::Mapped(stream)) => stream,
        _ => &super::raw::Stream::default(),
    };
    if stream.size < 4 * to_u64(size)
        || stream.place(0, geometry.cluster).and_then(|place| place.0)
            != Some(geometry.mirror * geometry.cluster)
    {
        let text = format!("it has {} bytes, or is not where the boot sector says", stream.size);
        report.error("mft-mirror", "record 1 $MFTMirr".to_owned(), text);
    }
    let most = 4.max(geometry.cluster / to_u64(size));
    for number in 0..(stream.size / to_u64(size)).min(most) {
        let at = number * to_u64(size);
        if mft.get(number).is_some()
            && reader.stream(&mft.stream, at, size)? != reader.stream(stream, at, size)?
        {
            let text = "its copy in $MFTMirr differs".to_owned();
            report.error("mft-mirror", format!("record {number}"), text);
        }
    }
    Ok(())
}

/// The table of capital letters.
pub fn upcase(reader: &Reader<'_>, files: &Files, report: &mut Report) -> Result<Upcase> {
    let bytes = files.read(reader, &(10, 0x80, Vec::new()), 131_073)?.unwrap_or_default();
    if bytes.len() != 131_072 {
        let text = format!("it has {} bytes and not 131072", bytes.len());
        report.error("upcase", "record 10 $UpCase".to_owned(), text);
    }
    Ok(Upcase(units(&bytes)))
}

/// The volume's version and flags.
pub fn volume(files: &Files, report: &mut Report) {
    let place = "record 3 $Volume".to_owned();
    let Some(Value::Resident(value)) = files.values.get(&(3, 0x70, Vec::new())) else {
        report.error("volume", place, "its $VOLUME_INFORMATION is missing".to_owned());
        return;
    };
    let flags = le16(value, 10);
    if flags & 1 != 0 {
        let text = "the volume is marked for a check (dirty)".to_owned();
        report.warn("volume-dirty", place, text);
    }
}

/// Every index that is no directory: structure and order. `$Secure` and `$Reparse` against what
/// files say.
pub fn indexes(
    reader: &Reader<'_>,
    mft: &Mft,
    files: &Files,
    upcase: &Upcase,
    report: &mut Report,
) -> Result<()> {
    let mut security: Option<BTreeMap<u32, Vec<u8>>> = None;
    let mut hashes = Vec::new();
    let mut reparse: Option<BTreeSet<(u32, u64)>> = None;
    for (&number, inode) in &files.inodes {
        for index in inode.indexes.iter().filter(|index| **index != super::names::i30()) {
            let entries = index::walk(reader, files, number, index, upcase, report)?;
            if number == 9 && *index == name("$SII") {
                let pairs = entries.into_iter().map(|entry| (le32(&entry.key, 0), entry.data));
                security = Some(pairs.collect());
            } else if number == 9 && *index == name("$SDH") {
                hashes = entries.into_iter().map(|entry| entry.data).collect();
            } else if *index == name("$R") {
                let keys = entries.iter().map(|entry| (le32(&entry.key, 0), le64(&entry.key, 4)));
                reparse = Some(keys.collect());
            }
        }
    }
    if let Some(security) = security {
        secure(reader, files, &security, &hashes, report)?;
    }
    reparse_points(mft, files, reparse.as_ref(), report);
    Ok(())
}

fn secure(
    reader: &Reader<'_>,
    files: &Files,
    security: &BTreeMap<u32, Vec<u8>>,
    hashes: &[Vec<u8>],
    report: &mut Report,
) -> Result<()> {
    let place = |id: u32| format!("$Secure id {id:#x}");
    let empty = super::raw::Stream::default();
    let sds = match files.values.get(&(9, 0x80, name("$SDS"))) {
        Some(Value::Mapped(stream)) => stream,
        _ => &empty,
    };
    for (&id, header) in security {
        let (hash, own) = (le32(header, 0), le32(header, 4));
        let (offset, length) = (le64(header, 8), u64::from(le32(header, 16)));
        if own != id {
            report.error("security-index", place(id), format!("its entry is that of {own:#x}"));
        }
        let end = offset.checked_add(length).filter(|&end| end <= sds.size);
        if end.is_none() || !(20..=SDS_MOST).contains(&length) {
            let text = format!("{length} bytes at {offset} of {}", sds.size);
            report.error("security-descriptor", place(id), text);
            continue;
        }
        let one = reader.stream(sds, offset, to_usize(length))?.unwrap_or_default();
        if one.get(..20) != header.get(..20) {
            let text = "$SDS has another header there than the index".to_owned();
            report.error("security-descriptor", place(id), text);
            continue;
        }
        let sum = one[20..]
            .chunks_exact(4)
            .fold(0u32, |sum, word| le32(word, 0).wrapping_add(sum.rotate_left(3)));
        if sum != hash {
            let text = format!("its hash is {sum:#x}, not {hash:#x}");
            report.error("security-hash", place(id), text);
        }
        let copy = match offset.checked_add(SDS_COPY) {
            Some(at) => reader.stream(sds, at, to_usize(length))?,
            None => None,
        };
        if copy.as_deref() != Some(&one[..]) {
            report.error("security-copy", place(id), "its second copy differs".to_owned());
        }
    }
    for header in hashes {
        let id = le32(header, 4);
        if security.get(&id).is_none_or(|other| other.get(..20) != header.get(..20)) {
            report.error("security-index", place(id), "$SDH has it, $SII has not".to_owned());
        }
    }
    if hashes.len() != security.len() {
        let text = format!("$SDH has {} entries, $SII {}", hashes.len(), security.len());
        report.error("security-index", "$Secure".to_owned(), text);
    }
    for (number, inode) in &files.inodes {
        if inode.security != 0 && !security.contains_key(&inode.security) {
            let text = format!("its security id {:#x} is not in $Secure", inode.security);
            report.error("security-id", format!("record {number}"), text);
        }
    }
    Ok(())
}

fn reparse_points(
    mft: &Mft,
    files: &Files,
    index: Option<&BTreeSet<(u32, u64)>>,
    report: &mut Report,
) {
    let empty = BTreeSet::new();
    let index = index.unwrap_or(&empty);
    let mut wanted = BTreeSet::new();
    for (&number, inode) in files.inodes.range(24..) {
        if let Some(tag) = inode.reparse {
            wanted.insert((tag, mft.reference(number)));
        }
    }
    for (tag, reference) in wanted.difference(index) {
        let text = format!("its reparse point {tag:#x} is not in $Extend/$Reparse");
        report.error("reparse-index", format!("record {}", reference & RECORD_MASK), text);
    }
    for (tag, reference) in index.difference(&wanted) {
        let text = format!("$Extend/$Reparse has a reparse point {tag:#x} that it has not");
        report.error("reparse-index", format!("record {}", reference & RECORD_MASK), text);
    }
}
