//! The index of a directory (htree): its root in block 0, its nodes, and the way to a leaf.
//!
//! Source: the kernel's Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories".

use super::super::checksum::crc32c;
use super::super::inode::Inode;
use super::super::superblock::incompat;
use super::super::units::{FsBlock, Ino};
use super::super::volume::Volume;
use super::blocks::{blocks_of, read_raw};
use super::entry::{HEADER, Layout, Place};
use super::hash::{Hasher, version};
use crate::error::{Error, Result};
use crate::num::{to_u8, to_u16};

/// Byte of `dx_root_info` in the root: after the entries of `.` and `..`.
const INFO: usize = 24;
/// Size of `dx_root_info`.
const INFO_LENGTH: usize = 8;
/// Byte of the entries in the root.
const ROOT_ENTRIES: usize = INFO + INFO_LENGTH;
/// Byte of the entries in any other node: after one unused entry that spans the block.
const NODE_ENTRIES: usize = HEADER;
/// Size of `dx_entry`, of `dx_countlimit` and of `dx_tail`.
const ENTRY: usize = 8;
/// The bits of `dx_entry.block` that are a block number.
const BLOCK_MASK: u32 = 0x0FFF_FFFF;
/// `s_flags`: directory hashes take bytes as unsigned.
const FLAG_UNSIGNED_HASH: u32 = 2;

/// Levels of nodes (the root counts) that an index may have: 2, or 3 with `large_dir`.
pub fn max_levels(volume: &Volume) -> usize {
    if volume.sb.has_incompat(incompat::LARGEDIR) { 3 } else { 2 }
}

/// The hasher for an on-disk hash version.
pub fn hasher(volume: &Volume, on_disk_version: u8) -> Option<Hasher> {
    (on_disk_version <= version::TEA).then(|| Hasher {
        version: on_disk_version,
        unsigned: volume.sb.raw.s_flags.get() & FLAG_UNSIGNED_HASH != 0,
        seed: volume.sb.hash_seed(),
    })
}

/// A node of the index, in memory.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its block on the device.
    pub pblk: FsBlock,
    /// Its bytes.
    pub block: Vec<u8>,
    /// Byte of its first entry.
    entries_at: usize,
    /// Entries in use; at least 1.
    pub count: usize,
    /// Entries that fit.
    pub limit: usize,
    /// The entry that the search took.
    pub at: usize,
}

