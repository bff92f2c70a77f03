//! The format of a quota file, vfsv1 of the kernel's quota tree: a header, then a tree of blocks of
//! 1 KiB in which four levels of 256 references, one for each byte of the id, lead to blocks of
//! entries.
//!
//! Source: the kernel's Documentation/filesystems/quota.rst and the quota-tools manual,
//! quotatree.h and quotaio_v2.h (names and sizes of the fields).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::usage::Usage;
use crate::error::{Error, Result};
use crate::num::to_usize;

/// Header magics of the user, group and project files.
const MAGIC: [u32; 3] = [0xD9C0_1F11, 0xD9C0_1927, 0xD9C0_3F14];
const NAMES: [&str; 3] = ["user", "group", "project"];
/// Unit of the tree, whatever the file system's block size.
const BLOCK: usize = 1024;
/// Levels of references above an entry block.
const DEPTH: u32 = 4;
/// Bytes of the largest quota file: it is read whole. Room for more than 150,000 ids.
pub(super) const LIMIT: usize = 16 << 20;

/// The start of the file: `v2_disk_dqheader` and `v2_disk_dqinfo`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Info {
    dqh_magic: U32,
    dqh_version: U32,
    dqi_bgrace: U32,
    dqi_igrace: U32,
    dqi_flags: U32,
    dqi_blocks: U32,
    dqi_free_blk: U32,
    dqi_free_entry: U32,
}

/// The start of a block of entries: `qt_disk_dqdbheader`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct BlockHeader {
    dqdh_next_free: U32,
    dqdh_prev_free: U32,
    dqdh_entries: U16,
    dqdh_pad1: U16,
    dqdh_pad2: U32,
}

/// An entry: `v2r1_disk_dqblk`. One of zeros is free.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Entry {
    dqb_id: U32,
    dqb_pad: U32,
    dqb_ihardlimit: U64,
    dqb_isoftlimit: U64,
    dqb_curinodes: U64,
    dqb_bhardlimit: U64,
    dqb_bsoftlimit: U64,
    dqb_curspace: U64,
    dqb_btime: U64,
    dqb_itime: U64,
}

const _: () = assert!(size_of::<Info>() == 32);
const _: () = assert!(size_of::<BlockHeader>() == 16);
const _: () = assert!(size_of::<Entry>() == 72);

/// Entries in a block.
const ENTRIES: usize = (BLOCK - size_of::<BlockHeader>()) / size_of::<Entry>();

impl Entry {
    fn is_free(&self) -> bool {
        self.as_bytes().iter().all(|&byte| byte == 0)
    }
}

/// A quota file, whole in memory.
#[derive(Debug)]
pub(super) struct QuotaFile {
    bytes: Vec<u8>,
    kind: usize,
}

/// Byte of the reference for `id` at `level` in the block at byte `block`.
fn slot(block: usize, id: u32, level: u32) -> usize {
    let index = usize::from(id.to_be_bytes()[to_usize(level) % 4]);
    block + index * size_of::<U32>()
}

/// Bytes of the entries in the block at byte `block`.
fn entries(block: usize) -> impl Iterator<Item = usize> {
    let first = block + size_of::<BlockHeader>();
    (0..ENTRIES).map(move |index| first + index * size_of::<Entry>())
}

impl QuotaFile {
    /// Takes the content of a quota file of a kind (0: user, 1: group, 2: project) and checks its
    /// header.
    pub(super) fn parse(bytes: Vec<u8>, kind: usize) -> Result<Self> {
        let file = Self { bytes, kind };
        let info = file.info()?;
        if file.bytes.len() < 2 * BLOCK || info.dqh_magic.get() != MAGIC[kind] {
            return Err(file.wrong(0, "it does not begin with the magic number of its kind"));
        }
        if info.dqh_version.get() != 1 {
            return Err(Error::unsupported(
                format!("quota format version {}", info.dqh_version),
                "turn quota off (tune2fs -O ^quota) or bring it up to date (tune2fs -O quota)",
            ));
        }
        let blocks = to_usize(info.dqi_blocks.get());
        if blocks < 2 || blocks > file.bytes.len() / BLOCK {
            return Err(file.wrong(0, format!("dqi_blocks is {blocks}")));
        }
        Ok(file)
    }

