//! Changes of a tree. Each one goes down to a leaf, and then up again along the same path: a node
//! that is too large is split, one that is empty is joined with the one beside it, and both change
//! the node above, which is then looked at in the same way.

use std::collections::BTreeMap;

use super::node::{Entry, Node, block_room};
use super::{Context, DEPTH, IndexStore, RawIndexRoot};
use crate::error::{Error, Result, display_name};
use crate::ntfs::units::Vcn;
use crate::num::to_usize;
use crate::utf16::{UpCase, to_utf8};

/// One node on the way down.
struct Step {
    /// The block; `None` for the root.
    vcn: Option<Vcn>,
    node: Node,
    /// The place at which the way goes on.
    at: usize,
    changed: bool,
}

/// The effect of a change that is known to be possible.
#[derive(Default)]
struct Draft {
    blocks: BTreeMap<Vcn, Node>,
    freed: Vec<Vcn>,
    allocated: Vec<Vcn>,
    root: Option<Node>,
    /// Whether the store's root is a stand-in, and must be set again.
    shrunk: bool,
}

impl Draft {
    /// Takes a block. The store may need the root's room in the record to note it, so the root
    /// becomes as small as it can be first.
    fn allocate<S: IndexStore>(&mut self, store: &mut S, head: &RawIndexRoot) -> Result<Vcn> {
        if !self.shrunk {
            self.shrunk = true;
            let small = Node { entries: Vec::new(), last: Some(Vcn(0)) };
            if !store.set_root(&small.to_root(head))? {
                let text = format!("{}: the MFT record has no room for the root", store.place());
                return Err(Error::NoSpace(text));
            }
        }
        let vcn = store.allocate_block()?;
        self.allocated.push(vcn);
        Ok(vcn)
    }
}

/// Facts of the tree as a whole.
struct Shape<'a> {
    upcase: &'a UpCase,
    head: RawIndexRoot,
    /// Bytes for entries in a block.
    room: usize,
}

/// Adds an entry. One with the same key is an error, as is an entry that no block can hold.
pub fn insert<S: IndexStore>(store: &mut S, upcase: &UpCase, entry: &Entry) -> Result<()> {
    let context = Context::open(store, upcase)?;
    let (mut path, found) = descend(&context, entry.key())?;
    if found {
        let name: Vec<u16> = super::key_name(entry.key()).collect();
        return Err(Error::Exists(display_name(&to_utf8(&name))));
    }
    let room = block_room(to_usize(context.head.BytesPerIndexBuffer.get()));
    if entry.size() + 40 > room || !context.collation.takes(entry.key()) {
        return Err(too_long(store, entry));
    }
    if let Some(leaf) = path.last_mut() {
        leaf.node.entries.insert(leaf.at, (entry.clone(), None));
        leaf.changed = true;
    }
    apply(store, upcase, path)
}

/// Removes the entry with this key, and gives it; `None` where there is none.
pub fn remove<S: IndexStore>(store: &mut S, upcase: &UpCase, key: &[u8]) -> Result<Option<Entry>> {
    let context = Context::open(store, upcase)?;
    let (mut path, found) = descend(&context, key)?;
    if !found {
        return Ok(None);
    }
    let top = path.len() - 1;
    let at = path[top].at;
    let (old, child) = path[top].node.entries.remove(at);
    path[top].changed = true;
    if let Some(child) = child {
        // An inner entry's place is taken by the one before it, the last one of a leaf below.
        let mut next = child;
        loop {
            if path.len() > DEPTH || path.iter().any(|step| step.vcn == Some(next)) {
                return Err(context.too_deep());
            }
            let node = load(&context, next)?;
            let (end, below) = (node.entries.len(), node.last);
            path.push(Step { vcn: Some(next), node, at: end, changed: false });
            match below {
                Some(vcn) => next = vcn,
                None => break,
            }
        }
        let leaf = path.last_mut().and_then(|leaf| {
            leaf.changed = true;
            leaf.node.entries.pop()
        });
        let Some((before, None)) = leaf else {
            return Err(context.corrupt(next, "it has no entries"));
        };
        path[top].node.entries.insert(at, (before, Some(child)));
    }
    apply(store, upcase, path)?;
    Ok(Some(old))
}

/// Replaces the entry that has the same key by this one, which may be longer or shorter, and says
/// whether there was one. For a directory "the same key" is the same name.
pub fn replace<S: IndexStore>(store: &mut S, upcase: &UpCase, entry: &Entry) -> Result<bool> {
    let context = Context::open(store, upcase)?;
    let (mut path, found) = descend(&context, entry.key())?;
    if !found {
        return Ok(false);
    }
    if let Some(step) = path.last_mut()
        && let Some((old, _)) = step.node.entries.get_mut(step.at)
    {
        if old == entry {
            return Ok(true);
        }
        if entry.size() + 40 > block_room(to_usize(context.head.BytesPerIndexBuffer.get())) {
            return Err(too_long(store, entry));
        }
        *old = entry.clone();
        step.changed = true;
    }
    apply(store, upcase, path)?;
    Ok(true)
}

