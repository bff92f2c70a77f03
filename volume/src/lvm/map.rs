//! An open logical volume: extents of the volume mapped to places on the devices.

use std::io;
use std::sync::Arc;

use snf_fs::{BlockDevice, DeviceError};

use super::group::VolumeGroup;
use super::mirror;
use super::model::{Lv, bytes};
use super::segment::{Kind, Segment, StripeArea};
use crate::{Error, Refusal, Result};

/// Most areas of one open volume: bounds the memory of the map (about 100 bytes each).
const MAX_AREAS: usize = 1 << 18;

/// A place on a device.
struct Area {
    device: Arc<dyn BlockDevice>,
    /// First byte.
    offset: u64,
}

enum Target {
    /// In turns of `stripe` bytes over the areas.
    Striped { stripe: u64, areas: Vec<Area> },
    /// Everything is in every leg; one is known to be whole.
    Mirrored { legs: Vec<Map>, read: usize },
}

struct Piece {
    start: u64,
    length: u64,
    target: Target,
}

/// A run of pieces without a hole.
pub(crate) struct Map {
    pieces: Vec<Piece>,
    length: u64,
}

/// A logical volume as a block device. It is read and written where its extents lie; a mirrored
/// volume is written to all its legs.
///
/// The volume keeps the mapping it was opened with. After a [`Change`](super::Change) was committed,
/// open it again to see its new size.
pub struct LogicalVolume {
    map: Map,
    /// Each device once, for flushes.
    devices: Vec<Arc<dyn BlockDevice>>,
    read_only: bool,
}

impl std::fmt::Debug for LogicalVolume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogicalVolume")
            .field("length", &self.map.length)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

impl LogicalVolume {
    pub(crate) fn open(group: &VolumeGroup, lv: &Lv) -> Result<Self> {
        let mut builder = Builder { group, subject: group.model.lv_subject(&lv.name), areas: 0 };
        let map = builder.volume(lv)?;
        let mut devices = Vec::new();
        map.collect(&mut devices);
        Ok(Self { map, devices, read_only: !(lv.writable && group.model.writable) })
    }

    /// Whether the volume or its group is marked read-only. Writes fail then.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The devices of the physical volumes that it lies on, each once.
    pub fn devices(&self) -> &[Arc<dyn BlockDevice>] {
        &self.devices
    }

    /// The device and its first byte, when the whole volume lies there in one piece.
    pub fn run(&self) -> Option<(&Arc<dyn BlockDevice>, u64)> {
        let mut run: Option<(&Arc<dyn BlockDevice>, u64, u64)> = None;
        for piece in &self.map.pieces {
            let Target::Striped { areas, .. } = &piece.target else { return None };
            let [area] = areas.as_slice() else { return None };
            run = match run {
                None => Some((&area.device, area.offset, piece.length)),
                Some((device, start, length))
                    if Arc::ptr_eq(device, &area.device)
                        && start.checked_add(length) == Some(area.offset) =>
                {
                    Some((device, start, length.checked_add(piece.length)?))
                }
                Some(_) => return None,
            };
        }
        run.map(|(device, start, _)| (device, start))
    }
}

struct Builder<'a> {
    group: &'a VolumeGroup,
    subject: String,
    areas: usize,
}

