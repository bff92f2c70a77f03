//! Extent trees: looking up, and changing the right edge.

use super::mapping::{MAX_LBLK, Mapping, corrupt};
use super::node::{Entries, Extent, Index, MAX_DEPTH, MAX_LEN, Node};
use super::release::Release;
use crate::error::{Error, Result};
use crate::ext::alloc::{alloc_meta_block, free_meta_block};
use crate::ext::inode::Inode;
use crate::ext::units::{FileBlock, FsBlock};
use crate::ext::volume::Volume;

/// Entries that the root has room for.
const ROOT_ENTRIES: usize = 4;

/// Maps block `lblk`.
pub(super) fn lookup(vol: &Volume, inode: &Inode, lblk: FileBlock) -> Result<Mapping> {
    let mut node = Node::root(vol, inode)?;
    let mut end = MAX_LBLK;
    loop {
        let list = match node.entries {
            Entries::Leaf(list) => {
                let at = list.partition_point(|extent| extent.block <= lblk);
                let next = list.get(at).map_or(end, |extent| u64::from(extent.block));
                if let Some(extent) = at.checked_sub(1).and_then(|at| list.get(at)) {
                    let skip = lblk - extent.block;
                    if skip < extent.len {
                        return Ok(Mapping::Data {
                            start: extent.start + u64::from(skip),
                            len: u64::from(extent.len - skip),
                            unwritten: extent.unwritten,
                        });
                    }
                }
                return Ok(Mapping::Hole { len: next - u64::from(lblk) });
            }
            Entries::Index(list) => list,
        };
        let at = list.partition_point(|index| index.block <= lblk);
        end = list.get(at).map_or(end, |index| u64::from(index.block));
        let Some(index) = at.checked_sub(1).and_then(|at| list.get(at)) else {
            return Ok(Mapping::Hole { len: end - u64::from(lblk) });
        };
        node = Node::child(vol, inode, index.leaf, node.depth - 1, index.block, end)?;
    }
}

/// A tree read from end to end.
#[derive(Debug, Default)]
pub(in crate::ext) struct WholeTree {
    /// All extents, in logical order.
    pub(in crate::ext) extents: Vec<Extent>,
    /// The blocks of its nodes outside the inode.
    pub(in crate::ext) nodes: Vec<FsBlock>,
}

/// Reads and verifies every node of an inode's tree, `max_nodes` at most.
pub(in crate::ext) fn whole_tree(
    vol: &Volume,
    inode: &Inode,
    max_nodes: usize,
) -> Result<WholeTree> {
    let mut tree = WholeTree::default();
    let root = Node::root(vol, inode)?;
    add_node(vol, inode, root, MAX_LBLK, max_nodes, &mut tree)?;
    Ok(tree)
}

/// Adds a node for logical blocks up to `to`, and all nodes below it: at most [`MAX_DEPTH`] levels.
fn add_node(
    vol: &Volume,
    inode: &Inode,
    node: Node,
    to: u64,
    max_nodes: usize,
    tree: &mut WholeTree,
) -> Result<()> {
    let list = match node.entries {
        Entries::Leaf(list) => {
            tree.extents.extend(list);
            return Ok(());
        }
        Entries::Index(list) => list,
    };
    for (at, index) in list.iter().enumerate() {
        if tree.nodes.len() >= max_nodes {
            let detail = format!("the tree has more than {max_nodes} nodes");
            return Err(corrupt(inode, "extent tree", detail));
        }
        tree.nodes.push(index.leaf);
        let end = list.get(at + 1).map_or(to, |next| u64::from(next.block));
        let child = Node::child(vol, inode, index.leaf, node.depth - 1, index.block, end)?;
        add_node(vol, inode, child, end, max_nodes, tree)?;
    }
    Ok(())
}

/// The last child of an index node.
fn last_child(vol: &Volume, inode: &Inode, node: &Node, to: u64) -> Result<Option<(Index, Node)>> {
    let Entries::Index(list) = &node.entries else { return Ok(None) };
    let Some(&index) = list.last() else { return Ok(None) };
    let child = Node::child(vol, inode, index.leaf, node.depth - 1, index.block, to)?;
    Ok(Some((index, child)))
}

/// Whether `next` continues `last` so that one extent can hold both.
fn continues(last: &Extent, next: &Extent) -> bool {
    !last.unwritten
        && !next.unwritten
        && last.block + last.len == next.block
        && last.start + u64::from(last.len) == next.start
        && last.len + next.len <= MAX_LEN
}

/// Whether the right edge of this subtree has no room for one more extent.
fn is_full(vol: &Volume, inode: &Inode, node: &Node, extent: &Extent) -> Result<bool> {
    match &node.entries {
        Entries::Leaf(list) => {
            Ok(list.len() >= node.max && !list.last().is_some_and(|last| continues(last, extent)))
        }
        Entries::Index(list) if list.len() < node.max => Ok(false),
        Entries::Index(_) => match last_child(vol, inode, node, MAX_LBLK)? {
            Some((_, child)) => is_full(vol, inode, &child, extent),
            None => Ok(false),
        },
    }
}

/// Adds a run after everything that is mapped.
pub(super) fn push(
    vol: &mut Volume,
    inode: &mut Inode,
    lblk: FileBlock,
    start: FsBlock,
    len: u32,
) -> Result<()> {
    let mut at = 0;
    while at < len {
        let part = (len - at).min(MAX_LEN);
        let extent =
            Extent { block: lblk + at, len: part, start: start + u64::from(at), unwritten: false };
        push_extent(vol, inode, extent)?;
        at += part;
    }
    Ok(())
}

