//! POSIX ACLs: XFS keeps entries of 12 bytes, big-endian; `getxattr(2)` shows 8, little-endian.

use crate::num::{low16, to_u32, to_usize};
use crate::xfs::num;

const VERSION: u32 = 2;

/// The value that `getxattr(2)` gives.
pub(super) fn to_value(disk: &[u8]) -> Option<Vec<u8>> {
    let count = to_usize(num::be32(disk, 0));
    let entries = disk.get(4..)?;
    if count.checked_mul(12)? > entries.len() || entries.len() % 12 != 0 {
        return None;
    }
    let mut out = VERSION.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(12).take(count) {
        let tag = low16(num::be32(entry, 0));
        // Only a named user and a named group have an id that counts.
        let id = if matches!(tag, 2 | 8) { num::be32(entry, 4) } else { u32::MAX };
        out.extend(tag.to_le_bytes());
        out.extend(num::be16(entry, 8).to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    Some(out)
}

/// The form on disk of a value that was checked.
pub(super) fn to_disk(value: &[u8]) -> Vec<u8> {
    let entries = value.get(4..).unwrap_or_default();
    let mut out = to_u32(entries.len() / 8).to_be_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        out.extend(u32::from(tag).to_be_bytes());
        out.extend([entry[7], entry[6], entry[5], entry[4]]);
        out.extend([entry[3], entry[2], 0, 0]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in [
            (1u16, 7u16, u32::MAX),
            (2, 5, 1000),
            (4, 5, u32::MAX),
            (16, 5, u32::MAX),
            (32, 0, u32::MAX),
        ] {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let disk = to_disk(&value);
        assert_eq!((disk.len(), num::be32(&disk, 0)), (4 + 5 * 12, 5));
        assert_eq!(to_value(&disk).unwrap(), value);
        assert_eq!(to_value(&disk[..20]), None);
    }
}
