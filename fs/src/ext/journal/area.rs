//! The journal as [`find`](super::find::find) found it: its place on the device, and its superblock
//! with every field checked that the rest computes with.

use zerocopy::IntoBytes;
use zerocopy::big_endian::U32;

use super::format::{
    DEFAULT_FC_BLOCKS, FEATURE_COMPAT_CHECKSUM, FEATURE_INCOMPAT_64BIT, FEATURE_INCOMPAT_CSUM_V2,
    FEATURE_INCOMPAT_CSUM_V3, FEATURE_INCOMPAT_FAST_COMMIT, FEATURE_INCOMPAT_KNOWN, Form,
    JBD2_MAGIC_NUMBER, JBD2_SUPERBLOCK_V1, JBD2_SUPERBLOCK_V2, JournalSuperblock,
};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::ext::checksum::crc32c;
use crate::ext::units::FsBlock;
use crate::num::{to_u64, to_usize};

/// Below this jbd2 does not work, and mke2fs makes none.
const MIN_BLOCKS: u32 = 1024;
/// Consecutive blocks of the journal that are consecutive on the device too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block within the journal.
    pub logical: u32,
    /// First block on the device.
    pub physical: FsBlock,
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
    places: Vec<(FsBlock, FsBlock)>,
    /// Nodes of its extent tree, or its indirect blocks.
    nodes: Vec<FsBlock>,
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
    /// Checks the superblock `sb` of a journal of `blocks` blocks, and that `runs` cover it. `nodes`
    /// are the blocks of its map; `position` names the journal in errors.
    pub(super) fn new(
        sb: JournalSuperblock,
        mut runs: Vec<Run>,
        nodes: Vec<FsBlock>,
        block_size: usize,
        blocks: u32,
        position: &str,
    ) -> Result<Self> {
        let maxlen = sb.s_maxlen.get();
        let (form, first, last) = check_superblock(&sb, block_size, blocks, position)?;
        let mut covered = 0u32;
        for run in &runs {
            if run.logical != covered {
                break;
            }
            covered = covered.saturating_add(run.length);
        }
        if covered < maxlen {
            let detail = format!("its block {covered} of {maxlen} is not mapped");
            return Err(corrupt("journal", position, detail));
        }
        runs.retain(|run| run.logical < maxlen);
        let mut places: Vec<(FsBlock, FsBlock)> =
            runs.iter().map(|run| (run.physical, run.physical + u64::from(run.length))).collect();
        places.extend(nodes.iter().map(|&node| (node, node.saturating_add(1))));
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(corrupt("journal", position, "it has the same block twice".into()));
        }
        let next_sequence = sb.s_sequence.get();
        Ok(Self { runs, places, nodes, sb, form, first, last, next_sequence })
    }

    /// The places of the journal and its map, in order: first block and the block after the last.
    pub(super) fn places(&self) -> &[(FsBlock, FsBlock)] {
        &self.places
    }

    /// Whether both are in the same blocks.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        self.runs == other.runs && self.nodes == other.nodes
    }

    /// Whether there is something to replay (`s_start` is not 0).
    pub(super) fn is_dirty(&self) -> bool {
        self.sb.s_start.get() != 0
    }

    /// Metadata blocks that a transaction written in `form` can have: with descriptor blocks and
    /// commit block they must leave one block of the log free.
    pub(super) fn capacity(&self, form: &Form) -> usize {
        let room = u64::from(self.log_blocks().saturating_sub(2));
        let tags = to_u64(form.tags_per_block());
        // At most 2^32 times 4096.
        to_usize(room * tags / (tags + 1))
    }

    /// Blocks of the log.
    pub(super) fn log_blocks(&self) -> u32 {
        self.last - self.first
    }

    /// The first block of fast commits, if the journal has room for them. The kernel leaves one block
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
    pub(super) fn physical(&self, block: u32) -> Result<(FsBlock, u32)> {
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
    pub(super) fn contains(&self, block: FsBlock) -> bool {
        let index = self.places.partition_point(|place| place.0 <= block);
        index.checked_sub(1).and_then(|at| self.places.get(at)).is_some_and(|p| block < p.1)
    }

    /// Reads one block of the journal.
    pub(super) fn read(&self, device: &dyn BlockDevice, block: u32, buf: &mut [u8]) -> Result<()> {
        let (physical, _) = self.physical(block)?;
        Ok(device.read_at(physical.byte(self.form.block_size), buf)?)
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
        device.write_at(physical.byte(self.form.block_size), sb.as_bytes())?;
        self.sb = sb;
        Ok(())
    }
}

pub(super) fn corrupt(structure: &'static str, position: &str, detail: String) -> Error {
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
    if to_usize(sb.s_blocksize.get()) != block_size {
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
