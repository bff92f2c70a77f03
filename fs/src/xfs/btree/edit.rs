//! Changing a tree: records in and out, blocks that are split, joined and evened out.

use super::{At, Key, NULLAGBLOCK, Node, Order, Record, Tree};
use crate::error::{Error, Result};
use crate::num::to_u16;
use crate::xfs::volume::Volume;

impl Volume {
    /// Adds a record, which must not be there.
    pub(in crate::xfs) fn tree_insert(
        &mut self,
        ag: u32,
        tree: Tree,
        record: &Record,
    ) -> Result<()> {
        let at = At { ag, tree };
        let (root, levels) = self.btree_root(at)?;
        let (key, split) = self.insert_below(at, root, to_u16(levels) - 1, record)?;
        if let Some(right) = split {
            let block = self.take_tree_block(at)?;
            let node = Node {
                level: to_u16(levels),
                left: NULLAGBLOCK,
                right: NULLAGBLOCK,
                records: Vec::new(),
                children: vec![(key, root), right],
            };
            self.write_node(at, block, &node);
            self.set_btree_root(at, block, levels + 1)?;
        }
        Ok(())
    }

    fn insert_below(
        &mut self,
        at: At,
        block: u32,
        level: u16,
        record: &Record,
    ) -> Result<(Key, Option<(Key, u32)>)> {
        let tree = at.tree;
        let mut node = self.read_node(at, block, level)?;
        let order = tree.order_of(record);
        if level == 0 {
            let place = node.records.partition_point(|other| tree.order_of(other) < order);
            if node.records.get(place).is_some_and(|other| tree.order_of(other) == order) {
                return Err(Error::corrupt(
                    tree.name(),
                    format!("group {}", at.ag),
                    format!("there is a record at {order:?} already"),
                ));
            }
            node.records.insert(place, *record);
        } else {
            let past = node.children.partition_point(|(key, _)| tree.order(key, true) <= order);
            let index = past.saturating_sub(1);
            let child = node.children[index].1;
            let (key, split) = self.insert_below(at, child, level - 1, record)?;
            node.children[index].0 = key;
            if let Some(right) = split {
                node.children.insert(index + 1, right);
            }
        }
        let mut split = None;
        if node.len() > self.btree_most(tree, level) {
            let new = self.take_tree_block(at)?;
            let middle = node.len().div_ceil(2);
            let mut right = Node {
                level,
                left: block,
                right: node.right,
                records: Vec::new(),
                children: Vec::new(),
            };
            if level == 0 {
                right.records = node.records.split_off(middle);
            } else {
                right.children = node.children.split_off(middle);
            }
            self.set_left(at, node.right, level, new)?;
            node.right = new;
            self.write_node(at, new, &right);
            split = Some((right.key(tree), new));
        }
        self.write_node(at, block, &node);
        Ok((node.key(tree), split))
    }

    /// Puts a record in the place of the one with the same order.
    pub(in crate::xfs) fn tree_replace(
        &mut self,
        ag: u32,
        tree: Tree,
        record: &Record,
    ) -> Result<()> {
        let at = At { ag, tree };
        let (root, levels) = self.btree_root(at)?;
        self.replace_below(at, root, to_u16(levels) - 1, record)?;
        Ok(())
    }

    fn replace_below(&mut self, at: At, block: u32, level: u16, record: &Record) -> Result<Key> {
        let tree = at.tree;
        let mut node = self.read_node(at, block, level)?;
        let order = tree.order_of(record);
        let missing = || {
            Error::corrupt(
                tree.name(),
                format!("group {}", at.ag),
                format!("there is no record at {order:?}"),
            )
        };
        if level == 0 {
            let place = node.records.partition_point(|other| tree.order_of(other) < order);
            let old = node.records.get_mut(place).filter(|old| tree.order_of(old) == order);
            *old.ok_or_else(missing)? = *record;
        } else {
            let past = node.children.partition_point(|(key, _)| tree.order(key, true) <= order);
            let index = past.checked_sub(1).ok_or_else(missing)?;
            let child = node.children[index].1;
            let key = self.replace_below(at, child, level - 1, record)?;
            if key == node.children[index].0 {
                return Ok(node.key(tree));
            }
            node.children[index].0 = key;
        }
        self.write_node(at, block, &node);
        Ok(node.key(tree))
    }

    /// Takes the record of this order away.
    pub(in crate::xfs) fn tree_remove(&mut self, ag: u32, tree: Tree, order: Order) -> Result<()> {
        let at = At { ag, tree };
        let (root, levels) = self.btree_root(at)?;
        self.remove_below(at, root, to_u16(levels) - 1, order)?;
        let (mut root, mut levels) = (root, levels);
        while levels > 1 {
            let node = self.read_node(at, root, to_u16(levels) - 1)?;
            let [(_, child)] = node.children[..] else { break };
            self.set_btree_root(at, child, levels - 1)?;
            self.give_tree_block(at, root)?;
            (root, levels) = (child, levels - 1);
        }
        Ok(())
    }

    /// Gives the key of the block then, and whether it has too few records.
    fn remove_below(
        &mut self,
        at: At,
        block: u32,
        level: u16,
        order: Order,
    ) -> Result<(Key, bool)> {
        let tree = at.tree;
        let mut node = self.read_node(at, block, level)?;
        let missing = || {
            Error::corrupt(
                tree.name(),
                format!("group {}", at.ag),
                format!("there is no record at {order:?}"),
            )
        };
        if level == 0 {
            let place = node.records.partition_point(|other| tree.order_of(other) < order);
            if node.records.get(place).is_none_or(|other| tree.order_of(other) != order) {
                return Err(missing());
            }
            node.records.remove(place);
        } else {
            let past = node.children.partition_point(|(key, _)| tree.order(key, true) <= order);
            let index = past.checked_sub(1).ok_or_else(missing)?;
            let child = node.children[index].1;
            let (key, few) = self.remove_below(at, child, level - 1, order)?;
            node.children[index].0 = key;
            if few && node.children.len() > 1 {
                let left = if index + 1 < node.children.len() { index } else { index - 1 };
                // Merging may change this very block's neighbours, not the block.
                self.balance(at, &mut node, left, level - 1)?;
            }
        }
        self.write_node(at, block, &node);
        Ok((node.key(tree), node.len() < self.btree_most(tree, level) / 2))
    }

    /// Joins the children `left` and `left + 1` of a node, or shares their records evenly.
    fn balance(&mut self, at: At, parent: &mut Node, left: usize, level: u16) -> Result<()> {
        let tree = at.tree;
        let (block, next) = (parent.children[left].1, parent.children[left + 1].1);
        let mut first = self.read_node(at, block, level)?;
        let mut second = self.read_node(at, next, level)?;
        first.records.append(&mut second.records);
        first.children.append(&mut second.children);
        if first.len() <= self.btree_most(tree, level) {
            first.right = second.right;
            self.set_left(at, second.right, level, block)?;
            self.write_node(at, block, &first);
            parent.children.remove(left + 1);
            parent.children[left].0 = first.key(tree);
            return self.give_tree_block(at, next);
        }
        let middle = first.len().div_ceil(2);
        if level == 0 {
            second.records = first.records.split_off(middle);
        } else {
            second.children = first.children.split_off(middle);
        }
        self.write_node(at, block, &first);
        self.write_node(at, next, &second);
        parent.children[left].0 = first.key(tree);
        parent.children[left + 1].0 = second.key(tree);
        Ok(())
    }
}
