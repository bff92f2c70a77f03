//! Inodes: the fixed part, the extra part, and the room after them for xattrs.
//!
//! Source: the kernel's Documentation/filesystems/ext4/inodes.rst.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::checksum::crc32c;
use super::superblock::{Superblock, ro_compat};
use super::units::{FsBlock, Ino};
use crate::error::{Error, Result};
use crate::filesystem::{FileType, Timestamp};
use crate::num::{low16, low32, to_u16, to_usize};

/// The first 160 bytes of an inode: the 128 of ext2, and what ext4 adds. A 128-byte inode has
/// zeros in the second part, and they are not written.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)] // the names are the specification's
pub struct RawInode {
    pub i_mode: U16,
    pub i_uid: U16,
    pub i_size_lo: U32,
    pub i_atime: U32,
    pub i_ctime: U32,
    pub i_mtime: U32,
    pub i_dtime: U32,
    pub i_gid: U16,
    pub i_links_count: U16,
    pub i_blocks_lo: U32,
    pub i_flags: U32,
    pub i_version_lo: U32,
    pub i_block: [u8; 60],
    pub i_generation: U32,
    pub i_file_acl_lo: U32,
    pub i_size_high: U32,
    pub i_obso_faddr: U32,
    pub i_blocks_high: U16,
    pub i_file_acl_high: U16,
    pub i_uid_high: U16,
    pub i_gid_high: U16,
    pub i_checksum_lo: U16,
    pub i_reserved: U16,
    pub i_extra_isize: U16,
    pub i_checksum_hi: U16,
    pub i_ctime_extra: U32,
    pub i_mtime_extra: U32,
    pub i_atime_extra: U32,
    pub i_crtime: U32,
    pub i_crtime_extra: U32,
    pub i_version_hi: U32,
    pub i_projid: U32,
}

/// Bytes of an inode that every revision has.
pub const GOOD_OLD_INODE_SIZE: usize = 128;
const RAW_SIZE: usize = size_of::<RawInode>();
const _: () = assert!(RAW_SIZE == 160);

/// `i_mode` type bits.
pub const S_IFMT: u16 = 0xF000;
/// `i_flags` bits.
#[allow(missing_docs)]
pub mod flags {
    pub const SECRM: u32 = 0x1;
    pub const UNRM: u32 = 0x2;
    pub const COMPR: u32 = 0x4;
    pub const SYNC: u32 = 0x8;
    pub const NODUMP: u32 = 0x40;
    pub const NOATIME: u32 = 0x80;
    pub const NOCOMPR: u32 = 0x400;
    pub const ENCRYPT: u32 = 0x800;
    pub const INDEX: u32 = 0x1000;
    pub const JOURNAL_DATA: u32 = 0x4000;
    pub const NOTAIL: u32 = 0x8000;
    pub const DIRSYNC: u32 = 0x1_0000;
    pub const HUGE_FILE: u32 = 0x4_0000;
    pub const EXTENTS: u32 = 0x8_0000;
    pub const VERITY: u32 = 0x10_0000;
    pub const EA_INODE: u32 = 0x20_0000;
    pub const DAX: u32 = 0x200_0000;
    pub const INLINE_DATA: u32 = 0x1000_0000;
    pub const PROJINHERIT: u32 = 0x2000_0000;
    pub const CASEFOLD: u32 = 0x4000_0000;
}

/// Inode number of the root directory.
pub const ROOT_INO: Ino = Ino::new(2);

/// One inode in memory.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number, from 1.
    pub ino: Ino,
    /// The fields as they are on disk.
    pub raw: RawInode,
    /// Everything from byte 128 + `i_extra_isize` to the end of the inode: in-inode xattrs.
    /// Empty for 128-byte inodes.
    pub tail: Vec<u8>,
    /// Extra bytes between 160 and 128 + `i_extra_isize` that a later format may define; kept.
    unknown: Vec<u8>,
    /// Inode size on disk.
    size: usize,
}