fn push_extent(vol: &mut Volume, inode: &mut Inode, extent: Extent) -> Result<()> {
    let mut root = Node::root(vol, inode)?;
    if is_full(vol, inode, &root, &extent)? {
        if root.depth >= MAX_DEPTH {
            return Err(Error::NoSpace(format!(
                "inode {} is in so many pieces that its extent tree cannot grow",
                inode.ino
            )));
        }
        // The root moves into a block of its own, under a new root.
        let first = root.first().unwrap_or_default();
        let block = alloc_meta_block(vol, inode, extent.start)?;
        let depth = root.depth;
        Node::for_block(vol, depth, root.entries).store_child(vol, inode, block)?;
        root = Node::empty_root();
        root.depth = depth + 1;
        root.entries = Entries::Index(vec![Index { block: first, leaf: block }]);
    }
    if push_into(vol, inode, &mut root, extent)?.is_some() {
        return Err(corrupt(inode, "extent tree root", "it has no room".to_owned()));
    }
    root.store_root(inode);
    Ok(())
}

/// Adds an extent to the right edge of a subtree; a new right sibling is returned for the parent
/// when the subtree is full.
fn push_into(
    vol: &mut Volume,
    inode: &mut Inode,
    node: &mut Node,
    extent: Extent,
) -> Result<Option<Index>> {
    let child = last_child(vol, inode, node, MAX_LBLK)?;
    let sibling = match &mut node.entries {
        Entries::Leaf(list) => {
            if let Some(last) = list.last_mut() {
                if last.block + last.len > extent.block {
                    return Err(corrupt(
                        inode,
                        "extent tree",
                        format!("block {} is mapped after the end of the file", last.block),
                    ));
                }
                if continues(last, &extent) {
                    last.len += extent.len;
                    return Ok(None);
                }
            }
            if list.len() < node.max {
                list.push(extent);
                return Ok(None);
            }
            Node::for_block(vol, 0, Entries::Leaf(vec![extent]))
        }
        Entries::Index(list) => {
            let Some((index, mut child)) = child else {
                return Err(corrupt(inode, "extent tree", "an index node is empty".to_owned()));
            };
            let Some(new) = push_into(vol, inode, &mut child, extent)? else {
                child.store_child(vol, inode, index.leaf)?;
                return Ok(None);
            };
            if list.len() < node.max {
                list.push(new);
                return Ok(None);
            }
            Node::for_block(vol, node.depth, Entries::Index(vec![new]))
        }
    };
    let block = alloc_meta_block(vol, inode, extent.start)?;
    sibling.store_child(vol, inode, block)?;
    Ok(Some(Index { block: extent.block, leaf: block }))
}

/// Unmaps and frees everything from block `from` on.
pub(super) fn cut(
    vol: &mut Volume,
    inode: &mut Inode,
    from: FileBlock,
    release: &mut Release,
) -> Result<()> {
    let mut root = Node::root(vol, inode)?;
    cut_node(vol, inode, &mut root, from, MAX_LBLK, release)?;
    // Entries of the blocks below go back into the inode where they fit: one level less.
    while let Entries::Index(list) = &root.entries {
        let list = list.clone();
        let depth = root.depth - 1;
        let mut below = if depth == 0 { Entries::Leaf(vec![]) } else { Entries::Index(vec![]) };
        let mut count = 0;
        for (at, index) in list.iter().enumerate() {
            let end = list.get(at + 1).map_or(MAX_LBLK, |next| u64::from(next.block));
            let child = Node::child(vol, inode, index.leaf, depth, index.block, end)?;
            count += child.len();
            match (&mut below, child.entries) {
                (Entries::Leaf(all), Entries::Leaf(some)) => all.extend(some),
                (Entries::Index(all), Entries::Index(some)) => all.extend(some),
                _ => {}
            }
            if count > ROOT_ENTRIES {
                break;
            }
        }
        if count > ROOT_ENTRIES {
            break;
        }
        for index in &list {
            free_meta_block(vol, inode, index.leaf)?;
        }
        root = Node::empty_root();
        root.depth = if count == 0 { 0 } else { depth };
        root.entries = if count == 0 { Entries::Leaf(vec![]) } else { below };
    }
    root.store_root(inode);
    Ok(())
}

/// Returns whether the node changed.
fn cut_node(
    vol: &mut Volume,
    inode: &mut Inode,
    node: &mut Node,
    from: FileBlock,
    to: u64,
    release: &mut Release,
) -> Result<bool> {
    let mut changed = false;
    let depth = node.depth;
    match &mut node.entries {
        Entries::Leaf(list) => {
            while let Some(last) = list.last_mut() {
                let end = last.block + last.len;
                if end <= from {
                    break;
                }
                changed = true;
                let keep = from.get().saturating_sub(last.block.get());
                let (start, len) = (last.start + u64::from(keep), last.len - keep);
                release.add(vol, inode, last.block + keep, start, len)?;
                if keep > 0 {
                    last.len = keep;
                    break;
                }
                list.pop();
            }
        }
        Entries::Index(list) => {
            let mut end = to;
            while let Some(&index) = list.last() {
                let mut child = Node::child(vol, inode, index.leaf, depth - 1, index.block, end)?;
                let child_changed = cut_node(vol, inode, &mut child, from, end, release)?;
                if child.len() > 0 {
                    if child_changed {
                        child.store_child(vol, inode, index.leaf)?;
                    }
                    break;
                }
                free_meta_block(vol, inode, index.leaf)?;
                list.pop();
                changed = true;
                end = u64::from(index.block);
            }
        }
    }
    Ok(changed)
}
