//! Index trees: directories, and the system's own indexes (`$SII`, `$SDH`, `$R`, ...).
//!
//! A tree is `$INDEX_ROOT`, whose entries lie in the MFT record, and INDX blocks in
//! `$INDEX_ALLOCATION` that its entries point to. Every entry has a key, in inner nodes too; the
//! child that an entry points to has the keys between it and the entry before.
//!
//! The functions here know nothing of records, run lists and bitmaps: an [`IndexStore`] does. What
//! they read is checked before it is used, and a tree that leads back into itself, or is deeper
//! than [`DEPTH`], is an error. A change is worked out in memory first: when one fails for want of
//! room or because a block is corrupt, the tree is as it was.

pub mod collate;
mod edit;
mod node;
#[cfg(test)]
pub(super) mod tests;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use zerocopy::FromBytes;

pub use self::collate::{Collation, key_name};
pub use self::edit::{insert, remove, replace};
use self::node::{BLOCK_HEADER, BLOCK_SIZES, ROOT_HEADER, parse};
pub use self::node::{Entry, RawIndexRoot, View};
use crate::error::{Error, Result};
use crate::ntfs::units::Vcn;
use crate::num::to_usize;
use crate::utf16::UpCase;

/// More levels than any honest tree has.
pub const DEPTH: usize = 20;

/// The place of one index.
pub trait IndexStore {
    /// The index in words, for errors: `record 5 index $I30`.
    fn place(&self) -> String;
    /// The value of `$INDEX_ROOT`.
    fn root(&self) -> Result<Vec<u8>>;
    /// Replaces the value of `$INDEX_ROOT`, and says whether there was room for it: where it says
    /// no, nothing has changed, and the tree moves the entries out to a block. There must be room
    /// for a value of 56 bytes; where there is not, that is an error.
    fn set_root(&mut self, value: &[u8]) -> Result<bool>;
    /// The INDX block at a VCN, of the size that the root says, its update sequence checked and
    /// undone. A VCN that is not in `$INDEX_ALLOCATION` is a corrupt tree.
    fn read_block(&self, vcn: Vcn) -> Result<Vec<u8>>;
    /// Replaces the INDX block at a VCN; the store applies the update sequence.
    fn write_block(&mut self, vcn: Vcn, block: &[u8]) -> Result<()>;
    /// Takes a block that is free in the index's `$BITMAP`, making `$INDEX_ALLOCATION` longer (or
    /// making it at all, and `$BITMAP`) where there is none, and gives its VCN. When it is called,
    /// the root has its smallest size, so that there is room in the record.
    fn allocate_block(&mut self) -> Result<Vcn>;
    /// Frees a block in `$BITMAP`.
    fn free_block(&mut self, vcn: Vcn) -> Result<()>;
}

/// The value of `$INDEX_ROOT` of an index without entries.
pub fn empty_root(indexed_type: u32, rule: u32, block: u32, blocks_per_buffer: u8) -> Vec<u8> {
    node::Node::default().to_root(&RawIndexRoot {
        IndexedAttributeType: indexed_type.into(),
        CollationRule: rule.into(),
        BytesPerIndexBuffer: block.into(),
        BlocksPerIndexBuffer: blocks_per_buffer,
        Reserved: [0; 3],
    })
}

/// Reads what is before the entries of an `$INDEX_ROOT`, and checks it.
pub fn root_header(store: &impl IndexStore, value: &[u8]) -> Result<RawIndexRoot> {
    let bad = |detail: String| Err(Error::corrupt("$INDEX_ROOT", store.place(), detail));
    let Ok((head, _)) = RawIndexRoot::read_from_prefix(value) else {
        return bad(format!("it has {} bytes", value.len()));
    };
    let size = to_usize(head.BytesPerIndexBuffer.get());
    if !size.is_power_of_two() || !BLOCK_SIZES.contains(&size) {
        return bad(format!("its blocks have {size} bytes"));
    }
    Ok(head)
}

/// The state of a whole walk.
struct Context<'a, S> {
    store: &'a S,
    collation: Collation<'a>,
    head: RawIndexRoot,
    root: Vec<u8>,
}

type Places<'a> = Vec<(View<'a>, Option<Vcn>)>;

impl<'a, S: IndexStore> Context<'a, S> {
    fn open(store: &'a S, upcase: &'a UpCase) -> Result<Self> {
        let root = store.root()?;
        let head = root_header(store, &root)?;
        let rule = head.CollationRule.get();
        let Some(collation) = Collation::new(rule, upcase) else {
            let place = store.place();
            return Err(Error::corrupt("$INDEX_ROOT", place, format!("CollationRule {rule:#x}")));
        };
        Ok(Self { store, collation, head, root })
    }

