//! Lists of subkeys: `li`, `lf`, `lh`, and `ri`, the list of lists.

use std::cmp::Ordering;

use super::error::{HiveError, Result};
use super::format::{KeyNode, NONE, SubkeysList};
use super::hive::{Hive, Key};
use super::name::Name;

/// A list longer than this is split, so that it stays in one page as Windows' own.
const LEAF_MAX: usize = 507;
/// No more lists of subkeys are in one list of lists.
const ROOT_MAX: usize = 1012;

/// The elements of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `li`: offsets.
    Index,
    /// `lf`: offsets and the first four characters.
    Fast,
    /// `lh`: offsets and hashes.
    Hash,
}

impl Kind {
    fn of(signature: [u8; 2]) -> Option<Self> {
        match &signature {
            b"li" => Some(Self::Index),
            b"lf" => Some(Self::Fast),
            b"lh" => Some(Self::Hash),
            _ => None,
        }
    }

    /// The kind that Windows of a format version writes.
    fn native(minor: u32) -> Self {
        match minor {
            5.. => Self::Hash,
            3 | 4 => Self::Fast,
            _ => Self::Index,
        }
    }

    fn signature(self) -> [u8; 2] {
        match self {
            Self::Index => *b"li",
            Self::Fast => *b"lf",
            Self::Hash => *b"lh",
        }
    }

    fn width(self) -> usize {
        if self == Self::Index { 4 } else { 8 }
    }
}

/// A leaf: which kind, and the raw elements.
struct Leaf {
    kind: Kind,
    elements: Vec<[u8; 8]>,
}

impl Leaf {
    fn offset(element: [u8; 8]) -> u32 {
        u32::from_le_bytes([element[0], element[1], element[2], element[3]])
    }

    fn element(&self, key: Key, name: &Name) -> [u8; 8] {
        let extra = match self.kind {
            Kind::Index => [0; 4],
            Kind::Fast => name.hint(),
            Kind::Hash => name.hash().to_le_bytes(),
        };
        let mut element = [0; 8];
        element[..4].copy_from_slice(&key.0.to_le_bytes());
        element[4..].copy_from_slice(&extra);
        element
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.kind.signature().to_vec();
        bytes.extend_from_slice(&(self.elements.len() as u16).to_le_bytes());
        for element in &self.elements {
            bytes.extend_from_slice(&element[..self.kind.width()]);
        }
        bytes
    }
}

impl Hive {
    fn elements(&self, offset: u32, width: usize) -> Result<(SubkeysList, &[u8])> {
        let cell = self.cell("subkeys list", offset)?;
        let signature = [cell[0], cell[1]];
        let head: SubkeysList = self.record("subkeys list", offset, signature)?;
        let count = usize::from(head.number_of_elements.get());
        let bytes = cell.get(4..4 + count * width).ok_or_else(|| {
            let detail = format!("{count} elements do not fit into its cell");
            HiveError::cell("subkeys list", offset, detail)
        })?;
        Ok((head, bytes))
    }

