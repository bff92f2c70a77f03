//! Inodes.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::num;
use super::store::{BufferType, Bytes};
use super::superblock::Superblock;
use super::units::Ino;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::filesystem::{FileType, Timestamp};
use crate::num::{low32, to_i64, to_u8, to_u16, to_u32, to_u64};

/// `IN`.
pub(super) const XFS_DINODE_MAGIC: u16 = 0x494E;
const DI_CRC: usize = 100;
/// Bytes of the core before version 3.
const CORE_V2: usize = 100;
/// The end of a list of inodes that are to be removed.
const NULLAGINO: u32 = u32::MAX;

/// `di_flags`.
pub(super) mod flags {
    pub(in crate::xfs) const REALTIME: u16 = 0x0001;
    pub(in crate::xfs) const NOATIME: u16 = 0x0040;
    pub(in crate::xfs) const NODUMP: u16 = 0x0080;
    pub(in crate::xfs) const RTINHERIT: u16 = 0x0100;
    pub(in crate::xfs) const PROJINHERIT: u16 = 0x0200;
    pub(in crate::xfs) const EXTSIZE: u16 = 0x0800;
    pub(in crate::xfs) const EXTSZINHERIT: u16 = 0x1000;
    pub(in crate::xfs) const NODEFRAG: u16 = 0x2000;
}

/// `di_flags2`.
pub(super) mod flags2 {
    pub(in crate::xfs) const REFLINK: u64 = 0x02;
    pub(in crate::xfs) const COWEXTSIZE: u64 = 0x04;
    pub(in crate::xfs) const BIGTIME: u64 = 0x08;
    pub(in crate::xfs) const NREXT64: u64 = 0x10;
}

/// How a fork holds what it holds: `di_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A device number.
    Dev = 0,
    /// In the inode itself.
    Local = 1,
    /// A list of extents in the inode.
    Extents = 2,
    /// A tree of extents.
    Btree = 3,
}

impl Format {
    /// Its number on disk.
    #[allow(clippy::as_conversions)]
    pub(super) const fn code(self) -> u8 {
        // The numbers above are those on disk, and all of them fit.
        self as u8
    }
}

/// One of the two things an inode holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The file's content, the directory's entries, the link's target.
    Data,
    /// Extended attributes.
    Attr,
}

/// `struct xfs_dinode`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Core {
    pub di_magic: U16,
    pub di_mode: U16,
    pub di_version: u8,
    pub di_format: u8,
    pub di_onlink: U16,
    pub di_uid: U32,
    pub di_gid: U32,
    pub di_nlink: U32,
    pub di_projid_lo: U16,
    pub di_projid_hi: U16,
    pub di_big_nextents: U64,
    pub di_atime: U64,
    pub di_mtime: U64,
    pub di_ctime: U64,
    pub di_size: U64,
    pub di_nblocks: U64,
    pub di_extsize: U32,
    pub di_nextents: U32,
    pub di_anextents: U16,
    pub di_forkoff: u8,
    pub di_aformat: u8,
    pub di_dmevmask: U32,
    pub di_dmstate: U16,
    pub di_flags: U16,
    pub di_gen: U32,
    pub di_next_unlinked: U32,
    pub di_crc: [u8; 4],
    pub di_changecount: U64,
    pub di_lsn: U64,
    pub di_flags2: U64,
    pub di_cowextsize: U32,
    pub di_pad2: [u8; 12],
    pub di_crtime: U64,
    pub di_ino: U64,
    pub di_uuid: [u8; 16],
}

const _: () = assert!(size_of::<Core>() == 176);

/// An inode in memory.
#[derive(Clone, Debug)]
pub struct Inode {
    /// Its number.
    pub ino: Ino,
    /// Its fields; of inodes before version 3 those after `di_next_unlinked` are zero.
    pub core: Core,
    /// Both forks.
    literal: Vec<u8>,
}

fn corrupt(ino: Ino, detail: impl Into<String>) -> Error {
    Error::corrupt("inode", format!("inode {ino}"), detail)
}

