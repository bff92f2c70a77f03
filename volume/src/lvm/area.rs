//! A metadata area: a header of one sector and a ring buffer of texts after it.

use snf_fs::BlockDevice;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SECTOR;
use super::checksum::checksum;
use super::label::Place;
use crate::{Error, Result};

const MAGIC: [u8; 16] = *b" LVM2 x[5A%r0N*>";
const VERSION: u32 = 1;
/// The ring begins after the header's sector.
const RING_START: u64 = SECTOR;
/// The text is not used.
const IGNORED: u32 = 1;
/// Most bytes of a text. A group of several thousand volumes stays below.
pub(crate) const MAX_TEXT: u64 = 4 << 20;

/// The place of a text in the area.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct RawLocation {
    /// Bytes from the start of the area.
    offset: U64,
    size: U64,
    crc: U32,
    flags: U32,
}

/// The header: one sector.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone)]
#[repr(C)]
struct AreaHeader {
    crc: U32,
    magic: [u8; 16],
    version: U32,
    /// Byte offset of the area on the device.
    start: U64,
    size: U64,
    committed: RawLocation,
    /// Set by lvm2 while it commits.
    precommitted: RawLocation,
    rest: [u8; 424],
}

const _: () = assert!(size_of::<AreaHeader>() == SECTOR as usize);

/// A text's place in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Text {
    offset: u64,
    size: u64,
    crc: u32,
}

/// A metadata area whose place is known from the label.
#[derive(Clone)]
pub(crate) struct Area {
    pub(crate) place: Place,
    /// The text that counts; none in an area that is fresh or damaged.
    text: Option<Text>,
    /// The area exists and is out of use.
    pub(crate) ignored: bool,
}

impl Area {
    /// An area without a text yet.
    pub(crate) fn fresh(place: Place) -> Self {
        Self { place, text: None, ignored: false }
    }

    /// Reads the header.
    pub(crate) fn read(device: &dyn BlockDevice, place: Place) -> Result<Self> {
        check_place(device, place)?;
        let mut sector = [0; SECTOR as usize];
        device.read_at(place.offset, &mut sector)?;
        let corrupt = |detail: String| {
            Error::corrupt("metadata area header", format!("byte {}", place.offset), detail)
        };
        let header = AreaHeader::ref_from_bytes(&sector)
            .map_err(|_| corrupt("the sector is too short".into()))?;
        if header.crc.get() != checksum(&[&sector[4..]]) {
            return Err(corrupt("the checksum is wrong".into()));
        }
        if header.magic != MAGIC || header.version.get() != VERSION {
            return Err(corrupt("magic or version is wrong".into()));
        }
        if (header.start.get(), header.size.get()) != (place.offset, place.size) {
            return Err(corrupt(format!(
                "it says {} bytes at {}, the label {} bytes",
                header.size, header.start, place.size
            )));
        }
        let found = &header.committed;
        let ignored = found.flags.get() & IGNORED != 0;
        let text =
            Text { offset: found.offset.get(), size: found.size.get(), crc: found.crc.get() };
        if text.offset == 0 || text.size == 0 {
            return Ok(Self { place, text: None, ignored });
        }
        let fits = text.offset >= RING_START
            && text.offset < place.size
            && text.size <= place.size - RING_START;
        if !fits {
            return Err(corrupt(format!("{} bytes of text at {}", text.size, text.offset)));
        }
        if text.size > MAX_TEXT {
            return Err(corrupt(format!("a text of {} bytes; {MAX_TEXT} are read", text.size)));
        }
        Ok(Self { place, text: Some(text), ignored })
    }

    /// Checksum and size of the text: equal ones need not be parsed twice.
    pub(crate) fn fingerprint(&self) -> Option<(u32, u64)> {
        self.text.map(|text| (text.crc, text.size))
    }

    /// Reads the text that counts and checks it.
    pub(crate) fn read_text(&self, device: &dyn BlockDevice) -> Result<Option<Vec<u8>>> {
        let Some(text) = self.text else { return Ok(None) };
        // At most MAX_TEXT bytes.
        let mut bytes = vec![0; text.size as usize];
        let first = text.size.min(self.place.size - text.offset) as usize;
        let (head, tail) = bytes.split_at_mut(first);
        device.read_at(self.place.offset + text.offset, head)?;
        if !tail.is_empty() {
            device.read_at(self.place.offset + RING_START, tail)?;
        }
        if checksum(&[&bytes]) != text.crc {
            let place = format!("byte {}", self.place.offset + text.offset);
            return Err(Error::corrupt("metadata text", place, "the checksum is wrong"));
        }
        Ok(Some(bytes))
    }

    /// The same area with a new text of `bytes` after the present one, which stays whole. Nothing
    /// is written yet.
    pub(crate) fn with_text(&self, bytes: &[u8]) -> Result<Self> {
        let needed = bytes.len() as u64;
        let ring = self.place.size - RING_START;
        let (offset, room) = match self.text {
            None => (RING_START, ring),
            Some(old) => {
                let mut end = old.offset + old.size;
                if end >= self.place.size {
                    end -= ring;
                }
                let mut offset = end.next_multiple_of(SECTOR);
                let mut skipped = offset - end;
                if offset >= self.place.size {
                    offset = RING_START;
                    skipped = self.place.size.saturating_sub(end);
                }
                let room = (ring - old.size).saturating_sub(skipped);
                (offset, room)
            }
        };
        if needed > room || needed > MAX_TEXT {
            return Err(Error::NoMetadataSpace { needed, room: room.min(MAX_TEXT) });
        }
        let text = Text { offset, size: needed, crc: checksum(&[bytes]) };
        Ok(Self { text: Some(text), ..*self })
    }

