//! inline_data: small files kept in their inode, the first 60 bytes in `i_block` and the rest as
//! the value of the xattr `system.data` in the room after the inode's fields. (Directories of that
//! kind are [`super::dir`]'s.)
//!
//! Source: the kernel's Documentation/filesystems/ext4/inlinedata.rst.

use super::inode::Inode;
use super::xattr::body::{inline_tail, set_inline_tail};
use crate::error::Result;
use crate::num::to_u64;

/// Bytes of content in `i_block`.
const IN_INODE: usize = 60;

/// All bytes that an inode with the inline_data flag holds; the first `i_size` of them count.
pub fn content(inode: &Inode) -> Result<Vec<u8>> {
    let mut out = inode.raw.i_block.to_vec();
    out.extend_from_slice(&inline_tail(inode)?.unwrap_or_default());
    Ok(out)
}

/// Puts other content into an inode that has inline data, and sets its size. `false`, and nothing
/// changed, when there is no room for it.
pub fn store(inode: &mut Inode, content: &[u8]) -> Result<bool> {
    let (first, rest) = content.split_at(content.len().min(IN_INODE));
    if !set_inline_tail(inode, Some(rest))? {
        return Ok(false);
    }
    let mut block = [0; IN_INODE];
    block[..first.len()].copy_from_slice(first);
    inode.raw.i_block = block;
    inode.set_size(to_u64(content.len()));
    Ok(true)
}

/// Takes the content out of the inode, before it gets a block map.
pub fn remove(inode: &mut Inode) -> Result<()> {
    set_inline_tail(inode, None)?;
    Ok(())
}
