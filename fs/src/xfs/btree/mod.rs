//! The B+trees of allocation groups: free space by block and by size, inodes, free inodes, owners,
//! shared blocks. One code for all: records and keys are bytes, and [`Tree`] knows how they compare.

mod edit;

use crate::error::{Error, Result};
use crate::num::{to_u16, to_u32, to_u64};
use crate::xfs::ag::{Agf, Agi, MAX_LEVELS};
use crate::xfs::free::{Freed, Owner};
use crate::xfs::num;
use crate::xfs::store::BufferType;
use crate::xfs::volume::Volume;

const NULLAGBLOCK: u32 = u32::MAX;
const CRC: usize = 52;
/// No record is longer.
const RECORD_MAX: usize = 24;
/// No key of a node is longer.
const KEY_MAX: usize = 40;
/// The bit in an owner's offset that says "unwritten"; keys do not have it.
pub(in crate::xfs) const RMAP_UNWRITTEN: u64 = 1 << 61;

/// One of the trees of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Free space by block.
    Bno,
    /// Free space by size.
    Cnt,
    /// Chunks of inodes.
    Ino,
    /// Chunks of inodes with free ones.
    Fino,
    /// Owners of blocks.
    Rmap,
    /// Shared blocks.
    Refc,
}

/// The order of records.
pub type Order = (u64, u64, u64);
/// A record; its tree knows how many bytes count.
pub type Record = [u8; RECORD_MAX];
type Key = [u8; KEY_MAX];

impl Tree {
    fn name(self) -> &'static str {
        match self {
            Self::Bno => "free space tree (by block)",
            Self::Cnt => "free space tree (by size)",
            Self::Ino => "inode tree",
            Self::Fino => "free inode tree",
            Self::Rmap => "reverse map tree",
            Self::Refc => "reference count tree",
        }
    }
    fn magic(self, v5: bool) -> u32 {
        match (self, v5) {
            (Self::Bno, true) => 0x4142_3342,
            (Self::Bno, false) => 0x4142_5442,
            (Self::Cnt, true) => 0x4142_3343,
            (Self::Cnt, false) => 0x4142_5443,
            (Self::Ino, true) => 0x4941_4233,
            (Self::Ino, false) => 0x4941_4254,
            (Self::Fino, true) => 0x4649_4233,
            (Self::Fino, false) => 0x4649_4254,
            (Self::Rmap, _) => 0x524D_4233,
            (Self::Refc, _) => 0x5233_4643,
        }
    }
    fn record_len(self) -> usize {
        match self {
            Self::Bno | Self::Cnt => 8,
            Self::Ino | Self::Fino => 16,
            Self::Rmap => 24,
            Self::Refc => 12,
        }
    }
    fn key_len(self) -> usize {
        match self {
            Self::Bno | Self::Cnt => 8,
            Self::Ino | Self::Fino | Self::Refc => 4,
            Self::Rmap => 40,
        }
    }
    /// The order of a record, or of the (low) key of a node.
    fn order(self, bytes: &[u8], is_key: bool) -> Order {
        let word = |at| u64::from(num::be32(bytes, at));
        match self {
            Self::Bno | Self::Ino | Self::Fino | Self::Refc => (word(0), 0, 0),
            Self::Cnt => (word(4), word(0), 0),
            Self::Rmap => {
                let at = if is_key { 4 } else { 8 };
                (word(0), num::be64(bytes, at), num::be64(bytes, at + 8) & !RMAP_UNWRITTEN)
            }
        }
    }
    /// The order of a record.
    pub fn order_of(self, record: &Record) -> Order {
        self.order(record, false)
    }
    /// The key that a node has for a child with these records.
    fn key_of_records(self, records: &[Record]) -> Key {
        let mut key = [0; KEY_MAX];
        let Some(first) = records.first() else { return key };
        if self != Self::Rmap {
            key[..self.key_len()].copy_from_slice(&first[..self.key_len()]);
            return key;
        }
        put_rmap_key(&mut key, 0, self.order_of(first));
        let high = records.iter().map(rmap_high).max().unwrap_or_default();
        put_rmap_key(&mut key, 20, high);
        key
    }
    /// The key that a node has for a child with these children.
    fn key_of_children(self, children: &[(Key, u32)]) -> Key {
        let mut key = children.first().map_or([0; KEY_MAX], |(key, _)| *key);
        if self == Self::Rmap {
            let high = children.iter().map(|(key, _)| high_of(key)).max().unwrap_or_default();
            put_rmap_key(&mut key, 20, high);
        }
        key
    }
}

fn put_rmap_key(key: &mut Key, at: usize, order: Order) {
    num::put32(key, at, to_u32(order.0));
    num::put64(key, at + 4, order.1);
    num::put64(key, at + 12, order.2);
}

