//! Where the journal lies and what its superblock says.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use super::format::{
    DEFAULT_FC_BLOCKS, FEATURE_COMPAT_CHECKSUM, FEATURE_INCOMPAT_64BIT, FEATURE_INCOMPAT_CSUM_V2,
    FEATURE_INCOMPAT_CSUM_V3, FEATURE_INCOMPAT_FAST_COMMIT, FEATURE_INCOMPAT_KNOWN, Form,
    JBD2_MAGIC_NUMBER, JBD2_SUPERBLOCK_V1, JBD2_SUPERBLOCK_V2, JournalSuperblock,
};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ext::checksum::crc32c;
use crate::ext::inode::{Inode, flags};
use crate::ext::volume::Volume;

/// Bytes of the journal's superblock; its block may be larger.
const SUPERBLOCK_SIZE: usize = 1024;
/// Below this jbd2 does not work, and mke2fs makes none.
const MIN_BLOCKS: u32 = 1024;
/// Nodes of the journal's extent tree or pointer blocks of its block map that are read at most: a
/// 4 GiB journal of single-block extents in 1 KiB blocks has fewer.
const MAX_MAP_NODES: usize = 60_000;

/// Consecutive blocks of the journal that are consecutive on the device too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block within the journal.
    pub logical: u32,
    /// First block on the device.
    pub physical: u64,
    /// Number of blocks.
    pub length: u32,
}

/// The journal of one file system.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    /// In logical order, without holes, `s_maxlen` blocks in all.
    runs: Vec<Run>,
    /// The same by place on the device, together with the nodes of the journal's own map: first block
    /// and the block after the last.
    places: Vec<(u64, u64)>,
    /// Nodes of its extent tree, or its indirect blocks.
    nodes: Vec<u64>,
    /// The superblock as it is on the device.
    pub(super) sb: JournalSuperblock,
    /// Form of blocks and tags.
    pub(super) form: Form,
    /// First block of the log.
    pub(super) first: u32,
    /// The block after the last of the log; fast commits may follow.
    pub(super) last: u32,
    /// The sequence number of the next transaction to write.
    pub(super) next_sequence: u32,
}

