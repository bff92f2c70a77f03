//! The label of a physical volume: one sector among the first four with identifier, size and the
//! places of the metadata areas.

use snf_fs::BlockDevice;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checksum::checksum;
use super::{Id, SECTOR};
use crate::{Error, Result};

/// A label is looked for in this many sectors.
const SCAN_SECTORS: u64 = 4;
const MAGIC: [u8; 8] = *b"LABELONE";
const TYPE: [u8; 8] = *b"LVM2 001";
/// The checksum covers the sector from here.
const CHECKED_FROM: usize = 20;

/// The beginning of the sector.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct LabelHeader {
    magic: [u8; 8],
    /// The sector that the label lies in.
    sector: U64,
    crc: U32,
    /// The offset of the physical volume's header in the sector.
    offset: U32,
    kind: [u8; 8],
}

/// The header of the physical volume, up to its first location.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct PvHeader {
    id: [u8; 32],
    /// Bytes of the device when the label was written.
    device_size: U64,
}

/// A place on the device. A list of them ends with one of zeros.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct Location {
    offset: U64,
    size: U64,
}

/// A place in bytes; a `size` of 0 means "up to the end of the device".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// A label that was read.
#[derive(Clone)]
pub(crate) struct Label {
    /// Byte offset of the sector.
    at: u64,
    /// The sector as it is on disk.
    sector: [u8; SECTOR as usize],
    /// Offset of the header in the sector.
    header: usize,
    pub(crate) id: Id,
    pub(crate) device_size: u64,
    pub(crate) metadata: Vec<Place>,
    /// Offset in the sector of each of `metadata`.
    metadata_at: Vec<usize>,
}

impl Label {
    /// Looks for the label. `None` when the device has none; an error when all that it has are
    /// damaged.
    pub(crate) fn read(device: &dyn BlockDevice) -> Result<Option<Self>> {
        let mut damage = None;
        for number in 0..SCAN_SECTORS.min(device.len() / SECTOR) {
            let mut sector = [0; SECTOR as usize];
            device.read_at(number * SECTOR, &mut sector)?;
            if !sector.starts_with(&MAGIC) {
                continue;
            }
            match Self::parse(number, sector) {
                Ok(label) => return Ok(Some(label)),
                Err(error) => damage = damage.or(Some(error)),
            }
        }
        damage.map_or(Ok(None), Err)
    }

    fn parse(number: u64, sector: [u8; SECTOR as usize]) -> Result<Self> {
        let corrupt =
            |detail: &str| Error::corrupt("label", format!("byte {}", number * SECTOR), detail);
        let (header, _) = LabelHeader::ref_from_prefix(&sector)
            .map_err(|_| corrupt("the sector is too short"))?;
        if header.crc.get() != checksum(&[&sector[CHECKED_FROM..]]) {
            return Err(corrupt("the checksum is wrong"));
        }
        if header.sector.get() != number {
            return Err(corrupt("it belongs into another sector"));
        }
        if header.kind != TYPE {
            return Err(corrupt("it is not of the type LVM2 001"));
        }
        let at = header.offset.get() as usize;
        let start = sector.get(at..).unwrap_or_default();
        let (pv, _) =
            PvHeader::ref_from_prefix(start).map_err(|_| corrupt("the header is outside"))?;
        let id = Id::from_bytes(pv.id).ok_or_else(|| corrupt("the identifier is malformed"))?;
        let device_size = pv.device_size.get();
        let first = at + size_of::<PvHeader>();
        let unended = || corrupt("a list of places has no end");
        let (_, after_data) = places(&sector, first).ok_or_else(unended)?;
        let (found, _) = places(&sector, after_data).ok_or_else(unended)?;
        let (metadata_at, metadata) = found.into_iter().unzip();
        Ok(Self { at: number * SECTOR, sector, header: at, id, device_size, metadata, metadata_at })
    }

