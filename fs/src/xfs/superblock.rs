//! The superblock: geometry, features, counters.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::num;
use super::units::{Daddr, FsBlock, Ino};
use crate::error::{Error, Result};
use crate::num::{to_u32, to_usize};

/// `XFSB`.
const XFS_SB_MAGIC: u32 = 0x5846_5342;
/// The offset of `sb_crc`.
pub(super) const SB_CRC: usize = 224;

/// Bits of `sb_versionnum`.
mod version {
    pub(super) const ATTR: u16 = 0x0010;
    pub(super) const SHARED: u16 = 0x0200;
    pub(super) const LOGV2: u16 = 0x0400;
    pub(super) const DIRV2: u16 = 0x2000;
    pub(super) const BORG: u16 = 0x4000;
    pub(super) const MOREBITS: u16 = 0x8000;
}

/// Bits of `sb_features2`.
mod features2 {
    pub(super) const FTYPE: u32 = 0x200;
}

/// Bits of `sb_features_ro_compat`.
mod ro_compat {
    pub(super) const FINOBT: u32 = 1;
    pub(super) const RMAPBT: u32 = 2;
    pub(super) const REFLINK: u32 = 4;
    pub(super) const INOBTCNT: u32 = 8;
    pub(super) const KNOWN: u32 = FINOBT | RMAPBT | REFLINK | INOBTCNT;
}

/// Bits of `sb_features_incompat`.
mod incompat {
    pub(super) const FTYPE: u32 = 0x01;
    pub(super) const SPINODES: u32 = 0x02;
    pub(super) const META_UUID: u32 = 0x04;
    pub(super) const BIGTIME: u32 = 0x08;
    pub(super) const NEEDSREPAIR: u32 = 0x10;
    pub(super) const NREXT64: u32 = 0x20;
    pub(super) const EXCHRANGE: u32 = 0x40;
    pub(super) const PARENT: u32 = 0x80;
    pub(super) const READABLE: u32 =
        FTYPE | SPINODES | META_UUID | BIGTIME | NREXT64 | EXCHRANGE | PARENT;
}

/// The names of incompatible features that are not read.
const INCOMPAT_NAMES: &[(u32, &str)] = &[
    (incompat::NEEDSREPAIR, "needsrepair"),
    (0x100, "metadir"),
    (0x200, "zoned"),
    (0x400, "zone_gaps"),
];

/// `struct xfs_dsb` as it is on disk.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct RawSuperblock {
    pub sb_magicnum: U32,
    pub sb_blocksize: U32,
    pub sb_dblocks: U64,
    pub sb_rblocks: U64,
    pub sb_rextents: U64,
    pub sb_uuid: [u8; 16],
    pub sb_logstart: U64,
    pub sb_rootino: U64,
    pub sb_rbmino: U64,
    pub sb_rsumino: U64,
    pub sb_rextsize: U32,
    pub sb_agblocks: U32,
    pub sb_agcount: U32,
    pub sb_rbmblocks: U32,
    pub sb_logblocks: U32,
    pub sb_versionnum: U16,
    pub sb_sectsize: U16,
    pub sb_inodesize: U16,
    pub sb_inopblock: U16,
    pub sb_fname: [u8; 12],
    pub sb_blocklog: u8,
    pub sb_sectlog: u8,
    pub sb_inodelog: u8,
    pub sb_inopblog: u8,
    pub sb_agblklog: u8,
    pub sb_rextslog: u8,
    pub sb_inprogress: u8,
    pub sb_imax_pct: u8,
    pub sb_icount: U64,
    pub sb_ifree: U64,
    pub sb_fdblocks: U64,
    pub sb_frextents: U64,
    pub sb_uquotino: U64,
    pub sb_gquotino: U64,
    pub sb_qflags: U16,
    pub sb_flags: u8,
    pub sb_shared_vn: u8,
    pub sb_inoalignmt: U32,
    pub sb_unit: U32,
    pub sb_width: U32,
    pub sb_dirblklog: u8,
    pub sb_logsectlog: u8,
    pub sb_logsectsize: U16,
    pub sb_logsunit: U32,
    pub sb_features2: U32,
    pub sb_bad_features2: U32,
    pub sb_features_compat: U32,
    pub sb_features_ro_compat: U32,
    pub sb_features_incompat: U32,
    pub sb_features_log_incompat: U32,
    pub sb_crc: [u8; 4],
    pub sb_spino_align: U32,
    pub sb_pquotino: U64,
    pub sb_lsn: U64,
    pub sb_meta_uuid: [u8; 16],
}