    /// The content, to write.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn wrong(&self, at: usize, detail: impl Into<String>) -> Error {
        let position = format!("byte {at} of the {} quota", NAMES[self.kind]);
        let detail = detail.into();
        Error::corrupt("quota file", position, format!("{detail}; run e2fsck on the image first"))
    }

    /// The structure at a byte of the file.
    fn get<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self, at: usize) -> Result<&T> {
        let bytes = self.bytes.get(at..).unwrap_or_default();
        match T::ref_from_prefix(bytes) {
            Ok((found, _)) => Ok(found),
            Err(_) => Err(self.wrong(at, "the file ends before")),
        }
    }

    /// The structure at a byte of the file, to change it.
    fn get_mut<T: FromBytes + IntoBytes + KnownLayout + Unaligned>(
        &mut self,
        at: usize,
    ) -> Result<&mut T> {
        let error = self.wrong(at, "the file ends before");
        let bytes = self.bytes.get_mut(at..).unwrap_or_default();
        T::mut_from_prefix(bytes).map(|(found, _)| found).map_err(|_| error)
    }

    fn info(&self) -> Result<&Info> {
        self.get(0)
    }

    fn info_mut(&mut self) -> Result<&mut Info> {
        self.get_mut(0)
    }

    /// Byte where block `number` of the tree begins; block 0 is the header and no part of it.
    /// `from` is the byte of the reference to it.
    fn block(&self, number: u32, from: usize) -> Result<usize> {
        if number == 0 || number >= self.info()?.dqi_blocks.get() {
            return Err(self.wrong(from, format!("it refers to block {number}")));
        }
        Ok(to_usize(number) * BLOCK)
    }

    /// Adds to the entry of `id`, which is made if there is none.
    pub(super) fn apply(&mut self, id: u32, change: Usage) -> Result<()> {
        let at = match self.find(id)? {
            Some(at) => at,
            None => self.insert(id)?,
        };
        let entry: &mut Entry = self.get_mut(at)?;
        // Usage that was wrong before may not go below zero.
        let inodes = entry.dqb_curinodes.get().saturating_add_signed(change.inodes);
        let space = entry.dqb_curspace.get().saturating_add_signed(change.space);
        entry.dqb_curinodes = U64::new(inodes);
        entry.dqb_curspace = U64::new(space);
        if id == 0 && entry.is_free() {
            // An entry of zeros would be a free one.
            entry.dqb_itime = U64::new(1);
        }
        Ok(())
    }

    /// Byte of the entry of `id`.
    fn find(&self, id: u32) -> Result<Option<usize>> {
        let mut block = BLOCK;
        for level in 0..DEPTH {
            let at = slot(block, id, level);
            match self.get::<U32>(at)?.get() {
                0 => return Ok(None),
                next => block = self.block(next, at)?,
            }
        }
        for at in entries(block) {
            let entry: &Entry = self.get(at)?;
            if entry.dqb_id.get() == id && !entry.is_free() {
                return Ok(Some(at));
            }
        }
        Err(self.wrong(block, format!("the tree leads there for id {id}, but it has no entry")))
    }

    /// A block of zeros: from the list of free ones, or after the last.
    fn new_block(&mut self) -> Result<u32> {
        let info = *self.info()?;
        let number = match info.dqi_free_blk.get() {
            0 => {
                let number = info.dqi_blocks.get();
                let end = to_usize(number).saturating_add(1).saturating_mul(BLOCK);
                if end > LIMIT {
                    return Err(Error::NoSpace("the quota file is full".to_owned()));
                }
                self.info_mut()?.dqi_blocks = U32::new(number + 1);
                if self.bytes.len() < end {
                    self.bytes.resize(end, 0);
                }
                number
            }
            free => {
                let at = self.block(free, 0)?;
                let next = self.get::<BlockHeader>(at)?.dqdh_next_free;
                self.info_mut()?.dqi_free_blk = next;
                free
            }
        };
        let at = self.block(number, 0)?;
        self.bytes[at..at + BLOCK].fill(0);
        Ok(number)
    }

    /// Makes an entry of zeros for `id` and the references to it.
    fn insert(&mut self, id: u32) -> Result<usize> {
        let leaf = match self.info()?.dqi_free_entry.get() {
            0 => {
                let number = self.new_block()?;
                self.info_mut()?.dqi_free_entry = U32::new(number);
                number
            }
            number => number,
        };
        let block = self.block(leaf, 0)?;
        let mut free = None;
        for at in entries(block) {
            if self.get::<Entry>(at)?.is_free() {
                free = Some(at);
                break;
            }
        }
        let Some(at) = free else {
            return Err(self.wrong(block, "the block is listed as having room, but it is full"));
        };
        let header = *self.get::<BlockHeader>(block)?;
        let used = usize::from(header.dqdh_entries.get());
        if used + 1 >= ENTRIES {
            // A full block leaves the list of those with room; it is the list's head.
            let next = header.dqdh_next_free;
            self.info_mut()?.dqi_free_entry = next;
            self.get_mut::<BlockHeader>(block)?.dqdh_next_free = U32::new(0);
            if next.get() != 0 {
                let next = self.block(next.get(), block)?;
                self.get_mut::<BlockHeader>(next)?.dqdh_prev_free = U32::new(0);
            }
        }
        let count = U16::new(header.dqdh_entries.get().saturating_add(1));
        self.get_mut::<BlockHeader>(block)?.dqdh_entries = count;
        self.get_mut::<Entry>(at)?.dqb_id = U32::new(id);
        let mut parent = BLOCK;
        for level in 0..DEPTH {
            let slot = slot(parent, id, level);
            if level == DEPTH - 1 {
                *self.get_mut::<U32>(slot)? = U32::new(leaf);
                break;
            }
            let next = match self.get::<U32>(slot)?.get() {
                0 => {
                    let number = self.new_block()?;
                    *self.get_mut::<U32>(slot)? = U32::new(number);
                    number
                }
                number => number,
            };
            parent = self.block(next, slot)?;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> QuotaFile {
        let mut file = QuotaFile { bytes: vec![0; 2 * BLOCK], kind: 0 };
        let info = file.info_mut().unwrap();
        info.dqh_magic = U32::new(MAGIC[0]);
        info.dqh_version = U32::new(1);
        info.dqi_blocks = U32::new(2);
        file
    }

    #[test]
    fn entries_are_made_and_found() {
        let mut file = QuotaFile::parse(empty().bytes, 0).unwrap();
        let ids = [0, 1, 255, 256, 65_534, 1000, u32::MAX].into_iter().chain(2000..2100);
        for id in ids.clone() {
            assert_eq!(file.find(id).unwrap(), None);
            file.apply(id, Usage { space: 4096, inodes: 1 }).unwrap();
            file.apply(id, Usage { space: 4096, inodes: 0 }).unwrap();
        }
        for id in ids {
            let at = file.find(id).unwrap().unwrap();
            let entry: &Entry = file.get(at).unwrap();
            assert_eq!(entry.dqb_curspace.get(), 8192);
            assert_eq!(entry.dqb_curinodes.get(), 1);
        }
        file.apply(0, Usage { space: -8192, inodes: -1 }).unwrap();
        assert!(file.find(0).unwrap().is_some());
        QuotaFile::parse(file.bytes, 0).unwrap();
    }

    #[test]
    fn damage_is_named() {
        let mut file = empty();
        *file.get_mut::<U32>(BLOCK).unwrap() = U32::new(77);
        assert!(matches!(file.find(5), Err(Error::Corrupt { .. })));
        file.info_mut().unwrap().dqi_free_entry = U32::new(1 << 30);
        assert!(matches!(file.insert(5), Err(Error::Corrupt { .. })));
        file.bytes.truncate(100);
        assert!(QuotaFile::parse(file.bytes, 0).is_err());
    }
}
