//! The user of each cluster, against `$Bitmap`; the records in use, against the MFT's bitmap.

use super::inodes::{Claim, Files, Value};
use super::raw::Reader;
use super::records::Mft;
use super::report::Report;
use crate::error::Result;
use crate::num::{to_u64, to_usize};

/// Bytes of a bitmap that are compared at once.
const CHUNK: u64 = 1 << 20;

/// Finds clusters that two attributes have, and compares all of them with `$Bitmap`.
pub fn check(reader: &Reader<'_>, files: &mut Files, report: &mut Report) -> Result<()> {
    files.claims.sort_unstable();
    let claims = merged(&files.claims, report);
    report.clusters = claims.iter().map(|(start, end)| end - start).sum();
    let clusters = reader.geometry.clusters;
    let place = || "record 6 $Bitmap".to_owned();
    let Some(value) = files.values.get(&(6, 0x80, Vec::new())) else {
        report.error("bitmap", place(), "it is missing".to_owned());
        return Ok(());
    };
    let size = match value {
        Value::Resident(bytes) => to_u64(bytes.len()),
        Value::Mapped(stream) => stream.size,
    };
    if size < clusters.div_ceil(8) {
        report.error("bitmap", place(), format!("{size} bytes for {clusters} clusters"));
    }
    let (mut lost, mut leaked, mut tail) = (Tally::default(), Tally::default(), Tally::default());
    let end = size.min(clusters.div_ceil(8).div_ceil(8) * 8);
    let mut next = 0;
    let mut at = 0;
    while at < end {
        let count = to_usize(CHUNK.min(end - at));
        let bits = match value {
            Value::Resident(bytes) => Some(bytes[to_usize(at)..to_usize(at) + count].to_vec()),
            Value::Mapped(stream) => reader.stream(stream, at, count)?,
        };
        let Some(bits) = bits else {
            report.error("bitmap", place(), format!("byte {at} cannot be read"));
            return Ok(());
        };
        let first = at * 8;
        let mut used = vec![0u8; count];
        while let Some(&(from, to)) = claims.get(next) {
            let to_here = to.min(first + to_u64(count) * 8);
            for cluster in from.max(first)..to_here {
                used[to_usize((cluster - first) / 8)] |= 1 << (cluster % 8);
            }
            if to > to_here || from >= first + to_u64(count) * 8 {
                break;
            }
            next += 1;
        }
        for (index, (&bits, &used)) in bits.iter().zip(&used).enumerate() {
            if bits == used {
                continue;
            }
            for bit in 0..8 {
                let cluster = first + to_u64(index) * 8 + bit;
                let (marked, used) = (bits >> bit & 1 == 1, used >> bit & 1 == 1);
                match (marked, used) {
                    _ if cluster >= clusters => {}
                    (true, false) => leaked.add(cluster),
                    (false, true) => lost.add(cluster),
                    _ => {}
                }
            }
        }
        for (index, &bits) in bits.iter().enumerate() {
            let cluster = first + to_u64(index) * 8;
            if cluster + 8 > clusters {
                (0..8)
                    .filter(|bit| cluster + bit >= clusters && bits >> bit & 1 == 0)
                    .for_each(|bit| tail.add(cluster + bit));
            }
        }
        at += to_u64(count);
    }
    if let Some(text) = lost.text("in use and marked free") {
        report.error("bitmap-used", place(), text);
    }
    if let Some(text) = leaked.text("marked used and in no file") {
        report.error("bitmap-leak", place(), text);
    }
    if let Some(text) = tail.text("beyond the volume and marked free") {
        report.warn("bitmap-tail", place(), text);
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    count: u64,
    first: u64,
}

impl Tally {
    fn add(&mut self, at: u64) {
        if self.count == 0 {
            self.first = at;
        }
        self.count += 1;
    }
    fn text(&self, what: &str) -> Option<String> {
        (self.count > 0)
            .then(|| format!("{} clusters, the first {}, are {what}", self.count, self.first))
    }
}

/// Sorted claims as ranges that do not overlap; where they do, that is told.
fn merged(claims: &[Claim], report: &mut Report) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    let mut owner: Option<Claim> = None;
    for claim in claims {
        match (out.last_mut(), owner) {
            (Some(last), Some(other)) if claim.start < last.1 => {
                let text = format!(
                    "clusters {} to {} are those of record {} attribute {:#x}, too",
                    claim.start,
                    claim.end.min(last.1),
                    other.inode,
                    other.kind
                );
                let place = format!("record {} attribute {:#x}", claim.inode, claim.kind);
                report.error("cross-link", place, text);
                last.1 = last.1.max(claim.end);
            }
            (Some(last), _) if claim.start == last.1 => last.1 = claim.end,
            _ => out.push((claim.start, claim.end)),
        }
        if owner.is_none_or(|other| other.end < claim.end) {
            owner = Some(*claim);
        }
    }
    out
}

/// Compares the MFT's `$BITMAP` with its records.
pub fn check_records(
    reader: &Reader<'_>,
    mft: &Mft,
    files: &Files,
    report: &mut Report,
) -> Result<()> {
    let count = to_u64(mft.records.len());
    let bits = files.read(reader, &(0, 0xb0, Vec::new()), count.div_ceil(8))?.unwrap_or_default();
    if to_u64(bits.len()) < count.div_ceil(8) {
        let text = format!("{} bytes for {count} records", bits.len());
        report.error("mft-bitmap", "record 0".to_owned(), text);
    }
    for (number, record) in mft.records.iter().enumerate() {
        let marked = bits.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1);
        let place = || format!("record {number}");
        // Those that are kept for later versions may be marked without being in use.
        if marked && record.is_none() && !(12..24).contains(&number) {
            report.error("mft-bitmap", place(), "it is free and marked used".to_owned());
        } else if !marked && record.is_some() {
            report.error("mft-bitmap", place(), "it is in use and marked free".to_owned());
        }
    }
    Ok(())
}
