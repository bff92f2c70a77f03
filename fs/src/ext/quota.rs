//! Quota accounting (the `quota` feature): space and inodes per user, group and project, kept in
//! hidden files that must agree with the inodes at every commit.
//!
//! The format is vfsv1 of the kernel's quota tree: a header, then a tree of blocks of 1 KiB in
//! which four levels of 256 references, one for each byte of the id, lead to blocks of entries.

use std::collections::BTreeMap;

use super::inode::{Inode, ROOT_INO, flags};
use super::map;
use super::superblock::ro_compat;
use super::volume::Volume;
use crate::error::{Error, Result};

/// What is counted for one id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    space: i64,
    inodes: i64,
}

/// Changes since the quota files were last written, by kind of quota and id.
pub(super) type Changes = BTreeMap<(usize, u32), Usage>;

/// Header magics of the user, group and project files.
const MAGIC: [u32; 3] = [0xD9C0_1F11, 0xD9C0_1927, 0xD9C0_3F14];
const NAMES: [&str; 3] = ["user", "group", "project"];
/// Unit of the tree, whatever the file system's block size.
const BLOCK: usize = 1024;
/// Levels of references above an entry block.
const DEPTH: u32 = 4;
/// Bytes before the entries of a block.
const HEADER: usize = 16;
/// Bytes of an entry.
const ENTRY: usize = 72;
/// Entries in a block.
const ENTRIES: usize = (BLOCK - HEADER) / ENTRY;
/// Quota files are read whole; this is room for more than 150,000 ids.
const LIMIT: usize = 16 << 20;

// Offsets in the header and in an entry.
const DQI_BLOCKS: usize = 8 + 12;
const DQI_FREE_BLK: usize = 8 + 16;
const DQI_FREE_ENTRY: usize = 8 + 20;
const DQB_CURINODES: usize = 24;
const DQB_CURSPACE: usize = 48;
const DQB_ITIME: usize = 64;

/// Inode numbers of the quota files, 0 for none.
fn files(vol: &Volume) -> [u32; 3] {
    if !vol.sb.has_ro_compat(ro_compat::QUOTA) {
        return [0; 3];
    }
    let raw = &vol.sb.raw;
    [raw.s_usr_quota_inum.get(), raw.s_grp_quota_inum.get(), raw.s_prj_quota_inum.get()]
}

/// Whether the file system keeps quota.
pub(super) fn is_on(vol: &Volume) -> bool {
    files(vol).iter().any(|&ino| ino != 0)
}

/// Who an inode is counted for: user, group, project.
fn ids(vol: &Volume, inode: &Inode) -> [u32; 3] {
    let project = if vol.sb.has_ro_compat(ro_compat::PROJECT) { inode.projid() } else { 0 };
    [inode.uid(), inode.gid(), project]
}

/// Counts that an inode changed from `old` (`None`: not in use) to `new`.
pub(super) fn note(vol: &mut Volume, old: Option<&Inode>, new: &Inode) {
    for (inode, sign) in [(old, -1), (Some(new), 1)] {
        if let Some(inode) = inode.filter(|inode| inode.links() > 0) {
            count(vol, inode, sign);
        }
    }
}

/// Counts out an inode that has lost its last name and is about to be freed: the kernel keeps it
/// counted until then.
pub(super) fn note_orphan(vol: &mut Volume, inode: &Inode) {
    count(vol, inode, -1);
}

/// Adds what an inode takes to its owner's usage, or (`sign` -1) takes it away.
fn count(vol: &mut Volume, inode: &Inode, sign: i64) {
    let files = files(vol);
    let counted = inode.file_type().is_some()
        && (inode.ino == ROOT_INO || inode.ino >= vol.sb.first_ino())
        && !files.contains(&inode.ino)
        && inode.ino != vol.sb.raw.s_orphan_file_inum.get()
        && !inode.has_flag(flags::EA_INODE);
    if !counted {
        return;
    }
    let space = inode.blocks_512(&vol.sb).saturating_mul(512).min(i64::MAX as u64) as i64;
    for (kind, id) in ids(vol, inode).into_iter().enumerate() {
        if files[kind] != 0 {
            let usage = vol.quota.entry((kind, id)).or_default();
            usage.space = usage.space.saturating_add(sign * space);
            usage.inodes += sign;
        }
    }
}

/// Counts `count` more (or fewer) xattr values in inodes of their own: each is an inode of the one
/// that refers to it. Their space is in its `i_blocks`.
pub(super) fn note_values(vol: &mut Volume, inode: &Inode, count: i64) {
    let files = files(vol);
    for (kind, id) in ids(vol, inode).into_iter().enumerate() {
        if files[kind] != 0 && count != 0 {
            vol.quota.entry((kind, id)).or_default().inodes += count;
        }
    }
}