    /// The same label for a device of `device_size` bytes, with its last metadata area at `moved`,
    /// if given. Everything else in the sector stays, the header's extension included.
    pub(crate) fn resized(&self, device_size: u64, moved: Option<Place>) -> Self {
        let mut new = self.clone();
        let size_at = self.header + std::mem::offset_of!(PvHeader, device_size);
        new.sector[size_at..size_at + 8].copy_from_slice(&device_size.to_le_bytes());
        new.device_size = device_size;
        if let (Some(place), Some(at), Some(last)) =
            (moved, self.metadata_at.last(), new.metadata.last_mut())
        {
            let location = Location { offset: U64::new(place.offset), size: U64::new(place.size) };
            new.sector[*at..*at + size_of::<Location>()].copy_from_slice(location.as_bytes());
            *last = place;
        }
        let crc = checksum(&[&new.sector[CHECKED_FROM..]]);
        let crc_at = std::mem::offset_of!(LabelHeader, crc);
        new.sector[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        new
    }

    /// Writes the sector.
    pub(crate) fn write(&self, device: &dyn BlockDevice) -> Result<()> {
        Ok(device.write_at(self.at, &self.sector)?)
    }
}

/// A list of places from `at` on, each with its offset in the sector, and the offset after the
/// list. `None` when the list leaves the sector.
fn places(sector: &[u8], mut at: usize) -> Option<(Vec<(usize, Place)>, usize)> {
    let mut found = Vec::new();
    loop {
        let (location, _) = Location::ref_from_prefix(sector.get(at..)?).ok()?;
        let place = Place { offset: location.offset.get(), size: location.size.get() };
        let here = at;
        at += size_of::<Location>();
        if place.offset == 0 {
            return Some((found, at));
        }
        found.push((here, place));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use snf_fs::MemoryDevice;

    use super::*;

    /// A label in the second sector, as `pvcreate` writes it.
    pub(crate) fn sector(device_size: u64, areas: &[Place]) -> [u8; 512] {
        let mut sector = [0; 512];
        sector[..8].copy_from_slice(&MAGIC);
        sector[8] = 1;
        sector[20] = 32;
        sector[24..32].copy_from_slice(&TYPE);
        sector[32..64].fill(b'a');
        sector[64..72].copy_from_slice(&device_size.to_le_bytes());
        sector[72..80].copy_from_slice(&(1u64 << 20).to_le_bytes());
        for (index, area) in areas.iter().enumerate() {
            let at = 104 + index * 16;
            sector[at..at + 8].copy_from_slice(&area.offset.to_le_bytes());
            sector[at + 8..at + 16].copy_from_slice(&area.size.to_le_bytes());
        }
        seal(&mut sector);
        sector
    }

    fn seal(sector: &mut [u8; 512]) {
        let crc = checksum(&[&sector[20..]]);
        sector[16..20].copy_from_slice(&crc.to_le_bytes());
    }

    const AREA: Place = Place { offset: 4096, size: 1_044_480 };

    fn on_disk(sector: &[u8; 512]) -> MemoryDevice {
        let mut bytes = vec![0; 4096];
        bytes[512..1024].copy_from_slice(sector);
        MemoryDevice::new(bytes)
    }

    #[test]
    fn read_and_resized() {
        let device = on_disk(&sector(1 << 30, &[AREA, Place { offset: 1 << 29, size: 1 << 20 }]));
        let label = Label::read(&device).unwrap().unwrap();
        assert_eq!((label.device_size, label.metadata.len()), (1 << 30, 2));
        let moved = Place { offset: 1 << 30, size: 1 << 20 };
        label.resized(1 << 31, Some(moved)).write(&device).unwrap();
        let label = Label::read(&device).unwrap().unwrap();
        assert_eq!((label.device_size, label.metadata), (1 << 31, vec![AREA, moved]));
    }

    #[test]
    fn no_label_and_damaged_ones() {
        assert!(Label::read(&MemoryDevice::new(vec![0; 4096])).unwrap().is_none());
        assert!(Label::read(&MemoryDevice::new(Vec::new())).unwrap().is_none());
        let good = sector(1 << 30, &[AREA]);
        let mut damaged = good;
        damaged[70] ^= 1;
        let mut elsewhere = good;
        elsewhere[8] = 2;
        let mut endless = good;
        endless[72..].fill(1);
        seal(&mut endless);
        let mut far = good;
        far[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        seal(&mut far);
        for bad in [damaged, elsewhere, endless, far] {
            let error = Label::read(&on_disk(&bad)).map(|_| ()).unwrap_err();
            assert!(error.to_string().starts_with("corrupt label at byte 512"), "{error}");
        }
    }
}