const _: () = assert!(size_of::<RawSuperblock>() == 264);

/// A superblock whose geometry was checked.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// The fields.
    pub raw: RawSuperblock,
}

fn corrupt(detail: String) -> Error {
    Error::corrupt("superblock", "sector 0", detail)
}

impl Superblock {
    /// Parses the first sector of a file system on a device of `size` bytes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for numbers that contradict each other, [`Error::Unsupported`] for
    /// features that are not read.
    pub fn parse(sector: &[u8], size: u64) -> Result<Self> {
        let Ok((raw, _)) = RawSuperblock::read_from_prefix(sector) else {
            return Err(corrupt(format!("it has only {} bytes", sector.len())));
        };
        let sb = Self { raw };
        if raw.sb_magicnum.get() != XFS_SB_MAGIC {
            return Err(corrupt("its magic number is not XFSB".into()));
        }
        let number = raw.sb_versionnum.get();
        if !matches!(number & 0xF, 4 | 5) {
            return Err(Error::unsupported(
                format!("XFS version {}", number & 0xF),
                "only versions 4 and 5 are read; the guest's kernel does not mount it either",
            ));
        }
        let length = usize::from(raw.sb_sectsize.get());
        if sb.is_v5() {
            let sealed = sector.get(..length).is_some_and(|bytes| num::is_sealed(bytes, SB_CRC));
            if !sealed {
                return Err(corrupt("its checksum is wrong".into()));
            }
        }
        sb.check_geometry(size)?;
        sb.check_features()?;
        Ok(sb)
    }

    fn check_geometry(&self, size: u64) -> Result<()> {
        let raw = &self.raw;
        let power = |value: u32, log: u8, least: u32, most: u32, name: &str| {
            if (least..=most).contains(&value) && 1u32.checked_shl(log.into()) == Some(value) {
                return Ok(());
            }
            Err(corrupt(format!("{name} is {value} and its logarithm {log}")))
        };
        power(raw.sb_blocksize.get(), raw.sb_blocklog, 512, 65_536, "sb_blocksize")?;
        power(raw.sb_sectsize.get().into(), raw.sb_sectlog, 512, 32_768, "sb_sectsize")?;
        power(raw.sb_inodesize.get().into(), raw.sb_inodelog, 256, 2048, "sb_inodesize")?;
        power(raw.sb_inopblock.get().into(), raw.sb_inopblog, 1, 256, "sb_inopblock")?;
        let block = raw.sb_blocksize.get();
        let per_block = block / u32::from(raw.sb_inodesize.get());
        if u32::from(raw.sb_inopblock.get()) != per_block || per_block < 1 {
            return Err(corrupt(format!(
                "sb_inopblock is {}, a block has room for {per_block}",
                raw.sb_inopblock
            )));
        }
        if u32::from(raw.sb_sectsize.get()) > block {
            return Err(corrupt("sectors are larger than blocks".into()));
        }
        if self.is_v5() && raw.sb_inodesize.get() < 512 {
            return Err(corrupt("inodes of version 5 have 512 bytes at least".into()));
        }
        let (agblocks, agcount) = (raw.sb_agblocks.get(), raw.sb_agcount.get());
        let blocks = raw.sb_dblocks.get();
        if agblocks < 64
            || u32::from(raw.sb_agblklog) > 31
            || agblocks > 1 << raw.sb_agblklog
            || agblocks <= 1 << raw.sb_agblklog.saturating_sub(1)
        {
            return Err(corrupt(format!(
                "sb_agblocks is {agblocks} and sb_agblklog {}",
                raw.sb_agblklog
            )));
        }
        let most = u64::from(agblocks) * u64::from(agcount);
        if agcount == 0 || blocks > most || blocks <= most - u64::from(agblocks) {
            return Err(corrupt(format!(
                "{blocks} blocks do not make {agcount} groups of {agblocks}"
            )));
        }
        let need = blocks.checked_mul(block.into());
        if need.is_none_or(|need| need > size) {
            return Err(corrupt(format!(
                "it has {blocks} blocks of {block} bytes, the device has {size} bytes"
            )));
        }
        if u32::from(raw.sb_dirblklog) + u32::from(raw.sb_blocklog) > 16 {
            return Err(corrupt(format!("sb_dirblklog is {}", raw.sb_dirblklog)));
        }
        if raw.sb_inprogress != 0 {
            return Err(corrupt("mkfs.xfs did not finish (sb_inprogress)".into()));
        }
        if !self.is_inode(self.root()) {
            return Err(corrupt(format!("sb_rootino is {}", raw.sb_rootino)));
        }
        Ok(())
    }