fn high_of(key: &Key) -> Order {
    (num::be32(key, 20).into(), num::be64(key, 24), num::be64(key, 32))
}

/// The last that a record of an owner covers.
fn rmap_high(record: &Record) -> Order {
    let (start, owner, offset) = Tree::Rmap.order_of(record);
    let more = u64::from(num::be32(record, 4)).saturating_sub(1);
    // Blocks of trees, and owners that are no inodes, have no offset that counts.
    let still = owner >> 63 != 0 || offset >> 62 & 1 != 0;
    (start + more, owner, if still { offset } else { offset.saturating_add(more) })
}

/// A block of a tree, taken apart.
struct Node {
    level: u16,
    left: u32,
    right: u32,
    records: Vec<Record>,
    children: Vec<(Key, u32)>,
}

impl Node {
    fn len(&self) -> usize {
        if self.level == 0 { self.records.len() } else { self.children.len() }
    }
    fn key(&self, tree: Tree) -> Key {
        if self.level == 0 {
            tree.key_of_records(&self.records)
        } else {
            tree.key_of_children(&self.children)
        }
    }
}

/// A tree of one group.
#[derive(Clone, Copy, Debug)]
struct At {
    ag: u32,
    tree: Tree,
}

impl Volume {
    fn btree_header(&self) -> usize {
        if self.sb.is_v5() { 56 } else { 16 }
    }

    /// Most records or children in a block.
    fn btree_most(&self, tree: Tree, level: u16) -> usize {
        let room = self.sb.block_size() - self.btree_header();
        if level == 0 { room / tree.record_len() } else { room / (tree.key_len() + 4) }
    }

    fn btree_root(&self, at: At) -> Result<(u32, u32)> {
        let of_agf = |pick: fn(&Agf) -> (u32, u32)| self.agf(at.ag).map(|agf| pick(&agf));
        let of_agi = |pick: fn(&Agi) -> (u32, u32)| self.agi(at.ag).map(|agi| pick(&agi));
        match at.tree {
            Tree::Bno => of_agf(|agf| (agf.agf_roots[0].get(), agf.agf_levels[0].get())),
            Tree::Cnt => of_agf(|agf| (agf.agf_roots[1].get(), agf.agf_levels[1].get())),
            Tree::Rmap => of_agf(|agf| (agf.agf_roots[2].get(), agf.agf_levels[2].get())),
            Tree::Refc => of_agf(|agf| (agf.agf_refcount_root.get(), agf.agf_refcount_level.get())),
            Tree::Ino => of_agi(|agi| (agi.agi_root.get(), agi.agi_level.get())),
            Tree::Fino => of_agi(|agi| (agi.agi_free_root.get(), agi.agi_free_level.get())),
        }
    }

    fn set_btree_root(&mut self, at: At, root: u32, levels: u32) -> Result<()> {
        if levels > MAX_LEVELS {
            return Err(Error::NoSpace(format!("the {} has {levels} levels", at.tree.name())));
        }
        match at.tree {
            Tree::Bno | Tree::Cnt | Tree::Rmap => self.change_agf(at.ag, |agf| {
                let index = match at.tree {
                    Tree::Bno => 0,
                    Tree::Cnt => 1,
                    _ => 2,
                };
                agf.agf_roots[index].set(root);
                agf.agf_levels[index].set(levels);
            }),
            Tree::Refc => self.change_agf(at.ag, |agf| {
                agf.agf_refcount_root.set(root);
                agf.agf_refcount_level.set(levels);
            }),
            Tree::Ino => self.change_agi(at.ag, |agi| {
                agi.agi_root.set(root);
                agi.agi_level.set(levels);
            }),
            Tree::Fino => self.change_agi(at.ag, |agi| {
                agi.agi_free_root.set(root);
                agi.agi_free_level.set(levels);
            }),
        }
    }