fn too_long<S: IndexStore>(store: &S, entry: &Entry) -> Error {
    let text = format!("an entry of {} bytes cannot be in an index block", entry.size());
    Error::Invalid(format!("{}: {text}", store.place()))
}

fn load<S: IndexStore>(context: &Context<'_, S>, vcn: Vcn) -> Result<Node> {
    let block = context.block(vcn)?;
    Ok(Node::from_views(&context.block_places(vcn, &block)?))
}

/// The nodes from the root to the entry with the key (`true`), or to the leaf in which it belongs.
fn descend<S: IndexStore>(context: &Context<'_, S>, key: &[u8]) -> Result<(Vec<Step>, bool)> {
    let mut path = Vec::new();
    let (mut vcn, mut node) = (None, Node::from_views(&context.root_places()?));
    loop {
        let order = |entry: &Entry| context.collation.compare(entry.key(), key);
        let at = node.entries.partition_point(|(entry, _)| order(entry).is_lt());
        let found = node.entries.get(at).is_some_and(|(entry, _)| order(entry).is_eq());
        let child = node.child(at);
        path.push(Step { vcn, node, at, changed: false });
        let Some(next) = child.filter(|_| !found) else { return Ok((path, found)) };
        if path.len() > DEPTH || path.iter().any(|step| step.vcn == Some(next)) {
            return Err(context.too_deep());
        }
        node = load(context, next)?;
        vcn = Some(next);
    }
}

/// Works out what changes above the changed nodes of `path`, then writes it.
fn apply<S: IndexStore>(store: &mut S, upcase: &UpCase, mut path: Vec<Step>) -> Result<()> {
    let before = store.root()?;
    let head = super::root_header(store, &before)?;
    let size = to_usize(head.BytesPerIndexBuffer.get());
    let shape = Shape { upcase, head, room: block_room(size) };
    let mut draft = Draft::default();
    let result = settle(store, &shape, &mut path, &mut draft)
        .and_then(|()| write_root(store, &shape, &mut draft));
    if let Err(error) = result {
        // Nothing but the bitmap and the root has changed yet; both become what they were.
        for vcn in draft.allocated {
            store.free_block(vcn)?;
        }
        store.set_root(&before)?;
        return Err(error);
    }
    for (&vcn, node) in &draft.blocks {
        // The old bytes of a new block are of no interest.
        let old = match draft.allocated.contains(&vcn) {
            true => None,
            false => Some(store.read_block(vcn)?),
        };
        store.write_block(vcn, &node.to_block(vcn, size, old.as_deref()))?;
    }
    for vcn in draft.freed {
        store.free_block(vcn)?;
    }
    Ok(())
}

/// Goes up the path. The new root is left in `draft.root`.
fn settle<S: IndexStore>(
    store: &mut S,
    shape: &Shape<'_>,
    path: &mut Vec<Step>,
    draft: &mut Draft,
) -> Result<()> {
    while let Some(Step { vcn, mut node, changed, .. }) = path.pop() {
        let (Some(vcn), Some(above)) = (vcn, path.last_mut()) else {
            if changed {
                pull_up(store, shape, &mut node, draft)?;
            }
            if changed || draft.shrunk {
                draft.root = Some(node);
            }
            return Ok(());
        };
        if !changed {
            continue;
        }
        if node.entries.is_empty() && join(store, shape, vcn, &mut node, above, draft)? {
            continue;
        }
        split(store, shape, vcn, node, above, draft)?;
    }
    Ok(())
}

/// Writes a node to its block, and as much of it as does not fit to new blocks before it; the
/// entries between them go to the node above.
fn split<S: IndexStore>(
    store: &mut S,
    shape: &Shape<'_>,
    vcn: Vcn,
    mut node: Node,
    above: &mut Step,
    draft: &mut Draft,
) -> Result<()> {
    while node.size() > shape.room {
        let Some(middle) = middle(&node, shape.room) else {
            let text =
                format!("{}: index blocks with room for {} bytes", store.place(), shape.room);
            let remedy = "this directory can take no more entries of this length";
            return Err(Error::unsupported(text, remedy));
        };
        let right = node.entries.split_off(middle + 1);
        let Some((median, child)) = node.entries.pop() else { break };
        let left = Node { entries: std::mem::take(&mut node.entries), last: child };
        node.entries = right;
        let new = draft.allocate(store, &shape.head)?;
        draft.blocks.insert(new, left);
        above.node.entries.insert(above.at, (median, Some(new)));
        above.at += 1;
        above.changed = true;
    }
    draft.blocks.insert(vcn, node);
    Ok(())
}

