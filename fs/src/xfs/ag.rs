//! The headers of an allocation group: free space (AGF), inodes (AGI), and the list of blocks that
//! is kept for the trees of free space (AGFL).

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::num;
use super::store::{BufferType, Bytes};
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u32, to_usize};

pub(super) const XFS_AGF_MAGIC: u32 = 0x5841_4746;
pub(super) const XFS_AGI_MAGIC: u32 = 0x5841_4749;
pub(super) const XFS_AGFL_MAGIC: u32 = 0x5841_464C;
pub(super) const AGF_CRC: usize = 216;
pub(super) const AGI_CRC: usize = 312;
pub(super) const AGFL_CRC: usize = 32;
/// Bytes before the block numbers of a list with a header.
pub(super) const AGFL_HEADER: usize = 36;
/// No tree has more levels (`XFS_BTREE_MAXLEVELS`).
pub(super) const MAX_LEVELS: u32 = 9;

/// `struct xfs_agf`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Agf {
    pub agf_magicnum: U32,
    pub agf_versionnum: U32,
    pub agf_seqno: U32,
    pub agf_length: U32,
    /// Of the trees by block, by size, and of owners.
    pub agf_roots: [U32; 3],
    pub agf_levels: [U32; 3],
    pub agf_flfirst: U32,
    pub agf_fllast: U32,
    pub agf_flcount: U32,
    pub agf_freeblks: U32,
    pub agf_longest: U32,
    pub agf_btreeblks: U32,
    pub agf_uuid: [u8; 16],
    pub agf_rmap_blocks: U32,
    pub agf_refcount_blocks: U32,
    pub agf_refcount_root: U32,
    pub agf_refcount_level: U32,
    pub agf_spare64: [U64; 14],
    pub agf_lsn: U64,
    pub agf_crc: [u8; 4],
    pub agf_spare2: U32,
}

/// `struct xfs_agi`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Agi {
    pub agi_magicnum: U32,
    pub agi_versionnum: U32,
    pub agi_seqno: U32,
    pub agi_length: U32,
    pub agi_count: U32,
    pub agi_root: U32,
    pub agi_level: U32,
    pub agi_freecount: U32,
    pub agi_newino: U32,
    pub agi_dirino: U32,
    pub agi_unlinked: [U32; 64],
    pub agi_uuid: [u8; 16],
    pub agi_crc: [u8; 4],
    pub agi_pad32: U32,
    pub agi_lsn: U64,
    pub agi_free_root: U32,
    pub agi_free_level: U32,
    pub agi_iblocks: U32,
    pub agi_fblocks: U32,
}

const _: () = assert!(size_of::<Agf>() == 224);
const _: () = assert!(size_of::<Agi>() == 344);

/// An error about a header of group `ag`.
fn corrupt(structure: &'static str, ag: u32, detail: impl Into<String>) -> Error {
    Error::corrupt(structure, format!("group {ag}"), detail)
}

impl Volume {
    /// Reads a header of a group.
    fn header(
        &self,
        structure: &'static str,
        ag: u32,
        index: u64,
        magic: u32,
        seqno: usize,
        uuid: usize,
        crc: usize,
    ) -> Result<Bytes> {
        if ag >= self.sb.ag_count() {
            return Err(corrupt(structure, ag, format!("there are {} groups", self.sb.ag_count())));
        }
        let length = self.sb.sector_size();
        self.store.read(self.sb.ag_sector(ag, index), length, |bytes| {
            if num::be32(bytes, 0) != magic {
                return Err(corrupt(structure, ag, "its magic number is wrong"));
            }
            if num::be32(bytes, seqno) != ag {
                return Err(corrupt(structure, ag, "it belongs to another group"));
            }
            if self.sb.is_v5() {
                if bytes.get(uuid..uuid + 16) != Some(&self.sb.meta_uuid()) {
                    return Err(corrupt(structure, ag, "it has the UUID of another file system"));
                }
                if !num::is_sealed(bytes, crc) {
                    return Err(corrupt(structure, ag, "its checksum is wrong"));
                }
            }
            Ok(())
        })
    }

