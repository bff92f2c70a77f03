//! Extent items with the references inside them.

use zerocopy::IntoBytes;

use super::super::checksum::data_ref_hash;
use super::super::layout::{ExtentDataRef, ExtentItem, Key, TreeBlockInfo, item_type, split};
use super::super::units::Logical;
use super::refs::Ref;
use crate::error::{Error, Result};
use crate::num::to_u32;

/// `flags`: file content.
pub const DATA: u64 = 1;
/// `flags`: a tree block.
pub const TREE_BLOCK: u64 = 2;
/// `flags`: what the tree block refers to knows it by its address.
pub const FULL_BACKREF: u64 = 1 << 8;

/// An extent item taken apart.
#[derive(Clone, Debug)]
pub struct Extent {
    /// All references, those in items of their own too.
    pub refs: u64,
    /// The transaction that made it.
    pub generation: u64,
    /// Of the constants above.
    pub flags: u64,
    /// First key and level, of tree blocks without skinny metadata.
    pub info: Option<TreeBlockInfo>,
    /// The references inside.
    pub inline: Vec<(Ref, u64)>,
}

impl Extent {
    /// Takes an item apart.
    pub fn parse(key: Key, item: &[u8]) -> Result<Self> {
        let corrupt = |detail: String| {
            Error::corrupt("extent item", Logical(key.objectid).to_string(), detail)
        };
        let cut = || corrupt(format!("it ends early, after {} bytes", item.len()));
        let (head, mut rest) = split::<ExtentItem>(item).ok_or_else(cut)?;
        let flags = head.flags.get();
        let mut info = None;
        if key.item_type == item_type::EXTENT_ITEM && flags & TREE_BLOCK != 0 {
            let (found, after) = split::<TreeBlockInfo>(rest).ok_or_else(cut)?;
            info = Some(*found);
            rest = after;
        }
        let mut inline = Vec::new();
        while let Some((&kind, body)) = rest.split_first() {
            let number = || crate::bytes::le64(body, 0).ok_or_else(cut);
            let (found, used) = match kind {
                item_type::TREE_BLOCK_REF => ((Ref::Tree(number()?), 1), 8),
                item_type::SHARED_BLOCK_REF => ((Ref::SharedBlock(number()?), 1), 8),
                item_type::EXTENT_DATA_REF => {
                    let (data, _) = split::<ExtentDataRef>(body).ok_or_else(cut)?;
                    ((Ref::of(data), data.count.get().into()), size_of::<ExtentDataRef>())
                }
                item_type::SHARED_DATA_REF => {
                    let count = crate::bytes::le32(body, 8).ok_or_else(cut)?;
                    ((Ref::SharedData(number()?), count.into()), 12)
                }
                _ => return Err(corrupt(format!("a reference of type {kind}"))),
            };
            inline.push(found);
            rest = &body[used..];
        }
        Ok(Self { refs: head.refs.get(), generation: head.generation.get(), flags, info, inline })
    }

    /// The item.
    pub fn bytes(&self) -> Vec<u8> {
        let head = ExtentItem {
            refs: self.refs.into(),
            generation: self.generation.into(),
            flags: self.flags.into(),
        };
        let mut out = head.as_bytes().to_vec();
        if let Some(info) = &self.info {
            out.extend_from_slice(info.as_bytes());
        }
        let mut inline: Vec<_> = self.inline.iter().collect();
        inline.sort_by_key(|(what, _)| (what.item_type(), std::cmp::Reverse(what.key_offset())));
        for (what, count) in inline {
            out.push(what.item_type());
            match what {
                Ref::Tree(number) | Ref::SharedBlock(number) => {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                Ref::SharedData(parent) => {
                    out.extend_from_slice(&parent.to_le_bytes());
                    out.extend_from_slice(&to_u32(*count).to_le_bytes());
                }
                Ref::Data { .. } => out.extend_from_slice(&what.data_bytes(*count)),
            }
        }
        out
    }
}

impl Ref {
    /// A reference of a file.
    pub fn of(data: &ExtentDataRef) -> Self {
        Self::Data { root: data.root.get(), inode: data.objectid.get(), offset: data.offset.get() }
    }

    /// The type of an item of its own, or of the reference inside an extent item.
    pub fn item_type(self) -> u8 {
        match self {
            Self::Tree(_) => item_type::TREE_BLOCK_REF,
            Self::SharedBlock(_) => item_type::SHARED_BLOCK_REF,
            Self::Data { .. } => item_type::EXTENT_DATA_REF,
            Self::SharedData(_) => item_type::SHARED_DATA_REF,
        }
    }

    /// The offset of the key of an item of its own; items inside are in the order of it.
    pub fn key_offset(self) -> u64 {
        match self {
            Self::Tree(number) | Self::SharedBlock(number) | Self::SharedData(number) => number,
            Self::Data { root, inode, offset } => data_ref_hash(root, inode, offset),
        }
    }

    /// Bytes inside an extent item.
    pub fn inline_size(self) -> usize {
        1 + match self {
            Self::Tree(_) | Self::SharedBlock(_) => 8,
            Self::SharedData(_) => 12,
            Self::Data { .. } => size_of::<ExtentDataRef>(),
        }
    }

    /// `btrfs_extent_data_ref`; zeros for other kinds.
    pub fn data_bytes(self, count: u64) -> Vec<u8> {
        let (root, inode, offset) = match self {
            Self::Data { root, inode, offset } => (root, inode, offset),
            _ => (0, 0, 0),
        };
        let item = ExtentDataRef {
            root: root.into(),
            objectid: inode.into(),
            offset: offset.into(),
            count: to_u32(count).into(),
        };
        item.as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_in_the_kernels_order() {
        let extent = Extent {
            refs: 5,
            generation: 9,
            flags: DATA,
            info: None,
            inline: vec![
                (Ref::SharedData(10), 1),
                (Ref::Data { root: 5, inode: 257, offset: 0 }, 2),
                (Ref::SharedData(20), 1),
                (Ref::Data { root: 256, inode: 257, offset: 0 }, 1),
            ],
        };
        let key = Key::new(4096, item_type::EXTENT_ITEM, 4096);
        let bytes = extent.bytes();
        let again = Extent::parse(key, &bytes).unwrap();
        assert_eq!(again.bytes(), bytes);
        assert_eq!(again.inline.len(), 4);
        let order: Vec<u8> = again.inline.iter().map(|(what, _)| what.item_type()).collect();
        assert_eq!(order, [178, 178, 184, 184]);
        assert_eq!(again.inline[2].0, Ref::SharedData(20));
        assert!(again.inline[0].0.key_offset() > again.inline[1].0.key_offset());
        for length in 0..bytes.len() {
            let _ = Extent::parse(key, &bytes[..length]);
        }
    }
}
