//! Shared by the indexes of directories and attributes: blocks of a fork with headers, and the nodes
//! that lead to leaves by hash.

use super::bmap::Extent;
use super::inode::{Fork, Inode};
use super::num;
use super::store::{BufferType, Bytes};
use super::units::{Daddr, FsBlock};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u16, to_u32, to_usize};

/// `xfs_da3_node_hdr`, and the leaf headers: this magic number and those below are of version 5.
pub(super) const XFS_DA3_NODE_MAGIC: u16 = 0x3EBE;
const XFS_DA_NODE_MAGIC: u16 = 0xFEBE;
/// The deepest index (`XFS_DA_NODE_MAXDEPTH`).
const MAX_DEPTH: u16 = 5;
/// Most blocks of one index that are looked at.
pub(super) const MOST_BLOCKS: usize = 1 << 20;
/// The checksum in headers that begin with the neighbours.
const INFO_CRC: usize = 12;
/// The checksum in headers that begin with the magic number.
const BLOCK_CRC: usize = 4;

/// A buffer's place in the file, and its owner.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) inode: &'a Inode,
    pub(super) fork: Fork,
    /// The first block, counted from the fork's start.
    pub(super) offset: u64,
    /// Blocks of the buffer.
    pub(super) count: u32,
}

impl Place<'_> {
    pub(super) fn corrupt(&self, structure: &'static str, detail: impl Into<String>) -> Error {
        let fork = if self.fork == Fork::Attr { ", attributes" } else { "" };
        let position = format!("inode {}{fork}, block {}", self.inode.ino, self.offset);
        Error::corrupt(structure, position, detail)
    }
}

/// The kind of an index's block by its magic number.
pub(super) fn info_magic(bytes: &[u8]) -> u16 {
    num::be16(bytes, 8)
}

/// A node of an index: hash and block of every child.
pub(super) struct DaNode {
    pub(super) level: u16,
    pub(super) children: Vec<(u32, u64)>,
}

impl Volume {
    /// Bytes before the entries of a node or leaf of a directory.
    pub(super) fn da_header(&self) -> usize {
        if self.sb.is_v5() { 64 } else { 16 }
    }

    /// Reads a buffer of a fork, its pieces put together; `None` in a hole. The header is checked
    /// where it has one: `info` says which kind, neighbours first or magic number first.
    pub(super) fn da_read(
        &self,
        place: Place<'_>,
        structure: &'static str,
        info: bool,
    ) -> Result<Option<Bytes>> {
        let end = place.offset + u64::from(place.count);
        let extents = self.extents_in(place.inode, place.fork, place.offset..end)?;
        let Some(at) = self.da_place(&extents, place.offset, place.count) else {
            return self.da_read_pieces(place, structure, info, &extents);
        };
        let length = self.sb.block_size() * to_usize(place.count);
        self.store
            .read(at, length, |bytes| self.da_check(place, structure, info, bytes, at))
            .map(Some)
    }

    /// The place of a buffer that is in one piece.
    pub(super) fn da_place(&self, extents: &[Extent], offset: u64, count: u32) -> Option<Daddr> {
        let extent =
            extents.iter().find(|extent| extent.offset <= offset && offset < extent.end())?;
        let whole = extent.end() >= offset + u64::from(count);
        whole.then(|| self.sb.daddr(FsBlock(extent.block.0 + (offset - extent.offset))))
    }

    fn da_read_pieces(
        &self,
        place: Place<'_>,
        structure: &'static str,
        info: bool,
        extents: &[Extent],
    ) -> Result<Option<Bytes>> {
        let mut bytes = Vec::with_capacity(self.sb.block_size() * to_usize(place.count));
        let mut first = None;
        for offset in place.offset..place.offset + u64::from(place.count) {
            let Some(at) = self.da_place(extents, offset, 1) else {
                if offset == place.offset {
                    return Ok(None);
                }
                return Err(place.corrupt(structure, "a part of it is not there"));
            };
            first.get_or_insert(at);
            let block = self.store.read(at, self.sb.block_size(), |_| Ok(()))?;
            bytes.extend_from_slice(&block);
        }
        self.da_check(place, structure, info, &bytes, first.unwrap_or_default())?;
        Ok(Some(bytes.into()))
    }

    fn da_check(
        &self,
        place: Place<'_>,
        structure: &'static str,
        info: bool,
        bytes: &[u8],
        at: Daddr,
    ) -> Result<()> {
        if !self.sb.is_v5() {
            return Ok(());
        }
        let (crc, blkno, uuid, owner) =
            if info { (INFO_CRC, 16, 32, 48) } else { (BLOCK_CRC, 8, 24, 40) };
        if num::be64(bytes, blkno) != at.0
            || num::be64(bytes, owner) != place.inode.ino.0
            || bytes.get(uuid..uuid + 16) != Some(&self.sb.meta_uuid())
        {
            return Err(place.corrupt(structure, "it belongs elsewhere"));
        }
        if !num::is_sealed(bytes, crc) {
            return Err(place.corrupt(structure, "its checksum is wrong"));
        }
        Ok(())
    }