impl Inode {
    fn parse(ino: Ino, bytes: &[u8], sb: &Superblock) -> Result<Self> {
        if num::be16(bytes, 0) != XFS_DINODE_MAGIC {
            return Err(corrupt(ino, "its magic number is wrong"));
        }
        let version = bytes.get(4).copied().unwrap_or(0);
        let v3 = version == 3;
        if !matches!(version, 1..=3) || v3 != sb.is_v5() {
            return Err(corrupt(ino, format!("di_version is {version}")));
        }
        let mut core = Core::new_zeroed();
        let head = if v3 { size_of::<Core>() } else { CORE_V2 };
        let (Some(fields), Some(literal)) = (bytes.get(..head), bytes.get(head..)) else {
            return Err(corrupt(ino, "it is too short"));
        };
        core.as_mut_bytes()[..head].copy_from_slice(fields);
        if v3 {
            if !num::is_sealed(bytes, DI_CRC) {
                return Err(corrupt(ino, "its checksum is wrong"));
            }
            if core.di_ino.get() != ino.0 || core.di_uuid != sb.meta_uuid() {
                return Err(corrupt(ino, "it is the copy of another inode"));
            }
        }
        let inode = Self { ino, core, literal: literal.to_vec() };
        if inode.core.di_mode.get() != 0 {
            inode.check()?;
        }
        Ok(inode)
    }

    fn check(&self) -> Result<()> {
        let file_type = self.file_type()?;
        let format = self.format(Fork::Data)?;
        let fits = match file_type {
            FileType::Regular => matches!(format, Format::Extents | Format::Btree),
            FileType::Directory => format != Format::Dev,
            FileType::Symlink => matches!(format, Format::Local | Format::Extents | Format::Btree),
            _ => format == Format::Dev,
        };
        if !fits {
            return Err(corrupt(self.ino, format!("di_format is {}", self.core.di_format)));
        }
        if self.core.di_size.get() >> 63 != 0 {
            return Err(corrupt(self.ino, "di_size is negative"));
        }
        if usize::from(self.core.di_forkoff) * 8 >= self.literal.len() {
            return Err(corrupt(self.ino, format!("di_forkoff is {}", self.core.di_forkoff)));
        }
        if self.core.di_forkoff != 0 {
            self.format(Fork::Attr)?;
        }
        if format == Format::Local && self.size() > to_u64(self.fork(Fork::Data).len()) {
            return Err(corrupt(self.ino, "its content does not fit into it"));
        }
        for fork in [Fork::Data, Fork::Attr] {
            if self.has_fork(fork)
                && self.format(fork)? == Format::Extents
                && self.extent_count(fork) > to_u64(self.fork(fork).len() / 16)
            {
                return Err(corrupt(self.ino, "it has more extents than it has room for"));
            }
        }
        Ok(())
    }

    /// An inode that holds nothing yet.
    pub(super) fn new(ino: Ino, generation: u32, sb: &Superblock) -> Self {
        let mut core = Core::new_zeroed();
        core.di_magic = U16::new(XFS_DINODE_MAGIC);
        core.di_version = 3;
        core.di_format = Format::Extents.code();
        core.di_aformat = Format::Extents.code();
        core.di_gen = U32::new(generation);
        core.di_next_unlinked = U32::new(NULLAGINO);
        core.di_ino = U64::new(ino.0);
        core.di_uuid = sb.meta_uuid();
        Self { ino, core, literal: vec![0; sb.inode_size() - size_of::<Core>()] }
    }