    /// Writes the text to its place. The header does not name it yet.
    pub(crate) fn write_text(&self, device: &dyn BlockDevice, bytes: &[u8]) -> Result<()> {
        let Some(text) = self.text else { return Ok(()) };
        let first = (bytes.len() as u64).min(self.place.size - text.offset) as usize;
        let (head, tail) = bytes.split_at(first);
        device.write_at(self.place.offset + text.offset, head)?;
        if !tail.is_empty() {
            device.write_at(self.place.offset + RING_START, tail)?;
        }
        Ok(())
    }

    /// Writes the header, one sector: from here on the text counts.
    pub(crate) fn write_header(&self, device: &dyn BlockDevice) -> Result<()> {
        let flags = U32::new(if self.ignored { IGNORED } else { 0 });
        let nowhere =
            RawLocation { offset: U64::new(0), size: U64::new(0), crc: U32::new(0), flags };
        let committed = self.text.map_or(nowhere, |text| RawLocation {
            offset: U64::new(text.offset),
            size: U64::new(text.size),
            crc: U32::new(text.crc),
            flags,
        });
        let mut header = AreaHeader {
            crc: U32::new(0),
            magic: MAGIC,
            version: U32::new(VERSION),
            start: U64::new(self.place.offset),
            size: U64::new(self.place.size),
            committed,
            precommitted: RawLocation { flags: U32::new(0), ..nowhere },
            rest: [0; 424],
        };
        header.crc = U32::new(checksum(&[&header.as_bytes()[4..]]));
        Ok(device.write_at(self.place.offset, header.as_bytes())?)
    }
}

/// Whether the area lies on the device and has room for a header and some text.
pub(crate) fn check_place(device: &dyn BlockDevice, place: Place) -> Result<()> {
    let end = place.offset.checked_add(place.size);
    let good = place.size >= RING_START + SECTOR
        && place.offset >= SECTOR
        && end.is_some_and(|end| end <= device.len());
    if good {
        return Ok(());
    }
    let detail = format!("a metadata area of {} bytes at {}", place.size, place.offset);
    Err(Error::corrupt("label", "its list of metadata areas", detail))
}

#[cfg(test)]
mod tests {
    use snf_fs::MemoryDevice;

    use super::*;

    const PLACE: Place = Place { offset: 4096, size: 8192 };

    fn commit(device: &MemoryDevice, area: &Area, bytes: &[u8]) -> Area {
        let next = area.with_text(bytes).unwrap();
        next.write_text(device, bytes).unwrap();
        next.write_header(device).unwrap();
        Area::read(device, PLACE).unwrap()
    }

    #[test]
    fn texts_go_around_the_ring() {
        let device = MemoryDevice::new(vec![0; 1 << 16]);
        let mut area = Area::fresh(PLACE);
        let mut wrapped = 0;
        for round in 0u8..50 {
            let text = vec![round; 700 + 53 * usize::from(round)];
            area = commit(&device, &area, &text);
            assert_eq!(area.read_text(&device).unwrap(), Some(text.clone()), "{round}");
            let text = area.text.unwrap();
            wrapped += u32::from(text.offset + text.size > PLACE.size);
        }
        assert!(wrapped > 3, "{wrapped}");
        assert!(device.to_vec()[..4096].iter().all(|byte| *byte == 0));
        assert!(device.to_vec()[12288..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_old_text_stays_whole() {
        let device = MemoryDevice::new(vec![0; 1 << 16]);
        let mut area = commit(&device, &Area::fresh(PLACE), &[1; 3000]);
        for round in 0..20 {
            let old = area.read_text(&device).unwrap();
            let long = vec![7; 4500 - 50 * round];
            let next = area.with_text(&long).unwrap();
            next.write_text(&device, &long).unwrap();
            assert_eq!(area.read_text(&device).unwrap(), old);
            area = commit(&device, &area, &[2; 2900]);
        }
        let error = area.with_text(&[0; 4800]).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::NoMetadataSpace { needed: 4800, .. }), "{error}");
    }

    #[test]
    fn damage_is_seen() {
        let device = MemoryDevice::new(vec![0; 1 << 16]);
        let area = commit(&device, &Area::fresh(PLACE), b"text");
        device.write_at(4096 + 512, b"T").unwrap();
        assert!(area.read_text(&device).is_err());
        device.write_at(4096 + 100, b"x").unwrap();
        assert!(Area::read(&device, PLACE).is_err());
        for place in [
            Place { offset: 0, size: 8192 },
            Place { offset: 4096, size: 512 },
            Place { offset: 4096, size: u64::MAX },
            Place { offset: 4096, size: 1 << 16 },
        ] {
            assert!(Area::read(&device, place).is_err(), "{place:?}");
        }
    }
}
