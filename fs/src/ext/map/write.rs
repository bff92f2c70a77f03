//! Changing a file's content.

use zerocopy::FromZeros;

use super::mapping::{MAX_LBLK, Mapping, corrupt, has_map};
use super::node::Node;
use super::read::map;
use super::release::Release;
use super::{extents, indirect};
use crate::error::{Error, Result};
use crate::ext::alloc::{alloc_blocks, check_own};
use crate::ext::inline;
use crate::ext::inode::{Inode, flags};
use crate::ext::superblock::{incompat, ro_compat};
use crate::ext::units::{FileBlock, FsBlock};
use crate::ext::volume::Volume;
use crate::num::{to_u32, to_u64, to_usize};

/// Files beyond this size need the large_file feature.
const LARGE_FILE: u64 = 0x7FFF_FFFF;

/// Gives a new inode an empty map: extents where the file system has them, a block map otherwise.
pub fn init_map(vol: &Volume, inode: &mut Inode) {
    inode.set_flag(flags::INLINE_DATA, false);
    inode.raw.i_block.zero();
    let extents = vol.sb.has_incompat(incompat::EXTENTS);
    inode.set_flag(flags::EXTENTS, extents);
    if extents {
        Node::empty_root().store_root(inode);
    }
}

/// Refuses files that only the kernel can change.
fn check_writable(vol: &Volume, inode: &Inode) -> Result<()> {
    let refused = |what: &str, remedy: &str| {
        Err(Error::unsupported(format!("changing inode {}, which is {what}", inode.ino), remedy))
    };
    if inode.has_flag(flags::ENCRYPT) {
        return refused("encrypted", "use a file outside of encrypted directories");
    }
    if inode.has_flag(flags::VERITY) {
        return refused("sealed by fs-verity", "remove the file and make a new one");
    }
    if vol.sb.cluster_bits() > 0 && !inode.has_flag(flags::EXTENTS | flags::INLINE_DATA) {
        return refused("a block map in a file system with bigalloc", "run e2fsck on the image");
    }
    Ok(())
}

/// The block with this number, if a file can have it.
fn file_block(lblk: u64) -> Option<FileBlock> {
    u32::try_from(lblk).ok().filter(|_| lblk < MAX_LBLK).map(FileBlock::new)
}

/// The cluster that holds blocks of the file on both sides of a cut at `from`.
fn kept_cluster(vol: &Volume, inode: &Inode, from: u64) -> Result<Option<u64>> {
    let mask = u64::from(vol.sb.cluster_blocks()) - 1;
    for lblk in from & !mask..from {
        if let Mapping::Data { start, .. } = map(vol, inode, lblk)? {
            return Ok(Some(start.get() >> vol.sb.cluster_bits()));
        }
    }
    Ok(None)
}

/// Unmaps and frees all blocks from `from` on.
fn cut(vol: &mut Volume, inode: &mut Inode, from: u64) -> Result<()> {
    let Some(first) = file_block(from) else { return Ok(()) };
    let mut release = Release::new(kept_cluster(vol, inode, from)?);
    if inode.has_flag(flags::EXTENTS) {
        extents::cut(vol, inode, first, &mut release)?;
    } else {
        indirect::cut(vol, inode, first, &mut release)?;
    }
    release.finish(vol, inode)
}

/// Maps `len` blocks from `start` at `lblk`, after everything that is mapped.
fn push(vol: &mut Volume, inode: &mut Inode, lblk: u64, start: FsBlock, len: u32) -> Result<()> {
    let first = file_block(lblk).filter(|_| lblk + u64::from(len) <= MAX_LBLK);
    let Some(lblk) = first else {
        return Err(Error::NoSpace(format!("inode {} would have 2^32 blocks", inode.ino)));
    };
    if inode.has_flag(flags::EXTENTS) {
        extents::push(vol, inode, lblk, start, len)
    } else {
        indirect::push(vol, inode, lblk, start, len)
    }
}

