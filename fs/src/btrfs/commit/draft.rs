//! A tree block that is being made.

use zerocopy::IntoBytes;

use super::super::cursor::Root;
use super::super::layout::{Header, ItemHeader, Key, KeyPtr};
use super::super::node::{HEADER, ITEM, Node, POINTER, Pointer, Value};
use super::super::superblock::Super;
use super::super::units::{Logical, TreeId};
use crate::num::{to_u32, to_usize};

/// The content of a block.
#[derive(Clone, Debug)]
pub enum Content {
    /// Items.
    Leaf(Vec<(Key, Value)>),
    /// Pointers.
    Inner(Vec<Pointer>),
}

/// A new tree block.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The tree that it is made for.
    pub owner: TreeId,
    /// Its level.
    pub level: u8,
    /// Its content.
    pub content: Content,
}

/// `WRITTEN`, and the revision of back references in the upper byte.
const FLAGS: u64 = 1 | 1 << 56;

impl Draft {
    /// A copy of a block, made for `owner`.
    pub fn of(node: &Node, owner: TreeId) -> Self {
        let content = match node.level() {
            0 => Content::Leaf((0..node.len()).map(|i| (node.key(i), node.value(i))).collect()),
            _ => Content::Inner((0..node.len()).filter_map(|i| node.pointer(i)).collect()),
        };
        Self { owner, level: node.level(), content }
    }

    /// Its first key.
    pub fn first_key(&self) -> Option<Key> {
        match &self.content {
            Content::Leaf(items) => items.first().map(|(key, _)| *key),
            Content::Inner(pointers) => pointers.first().map(|pointer| pointer.key),
        }
    }

    /// Its items; none where it is no leaf.
    pub fn items(&mut self) -> Option<&mut Vec<(Key, Value)>> {
        match &mut self.content {
            Content::Leaf(items) => Some(items),
            Content::Inner(_) => None,
        }
    }

    /// Its pointers; none where it is a leaf.
    pub fn pointers(&mut self) -> Option<&mut Vec<Pointer>> {
        match &mut self.content {
            Content::Leaf(_) => None,
            Content::Inner(pointers) => Some(pointers),
        }
    }

    /// Bytes that the content takes.
    pub fn used(&self) -> usize {
        match &self.content {
            Content::Leaf(items) => items.iter().map(|(_, value)| ITEM + value.len()).sum(),
            Content::Inner(pointers) => pointers.len() * POINTER,
        }
    }

    /// The block's bytes.
    pub fn bytes(&self, sb: &Super, at: Logical, generation: u64, chunk_uuid: [u8; 16]) -> Vec<u8> {
        let mut out = vec![0; to_usize(sb.node_size)];
        let count = match &self.content {
            Content::Leaf(items) => {
                let mut end = out.len();
                for (index, (key, value)) in items.iter().enumerate() {
                    let start = end - value.len();
                    out[start..end].copy_from_slice(value);
                    end = start;
                    let header = ItemHeader {
                        key: (*key).into(),
                        offset: to_u32(start - HEADER).into(),
                        size: to_u32(value.len()).into(),
                    };
                    let place = HEADER + index * ITEM;
                    out[place..place + ITEM].copy_from_slice(header.as_bytes());
                }
                items.len()
            }
            Content::Inner(pointers) => {
                for (index, pointer) in pointers.iter().enumerate() {
                    let pointer = KeyPtr {
                        key: pointer.key.into(),
                        blockptr: pointer.at.0.into(),
                        generation: pointer.generation.into(),
                    };
                    let place = HEADER + index * POINTER;
                    out[place..place + POINTER].copy_from_slice(pointer.as_bytes());
                }
                pointers.len()
            }
        };
        let mut header = Header {
            csum: [0; 32],
            fsid: sb.tree_uuid(),
            bytenr: at.0.into(),
            flags: FLAGS.into(),
            chunk_tree_uuid: chunk_uuid,
            generation: generation.into(),
            owner: self.owner.0.into(),
            nritems: to_u32(count).into(),
            level: self.level,
        };
        out[..HEADER].copy_from_slice(header.as_bytes());
        header.csum = sb.checksum.of(&out[32..]);
        out[..32].copy_from_slice(&header.csum);
        out
    }
}

/// A block, new or old, to be looked into.
pub enum View<'a> {
    /// New.
    Draft(&'a Draft),
    /// As it is on the device.
    Node(Node),
}

impl View<'_> {
    /// Its level.
    pub fn level(&self) -> u8 {
        match self {
            Self::Draft(draft) => draft.level,
            Self::Node(node) => node.level(),
        }
    }

    /// Items or pointers.
    pub fn len(&self) -> usize {
        match self {
            Self::Draft(Draft { content: Content::Leaf(items), .. }) => items.len(),
            Self::Draft(Draft { content: Content::Inner(pointers), .. }) => pointers.len(),
            Self::Node(node) => node.len(),
        }
    }

    /// The key at an index; [`Key::MAX`] beyond the last one.
    pub fn key(&self, index: usize) -> Key {
        match self {
            Self::Draft(Draft { content: Content::Leaf(items), .. }) => {
                items.get(index).map_or(Key::MAX, |(key, _)| *key)
            }
            Self::Draft(Draft { content: Content::Inner(pointers), .. }) => {
                pointers.get(index).map_or(Key::MAX, |pointer| pointer.key)
            }
            Self::Node(node) => node.key(index),
        }
    }

    /// The item at an index.
    pub fn value(&self, index: usize) -> Option<Value> {
        match self {
            Self::Draft(Draft { content: Content::Leaf(items), .. }) => {
                items.get(index).map(|(_, value)| value.clone())
            }
            Self::Draft(_) => None,
            Self::Node(node) => (index < node.len()).then(|| node.value(index)),
        }
    }

    /// The pointer at an index.
    pub fn pointer(&self, index: usize) -> Option<Pointer> {
        match self {
            Self::Draft(Draft { content: Content::Inner(pointers), .. }) => {
                pointers.get(index).copied()
            }
            Self::Draft(_) => None,
            Self::Node(node) => node.pointer(index),
        }
    }

    /// The first index whose key is not below `key`.
    pub fn lower_bound(&self, key: Key) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The pointer to follow for `key`.
    pub fn child_for(&self, key: Key) -> usize {
        let bound = self.lower_bound(key);
        if bound < self.len() && self.key(bound) == key { bound } else { bound.saturating_sub(1) }
    }
}

/// The pointer that leads to a tree's root, whose first key nobody knows.
pub fn root_pointer(root: Root) -> Pointer {
    Pointer { key: Key::MIN, at: root.at, generation: root.generation }
}