impl Area {
    /// Finds the journal and verifies its superblock.
    pub(super) fn open(vol: &Volume) -> Result<Self> {
        let inum = vol.sb.raw.s_journal_inum.get();
        if inum == 0 {
            return Err(Error::unsupported(
                "an external journal (s_journal_dev)",
                "with the file system clean, tune2fs -O ^has_journal removes the need for it",
            ));
        }
        if inum >= vol.sb.first_ino() {
            return Err(corrupt("superblock", "s_journal_inum", format!("is {inum}")));
        }
        let inode = vol.read_inode(inum)?;
        let in_inode = format!("inode {inum}");
        if !inode.is_file() || inode.links() == 0 {
            return Err(corrupt("journal", &in_inode, "it is not a regular file in use".into()));
        }
        let block_size = vol.block_size();
        let blocks = inode.size() / block_size as u64;
        let blocks = u32::try_from(blocks.min(vol.sb.blocks_count())).unwrap_or(u32::MAX);
        let (mut runs, nodes) = if inode.has_flag(flags::EXTENTS) {
            extent_runs(vol, &inode)?
        } else {
            pointer_runs(vol, &inode, blocks)?
        };
        let Some(&Run { logical: 0, physical, .. }) = runs.first() else {
            return Err(corrupt("journal", &in_inode, "its first block is not mapped".into()));
        };
        let mut bytes = vec![0; SUPERBLOCK_SIZE];
        vol.store.device().read_at(physical * block_size as u64, &mut bytes)?;
        let sb = JournalSuperblock::read_from_bytes(&bytes)
            .map_err(|_| corrupt("journal superblock", &in_inode, "it is too short".into()))?;
        let maxlen = sb.s_maxlen.get();
        let (form, first, last) = check_superblock(&sb, block_size, blocks, &in_inode)?;

        let mut covered = 0u32;
        for run in &runs {
            if run.logical != covered {
                break;
            }
            covered = covered.saturating_add(run.length);
        }
        if covered < maxlen {
            return Err(corrupt(
                "journal",
                &in_inode,
                format!("its block {covered} of {maxlen} is not mapped"),
            ));
        }
        runs.retain(|run| run.logical < maxlen);
        let mut places: Vec<(u64, u64)> =
            runs.iter().map(|run| (run.physical, run.physical + u64::from(run.length))).collect();
        places.extend(nodes.iter().map(|&node| (node, node.saturating_add(1))));
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(corrupt("journal", &in_inode, "it has the same block twice".into()));
        }
        let next_sequence = sb.s_sequence.get();
        Ok(Self { runs, places, nodes, sb, form, first, last, next_sequence })
    }

    /// Where it and its map lie, in order: first block and the block after the last.
    pub(super) fn places(&self) -> &[(u64, u64)] {
        &self.places
    }

    /// Whether both are in the same blocks.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        self.runs == other.runs && self.nodes == other.nodes
    }

    /// Whether the superblock says that there is something to replay.
    pub(super) fn is_dirty(&self) -> bool {
        self.sb.s_start.get() != 0
    }

    /// Blocks of the log.
    pub(super) fn log_blocks(&self) -> u32 {
        self.last - self.first
    }

    /// Where the fast commits start, if the journal has room for them. The kernel leaves one block
    /// between them and the log.
    pub(super) fn fast_commit_start(&self) -> Option<u32> {
        let has = self.sb.s_feature_incompat.get() & FEATURE_INCOMPAT_FAST_COMMIT != 0;
        (has && self.last + 1 < self.sb.s_maxlen.get()).then_some(self.last + 1)
    }

    /// The block of the log after `block`.
    pub(super) fn next(&self, block: u32) -> u32 {
        if block + 1 >= self.last { self.first } else { block + 1 }
    }

    /// The device's block of a block of the journal, and how many follow it there.
    pub(super) fn physical(&self, block: u32) -> Result<(u64, u32)> {
        let index = self.runs.partition_point(|run| run.logical <= block);
        let run = index.checked_sub(1).and_then(|index| self.runs.get(index));
        match run {
            Some(run) if block - run.logical < run.length => {
                let skip = block - run.logical;
                Ok((run.physical + u64::from(skip), run.length - skip))
            }
            _ => Err(corrupt("journal", &format!("journal block {block}"), "not mapped".into())),
        }
    }

    /// Whether a block of the file system belongs to the journal or to its map.
    pub(super) fn contains(&self, block: u64) -> bool {
        let index = self.places.partition_point(|place| place.0 <= block);
        index.checked_sub(1).and_then(|at| self.places.get(at)).is_some_and(|p| block < p.1)
    }

    /// Reads one block of the journal.
    pub(super) fn read(&self, device: &dyn BlockDevice, block: u32, buf: &mut [u8]) -> Result<()> {
        let (physical, _) = self.physical(block)?;
        Ok(device.read_at(physical * self.form.block_size as u64, buf)?)
    }

    /// Writes the superblock: the log starts at block `start` (0: it is empty) with `sequence`.
    pub(super) fn write_superblock(
        &mut self,
        device: &dyn BlockDevice,
        start: u32,
        sequence: u32,
    ) -> Result<()> {
        let mut sb = self.sb.clone();
        sb.s_start = U32::new(start);
        sb.s_sequence = U32::new(sequence);
        if self.form.wide {
            // The kernel turns this on at its first mount of such a file system, too.
            sb.s_header.h_blocktype = U32::new(JBD2_SUPERBLOCK_V2);
            sb.s_feature_incompat |= FEATURE_INCOMPAT_64BIT;
        }
        if self.form.has_csum() {
            sb.s_checksum = U32::new(superblock_checksum(&sb));
        }
        let (physical, _) = self.physical(0)?;
        device.write_at(physical * self.form.block_size as u64, sb.as_bytes())?;
        self.sb = sb;
        Ok(())
    }
}

fn corrupt(structure: &'static str, position: &str, detail: String) -> Error {
    Error::corrupt(structure, position, detail)
}

/// crc32c over the superblock with its checksum field zero.
fn superblock_checksum(sb: &JournalSuperblock) -> u32 {
    let mut copy = sb.clone();
    copy.s_checksum = U32::new(0);
    crc32c(!0, copy.as_bytes())
}

