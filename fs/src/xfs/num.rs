//! Big-endian numbers at a place in bytes, and the checksum of XFS.
//!
//! Reading beyond the end gives 0, which every check refuses; writing there does nothing. So no
//! image, however damaged, makes an index panic.

/// Two bytes at `at`.
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |n| u16::from_be_bytes(*n))
}

/// Four bytes at `at`.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |n| u32::from_be_bytes(*n))
}

/// Eight bytes at `at`.
pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |n| u64::from_be_bytes(*n))
}

/// Writes bytes at `at`.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}

/// Writes two bytes at `at`.
pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    put(bytes, at, &value.to_be_bytes());
}

/// Writes four bytes at `at`.
pub(super) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    put(bytes, at, &value.to_be_bytes());
}

/// Writes eight bytes at `at`.
pub(super) fn put64(bytes: &mut [u8], at: usize, value: u64) {
    put(bytes, at, &value.to_be_bytes());
}

/// crc32c over a structure whose checksum, at byte `at`, counts as zero.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let (head, tail) = bytes.split_at(at.min(bytes.len()));
    let crc = crc32c::crc32c_append(crc32c::crc32c(head), &[0; 4]);
    crc32c::crc32c_append(crc, tail.get(4..).unwrap_or_default())
}

/// Whether the little-endian checksum at byte `at` is right.
pub(super) fn is_sealed(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|n| u32::from_le_bytes(*n))
        == Some(checksum(bytes, at))
}

/// Writes the checksum at byte `at`.
pub(super) fn seal(bytes: &mut [u8], at: usize) {
    let crc = checksum(bytes, at);
    put(bytes, at, &crc.to_le_bytes());
}

/// The hash of a name in the indexes of directories and attributes.
pub(super) fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0u32, |hash, &byte| hash.rotate_left(7) ^ u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_panics_beyond_the_end() {
        let mut bytes = [1, 2, 3];
        assert_eq!((be16(&bytes, 1), be32(&bytes, 0), be64(&bytes, 9)), (0x0203, 0, 0));
        put32(&mut bytes, 1, 7);
        assert_eq!(bytes, [1, 2, 3]);
    }

    #[test]
    fn a_seal_holds() {
        let mut bytes = [7; 64];
        seal(&mut bytes, 12);
        assert!(is_sealed(&bytes, 12));
        bytes[40] = 8;
        assert!(!is_sealed(&bytes, 12) && !is_sealed(&bytes, 90));
    }

    #[test]
    fn hashes_as_specified() {
        // Four bytes at a time, as the specification writes it.
        let name = b"abcde";
        let four = 0x61 << 21 ^ 0x62 << 14 ^ 0x63 << 7 ^ 0x64u32;
        assert_eq!(hash(name), 0x65 ^ four.rotate_left(7));
    }
}