    fn root_places(&self) -> Result<Places<'_>> {
        parse(&self.root, ROOT_HEADER, &self.collation)
            .map_err(|text| Error::corrupt("$INDEX_ROOT", self.store.place(), text))
    }

    fn corrupt(&self, vcn: Vcn, text: impl Into<String>) -> Error {
        Error::corrupt("INDX block", format!("{}, VCN {vcn}", self.store.place()), text)
    }

    fn block(&self, vcn: Vcn) -> Result<Vec<u8>> {
        let block = self.store.read_block(vcn)?;
        let size = to_usize(self.head.BytesPerIndexBuffer.get());
        if block.len() != size {
            return Err(self.corrupt(vcn, format!("{} bytes, not {size}", block.len())));
        }
        let own = Vcn(crate::bytes::le64(&block, 16).unwrap_or(0));
        if own != vcn {
            return Err(self.corrupt(vcn, format!("it says that it is that of VCN {own}")));
        }
        Ok(block)
    }

    fn block_places<'b>(&self, vcn: Vcn, block: &'b [u8]) -> Result<Places<'b>> {
        parse(block, BLOCK_HEADER, &self.collation).map_err(|text| self.corrupt(vcn, text))
    }

    fn too_deep(&self) -> Error {
        let text = format!("the tree is deeper than {DEPTH}, or leads back into itself");
        Error::corrupt("index", self.store.place(), text)
    }

    /// Looks for the entry for which `probe`, which says how a key stands to the wanted one, says
    /// equal.
    fn search(&self, probe: &dyn Fn(&[u8]) -> Ordering) -> Result<Option<Entry>> {
        let (mut found, mut next) = step(&self.root_places()?, probe);
        for _ in 0..DEPTH {
            let Some(vcn) = next.filter(|_| found.is_none()) else { return Ok(found) };
            let block = self.block(vcn)?;
            (found, next) = step(&self.block_places(vcn, &block)?, probe);
        }
        if next.is_some() && found.is_none() {
            return Err(self.too_deep());
        }
        Ok(found)
    }
}

fn step(places: &Places<'_>, probe: &dyn Fn(&[u8]) -> Ordering) -> (Option<Entry>, Option<Vcn>) {
    let at = places.partition_point(|(view, _)| {
        matches!(view, View::Entry(_)) && probe(view.key()) == Ordering::Less
    });
    match places.get(at) {
        Some((view @ View::Entry(_), _)) if probe(view.key()) == Ordering::Equal => {
            let node = node::Node::from_views(&[(*view, None)]);
            (node.entries.into_iter().next().map(|(entry, _)| entry), None)
        }
        Some((_, child)) => (None, *child),
        None => (None, None),
    }
}

/// The entry with exactly this key.
pub fn lookup(store: &impl IndexStore, upcase: &UpCase, key: &[u8]) -> Result<Option<Entry>> {
    let context = Context::open(store, upcase)?;
    if !context.collation.takes(key) {
        return Ok(None);
    }
    context.search(&|other| context.collation.compare(other, key))
}

/// The entry of a directory that `name` names: the one that is spelled so, or else one that
/// differs in case only, as Windows finds it. `None` where there is neither.
pub fn find_name(store: &impl IndexStore, upcase: &UpCase, name: &[u16]) -> Result<Option<Entry>> {
    let context = Context::open(store, upcase)?;
    let Collation::FileName(_) = context.collation else {
        let text = "it is not in the order of file names";
        return Err(Error::corrupt("$INDEX_ROOT", store.place(), text));
    };
    let without_case = |key: &[u8]| {
        let fold = |unit: u16| upcase.fold(unit);
        key_name(key).map(fold).cmp(name.iter().map(|&unit| fold(unit)))
    };
    let exact =
        |key: &[u8]| without_case(key).then_with(|| key_name(key).cmp(name.iter().copied()));
    match context.search(&without_case)? {
        // Most often there is one only, and it is the one.
        Some(entry) if exact(entry.key()) != Ordering::Equal => {
            Ok(context.search(&exact)?.or(Some(entry)))
        }
        found => Ok(found),
    }
}

/// Calls `visit` for each entry, in order, until it says `false`. A block that is reached twice is
/// an error, so that a tree of n blocks never costs more than n reads.
pub fn walk(
    store: &impl IndexStore,
    upcase: &UpCase,
    visit: &mut dyn FnMut(View<'_>) -> Result<bool>,
) -> Result<()> {
    let context = Context::open(store, upcase)?;
    let mut walk = Walk { context: &context, seen: BTreeSet::new(), visit };
    walk.places(&context.root_places()?, 0, None).map(|_| ())
}

/// As [`walk`], beginning at the first entry whose key is not less than `from`.
pub fn walk_from(
    store: &impl IndexStore,
    upcase: &UpCase,
    from: &[u8],
    visit: &mut dyn FnMut(View<'_>) -> Result<bool>,
) -> Result<()> {
    let context = Context::open(store, upcase)?;
    let mut walk = Walk { context: &context, seen: BTreeSet::new(), visit };
    walk.places(&context.root_places()?, 0, Some(from)).map(|_| ())
}

struct Walk<'a, 'v, S> {
    context: &'a Context<'a, S>,
    seen: BTreeSet<Vcn>,
    visit: &'v mut dyn FnMut(View<'_>) -> Result<bool>,
}

impl<S: IndexStore> Walk<'_, '_, S> {
    fn places(&mut self, places: &Places<'_>, depth: usize, from: Option<&[u8]>) -> Result<bool> {
        let context = self.context;
        let first = from.map_or(0, |from| {
            places.partition_point(|(view, _)| {
                matches!(view, View::Entry(_))
                    && context.collation.compare(view.key(), from).is_lt()
            })
        });
        for (index, (view, child)) in places.iter().enumerate().skip(first) {
            if let Some(vcn) = *child {
                if depth >= DEPTH {
                    return Err(context.too_deep());
                }
                if !self.seen.insert(vcn) {
                    return Err(context.corrupt(vcn, "two entries point to it"));
                }
                let block = context.block(vcn)?;
                let below = context.block_places(vcn, &block)?;
                if !self.places(&below, depth + 1, from.filter(|_| index == first))? {
                    return Ok(false);
                }
            }
            if matches!(view, View::Entry(_)) && !(self.visit)(*view)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether the index has no entry at all.
pub fn is_empty(store: &impl IndexStore, upcase: &UpCase) -> Result<bool> {
    let mut empty = true;
    walk(store, upcase, &mut |_| {
        empty = false;
        Ok(false)
    })?;
    Ok(empty)
}