impl Builder<'_> {
    fn corrupt(&self, detail: impl Into<String>) -> Error {
        Error::corrupt("metadata text", self.subject.clone(), detail)
    }

    fn refused(&self, refusal: Refusal) -> Error {
        Error::refused(self.subject.clone(), refusal)
    }

    /// The map of a volume that a person may name.
    fn volume(&mut self, lv: &Lv) -> Result<Map> {
        if let Some(refusal) = self.group.model.own_refusal(lv) {
            return Err(self.refused(refusal));
        }
        let target = match lv.segments.as_slice() {
            [Segment { kind: Kind::Raid1 { legs }, .. }] => self.raid1(lv, legs)?,
            [Segment { kind: Kind::Mirror { legs }, .. }] => {
                let maps = legs.iter().map(|leg| self.leg(lv, leg)).collect::<Result<_>>()?;
                // A leg that failed is taken out of the mirror by lvm2. The others are made equal to
                // the first one when the mirror starts.
                Target::Mirrored { legs: maps, read: 0 }
            }
            _ => return self.striped(lv),
        };
        let length = self.length(lv.extents())?;
        Ok(Map { pieces: vec![Piece { start: 0, length, target }], length })
    }

    fn raid1(&mut self, lv: &Lv, legs: &[(String, String)]) -> Result<Target> {
        let mut maps = Vec::new();
        let mut states = Vec::new();
        for (meta, data) in legs {
            let meta = self
                .group
                .model
                .lv(meta)
                .ok_or_else(|| self.corrupt("a leg's metadata volume is not listed"))?;
            states.push(mirror::Superblock::read(&self.striped(meta)?)?);
            maps.push(self.leg(lv, data)?);
        }
        let read = mirror::whole_leg(&states).ok_or_else(|| self.refused(Refusal::NoWholeLeg))?;
        Ok(Target::Mirrored { legs: maps, read })
    }

    fn leg(&mut self, lv: &Lv, name: &str) -> Result<Map> {
        let leg = self.group.model.lv(name).ok_or_else(|| self.corrupt("a leg is not listed"))?;
        if leg.extents() != lv.extents() {
            return Err(self.corrupt("a leg is not as long as the volume"));
        }
        if let Some(refusal) = leg.flag.clone() {
            return Err(self.refused(refusal));
        }
        self.striped(leg)
    }

    /// The map of a volume all of whose segments lie on physical volumes.
    fn striped(&mut self, lv: &Lv) -> Result<Map> {
        let mut pieces = Vec::with_capacity(lv.segments.len());
        for segment in &lv.segments {
            let (areas, stripe_sectors) = match &segment.kind {
                Kind::Striped { areas, stripe_sectors } => (areas, *stripe_sectors),
                Kind::Refused(refusal) => return Err(self.refused(refusal.clone())),
                _ => return Err(self.refused(Refusal::SegmentType("stacked".into()))),
            };
            let count = segment.area_extents();
            let places = areas.iter().map(|area| self.area(area, count)).collect::<Result<_>>()?;
            let length = self.length(segment.count)?;
            let stripe = if areas.len() == 1 { length } else { bytes(stripe_sectors) };
            if self.length(count)? % stripe.min(length) != 0 && areas.len() > 1 {
                return Err(self.corrupt("its stripes are larger than its extents"));
            }
            let target = Target::Striped { stripe, areas: places };
            pieces.push(Piece { start: self.length(segment.start)?, length, target });
        }
        let length = self.length(lv.extents())?;
        Ok(Map { pieces, length })
    }

    /// Bytes of a number of extents.
    fn length(&self, extents: u64) -> Result<u64> {
        let sectors = extents.checked_mul(self.group.model.extent_sectors);
        sectors
            .filter(|sectors| *sectors < 1 << 54)
            .map(bytes)
            .ok_or_else(|| self.corrupt("its size is beyond all bounds"))
    }

    fn area(&mut self, area: &StripeArea, count: u64) -> Result<Area> {
        self.areas += 1;
        if self.areas > MAX_AREAS {
            return Err(self.corrupt("it has more areas than are read (262,144)"));
        }
        let Some((index, pv)) = self.group.model.pv(&area.target) else {
            // A volume in place of a physical one: pvmove does that, and stacks that are refused.
            let known = self.group.model.lv(&area.target).is_some();
            return Err(match known {
                true => self.refused(Refusal::PvMove),
                false => self.corrupt("it lies on a physical volume that is not listed"),
            });
        };
        let member = self.group.member(index).map_err(|refusal| self.refused(refusal))?;
        let end = area.extent.checked_add(count).filter(|end| *end <= pv.extents);
        let end = end.ok_or_else(|| self.corrupt("it ends after its physical volume's extents"))?;
        let at = |extent: u64| bytes(pv.first_extent + extent * self.group.model.extent_sectors);
        let (offset, end) = (at(area.extent), at(end));
        if end > member.device.len() {
            return Err(self.corrupt(format!(
                "physical volume {} has {} bytes, and the volume ends at byte {end}",
                pv.id,
                member.device.len()
            )));
        }
        if member
            .label
            .metadata
            .iter()
            .any(|m| m.offset < end && offset < m.offset.saturating_add(m.size))
        {
            return Err(self.corrupt("it overlaps a metadata area"));
        }
        Ok(Area { device: member.device.clone(), offset })
    }
}