    /// The header of free space.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub fn agf(&self, ag: u32) -> Result<Agf> {
        let bytes = self.header("AGF", ag, 1, XFS_AGF_MAGIC, 8, 64, AGF_CRC)?;
        let wrong = |detail: &str| corrupt("AGF", ag, detail);
        let (agf, _) = Agf::read_from_prefix(&bytes).map_err(|_| wrong("it is too short"))?;
        let length = self.sb.ag_length(ag);
        if agf.agf_length.get() != length {
            return Err(wrong("agf_length is not that of the group"));
        }
        let trees = if self.sb.has_rmapbt() { 3 } else { 2 };
        let mut roots: Vec<(u32, u32)> = (0..trees)
            .map(|tree| (agf.agf_roots[tree].get(), agf.agf_levels[tree].get()))
            .collect();
        if self.sb.has_reflink() {
            roots.push((agf.agf_refcount_root.get(), agf.agf_refcount_level.get()));
        }
        for (root, levels) in roots {
            if root == 0 || root >= length || levels == 0 || levels > MAX_LEVELS {
                return Err(wrong("a root or its level is impossible"));
            }
        }
        let slots = self.agfl_slots();
        let (first, last) = (agf.agf_flfirst.get(), agf.agf_fllast.get());
        let count = agf.agf_flcount.get();
        let span = if count == 0 { 0 } else { (last + slots - first.min(slots)) % slots + 1 };
        if first >= slots || last >= slots || count > slots || (count > 0 && span != count) {
            return Err(wrong("the places of the list of free blocks do not fit its count"));
        }
        if agf.agf_freeblks.get() > length || agf.agf_longest.get() > agf.agf_freeblks.get() {
            return Err(wrong("its counts of free blocks are impossible"));
        }
        Ok(agf)
    }

    /// Changes the header of free space.
    ///
    /// # Errors
    /// As [`Volume::agf`].
    pub fn change_agf(&mut self, ag: u32, change: impl FnOnce(&mut Agf)) -> Result<()> {
        let mut agf = self.agf(ag)?;
        change(&mut agf);
        self.put_agf(ag, &agf)
    }

    /// Writes the header of free space.
    pub(super) fn put_agf(&mut self, ag: u32, agf: &Agf) -> Result<()> {
        let at = self.sb.ag_sector(ag, 1);
        let mut bytes = self.store.read(at, self.sb.sector_size(), |_| Ok(()))?.to_vec();
        num::put(&mut bytes, 0, agf.as_bytes());
        num::seal(&mut bytes, AGF_CRC);
        self.store.write(at, BufferType::Agf, bytes);
        Ok(())
    }

    /// The header of inodes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub fn agi(&self, ag: u32) -> Result<Agi> {
        let bytes = self.header("AGI", ag, 2, XFS_AGI_MAGIC, 8, 296, AGI_CRC)?;
        let wrong = |detail: &str| corrupt("AGI", ag, detail);
        let (agi, _) = Agi::read_from_prefix(&bytes).map_err(|_| wrong("it is too short"))?;
        let length = self.sb.ag_length(ag);
        if agi.agi_length.get() != length {
            return Err(wrong("agi_length is not that of the group"));
        }
        let impossible =
            |root: u32, level: u32| root == 0 || root >= length || level == 0 || level > MAX_LEVELS;
        if impossible(agi.agi_root.get(), agi.agi_level.get())
            || self.sb.has_finobt() && impossible(agi.agi_free_root.get(), agi.agi_free_level.get())
        {
            return Err(wrong("a root or its level is impossible"));
        }
        if agi.agi_freecount.get() > agi.agi_count.get() {
            return Err(wrong("it has more free inodes than inodes"));
        }
        Ok(agi)
    }

    /// Changes the header of inodes.
    ///
    /// # Errors
    /// As [`Volume::agi`].
    pub fn change_agi(&mut self, ag: u32, change: impl FnOnce(&mut Agi)) -> Result<()> {
        let mut agi = self.agi(ag)?;
        change(&mut agi);
        self.put_agi(ag, &agi)
    }

    /// Writes the header of inodes.
    pub(super) fn put_agi(&mut self, ag: u32, agi: &Agi) -> Result<()> {
        let at = self.sb.ag_sector(ag, 2);
        let mut bytes = self.store.read(at, self.sb.sector_size(), |_| Ok(()))?.to_vec();
        num::put(&mut bytes, 0, agi.as_bytes());
        num::seal(&mut bytes, AGI_CRC);
        self.store.write(at, BufferType::Agi, bytes);
        Ok(())
    }

    /// How many block numbers the list of a group has room for.
    pub fn agfl_slots(&self) -> u32 {
        to_u32((self.sb.sector_size() - self.agfl_head()) / 4)
    }

    fn agfl_head(&self) -> usize {
        if self.sb.is_v5() { AGFL_HEADER } else { 0 }
    }

    fn agfl(&self, ag: u32) -> Result<Bytes> {
        if !self.sb.is_v5() {
            // Version 4 has no header there.
            return self.store.read(self.sb.ag_sector(ag, 3), self.sb.sector_size(), |_| Ok(()));
        }
        self.header("AGFL", ag, 3, XFS_AGFL_MAGIC, 4, 8, AGFL_CRC)
    }

    /// Takes a block from the list.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when it is empty.
    pub fn agfl_take(&mut self, ag: u32) -> Result<u32> {
        let agf = self.agf(ag)?;
        if agf.agf_flcount.get() == 0 {
            return Err(Error::NoSpace(format!("the free list of allocation group {ag} is empty")));
        }
        let (slots, first) = (self.agfl_slots(), agf.agf_flfirst.get());
        let block = num::be32(&self.agfl(ag)?, self.agfl_head() + to_usize(first) * 4);
        self.check_ag_block("AGFL", ag, block)?;
        self.change_agf(ag, |agf| {
            agf.agf_flfirst = U32::new((first + 1) % slots);
            agf.agf_flcount = U32::new(agf.agf_flcount.get() - 1);
        })?;
        Ok(block)
    }

    /// Puts a block on the list.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when it is full.
    pub fn agfl_give(&mut self, ag: u32, block: u32) -> Result<()> {
        let agf = self.agf(ag)?;
        let slots = self.agfl_slots();
        if agf.agf_flcount.get() >= slots {
            return Err(Error::NoSpace(format!("the free list of allocation group {ag} is full")));
        }
        let last = (agf.agf_fllast.get() + 1) % slots;
        let mut bytes = self.agfl(ag)?.to_vec();
        num::put32(&mut bytes, self.agfl_head() + to_usize(last) * 4, block);
        num::seal(&mut bytes, AGFL_CRC);
        let at = self.sb.ag_sector(ag, 3);
        self.store.write(at, BufferType::Agfl, bytes);
        self.change_agf(ag, |agf| {
            agf.agf_fllast = U32::new(last);
            agf.agf_flcount = U32::new(agf.agf_flcount.get() + 1);
        })
    }

    /// A block number from a structure of group `ag` must be after the group's headers.
    pub(super) fn check_ag_block(&self, what: &'static str, ag: u32, block: u32) -> Result<()> {
        // The superblock, AGF, AGI and AGFL take four sectors.
        let headers = to_u32((4 * self.sb.sector_size()).div_ceil(self.sb.block_size()));
        if block >= headers && block < self.sb.ag_length(ag) {
            return Ok(());
        }
        Err(corrupt(what, ag, format!("it names block {block} of the group")))
    }
}