    fn check_features(&self) -> Result<()> {
        let raw = &self.raw;
        let refuse =
            |what: &str| Err(Error::unsupported(what.to_owned(), "edit it from within the guest"));
        let number = raw.sb_versionnum.get();
        if number & version::DIRV2 == 0 {
            return refuse("an XFS without version 2 directories");
        }
        if number & version::SHARED != 0 {
            return refuse("the XFS feature shared");
        }
        if raw.sb_rblocks.get() != 0 || raw.sb_rextents.get() != 0 {
            return refuse("an XFS with a real-time device");
        }
        if self.is_v5() {
            let bits = raw.sb_features_incompat.get() & !incompat::READABLE;
            if bits & incompat::NEEDSREPAIR != 0 {
                return Err(Error::unsupported(
                    "an XFS that waits for a repair (needsrepair)",
                    "run xfs_repair on it first",
                ));
            }
            if bits != 0 {
                let known = INCOMPAT_NAMES.iter().find(|(bit, _)| bits & bit != 0);
                let name = known
                    .map_or_else(|| format!("incompat bits {bits:#x}"), |(_, n)| (*n).to_owned());
                return refuse(&format!("the XFS feature {name}"));
            }
        }
        Ok(())
    }

    /// Why the file system cannot be changed; `None` when it can.
    pub fn why_read_only(&self) -> Option<String> {
        let raw = &self.raw;
        if !self.is_v5() {
            return Some("it is XFS version 4, without checksums, which is only read".into());
        }
        let odd = raw.sb_features_ro_compat.get() & !ro_compat::KNOWN;
        if odd != 0 {
            return Some(format!("it has unknown ro_compat features ({odd:#x})"));
        }
        if raw.sb_features_incompat.get() & incompat::PARENT != 0 {
            return Some("it has parent pointers (the feature parent), which are only read".into());
        }
        if raw.sb_features_log_incompat.get() & !1 != 0 {
            return Some(format!(
                "it has unknown log features ({:#x})",
                raw.sb_features_log_incompat
            ));
        }
        if self.is_case_blind() {
            return Some("it ignores the case of names (ascii-ci), which is only read".into());
        }
        if raw.sb_logstart.get() == 0 {
            return Some("its log is on another device".into());
        }
        if raw.sb_logsunit.get() > 32_768 {
            return Some(format!("its log has a stripe unit of {} bytes", raw.sb_logsunit));
        }
        None
    }