/// Allocates up to `want` blocks for logical block `lblk` and on, after everything that is mapped,
/// and maps them: first block and length.
pub(super) fn extend(
    vol: &mut Volume,
    inode: &mut Inode,
    lblk: u64,
    goal: FsBlock,
    want: u64,
) -> Result<(FsBlock, u32)> {
    let ratio = u64::from(vol.sb.cluster_blocks());
    let want = to_u32(want.clamp(1, 1 << 15));
    let within = lblk % ratio;
    // A block in the same cluster as one that is mapped has its place already.
    for near in lblk - within..lblk {
        if let Mapping::Data { start, .. } = map(vol, inode, near)? {
            let start = start + (lblk - near);
            let len = to_u32(u64::from(want).min(ratio - within));
            push(vol, inode, lblk, start, len)?;
            return Ok((start, len));
        }
    }
    let (start, len) = alloc_blocks(vol, goal, want.saturating_add(to_u32(within)))?;
    let clusters = u64::from(len).div_ceil(ratio);
    inode.add_blocks((clusters * ratio).cast_signed(), &vol.sb)?;
    let (start, len) = (start + within, len - to_u32(within));
    push(vol, inode, lblk, start, len)?;
    Ok((start, len))
}

/// The best place for new blocks of a file: after the block before, or near the inode.
fn goal(vol: &Volume, inode: &Inode, lblk: u64) -> Result<FsBlock> {
    if let Some(before) = lblk.checked_sub(1)
        && let Mapping::Data { start, .. } = map(vol, inode, before)?
    {
        return Ok(start + 1);
    }
    Ok(vol.group_first_block(vol.inode_group(inode.ino)?.0))
}

/// Writes `content` to new blocks from `lblk` on.
fn write_new(
    vol: &mut Volume,
    inode: &mut Inode,
    lblk: u64,
    goal: FsBlock,
    content: &[u8],
) -> Result<()> {
    let size = vol.block_size();
    let (mut lblk, mut goal) = (lblk, goal);
    let mut rest = content;
    while !rest.is_empty() {
        let want = to_u64(rest.len().div_ceil(size));
        let (start, len) = extend(vol, inode, lblk, goal, want)?;
        for block in start.run(u64::from(len)) {
            let (now, later) = rest.split_at(rest.len().min(size));
            let mut bytes = now.to_vec();
            bytes.resize(size, 0);
            vol.store.write_data(block, bytes)?;
            rest = later;
        }
        lblk += u64::from(len);
        goal = start + u64::from(len);
    }
    Ok(())
}

/// Sets the size and what follows from it.
fn set_size(vol: &mut Volume, inode: &mut Inode, size: u64) -> Result<()> {
    let most = if inode.has_flag(flags::EXTENTS) { MAX_LBLK } else { indirect::limit(vol) };
    if size > most.saturating_mul(to_u64(vol.block_size())) {
        return Err(Error::NoSpace(format!("inode {} cannot have {size} bytes", inode.ino)));
    }
    if size > LARGE_FILE && inode.is_file() && !vol.sb.has_ro_compat(ro_compat::LARGE_FILE) {
        if vol.sb.raw.s_rev_level.get() == 0 {
            return Err(Error::unsupported(
                "a file of 2 GiB in a file system of revision 0",
                "make the file system anew, or keep the file smaller",
            ));
        }
        vol.sb.set_ro_compat(ro_compat::LARGE_FILE, true);
    }
    inode.set_size(size);
    Ok(())
}

/// Runs `work` on a copy of the inode; when it fails, neither inode nor file system have changed.
fn change<T>(
    vol: &mut Volume,
    inode: &mut Inode,
    work: impl FnOnce(&mut Volume, &mut Inode) -> Result<T>,
) -> Result<T> {
    check_writable(vol, inode)?;
    let mut copy = inode.clone();
    let result = vol.attempt(|vol| work(vol, &mut copy))?;
    *inode = copy;
    Ok(result)
}

/// Adds one block of metadata to a directory (or another file of metadata): its logical and its
/// physical number. Size and `i_blocks` follow; the caller writes the inode.
pub fn append_block(
    vol: &mut Volume,
    inode: &mut Inode,
    content: Vec<u8>,
) -> Result<(u64, FsBlock)> {
    change(vol, inode, |vol, inode| {
        let size = to_u64(vol.block_size());
        if inode.has_flag(flags::INLINE_DATA) || inode.size() % size != 0 {
            return Err(corrupt(
                inode,
                "inode",
                format!("its size is {}, whole blocks of {size} expected", inode.size()),
            ));
        }
        let lblk = inode.size() / size;
        cut(vol, inode, lblk)?;
        let goal = goal(vol, inode, lblk)?;
        let (block, _) = extend(vol, inode, lblk, goal, 1)?;
        vol.store.write_meta(block, content)?;
        set_size(vol, inode, (lblk + 1) * size)?;
        Ok((lblk, block))
    })
}

