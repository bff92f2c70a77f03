//! Freeing an inode with everything that belongs to it.

use zerocopy::little_endian::U32;

use super::inode::Inode;
use super::volume::Volume;
use super::{alloc, map, xattr};
use crate::error::Result;

/// Frees an inode that has no name any more: its attributes, its blocks, and itself.
pub(super) fn free_inode(volume: &mut Volume, inode: &mut Inode) -> Result<()> {
    let is_dir = inode.is_dir();
    xattr::release(volume, inode)?;
    map::clear(volume, inode)?;
    inode.set_links(0);
    inode.raw.i_dtime = U32::new(volume.options.deletion_time());
    inode.set_ctime(volume.options.now);
    volume.write_inode(inode)?;
    alloc::free_inode(volume, inode.ino, is_dir)
}
