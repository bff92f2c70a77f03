//! Trees in the middle of a commit: searched and changed, copies of what is touched.

use super::super::cursor::Root;
use super::super::layout::{Key, block_group, item_type, objectid};
use super::super::node::{HEADER, ITEM, Node, POINTER, Pointer, Value};
use super::super::store::Expected;
use super::super::units::{Logical, TreeId};
use super::draft::{Content, Draft, View, root_pointer};
use super::refs::Ref;
use super::{Commit, data_extent};
use crate::error::{Error, Result};
use crate::num::to_usize;

/// A way down: the address of each new block, and the index in it.
type Path = Vec<(u64, usize)>;

impl Commit<'_> {
    /// The new root of a tree.
    pub(super) fn root(&self, tree: TreeId) -> Result<Root> {
        match self.roots.get(&tree) {
            Some(root) => Ok(*root),
            None => Ok(self.volume.root(tree)?.root),
        }
    }

    fn view(&self, expected: &Expected) -> Result<View<'_>> {
        match self.drafts.get(&expected.at.0) {
            Some(draft) => Ok(View::Draft(draft)),
            None => Ok(View::Node(self.volume.store.block(expected)?)),
        }
    }

    pub(super) fn expected_root(root: Root) -> Expected {
        Expected {
            at: root.at,
            level: root.level,
            generation: root.generation,
            tree: root.tree,
            first: None,
            below: None,
        }
    }

    /// The last item whose key is not above `key`.
    pub(super) fn last(&self, tree: TreeId, key: Key) -> Result<Option<(Key, Value)>> {
        let mut expected = Self::expected_root(self.root(tree)?);
        loop {
            let view = self.view(&expected)?;
            if view.level() == 0 {
                let bound = view.lower_bound(key);
                let exact = bound < view.len() && view.key(bound) == key;
                let index = if exact { Some(bound) } else { bound.checked_sub(1) };
                return Ok(index.and_then(|index| Some((view.key(index), view.value(index)?))));
            }
            expected = Self::child(&view, view.child_for(key), &expected)?;
        }
    }

    /// The first item whose key is not below `key`.
    pub(super) fn first(&self, tree: TreeId, key: Key) -> Result<Option<(Key, Value)>> {
        let mut expected = Self::expected_root(self.root(tree)?);
        // The next block to the right, of the lowest level that has one.
        let mut right: Option<Key> = None;
        loop {
            let view = self.view(&expected)?;
            if view.level() == 0 {
                let bound = view.lower_bound(key);
                if let Some(value) = view.value(bound) {
                    return Ok(Some((view.key(bound), value)));
                }
                drop(view);
                return match right {
                    // Blocks are not empty, so the next one has an item.
                    Some(key) => self.first(tree, key),
                    None => Ok(None),
                };
            }
            let index = view.child_for(key);
            if let Some(next) = view.pointer(index + 1) {
                right = Some(next.key);
            }
            expected = Self::child(&view, index, &expected)?;
        }
    }

    fn child(view: &View<'_>, index: usize, above: &Expected) -> Result<Expected> {
        let pointer = view.pointer(index).ok_or_else(|| {
            Error::corrupt("tree block", above.at.to_string(), format!("it has no pointer {index}"))
        })?;
        Ok(Expected {
            at: pointer.at,
            level: view.level().saturating_sub(1),
            generation: pointer.generation,
            tree: above.tree,
            first: Some(pointer.key),
            below: view.pointer(index + 1).map(|next| next.key).or(above.below),
        })
    }

    /// The content of an item.
    pub(super) fn get(&self, tree: TreeId, key: Key) -> Result<Option<Value>> {
        let found = self.last(tree, key)?;
        Ok(found.filter(|(at, _)| *at == key).map(|(_, value)| value))
    }

    /// Puts an item, replaces it, or takes it out.
    pub(super) fn set(&mut self, tree: TreeId, key: Key, value: Option<Value>) -> Result<()> {
        let mut path = self.path_to(tree, key)?;
        let Some(&(leaf, _)) = path.last() else { return Ok(()) };
        let Some(items) = self.drafts.get_mut(&leaf).and_then(Draft::items) else {
            return Ok(());
        };
        let place = items.binary_search_by(|(at, _)| at.cmp(&key));
        match (place, value) {
            (Ok(index), Some(value)) => items[index].1 = value,
            (Err(index), Some(value)) => items.insert(index, (key, value)),
            (Ok(index), None) => {
                items.remove(index);
            }
            (Err(_), None) => return Ok(()),
        }
        let is_empty = items.is_empty();
        if is_empty {
            return self.remove_block(tree, &mut path);
        }
        self.fix_first_key(&path);
        self.split_where_full(tree, &mut path)
    }

    /// The way to the leaf for a key, through new blocks only.
    fn path_to(&mut self, tree: TreeId, key: Key) -> Result<Path> {
        let mut root = self.root(tree)?;
        if !self.drafts.contains_key(&root.at.0) {
            let at = self.copy(tree, &Self::expected_root(root))?;
            root = Root { at: Logical(at), generation: self.transid, ..root };
        }
        self.roots.insert(tree, root);
        let mut path = Path::new();
        let mut expected = Self::expected_root(root);
        loop {
            let at = expected.at.0;
            let view = self.view(&expected)?;
            if view.level() == 0 {
                path.push((at, 0));
                return Ok(path);
            }
            let index = view.child_for(key);
            let mut child = Self::child(&view, index, &expected)?;
            drop(view);
            path.push((at, index));
            if !self.drafts.contains_key(&child.at.0) {
                let new = self.copy(tree, &child)?;
                child.at = Logical(new);
                child.generation = self.transid;
                let generation = self.transid;
                if let Some(pointer) = self
                    .drafts
                    .get_mut(&at)
                    .and_then(Draft::pointers)
                    .and_then(|pointers| pointers.get_mut(index))
                {
                    pointer.at = child.at;
                    pointer.generation = generation;
                }
            }
            expected = child;
        }
    }

    /// Takes room for a tree block.
    fn allocate(&mut self, tree: TreeId, level: u8) -> Result<u64> {
        let kind = match tree.0 {
            objectid::CHUNK_TREE => block_group::SYSTEM,
            _ => block_group::METADATA,
        };
        let size = self.volume.sb().node_size.into();
        let found = self.space.allocate(self.volume, kind, size)?;
        let (at, _) = found
            .ok_or_else(|| Error::NoSpace("no room for metadata is left in the btrfs".into()))?;
        self.count_block(at, level, Ref::Tree(tree.0), 1);
        Ok(at)
    }

    /// Makes a new block of an old one, and gives up the old one as far as this tree goes.
    fn copy(&mut self, tree: TreeId, expected: &Expected) -> Result<u64> {
        let node = self.volume.store.block(expected)?;
        if tree.is_subvolume() {
            self.share(tree, &node)?;
        }
        let at = self.allocate(tree, node.level())?;
        self.drafts.insert(at, Draft::of(&node, tree));
        self.count_block(node.at.0, node.level(), Ref::Tree(tree.0), -1);
        Ok(at)
    }

    /// Prepares the children of a block of a subvolume before it is copied for `tree`:
    /// the copy refers to them, too, where others keep the old block.
    fn share(&mut self, tree: TreeId, node: &Node) -> Result<()> {
        let (refs, is_full) = self.block_state(node.at.0, node.level())?;
        let (own, old) = match (refs, is_full, node.owner() == tree) {
            (0, ..) | (1, false, false) => {
                return Err(Error::corrupt(
                    "extent tree",
                    node.at.to_string(),
                    format!("{refs} references to a tree block of {}", node.owner()),
                ));
            }
            // Only this tree has it: nothing changes for the children.
            (1, false, true) => return Ok(()),
            // The children know the old block as the one that refers to them; that ends.
            (1, true, _) => (1, -1),
            // They know this tree; from now on also the old block, which others keep.
            (_, false, true) => (0, 1),
            _ => (1, 0),
        };
        if old == 1 {
            self.mark_full_backref(node.at.0, node.level());
        }
        for index in 0..node.len() {
            if let Some(pointer) = node.pointer(index) {
                let level = node.level() - 1;
                self.count_block(pointer.at.0, level, Ref::Tree(tree.0), own);
                self.count_block(pointer.at.0, level, Ref::SharedBlock(node.at.0), old);
                continue;
            }
            let key = node.key(index);
            if key.item_type != item_type::EXTENT_DATA {
                continue;
            }
            if let Some((at, bytes, offset)) = data_extent(&node.value(index)) {
                let offset = key.offset.wrapping_sub(offset);
                let keyed = Ref::Data { root: tree.0, inode: key.objectid, offset };
                self.count_data(at, bytes, keyed, own)?;
                self.count_data(at, bytes, Ref::SharedData(node.at.0), old)?;
            }
        }
        Ok(())
    }

    /// Makes the keys of the pointers to a block its first one.
    fn fix_first_key(&mut self, path: &[(u64, usize)]) {
        let mut child = path.last().map(|(at, _)| *at);
        for (at, index) in path.iter().rev().skip(1) {
            let Some(key) =
                child.and_then(|child| self.drafts.get(&child)).and_then(Draft::first_key)
            else {
                return;
            };
            let pointers = self.drafts.get_mut(at).and_then(Draft::pointers);
            match pointers.and_then(|pointers| pointers.get_mut(*index)) {
                Some(pointer) if pointer.key != key => pointer.key = key,
                _ => return,
            }
            if *index > 0 {
                return;
            }
            child = Some(*at);
        }
    }

    /// Takes out the block at the end of a path, which has become empty.
    fn remove_block(&mut self, tree: TreeId, path: &mut Path) -> Result<()> {
        let Some((at, _)) = path.pop() else { return Ok(()) };
        let Some(&(above, index)) = path.last() else {
            // A root stays, as an empty leaf.
            self.drafts
                .insert(at, Draft { owner: tree, level: 0, content: Content::Leaf(Vec::new()) });
            if let Some(root) = self.roots.get_mut(&tree) {
                root.level = 0;
            }
            return Ok(());
        };
        let level = self.drafts.remove(&at).map_or(0, |draft| draft.level);
        self.count_block(at, level, Ref::Tree(tree.0), -1);
        *self.grown.entry(tree).or_default() -= 1;
        let mut is_empty = false;
        if let Some(pointers) = self.drafts.get_mut(&above).and_then(Draft::pointers) {
            if index < pointers.len() {
                pointers.remove(index);
            }
            is_empty = pointers.is_empty();
        }
        if is_empty {
            return self.remove_block(tree, path);
        }
        self.fix_first_key(path);
        Ok(())
    }

    /// Splits the block at the end of a path, and those above it, until everything fits.
    fn split_where_full(&mut self, tree: TreeId, path: &mut Path) -> Result<()> {
        let room = to_usize(self.volume.sb().node_size) - HEADER;
        while let Some((at, _)) = path.pop() {
            let Some(draft) = self.drafts.get(&at) else { return Ok(()) };
            if draft.used() <= room {
                return Ok(());
            }
            let level = draft.level;
            let mut parts = parts(draft.content.clone(), room).into_iter();
            let Some(first) = parts.next() else { return Ok(()) };
            self.drafts.insert(at, Draft { owner: tree, level, content: first });
            let mut pointers = Vec::new();
            for content in parts {
                let new = self.allocate(tree, level)?;
                *self.grown.entry(tree).or_default() += 1;
                let draft = Draft { owner: tree, level, content };
                let key = draft.first_key().unwrap_or(Key::MIN);
                self.drafts.insert(new, draft);
                pointers.push(Pointer { key, at: Logical(new), generation: self.transid });
            }
            match path.last() {
                Some(&(above, index)) => {
                    if let Some(list) = self.drafts.get_mut(&above).and_then(Draft::pointers) {
                        list.splice(index + 1..index + 1, pointers);
                    }
                }
                None => self.add_root(tree, at, pointers)?,
            }
        }
        Ok(())
    }

    /// Puts a new root over a root that was split.
    fn add_root(&mut self, tree: TreeId, at: u64, more: Vec<Pointer>) -> Result<()> {
        let old = self.root(tree)?;
        let level = old.level + 1;
        if level >= super::super::node::LEVELS_MAX {
            return Err(Error::NoSpace(format!("the btrfs {tree} would get too high")));
        }
        let mut first = root_pointer(Root { at: Logical(at), generation: self.transid, ..old });
        first.key = self.drafts.get(&at).and_then(Draft::first_key).unwrap_or(Key::MIN);
        let mut pointers = vec![first];
        pointers.extend(more);
        let new = self.allocate(tree, level)?;
        *self.grown.entry(tree).or_default() += 1;
        self.drafts.insert(new, Draft { owner: tree, level, content: Content::Inner(pointers) });
        let root = Root { at: Logical(new), level, generation: self.transid, ..old };
        self.roots.insert(tree, root);
        Ok(())
    }
}

