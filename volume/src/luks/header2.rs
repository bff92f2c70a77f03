//! The two headers of LUKS2: a binary part of 4096 bytes, big-endian, and a JSON text after it,
//! under one checksum. The second header is a copy and counts when the first is damaged or older.

use snf_fs::BlockDevice;
use zerocopy::byteorder::big_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::hash::Hash;
use super::open::Header;
use super::{MAGIC, json};
use crate::{Error, Result};

const SECOND_MAGIC: [u8; 6] = *b"SKUL\xba\xbe";
/// The sizes that the specification allows; the second header lies at one of these offsets.
const SIZES: [u64; 9] =
    [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];
const BINARY: usize = 4096;

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct OnDisk {
    magic: [u8; 6],
    version: U16,
    /// Bytes of the binary part and the text.
    size: U64,
    sequence: U64,
    label: [u8; 48],
    checksum_name: [u8; 32],
    _salt: [u8; 64],
    uuid: [u8; 40],
    _subsystem: [u8; 48],
    /// Byte on the device where this header begins.
    offset: U64,
    _padding: [u8; 184],
    checksum: [u8; 64],
}

const _: () = assert!(size_of::<OnDisk>() == 512);

/// A header whose checksum is right.
struct Whole {
    sequence: u64,
    size: u64,
    uuid: String,
    label: String,
    text: Vec<u8>,
}

/// Whether a second header begins at one of its possible places, whole or not.
pub(crate) fn second_exists(device: &dyn BlockDevice) -> Result<bool> {
    for offset in SIZES {
        let mut magic = [0; SECOND_MAGIC.len()];
        if offset + BINARY as u64 > device.len() {
            break;
        }
        device.read_at(offset, &mut magic)?;
        if magic == SECOND_MAGIC {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads both headers and takes the newer whole one.
pub(crate) fn read(device: &dyn BlockDevice) -> Result<Header> {
    let first = keep_device_errors(read_one(device, 0, MAGIC))?;
    let second = match &first {
        Ok(first) => keep_device_errors(read_one(device, first.size, SECOND_MAGIC))?,
        Err(_) => {
            let mut found = None;
            for offset in SIZES {
                match keep_device_errors(read_one(device, offset, SECOND_MAGIC))? {
                    Ok(whole) => {
                        found = Some(Ok(whole));
                        break;
                    }
                    Err(error) => found = found.or(Some(Err(error))),
                }
            }
            found.unwrap_or_else(|| Err(damaged(0, "there is none")))
        }
    };
    let (whole, damage) = match (first, second) {
        (Ok(first), Ok(second)) if second.sequence > first.sequence => (second, None),
        (Ok(first), Ok(_)) => (first, None),
        (Ok(first), Err(error)) => (first, Some(error)),
        (Err(error), Ok(second)) => (second, Some(error)),
        (Err(error), Err(_)) => return Err(error),
    };
    let mut header = json::parse(&whole.text, whole.size, device.len())?;
    header.uuid = whole.uuid;
    header.label = whole.label;
    header.damage = damage;
    Ok(header)
}

/// A device that fails ends everything; a damaged header does not.
fn keep_device_errors<T>(result: Result<T>) -> Result<Result<T>> {
    match result {
        Err(error @ Error::Device(_)) => Err(error),
        other => Ok(other),
    }
}

fn damaged(offset: u64, detail: &str) -> Error {
    Error::corrupt("LUKS2 header", format!("byte {offset}"), detail)
}

fn read_one(device: &dyn BlockDevice, offset: u64, magic: [u8; 6]) -> Result<Whole> {
    let corrupt = |detail: &str| damaged(offset, detail);
    let mut binary = [0; BINARY];
    if offset.checked_add(BINARY as u64).is_none_or(|end| end > device.len()) {
        return Err(corrupt("the device ends before it"));
    }
    device.read_at(offset, &mut binary)?;
    let (header, _) =
        OnDisk::ref_from_prefix(&binary).map_err(|_| corrupt("the header is too short"))?;
    if header.magic != magic || header.version.get() != 2 {
        return Err(corrupt("magic or version is wrong"));
    }
    let size = header.size.get();
    if !SIZES.contains(&size) || offset + size > device.len() {
        return Err(corrupt("its size is not one of the possible ones"));
    }
    if header.offset.get() != offset {
        return Err(corrupt("it belongs to another place"));
    }
    let hash = Hash::parse(&super::field(&header.checksum_name));
    let hash = hash.map_err(|refusal| Error::refused("the LUKS2 header", refusal))?;
    // At most 4 MiB.
    let mut text = vec![0; size as usize - BINARY];
    device.read_at(offset + BINARY as u64, &mut text)?;
    let stored = header.checksum;
    let at = std::mem::offset_of!(OnDisk, checksum);
    let digest = hash.digest(&[&binary[..at], &[0; 64], &binary[at + stored.len()..], &text]);
    if digest[..hash.length()] != stored[..hash.length()] {
        return Err(corrupt("the checksum is wrong"));
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    text.truncate(end);
    Ok(Whole {
        sequence: header.sequence.get(),
        size,
        uuid: super::field(&header.uuid),
        label: super::field(&header.label),
        text,
    })
}