impl Inode {
    /// Parses the `s_inode_size` bytes of inode `ino` and verifies their checksum.
    pub fn parse(bytes: &[u8], ino: Ino, sb: &Superblock) -> Result<Self> {
        let corrupt = |detail: String| Error::corrupt("inode", format!("inode {ino}"), detail);
        let size = to_usize(sb.inode_size());
        if bytes.len() != size || size < GOOD_OLD_INODE_SIZE {
            return Err(corrupt(format!("{} bytes, {size} expected", bytes.len())));
        }
        let mut buf = [0u8; RAW_SIZE];
        let mut tail = Vec::new();
        let mut unknown = Vec::new();
        buf[..GOOD_OLD_INODE_SIZE].copy_from_slice(&bytes[..GOOD_OLD_INODE_SIZE]);
        if size > GOOD_OLD_INODE_SIZE {
            let extra = usize::from(u16::from_le_bytes([bytes[128], bytes[129]]));
            // An inode that was never used is all zeros; the kernel takes that as extra size 0.
            if extra > size - GOOD_OLD_INODE_SIZE || extra % 4 != 0 {
                return Err(corrupt(format!("i_extra_isize is {extra}")));
            }
            let end = GOOD_OLD_INODE_SIZE + extra;
            let known = end.clamp(GOOD_OLD_INODE_SIZE, RAW_SIZE);
            buf[GOOD_OLD_INODE_SIZE..known].copy_from_slice(&bytes[GOOD_OLD_INODE_SIZE..known]);
            unknown = bytes[known..end].to_vec();
            tail = bytes[end..].to_vec();
        }
        let raw =
            RawInode::read_from_bytes(&buf).map_err(|_| corrupt("cannot be parsed".to_owned()))?;
        let inode = Self { ino, raw, tail, unknown, size };
        if sb.has_metadata_csum() && bytes.iter().any(|&byte| byte != 0) {
            let expected = inode.checksum(bytes, sb);
            let mut found = u32::from(inode.raw.i_checksum_lo.get());
            let mut mask = 0xFFFF;
            if inode.has_checksum_hi() {
                found |= u32::from(inode.raw.i_checksum_hi.get()) << 16;
                mask = !0;
            }
            if found != expected & mask {
                return Err(corrupt(format!(
                    "i_checksum is {found:#010x}, {:#010x} expected",
                    expected & mask
                )));
            }
        }
        Ok(inode)
    }

    /// A zeroed inode of the file system's inode size, with `i_extra_isize` as new inodes have it.
    pub fn new(ino: Ino, sb: &Superblock) -> Self {
        let size = to_usize(sb.inode_size());
        let mut raw = RawInode::new_zeroed();
        let mut tail = Vec::new();
        let mut unknown = Vec::new();
        if size > GOOD_OLD_INODE_SIZE {
            let room = size - GOOD_OLD_INODE_SIZE;
            let known = RAW_SIZE - GOOD_OLD_INODE_SIZE;
            let want = usize::from(sb.raw.s_want_extra_isize.get());
            let extra =
                if sb.has_ro_compat(ro_compat::EXTRA_ISIZE) && want % 4 == 0 && want >= known {
                    want
                } else {
                    known
                }
                .min(room);
            raw.i_extra_isize = U16::new(to_u16(extra));
            unknown = vec![0; extra.saturating_sub(known)];
            tail = vec![0; room - extra];
        }
        Self { ino, raw, tail, unknown, size }
    }

    /// The bytes to write, `s_inode_size` of them, with a fresh checksum where the file system
    /// has them.
    pub fn to_bytes(&self, sb: &Superblock) -> Vec<u8> {
        let mut copy = self.clone();
        let mut bytes = copy.layout();
        if sb.has_metadata_csum() {
            let crc = copy.checksum(&bytes, sb);
            copy.raw.i_checksum_lo = U16::new(low16(crc));
            if copy.has_checksum_hi() {
                copy.raw.i_checksum_hi = U16::new(low16(crc >> 16));
            }
            bytes = copy.layout();
        }
        bytes
    }

