//! Orphans: inodes that the kernel was about to free or to cut when the power went. They stand in a
//! list that runs through the inodes (`s_last_orphan`, `i_dtime`) or in a file (orphan_file).
//!
//! A mount finishes them after the replay. An orphan that cannot be finished stays in place, for the
//! kernel or e2fsck: its blocks are in use, so no other file gets them.
//!
//! Source: the kernel's Documentation/filesystems/ext4/orphan.rst.

use zerocopy::little_endian::U32;

use super::seal::{seal, transaction_capacity};
use crate::error::{Error, Result};
use crate::ext::checksum::crc32c;
use crate::ext::inode::flags;
use crate::ext::superblock::{compat, ro_compat};
use crate::ext::units::Ino;
use crate::ext::volume::Volume;
use crate::ext::{map, remove};
use crate::num::to_u64;

/// Orphans finished at most. A list that is longer is a loop, or the rest can wait.
const MAX_ORPHANS: usize = 100_000;
/// Blocks of the largest orphan file that the kernel takes.
const MAX_FILE_BLOCKS: u64 = 512;
/// `ob_magic` at the end of each block of the orphan file; the checksum follows it.
const EXT4_ORPHAN_BLOCK_MAGIC: u32 = 0x0B10_CA04;
const TAIL: usize = 8;

/// Finishes the orphans that can be finished. Only a failing device is an error.
pub(super) fn clean(vol: &mut Volume) -> Result<()> {
    for step in [clean_list, clean_file] {
        if let Err(error @ Error::Device(_)) = step(vol) {
            return Err(error);
        }
    }
    Ok(())
}

fn clean_list(vol: &mut Volume) -> Result<()> {
    for _ in 0..MAX_ORPHANS {
        let ino = Ino::from(vol.sb.raw.s_last_orphan);
        if ino.is_none() {
            break;
        }
        bounded(vol, |vol| {
            let next = vol.read_inode(ino)?.raw.i_dtime.get();
            finish(vol, ino)?;
            vol.sb.raw.s_last_orphan = U32::new(next);
            Ok(())
        })?;
    }
    Ok(())
}

fn clean_file(vol: &mut Volume) -> Result<()> {
    if !vol.sb.has_compat(compat::ORPHAN_FILE) || !vol.sb.has_ro_compat(ro_compat::ORPHAN_PRESENT) {
        return Ok(());
    }
    let file = vol.read_inode(vol.sb.raw.s_orphan_file_inum.into())?;
    let blocks = file.size() / to_u64(vol.block_size());
    if !file.is_file() || blocks > MAX_FILE_BLOCKS {
        return Err(Error::corrupt(
            "orphan file",
            format!("inode {}", file.ino),
            format!("it is no file of at most {MAX_FILE_BLOCKS} blocks"),
        ));
    }
    let seed = file.checksum_seed(&vol.sb);
    for lblk in 0..blocks {
        let (number, block) = map::read_block(vol, &file, lblk)?;
        let entries = block.len() - TAIL;
        let corrupt = |detail: &str| {
            Err(Error::corrupt("orphan file block", format!("block {number}"), detail))
        };
        if block[entries..entries + 4] != EXT4_ORPHAN_BLOCK_MAGIC.to_le_bytes() {
            return corrupt("ob_magic is wrong");
        }
        let checksum = |block: &[u8]| {
            crc32c(crc32c(seed, &number.get().to_le_bytes()), &block[..entries]).to_le_bytes()
        };
        if vol.sb.has_metadata_csum() && block[entries + 4..] != checksum(&block) {
            return corrupt("ob_checksum is wrong");
        }
        for at in (0..entries).step_by(4) {
            let ino = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            let ino = Ino::new(ino);
            if ino.is_none() {
                continue;
            }
            bounded(vol, |vol| {
                finish(vol, ino)?;
                let mut block = vol.store.read(number)?.to_vec();
                block[at..at + 4].fill(0);
                if vol.sb.has_metadata_csum() {
                    let crc = checksum(&block);
                    block[entries + 4..].copy_from_slice(&crc);
                }
                vol.store.write_meta(number, block)
            })?;
        }
    }
    vol.sb.set_ro_compat(ro_compat::ORPHAN_PRESENT, false);
    Ok(())
}

/// Does one step wholly or not at all, in a transaction that the journal can take.
fn bounded(vol: &mut Volume, work: impl FnOnce(&mut Volume) -> Result<()>) -> Result<()> {
    let capacity = transaction_capacity(vol)?;
    if vol.store.pending_meta() > capacity / 2 {
        seal(vol)?;
    }
    vol.attempt(|vol| {
        work(vol)?;
        // Superblock and quota files come on top.
        if vol.store.pending_meta() > capacity.saturating_sub(64) {
            return Err(Error::NoSpace("the journal is too small for an orphan".to_owned()));
        }
        Ok(())
    })
}

/// Frees an inode without names, or cuts one to its size.
fn finish(vol: &mut Volume, ino: Ino) -> Result<()> {
    if ino < vol.sb.first_ino() {
        return Err(Error::corrupt("orphan", format!("inode {ino}"), "it is a reserved inode"));
    }
    let mut inode = vol.read_inode(ino)?;
    if inode.file_type().is_none() {
        return Err(Error::corrupt("orphan", format!("inode {ino}"), "it is of no known type"));
    }
    if inode.links() == 0 {
        vol.quota.note_orphan(&vol.sb, &inode);
        return remove::free_inode(vol, &mut inode);
    }
    inode.raw.i_dtime = U32::new(0);
    let size = inode.size();
    if inode.is_file() && !inode.has_flag(flags::INLINE_DATA) {
        // One byte more, so that there is something to cut; blocks after the end go with it.
        inode.set_size(size.saturating_add(1));
        map::truncate(vol, &mut inode, size)?;
    }
    vol.write_inode(&inode)
}