    /// The first sector, with the checksum.
    pub fn write_to(&self, sector: &mut [u8]) {
        let bytes = self.raw.as_bytes();
        // The bytes after the known fields of version 4 do not belong to it.
        let length = if self.is_v5() { bytes.len() } else { 208 };
        num::put(sector, 0, &bytes[..length]);
        if self.is_v5() {
            num::seal(sector, SB_CRC);
        }
    }

    /// Whether it is version 5: checksums everywhere.
    pub fn is_v5(&self) -> bool {
        self.raw.sb_versionnum.get() & 0xF == 5
    }
    fn ro(&self, bit: u32) -> bool {
        self.is_v5() && self.raw.sb_features_ro_compat.get() & bit != 0
    }
    fn in_compat(&self, bit: u32) -> bool {
        self.is_v5() && self.raw.sb_features_incompat.get() & bit != 0
    }
    /// Whether free inodes have a tree of their own.
    pub fn has_finobt(&self) -> bool {
        self.ro(ro_compat::FINOBT)
    }
    /// Whether there is a tree of the owners of blocks.
    pub fn has_rmapbt(&self) -> bool {
        self.ro(ro_compat::RMAPBT)
    }
    /// Whether files may share blocks.
    pub fn has_reflink(&self) -> bool {
        self.ro(ro_compat::REFLINK)
    }
    /// Whether the blocks of inode trees are counted.
    pub fn has_inobtcount(&self) -> bool {
        self.ro(ro_compat::INOBTCNT)
    }
    /// Whether times reach until 2486.
    pub fn has_bigtime(&self) -> bool {
        self.in_compat(incompat::BIGTIME)
    }
    /// Whether counts of extents have 64 bits.
    pub fn has_nrext64(&self) -> bool {
        self.in_compat(incompat::NREXT64)
    }
    /// Whether chunks of inodes may have holes.
    pub fn has_sparse_inodes(&self) -> bool {
        self.in_compat(incompat::SPINODES)
    }
    /// Whether entries of directories say what they name.
    pub fn has_ftype(&self) -> bool {
        let raw = &self.raw;
        if self.is_v5() {
            return self.in_compat(incompat::FTYPE);
        }
        raw.sb_versionnum.get() & version::MOREBITS != 0
            && raw.sb_features2.get() & features2::FTYPE != 0
    }
    /// Whether names that differ by case only are one name.
    pub fn is_case_blind(&self) -> bool {
        self.raw.sb_versionnum.get() & version::BORG != 0
    }
    /// Whether the log has records of version 2.
    pub fn has_log_v2(&self) -> bool {
        self.is_v5() || self.raw.sb_versionnum.get() & version::LOGV2 != 0
    }
    /// Notes that there are attributes.
    pub fn set_attr(&mut self) {
        self.raw.sb_versionnum = U16::new(self.raw.sb_versionnum.get() | version::ATTR);
    }

    /// The UUID in the headers of metadata.
    pub fn meta_uuid(&self) -> [u8; 16] {
        if self.in_compat(incompat::META_UUID) { self.raw.sb_meta_uuid } else { self.raw.sb_uuid }
    }
    /// Bytes in a block.
    pub fn block_size(&self) -> usize {
        to_usize(self.raw.sb_blocksize.get())
    }
    /// Bytes in a sector.
    pub fn sector_size(&self) -> usize {
        usize::from(self.raw.sb_sectsize.get())
    }
    /// Bytes in an inode.
    pub fn inode_size(&self) -> usize {
        usize::from(self.raw.sb_inodesize.get())
    }
    /// Inodes in a block.
    pub fn inodes_per_block(&self) -> u32 {
        self.raw.sb_inopblock.get().into()
    }
    /// Blocks in a block of a directory.
    pub fn dir_blocks(&self) -> u32 {
        1 << self.raw.sb_dirblklog
    }
    /// Bytes in a block of a directory.
    pub fn dir_block_size(&self) -> usize {
        self.block_size() << self.raw.sb_dirblklog
    }
    /// Blocks of the file system.
    pub fn blocks(&self) -> u64 {
        self.raw.sb_dblocks.get()
    }
    /// Allocation groups.
    pub fn ag_count(&self) -> u32 {
        self.raw.sb_agcount.get()
    }
    /// Blocks of group `ag`.
    pub fn ag_length(&self, ag: u32) -> u32 {
        let full = u64::from(self.raw.sb_agblocks.get());
        let left = self.blocks().saturating_sub(u64::from(ag) * full);
        to_u32(left.min(full))
    }
    /// The root directory.
    pub fn root(&self) -> Ino {
        Ino(self.raw.sb_rootino.get())
    }

