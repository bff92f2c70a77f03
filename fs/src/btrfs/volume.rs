//! The trees with what waits for the commit: every change is an item put into a tree or taken out
//! of it, kept beside the trees until then.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, btree_map};
use std::sync::Arc;

use super::change::{NewData, Undo};
use super::cursor::{Cursor, Root};
use super::layout::{DevItem, Key, RootItem, RootItemV2, item_type, objectid, split};
use super::node::{LEVELS_MAX, Value};
use super::space::Space;
use super::store::Store;
use super::superblock::Super;
use super::units::{Logical, TreeId};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::filesystem::Timestamp;

/// Root items that are kept.
const ROOTS_MAX: usize = 4096;

/// The changes that wait for one tree: `None` is an item to be removed.
pub type Changes = BTreeMap<Key, Option<Arc<[u8]>>>;

/// A tree by its root item.
#[derive(Clone, Debug)]
pub struct TreeRoot {
    /// The root item's key.
    pub key: Key,
    /// The root of the tree.
    pub root: Root,
    /// Why it must not be changed, where that is so.
    pub read_only: Option<&'static str>,
}

/// A file system and what waits for its commit.
pub struct Volume {
    /// The device.
    pub store: Store,
    /// The time that changes carry.
    pub now: Timestamp,
    roots: RefCell<HashMap<TreeId, Arc<TreeRoot>>>,
    /// The changes that wait for the trees.
    pub(super) changes: BTreeMap<TreeId, Changes>,
    /// New data, by its address.
    pub(super) data: BTreeMap<u64, NewData>,
    /// Free space, as far as it was needed.
    pub(super) space: Option<Space>,
    /// The steps that take back the operation under way.
    pub(super) undo: Option<Undo>,
    /// Whether it was checked that the kernel is in the middle of nothing.
    pub(super) checked: Cell<bool>,
    /// The device's item as it will be.
    pub(super) device_item: Option<DevItem>,
    /// The size of the file system as it will be.
    pub(super) total_bytes: Option<u64>,
    /// The compressed extent that was read last.
    pub(super) unpacked: RefCell<Option<(Logical, Arc<[u8]>)>>,
}

impl Volume {
    /// Opens the file system on a device: superblock and chunks are read.
    pub fn open(device: Arc<dyn BlockDevice>, now: Timestamp) -> Result<Self> {
        let sb = Super::read(&*device)?;
        let store = Store::new(device, sb)?;
        let mut volume = Self {
            store,
            now,
            roots: RefCell::default(),
            changes: BTreeMap::new(),
            data: BTreeMap::new(),
            space: None,
            undo: None,
            checked: Cell::new(false),
            device_item: None,
            total_bytes: None,
            unpacked: RefCell::default(),
        };
        volume.read_chunks()?;
        Ok(volume)
    }

    /// Replaces the chunks of the superblock by those of the chunk tree.
    fn read_chunks(&mut self) -> Result<()> {
        let root = self.root(TreeId(objectid::CHUNK_TREE))?.root;
        let first = Key::new(objectid::FIRST_CHUNK_TREE, item_type::CHUNK_ITEM, 0);
        let mut cursor = Cursor::seek(&self.store, root, first)?;
        let mut chunks = self.store.chunks.clone();
        while let Some((key, value)) = cursor.peek(&self.store)? {
            if (key.objectid, key.item_type) != (first.objectid, first.item_type) {
                break;
            }
            chunks.add(&self.store.sb, key.offset, &value)?;
            cursor.advance();
        }
        self.store.chunks = chunks;
        Ok(())
    }

    /// The superblock.
    pub fn sb(&self) -> &Super {
        &self.store.sb
    }

    /// The root of a tree.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such tree.
    pub fn root(&self, tree: TreeId) -> Result<Arc<TreeRoot>> {
        if let Some(root) = self.roots.borrow().get(&tree) {
            return Ok(root.clone());
        }
        let found = self.find_root(tree)?;
        let root = Arc::new(found.ok_or_else(|| Error::NotFound(format!("the btrfs {tree}")))?);
        let mut roots = self.roots.borrow_mut();
        if roots.len() >= ROOTS_MAX {
            roots.clear();
        }
        roots.insert(tree, root.clone());
        Ok(root)
    }