    /// A new buffer with a header that begins with the neighbours.
    pub(super) fn da_info(
        &self,
        place: Place<'_>,
        at: Daddr,
        magic: u16,
        back: u64,
        forw: u64,
    ) -> Vec<u8> {
        let mut bytes = vec![0; self.sb.block_size() * to_usize(place.count)];
        num::put32(&mut bytes, 0, to_u32(forw));
        num::put32(&mut bytes, 4, to_u32(back));
        num::put16(&mut bytes, 8, magic);
        num::put64(&mut bytes, 16, at.0);
        num::put(&mut bytes, 32, &self.sb.meta_uuid());
        num::put64(&mut bytes, 48, place.inode.ino.0);
        bytes
    }

    /// A new buffer with a header that begins with the magic number.
    pub(super) fn da_block(&self, place: Place<'_>, at: Daddr, magic: u32) -> Vec<u8> {
        let mut bytes = vec![0; self.sb.block_size() * to_usize(place.count)];
        num::put32(&mut bytes, 0, magic);
        num::put64(&mut bytes, 8, at.0);
        num::put(&mut bytes, 24, &self.sb.meta_uuid());
        num::put64(&mut bytes, 40, place.inode.ino.0);
        bytes
    }

    /// Writes a buffer with its checksum, unless it is so already.
    pub(super) fn da_write(
        &mut self,
        at: Daddr,
        buffer_type: BufferType,
        mut bytes: Vec<u8>,
        info: bool,
    ) -> Result<()> {
        let (crc, lsn) = if info { (INFO_CRC, 24) } else { (BLOCK_CRC, 16) };
        num::seal(&mut bytes, crc);
        if !self.store.is_fresh(at) {
            let old = self.store.read(at, bytes.len(), |_| Ok(()))?;
            // The old one may differ in its place in the log only.
            let mut same = old.to_vec();
            num::put64(&mut same, lsn, 0);
            num::seal(&mut same, crc);
            if same == bytes {
                return Ok(());
            }
        }
        self.store.write(at, buffer_type, bytes);
        Ok(())
    }

    /// Takes a node apart.
    pub(super) fn da_node(&self, place: Place<'_>, bytes: &[u8]) -> Result<DaNode> {
        let magic = if self.sb.is_v5() { XFS_DA3_NODE_MAGIC } else { XFS_DA_NODE_MAGIC };
        let wrong = |detail: &str| place.corrupt("index node", detail);
        if info_magic(bytes) != magic {
            return Err(wrong("its magic number is wrong"));
        }
        let head = self.da_header();
        let (count_at, level_at) = if self.sb.is_v5() { (56, 58) } else { (12, 14) };
        let count = usize::from(num::be16(bytes, count_at));
        let level = num::be16(bytes, level_at);
        let entries = bytes.get(head..head + count * 8).ok_or_else(|| wrong("it is too full"))?;
        if count == 0 || level == 0 || level > MAX_DEPTH {
            return Err(wrong("its count or level is impossible"));
        }
        let children: Vec<(u32, u64)> = entries
            .chunks_exact(8)
            .map(|entry| (num::be32(entry, 0), u64::from(num::be32(entry, 4))))
            .collect();
        if children.windows(2).any(|pair| pair[0].0 > pair[1].0) {
            return Err(wrong("its hashes are not in order"));
        }
        Ok(DaNode { level, children })
    }

    /// Whether a block of an index is a node.
    pub(super) fn is_da_node(bytes: &[u8]) -> bool {
        matches!(info_magic(bytes), XFS_DA3_NODE_MAGIC | XFS_DA_NODE_MAGIC)
    }

