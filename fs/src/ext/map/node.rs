//! One node of an extent tree: the header and the entries that follow it.
//!
//! Source: the kernel's Documentation/filesystems/ext4/ifork.rst.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::mapping::{MAX_LBLK, corrupt};
use crate::error::{Error, Result};
use crate::ext::alloc::check_own;
use crate::ext::checksum::crc32c;
use crate::ext::inode::Inode;
use crate::ext::units::{FileBlock, FsBlock};
use crate::ext::volume::Volume;
use crate::num::{low16, low32, to_u16};

/// `eh_magic`.
const MAGIC: u16 = 0xF30A;
/// Levels of indexes above the leaves, at most: with four entries in the inode and at least 84 in a
/// block that is more than enough for 2^32 blocks.
pub(super) const MAX_DEPTH: u16 = 5;
/// Longest written extent; a longer `ee_len` means unwritten.
pub(super) const MAX_LEN: u32 = 32_768;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawHeader {
    eh_magic: U16,
    eh_entries: U16,
    eh_max: U16,
    eh_depth: U16,
    eh_generation: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawExtent {
    ee_block: U32,
    ee_len: U16,
    ee_start_hi: U16,
    ee_start_lo: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawIndex {
    ei_block: U32,
    ei_leaf_lo: U32,
    ei_leaf_hi: U16,
    ei_unused: U16,
}

const ENTRY: usize = 12;
const _: () = assert!(size_of::<RawHeader>() == ENTRY);
const _: () = assert!(size_of::<RawExtent>() == ENTRY);
const _: () = assert!(size_of::<RawIndex>() == ENTRY);

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ext) struct Extent {
    /// First logical block.
    pub(in crate::ext) block: FileBlock,
    /// Number of blocks.
    pub(in crate::ext) len: u32,
    /// First block on the device.
    pub(in crate::ext) start: FsBlock,
    /// Allocated but never written: reads as zeros.
    pub(in crate::ext) unwritten: bool,
}

/// A child node, and the first logical block it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) block: FileBlock,
    pub(super) leaf: FsBlock,
}

/// The entries of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entries {
    Leaf(Vec<Extent>),
    Index(Vec<Index>),
}

/// A verified node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) depth: u16,
    pub(super) max: usize,
    pub(super) entries: Entries,
    generation: u32,
}

/// Entries that a block has room for; the checksum fits after them in every block size.
fn capacity(bytes: usize) -> usize {
    (bytes - ENTRY) / ENTRY
}

/// A block number of 48 bits out of its two halves.
fn joined(high: U16, low: U32) -> FsBlock {
    FsBlock::new(u64::from(high.get()) << 32 | u64::from(low.get()))
}

/// The high and the low half of a block number. A number of 2^48 does not get here: it is beyond
/// what `s_blocks_count` of a file system with extents can be used for.
fn halves(block: FsBlock) -> (U16, U32) {
    (U16::new(low16(block.get() >> 32)), U32::new(low32(block.get())))
}

fn entry<T: FromBytes>(bytes: &[u8], index: usize) -> Option<T> {
    let at = ENTRY * (index + 1);
    T::read_from_bytes(bytes.get(at..at + ENTRY)?).ok()
}

impl Node {
    /// An empty leaf for an inode's `i_block`.
    pub(super) fn empty_root() -> Self {
        Self { depth: 0, max: 4, entries: Entries::Leaf(Vec::new()), generation: 0 }
    }

    /// A node for a block of its own.
    pub(super) fn for_block(vol: &Volume, depth: u16, entries: Entries) -> Self {
        Self { depth, max: capacity(vol.block_size()), entries, generation: 0 }
    }

    pub(super) fn len(&self) -> usize {
        match &self.entries {
            Entries::Leaf(list) => list.len(),
            Entries::Index(list) => list.len(),
        }
    }