impl Map {
    fn collect(&self, devices: &mut Vec<Arc<dyn BlockDevice>>) {
        for piece in &self.pieces {
            match &piece.target {
                Target::Striped { areas, .. } => {
                    for area in areas {
                        if !devices.iter().any(|device| Arc::ptr_eq(device, &area.device)) {
                            devices.push(area.device.clone());
                        }
                    }
                }
                Target::Mirrored { legs, .. } => {
                    legs.iter().for_each(|leg| leg.collect(devices));
                }
            }
        }
    }

    /// Calls `each` for every part of a range: the piece, the offset in it, and the part of the
    /// buffer.
    fn parts(
        &self,
        offset: u64,
        length: usize,
        mut each: impl FnMut(&Piece, u64, std::ops::Range<usize>) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut done = 0;
        let mut index = self.pieces.partition_point(|piece| piece.start + piece.length <= offset);
        while done < length {
            let at = offset + done as u64;
            let Some(piece) = self.pieces.get(index) else { return Err(beyond(at, length)) };
            let within = at - piece.start;
            let count = usize::try_from(piece.length - within)
                .map_or(length - done, |rest| rest.min(length - done));
            each(piece, within, done..done + count)?;
            done += count;
            index += 1;
        }
        Ok(())
    }

    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.parts(offset, buf.len(), |piece, within, range| match &piece.target {
            Target::Striped { stripe, areas } => {
                chunks(*stripe, areas, within, range, |area, at, range| {
                    area.device.read_at(at, &mut buf[range])
                })
            }
            Target::Mirrored { legs, read } => match legs.get(*read) {
                Some(leg) => leg.read(within, &mut buf[range]),
                None => Err(beyond(offset, range.len())),
            },
        })
    }

    /// Writes; `free` says that nothing refers to what is there ([`BlockDevice::write_free`]).
    fn write(&self, offset: u64, buf: &[u8], free: bool) -> Result<(), DeviceError> {
        self.parts(offset, buf.len(), |piece, within, range| match &piece.target {
            Target::Striped { stripe, areas } => {
                chunks(*stripe, areas, within, range, |area, at, range| match free {
                    true => area.device.write_free(at, &buf[range]),
                    false => area.device.write_at(at, &buf[range]),
                })
            }
            Target::Mirrored { legs, .. } => {
                legs.iter().try_for_each(|leg| leg.write(within, &buf[range.clone()], free))
            }
        })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}

/// Calls `each` for every part of a range that lies in one stripe: its area, the byte on that
/// area's device, and the part of the buffer.
fn chunks(
    stripe: u64,
    areas: &[Area],
    within: u64,
    range: std::ops::Range<usize>,
    mut each: impl FnMut(&Area, u64, std::ops::Range<usize>) -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let mut done = range.start;
    while done < range.end {
        let at = within + (done - range.start) as u64;
        let (number, inside) = (at / stripe, at % stripe);
        let count = areas.len() as u64;
        let area = areas.get((number % count) as usize).ok_or_else(|| beyond(at, range.len()))?;
        let left = usize::try_from(stripe - inside).unwrap_or(usize::MAX);
        let end = done + left.min(range.end - done);
        each(area, area.offset + number / count * stripe + inside, done..end)?;
        done = end;
    }
    Ok(())
}

fn beyond(offset: u64, length: usize) -> DeviceError {
    let source = io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the volume");
    DeviceError { operation: "reach", offset, length, source }
}

impl BlockDevice for LogicalVolume {
    fn len(&self) -> u64 {
        self.map.length
    }
    fn sector_size(&self) -> u32 {
        self.devices.iter().map(|device| device.sector_size()).max().unwrap_or(512)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.check("read", offset, buf.len())?;
        self.map.read(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.write(offset, buf, false)
    }
    fn write_free(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.write(offset, buf, true)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.devices.iter().try_for_each(|device| device.flush())
    }
}

impl LogicalVolume {
    fn write(&self, offset: u64, buf: &[u8], free: bool) -> Result<(), DeviceError> {
        self.check("write", offset, buf.len())?;
        if self.read_only {
            let source = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the logical volume or its group is read-only",
            );
            return Err(DeviceError { operation: "write", offset, length: buf.len(), source });
        }
        self.map.write(offset, buf, free)
    }

    fn check(
        &self,
        operation: &'static str,
        offset: u64,
        length: usize,
    ) -> Result<(), DeviceError> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.map.length => Ok(()),
            _ => Err(DeviceError { operation, ..beyond(offset, length) }),
        }
    }
}
