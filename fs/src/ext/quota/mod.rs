//! Quota accounting (the `quota` feature): space and inodes per user, group and project, kept in
//! hidden files that must agree with the inodes at every commit.
//!
//! [`usage`] counts, [`tree`] is the format of the files, and [`flush`] brings the files up to date.

mod tree;
pub(super) mod usage;

use super::alloc::check_own;
use super::map;
use super::volume::Volume;
use crate::error::Result;
use crate::ext::units::Ino;
use crate::num::to_u64;
use tree::{LIMIT, QuotaFile};
use usage::{Usage, files};

/// Brings the quota files up to date, wholly or not at all. Part of every seal and commit.
pub(super) fn flush(vol: &mut Volume) -> Result<()> {
    vol.attempt(|vol| {
        let changes = std::mem::take(&mut vol.quota);
        for (kind, ino) in files(&vol.sb).into_iter().enumerate() {
            let ours = changes.of_kind(kind);
            if !ours.is_empty() {
                update(vol, kind, ino, &ours)?;
            }
        }
        Ok(())
    })
}

fn update(vol: &mut Volume, kind: usize, ino: Ino, changes: &[(u32, Usage)]) -> Result<()> {
    let mut inode = vol.read_inode(ino)?;
    let old = map::read_all(vol, &inode, LIMIT)?;
    let mut file = QuotaFile::parse(old.clone(), kind)?;
    for &(id, change) in changes {
        file.apply(id, change)?;
    }
    let size = vol.block_size();
    let (known, new) = file.bytes().split_at(old.len());
    for (lblk, (now, before)) in known.chunks(size).zip(old.chunks(size)).enumerate() {
        if now == before {
            continue;
        }
        let (number, block) = map::read_block(vol, &inode, to_u64(lblk))?;
        let mut block = block.to_vec();
        block[..now.len()].copy_from_slice(now);
        if vol.store.is_new_data(number) {
            vol.store.write_data(number, block)?;
        } else {
            check_own(vol, number)?;
            vol.store.write_meta(number, block)?;
        }
    }
    if !new.is_empty() {
        map::append(vol, &mut inode, new)?;
        vol.write_inode(&inode)?;
    }
    Ok(())
}
