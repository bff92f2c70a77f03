//! The commit: all changes at once, in copies of the tree blocks that they touch.
//!
//! Everything is computed in memory first: trees of files, checksums, then extents, free space,
//! block groups and roots until nothing changes any more, because each of these trees takes and
//! frees blocks itself. Then new blocks and data are written to free space and flushed, and the
//! superblock leads from the old trees to the new ones. Of its 4 KiB only the first 512 bytes
//! change, so that even a torn write leaves the old one or the new one.

mod csums;
mod draft;
mod extent_item;
mod free_space;
mod refs;
mod trees;
mod write;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use zerocopy::{FromBytes, IntoBytes};

use super::cursor::Root;
use super::layout::{
    BlockGroupItem, FileExtentHead, FileExtentTail, Key, RootItem, RootItemV2, item_type, objectid,
    split,
};
use super::node::Value;
use super::space::Space;
use super::units::{Logical, TreeId};
use super::volume::Volume;
use super::{content, inode};
use crate::error::{Error, Result};
use crate::filesystem::CommitReport;
use draft::Draft;
use refs::{Pending, Ref};

/// Rounds until extents, free space and roots must agree; in practice three are enough.
const ROUNDS_MAX: usize = 64;
/// The bit of a quota group status that says that the numbers are not right.
const QGROUP_INCONSISTENT: u64 = 1 << 2;

/// A commit that is being computed.
pub(super) struct Commit<'a> {
    volume: &'a Volume,
    space: Space,
    transid: u64,
    /// The new roots of the trees that were touched.
    roots: BTreeMap<TreeId, Root>,
    /// By how many blocks trees grew.
    grown: BTreeMap<TreeId, i64>,
    /// The new tree blocks.
    drafts: BTreeMap<u64, Draft>,
    /// References that wait to be put into the extent tree.
    pending: BTreeMap<u64, Pending>,
    /// Extents that were allocated (true) or freed, for the free space tree.
    moves: VecDeque<(bool, u64, u64)>,
    /// By how many bytes the use of block groups changed.
    group_use: BTreeMap<u64, i64>,
    /// By how many bytes the use of the file system changed.
    bytes_used: i64,
    /// The new data that something refers to.
    new_data: BTreeSet<u64>,
}

/// Commits what waits in a volume.
pub(super) fn run(volume: &mut Volume) -> Result<CommitReport> {
    if !volume.is_dirty() {
        return Ok(CommitReport::default());
    }
    super::new_chunk::make_room(volume)?;
    mark_quota(volume)?;
    let space = volume.space.clone().unwrap_or_else(|| Space::new(volume));
    let mut commit = Commit {
        volume: &*volume,
        space,
        transid: volume.transid(),
        roots: BTreeMap::new(),
        grown: BTreeMap::new(),
        drafts: BTreeMap::new(),
        pending: BTreeMap::new(),
        moves: VecDeque::new(),
        group_use: BTreeMap::new(),
        bytes_used: 0,
        new_data: BTreeSet::new(),
    };
    commit.apply_changes()?;
    commit.new_data = volume.data.keys().copied().filter(|at| commit.gained(*at)).collect();
    commit.add_sums()?;
    commit.settle()?;
    let (report, sb) = commit.write()?;
    volume.committed(sb);
    Ok(report)
}

/// Quota groups are not counted here: like the kernel in such a case, says that they are not right.
fn mark_quota(volume: &mut Volume) -> Result<()> {
    let tree = TreeId(objectid::QUOTA_TREE);
    if !volume.has_root(tree)? {
        return Ok(());
    }
    let key = Key::new(0, item_type::QGROUP_STATUS, 0);
    if let Some(item) = volume.get(tree, key)? {
        let mut item = item.to_vec();
        // version, generation, flags
        let flags = crate::bytes::le64(&item, 16).unwrap_or_default() | QGROUP_INCONSISTENT;
        if let Some(place) = item.get_mut(16..24) {
            place.copy_from_slice(&flags.to_le_bytes());
            volume.put(tree, key, item)?;
        }
    }
    Ok(())
}