/// Brings the quota files up to date. Part of every commit.
pub(super) fn flush(vol: &mut Volume) -> Result<()> {
    let changes = std::mem::take(&mut vol.quota);
    for (kind, ino) in files(vol).into_iter().enumerate() {
        let ours: Vec<(u32, Usage)> = changes
            .range((kind, 0)..=(kind, u32::MAX))
            .filter(|(_, usage)| **usage != Usage::default())
            .map(|(&(_, id), &usage)| (id, usage))
            .collect();
        if !ours.is_empty() {
            update(vol, kind, ino, &ours)?;
        }
    }
    Ok(())
}

fn update(vol: &mut Volume, kind: usize, ino: u32, changes: &[(u32, Usage)]) -> Result<()> {
    let mut inode = vol.read_inode(ino)?;
    let old = map::read_all(vol, &inode, LIMIT)?;
    let mut file = QuotaFile { bytes: old.clone(), kind };
    file.check()?;
    for &(id, change) in changes {
        file.apply(id, change)?;
    }
    let size = vol.block_size();
    let (known, new) = file.bytes.split_at(old.len());
    for (lblk, (now, before)) in known.chunks(size).zip(old.chunks(size)).enumerate() {
        if now == before {
            continue;
        }
        let (number, block) = map::read_block(vol, &inode, lblk as u64)?;
        let mut block = block.to_vec();
        block[..now.len()].copy_from_slice(now);
        if vol.store.is_new_data(number) {
            vol.store.write_data(number, block)?;
        } else {
            super::alloc::check_own(vol, number)?;
            vol.store.write_meta(number, block)?;
        }
    }
    if !new.is_empty() {
        map::append(vol, &mut inode, new)?;
        vol.write_inode(&inode)?;
    }
    Ok(())
}

struct QuotaFile {
    bytes: Vec<u8>,
    kind: usize,
}

impl QuotaFile {
    fn wrong(&self, at: usize, detail: impl Into<String>) -> Error {
        let position = format!("byte {at} of the {} quota", NAMES[self.kind]);
        let detail = detail.into();
        Error::corrupt("quota file", position, format!("{detail}; run e2fsck on the image first"))
    }