/// Replaces the whole content. The caller writes the inode.
pub fn replace(vol: &mut Volume, inode: &mut Inode, content: &[u8]) -> Result<()> {
    if rewrite_inline(vol, inode, |_| content.to_vec(), to_u64(content.len()))? {
        return Ok(());
    }
    let first = renew(vol, inode, |vol, inode, goal| {
        write_new(vol, inode, 0, goal, content)?;
        Ok(to_u64(content.len()))
    });
    if !matches!(first, Err(Error::NoSpace(_))) {
        return first.map(drop);
    }
    // Not enough room for old and new at once: the new content takes the old one's blocks, through
    // the journal.
    change(vol, inode, |vol, inode| {
        if !inode.has_flag(flags::INLINE_DATA) {
            cut(vol, inode, 0)?;
        }
        start_over(vol, inode)?;
        let goal = goal(vol, inode, 0)?;
        write_new(vol, inode, 0, goal, content)?;
        set_size(vol, inode, to_u64(content.len()))
    })
}

/// Gives the file the content that `write` puts into new blocks, and frees the old ones after that.
/// `write` gets a good place and gives the new size.
pub(super) fn renew(
    vol: &mut Volume,
    inode: &mut Inode,
    write: impl FnOnce(&mut Volume, &mut Inode, FsBlock) -> Result<u64>,
) -> Result<u64> {
    change(vol, inode, |vol, inode| {
        let mut old = inode.clone();
        let before = old.blocks_512(&vol.sb);
        // Near the old content, so that one bitmap serves both.
        let goal = match old.has_flag(flags::INLINE_DATA) {
            false => goal(vol, &old, 1)?,
            true => goal(vol, &old, 0)?,
        };
        start_over(vol, inode)?;
        let size = write(vol, inode, goal)?;
        if !old.has_flag(flags::INLINE_DATA) {
            cut(vol, &mut old, 0)?;
            let freed = before.saturating_sub(old.blocks_512(&vol.sb));
            let unit = u64::from(vol.sb.block_size() / 512);
            inode.add_blocks(-((freed / unit).cast_signed()), &vol.sb)?;
        }
        set_size(vol, inode, size)?;
        Ok(size)
    })
}

/// Leaves the inode with an empty map; the caller frees the blocks of the old one.
fn start_over(vol: &mut Volume, inode: &mut Inode) -> Result<()> {
    if inode.has_flag(flags::INLINE_DATA) {
        inline::remove(inode)?;
    }
    init_map(vol, inode);
    inode.set_size(0);
    Ok(())
}

/// Adds to the end. The caller writes the inode.
pub fn append(vol: &mut Volume, inode: &mut Inode, content: &[u8]) -> Result<()> {
    if content.is_empty() {
        return Ok(());
    }
    change(vol, inode, |vol, inode| {
        let old_size = inode.size();
        let new_size = old_size.checked_add(to_u64(content.len())).ok_or_else(|| {
            Error::NoSpace(format!("inode {} would be larger than any file", inode.ino))
        })?;
        let longer = |mut old: Vec<u8>| {
            old.extend_from_slice(content);
            old
        };
        if rewrite_inline(vol, inode, longer, new_size)? {
            return Ok(());
        }
        leave_inline(vol, inode)?;
        let rest = fill_last_block(vol, inode, content)?;
        let size = to_u64(vol.block_size());
        let lblk = new_size.saturating_sub(to_u64(rest.len())).div_ceil(size);
        let goal = goal(vol, inode, lblk)?;
        write_new(vol, inode, lblk, goal, rest)?;
        set_size(vol, inode, new_size)
    })
}