    /// All blocks of an index whose root is at `root`: leaves in order of their hashes, and nodes.
    pub(super) fn da_blocks(&self, root: Place<'_>) -> Result<(Vec<u64>, Vec<u64>)> {
        let (mut leaves, mut nodes) = (Vec::new(), Vec::new());
        // Depth first, children in order.
        let mut todo = vec![(root.offset, None)];
        while let Some((offset, level)) = todo.pop() {
            let place = Place { offset, ..root };
            let bytes = self
                .da_read(place, "index block", true)?
                .ok_or_else(|| place.corrupt("index block", "it is not there"))?;
            if !Self::is_da_node(&bytes) {
                if level.is_some_and(|level| level != 0) {
                    return Err(place.corrupt("index block", "a leaf is too high"));
                }
                leaves.push(offset);
            } else {
                let node = self.da_node(place, &bytes)?;
                if level.is_some_and(|level| level != node.level) {
                    return Err(place.corrupt("index node", "its level is wrong"));
                }
                nodes.push(offset);
                todo.extend(
                    node.children.iter().rev().map(|(_, child)| (*child, Some(node.level - 1))),
                );
            }
            if leaves.len() + nodes.len() + todo.len() > MOST_BLOCKS {
                return Err(root.corrupt("index", "it has too many blocks"));
            }
        }
        Ok((leaves, nodes))
    }

    /// The first leaf that may have `hash`; `None` when the index has no hash that high.
    pub(super) fn da_leaf_of(&self, root: Place<'_>, hash: u32) -> Result<Option<(u64, Bytes)>> {
        let mut place = root;
        let mut expected = None;
        loop {
            let bytes = self
                .da_read(place, "index block", true)?
                .ok_or_else(|| place.corrupt("index block", "it is not there"))?;
            if !Self::is_da_node(&bytes) {
                return Ok(Some((place.offset, bytes)));
            }
            let node = self.da_node(place, &bytes)?;
            if expected.is_some_and(|level| level != node.level) {
                return Err(place.corrupt("index node", "its level is wrong"));
            }
            expected = Some(node.level - 1);
            let index = node.children.partition_point(|(last, _)| *last < hash);
            let Some((_, child)) = node.children.get(index) else { return Ok(None) };
            place = Place { offset: *child, ..root };
            if expected == Some(0) {
                let leaf = self
                    .da_read(place, "index block", true)?
                    .ok_or_else(|| place.corrupt("index block", "it is not there"))?;
                if Self::is_da_node(&leaf) {
                    return Err(place.corrupt("index block", "a node where a leaf should be"));
                }
            }
        }
    }

    /// Most children of a node.
    pub(super) fn da_node_most(&self, bytes: usize) -> usize {
        (bytes - self.da_header()) / 8
    }

    /// How many nodes an index of `leaves` leaves has.
    pub(super) fn da_node_count(&self, leaves: usize, bytes: usize) -> usize {
        let most = self.da_node_most(bytes);
        let (mut total, mut below) = (0, leaves);
        while below > 1 {
            below = below.div_ceil(most);
            total += below;
        }
        total
    }

    /// Writes the nodes above leaves. `leaves` has the last hash and block of each; `nodes` are the
    /// blocks for the nodes, the root first.
    pub(super) fn da_write_nodes(
        &mut self,
        root: Place<'_>,
        extents: &[Extent],
        leaves: Vec<(u32, u64)>,
        nodes: &[u64],
    ) -> Result<()> {
        let bytes_of = self.sb.block_size() * to_usize(root.count);
        let most = self.da_node_most(bytes_of);
        // The root is the first of `nodes` and made last.
        let mut spare = nodes.iter().copied().rev();
        let mut below = leaves;
        let mut level = 1;
        while below.len() > 1 {
            let count = below.len().div_ceil(most);
            let places: Vec<u64> = spare.by_ref().take(count).collect();
            let mut above = Vec::with_capacity(count);
            let mut first = 0;
            for (index, &offset) in places.iter().enumerate() {
                let take = below.len() / count + usize::from(index < below.len() % count);
                let place = Place { offset, ..root };
                let at = self.da_address(place, extents)?;
                let back = index.checked_sub(1).map_or(0, |at| places[at]);
                let forw = places.get(index + 1).copied().unwrap_or(0);
                let mut bytes = self.da_info(place, at, XFS_DA3_NODE_MAGIC, back, forw);
                num::put16(&mut bytes, 56, to_u16(take));
                num::put16(&mut bytes, 58, level);
                for (n, (hash, child)) in below[first..first + take].iter().enumerate() {
                    num::put32(&mut bytes, 64 + n * 8, *hash);
                    num::put32(&mut bytes, 68 + n * 8, to_u32(*child));
                }
                self.da_write(at, BufferType::DaNode, bytes, true)?;
                above.push((below[first + take - 1].0, offset));
                first += take;
            }
            below = above;
            level += 1;
        }
        Ok(())
    }

    /// The place of a buffer that is to be written.
    pub(super) fn da_address(&self, place: Place<'_>, extents: &[Extent]) -> Result<Daddr> {
        self.da_place(extents, place.offset, place.count).ok_or_else(|| {
            Error::unsupported(
                format!(
                    "changing directory inode {}, a block of which is in pieces",
                    place.inode.ino
                ),
                "edit it from within the guest",
            )
        })
    }
}