    fn read_node(&self, at: At, block: u32, level: u16) -> Result<Node> {
        let tree = at.tree;
        let wrong = |detail: String| {
            Error::corrupt(tree.name(), format!("block {block} of group {}", at.ag), detail)
        };
        self.check_ag_block(tree.name(), at.ag, block)?;
        let place = self.sb.daddr(self.sb.join(at.ag, block));
        let bytes = self.store.read(place, self.sb.block_size(), |bytes| {
            let v5 = self.sb.is_v5();
            if num::be32(bytes, 0) != tree.magic(v5) {
                return Err(wrong("its magic number is wrong".into()));
            }
            if v5 {
                if num::be64(bytes, 16) != place.0
                    || num::be32(bytes, 48) != at.ag
                    || bytes.get(32..48) != Some(&self.sb.meta_uuid())
                {
                    return Err(wrong("it belongs elsewhere".into()));
                }
                if !num::is_sealed(bytes, CRC) {
                    return Err(wrong("its checksum is wrong".into()));
                }
            }
            Ok(())
        })?;
        if num::be16(&bytes, 4) != level {
            return Err(wrong(format!("its level is {}, not {level}", num::be16(&bytes, 4))));
        }
        let count = usize::from(num::be16(&bytes, 6));
        let most = self.btree_most(tree, level);
        if count > most {
            return Err(wrong(format!("it has {count} records, and room for {most}")));
        }
        let mut node = Node {
            level,
            left: num::be32(&bytes, 8),
            right: num::be32(&bytes, 12),
            records: Vec::new(),
            children: Vec::new(),
        };
        let body = &bytes[self.btree_header()..];
        if level == 0 {
            let len = tree.record_len();
            node.records.reserve(count + 1);
            for chunk in body.chunks_exact(len).take(count) {
                let mut record = [0; RECORD_MAX];
                record[..len].copy_from_slice(chunk);
                node.records.push(record);
            }
            if node.records.windows(2).any(|w| tree.order_of(&w[0]) >= tree.order_of(&w[1])) {
                return Err(wrong("its records are not in order".into()));
            }
        } else {
            let len = tree.key_len();
            node.children.reserve(count + 1);
            for (index, chunk) in body.chunks_exact(len).take(count).enumerate() {
                let mut key = [0; KEY_MAX];
                key[..len].copy_from_slice(chunk);
                let child = num::be32(body, most * len + index * 4);
                node.children.push((key, child));
            }
            let order = |child: &(Key, u32)| tree.order(&child.0, true);
            if count == 0 || node.children.windows(2).any(|w| order(&w[0]) >= order(&w[1])) {
                return Err(wrong("its keys are not in order".into()));
            }
        }
        Ok(node)
    }

    fn write_node(&mut self, at: At, block: u32, node: &Node) {
        let tree = at.tree;
        let mut bytes = vec![0; self.sb.block_size()];
        let place = self.sb.daddr(self.sb.join(at.ag, block));
        num::put32(&mut bytes, 0, tree.magic(true));
        num::put16(&mut bytes, 4, node.level);
        num::put16(&mut bytes, 6, to_u16(node.len()));
        num::put32(&mut bytes, 8, node.left);
        num::put32(&mut bytes, 12, node.right);
        num::put64(&mut bytes, 16, place.0);
        num::put(&mut bytes, 32, &self.sb.meta_uuid());
        num::put32(&mut bytes, 48, at.ag);
        let head = self.btree_header();
        if node.level == 0 {
            let len = tree.record_len();
            for (index, record) in node.records.iter().enumerate() {
                num::put(&mut bytes, head + index * len, &record[..len]);
            }
        } else {
            let len = tree.key_len();
            let pointers = head + self.btree_most(tree, node.level) * len;
            for (index, (key, child)) in node.children.iter().enumerate() {
                num::put(&mut bytes, head + index * len, &key[..len]);
                num::put32(&mut bytes, pointers + index * 4, *child);
            }
        }
        num::seal(&mut bytes, CRC);
        self.store.write(place, BufferType::Btree, bytes);
    }

    /// The root of a new tree.
    pub(in crate::xfs) fn new_root(&mut self, ag: u32, tree: Tree, block: u32, records: &[Record]) {
        let (left, right) = (NULLAGBLOCK, NULLAGBLOCK);
        let node = Node { level: 0, left, right, records: records.to_vec(), children: Vec::new() };
        self.write_node(At { ag, tree }, block, &node);
    }

    /// Changes the pointer to the left neighbour of a block.
    fn set_left(&mut self, at: At, block: u32, level: u16, left: u32) -> Result<()> {
        if block == NULLAGBLOCK {
            return Ok(());
        }
        let mut node = self.read_node(at, block, level)?;
        node.left = left;
        self.write_node(at, block, &node);
        Ok(())
    }

    /// A block for a tree.
    fn take_tree_block(&mut self, at: At) -> Result<u32> {
        let block = match at.tree {
            // A block of the list may be one that a tree gave back in this run: it goes through
            // the log.
            Tree::Bno | Tree::Cnt | Tree::Rmap => self.agfl_take(at.ag)?,
            Tree::Ino | Tree::Fino => self.alloc_in_group(at.ag, Owner::INOBT)?,
            Tree::Refc => self.alloc_in_group(at.ag, Owner::REFC)?,
        };
        self.count_tree_block(at, 1)?;
        Ok(block)
    }

