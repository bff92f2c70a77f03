//! The block of extended attributes that an inode's `i_file_acl` points to. Inodes with the same
//! attributes may share one; a change to a shared block makes a copy.

use super::super::alloc;
use super::super::checksum::crc32c;
use super::super::inode::Inode;
use super::super::superblock::Superblock;
use super::super::units::FsBlock;
use super::super::volume::Volume;
use super::list::{self, Attr, MAGIC};
use crate::error::{Error, Result};

/// Bytes of the header.
pub const HEADER: usize = 32;
/// The most inodes that share a block: what the kernel allows.
const MAX_REFCOUNT: u32 = 1024;

fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn set_word(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// crc32c over the block's number and the block with its checksum zero.
fn checksum(sb: &Superblock, number: FsBlock, block: &[u8]) -> u32 {
    const AT: usize = 16;
    let mut crc = crc32c(sb.checksum_seed(), &number.get().to_le_bytes());
    crc = crc32c(crc, &block[..AT]);
    crc = crc32c(crc, &[0; 4]);
    crc32c(crc, &block[AT + 4..])
}

/// The content of a block.
pub struct Loaded {
    /// How many inodes share it.
    pub refcount: u32,
    /// The attributes.
    pub list: Vec<Attr>,
}

/// Reads and verifies the block of an inode; `None` when it has none.
pub fn load(volume: &Volume, inode: &Inode) -> Result<Option<Loaded>> {
    let number = inode.file_acl();
    if number.is_none() {
        return Ok(None);
    }
    let position = format!("block {number} of inode {}", inode.ino);
    let corrupt = |detail: String| Error::corrupt("extended attribute block", &position, detail);
    if number.get() >= volume.sb.blocks_count() {
        return Err(corrupt(format!(
            "i_file_acl is {number}, but the file system has {} blocks",
            volume.sb.blocks_count()
        )));
    }
    let block = volume.read_block(number)?;
    if word(&block, 0) != MAGIC {
        return Err(corrupt(format!(
            "h_magic is {:#010x}, {MAGIC:#010x} expected",
            word(&block, 0)
        )));
    }
    if word(&block, 8) != 1 {
        return Err(corrupt(format!("h_blocks is {}, 1 expected", word(&block, 8))));
    }
    if volume.sb.has_metadata_csum() {
        let (found, expected) = (word(&block, 16), checksum(&volume.sb, number, &block));
        if found != expected {
            return Err(corrupt(format!("h_checksum is {found:#010x}, {expected:#010x} expected")));
        }
    }
    let refcount = word(&block, 4);
    if refcount == 0 || refcount > MAX_REFCOUNT {
        return Err(corrupt(format!("h_refcount is {refcount}, 1 to {MAX_REFCOUNT} expected")));
    }
    Ok(Some(Loaded { refcount, list: list::parse(&block, HEADER, &position)? }))
}

/// Whether a list fits into a block.
pub fn fits(volume: &Volume, list: &[Attr]) -> bool {
    list::fits(list, volume.block_size() - HEADER)
}

/// Gives the inode a block with these attributes, or takes it away when there are none. `old` is
/// the result of [`load`].
pub fn store(
    volume: &mut Volume,
    inode: &mut Inode,
    old: Option<&Loaded>,
    list: &mut [Attr],
) -> Result<()> {
    if list.is_empty() {
        return match old {
            Some(old) => release(volume, inode, old),
            None => Ok(()),
        };
    }
    list::sort(list);
    if let Some(old) = old.filter(|old| old.refcount > 1) {
        drop_share(volume, inode, old)?;
    }
    let number = if inode.file_acl().is_none() {
        let number = alloc::alloc_meta_block(volume, inode, FsBlock::default())?;
        inode.set_file_acl(number);
        number
    } else {
        inode.file_acl()
    };
    write(volume, number, 1, list)
}

fn write(volume: &mut Volume, number: FsBlock, refcount: u32, list: &[Attr]) -> Result<()> {
    let mut block = vec![0; volume.block_size()];
    list::write(&mut block, HEADER, list, true);
    set_word(&mut block, 0, MAGIC);
    set_word(&mut block, 4, refcount);
    set_word(&mut block, 8, 1);
    set_word(&mut block, 12, list::block_hash(list));
    seal(&mut block, volume, number);
    volume.store.write_meta(number, block)
}

fn seal(block: &mut [u8], volume: &Volume, number: FsBlock) {
    if volume.sb.has_metadata_csum() {
        let crc = checksum(&volume.sb, number, block);
        set_word(block, 16, crc);
    }
}

/// Leaves a shared block to the others.
fn drop_share(volume: &mut Volume, inode: &mut Inode, old: &Loaded) -> Result<()> {
    let number = inode.file_acl();
    let mut block = volume.read_block(number)?.to_vec();
    set_word(&mut block, 4, old.refcount - 1);
    seal(&mut block, volume, number);
    volume.store.write_meta(number, block)?;
    // Every inode that shares the block counts it in i_blocks.
    inode.add_blocks(-i64::from(volume.sb.cluster_blocks()), &volume.sb)?;
    inode.set_file_acl(FsBlock::default());
    Ok(())
}

/// Takes the block away from the inode. References to value inodes are the caller's to drop, but
/// for a shared block, which keeps them.
pub fn release(volume: &mut Volume, inode: &mut Inode, old: &Loaded) -> Result<()> {
    if old.refcount > 1 {
        return drop_share(volume, inode, old);
    }
    let number = inode.file_acl();
    alloc::free_meta_block(volume, inode, number)?;
    inode.set_file_acl(FsBlock::default());
    Ok(())
}
