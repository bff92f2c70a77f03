//! The signature of a swap area, version 1, as `mkswap` writes it and `swapon` wants it (Linux:
//! `union swap_header` of include/linux/swap.h; documented in mkswap(8)).

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::{Error, Result};
use crate::num::to_u64;

/// Page size of the machines that this is for; a swap area counts in it.
pub const PAGE_SIZE: u64 = to_u64(PAGE);
const PAGE: usize = 4096;
/// Fewest pages that `mkswap` takes.
const MIN_PAGES: u64 = 10;

/// The header in the first page, after 1024 bytes that belong to boot loaders.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    bootbits: [u8; 1024],
    version: U32,
    last_page: U32,
    nr_badpages: U32,
    sws_uuid: [u8; 16],
    sws_volume: [u8; 16],
    padding: [U32; 117],
    badpages: [U32; 1],
}

const _: () = assert!(size_of::<Header>() == 1540);

/// `magic`, the last bytes of the first page.
const MAGIC: [u8; 10] = *b"SWAPSPACE2";
const MAGIC_OFFSET: usize = PAGE - MAGIC.len();

/// A swap area that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapArea {
    /// UUID as `blkid` prints it; all zeros if it has none.
    pub uuid: String,
    /// Label as it is stored, without trailing zeros.
    pub label: Vec<u8>,
    /// Usable size in bytes, the header's page included.
    pub size: u64,
}

/// The text of a UUID (big-endian, unlike a GPT's GUID).
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes(*uuid).to_string()
}

/// A random (version 4) UUID made of 16 random bytes.
pub fn uuid_from_random(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// The first page of a swap area of `size` bytes: written at the start of the partition it makes
/// it one. The label has at most 15 bytes, as a C string needs its end.
///
/// # Errors
/// [`crate::Error::Invalid`] where the area is too small or the label too long.
pub fn first_page(size: u64, uuid: [u8; 16], label: &[u8]) -> Result<Vec<u8>> {
    let pages = size / PAGE_SIZE;
    if pages < MIN_PAGES {
        return Err(Error::Invalid(format!(
            "a swap area needs {} KiB, and the partition has {} KiB; make it larger",
            MIN_PAGES * PAGE_SIZE / 1024,
            size / 1024
        )));
    }
    if label.len() > 15 || label.contains(&0) {
        return Err(Error::Invalid(
            "the label of a swap area has at most 15 bytes, none of them 0".to_owned(),
        ));
    }
    let mut header = Header::new_zeroed();
    header.version = U32::new(1);
    header.last_page = U32::new(u32::try_from(pages - 1).unwrap_or(u32::MAX));
    header.sws_uuid = uuid;
    header.sws_volume[..label.len()].copy_from_slice(label);
    let mut page = vec![0; PAGE];
    page[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    page[MAGIC_OFFSET..].copy_from_slice(&MAGIC);
    Ok(page)
}

/// The swap area whose first page (4096 bytes) is given, if it is one of version 1.
pub fn parse(page: &[u8]) -> Option<SwapArea> {
    if page.get(MAGIC_OFFSET..PAGE) != Some(&MAGIC) {
        return None;
    }
    let (header, _) = Header::read_from_prefix(page).ok()?;
    if header.version.get() != 1 {
        return None;
    }
    let label = header.sws_volume.iter().copied().take_while(|byte| *byte != 0).collect();
    let size = (u64::from(header.last_page.get()) + 1) * PAGE_SIZE;
    Some(SwapArea { uuid: uuid_text(&header.sws_uuid), label, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_parsed() {
        let uuid = uuid_from_random([0xff; 16]);
        let page = first_page(1 << 20, uuid, b"swap").unwrap();
        let area = parse(&page).unwrap();
        assert_eq!(area.uuid, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!((area.label.as_slice(), area.size), (&b"swap"[..], 1 << 20));
        assert!(parse(&page[..4095]).is_none());
        assert!(parse(&[0; 4096]).is_none());
        assert!(first_page(40 * 1024 - 1, uuid, b"").is_err());
        assert!(first_page(1 << 20, uuid, b"sixteen bytes...").is_err());
        // More pages than the field counts: as many as it can.
        assert!(first_page(u64::MAX, uuid, b"").is_ok());
    }
}
