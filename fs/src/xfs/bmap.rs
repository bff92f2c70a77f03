//! The blocks of a file: lists and trees of extents.
//!
//! Reading goes down a tree only where the wanted blocks are. Writing makes the list or tree anew
//! from all extents, in the blocks that the old tree had: files change at their end or as a whole,
//! so that few have a tree that changes.

use std::ops::Range;

use super::inode::{Fork, Format, Inode};
use super::num;
use super::store::{BufferType, Bytes};
use super::units::{FsBlock, Ino};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u16, to_u64, to_usize};

/// Most extents of one file that are held in memory at once.
const MOST_EXTENTS: usize = 1 << 20;
const XFS_BMAP_MAGIC: u32 = 0x424D_4150;
const XFS_BMAP_CRC_MAGIC: u32 = 0x424D_4133;
const BMBT_CRC: usize = 64;
/// The longest extent: 21 bits.
pub(super) const MAX_EXTENT: u64 = (1 << 21) - 1;

/// A run of blocks of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block, counted from the file's start.
    pub offset: u64,
    /// Its place.
    pub block: FsBlock,
    /// How many.
    pub count: u64,
    /// Allocated, and to be read as zeros.
    pub unwritten: bool,
}

impl Extent {
    fn parse(bytes: &[u8]) -> Self {
        let (high, low) = (num::be64(bytes, 0), num::be64(bytes, 8));
        Self {
            offset: high >> 9 & ((1 << 54) - 1),
            block: FsBlock((high & 0x1FF) << 43 | low >> 21),
            count: low & MAX_EXTENT,
            unwritten: high >> 63 != 0,
        }
    }

    fn to_bytes(self) -> [u8; 16] {
        let high = u64::from(self.unwritten) << 63 | self.offset << 9 | self.block.0 >> 43;
        let low = self.block.0 << 21 | self.count;
        let mut bytes = [0; 16];
        num::put64(&mut bytes, 0, high);
        num::put64(&mut bytes, 8, low);
        bytes
    }

    /// One past its last block.
    pub fn end(&self) -> u64 {
        self.offset + self.count
    }
}

/// Adds an extent to a list, joined to the last where they touch.
pub(super) fn push(list: &mut Vec<Extent>, next: Extent) {
    if let Some(last) = list.last_mut()
        && last.end() == next.offset
        && last.block.0 + last.count == next.block.0
        && last.unwritten == next.unwritten
        && last.count + next.count <= MAX_EXTENT
    {
        last.count += next.count;
        return;
    }
    list.push(next);
}

/// A walk over the extents of one fork.
struct Walk<'a> {
    vol: &'a Volume,
    inode: &'a Inode,
    wanted: Range<u64>,
    found: Vec<Extent>,
    /// Blocks of the tree, from the top.
    blocks: Vec<FsBlock>,
}