    fn layout(&self) -> Vec<u8> {
        let raw = self.raw.as_bytes();
        let mut out = vec![0; self.size];
        out[..GOOD_OLD_INODE_SIZE].copy_from_slice(&raw[..GOOD_OLD_INODE_SIZE]);
        if self.size > GOOD_OLD_INODE_SIZE {
            let extra = self.extra_isize();
            let known = extra.min(RAW_SIZE - GOOD_OLD_INODE_SIZE);
            let mut at = GOOD_OLD_INODE_SIZE;
            out[at..at + known].copy_from_slice(&raw[at..at + known]);
            // i_extra_isize itself is there even when it is 0.
            out[at..at + 2].copy_from_slice(&raw[at..at + 2]);
            at += known;
            for part in [&self.unknown, &self.tail] {
                let n = part.len().min(out.len() - at);
                out[at..at + n].copy_from_slice(&part[..n]);
                at += n;
            }
        }
        out
    }

    /// Bytes of the extra part.
    pub fn extra_isize(&self) -> usize {
        if self.size > GOOD_OLD_INODE_SIZE { usize::from(self.raw.i_extra_isize.get()) } else { 0 }
    }

    /// Gives an inode that never used its extra part one, as the kernel does when it writes such an
    /// inode: a file system that was ext3 with large inodes has them.
    pub fn use_extra(&mut self) {
        const EXTRA: usize = RAW_SIZE - GOOD_OLD_INODE_SIZE;
        if self.extra_isize() == 0 && self.size >= RAW_SIZE {
            self.raw.i_extra_isize = U16::new(to_u16(EXTRA));
            self.tail = vec![0; self.size - RAW_SIZE];
        }
    }

    /// Whether an extra field that ends `end` bytes into the extra part is on disk.
    fn has_extra(&self, end: usize) -> bool {
        self.extra_isize() >= end
    }

    fn has_checksum_hi(&self) -> bool {
        self.has_extra(4)
    }

    /// crc32c over seed, number, generation and the inode with its checksum fields zero.
    fn checksum(&self, bytes: &[u8], sb: &Superblock) -> u32 {
        const LO: usize = 0x7C;
        const HI: usize = 0x82;
        let mut crc = self.checksum_seed(sb);
        crc = crc32c(crc, &bytes[..LO]);
        crc = crc32c(crc, &[0, 0]);
        crc = crc32c(crc, &bytes[LO + 2..GOOD_OLD_INODE_SIZE]);
        if bytes.len() > GOOD_OLD_INODE_SIZE {
            if self.has_checksum_hi() {
                crc = crc32c(crc, &bytes[GOOD_OLD_INODE_SIZE..HI]);
                crc = crc32c(crc, &[0, 0]);
                crc = crc32c(crc, &bytes[HI + 2..]);
            } else {
                crc = crc32c(crc, &bytes[GOOD_OLD_INODE_SIZE..]);
            }
        }
        crc
    }

    /// The seed of checksums of what belongs to this inode: directory blocks, extent nodes.
    pub fn checksum_seed(&self, sb: &Superblock) -> u32 {
        let crc = crc32c(sb.checksum_seed(), &self.ino.to_le_bytes());
        crc32c(crc, &self.raw.i_generation.get().to_le_bytes())
    }

    /// The type of the node; `None` for a mode that means nothing.
    pub fn file_type(&self) -> Option<FileType> {
        Some(match self.raw.i_mode.get() & S_IFMT {
            0x8000 => FileType::Regular,
            0x4000 => FileType::Directory,
            0xA000 => FileType::Symlink,
            0x2000 => FileType::CharDevice,
            0x6000 => FileType::BlockDevice,
            0x1000 => FileType::Fifo,
            0xC000 => FileType::Socket,
            _ => return None,
        })
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == Some(FileType::Directory)
    }