    /// Whether there is a tree.
    pub fn has_root(&self, tree: TreeId) -> Result<bool> {
        match self.root(tree) {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn find_root(&self, tree: TreeId) -> Result<Option<TreeRoot>> {
        let raw = &self.sb().raw;
        let of_super = |at: u64, level, generation: u64| TreeRoot {
            key: Key::MIN,
            root: Root { tree, at: Logical(at), level, generation },
            read_only: None,
        };
        match tree.0 {
            objectid::ROOT_TREE => {
                let root = of_super(raw.root.get(), raw.root_level, raw.generation.get());
                return Ok(Some(root));
            }
            objectid::CHUNK_TREE => {
                let generation = raw.chunk_root_generation.get();
                let root = of_super(raw.chunk_root.get(), raw.chunk_root_level, generation);
                return Ok(Some(root));
            }
            _ => {}
        }
        let above = self.root(TreeId(objectid::ROOT_TREE))?.root;
        let last = Key::new(tree.0, item_type::ROOT_ITEM, u64::MAX);
        match Cursor::seek_last(&self.store, above, last)? {
            Some((key, value))
                if (key.objectid, key.item_type) == (tree.0, item_type::ROOT_ITEM) =>
            {
                self.parse_root(tree, key, &value).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn parse_root(&self, tree: TreeId, key: Key, item: &[u8]) -> Result<TreeRoot> {
        let corrupt = |detail: String| Error::corrupt("root item", tree.to_string(), detail);
        let (raw, rest) = split::<RootItem>(item)
            .ok_or_else(|| corrupt(format!("it has {} bytes", item.len())))?;
        let generation = raw.generation.get();
        if raw.level >= LEVELS_MAX || generation > self.sb().raw.generation.get() {
            return Err(corrupt(format!("level {}, generation {generation}", raw.level)));
        }
        let more = split::<RootItemV2>(rest)
            .map(|(more, _)| more)
            .filter(|more| more.generation_v2.get() == generation);
        let read_only = if raw.flags.get() & 1 != 0 {
            Some("this subvolume is read-only")
        } else if raw.refs.get() == 0 {
            Some("this subvolume is being removed")
        } else if more.is_some_and(|more| more.received_uuid != [0; 16]) {
            Some("this subvolume was received (btrfs receive) and must stay as it was sent")
        } else {
            None
        };
        let at = Logical(raw.bytenr.get());
        let root = Root { tree, at, level: raw.level, generation };
        Ok(TreeRoot { key, root, read_only })
    }

    /// The content of an item.
    pub fn get(&self, tree: TreeId, key: Key) -> Result<Option<Value>> {
        if let Some(change) = self.changes.get(&tree).and_then(|changes| changes.get(&key)) {
            return Ok(change.clone().map(Value::from));
        }
        let root = self.root(tree)?.root;
        let found = Cursor::seek(&self.store, root, key)?.peek(&self.store)?;
        Ok(found.filter(|(at, _)| *at == key).map(|(_, value)| value))
    }

    /// All items from `first` to `last`.
    pub fn items(&self, tree: TreeId, first: Key, last: Key) -> Result<Items<'_>> {
        let root = self.root(tree)?.root;
        let base = Cursor::seek(&self.store, root, first)?;
        let changes = self.changes.get(&tree);
        let changes = changes.map(|changes| changes.range(first..=last).peekable());
        Ok(Items { volume: self, base, changes, last })
    }

    /// The item with the highest key of `first` to `last`.
    pub fn last_item(&self, tree: TreeId, first: Key, last: Key) -> Result<Option<(Key, Value)>> {
        let root = self.root(tree)?.root;
        let changes = self.changes.get(&tree);
        let mut bound = Some(last);
        let base = loop {
            let Some(key) = bound else { break None };
            let found = Cursor::seek_last(&self.store, root, key)?;
            match found.filter(|(key, _)| *key >= first) {
                Some((key, _)) if changes.is_some_and(|c| c.get(&key) == Some(&None)) => {
                    bound = before(key);
                }
                other => break other,
            }
        };
        let new = changes.and_then(|changes| {
            let mut all = changes.range(first..=last).rev();
            all.find_map(|(key, change)| Some((*key, Value::from(change.clone()?))))
        });
        Ok(match (base, new) {
            (Some(base), Some(new)) => Some(if new.0 >= base.0 { new } else { base }),
            (base, new) => base.or(new),
        })
    }

    /// Whether anything waits for the commit.
    pub fn is_dirty(&self) -> bool {
        self.changes.values().any(|changes| !changes.is_empty())
    }

    /// Goes on from a commit: nothing waits any more, and what was read is read anew.
    pub(super) fn committed(&mut self, sb: Super) {
        self.store.sb = sb;
        self.store.forget();
        self.roots.borrow_mut().clear();
        self.changes.clear();
        self.data.clear();
        self.space = None;
        self.device_item = None;
        self.total_bytes = None;
        *self.unpacked.borrow_mut() = None;
    }
}

/// The key before this one.
fn before(key: Key) -> Option<Key> {
    let Key { objectid, item_type, offset } = key;
    if let Some(offset) = offset.checked_sub(1) {
        return Some(Key { offset, ..key });
    }
    if let Some(item_type) = item_type.checked_sub(1) {
        return Some(Key::new(objectid, item_type, u64::MAX));
    }
    Some(Key::new(objectid.checked_sub(1)?, u8::MAX, u64::MAX))
}

/// A range of what waits for a tree.
type Pending<'a> = std::iter::Peekable<btree_map::Range<'a, Key, Option<Arc<[u8]>>>>;

/// Items in the order of their keys: those of the tree with what waits for it.
pub struct Items<'a> {
    volume: &'a Volume,
    base: Cursor,
    changes: Option<Pending<'a>>,
    last: Key,
}

impl Items<'_> {
    /// The next item.
    pub fn next_item(&mut self) -> Result<Option<(Key, Value)>> {
        loop {
            let base = self.base.peek(&self.volume.store)?.filter(|(key, _)| *key <= self.last);
            let change = self.changes.as_mut().and_then(|changes| changes.peek().copied());
            match (base, change) {
                (None, None) => return Ok(None),
                (Some((key, value)), change) if change.is_none_or(|(other, _)| key < *other) => {
                    self.base.advance();
                    return Ok(Some((key, value)));
                }
                (base, Some((key, change))) => {
                    if base.is_some_and(|(other, _)| other == *key) {
                        self.base.advance();
                    }
                    if let Some(changes) = &mut self.changes {
                        changes.next();
                    }
                    if let Some(value) = change {
                        return Ok(Some((*key, value.clone().into())));
                    }
                }
                (Some(_), None) => return Ok(None),
            }
        }
    }
}