    fn u32_at(&self, at: usize) -> u32 {
        self.bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        if let Some(bytes) = self.bytes.get_mut(at..at + 4) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn u64_at(&self, at: usize) -> u64 {
        u64::from(self.u32_at(at)) | u64::from(self.u32_at(at + 4)) << 32
    }

    fn set_u64(&mut self, at: usize, value: u64) {
        self.set_u32(at, value as u32);
        self.set_u32(at + 4, (value >> 32) as u32);
    }

    fn check(&self) -> Result<()> {
        if self.bytes.len() < 2 * BLOCK || self.u32_at(0) != MAGIC[self.kind] {
            return Err(self.wrong(0, "it does not begin with the magic number of its kind"));
        }
        if self.u32_at(4) != 1 {
            return Err(Error::unsupported(
                format!("quota format version {}", self.u32_at(4)),
                "turn quota off (tune2fs -O ^quota) or bring it up to date (tune2fs -O quota)",
            ));
        }
        let blocks = self.u32_at(DQI_BLOCKS) as usize;
        if blocks < 2 || blocks > self.bytes.len() / BLOCK {
            return Err(self.wrong(DQI_BLOCKS, format!("dqi_blocks is {blocks}")));
        }
        Ok(())
    }

    /// Byte where block `number` of the tree begins; block 0 is the header and no part of it.
    fn block(&self, number: u32, from: usize) -> Result<usize> {
        if number == 0 || number >= self.u32_at(DQI_BLOCKS) {
            return Err(self.wrong(from, format!("it refers to block {number}")));
        }
        Ok(number as usize * BLOCK)
    }

    /// Adds to the entry of `id`, which is made if there is none.
    fn apply(&mut self, id: u32, change: Usage) -> Result<()> {
        let at = match self.find(id)? {
            Some(at) => at,
            None => self.insert(id)?,
        };
        for (field, change) in [(DQB_CURINODES, change.inodes), (DQB_CURSPACE, change.space)] {
            // Usage that was wrong before may not go below zero.
            let value = self.u64_at(at + field).saturating_add_signed(change);
            self.set_u64(at + field, value);
        }
        if id == 0 && self.is_free(at) {
            // An entry of zeros would be a free one.
            self.set_u64(at + DQB_ITIME, 1);
        }
        Ok(())
    }

    fn is_free(&self, at: usize) -> bool {
        self.bytes.get(at..at + ENTRY).is_some_and(|entry| entry.iter().all(|&byte| byte == 0))
    }

    fn find(&self, id: u32) -> Result<Option<usize>> {
        let mut block = BLOCK;
        for level in 0..DEPTH {
            let at = block + (id >> (24 - 8 * level) & 0xFF) as usize * 4;
            match self.u32_at(at) {
                0 => return Ok(None),
                next => block = self.block(next, at)?,
            }
        }
        let entries = (0..ENTRIES).map(|index| block + HEADER + index * ENTRY);
        let mut found = entries.filter(|&at| self.u32_at(at) == id && !self.is_free(at));
        found.next().map(Some).ok_or_else(|| {
            self.wrong(block, format!("the tree leads there for id {id}, but it has no entry"))
        })
    }

    /// A block of zeros: from the list of free ones, or behind the last.
    fn new_block(&mut self) -> Result<u32> {
        let free = self.u32_at(DQI_FREE_BLK);
        let number = if free != 0 {
            let at = self.block(free, DQI_FREE_BLK)?;
            let next = self.u32_at(at);
            self.set_u32(DQI_FREE_BLK, next);
            free
        } else {
            let number = self.u32_at(DQI_BLOCKS);
            self.set_u32(DQI_BLOCKS, number + 1);
            let end = (number as usize + 1) * BLOCK;
            if end > LIMIT {
                return Err(Error::NoSpace("the quota file is full".to_owned()));
            }
            if self.bytes.len() < end {
                self.bytes.resize(end, 0);
            }
            number
        };
        let at = self.block(number, DQI_BLOCKS)?;
        self.bytes[at..at + BLOCK].fill(0);
        Ok(number)
    }

    /// Makes an entry of zeros for `id` and the references to it.
    fn insert(&mut self, id: u32) -> Result<usize> {
        let leaf = match self.u32_at(DQI_FREE_ENTRY) {
            0 => {
                let number = self.new_block()?;
                self.set_u32(DQI_FREE_ENTRY, number);
                number
            }
            number => number,
        };
        let block = self.block(leaf, DQI_FREE_ENTRY)?;
        let free = (0..ENTRIES).map(|index| block + HEADER + index * ENTRY);
        let at = free.into_iter().find(|&at| self.is_free(at)).ok_or_else(|| {
            self.wrong(block, "the block is listed as having room, but it is full")
        })?;
        let used = self.u32_at(block + 8) & 0xFFFF;
        if used as usize + 1 >= ENTRIES {
            // A full block leaves the list of those with room; it is the list's head.
            let next = self.u32_at(block);
            self.set_u32(DQI_FREE_ENTRY, next);
            self.set_u32(block, 0);
            if next != 0 {
                let next = self.block(next, block)?;
                self.set_u32(next + 4, 0);
            }
        }
        self.set_u32(block + 8, used + 1);
        self.set_u32(at, id);
        let mut parent = BLOCK;
        for level in 0..DEPTH {
            let slot = parent + (id >> (24 - 8 * level) & 0xFF) as usize * 4;
            if level == DEPTH - 1 {
                self.set_u32(slot, leaf);
                break;
            }
            let next = match self.u32_at(slot) {
                0 => {
                    let number = self.new_block()?;
                    self.set_u32(slot, number);
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
        file.set_u32(0, MAGIC[0]);
        file.set_u32(4, 1);
        file.set_u32(DQI_BLOCKS, 2);
        file
    }

    #[test]
    fn entries_are_made_and_found() {
        let mut file = empty();
        file.check().unwrap();
        let ids = [0, 1, 255, 256, 65_534, 1000, u32::MAX].into_iter().chain(2000..2100);
        for id in ids.clone() {
            assert_eq!(file.find(id).unwrap(), None);
            file.apply(id, Usage { space: 4096, inodes: 1 }).unwrap();
            file.apply(id, Usage { space: 4096, inodes: 0 }).unwrap();
        }
        for id in ids {
            let at = file.find(id).unwrap().unwrap();
            assert_eq!(file.u64_at(at + DQB_CURSPACE), 8192);
            assert_eq!(file.u64_at(at + DQB_CURINODES), 1);
        }
        file.apply(0, Usage { space: -8192, inodes: -1 }).unwrap();
        assert!(file.find(0).unwrap().is_some());
        file.check().unwrap();
    }

    #[test]
    fn damage_is_named() {
        let mut file = empty();
        file.set_u32(BLOCK, 77);
        assert!(matches!(file.find(5), Err(Error::Corrupt { .. })));
        file.set_u32(DQI_FREE_ENTRY, 1 << 30);
        assert!(matches!(file.insert(5), Err(Error::Corrupt { .. })));
        file.bytes.truncate(100);
        assert!(file.check().is_err());
    }
}
