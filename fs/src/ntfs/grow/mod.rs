//! Enlarging a volume that nobody has mounted.
//!
//! The size of a volume stands in the boot sector and its copy after the last sector, in `$Bitmap`,
//! and in the hole in `$BadClus:$Bad` that is as long as the volume.
//!
//! The volume becomes large with one write of its boot sector, which also leads to copies of the
//! records that change (the module `copies`). The steps, with a flush after each:
//! 1. beyond the old end, or in free clusters: the new part of the bitmap, the new copy of the boot
//!    sector, the copies;
//! 2. the boot sector has the new size and leads to the copies, which ask for a check;
//! 3. the records in their own places, and `$MFTMirr`;
//! 4. the boot sector leads to those again; the mark stays where a check is asked for;
//! 5. the bitmap without the clusters of the copies.
//!
//! A cut leaves the old volume or the new one, which ntfs-3g and Windows mount. The bitmap may have
//! a few clusters in use that are free.

mod copies;
mod record;
mod state;

use std::ops::Range;

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ntfs::check::raw::{Geometry, Reader, Run, Stream};
use copies::Copies;
use record::Record;

/// How to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Mark the volume so that Windows checks it at the next start.
    pub check: bool,
}

/// The result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grown {
    /// Clusters before.
    pub before: u64,
    /// Clusters after.
    pub clusters: u64,
    /// Bytes of a cluster.
    pub cluster_size: u64,
    /// Whether the volume is marked for a check now.
    pub marked: bool,
}

/// Bytes of a bitmap that are written at once.
const CHUNK: u64 = 1 << 20;

const VOLUME: u64 = 3;
const BITMAP: u64 = 6;
const BAD_CLUSTERS: u64 = 8;
const DATA: u32 = 0x80;

/// Enlarges the volume that begins `device` to `size` bytes of it, the sector for the boot sector's
/// copy among them. A volume that is as large already stays byte for byte as it is.
///
/// Refused are volumes whose state is not clean: a check is due, Windows hibernated, or its log has
/// transactions to be replayed.
///
/// # Errors
/// [`Error::ReadOnly`] where the volume's state is not clean, [`Error::Corrupt`] where a structure
/// that grows is damaged, [`Error::Device`] where the device fails.
pub fn grow(device: &dyn BlockDevice, size: u64, options: Options) -> Result<Grown> {
    let reader = Reader::open(device)?;
    let old = reader.geometry;
    let size = size.min(device.len());
    let sectors = (size / old.sector).saturating_sub(1);
    let clusters = sectors * old.sector / old.cluster;
    let unchanged = Grown {
        before: old.clusters,
        clusters: old.clusters,
        cluster_size: old.cluster,
        marked: false,
    };
    if clusters <= old.clusters {
        return Ok(unchanged);
    }
    state::must_be_clean(&reader)?;

    let mut bitmap = Record::read(&reader, BITMAP)?;
    let mut bad = Record::read(&reader, BAD_CLUSTERS)?;
    let mut volume = Record::read(&reader, VOLUME)?;
    let mut plan = Bitmap::plan(&reader, &mut bitmap, clusters)?;
    enlarge_bad_clusters(&mut bad, &old, clusters)?;
    set_dirty(&mut volume, true)?;
    let copies = {
        let mut changed = [&mut volume, &mut bitmap, &mut bad];
        Copies::plan(&reader, plan.free(), &plan.stream, &mut changed)?
    };
    let mut boot = vec![0; usize::try_from(old.sector).unwrap_or(512)];
    device.read_at(0, &mut boot)?;
    boot[40..48].copy_from_slice(&sectors.to_le_bytes());
    let mut switched = boot.clone();
    switched[48..56].copy_from_slice(&copies.clusters.start.to_le_bytes());
    switched[56..64].copy_from_slice(&copies.mirror.to_le_bytes());
    set_dirty(&mut volume, options.check)?;

    plan.meanwhile = vec![copies.clusters.clone(), plan.old_tail()];
    plan.write(device, plan.first_byte()..plan.end())?;
    copies.write(device, old.cluster)?;
    device.write_at(sectors * old.sector, &boot)?;
    device.flush()?;
    write_boot(device, &switched)?;
    for record in [&mut volume, &mut bitmap, &mut bad] {
        record.write(&reader)?;
    }
    device.flush()?;
    write_boot(device, &boot)?;
    let marked = plan.meanwhile.iter().map(|range| range.end.div_ceil(8)).max().unwrap_or(0);
    plan.meanwhile = Vec::new();
    plan.write(device, plan.first_byte()..marked.min(plan.end()))?;
    copies.free(device)?;
    device.flush()?;
    Ok(Grown { clusters, marked: options.check, ..unchanged })
}

/// Writes the first 512 bytes of the volume: a disk does so wholly or not at all.
fn write_boot(device: &dyn BlockDevice, boot: &[u8]) -> Result<()> {
    device.write_at(0, &boot[..512.min(boot.len())])?;
    Ok(device.flush()?)
}

/// Sets or clears VOLUME_IS_DIRTY.
fn set_dirty(volume: &mut Record, dirty: bool) -> Result<()> {
    volume.change_value(0x70, |value| {
        if let Some(flags) = value.get_mut(10) {
            *flags = if dirty { *flags | 1 } else { *flags & !1 };
        }
    })
}

