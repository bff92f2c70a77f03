//! Enlarging a volume that nobody has mounted.
//!
//! The size of a volume stands in the boot sector and its copy after the last sector, in `$Bitmap`,
//! and in the hole in `$BadClus:$Bad` that is as long as the volume.
//!
//! Order of the writes, with a flush between the steps, so that a cut leaves a volume that can be
//! read and that Windows checks by itself:
//! 1. beyond the old end: the new part of the bitmap, the new copy of the boot sector;
//! 2. the flag that asks for a check (`$Volume` and its copy in the MFT's mirror);
//! 3. the boot sector: from here the volume is large;
//! 4. `$Bitmap` and `$BadClus`;
//! 5. without a check asked for, the flag goes again.

mod record;
mod state;

use std::ops::Range;

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ntfs::check::raw::{Geometry, Reader, Run, Stream};
use record::Record;

/// How to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Mark the volume so that Windows checks it at the next start.
    pub check: bool,
}

/// What came of it.
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
    let plan = Bitmap::plan(&reader, &mut bitmap, clusters)?;
    enlarge_bad_clusters(&mut bad, &old, clusters)?;

    // Beyond the old end.
    plan.write_new_part(device)?;
    let mut boot = vec![0; old.sector as usize];
    device.read_at(0, &mut boot)?;
    boot[40..48].copy_from_slice(&sectors.to_le_bytes());
    device.write_at(sectors * old.sector, &boot)?;
    device.flush()?;
    set_dirty(&mut volume, true)?;
    volume.write(&reader)?;
    device.flush()?;
    // 512 bytes are written whole or not at all.
    device.write_at(0, &boot[..512.min(boot.len())])?;
    device.flush()?;
    plan.write_old_part(device)?;
    bitmap.write(&reader)?;
    bad.write(&reader)?;
    device.flush()?;
    if !options.check {
        set_dirty(&mut volume, false)?;
        volume.write(&reader)?;
        device.flush()?;
    }
    Ok(Grown { clusters, marked: options.check, ..unchanged })
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
    /// Where its bytes are.
    stream: Stream,
    /// Its size.
    bytes: u64,
    /// Clusters that it takes of the new space.
    taken: Range<u64>,
    /// Bytes of it that lie in clusters that it had before.
    in_place: u64,
    /// The byte in which old and new clusters meet.
    joint: u8,
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
        let in_place = (have * old.cluster).min(bytes);
        let mut plan = Self { old, clusters, stream, bytes, taken, in_place, joint: 0 };
        // The clusters before the old end stay as they are.
        let at = plan.first_byte();
        let below = (1u8 << (old.clusters % 8)) - 1;
        let byte = match reader.stream(&plan.stream, at, 1)? {
            Some(bytes) if below != 0 => bytes[0] & below,
            _ => 0,
        };
        plan.joint = byte | plan.bits(at, 1)[0] & !below;
        Ok(plan)
    }

    /// The bits from byte `first` on: in use are the clusters that the bitmap takes, and those
    /// beyond the end.
    fn bits(&self, first: u64, count: usize) -> Vec<u8> {
        let mut out = vec![0u8; count];
        let (from, to) = (first * 8, (first + count as u64) * 8);
        for range in [self.taken.clone(), self.clusters..u64::MAX] {
            for cluster in range.start.max(from)..range.end.min(to) {
                out[((cluster - from) / 8) as usize] |= 1 << (cluster % 8);
            }
        }
        if let (Some(byte), true) = (out.first_mut(), first == self.first_byte()) {
            *byte |= self.joint;
        }
        // Bytes after its size become zeros, whatever the disk held before.
        let over = (first + count as u64).saturating_sub(self.bytes).min(count as u64) as usize;
        out[count - over..].fill(0);
        out
    }

    fn first_byte(&self) -> u64 {
        self.old.clusters / 8
    }

    /// Writes the part that lies in clusters beyond the old end, to the end of its last cluster.
    fn write_new_part(&self, device: &dyn BlockDevice) -> Result<()> {
        let end = self.stream.clusters() * self.old.cluster;
        self.write(device, self.in_place.max(self.first_byte())..end)
    }

    /// Writes the part that lies in clusters that the bitmap had before.
    fn write_old_part(&self, device: &dyn BlockDevice) -> Result<()> {
        self.write(device, self.first_byte()..self.in_place)
    }

    fn write(&self, device: &dyn BlockDevice, bytes: Range<u64>) -> Result<()> {
        let mut at = bytes.start;
        while at < bytes.end {
            let place = self.stream.place(at, self.old.cluster);
            let Some((Some(place), rest)) = place else {
                return Err(Error::corrupt("$Bitmap", "record 6", "its runs end too early"));
            };
            let count = rest.min(bytes.end - at).min(CHUNK);
            device.write_at(place, &self.bits(at, count as usize))?;
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