    fn give_tree_block(&mut self, at: At, block: u32) -> Result<()> {
        self.count_tree_block(at, -1)?;
        let place = self.sb.join(at.ag, block);
        let sector = self.sb.daddr(place).0;
        self.store.forget(sector..sector + to_u64(self.sb.block_size() / 512));
        let owner = match at.tree {
            Tree::Bno | Tree::Cnt | Tree::Rmap => return self.agfl_give(at.ag, block),
            Tree::Ino | Tree::Fino => Owner::INOBT,
            Tree::Refc => Owner::REFC,
        };
        self.freed.push(Freed { block: place, count: 1, owner });
        Ok(())
    }

    fn count_tree_block(&mut self, at: At, change: i32) -> Result<()> {
        let add = |field: &mut zerocopy::byteorder::big_endian::U32| {
            field.set(field.get().saturating_add_signed(change));
        };
        let counted = self.sb.has_inobtcount();
        match at.tree {
            Tree::Bno | Tree::Cnt => self.change_agf(at.ag, |agf| add(&mut agf.agf_btreeblks)),
            Tree::Rmap => self.change_agf(at.ag, |agf| {
                add(&mut agf.agf_btreeblks);
                add(&mut agf.agf_rmap_blocks);
            }),
            Tree::Refc => self.change_agf(at.ag, |agf| add(&mut agf.agf_refcount_blocks)),
            Tree::Ino if counted => self.change_agi(at.ag, |agi| add(&mut agi.agi_iblocks)),
            Tree::Fino if counted => self.change_agi(at.ag, |agi| add(&mut agi.agi_fblocks)),
            Tree::Ino | Tree::Fino => Ok(()),
        }
    }

    /// The last record whose order is not above `order`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`], as of all that follow.
    pub(in crate::xfs) fn tree_at_or_before(
        &self,
        ag: u32,
        tree: Tree,
        order: Order,
    ) -> Result<Option<Record>> {
        let at = At { ag, tree };
        let (mut block, levels) = self.btree_root(at)?;
        for level in (0..to_u16(levels)).rev() {
            let node = self.read_node(at, block, level)?;
            if level == 0 {
                let past = node.records.partition_point(|record| tree.order_of(record) <= order);
                return Ok(past.checked_sub(1).map(|index| node.records[index]));
            }
            let past = node.children.partition_point(|(key, _)| tree.order(key, true) <= order);
            let Some(index) = past.checked_sub(1) else { return Ok(None) };
            block = node.children[index].1;
        }
        Ok(None)
    }

    /// Records from the first whose order is not below `order`, until `visit` says no.
    ///
    /// # Errors
    /// Those of `visit`, too.
    pub(in crate::xfs) fn tree_from(
        &self,
        ag: u32,
        tree: Tree,
        order: Order,
        mut visit: impl FnMut(&Record) -> Result<bool>,
    ) -> Result<()> {
        let at = At { ag, tree };
        let (root, levels) = self.btree_root(at)?;
        self.visit_from(at, root, to_u16(levels) - 1, order, &mut visit)?;
        Ok(())
    }

    fn visit_from(
        &self,
        at: At,
        block: u32,
        level: u16,
        order: Order,
        visit: &mut impl FnMut(&Record) -> Result<bool>,
    ) -> Result<bool> {
        let node = self.read_node(at, block, level)?;
        if level == 0 {
            for record in node.records.iter().filter(|r| at.tree.order_of(r) >= order) {
                if !visit(record)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let past = node.children.partition_point(|(key, _)| at.tree.order(key, true) <= order);
        for (_, child) in &node.children[past.saturating_sub(1)..] {
            if !self.visit_from(at, *child, level - 1, order, visit)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The last record of a tree.
    pub(in crate::xfs) fn tree_last(&self, ag: u32, tree: Tree) -> Result<Option<Record>> {
        self.tree_at_or_before(ag, tree, (u64::MAX, u64::MAX, u64::MAX))
    }

    /// Records of owners that have blocks in `first..end`.
    pub(in crate::xfs) fn owners_in(&self, ag: u32, first: u64, end: u64) -> Result<Vec<Record>> {
        let at = At { ag, tree: Tree::Rmap };
        let (root, levels) = self.btree_root(at)?;
        let mut found = Vec::new();
        self.visit_owners(at, root, to_u16(levels) - 1, first, end, &mut found)?;
        Ok(found)
    }

    fn visit_owners(
        &self,
        at: At,
        block: u32,
        level: u16,
        first: u64,
        end: u64,
        found: &mut Vec<Record>,
    ) -> Result<()> {
        let node = self.read_node(at, block, level)?;
        for record in &node.records {
            if rmap_high(record).0 >= first && at.tree.order_of(record).0 < end {
                found.push(*record);
            }
        }
        for (key, child) in &node.children {
            if high_of(key).0 >= first && at.tree.order(key, true).0 < end {
                self.visit_owners(at, *child, level - 1, first, end, found)?;
            }
        }
        Ok(())
    }
}