    /// The bytes on disk, with the checksum.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.core.as_bytes().to_vec();
        bytes.extend_from_slice(&self.literal);
        num::seal(&mut bytes, DI_CRC);
        bytes
    }

    /// Its type.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a type that does not exist.
    pub fn file_type(&self) -> Result<FileType> {
        Ok(match self.core.di_mode.get() & 0xF000 {
            0x8000 => FileType::Regular,
            0x4000 => FileType::Directory,
            0xA000 => FileType::Symlink,
            0x2000 => FileType::CharDevice,
            0x6000 => FileType::BlockDevice,
            0x1000 => FileType::Fifo,
            0xC000 => FileType::Socket,
            _ => return Err(corrupt(self.ino, format!("di_mode is {:#o}", self.core.di_mode))),
        })
    }
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.core.di_mode.get() & 0xF000 == 0x4000
    }
    /// Bytes of content.
    pub fn size(&self) -> u64 {
        self.core.di_size.get()
    }
    /// Sets the bytes of content.
    pub fn set_size(&mut self, size: u64) {
        self.core.di_size = U64::new(size);
    }
    /// Hard links.
    pub fn links(&self) -> u32 {
        if self.core.di_version == 1 {
            self.core.di_onlink.get().into()
        } else {
            self.core.di_nlink.get()
        }
    }
    /// Sets the hard links.
    pub fn set_links(&mut self, links: u32) {
        self.core.di_nlink = U32::new(links);
    }
    /// Whether `di_flags2` has a bit.
    pub(super) fn has_flag2(&self, bit: u64) -> bool {
        self.core.di_version == 3 && self.core.di_flags2.get() & bit != 0
    }
    /// Whether `di_flags` has a bit.
    pub(super) fn has_flag(&self, bit: u16) -> bool {
        self.core.di_flags.get() & bit != 0
    }

    /// Whether there is such a fork.
    pub fn has_fork(&self, fork: Fork) -> bool {
        fork == Fork::Data || self.core.di_forkoff != 0
    }
    /// How a fork holds what it holds.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for an unknown number.
    pub fn format(&self, fork: Fork) -> Result<Format> {
        let number = match fork {
            Fork::Data => self.core.di_format,
            Fork::Attr => self.core.di_aformat,
        };
        Ok(match number {
            0 if fork == Fork::Data => Format::Dev,
            1 => Format::Local,
            2 => Format::Extents,
            3 => Format::Btree,
            _ => return Err(corrupt(self.ino, format!("the format of a fork is {number}"))),
        })
    }
    /// Sets how a fork holds what it holds.
    pub(super) fn set_format(&mut self, fork: Fork, format: Format) {
        match fork {
            Fork::Data => self.core.di_format = format.code(),
            Fork::Attr => self.core.di_aformat = format.code(),
        }
    }
    /// Bytes for both forks.
    pub(super) fn literal_len(&self) -> usize {
        self.literal.len()
    }
    fn fork_range(&self, fork: Fork) -> std::ops::Range<usize> {
        let middle = match self.core.di_forkoff {
            0 => self.literal.len(),
            off => (usize::from(off) * 8).min(self.literal.len()),
        };
        match fork {
            Fork::Data => 0..middle,
            Fork::Attr => middle..self.literal.len(),
        }
    }
    /// The bytes of a fork.
    pub fn fork(&self, fork: Fork) -> &[u8] {
        &self.literal[self.fork_range(fork)]
    }
    /// Replaces the bytes of a fork; the rest of it is zeros.
    pub(super) fn set_fork(&mut self, fork: Fork, content: &[u8]) {
        let range = self.fork_range(fork);
        let place = &mut self.literal[range];
        place.fill(0);
        num::put(place, 0, content);
    }
    /// Moves the border between the forks, in bytes (a multiple of 8; 0: no attributes). Both keep
    /// their bytes as far as they fit.
    pub(super) fn set_fork_offset(&mut self, offset: usize) {
        let data = self.fork(Fork::Data).to_vec();
        let attr = self.fork(Fork::Attr).to_vec();
        self.core.di_forkoff = to_u8(offset / 8);
        let range = self.fork_range(Fork::Data);
        let fit = data.len().min(range.len());
        self.set_fork(Fork::Data, &data[..fit]);
        let fit = attr.len().min(self.fork_range(Fork::Attr).len());
        self.set_fork(Fork::Attr, &attr[..fit]);
    }
    /// Extents of a fork.
    pub fn extent_count(&self, fork: Fork) -> u64 {
        let big = self.has_flag2(flags2::NREXT64);
        match fork {
            Fork::Data if big => self.core.di_big_nextents.get(),
            Fork::Data => self.core.di_nextents.get().into(),
            Fork::Attr if big => self.core.di_nextents.get().into(),
            Fork::Attr => self.core.di_anextents.get().into(),
        }
    }
    /// Sets the number of extents of a fork.
    pub(super) fn set_extent_count(&mut self, fork: Fork, count: usize) -> Result<()> {
        let big = self.has_flag2(flags2::NREXT64);
        let most = if fork == Fork::Data || big { i64::from(i32::MAX) } else { i16::MAX.into() };
        if to_i64(count) > most {
            return Err(Error::NoSpace(format!("inode {} would have {count} extents", self.ino)));
        }
        match fork {
            Fork::Data if big => self.core.di_big_nextents = U64::new(to_u64(count)),
            Fork::Attr if !big => self.core.di_anextents = U16::new(to_u16(count)),
            _ => self.core.di_nextents = U32::new(to_u32(count)),
        }
        Ok(())
    }

    /// A time out of its field.
    pub(super) fn time(&self, field: U64) -> Timestamp {
        let raw = field.get();
        if self.has_flag2(flags2::BIGTIME) {
            return Timestamp {
                seconds: to_i64(raw / 1_000_000_000) + i64::from(i32::MIN),
                nanoseconds: low32(raw % 1_000_000_000),
            };
        }
        let nanoseconds = low32(raw).min(999_999_999);
        Timestamp { seconds: i64::from(low32(raw >> 32).cast_signed()), nanoseconds }
    }
    /// A time as its field holds it; times beyond what it can hold become the nearest it can.
    pub(super) fn field(&self, time: Timestamp) -> U64 {
        let nanoseconds = u64::from(time.nanoseconds.min(999_999_999));
        if self.has_flag2(flags2::BIGTIME) {
            let seconds = time.seconds.clamp(i32::MIN.into(), 16_299_260_425);
            let since = (seconds - i64::from(i32::MIN)).cast_unsigned();
            return U64::new(since * 1_000_000_000 + nanoseconds);
        }
        let seconds = time.seconds.clamp(i32::MIN.into(), i32::MAX.into()).cast_unsigned();
        U64::new(u64::from(low32(seconds)) << 32 | nanoseconds)
    }
    /// Notes a change of the inode at `now`, and of its content where `content` says so.
    pub(super) fn touch(&mut self, now: Timestamp, content: bool) {
        let field = self.field(now);
        self.core.di_ctime = field;
        if content {
            self.core.di_mtime = field;
        }
        self.core.di_changecount = U64::new(self.core.di_changecount.get().wrapping_add(1));
    }
}