    /// Group and block in it.
    pub fn split(&self, block: FsBlock) -> (u32, u32) {
        let log = self.raw.sb_agblklog;
        (to_u32((block.0 >> log).min(u32::MAX.into())), to_u32(block.0 & ((1 << log) - 1)))
    }
    /// The block from group and block in it.
    pub fn join(&self, ag: u32, block: u32) -> FsBlock {
        FsBlock(u64::from(ag) << self.raw.sb_agblklog | u64::from(block))
    }
    /// Whether `count` blocks from this one on are in one group, after its headers.
    pub fn is_range(&self, block: FsBlock, count: u64) -> bool {
        let (ag, first) = self.split(block);
        ag < self.ag_count()
            && count > 0
            && first > 0
            && u64::from(first)
                .checked_add(count)
                .is_some_and(|end| end <= self.ag_length(ag).into())
    }
    /// The place of a block on the device.
    pub fn daddr(&self, block: FsBlock) -> Daddr {
        let (ag, first) = self.split(block);
        let linear = u64::from(ag) * u64::from(self.raw.sb_agblocks.get()) + u64::from(first);
        Daddr(linear << (self.raw.sb_blocklog - 9))
    }
    /// The place of sector `index` (0: superblock, 1: AGF, 2: AGI, 3: AGFL) of a group.
    pub fn ag_sector(&self, ag: u32, index: u64) -> Daddr {
        let start = u64::from(ag) * u64::from(self.raw.sb_agblocks.get());
        Daddr((start << (self.raw.sb_blocklog - 9)) + (index << (self.raw.sb_sectlog - 9)))
    }

    /// Bits of an inode number within its group.
    fn ino_bits(&self) -> u32 {
        u32::from(self.raw.sb_agblklog) + u32::from(self.raw.sb_inopblog)
    }
    /// Group of an inode, and its number in the group.
    pub fn split_ino(&self, ino: Ino) -> (u32, u32) {
        let bits = self.ino_bits();
        (to_u32((ino.0 >> bits).min(u32::MAX.into())), to_u32(ino.0 & ((1 << bits) - 1)))
    }
    /// The inode from its group and its number in it.
    pub fn join_ino(&self, ag: u32, number: u32) -> Ino {
        Ino(u64::from(ag) << self.ino_bits() | u64::from(number))
    }
    /// The block that holds an inode, and the byte in it.
    pub fn inode_place(&self, ino: Ino) -> (FsBlock, usize) {
        let (ag, number) = self.split_ino(ino);
        let block = self.join(ag, number >> self.raw.sb_inopblog);
        (block, to_usize(number & (self.inodes_per_block() - 1)) * self.inode_size())
    }
    /// Whether there can be an inode of this number.
    pub fn is_inode(&self, ino: Ino) -> bool {
        let (ag, number) = self.split_ino(ino);
        ag < self.ag_count() && {
            let block = number >> self.raw.sb_inopblog;
            block > 0 && block < self.ag_length(ag)
        }
    }
    /// The label.
    pub fn label(&self) -> &[u8] {
        let name = &self.raw.sb_fname;
        &name[..name.iter().position(|&byte| byte == 0).unwrap_or(name.len())]
    }
}
