//! Values too large for a block, each in an inode of its own (`ea_inode`).
//!
//! Such an inode has the flag EA_INODE and no name. Its `i_atime` holds crc32c of the value, and
//! `i_ctime` with `i_version` how many attributes refer to it.

use zerocopy::little_endian::{U16, U32};

use super::super::checksum::crc32c;
use super::super::inode::{Inode, flags};
use super::super::volume::Volume;
use super::super::{alloc, map};
use super::list::hash_of_inode_value;
use crate::error::{Error, Result};
use crate::ext::units::Ino;
use crate::filesystem::Timestamp;
use crate::num::{low32, to_usize};

fn corrupt(ino: Ino, detail: impl Into<String>) -> Error {
    Error::corrupt("extended attribute inode", format!("inode {ino}"), detail)
}

fn open(volume: &Volume, ino: Ino) -> Result<Inode> {
    let inode = volume.live_inode(ino)?;
    if !inode.has_flag(flags::EA_INODE) || !inode.is_file() {
        return Err(corrupt(ino, "an attribute refers to it, but it is not flagged EA_INODE"));
    }
    Ok(inode)
}

/// Reads the value of an attribute of `name`.
pub fn read(volume: &Volume, ino: Ino, size: u32, name: &[u8], e_hash: u32) -> Result<Vec<u8>> {
    let inode = open(volume, ino)?;
    if inode.size() != u64::from(size) {
        return Err(corrupt(ino, format!("it has {} bytes, {size} expected", inode.size())));
    }
    let mut value = vec![0; to_usize(size)];
    map::read(volume, &inode, 0, &mut value)?;
    let hash = crc32c(volume.sb.checksum_seed(), &value);
    // Lustre, which had such inodes first, keeps no hash; its references count as 0.
    if references(&inode) != 0 || inode.raw.i_atime.get() == hash {
        if inode.raw.i_atime.get() != hash {
            return Err(corrupt(
                ino,
                format!("the value's hash is {hash:#010x}, {:#010x} expected", inode.raw.i_atime),
            ));
        }
        let expected = hash_of_inode_value(name, hash);
        if name.is_ascii() && e_hash != expected {
            return Err(corrupt(
                ino,
                format!("e_hash is {e_hash:#010x}, {expected:#010x} expected"),
            ));
        }
    }
    Ok(value)
}

fn references(inode: &Inode) -> u64 {
    u64::from(inode.raw.i_ctime.get()) << 32 | u64::from(inode.raw.i_version_lo.get())
}

fn set_references(inode: &mut Inode, count: u64) {
    inode.set_ctime(Timestamp { seconds: i64::from(low32(count >> 32)), nanoseconds: 0 });
    inode.raw.i_version_lo = U32::new(low32(count));
}

/// Makes an inode with a value, referred to once; its number and the `e_hash` of the attribute.
pub fn create(volume: &mut Volume, owner: &Inode, name: &[u8], value: &[u8]) -> Result<(Ino, u32)> {
    let (group, _) = volume.inode_group(owner.ino)?;
    let ino = alloc::alloc_inode(volume, group, false)?;
    let mut inode = Inode::new(ino, &volume.sb);
    inode.raw.i_mode = U16::new(0x8000 | 0o600);
    inode.set_owner(owner.uid(), owner.gid());
    inode.raw.i_generation = U32::new(volume.next_generation());
    inode.set_links(1);
    let now = volume.options.now;
    inode.set_mtime(now);
    inode.set_crtime(now);
    map::init_map(volume, &mut inode);
    inode.set_flag(flags::EA_INODE, true);
    map::replace(volume, &mut inode, value)?;
    let hash = crc32c(volume.sb.checksum_seed(), value);
    inode.set_atime(Timestamp { seconds: i64::from(hash), nanoseconds: 0 });
    // On an inode without room for more, seconds end in 2038 and the hash would be cut.
    inode.raw.i_atime = U32::new(hash);
    set_references(&mut inode, 1);
    volume.write_inode(&inode)?;
    Ok((ino, hash_of_inode_value(name, hash)))
}

/// Counts one more attribute that refers to the inode.
pub fn add_reference(volume: &mut Volume, ino: Ino) -> Result<()> {
    let mut inode = open(volume, ino)?;
    let count = references(&inode).max(1).saturating_add(1);
    set_references(&mut inode, count);
    volume.write_inode(&inode)
}

/// Counts one less; with the last the inode goes.
pub fn drop_reference(volume: &mut Volume, ino: Ino) -> Result<()> {
    let mut inode = open(volume, ino)?;
    let count = references(&inode);
    if count > 1 {
        set_references(&mut inode, count - 1);
        return volume.write_inode(&inode);
    }
    set_references(&mut inode, 0);
    map::clear(volume, &mut inode)?;
    inode.set_links(0);
    inode.raw.i_dtime = U32::new(volume.options.deletion_time());
    volume.write_inode(&inode)?;
    alloc::free_inode(volume, ino, false)
}