    /// Whether this is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type() == Some(FileType::Regular)
    }

    /// Whether an `i_flags` bit is on.
    pub fn has_flag(&self, flag: u32) -> bool {
        self.raw.i_flags.get() & flag != 0
    }

    /// Turns an `i_flags` bit on or off.
    pub fn set_flag(&mut self, flag: u32, on: bool) {
        let old = self.raw.i_flags.get();
        self.raw.i_flags = U32::new(if on { old | flag } else { old & !flag });
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        u64::from(self.raw.i_size_high.get()) << 32 | u64::from(self.raw.i_size_lo.get())
    }

    /// Sets the size in bytes.
    pub fn set_size(&mut self, size: u64) {
        self.raw.i_size_lo = U32::new(low32(size));
        self.raw.i_size_high = U32::new(low32(size >> 32));
    }

    /// Owner.
    pub fn uid(&self) -> u32 {
        u32::from(self.raw.i_uid_high.get()) << 16 | u32::from(self.raw.i_uid.get())
    }

    /// Group.
    pub fn gid(&self) -> u32 {
        u32::from(self.raw.i_gid_high.get()) << 16 | u32::from(self.raw.i_gid.get())
    }

    /// Sets owner and group.
    pub fn set_owner(&mut self, uid: u32, gid: u32) {
        self.raw.i_uid = U16::new(low16(uid));
        self.raw.i_uid_high = U16::new(low16(uid >> 16));
        self.raw.i_gid = U16::new(low16(gid));
        self.raw.i_gid_high = U16::new(low16(gid >> 16));
    }

    /// Space taken in units of 512 bytes, whatever unit the inode keeps it in.
    pub fn blocks_512(&self, sb: &Superblock) -> u64 {
        let lo = u64::from(self.raw.i_blocks_lo.get());
        if !sb.has_ro_compat(ro_compat::HUGE_FILE) {
            return lo;
        }
        let blocks = u64::from(self.raw.i_blocks_high.get()) << 32 | lo;
        if self.has_flag(flags::HUGE_FILE) {
            blocks.saturating_mul(u64::from(sb.block_size() / 512))
        } else {
            blocks
        }
    }

    /// Sets the space taken, in units of 512 bytes.
    pub fn set_blocks_512(&mut self, blocks: u64, sb: &Superblock) -> Result<()> {
        if blocks <= u64::from(u32::MAX) {
            self.raw.i_blocks_lo = U32::new(low32(blocks));
            self.raw.i_blocks_high = U16::new(0);
            self.set_flag(flags::HUGE_FILE, false);
            return Ok(());
        }
        if !sb.has_ro_compat(ro_compat::HUGE_FILE) {
            return Err(Error::NoSpace(format!(
                "inode {} would take more than 2 TiB, which needs the huge_file feature",
                self.ino
            )));
        }
        let (value, huge) = if blocks < 1 << 48 {
            (blocks, false)
        } else {
            (blocks / u64::from(sb.block_size() / 512), true)
        };
        self.raw.i_blocks_lo = U32::new(low32(value));
        self.raw.i_blocks_high = U16::new(low16(value >> 32));
        self.set_flag(flags::HUGE_FILE, huge);
        Ok(())
    }

    /// Adds to (or takes from) the space taken, in file system blocks.
    pub fn add_blocks(&mut self, blocks: i64, sb: &Superblock) -> Result<()> {
        let delta = blocks.saturating_mul(i64::from(sb.block_size() / 512));
        let new = self.blocks_512(sb).checked_add_signed(delta).ok_or_else(|| {
            Error::corrupt(
                "inode",
                format!("inode {}", self.ino),
                format!("i_blocks is {}, but {} blocks were freed", self.blocks_512(sb), -blocks),
            )
        })?;
        self.set_blocks_512(new, sb)
    }

    /// Block of the external xattr block, 0 for none.
    pub fn file_acl(&self) -> FsBlock {
        let high = u64::from(self.raw.i_file_acl_high.get());
        FsBlock::new(high << 32 | u64::from(self.raw.i_file_acl_lo.get()))
    }

    /// Sets the block of the external xattr block.
    pub fn set_file_acl(&mut self, block: FsBlock) {
        // The number has 48 bits: both halves.
        self.raw.i_file_acl_lo = U32::new(low32(block.get()));
        self.raw.i_file_acl_high = U16::new(low16(block.get() >> 32));
    }

    /// Hard links; 1 on a directory means more than fit (dir_nlink).
    pub fn links(&self) -> u16 {
        self.raw.i_links_count.get()
    }

    /// Sets the number of hard links.
    pub fn set_links(&mut self, links: u16) {
        self.raw.i_links_count = U16::new(links);
    }

    /// Last access.
    pub fn atime(&self) -> Timestamp {
        decode_time(self.raw.i_atime.get(), self.raw.i_atime_extra.get(), self.has_extra(16))
    }

    /// Last change of content.
    pub fn mtime(&self) -> Timestamp {
        decode_time(self.raw.i_mtime.get(), self.raw.i_mtime_extra.get(), self.has_extra(12))
    }

    /// Last change of the inode.
    pub fn ctime(&self) -> Timestamp {
        decode_time(self.raw.i_ctime.get(), self.raw.i_ctime_extra.get(), self.has_extra(8))
    }

    /// Sets the last access.
    pub fn set_atime(&mut self, time: Timestamp) {
        let (lo, extra) = encode_time(time, self.has_extra(16));
        self.raw.i_atime = U32::new(lo);
        self.raw.i_atime_extra = U32::new(extra);
    }

    /// Sets the last change of content.
    pub fn set_mtime(&mut self, time: Timestamp) {
        let (lo, extra) = encode_time(time, self.has_extra(12));
        self.raw.i_mtime = U32::new(lo);
        self.raw.i_mtime_extra = U32::new(extra);
    }

    /// Sets the last change of the inode.
    pub fn set_ctime(&mut self, time: Timestamp) {
        let (lo, extra) = encode_time(time, self.has_extra(8));
        self.raw.i_ctime = U32::new(lo);
        self.raw.i_ctime_extra = U32::new(extra);
    }

    /// Project, 0 where the inode has no room for one.
    pub fn projid(&self) -> u32 {
        if self.has_extra(32) { self.raw.i_projid.get() } else { 0 }
    }

    /// Sets the project where the inode has room for it.
    pub fn set_projid(&mut self, projid: u32) {
        if self.has_extra(32) {
            self.raw.i_projid = U32::new(projid);
        }
    }

    /// Sets the birth time where the inode has room for it.
    pub fn set_crtime(&mut self, time: Timestamp) {
        if self.has_extra(24) {
            let (lo, extra) = encode_time(time, true);
            self.raw.i_crtime = U32::new(lo);
            self.raw.i_crtime_extra = U32::new(extra);
        }
    }
}