/// Takes content apart so that each part fits into `room` bytes: about halves where that goes.
fn parts(content: Content, room: usize) -> Vec<Content> {
    match content {
        Content::Leaf(items) => {
            let sizes = items.iter().map(|(_, value)| ITEM + value.len()).collect::<Vec<_>>();
            cut(items, &sizes, room).into_iter().map(Content::Leaf).collect()
        }
        Content::Inner(pointers) => {
            let sizes = vec![POINTER; pointers.len()];
            cut(pointers, &sizes, room).into_iter().map(Content::Inner).collect()
        }
    }
}

fn cut<T>(list: Vec<T>, sizes: &[usize], room: usize) -> Vec<Vec<T>> {
    let total: usize = sizes.iter().sum();
    // Items that are added at the end, as most are, leave full blocks.
    let goal = room.min(total * 2 / 3);
    let mut out: Vec<Vec<T>> = vec![Vec::new()];
    let (mut used, mut left) = (0, total);
    for (value, size) in list.into_iter().zip(sizes) {
        let full = used + size > room || used >= goal && left <= room;
        if used > 0 && full {
            out.push(Vec::new());
            used = 0;
        }
        used += size;
        left -= size;
        if let Some(last) = out.last_mut() {
            last.push(value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn parts_fit() {
        for sizes in [vec![40, 40, 40], vec![10, 90, 10], vec![90, 20], vec![30; 4], vec![1; 101]] {
            let list: Vec<usize> = (0..sizes.len()).collect();
            let parts = cut(list.clone(), &sizes, 100);
            assert!(parts.len() > 1, "{sizes:?}");
            assert_eq!(parts.concat(), list);
            for part in parts {
                assert!(part.iter().map(|index| sizes[*index]).sum::<usize>() <= 100, "{sizes:?}");
            }
        }
    }
}