/// Fills the room in the file's last block with the first part of `content`, and unmaps all blocks
/// after it. Returns the rest of `content`.
fn fill_last_block<'a>(vol: &mut Volume, inode: &mut Inode, content: &'a [u8]) -> Result<&'a [u8]> {
    let size = to_u64(vol.block_size());
    let used = to_usize(inode.size() % size);
    cut(vol, inode, inode.size().div_ceil(size))?;
    if used == 0 {
        return Ok(content);
    }
    let lblk = inode.size() / size;
    let (now, later) = content.split_at(content.len().min(to_usize(size) - used));
    let old = match map(vol, inode, lblk)? {
        Mapping::Data { start, unwritten: false, .. } => Some(start),
        _ => None,
    };
    let mut bytes = vec![0; to_usize(size)];
    if let Some(block) = old {
        vol.store.read_run(block, &mut bytes)?;
    }
    if now.is_empty() && bytes[used..].iter().all(|&byte| byte == 0) {
        // A hole, or a block that ends in zeros already.
        return Ok(later);
    }
    bytes[used..].fill(0);
    bytes[used..used + now.len()].copy_from_slice(now);
    if let Some(block) = old {
        if vol.store.is_new_data(block) {
            vol.store.write_data(block, bytes)?;
            return Ok(later);
        }
        if vol.has_journal() {
            // The journal makes the change of a block in place whole or not at all.
            check_own(vol, block)?;
            vol.store.write_meta(block, bytes)?;
            return Ok(later);
        }
    }
    cut(vol, inode, lblk)?;
    let goal = goal(vol, inode, lblk)?;
    write_new(vol, inode, lblk, goal, &bytes)?;
    Ok(later)
}

/// Changes the content of a file with inline data where it is; `false` when it is not inline, or the
/// new size does not fit.
fn rewrite_inline(
    vol: &Volume,
    inode: &mut Inode,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
    new_size: u64,
) -> Result<bool> {
    if !inode.has_flag(flags::INLINE_DATA) || new_size > u64::from(vol.sb.inode_size()) {
        return Ok(false);
    }
    check_writable(vol, inode)?;
    let content = change(inline_content(inode)?);
    inline::store(inode, &content)
}

/// The first `i_size` bytes of a file with inline data.
fn inline_content(inode: &Inode) -> Result<Vec<u8>> {
    let mut content = inline::content(inode)?;
    if inode.size() > to_u64(content.len()) {
        return Err(corrupt(
            inode,
            "inline data",
            format!("i_size is {}, but there are only {} bytes", inode.size(), content.len()),
        ));
    }
    content.truncate(to_usize(inode.size()));
    Ok(content)
}

/// Moves inline content into a block, or nowhere when there is none.
fn leave_inline(vol: &mut Volume, inode: &mut Inode) -> Result<()> {
    if !inode.has_flag(flags::INLINE_DATA) {
        return Ok(());
    }
    let size = inode.size();
    let content = inline_content(inode)?;
    start_over(vol, inode)?;
    let goal = goal(vol, inode, 0)?;
    write_new(vol, inode, 0, goal, &content)?;
    set_size(vol, inode, size)
}

/// Cuts the file to `new_size`, or makes it longer with a hole. The caller writes the inode.
pub fn truncate(vol: &mut Volume, inode: &mut Inode, new_size: u64) -> Result<()> {
    if new_size == inode.size() {
        return Ok(());
    }
    change(vol, inode, |vol, inode| {
        let resized = |mut old: Vec<u8>| {
            old.resize(to_usize(new_size), 0);
            old
        };
        if rewrite_inline(vol, inode, resized, new_size)? {
            return Ok(());
        }
        leave_inline(vol, inode)?;
        let size = to_u64(vol.block_size());
        if new_size < inode.size() {
            cut(vol, inode, new_size.div_ceil(size))?;
            set_size(vol, inode, new_size)?;
        }
        // Bytes after the end in the last block must be zeros, should the file grow again.
        fill_last_block(vol, inode, &[])?;
        set_size(vol, inode, new_size)
    })
}

/// Frees all content blocks of a node that goes away, whatever it is, and leaves a size of 0 and
/// nothing mapped. The caller writes the inode.
pub fn clear(vol: &mut Volume, inode: &mut Inode) -> Result<()> {
    let mut copy = inode.clone();
    vol.attempt(|vol| {
        if has_map(&copy) {
            cut(vol, &mut copy, 0)?;
        }
        copy.set_size(0);
        Ok(())
    })?;
    *inode = copy;
    Ok(())
}