impl Commit<'_> {
    /// Puts all changes into copies of the trees.
    fn apply_changes(&mut self) -> Result<()> {
        let volume = self.volume;
        for (&tree, changes) in &volume.changes {
            for (&key, change) in changes {
                let before = self.get(tree, key)?;
                match (&before, change) {
                    (None, None) => continue,
                    (Some(before), Some(after)) if **before == **after => continue,
                    _ => {}
                }
                let after = change.clone().map(Value::from);
                if tree.is_subvolume() && key.item_type == item_type::EXTENT_DATA {
                    for (item, delta) in [(&before, -1), (&after, 1)] {
                        if let Some(item) = item {
                            self.refer(tree, key, item, delta)?;
                        }
                    }
                }
                self.set(tree, key, after)?;
            }
        }
        Ok(())
    }

    /// Counts a reference of a piece of a file to its extent.
    fn refer(&mut self, tree: TreeId, key: Key, item: &[u8], delta: i64) -> Result<()> {
        let Some((at, bytes, offset)) = data_extent(item) else { return Ok(()) };
        let offset = key.offset.wrapping_sub(offset);
        let what = Ref::Data { root: tree.0, inode: key.objectid, offset };
        self.count_data(at, bytes, what, delta)
    }

    /// Brings extents, free space, block groups and roots into line with each other.
    fn settle(&mut self) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            while let Some((at, pending)) = self.pending.pop_first() {
                self.apply_refs(at, pending)?;
            }
            while let Some((allocated, start, length)) = self.moves.pop_front() {
                self.move_space(allocated, start, length)?;
            }
            if !self.pending.is_empty() {
                continue;
            }
            self.update_groups()?;
            if !self.pending.is_empty() {
                continue;
            }
            self.update_roots()?;
            if self.pending.is_empty() && self.moves.is_empty() {
                return Ok(());
            }
        }
        Err(Error::corrupt(
            "extent tree",
            "the commit",
            format!("its trees do not settle in {ROUNDS_MAX} rounds"),
        ))
    }

    /// Writes how full the block groups are.
    fn update_groups(&mut self) -> Result<()> {
        let tree = self.volume.block_group_tree();
        let changed: Vec<(u64, i64)> =
            self.group_use.iter().map(|(start, delta)| (*start, *delta)).collect();
        for (start, delta) in changed {
            let corrupt =
                |detail: String| Error::corrupt("block group", Logical(start).to_string(), detail);
            let length = self.volume.store.chunks.chunk_at(Logical(start)).map(|c| c.length);
            let length = length.ok_or_else(|| corrupt("it has no chunk".into()))?;
            let key = Key::new(start, item_type::BLOCK_GROUP_ITEM, length);
            let old = self.volume.get(tree, key)?;
            let old = old.ok_or_else(|| corrupt("its item is missing".into()))?;
            let mut item = BlockGroupItem::read_from_bytes(&old)
                .map_err(|_| corrupt(format!("its item has {} bytes", old.len())))?;
            let used = item.used.get().checked_add_signed(delta).filter(|used| *used <= length);
            let used = used.ok_or_else(|| {
                corrupt(format!("{} bytes are used of {length}, now {delta}", item.used.get()))
            })?;
            item.used = used.into();
            if self.get(tree, key)?.is_none_or(|now| *now != *item.as_bytes()) {
                self.set(tree, key, Some(Value::copy(item.as_bytes())))?;
            }
        }
        Ok(())
    }

    /// Writes where the trees begin.
    fn update_roots(&mut self) -> Result<()> {
        let above = TreeId(objectid::ROOT_TREE);
        let roots: Vec<Root> = self.roots.values().copied().collect();
        for root in roots {
            if matches!(root.tree.0, objectid::ROOT_TREE | objectid::CHUNK_TREE) {
                continue;
            }
            let key = self.volume.root(root.tree)?.key;
            let old = self.volume.get(above, key)?.ok_or_else(|| {
                Error::corrupt("root item", root.tree.to_string(), "it is missing")
            })?;
            let grown = self.grown.get(&root.tree).copied().unwrap_or(0);
            let new = self.root_item(&old, root, grown)?;
            if self.get(above, key)?.is_none_or(|now| *now != *new) {
                self.set(above, key, Some(Value::copy(&new)))?;
            }
        }
        Ok(())
    }

    fn root_item(&self, old: &[u8], root: Root, grown: i64) -> Result<Vec<u8>> {
        let mut out = old.to_vec();
        let corrupt = || Error::corrupt("root item", root.tree.to_string(), "it is too short");
        let (item, rest) = RootItem::mut_from_prefix(&mut out).map_err(|_| corrupt())?;
        let before = item.generation.get();
        item.bytenr = root.at.0.into();
        item.level = root.level;
        item.generation = self.transid.into();
        let bytes = grown * i64::from(self.volume.sb().node_size);
        item.bytes_used = item.bytes_used.get().saturating_add_signed(bytes).into();
        if let Ok((more, _)) = RootItemV2::mut_from_prefix(rest) {
            if more.generation_v2.get() != before {
                more.as_mut_bytes().fill(0);
            }
            more.generation_v2 = self.transid.into();
            if root.tree.is_subvolume() {
                more.ctransid = self.transid.into();
                more.ctime = inode::timespec(self.volume.now);
            }
        }
        Ok(out)
    }
}

/// Address, bytes and offset of the extent that an item of a file refers to.
fn data_extent(item: &[u8]) -> Option<(u64, u64, u64)> {
    let (head, rest) = split::<FileExtentHead>(item)?;
    if head.r#type == content::INLINE {
        return None;
    }
    let (tail, _) = split::<FileExtentTail>(rest)?;
    let at = tail.disk_bytenr.get();
    (at != 0).then_some((at, tail.disk_num_bytes.get(), tail.offset.get()))
}
