//! Enlarging, offline: the last group gets longer, new groups come after it.
//!
//! Everything of the new space is written to its place before the log says that it is there; the log has
//! the last old group, and all superblocks of old groups: from these xfs_repair would take the old size
//! as a majority.

use zerocopy::byteorder::big_endian::U32;
use zerocopy::{FromZeros, IntoBytes};

use super::ag::{AGF_CRC, AGFL_CRC, AGFL_HEADER, AGI_CRC, Agf, Agi};
use super::ag::{XFS_AGF_MAGIC, XFS_AGFL_MAGIC, XFS_AGI_MAGIC};
use super::btree::Tree;
use super::free::Owner;
use super::num;
use super::store::BufferType;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u32, to_u64, to_usize};

/// No group is shorter (`XFS_MIN_AG_BLOCKS`).
const MIN_AG_BLOCKS: u64 = 64;
const NULL: u32 = u32::MAX;

/// The blocks of a new group's trees.
struct Layout {
    bno: u32,
    cnt: u32,
    ino: u32,
    fino: Option<u32>,
    rmap: Option<u32>,
    refc: Option<u32>,
    /// The first free one.
    end: u32,
}

impl Volume {
    fn new_group_layout(&self) -> Layout {
        // The list of free blocks is in the fourth sector.
        let bno = to_u32(3 * self.sb.sector_size() / self.sb.block_size()) + 1;
        let mut end = bno + 3;
        let mut next = |there: bool| {
            there.then(|| {
                end += 1;
                end - 1
            })
        };
        let fino = next(self.sb.has_finobt());
        let rmap = next(self.sb.has_rmapbt());
        let refc = next(self.sb.has_reflink());
        Layout { bno, cnt: bno + 1, ino: bno + 2, fino, rmap, refc, end }
    }

    /// Enlarges the file system to `size` bytes, as far as groups can be made of them. Gives its size.
    pub(super) fn grow(&mut self, size: u64) -> Result<u64> {
        let bs = to_u64(self.sb.block_size());
        let per_group = u64::from(self.sb.raw.sb_agblocks.get());
        let old = self.sb.blocks();
        let mut blocks = size.min(self.store.device().len()) / bs;
        if blocks % per_group < MIN_AG_BLOCKS {
            blocks -= blocks % per_group;
        }
        if blocks <= old {
            return Ok(old * bs);
        }
        let groups = u32::try_from(blocks.div_ceil(per_group)).ok();
        let Some(groups) = groups.filter(|groups| *groups < 1 << 24) else {
            return Err(Error::NoSpace(format!(
                "{blocks} blocks are more than groups can be made of"
            )));
        };
        let first_new = self.sb.ag_count();
        let last = first_new - 1;
        let (agf, agi) = (self.agf(last)?, self.agi(last)?);
        let was = self.sb.ag_length(last);
        self.grown_from.get_or_insert(first_new);
        self.sb.raw.sb_dblocks.set(blocks);
        self.sb.raw.sb_agcount.set(groups);
        let length = self.sb.ag_length(last);
        if length > was {
            let start = self.sb.daddr(self.sb.join(last, was)).0;
            let end = self.sb.daddr(self.sb.join(last, length - 1)).0 + bs / 512;
            self.store.set_fresh(start..end);
            self.put_agf(last, &Agf { agf_length: U32::new(length), ..agf })?;
            self.put_agi(last, &Agi { agi_length: U32::new(length), ..agi })?;
            self.fix_list(last)?;
            self.give_space(last, was, length - was)?;
        }
        for ag in first_new..groups {
            self.make_group(ag)?;
        }
        Ok(blocks * bs)
    }