impl Volume {
    fn inode_block(&self, ino: Ino) -> Result<(Bytes, usize)> {
        if !self.sb.is_inode(ino) {
            return Err(corrupt(ino, "there is no inode of this number"));
        }
        let (block, at) = self.sb.inode_place(ino);
        let bytes = self.store.read(self.sb.daddr(block), self.sb.block_size(), |_| Ok(()))?;
        Ok((bytes, at))
    }

    /// An inode, in use or not.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub fn any_inode(&self, ino: Ino) -> Result<Inode> {
        let (bytes, at) = self.inode_block(ino)?;
        let bytes = bytes.get(at..at + self.sb.inode_size()).unwrap_or_default();
        Inode::parse(ino, bytes, &self.sb)
    }

    /// An inode that is in use.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub fn inode(&self, ino: Ino) -> Result<Inode> {
        let inode = self.any_inode(ino)?;
        if inode.core.di_mode.get() == 0 {
            return Err(corrupt(ino, "it is named, but free"));
        }
        Ok(inode)
    }

    /// A directory.
    ///
    /// # Errors
    /// [`Error::NotADirectory`], [`Error::Corrupt`] and [`Error::Device`].
    pub fn directory(&self, ino: Ino) -> Result<Inode> {
        let inode = self.inode(ino)?;
        if !inode.is_dir() {
            return Err(Error::NotADirectory(format!("inode {ino}")));
        }
        Ok(inode)
    }

    /// Writes an inode.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    pub(super) fn write_inode(&mut self, inode: &Inode) -> Result<()> {
        let (bytes, at) = self.inode_block(inode.ino)?;
        let mut bytes = bytes.to_vec();
        num::put(&mut bytes, at, &inode.to_bytes());
        let (block, _) = self.sb.inode_place(inode.ino);
        self.store.write(self.sb.daddr(block), BufferType::Inodes, bytes);
        Ok(())
    }
}