    /// The first logical block of the first entry.
    pub(super) fn first(&self) -> Option<FileBlock> {
        match &self.entries {
            Entries::Leaf(list) => list.first().map(|extent| extent.block),
            Entries::Index(list) => list.first().map(|index| index.block),
        }
    }

    /// The root, from `i_block`.
    pub(super) fn root(vol: &Volume, inode: &Inode) -> Result<Self> {
        let wrong = |detail: String| corrupt(inode, "extent tree root", detail);
        Self::parse(vol, &inode.raw.i_block, None, FileBlock::default(), MAX_LBLK, &wrong)
    }

    /// The node in block `block`, for logical blocks `from..to`.
    pub(super) fn child(
        vol: &Volume,
        inode: &Inode,
        block: FsBlock,
        depth: u16,
        from: FileBlock,
        to: u64,
    ) -> Result<Self> {
        let bytes = vol.read_block(block)?;
        let wrong = |detail: String| {
            Error::corrupt("extent node", format!("block {block} (inode {})", inode.ino), detail)
        };
        let node = Self::parse(vol, &bytes, Some(depth), from, to, &wrong)?;
        if vol.sb.has_metadata_csum() {
            let at = ENTRY * (node.max + 1);
            let expected = crc32c(inode.checksum_seed(&vol.sb), &bytes[..at]);
            let found = bytes.get(at..at + 4).and_then(|tail| U32::read_from_bytes(tail).ok());
            let found = found.map_or(0, U32::get);
            if found != expected {
                return Err(wrong(format!(
                    "et_checksum is {found:#010x}, {expected:#010x} expected"
                )));
            }
        }
        Ok(node)
    }

    fn parse(
        vol: &Volume,
        bytes: &[u8],
        depth: Option<u16>,
        from: FileBlock,
        to: u64,
        wrong: &dyn Fn(String) -> Error,
    ) -> Result<Self> {
        let header = RawHeader::read_from_prefix(bytes).map(|(header, _)| header);
        let header = header.map_err(|_| wrong("the block is too short".to_owned()))?;
        let (entries, max) = (header.eh_entries.get(), usize::from(header.eh_max.get()));
        if header.eh_magic.get() != MAGIC {
            return Err(wrong(format!("eh_magic is {:#06x}", header.eh_magic)));
        }
        let found = header.eh_depth.get();
        if found > MAX_DEPTH || depth.is_some_and(|depth| depth != found) {
            return Err(wrong(match depth {
                Some(depth) => format!("eh_depth is {found}, {depth} expected"),
                None => format!("eh_depth is {found}, at most {MAX_DEPTH} expected"),
            }));
        }
        if max == 0 || max > capacity(bytes.len()) || usize::from(entries) > max {
            return Err(wrong(format!(
                "eh_entries is {entries} and eh_max is {max}, at most {} expected",
                capacity(bytes.len())
            )));
        }
        // Only the root may be empty, and then it has no children: a node that several parents
        // share would otherwise escape the checks of order.
        if entries == 0 && (depth.is_some() || found > 0) {
            return Err(wrong(format!("it is empty at depth {found}")));
        }
        // The first block that the next entry may map; the last entry ends at `to`.
        let mut next = u64::from(from);
        let mut outside = |what: &str, index: usize, block: FileBlock, len: u32| {
            let end = u64::from(block) + u64::from(len);
            if u64::from(block) < next || end > to {
                return Err(wrong(format!(
                    "{what} {index} is for blocks {block}..{end}, within {next}..{to} expected"
                )));
            }
            next = end;
            Ok(())
        };
        let short = || wrong("the block is too short".to_owned());
        let first = FsBlock::from(vol.sb.raw.s_first_data_block.get());
        let blocks = FsBlock::new(vol.sb.blocks_count());
        let pointer = |what: &str, start: FsBlock, len: u32| {
            if start <= first || start.checked_add(u64::from(len)).is_none_or(|end| end > blocks) {
                return Err(wrong(format!("{what} {start} (+{len}) is not among {blocks} blocks")));
            }
            Ok(())
        };
        let entries = if found == 0 {
            let mut list = Vec::with_capacity(usize::from(entries));
            for index in 0..usize::from(entries) {
                let raw: RawExtent = entry(bytes, index).ok_or_else(short)?;
                let stored = u32::from(raw.ee_len.get());
                let unwritten = stored > MAX_LEN;
                let len = if unwritten { stored - MAX_LEN } else { stored };
                let start = joined(raw.ee_start_hi, raw.ee_start_lo);
                let block = FileBlock::new(raw.ee_block.get());
                if len == 0 {
                    return Err(wrong(format!("ee_len of extent {index} is 0")));
                }
                outside("extent", index, block, len)?;
                pointer("ee_start", start, len)?;
                list.push(Extent { block, len, start, unwritten });
            }
            Entries::Leaf(list)
        } else {
            let mut list = Vec::with_capacity(usize::from(entries));
            for index in 0..usize::from(entries) {
                let raw: RawIndex = entry(bytes, index).ok_or_else(short)?;
                let leaf = joined(raw.ei_leaf_hi, raw.ei_leaf_lo);
                let block = FileBlock::new(raw.ei_block.get());
                outside("index", index, block, 1)?;
                pointer("ei_leaf", leaf, 1)?;
                list.push(Index { block, leaf });
            }
            Entries::Index(list)
        };
        Ok(Self { depth: found, max, entries, generation: header.eh_generation.get() })
    }