    /// Makes an empty group.
    fn make_group(&mut self, ag: u32) -> Result<()> {
        let layout = self.new_group_layout();
        let length = self.sb.ag_length(ag);
        let start = self.sb.ag_sector(ag, 0).0;
        let end = self.sb.daddr(self.sb.join(ag, length - 1)).0;
        self.store.set_fresh(start..end + to_u64(self.sb.block_size() / 512));
        let free = length - layout.end;
        let uuid = self.sb.meta_uuid();
        let mut agf = Agf::new_zeroed();
        agf.agf_magicnum.set(XFS_AGF_MAGIC);
        agf.agf_versionnum.set(1);
        agf.agf_seqno.set(ag);
        agf.agf_length.set(length);
        agf.agf_roots[0].set(layout.bno);
        agf.agf_roots[1].set(layout.cnt);
        agf.agf_levels[0].set(1);
        agf.agf_levels[1].set(1);
        agf.agf_flfirst.set(1);
        agf.agf_freeblks.set(free);
        agf.agf_longest.set(free);
        agf.agf_uuid = uuid;
        if let Some(rmap) = layout.rmap {
            agf.agf_roots[2].set(rmap);
            agf.agf_levels[2].set(1);
            agf.agf_rmap_blocks.set(1);
        }
        if let Some(refc) = layout.refc {
            agf.agf_refcount_root.set(refc);
            agf.agf_refcount_level.set(1);
            agf.agf_refcount_blocks.set(1);
        }
        let mut agi = Agi::new_zeroed();
        agi.agi_magicnum.set(XFS_AGI_MAGIC);
        agi.agi_versionnum.set(1);
        agi.agi_seqno.set(ag);
        agi.agi_length.set(length);
        agi.agi_root.set(layout.ino);
        agi.agi_level.set(1);
        agi.agi_newino.set(NULL);
        agi.agi_dirino.set(NULL);
        agi.agi_unlinked = [U32::new(NULL); 64];
        agi.agi_uuid = uuid;
        if let Some(fino) = layout.fino {
            agi.agi_free_root.set(fino);
            agi.agi_free_level.set(1);
        }
        if self.sb.has_inobtcount() {
            agi.agi_iblocks.set(1);
            agi.agi_fblocks.set(u32::from(layout.fino.is_some()));
        }
        let sector = vec![0; self.sb.sector_size()];
        let mut list = sector.clone();
        num::put32(&mut list, 0, XFS_AGFL_MAGIC);
        num::put32(&mut list, 4, ag);
        num::put(&mut list, 8, &uuid);
        let slots = to_usize(self.agfl_slots());
        num::put(&mut list, AGFL_HEADER, &vec![0xFF; slots * 4]);
        num::seal(&mut list, AGFL_CRC);
        for (index, kind, head, crc) in [
            (1, BufferType::Agf, agf.as_bytes(), Some(AGF_CRC)),
            (2, BufferType::Agi, agi.as_bytes(), Some(AGI_CRC)),
            (3, BufferType::Agfl, &list[..], None),
        ] {
            let mut bytes = sector.clone();
            num::put(&mut bytes, 0, head);
            if let Some(crc) = crc {
                num::seal(&mut bytes, crc);
            }
            self.store.write(self.sb.ag_sector(ag, index), kind, bytes);
        }
        let mut all = [0; 24];
        num::put32(&mut all, 0, layout.end);
        num::put32(&mut all, 4, free);
        self.new_root(ag, Tree::Bno, layout.bno, &[all]);
        self.new_root(ag, Tree::Cnt, layout.cnt, &[all]);
        self.new_root(ag, Tree::Ino, layout.ino, &[]);
        if let Some(fino) = layout.fino {
            self.new_root(ag, Tree::Fino, fino, &[]);
        }
        if let Some(refc) = layout.refc {
            self.new_root(ag, Tree::Refc, refc, &[]);
        }
        if let Some(rmap) = layout.rmap {
            self.new_root(ag, Tree::Rmap, rmap, &[]);
            let inodes = 1 + u32::from(layout.fino.is_some());
            self.add_owner(ag, layout.bno, 2, Owner::AG)?;
            self.add_owner(ag, layout.ino, inodes, Owner::INOBT)?;
            self.add_owner(ag, rmap, 1, Owner::AG)?;
            if let Some(refc) = layout.refc {
                self.add_owner(ag, refc, 1, Owner::REFC)?;
            }
            self.add_owner(ag, 0, layout.bno, Owner::FS)?;
        }
        Ok(())
    }

    /// Copies the superblock to all groups, after the file system grew.
    pub(super) fn copy_superblocks(&mut self) -> Result<()> {
        let bytes = self.store.read(super::units::Daddr(0), self.sb.sector_size(), |_| Ok(()))?;
        for ag in 1..self.sb.ag_count() {
            let at = self.sb.ag_sector(ag, 0);
            self.store.write(at, BufferType::Superblock, bytes.to_vec());
        }
        Ok(())
    }
}