impl Walk<'_> {
    fn corrupt(&self, detail: impl Into<String>) -> Error {
        Error::corrupt("extent map", format!("inode {}", self.inode.ino), detail)
    }

    /// Takes the extents of a list, which must lie in `range`.
    fn list(&mut self, bytes: &[u8], range: &Range<u64>) -> Result<()> {
        let mut next = range.start;
        for record in bytes.chunks_exact(16) {
            let extent = Extent::parse(record);
            if extent.count == 0 || extent.offset < next || extent.end() > range.end {
                return Err(
                    self.corrupt(format!("the extent at {} is out of place", extent.offset))
                );
            }
            if !self.vol.sb.is_range(extent.block, extent.count) {
                return Err(self.corrupt(format!(
                    "block {} and {} after it are not in the file system",
                    extent.block,
                    extent.count - 1
                )));
            }
            next = extent.end();
            if extent.offset < self.wanted.end && extent.end() > self.wanted.start {
                if self.found.len() >= MOST_EXTENTS {
                    return Err(Error::unsupported(
                        format!("a file of more than {MOST_EXTENTS} extents"),
                        "defragment it from within the guest",
                    ));
                }
                self.found.push(extent);
            }
        }
        Ok(())
    }

    /// Goes down into the children of a node.
    fn node(&mut self, keys: &[u8], pointers: &[u8], level: u16, range: &Range<u64>) -> Result<()> {
        let starts: Vec<u64> = keys.chunks_exact(8).map(|key| num::be64(key, 0)).collect();
        if starts.is_empty() || starts.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(self.corrupt("the keys of a node are not in order"));
        }
        if starts[0] < range.start {
            return Err(self.corrupt("a key is before its parent's"));
        }
        for (index, pointer) in pointers.chunks_exact(8).enumerate() {
            let Some(&start) = starts.get(index) else { break };
            let end = starts.get(index + 1).copied().unwrap_or(range.end);
            if end <= self.wanted.start || start >= self.wanted.end {
                continue;
            }
            self.block(FsBlock(num::be64(pointer, 0)), level - 1, &(start..end))?;
        }
        Ok(())
    }

    fn block(&mut self, block: FsBlock, level: u16, range: &Range<u64>) -> Result<()> {
        let bytes = self.vol.bmbt_block(self.inode.ino, block, level)?;
        self.blocks.push(block);
        if self.blocks.len() > MOST_EXTENTS {
            return Err(self.corrupt("its tree has too many blocks"));
        }
        let head = self.vol.bmbt_header();
        let count = usize::from(num::be16(&bytes, 6));
        let most = (bytes.len() - head) / 16;
        if count == 0 || count > most {
            return Err(self.corrupt(format!("block {block} of its tree has {count} records")));
        }
        if level == 0 {
            return self.list(&bytes[head..head + count * 16], range);
        }
        let pointers = head + most * 8;
        self.node(
            &bytes[head..head + count * 8],
            &bytes[pointers..pointers + count * 8],
            level,
            range,
        )
    }

    fn root(&mut self, root: &[u8]) -> Result<()> {
        let level = num::be16(root, 0);
        let count = usize::from(num::be16(root, 2));
        let most = root.len().saturating_sub(4) / 16;
        if level == 0 || level > 9 || count == 0 || count > most {
            return Err(self.corrupt("the root of its tree is impossible"));
        }
        let pointers = 4 + most * 8;
        self.node(
            &root[4..4 + count * 8],
            &root[pointers..pointers + count * 8],
            level,
            &(0..1 << 54),
        )
    }
}

impl Volume {
    fn bmbt_header(&self) -> usize {
        if self.sb.is_v5() { 72 } else { 24 }
    }

    fn bmbt_block(&self, owner: Ino, block: FsBlock, level: u16) -> Result<Bytes> {
        let wrong = |detail: &str| Error::corrupt("extent tree", format!("block {block}"), detail);
        if !self.sb.is_range(block, 1) {
            return Err(wrong("it is not in the file system"));
        }
        let at = self.sb.daddr(block);
        self.store.read(at, self.sb.block_size(), |bytes| {
            let v5 = self.sb.is_v5();
            let magic = if v5 { XFS_BMAP_CRC_MAGIC } else { XFS_BMAP_MAGIC };
            if num::be32(bytes, 0) != magic {
                return Err(wrong("its magic number is wrong"));
            }
            if num::be16(bytes, 4) != level {
                return Err(wrong("its level is wrong"));
            }
            if v5 {
                if num::be64(bytes, 24) != at.0
                    || num::be64(bytes, 56) != owner.0
                    || bytes.get(40..56) != Some(&self.sb.meta_uuid())
                {
                    return Err(wrong("it belongs elsewhere"));
                }
                if !num::is_sealed(bytes, BMBT_CRC) {
                    return Err(wrong("its checksum is wrong"));
                }
            }
            Ok(())
        })
    }

    fn walk_extents(
        &self,
        inode: &Inode,
        fork: Fork,
        wanted: Range<u64>,
    ) -> Result<(Vec<Extent>, Vec<FsBlock>)> {
        let mut walk = Walk { vol: self, inode, wanted, found: Vec::new(), blocks: Vec::new() };
        if !inode.has_fork(fork) {
            return Ok((Vec::new(), Vec::new()));
        }
        match inode.format(fork)? {
            Format::Extents => {
                let count = to_usize(inode.extent_count(fork).min(1 << 16));
                let bytes = inode.fork(fork).get(..count * 16);
                let bytes = bytes.ok_or_else(|| walk.corrupt("its extents do not fit into it"))?;
                walk.list(bytes, &(0..1 << 54))?;
            }
            Format::Btree => walk.root(inode.fork(fork))?,
            Format::Local | Format::Dev => {}
        }
        Ok((walk.found, walk.blocks))
    }