    /// The bytes of the node, `size` of them, without a checksum.
    fn to_bytes(&self, size: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(size);
        let header = RawHeader {
            eh_magic: U16::new(MAGIC),
            eh_entries: U16::new(to_u16(self.len())),
            eh_max: U16::new(to_u16(self.max)),
            eh_depth: U16::new(self.depth),
            eh_generation: U32::new(self.generation),
        };
        out.extend_from_slice(header.as_bytes());
        match &self.entries {
            Entries::Leaf(list) => {
                for extent in list {
                    let len = extent.len + if extent.unwritten { MAX_LEN } else { 0 };
                    let raw = RawExtent {
                        ee_block: U32::new(extent.block.get()),
                        ee_len: U16::new(to_u16(len)),
                        ee_start_hi: halves(extent.start).0,
                        ee_start_lo: halves(extent.start).1,
                    };
                    out.extend_from_slice(raw.as_bytes());
                }
            }
            Entries::Index(list) => {
                for index in list {
                    let raw = RawIndex {
                        ei_block: U32::new(index.block.get()),
                        ei_leaf_lo: halves(index.leaf).1,
                        ei_leaf_hi: halves(index.leaf).0,
                        ei_unused: U16::new(0),
                    };
                    out.extend_from_slice(raw.as_bytes());
                }
            }
        }
        out.resize(size, 0);
        out
    }

    /// Puts the root into `i_block`.
    pub(super) fn store_root(&self, inode: &mut Inode) {
        const SIZE: usize = 60;
        let mut target = [0; SIZE];
        target.copy_from_slice(&self.to_bytes(SIZE)[..SIZE]);
        inode.raw.i_block = target;
    }

    /// Writes the node into its block.
    pub(super) fn store_child(
        &self,
        vol: &mut Volume,
        inode: &Inode,
        block: FsBlock,
    ) -> Result<()> {
        let mut bytes = self.to_bytes(vol.block_size());
        if vol.sb.has_metadata_csum() {
            let at = ENTRY * (self.max + 1);
            let sum = crc32c(inode.checksum_seed(&vol.sb), &bytes[..at]);
            if let Some(tail) = bytes.get_mut(at..at + 4) {
                tail.copy_from_slice(&sum.to_le_bytes());
            }
        }
        check_own(vol, block)?;
        vol.store.write_meta(block, bytes)
    }
}
