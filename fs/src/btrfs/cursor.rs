//! Searches and walks in a tree as it is on the device.

use super::layout::Key;
use super::node::{Node, Value};
use super::store::{Expected, Store};
use super::units::{Logical, TreeId};
use crate::error::{Error, Result};

/// The root of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The tree.
    pub tree: TreeId,
    /// Address of its root.
    pub at: Logical,
    /// The root's level.
    pub level: u8,
    /// The root's generation.
    pub generation: u64,
}

/// A position in a tree: the blocks from the root to a leaf, and an index in each.
pub struct Cursor {
    root: Root,
    path: Vec<(Node, usize)>,
}

impl Cursor {
    /// A cursor at the first item whose key is not below `key`.
    pub fn seek(store: &Store, root: Root, key: Key) -> Result<Self> {
        let mut cursor = Self { root, path: Vec::new() };
        cursor.descend(store, |node| node.child_for(key))?;
        if let Some((leaf, index)) = cursor.path.last_mut() {
            *index = leaf.lower_bound(key);
        }
        Ok(cursor)
    }

    /// A cursor at the last item whose key is not above `key`; `None` where all are above.
    pub fn seek_last(store: &Store, root: Root, key: Key) -> Result<Option<(Key, Value)>> {
        let mut cursor = Self { root, path: Vec::new() };
        cursor.descend(store, |node| node.child_for(key))?;
        let Some((leaf, _)) = cursor.path.last() else { return Ok(None) };
        let bound = leaf.lower_bound(key);
        let index = if bound < leaf.len() && leaf.key(bound) == key { bound + 1 } else { bound };
        // All blocks but the first begin with a key that was not above the one looked for.
        Ok(index.checked_sub(1).map(|index| (leaf.key(index), leaf.value(index))))
    }

    /// Goes down from the last block of the path to a leaf; `choose` tells the way.
    fn descend(&mut self, store: &Store, choose: impl Fn(&Node) -> usize) -> Result<()> {
        loop {
            let expected = match self.path.last() {
                None => Expected {
                    at: self.root.at,
                    level: self.root.level,
                    generation: self.root.generation,
                    tree: self.root.tree,
                    first: None,
                    below: None,
                },
                Some((node, _)) if node.level() == 0 => return Ok(()),
                Some((node, index)) => {
                    let Some(pointer) = node.pointer(*index) else {
                        return Err(Error::corrupt(
                            "tree block",
                            node.at.to_string(),
                            format!("it has no pointer {index}"),
                        ));
                    };
                    let below = node.pointer(index + 1).map(|next| next.key);
                    Expected {
                        at: pointer.at,
                        level: node.level() - 1,
                        generation: pointer.generation,
                        tree: self.root.tree,
                        first: Some(pointer.key),
                        below: below.or_else(|| self.below()),
                    }
                }
            };
            let node = store.block(&expected)?;
            let index = choose(&node);
            self.path.push((node, index));
        }
    }

    /// The key that all of the last block's children are below.
    fn below(&self) -> Option<Key> {
        let above = self.path.len().saturating_sub(1);
        let parents = self.path[..above].iter().rev();
        parents.filter_map(|(node, index)| node.pointer(index + 1)).map(|next| next.key).next()
    }

    /// The item at the cursor, without moving; goes on to the next leaf where this one has ended.
    pub fn peek(&mut self, store: &Store) -> Result<Option<(Key, Value)>> {
        loop {
            let Some((leaf, index)) = self.path.last() else { return Ok(None) };
            if *index < leaf.len() {
                return Ok(Some((leaf.key(*index), leaf.value(*index))));
            }
            self.path.pop();
            loop {
                let Some((node, index)) = self.path.last_mut() else { return Ok(None) };
                if *index + 1 < node.len() {
                    *index += 1;
                    break;
                }
                self.path.pop();
            }
            self.descend(store, |_| 0)?;
        }
    }

    /// Moves to the next item.
    pub fn advance(&mut self) {
        if let Some((_, index)) = self.path.last_mut() {
            *index += 1;
        }
    }
}