/// `$Bitmap` as it will be.
struct Bitmap {
    /// The volume's shape before.
    old: Geometry,
    clusters: u64,
    /// The places of its bytes.
    stream: Stream,
    /// Its size.
    bytes: u64,
    /// Clusters that it takes of the new space.
    taken: Range<u64>,
    /// Its size before.
    bytes_before: u64,
    /// The bits of old clusters in the byte in which old and new clusters meet.
    joint: u8,
    /// Further clusters that are in use until the end: those of the copies, and the bits beyond the
    /// old end, which an old volume has set.
    meanwhile: Vec<Range<u64>>,
}

impl Bitmap {
    /// Changes the record of `$Bitmap` and works out what is to be written.
    fn plan(reader: &Reader<'_>, record: &mut Record, clusters: u64) -> Result<Self> {
        let old = reader.geometry;
        let (mut runs, bytes_before) = record.runs(DATA, &[])?;
        let have: u64 = runs.iter().map(|run| run.count).sum();
        if runs.iter().any(|run| run.lcn.is_none_or(|lcn| lcn + run.count > old.clusters)) {
            return Err(record.corrupt("its $DATA leaves the volume or has a hole"));
        }
        if bytes_before < old.clusters.div_ceil(8) || have * old.cluster < bytes_before {
            return Err(record.corrupt("it is smaller than the volume"));
        }
        // Whole words of 64 bits, as Windows and mkntfs have it.
        let bytes = (clusters.div_ceil(64) * 8).max(bytes_before);
        let count = bytes.div_ceil(old.cluster).saturating_sub(have);
        // The old copy of the boot sector lies in the first new cluster and stays for as long as it
        // may be needed.
        let added = clusters - old.clusters;
        let first = old.clusters + u64::from(count < added);
        if count > added {
            return Err(record.corrupt("the new space cannot hold the rest of it"));
        }
        let taken = first..first + count;
        if count > 0 {
            runs.push(Run { lcn: Some(first), count });
        }
        record.set_runs(DATA, &[], &runs, old.cluster, bytes, bytes)?;
        let mut stream = Stream::new(bytes);
        stream.extend(&runs);
        let meanwhile = Vec::new();
        let mut plan =
            Self { old, clusters, stream, bytes, taken, bytes_before, joint: 0, meanwhile };
        // The clusters before the old end stay as they are.
        let at = plan.first_byte();
        let below = (1u8 << (old.clusters % 8)) - 1;
        plan.joint = match reader.stream(&plan.stream, at, 1)? {
            Some(bytes) if below != 0 => bytes[0] & below,
            _ => 0,
        };
        Ok(plan)
    }

    /// The new clusters that nobody has taken. The first one holds the old copy of the boot sector.
    fn free(&self) -> Range<u64> {
        (self.old.clusters + 1).max(self.taken.end)..self.clusters
    }

    /// The bits after the old end in bytes that the old volume's bitmap has.
    fn old_tail(&self) -> Range<u64> {
        self.old.clusters..(self.bytes_before * 8).max(self.old.clusters)
    }

    /// The bits from byte `first` on: in use are the clusters that the bitmap takes, those that are
    /// in use meanwhile, and those beyond the end.
    fn bits(&self, first: u64, count: usize) -> Vec<u8> {
        let mut out = vec![0u8; count];
        let length = u64::try_from(count).unwrap_or(u64::MAX);
        let (from, to) = (first * 8, (first + length) * 8);
        let beyond = self.clusters..u64::MAX;
        for range in [&self.taken, &beyond].into_iter().chain(&self.meanwhile) {
            for cluster in range.start.max(from)..range.end.min(to) {
                let byte = usize::try_from((cluster - from) / 8).unwrap_or(usize::MAX);
                if let Some(byte) = out.get_mut(byte) {
                    *byte |= 1 << (cluster % 8);
                }
            }
        }
        if let (Some(byte), true) = (out.first_mut(), first == self.first_byte()) {
            *byte |= self.joint;
        }
        // Bytes after its size become zeros, whatever the disk held before.
        let over = (first + length).saturating_sub(self.bytes).min(length);
        let whole = count - usize::try_from(over).unwrap_or(count);
        out[whole..].fill(0);
        out
    }

    fn first_byte(&self) -> u64 {
        self.old.clusters / 8
    }

    /// The byte after its last cluster.
    fn end(&self) -> u64 {
        self.stream.clusters() * self.old.cluster
    }

    fn write(&self, device: &dyn BlockDevice, bytes: Range<u64>) -> Result<()> {
        let mut at = bytes.start;
        while at < bytes.end {
            let place = self.stream.place(at, self.old.cluster);
            let Some((Some(place), rest)) = place else {
                return Err(Error::corrupt("$Bitmap", "record 6", "its runs end too early"));
            };
            let count = rest.min(bytes.end - at).min(CHUNK);
            // At most CHUNK.
            let bits = self.bits(at, usize::try_from(count).unwrap_or(0));
            device.write_at(place, &bits)?;
            at += count;
        }
        Ok(())
    }
}

/// The hole of `$Bad` becomes as long as the volume.
fn enlarge_bad_clusters(record: &mut Record, old: &Geometry, clusters: u64) -> Result<()> {
    let name: Vec<u16> = "$Bad".encode_utf16().collect();
    let (mut runs, _) = record.runs(DATA, &name)?;
    let have: u64 = runs.iter().map(|run| run.count).sum();
    let Some(more) = clusters.checked_sub(have).filter(|&more| more > 0) else {
        return Err(record.corrupt("$Bad is longer than the volume"));
    };
    match runs.last_mut() {
        Some(last) if last.lcn.is_none() => last.count += more,
        _ => runs.push(Run { lcn: None, count: more }),
    }
    let initialized = record.initialized(DATA, &name)?;
    let size = clusters * old.cluster;
    record.set_runs(DATA, &name, &runs, old.cluster, size, initialized)
}
