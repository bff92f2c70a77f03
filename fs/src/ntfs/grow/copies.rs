//! A second place for the first records of the MFT, so that one sector makes the volume large.
//!
//! The boot sector names the size of the volume and the first clusters of the MFT and of its mirror,
//! and the MFT's first record names all others. So the records that change are written to clusters
//! that were free, and one write of the boot sector puts them and the new size in place of the old
//! ones. Then the records in their own places, to which nothing leads, change as well, and a second
//! write of the boot sector leads to them again. The engine's commits do the same.

use std::ops::Range;

use super::record::Record;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ntfs::check::raw::{Reader, Stream};

const MFT: u64 = 0;
const MIRROR: u64 = 1;
const DATA: u32 = 0x80;
/// Bytes of the bitmap that are looked at at once.
const CHUNK: u64 = 1 << 20;
/// More of the MFT than this is not copied.
const MAX: u64 = 64 << 20;

/// A place of `$Bitmap`, and its bytes before the growth and meanwhile.
type Mark = (u64, Vec<u8>, Vec<u8>);

/// Copies of the first records of the MFT, and of its mirror.
pub(super) struct Copies {
    /// The clusters of both.
    pub clusters: Range<u64>,
    /// The first cluster of the mirror's copy.
    pub mirror: u64,
    /// The bytes for them.
    bytes: Vec<u8>,
    /// Bytes of `$Bitmap` below the volume's old end in which they are marked meanwhile: the place,
    /// and the bytes now and meanwhile.
    marks: Vec<Mark>,
}

impl Copies {
    /// Finds clusters for the copies, in `new` if that is large enough and else before the volume's
    /// old end, and builds them with the `changed` records in them.
    pub(super) fn plan(
        reader: &Reader<'_>,
        new: Range<u64>,
        bitmap: &Stream,
        changed: &mut [&mut Record],
    ) -> Result<Self> {
        let (cluster, record) = (reader.geometry.cluster, length(reader.geometry.record));
        let (mut first, mut second) =
            (Record::read_part(reader, MFT)?, Record::read(reader, MIRROR)?);
        let (runs, _) = first.runs(DATA, &[])?;
        let mut mft = Stream::new(u64::MAX);
        mft.extend(&runs);
        let (mirror_runs, mirror_bytes) = second.runs(DATA, &[])?;
        let mut mirror = Stream::new(u64::MAX);
        mirror.extend(&mirror_runs);
        let last = changed.iter().map(|record| record.number).max().unwrap_or(0);
        let records = (last + 1).max(mirror_bytes / record);
        let least = (records * record).div_ceil(cluster);
        // A copy of whole runs is one run: then a first record that is full has room for its list.
        let ends = runs.iter().scan(0, |end, run| {
            *end += run.count;
            Some(*end)
        });
        let whole = ends.filter(|&end| end >= least).take(2);
        for count in [least].into_iter().chain(whole) {
            let all = count + mirror.clusters();
            if all.saturating_mul(cluster) > MAX || count > mft.clusters() {
                continue;
            }
            let Some(clusters) = find(reader, &new, bitmap, all)? else { continue };
            let at = clusters.start + count;
            let second_fits = second.replace_start(mirror.clusters(), at)?;
            if !first.replace_start(count, clusters.start)? || !second_fits {
                continue;
            }
            let (mut bytes, copied) = (
                read(reader, &mft, count * cluster)?,
                read(reader, &mirror, mirror.clusters() * cluster)?,
            );
            let start = bytes.len();
            bytes.extend(copied);
            for record in
                changed.iter_mut().map(|record| &mut **record).chain([&mut first, &mut second])
            {
                let new = record.next_bytes();
                let offset = index(record.number * length(new.len()))?;
                bytes[offset..offset + new.len()].copy_from_slice(&new);
                if record.number < mirror_bytes / length(new.len()) {
                    let offset = start + offset;
                    bytes[offset..offset + new.len()].copy_from_slice(&new);
                }
            }
            let marks = marks(reader, bitmap, &clusters, new.start)?;
            return Ok(Self { clusters, mirror: at, bytes, marks });
        }
        Err(Error::NoSpace(format!(
            "a safe change of its size needs {} free clusters of {cluster} bytes in one piece; enlarge \
             the disk by more, or free some space in Windows",
            least + mirror.clusters()
        )))
    }

    /// Writes the copies, and marks their clusters.
    pub(super) fn write(&self, device: &dyn BlockDevice, cluster: u64) -> Result<()> {
        for (place, _, meanwhile) in &self.marks {
            device.write_at(*place, meanwhile)?;
        }
        Ok(device.write_at(self.clusters.start * cluster, &self.bytes)?)
    }

    /// Takes the marks below the volume's old end away.
    pub(super) fn free(&self, device: &dyn BlockDevice) -> Result<()> {
        for (place, before, _) in &self.marks {
            device.write_at(*place, before)?;
        }
        Ok(())
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn index(offset: u64) -> Result<usize> {
    let wrong = || Error::corrupt("MFT record", "record 0", "its runs are too long");
    usize::try_from(offset).map_err(|_| wrong())
}

fn read(reader: &Reader<'_>, stream: &Stream, count: u64) -> Result<Vec<u8>> {
    let bytes = reader.stream(stream, 0, index(count)?)?;
    bytes.ok_or_else(|| Error::corrupt("MFT", "record 0", "its runs leave the volume"))
}

/// Free clusters, `count` of them.
fn find(
    reader: &Reader<'_>,
    new: &Range<u64>,
    bitmap: &Stream,
    count: u64,
) -> Result<Option<Range<u64>>> {
    if new.end.saturating_sub(new.start) >= count {
        return Ok(Some(new.start..new.start + count));
    }
    // The byte in which old and new clusters meet is written anew.
    let end = reader.geometry.clusters / 8;
    let (mut at, mut free) = (0, 0);
    while at < end {
        let length = CHUNK.min(end - at);
        let Some(bytes) = reader.stream(bitmap, at, index(length)?)? else { return Ok(None) };
        for (byte, number) in bytes.iter().zip(at..) {
            for bit in 0..8 {
                free = if byte >> bit & 1 == 0 { free + 1 } else { 0 };
                if free == count {
                    let last = number * 8 + bit;
                    return Ok(Some(last + 1 - count..last + 1));
                }
            }
        }
        at += length;
    }
    Ok(None)
}

/// The bytes of `$Bitmap` in which clusters before the volume's old end are marked.
fn marks(
    reader: &Reader<'_>,
    bitmap: &Stream,
    clusters: &Range<u64>,
    new: u64,
) -> Result<Vec<Mark>> {
    let mut out = Vec::new();
    if clusters.start >= new {
        return Ok(out);
    }
    let wrong = || Error::corrupt("$Bitmap", "record 6", "its runs leave the volume");
    let mut at = clusters.start / 8;
    while at < clusters.end.div_ceil(8) {
        let place = bitmap.place(at, reader.geometry.cluster);
        let Some((Some(place), rest)) = place else { return Err(wrong()) };
        let length = rest.min(clusters.end.div_ceil(8) - at);
        let before = reader.stream(bitmap, at, index(length)?)?.ok_or_else(wrong)?;
        let mut meanwhile = before.clone();
        for (byte, number) in meanwhile.iter_mut().zip(at..) {
            for bit in (0..8).filter(|bit| clusters.contains(&(number * 8 + bit))) {
                *byte |= 1 << bit;
            }
        }
        out.push((place, before, meanwhile));
        at += length;
    }
    Ok(out)
}
