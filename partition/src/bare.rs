//! Telling a disk that holds a bare file system from one that has a partition table: both may
//! carry the bytes 55 AA at the end of their first sector.

use crate::disk::{Disk, read_if_there};
use crate::error::Result;
use crate::num::to_usize;
use crate::signature::{SIGNATURES, WINDOW};

/// The name of the file system (or other whole-device format) that begins at the first byte of
/// the disk, as far as this crate knows the signature. A partition table beside it is not looked
/// for; [`crate::read`] weighs the two.
///
/// # Errors
/// [`crate::Error::Io`] where the disk fails.
pub fn file_system(disk: &dyn Disk) -> Result<Option<&'static str>> {
    let length = usize::try_from(disk.len()).unwrap_or(usize::MAX).min(to_usize(WINDOW));
    let Some(window) = read_if_there(disk, 0, length)? else { return Ok(None) };
    Ok(signature_of(&window))
}

fn signature_of(window: &[u8]) -> Option<&'static str> {
    if is_ext(window) {
        return Some("ext2/3/4");
    }
    for signature in SIGNATURES {
        let offset = signature.offset().and_then(|offset| usize::try_from(offset).ok());
        let rest = offset.and_then(|offset| window.get(offset..));
        if rest.is_some_and(|rest| rest.starts_with(signature.magic)) {
            return Some(signature.name);
        }
    }
    if is_fat(window) {
        return Some("FAT");
    }
    None
}

fn le16(window: &[u8], offset: usize) -> u16 {
    match window.get(offset..offset + 2) {
        Some([a, b]) => u16::from_le_bytes([*a, *b]),
        _ => 0,
    }
}

fn le32(window: &[u8], offset: usize) -> u32 {
    u32::from(le16(window, offset)) | u32::from(le16(window, offset + 2)) << 16
}

/// The superblock's magic, and enough beside it that two bytes of boot code do not decide.
fn is_ext(window: &[u8]) -> bool {
    const SUPERBLOCK: usize = 1024;
    let blocks_count = le32(window, SUPERBLOCK + 4);
    let log_block_size = le32(window, SUPERBLOCK + 24);
    let inodes_per_group = le32(window, SUPERBLOCK + 40);
    le16(window, SUPERBLOCK + 56) == 0xef53
        && blocks_count != 0
        && log_block_size <= 6
        && inodes_per_group != 0
}

/// A BIOS parameter block that makes sense from the jump to the number of FATs. An MBR's boot code
/// (GRUB's keeps the room of a BPB) does not satisfy it.
fn is_fat(window: &[u8]) -> bool {
    let jump = matches!(window.first(), Some(0xeb | 0xe9));
    let bytes_per_sector = le16(window, 11);
    let sectors_per_cluster = window.get(13).copied().unwrap_or(0);
    let reserved_sectors = le16(window, 14);
    let fats = window.get(16).copied().unwrap_or(0);
    let media = window.get(21).copied().unwrap_or(0);
    let total_sectors = u32::from(le16(window, 19)) | le32(window, 32);
    jump && matches!(bytes_per_sector, 512 | 1024 | 2048 | 4096)
        && sectors_per_cluster.is_power_of_two()
        && reserved_sectors != 0
        && matches!(fats, 1 | 2)
        && (media >= 0xf8 || media == 0xf0)
        && total_sectors != 0
        && le16(window, 510) == 0xaa55
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures() {
        let mut window = vec![0; WINDOW as usize];
        assert_eq!(signature_of(&window), None);
        assert_eq!(signature_of(&[]), None);
        window[3..11].copy_from_slice(b"NTFS    ");
        assert_eq!(signature_of(&window), Some("NTFS"));
        let mut window = vec![0; WINDOW as usize];
        window[1080..1082].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(signature_of(&window), None, "the magic alone is too little");
        window[1028] = 1;
        window[1064] = 1;
        assert_eq!(signature_of(&window), Some("ext2/3/4"));
    }
}