impl Node {
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes([
            self.block[at],
            self.block[at + 1],
            self.block[at + 2],
            self.block[at + 3],
        ])
    }

    /// The smallest hash below entry `i`; the lowest bit says that its names continue from the
    /// entry before. Entry 0 has none: it takes everything below entry 1.
    pub fn hash(&self, i: usize) -> u32 {
        if i == 0 { 0 } else { self.word(self.entries_at + i * ENTRY) }
    }

    /// The logical block that entry `i` points to.
    pub fn child(&self, i: usize) -> u32 {
        self.word(self.entries_at + i * ENTRY + 4) & BLOCK_MASK
    }

    /// Whether no entry fits any more.
    pub fn is_full(&self) -> bool {
        self.count >= self.limit
    }

    fn find(&self, hash: u32) -> usize {
        let (mut low, mut high) = (1, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.hash(middle) > hash {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low - 1
    }

    fn set_count(&mut self, count: usize) {
        self.count = count;
        let at = self.entries_at;
        self.block[at + 2..at + 4].copy_from_slice(&to_u16(count).to_le_bytes());
    }

    fn set_entry(&mut self, i: usize, hash: u32, child: u32) {
        let at = self.entries_at + i * ENTRY;
        if i != 0 {
            self.block[at..at + 4].copy_from_slice(&hash.to_le_bytes());
        }
        self.block[at + 4..at + 8].copy_from_slice(&child.to_le_bytes());
    }

    /// Adds an entry after entry `i`. The node must not be full.
    pub fn insert_after(&mut self, i: usize, hash: u32, child: u32) {
        let from = self.entries_at + (i + 1) * ENTRY;
        let to = self.entries_at + self.count * ENTRY;
        self.block.copy_within(from..to, from + ENTRY);
        self.set_count(self.count + 1);
        self.set_entry(i + 1, hash, child);
    }

    /// Takes the upper half out, as the content of a new node, and returns its smallest hash.
    pub fn split(&mut self, layout: Layout) -> (u32, Vec<u8>) {
        let keep = self.count / 2;
        let hash = self.hash(keep);
        let moved: Vec<(u32, u32)> =
            (keep..self.count).map(|i| (self.hash(i), self.child(i))).collect();
        self.set_count(keep);
        (hash, node_block(layout, &moved))
    }

    /// Moves all entries of the root into the content of a new node, for one more level.
    pub fn lift(&mut self, layout: Layout) -> Vec<u8> {
        let moved: Vec<(u32, u32)> =
            (0..self.count).map(|i| (self.hash(i), self.child(i))).collect();
        node_block(layout, &moved)
    }

    /// After [`Node::lift`]: the root has one entry, `child`, and one more level below it.
    pub fn set_single_child(&mut self, child: u32) {
        self.set_count(1);
        self.set_entry(0, 0, child);
        self.block[INFO + 6] += 1;
    }

    /// Puts the node into the open transaction, with a fresh checksum.
    pub fn store(&mut self, volume: &mut Volume, dir: &Inode) -> Result<()> {
        seal(&mut self.block, self.entries_at, volume, dir);
        volume.store.write_meta(self.pblk, self.block.clone())
    }
}

/// The content of a node that is not the root.
fn node_block(layout: Layout, list: &[(u32, u32)]) -> Vec<u8> {
    let mut block = vec![0; layout.block_size];
    super::entry::put(&mut block, layout, 0, layout.block_size, Ino::default(), b"", 0);
    let limit = limit(layout, NODE_ENTRIES);
    let at = NODE_ENTRIES;
    block[at..at + 2].copy_from_slice(&to_u16(limit).to_le_bytes());
    block[at + 2..at + 4].copy_from_slice(&to_u16(list.len()).to_le_bytes());
    for (i, &(hash, child)) in list.iter().enumerate() {
        let at = NODE_ENTRIES + i * ENTRY;
        if i != 0 {
            block[at..at + 4].copy_from_slice(&hash.to_le_bytes());
        }
        block[at + 4..at + 8].copy_from_slice(&child.to_le_bytes());
    }
    block
}

/// Turns the bytes of block 0, which hold `.` and `..`, into a root with one leaf: `child`.
pub fn make_root(block: &mut [u8], layout: Layout, hash_version: u8, child: u32) {
    block[INFO..].fill(0);
    block[INFO + 4] = hash_version;
    block[INFO + 5] = to_u8(INFO_LENGTH);
    let limit = limit(layout, ROOT_ENTRIES);
    let at = ROOT_ENTRIES;
    block[at..at + 2].copy_from_slice(&to_u16(limit).to_le_bytes());
    block[at + 2..at + 4].copy_from_slice(&1u16.to_le_bytes());
    block[at + 4..at + 8].copy_from_slice(&child.to_le_bytes());
}

fn limit(layout: Layout, entries_at: usize) -> usize {
    (layout.block_size - entries_at) / ENTRY - usize::from(layout.checksums)
}

/// The checksum over a node, as far as its entries go, and its tail after the last possible one.
fn checksum(block: &[u8], entries_at: usize, count: usize, limit: usize, seed: u32) -> u32 {
    let tail = entries_at + limit * ENTRY;
    let mut crc = crc32c(seed, &block[..entries_at + count * ENTRY]);
    crc = crc32c(crc, &block[tail..tail + 4]);
    crc32c(crc, &[0; 4])
}

fn counts(block: &[u8], entries_at: usize) -> (usize, usize) {
    let word = |at: usize| usize::from(u16::from_le_bytes([block[at], block[at + 1]]));
    (word(entries_at + 2), word(entries_at))
}

/// Writes the checksum of a root ([`ROOT_ENTRIES`]) or node where the file system has them.
fn seal(block: &mut [u8], entries_at: usize, volume: &Volume, dir: &Inode) {
    let layout = Layout::of(&volume.sb);
    if layout.checksums {
        let (count, limit) = counts(block, entries_at);
        let tail = entries_at + limit * ENTRY;
        block[tail..tail + 8].fill(0);
        let crc = checksum(block, entries_at, count, limit, dir.checksum_seed(&volume.sb));
        block[tail + 4..tail + 8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Writes the checksum of a root where the file system has them.
pub fn seal_root(block: &mut [u8], volume: &Volume, dir: &Inode) {
    seal(block, ROOT_ENTRIES, volume, dir);
}

/// Writes the checksum of a node where the file system has them.
pub fn seal_node(block: &mut [u8], volume: &Volume, dir: &Inode) {
    seal(block, NODE_ENTRIES, volume, dir);
}

/// Whether a block that is not block 0 is a node rather than a leaf: one unused entry spans it.
pub fn looks_like_node(block: &[u8], layout: Layout) -> bool {
    let spans = match u16::from_le_bytes([block[4], block[5]]) {
        0 | 0xFFFF => layout.block_size >= 0x1_0000,
        length => usize::from(length) == layout.block_size,
    };
    spans && block[..4] == [0; 4] && block[6] == 0
}

/// Reads and verifies a node. Block 0 is the root.
pub fn load(volume: &Volume, dir: &Inode, lblk: u32) -> Result<Node> {
    let layout = Layout::of(&volume.sb);
    let place = Place { ino: dir.ino, lblk: Some(lblk) };
    let (pblk, block) = read_raw(volume, dir, lblk)?;
    let block = block.to_vec();
    let entries_at = if lblk == 0 { ROOT_ENTRIES } else { NODE_ENTRIES };
    if lblk == 0 {
        check_dots(&block, layout, &place)?;
        if block[INFO + 5] != to_u8(INFO_LENGTH) {
            return Err(place.corrupt(
                "directory index",
                INFO + 5,
                format!("info_length is {}, {INFO_LENGTH} expected", block[INFO + 5]),
            ));
        }
        if usize::from(block[INFO + 6]) >= max_levels(volume) {
            return Err(place.corrupt(
                "directory index",
                INFO + 6,
                format!(
                    "indirect_levels is {}, at most {} expected",
                    block[INFO + 6],
                    max_levels(volume) - 1
                ),
            ));
        }
    } else if !looks_like_node(&block, layout) {
        return Err(place.corrupt("directory index", 0, "the index points to a block of names"));
    }
    let (count, found_limit) = counts(&block, entries_at);
    let limit = limit(layout, entries_at);
    if found_limit != limit {
        return Err(place.corrupt(
            "directory index",
            entries_at,
            format!("limit is {found_limit}, {limit} expected"),
        ));
    }
    if count == 0 || count > limit {
        return Err(place.corrupt(
            "directory index",
            entries_at + 2,
            format!("count is {count}, 1 to {limit} expected"),
        ));
    }
    if layout.checksums {
        let tail = entries_at + limit * ENTRY + 4;
        let found =
            u32::from_le_bytes([block[tail], block[tail + 1], block[tail + 2], block[tail + 3]]);
        let expected = checksum(&block, entries_at, count, limit, dir.checksum_seed(&volume.sb));
        if found != expected {
            return Err(place.corrupt(
                "directory index",
                tail,
                format!("dt_checksum is {found:#010x}, {expected:#010x} expected"),
            ));
        }
    }
    let node = Node { pblk, block, entries_at, count, limit, at: 0 };
    let blocks = blocks_of(volume, dir)?;
    for i in 0..count {
        if i > 1 && node.hash(i) < node.hash(i - 1) {
            return Err(place.corrupt(
                "directory index",
                entries_at + i * ENTRY,
                format!("hash {:#x} comes after {:#x}", node.hash(i), node.hash(i - 1)),
            ));
        }
        let child = node.child(i);
        if child == 0 || child >= blocks || child == lblk {
            return Err(place.corrupt(
                "directory index",
                entries_at + i * ENTRY + 4,
                format!("block is {child}, but the directory has {blocks} blocks"),
            ));
        }
    }
    Ok(node)
}

/// The first two entries of block 0 of an indexed directory have fixed places.
fn check_dots(block: &[u8], layout: Layout, place: &Place) -> Result<()> {
    let length = |at: usize| u16::from_le_bytes([block[at + 4], block[at + 5]]);
    let good = usize::from(length(0)) == 12
        && block[6] == 1
        && block[8] == b'.'
        && block[18] == 2
        && &block[20..22] == b".."
        && (usize::from(length(12)) == layout.block_size - 12
            || (layout.block_size >= 0x1_0000 && length(12) == to_u16(layout.block_size - 12)));
    if good {
        return Ok(());
    }
    Err(place.corrupt("directory index", 0, "it does not begin with `.` and `..`"))
}

/// The way from the root to the entry whose leaf holds `hash`, and the hasher's view of a name.
#[derive(Debug)]
pub struct Path {
    /// The root first.
    pub nodes: Vec<Node>,
}

/// The hasher of an indexed directory, from its root.
pub fn hasher_of(volume: &Volume, dir: &Inode, root: &Node) -> Result<Hasher> {
    let found = root.block[INFO + 4];
    if found == version::SIPHASH {
        return Err(Error::unsupported(
            format!("directory inode {} with hash version siphash (encrypt and casefold)", dir.ino),
            "edit the files from inside the running guest",
        ));
    }
    hasher(volume, found).ok_or_else(|| {
        Place { ino: dir.ino, lblk: Some(0) }.corrupt(
            "directory index",
            INFO + 4,
            format!("hash_version is {found}, 0 to 2 expected"),
        )
    })
}

impl Path {
    /// Walks down from `root`.
    pub fn descend(volume: &Volume, dir: &Inode, root: Node, hash: u32) -> Result<Self> {
        let levels = usize::from(root.block[INFO + 6]);
        let mut nodes = vec![root];
        for level in 0..=levels {
            let Some(node) = nodes.last_mut() else { break };
            node.at = node.find(hash);
            if level < levels {
                let child = load(volume, dir, node.child(node.at))?;
                nodes.push(child);
            }
        }
        Ok(Self { nodes })
    }

    /// The leaf that the path ends at.
    pub fn leaf(&self) -> Option<u32> {
        self.nodes.last().map(|node| node.child(node.at))
    }

    /// Goes to the next leaf if names with `hash` may continue there. Each call moves forward in
    /// the tree, so that a search ends even on a hostile index.
    pub fn advance(&mut self, volume: &Volume, dir: &Inode, hash: u32) -> Result<bool> {
        let depth = self.nodes.len();
        let Some(level) =
            (0..depth).rev().find(|&level| self.nodes[level].at + 1 < self.nodes[level].count)
        else {
            return Ok(false);
        };
        let next = self.nodes[level].at + 1;
        if self.nodes[level].hash(next) & !1 != hash {
            return Ok(false);
        }
        self.nodes[level].at = next;
        self.nodes.truncate(level + 1);
        while self.nodes.len() < depth {
            let Some(child) = self.leaf() else { break };
            let node = load(volume, dir, child)?;
            self.nodes.push(node);
        }
        Ok(true)
    }
}