    /// The lists in a list of lists, or the list itself.
    fn leaves(&self, offset: u32) -> Result<Vec<u32>> {
        if !self.cell("subkeys list", offset)?.starts_with(b"ri") {
            return Ok(vec![offset]);
        }
        let (_, bytes) = self.elements(offset, 4)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn leaf(&self, offset: u32) -> Result<Leaf> {
        let cell = self.cell("subkeys list", offset)?;
        let Some(kind) = Kind::of([cell[0], cell[1]]) else {
            return Err(HiveError::cell("subkeys list", offset, "it is none of li, lf and lh"));
        };
        let (_, bytes) = self.elements(offset, kind.width())?;
        let elements = bytes.chunks_exact(kind.width()).map(|bytes| {
            let mut element = [0; 8];
            element[..bytes.len()].copy_from_slice(bytes);
            element
        });
        Ok(Leaf { kind, elements: elements.collect() })
    }

    /// The subkeys of a key, in the hive's order. Volatile ones are never on the disk.
    pub fn subkeys(&self, key: Key) -> Result<Vec<Key>> {
        let node = self.node(key)?;
        let offset = node.subkeys_list_offset.get();
        if node.number_of_subkeys.get() == 0 || offset == NONE {
            return Ok(Vec::new());
        }
        // So many nodes and no more are in a hive of this size, however its lists repeat.
        let most = self.bins_size() as usize / (size_of::<KeyNode>() + 4);
        let mut keys = Vec::new();
        for leaf in self.leaves(offset)? {
            keys.extend(self.leaf(leaf)?.elements.into_iter().map(|e| Key(Leaf::offset(e))));
            if keys.len() > most {
                return Err(HiveError::cell("subkeys list", offset, "it has too many elements"));
            }
        }
        Ok(keys)
    }

    /// The subkey with a name.
    pub fn subkey(&self, key: Key, name: &Name) -> Result<Option<Key>> {
        for subkey in self.subkeys(key)? {
            if self.name(subkey)?.same(name) {
                return Ok(Some(subkey));
            }
        }
        Ok(None)
    }

    /// Puts a key into its place in the list of its parent's subkeys; gives where the list is now.
    pub(super) fn insert_subkey(&mut self, list: u32, key: Key, name: &Name) -> Result<u32> {
        if list == NONE {
            let mut leaf = Leaf { kind: Kind::native(self.minor), elements: Vec::new() };
            leaf.elements.push(leaf.element(key, name));
            return self.new_cell(&leaf.bytes());
        }
        let is_root = self.cell("subkeys list", list)?.starts_with(b"ri");
        let leaves = self.leaves(list)?;
        // The leaf whose last key comes after the new one, else the last leaf.
        let mut index = leaves.len().saturating_sub(1);
        for (number, offset) in leaves.iter().enumerate() {
            let leaf = self.leaf(*offset)?;
            let Some(last) = leaf.elements.last() else { continue };
            if self.name(Key(Leaf::offset(*last)))?.compare(name) == Ordering::Greater {
                index = number;
                break;
            }
        }
        let Some(offset) = leaves.get(index).copied() else {
            return Err(HiveError::cell("subkeys list", list, "it has no lists in it"));
        };
        let mut leaf = self.leaf(offset)?;
        let mut place = leaf.elements.len();
        for (number, element) in leaf.elements.iter().enumerate() {
            if self.name(Key(Leaf::offset(*element)))?.compare(name) == Ordering::Greater {
                place = number;
                break;
            }
        }
        let element = leaf.element(key, name);
        leaf.elements.insert(place, element);
        let mut new_leaves = leaves.clone();
        if leaf.elements.len() > LEAF_MAX {
            let half = leaf.elements.len() / 2;
            let upper = Leaf { kind: leaf.kind, elements: leaf.elements.split_off(half) };
            let upper = self.new_cell(&upper.bytes())?;
            new_leaves.insert(index + 1, upper);
        }
        new_leaves[index] = self.replace_cell("subkeys list", offset, &leaf.bytes())?;
        if new_leaves == leaves {
            return Ok(list);
        }
        if let ([only], false) = (new_leaves.as_slice(), is_root) {
            return Ok(*only);
        }
        self.put_leaves(list, is_root, &new_leaves)
    }

    /// Writes the list of lists, anew where there was none.
    fn put_leaves(&mut self, list: u32, is_root: bool, leaves: &[u32]) -> Result<u32> {
        if leaves.len() > ROOT_MAX {
            return Err(HiveError::Invalid("a key would have too many subkeys".into()));
        }
        let mut bytes = b"ri".to_vec();
        bytes.extend_from_slice(&(leaves.len() as u16).to_le_bytes());
        bytes.extend(leaves.iter().flat_map(|leaf| leaf.to_le_bytes()));
        if is_root {
            return self.replace_cell("subkeys list", list, &bytes);
        }
        self.new_cell(&bytes)
    }
}
