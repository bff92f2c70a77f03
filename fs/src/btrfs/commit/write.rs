//! The end of a commit: what was computed goes to the device.

use std::sync::Arc;

use super::super::layout::objectid;
use super::super::superblock::{MIRRORS, SUPER_SIZE, Super};
use super::super::units::{Logical, TreeId};
use super::Commit;
use crate::error::{Error, Result};
use crate::filesystem::CommitReport;
use crate::num::to_u64;

/// Most bytes of one write.
const WRITE_MAX: usize = 1 << 20;

impl Commit<'_> {
    /// Writes blocks and data to free space, and then the superblock. Gives the new superblock.
    pub(super) fn write(&self) -> Result<(CommitReport, Super)> {
        let volume = self.volume;
        let sb = self.superblock()?;
        let chunk_root = volume.root(TreeId(objectid::CHUNK_TREE))?.root;
        let old = volume.store.block(&Self::expected_root(chunk_root))?;
        let chunk_uuid = old.header().map_or([0; 16], |header| header.chunk_tree_uuid);
        let mut report = CommitReport { transactions: 1, ..CommitReport::default() };
        let mut writes: Vec<(u64, Arc<[u8]>)> = Vec::new();
        for (&at, draft) in &self.drafts {
            let bytes = draft.bytes(&sb, Logical(at), self.transid, chunk_uuid).into();
            self.place(&mut writes, at, &bytes)?;
            report.metadata_blocks += 1;
        }
        for (&at, data) in &volume.data {
            if self.new_data.contains(&at) {
                self.place(&mut writes, at, &data.bytes)?;
                report.data_blocks += to_u64(data.bytes.len()) / u64::from(sb.sector_size);
            }
        }
        writes.sort_by_key(|(at, _)| *at);
        let device = volume.store.device();
        let mut writes = writes.into_iter().peekable();
        while let Some((at, bytes)) = writes.next() {
            // Blocks that lie one after the other go out together.
            let mut bytes = bytes.to_vec();
            while let Some((_, more)) = writes.next_if(|(next, more)| {
                *next == at + to_u64(bytes.len()) && bytes.len() + more.len() <= WRITE_MAX
            }) {
                bytes.extend_from_slice(&more);
            }
            device.write_at(at, &bytes)?;
        }
        device.flush()?;
        device.write_at(MIRRORS[0], &sb.bytes_at(MIRRORS[0]))?;
        device.flush()?;
        let size = sb.raw.dev_item.total_bytes.get();
        for at in MIRRORS.into_iter().skip(1) {
            if at + to_u64(SUPER_SIZE) <= size {
                device.write_at(at, &sb.bytes_at(at))?;
            }
        }
        device.flush()?;
        Ok((report, sb))
    }

    fn place(&self, writes: &mut Vec<(u64, Arc<[u8]>)>, at: u64, bytes: &Arc<[u8]>) -> Result<()> {
        for copy in self.volume.store.chunks.map(Logical(at), to_u64(bytes.len()))? {
            writes.push((copy.0, bytes.clone()));
        }
        Ok(())
    }

    /// The superblock after the commit: only its first 512 bytes change.
    fn superblock(&self) -> Result<Super> {
        let mut sb = self.volume.sb().clone();
        let raw = &mut sb.raw;
        let root = self.root(TreeId(objectid::ROOT_TREE))?;
        raw.generation = self.transid.into();
        raw.root = root.at.0.into();
        raw.root_level = root.level;
        let used = raw.bytes_used.get().checked_add_signed(self.bytes_used);
        raw.bytes_used = used
            .ok_or_else(|| {
                Error::corrupt("superblock", "bytes_used", "less is used than is freed now")
            })?
            .into();
        if let Some(root) = self.roots.get(&TreeId(objectid::CHUNK_TREE)) {
            raw.chunk_root = root.at.0.into();
            raw.chunk_root_level = root.level;
            raw.chunk_root_generation = self.transid.into();
        }
        if let Some(device) = &self.volume.device_item {
            raw.dev_item = *device;
        }
        if let Some(total) = self.volume.total_bytes {
            raw.total_bytes = total.into();
        }
        Ok(sb)
    }
}