    /// The extents of a fork that have blocks in `wanted`, in order, not clipped to it.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Device`], and [`Error::Unsupported`] for too many.
    pub fn extents_in(&self, inode: &Inode, fork: Fork, wanted: Range<u64>) -> Result<Vec<Extent>> {
        Ok(self.walk_extents(inode, fork, wanted)?.0)
    }

    /// All extents of a fork.
    ///
    /// # Errors
    /// As [`Volume::extents_in`].
    pub fn extents(&self, inode: &Inode, fork: Fork) -> Result<Vec<Extent>> {
        self.extents_in(inode, fork, 0..1 << 54)
    }

    /// Reads content of a fork from byte `offset`; holes and unwritten blocks are zeros. The count
    /// is less than `buf.len()` only at `size`.
    ///
    /// # Errors
    /// As [`Volume::extents_in`].
    pub fn read_fork(
        &self,
        inode: &Inode,
        size: u64,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize> {
        let count = to_usize(size.saturating_sub(offset).min(to_u64(buf.len())));
        let buf = &mut buf[..count];
        if count == 0 {
            return Ok(0);
        }
        buf.fill(0);
        let bs = to_u64(self.sb.block_size());
        let end = offset + to_u64(count);
        let blocks = offset / bs..end.div_ceil(bs);
        let mut block_buf = vec![0; to_usize(bs)];
        for extent in self.extents_in(inode, Fork::Data, blocks)? {
            if extent.unwritten {
                continue;
            }
            let first = (extent.offset * bs).max(offset);
            let last = (extent.end() * bs).min(end);
            let mut at = first;
            while at < last {
                let index = at / bs;
                let place = FsBlock(extent.block.0 + (index - extent.offset));
                let within = to_usize(at % bs);
                let out = to_usize(at - offset);
                let whole = (last - at) / bs * bs;
                if within == 0 && whole > 0 {
                    let part = &mut buf[out..out + to_usize(whole)];
                    self.store.read_data(self.sb.daddr(place), part)?;
                    at += whole;
                } else {
                    self.store.read_data(self.sb.daddr(place), &mut block_buf)?;
                    let take = to_usize((bs - at % bs).min(last - at));
                    buf[out..out + take].copy_from_slice(&block_buf[within..within + take]);
                    at += to_u64(take);
                }
            }
        }
        Ok(count)
    }

    /// Gives a fork other extents. Blocks that it had and has no more are the caller's to free;
    /// those of its tree are taken and freed here, and `di_nblocks` follows.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Corrupt`] and [`Error::Device`].
    pub(super) fn set_extents(
        &mut self,
        inode: &mut Inode,
        fork: Fork,
        extents: &[Extent],
    ) -> Result<()> {
        let (old, old_blocks) = self.walk_extents(inode, fork, 0..1 << 54)?;
        let sum = |list: &[Extent]| list.iter().map(|extent| extent.count).sum::<u64>();
        let before = sum(&old) + to_u64(old_blocks.len());
        let room = inode.fork(fork).len();
        let records: Vec<u8> = extents.iter().flat_map(|extent| extent.to_bytes()).collect();
        let mut spare = old_blocks;
        let mut tree = 0;
        if records.len() <= room {
            inode.set_format(fork, Format::Extents);
            inode.set_fork(fork, &records);
        } else {
            let root = self.build_tree(inode, fork, extents, &mut spare, &mut tree)?;
            inode.set_format(fork, Format::Btree);
            inode.set_fork(fork, &root);
        }
        for block in spare {
            self.free_tree_block(inode.ino, fork, block);
        }
        inode.set_extent_count(fork, extents.len())?;
        let blocks = inode.core.di_nblocks.get().saturating_sub(before) + sum(extents) + tree;
        inode.core.di_nblocks.set(blocks);
        Ok(())
    }

    /// Makes the tree over `extents`; gives the root.
    fn build_tree(
        &mut self,
        inode: &Inode,
        fork: Fork,
        extents: &[Extent],
        spare: &mut Vec<FsBlock>,
        tree: &mut u64,
    ) -> Result<Vec<u8>> {
        let head = self.bmbt_header();
        let most = (self.sb.block_size() - head) / 16;
        let room = inode.fork(fork).len();
        let root_most = room.saturating_sub(4) / 16;
        if root_most == 0 {
            return Err(Error::NoSpace(format!("inode {} has no room for its extents", inode.ino)));
        }
        // From the leaves up: first offset and block of each node of the level below.
        let mut below: Vec<(u64, FsBlock)> = Vec::new();
        let mut level = 0u16;
        loop {
            let count = if level == 0 { extents.len() } else { below.len() };
            if level > 0 && count <= root_most {
                break;
            }
            let nodes = count.div_ceil(most);
            let mut places = Vec::with_capacity(nodes);
            for _ in 0..nodes {
                places.push(match spare.pop() {
                    Some(block) => block,
                    None => self.alloc_tree_block(inode.ino, fork)?,
                });
            }
            *tree += to_u64(nodes);
            let mut above = Vec::with_capacity(nodes);
            let mut first = 0;
            for index in 0..nodes {
                let take = count / nodes + usize::from(index < count % nodes);
                let mut bytes = vec![0; self.sb.block_size()];
                num::put32(&mut bytes, 0, XFS_BMAP_CRC_MAGIC);
                num::put16(&mut bytes, 4, level);
                num::put16(&mut bytes, 6, to_u16(take));
                let side = |at: Option<usize>| {
                    at.and_then(|at| places.get(at)).map_or(u64::MAX, |block| block.0)
                };
                num::put64(&mut bytes, 8, side(index.checked_sub(1)));
                num::put64(&mut bytes, 16, side(Some(index + 1)));
                let at = self.sb.daddr(places[index]);
                num::put64(&mut bytes, 24, at.0);
                num::put(&mut bytes, 40, &self.sb.meta_uuid());
                num::put64(&mut bytes, 56, inode.ino.0);
                let start = if level == 0 {
                    for (n, extent) in extents[first..first + take].iter().enumerate() {
                        num::put(&mut bytes, head + n * 16, &extent.to_bytes());
                    }
                    extents[first].offset
                } else {
                    for (n, (key, block)) in below[first..first + take].iter().enumerate() {
                        num::put64(&mut bytes, head + n * 8, *key);
                        num::put64(&mut bytes, head + most * 8 + n * 8, block.0);
                    }
                    below[first].0
                };
                num::seal(&mut bytes, BMBT_CRC);
                self.store.write(at, BufferType::Btree, bytes);
                above.push((start, places[index]));
                first += take;
            }
            below = above;
            level += 1;
        }
        let mut root = vec![0; room];
        num::put16(&mut root, 0, level);
        num::put16(&mut root, 2, to_u16(below.len()));
        for (n, (key, block)) in below.iter().enumerate() {
            num::put64(&mut root, 4 + n * 8, *key);
            num::put64(&mut root, 4 + root_most * 8 + n * 8, block.0);
        }
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_there_and_back() {
        let extent = Extent {
            offset: (1 << 54) - 5,
            block: FsBlock((1 << 52) - 3),
            count: 77,
            unwritten: true,
        };
        assert_eq!(Extent::parse(&extent.to_bytes()), extent);
    }

    #[test]
    fn what_touches_is_joined() {
        let at = |offset, block, count| Extent {
            offset,
            block: FsBlock(block),
            count,
            unwritten: false,
        };
        let mut list = Vec::new();
        for next in [at(0, 10, 2), at(2, 12, 3), at(6, 15, 1), at(7, 99, 1)] {
            push(&mut list, next);
        }
        assert_eq!(list, [at(0, 10, 5), at(6, 15, 1), at(7, 99, 1)]);
    }
}