/// The low 32 bits are signed seconds; the extra word adds two epoch bits and nanoseconds.
fn decode_time(lo: u32, extra: u32, has_extra: bool) -> Timestamp {
    let mut seconds = i64::from(lo.cast_signed());
    let mut nanoseconds = 0;
    if has_extra {
        seconds += i64::from(extra & 3) << 32;
        nanoseconds = (extra >> 2).min(999_999_999);
    }
    Timestamp { seconds, nanoseconds }
}

fn encode_time(time: Timestamp, has_extra: bool) -> (u32, u32) {
    if has_extra {
        let seconds = time.seconds.clamp(i64::from(i32::MIN), 0x3_7FFF_FFFF);
        let low = low32(seconds.cast_unsigned());
        let epochs = (seconds - i64::from(low.cast_signed())) >> 32;
        (low, low32(epochs.cast_unsigned()) & 3 | time.nanoseconds << 2)
    } else {
        let seconds = time.seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        (low32(seconds.cast_unsigned()), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_until_2446() {
        for seconds in [-1, 0, i64::from(i32::MAX), 0x8000_0000, 0x1_7FFF_FFFF, 0x3_7FFF_FFFF] {
            let time = Timestamp { seconds, nanoseconds: 123_456_789 };
            let (lo, extra) = encode_time(time, true);
            assert_eq!(decode_time(lo, extra, true), time);
        }
        let late = Timestamp { seconds: 0x8000_0000, nanoseconds: 5 };
        let (lo, extra) = encode_time(late, false);
        assert_eq!(
            decode_time(lo, extra, false),
            Timestamp { seconds: i64::from(i32::MAX), nanoseconds: 0 }
        );
    }
}
