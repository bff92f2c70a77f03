//! The four kinds of checksums, and the hashes of names and references.

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use sha2::Sha256;
use twox_hash::XxHash64;

use crate::error::{Error, Result};
use crate::num::low32;

/// The kind of checksum that a file system has for its trees and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// CRC-32C, 4 bytes.
    Crc32c,
    /// xxHash64, 8 bytes.
    Xxhash,
    /// SHA-256.
    Sha256,
    /// BLAKE2b with 256 bits.
    Blake2,
}

impl Checksum {
    /// The kind with this number in `csum_type`.
    pub fn of_type(number: u16) -> Result<Self> {
        Ok(match number {
            0 => Self::Crc32c,
            1 => Self::Xxhash,
            2 => Self::Sha256,
            3 => Self::Blake2,
            _ => {
                return Err(Error::unsupported(
                    format!("the checksum type {number} of this btrfs"),
                    "known are crc32c, xxhash64, sha256 and blake2b",
                ));
            }
        })
    }

    /// Bytes of one checksum of data.
    pub fn size(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Xxhash => 8,
            Self::Sha256 | Self::Blake2 => 32,
        }
    }

    /// The checksum, in the first [`Checksum::size`] bytes; the others are zeros.
    pub fn of(self, bytes: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        match self {
            Self::Crc32c => out[..4].copy_from_slice(&crc32c::crc32c(bytes).to_le_bytes()),
            Self::Xxhash => out[..8].copy_from_slice(&XxHash64::oneshot(0, bytes).to_le_bytes()),
            Self::Sha256 => out.copy_from_slice(&Sha256::digest(bytes)),
            Self::Blake2 => out.copy_from_slice(&Blake2b::<U32>::digest(bytes)),
        }
        out
    }
}

/// CRC-32C that begins with `seed` and is not inverted at its end.
fn raw_crc(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// The hash of a name in the key of a directory entry or of an extended attribute.
pub fn name_hash(name: &[u8]) -> u64 {
    u64::from(raw_crc(!1, name))
}

/// The offset of the key of an `INODE_EXTREF`.
pub fn extref_hash(parent: u64, name: &[u8]) -> u64 {
    u64::from(raw_crc(low32(parent), name))
}

/// The offset of the key of an `EXTENT_DATA_REF`.
pub fn data_ref_hash(root: u64, inode: u64, offset: u64) -> u64 {
    let high = raw_crc(!0, &root.to_le_bytes());
    let low = raw_crc(!0, &inode.to_le_bytes());
    let low = raw_crc(low, &offset.to_le_bytes());
    (u64::from(high) << 31) ^ u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_mkfs_has_them() {
        // The entry of the default subvolume, which every mkfs writes.
        assert_eq!(name_hash(b"default"), 2_378_154_706);
    }

    #[test]
    fn checksums_by_their_published_vectors() {
        assert_eq!(Checksum::Crc32c.of(b"123456789")[..4], 0xE306_9283u32.to_le_bytes());
        assert_eq!(Checksum::Xxhash.of(b"")[..8], 0xEF46_DB37_51D8_E999u64.to_le_bytes());
        assert_eq!(Checksum::Sha256.of(b"")[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        assert_eq!(Checksum::Blake2.of(b"")[..4], [0x0e, 0x57, 0x51, 0xc0]);
        assert!(Checksum::of_type(4).is_err());
    }
}