/// Checks all that the rest computes with; returns form, first block and end of the log.
fn check_superblock(
    sb: &JournalSuperblock,
    block_size: usize,
    blocks: u32,
    position: &str,
) -> Result<(Form, u32, u32)> {
    let bad = |detail: String| Err(corrupt("journal superblock", position, detail));
    if sb.s_header.h_magic.get() != JBD2_MAGIC_NUMBER {
        return bad(format!(
            "h_magic is {:#010x}, {JBD2_MAGIC_NUMBER:#010x} expected",
            sb.s_header.h_magic
        ));
    }
    let v2 = match sb.s_header.h_blocktype.get() {
        JBD2_SUPERBLOCK_V1 => false,
        JBD2_SUPERBLOCK_V2 => true,
        other => return bad(format!("h_blocktype is {other}, 3 or 4 expected")),
    };
    let compat = if v2 { sb.s_feature_compat.get() } else { 0 };
    let incompat = if v2 { sb.s_feature_incompat.get() } else { 0 };
    let unknown = incompat & !FEATURE_INCOMPAT_KNOWN;
    if unknown != 0 || v2 && sb.s_feature_ro_compat.get() != 0 {
        return Err(Error::unsupported(
            format!(
                "a journal with the features {unknown:#x} (incompatible) and {:#x} (read-only)",
                sb.s_feature_ro_compat
            ),
            "mount and unmount the file system once on the system that made it, or use a newer \
             release of this program",
        ));
    }
    let csum_v2 = incompat & FEATURE_INCOMPAT_CSUM_V2 != 0;
    let csum_v3 = incompat & FEATURE_INCOMPAT_CSUM_V3 != 0;
    let csum_v1 = compat & FEATURE_COMPAT_CHECKSUM != 0;
    if u8::from(csum_v1) + u8::from(csum_v2) + u8::from(csum_v3) > 1 {
        return bad("it has checksums of more than one version".into());
    }
    if csum_v2 || csum_v3 {
        if sb.s_checksum_type != 4 {
            return bad(format!("s_checksum_type is {}, 4 (crc32c) expected", sb.s_checksum_type));
        }
        let expected = superblock_checksum(sb);
        if sb.s_checksum.get() != expected {
            return bad(format!(
                "s_checksum is {:#010x}, {expected:#010x} expected",
                sb.s_checksum
            ));
        }
    }
    if sb.s_blocksize.get() as usize != block_size {
        return bad(format!("s_blocksize is {}, {block_size} expected", sb.s_blocksize));
    }
    let maxlen = sb.s_maxlen.get();
    if maxlen < MIN_BLOCKS || maxlen > blocks {
        return bad(format!(
            "s_maxlen is {maxlen}, but the journal has {blocks} blocks (at least {MIN_BLOCKS})"
        ));
    }
    let mut last = maxlen;
    if incompat & FEATURE_INCOMPAT_FAST_COMMIT != 0 {
        let fast = match sb.s_num_fc_blks.get() {
            0 => DEFAULT_FC_BLOCKS,
            count => count,
        };
        // As the kernel: when too little would be left, there is no fast commit area.
        if let Some(left) = maxlen.checked_sub(fast).filter(|&left| left >= MIN_BLOCKS) {
            last = left;
        }
    }
    let first = sb.s_first.get();
    if first == 0 || first.saturating_add(MIN_BLOCKS / 2) > last {
        return bad(format!("s_first is {first} of {last} blocks"));
    }
    let start = sb.s_start.get();
    if start != 0 && !(first..last).contains(&start) {
        return bad(format!("s_start is {start}, 0 or {first} to {} expected", last - 1));
    }
    let form = Form {
        block_size,
        wide: incompat & FEATURE_INCOMPAT_64BIT != 0,
        v3: csum_v3,
        v2: csum_v2,
        v1: csum_v1,
        seed: crc32c(!0, &sb.s_uuid),
    };
    Ok((form, first, last))
}

/// Adds blocks to the end of the list, joined to the last run where they follow it.
fn push(runs: &mut Vec<Run>, logical: u32, physical: u64, length: u32) {
    if let Some(last) = runs.last_mut()
        && last.logical.checked_add(last.length) == Some(logical)
        && last.physical + u64::from(last.length) == physical
        && let Some(joined) = last.length.checked_add(length)
    {
        last.length = joined;
        return;
    }
    runs.push(Run { logical, physical, length });
}

fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The map of a journal with extents. It is read past [`crate::ext::map`] because the journal is
/// needed whole, before the file system may be trusted, and must not have holes.
/// Returns the runs and the tree's nodes outside the inode.
fn extent_runs(vol: &Volume, inode: &Inode) -> Result<(Vec<Run>, Vec<u64>)> {
    let position = format!("inode {}", inode.ino);
    let bad = |detail: String| corrupt("extent node", &position, detail);
    let blocks = vol.sb.blocks_count();
    let mut runs = Vec::new();
    let mut nodes = Vec::new();
    // (node, depth it must have); the first extents are on top.
    let mut stack: Vec<(Vec<u8>, Option<u16>)> = vec![(inode.raw.i_block.to_vec(), None)];
    while let Some((node, want_depth)) = stack.pop() {
        let (entries, depth) = (le16(&node, 2), le16(&node, 6));
        if le16(&node, 0) != 0xF30A {
            return Err(bad(format!("eh_magic is {:#06x}, 0xf30a expected", le16(&node, 0))));
        }
        if want_depth.is_some_and(|want| want != depth) || depth > 5 {
            return Err(bad(format!("eh_depth is {depth}")));
        }
        if 12 + usize::from(entries) * 12 > node.len() {
            return Err(bad(format!("eh_entries is {entries}")));
        }
        let mut children = Vec::new();
        for entry in node[12..].chunks_exact(12).take(entries.into()) {
            if depth == 0 {
                let length = u32::from(le16(entry, 4));
                let start = u64::from(le16(entry, 6)) << 32 | u64::from(le32(entry, 8));
                if length == 0 || length > 32768 || start == 0 || start + u64::from(length) > blocks
                {
                    return Err(bad(format!("an extent of {length} blocks at block {start}")));
                }
                push(&mut runs, le32(entry, 0), start, length);
                continue;
            }
            let child = u64::from(le16(entry, 8)) << 32 | u64::from(le32(entry, 4));
            if child == 0 {
                return Err(bad("ei_leaf is 0".to_owned()));
            }
            nodes.push(child);
            if nodes.len() > MAX_MAP_NODES {
                return Err(bad(format!("the tree has more than {MAX_MAP_NODES} nodes")));
            }
            children.push((vol.store.read(child)?.to_vec(), Some(depth - 1)));
        }
        stack.extend(children.into_iter().rev());
    }
    Ok((runs, nodes))
}

/// The map of a journal without extents (ext3): `blocks` blocks of direct and indirect pointers.
/// Returns the runs and the indirect blocks.
fn pointer_runs(vol: &Volume, inode: &Inode, blocks: u32) -> Result<(Vec<Run>, Vec<u64>)> {
    let (runs, nodes) = (Vec::new(), Vec::new());
    let mut map = PointerMap { vol, runs, next: 0, blocks, nodes, done: false };
    for slot in 0..15 {
        let pointer = le32(&inode.raw.i_block, slot * 4);
        let level = slot.saturating_sub(11) as u32;
        map.walk(pointer, level)?;
    }
    Ok((map.runs, map.nodes))
}

struct PointerMap<'a> {
    vol: &'a Volume,
    runs: Vec<Run>,
    /// The next block of the journal to be mapped.
    next: u32,
    blocks: u32,
    nodes: Vec<u64>,
    done: bool,
}

impl PointerMap<'_> {
    fn walk(&mut self, pointer: u32, level: u32) -> Result<()> {
        if self.done || self.next >= self.blocks || pointer == 0 {
            self.done = true; // a hole: the caller sees that blocks are missing
            return Ok(());
        }
        if level == 0 {
            if u64::from(pointer) >= self.vol.sb.blocks_count() {
                let detail = format!("block {pointer} is beyond the file system");
                return Err(corrupt("journal", &format!("journal block {}", self.next), detail));
            }
            push(&mut self.runs, self.next, u64::from(pointer), 1);
            self.next += 1;
            return Ok(());
        }
        self.nodes.push(u64::from(pointer));
        if self.nodes.len() > MAX_MAP_NODES {
            let detail = format!("more than {MAX_MAP_NODES} indirect blocks");
            return Err(corrupt("journal", &format!("journal block {}", self.next), detail));
        }
        let node = self.vol.store.read(u64::from(pointer))?;
        for slot in node.chunks_exact(4) {
            if self.done {
                break;
            }
            self.walk(le32(slot, 0), level - 1)?;
        }
        Ok(())
    }
}