/// The entry at which a node too large is best divided: both parts have entries, the left one fits
/// a block, and the right one fits too, or is made as small as one division can.
fn middle(node: &Node, room: usize) -> Option<usize> {
    let end = if node.is_leaf() { 16 } else { 24 };
    let total = node.size() - end;
    let mut left = 0;
    let mut best: Option<(usize, usize)> = None;
    for (index, (entry, _)) in node.entries.iter().enumerate() {
        let own = node.size_of(entry);
        let right = total - left - own;
        if index > 0 && index + 1 < node.entries.len() && left + end <= room {
            let unfit = (right + end).saturating_sub(room);
            let score = if unfit > 0 { room + unfit } else { left.abs_diff(right) };
            if best.is_none_or(|(least, _)| score < least) {
                best = Some((score, index));
            }
        }
        left += own;
    }
    best.map(|(_, index)| index)
}

/// Gives a node without entries those of the node beside it, in one block where they fit. `true`
/// when it is done; `false` when the node stays as it is.
fn join<S: IndexStore>(
    store: &mut S,
    shape: &Shape<'_>,
    vcn: Vcn,
    node: &mut Node,
    above: &mut Step,
    draft: &mut Draft,
) -> Result<bool> {
    let at = above.at;
    if above.node.entries.is_empty() {
        // The only child of the node above, which becomes a leaf without entries, or gets its
        // only grandchild as its child.
        above.node.last = node.last;
        above.changed = true;
        draft.freed.push(vcn);
        return Ok(true);
    }
    // The entry above that stands between the two.
    let between = at.saturating_sub(1);
    let left_first = at > 0;
    let Some(beside) = above.node.child(if left_first { between } else { 1 }) else {
        return Ok(false);
    };
    let context = Context::open(store, shape.upcase)?;
    if beside == vcn {
        return Err(context.corrupt(vcn, "two entries point to it"));
    }
    let other = load(&context, beside)?;
    if other.is_leaf() != node.is_leaf() {
        return Ok(false);
    }
    let (separator, _) = above.node.entries.remove(between);
    above.changed = true;
    let (left, right) = match left_first {
        true => (other, std::mem::take(node)),
        false => (std::mem::take(node), other),
    };
    let mut all = Node { entries: left.entries, last: right.last };
    all.entries.push((separator, left.last));
    all.entries.extend(right.entries);
    // Place `between` above now points to what was to the right.
    above.node.set_child(between, beside);
    draft.freed.push(vcn);
    above.at = between;
    split(store, shape, beside, all, above, draft)?;
    Ok(true)
}

/// A root without entries whose only child fits into it takes its entries, where the store has
/// room for them.
fn pull_up<S: IndexStore>(
    store: &mut S,
    shape: &Shape<'_>,
    root: &mut Node,
    draft: &mut Draft,
) -> Result<()> {
    let Some(vcn) = root.last.filter(|_| root.entries.is_empty()) else { return Ok(()) };
    let child = match draft.blocks.get(&vcn) {
        Some(node) => node.clone(),
        None => load(&Context::open(store, shape.upcase)?, vcn)?,
    };
    // Set to see whether it fits; the blocks that it points to are written later.
    if store.set_root(&child.to_root(&shape.head))? {
        *root = child;
        draft.blocks.remove(&vcn);
        draft.freed.push(vcn);
    }
    Ok(())
}

/// Sets the root, or moves its entries to blocks until it fits.
fn write_root<S: IndexStore>(store: &mut S, shape: &Shape<'_>, draft: &mut Draft) -> Result<()> {
    let Some(mut root) = draft.root.take() else { return Ok(()) };
    for _ in 0..DEPTH {
        if store.set_root(&root.to_root(&shape.head))? {
            return Ok(());
        }
        if root.entries.is_empty() {
            let text = format!("{}: the MFT record has no room for the root", store.place());
            return Err(Error::NoSpace(text));
        }
        draft.shrunk = false;
        let vcn = draft.allocate(store, &shape.head)?;
        let empty = Node { entries: Vec::new(), last: Some(vcn) };
        let mut above = Step { vcn: None, node: empty, at: 0, changed: true };
        split(store, shape, vcn, root, &mut above, draft)?;
        root = above.node;
    }
    Err(Error::NoSpace(format!("{}: the tree is too deep", store.place())))
}
