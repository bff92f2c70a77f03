//! Nodes of an index tree: entries after an index header, in `$INDEX_ROOT` or in an INDX block.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::collate::Collation;
use crate::bytes;
use crate::ntfs::fixup::STRIDE;
use crate::ntfs::units::Vcn;
use crate::num::{to_u16, to_u32, to_u64, to_usize};

/// The offset of a node's index header in `$INDEX_ROOT`.
pub const ROOT_HEADER: usize = size_of::<RawIndexRoot>();
/// The offset of a node's index header in an INDX block.
pub const BLOCK_HEADER: usize = size_of::<RawIndexBlock>();
const HEADER: usize = size_of::<RawIndexHeader>();
const ENTRY: usize = size_of::<RawIndexEntry>();
/// The entry points to a child in the eight bytes at its end.
const INDEX_ENTRY_NODE: u16 = 1;
/// The last entry of a node, without a key.
const INDEX_ENTRY_END: u16 = 2;
/// Flag of an index header whose entries have children.
const INDEX_NODE: u8 = 1;
/// Largest smallest and smallest largest index block.
pub const BLOCK_SIZES: std::ops::RangeInclusive<usize> = 512..=65_536;

/// `$INDEX_ROOT` before its index header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, non_snake_case)] // the names are the specification's
pub struct RawIndexRoot {
    pub IndexedAttributeType: U32,
    pub CollationRule: U32,
    pub BytesPerIndexBuffer: U32,
    pub BlocksPerIndexBuffer: u8,
    pub Reserved: [u8; 3],
}
const _: () = assert!(ROOT_HEADER == 16);

/// An INDX block before its index header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, non_snake_case)] // the names are the specification's
pub struct RawIndexBlock {
    pub Signature: [u8; 4],
    pub UpdateSequenceArrayOffset: U16,
    pub UpdateSequenceArraySize: U16,
    pub Lsn: U64,
    pub ThisBlock: U64,
}
const _: () = assert!(BLOCK_HEADER == 24);

/// Offsets and lengths of an index header count from the header itself.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, non_snake_case)] // the names are the specification's
pub struct RawIndexHeader {
    pub FirstIndexEntry: U32,
    pub FirstFreeByte: U32,
    pub BytesAvailable: U32,
    pub Flags: u8,
    pub Reserved: [u8; 3],
}
const _: () = assert!(HEADER == 16);

/// An entry before its key. In a directory the first eight bytes are the file reference; elsewhere
/// they hold DataOffset and DataLength.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, non_snake_case)] // the names are the specification's
pub struct RawIndexEntry {
    pub FileReference: U64,
    pub Length: U16,
    pub AttributeLength: U16,
    pub Flags: U16,
    pub Reserved: U16,
}
const _: () = assert!(ENTRY == 16);

/// One key with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As on disk, without the pointer to a child; Length and Flags are those without one.
    raw: Vec<u8>,
}

impl Entry {
    /// An entry of a directory: the file, and its `$FILE_NAME` value.
    pub fn file(reference: u64, key: &[u8]) -> Self {
        Self::build(reference, key, &[])
    }

    /// An entry of any other index: key and data, and what fills the entry after the data (`$SDH`
    /// has four bytes there).
    pub fn view(key: &[u8], data: &[u8], tail: &[u8]) -> Self {
        let offset = to_u64(ENTRY + key.len());
        let head = offset & 0xffff | (to_u64(data.len()) & 0xffff) << 16;
        Self::build(head, key, &[data, tail].concat())
    }

    fn build(head: u64, key: &[u8], rest: &[u8]) -> Self {
        let mut raw = vec![0; ENTRY];
        raw[..8].copy_from_slice(&head.to_le_bytes());
        raw.extend_from_slice(key);
        raw.extend_from_slice(rest);
        raw.resize(raw.len().next_multiple_of(8), 0);
        let length = to_u16(raw.len().min(usize::from(u16::MAX)));
        raw[8..10].copy_from_slice(&length.to_le_bytes());
        raw[10..12].copy_from_slice(&to_u16(key.len().min(usize::from(u16::MAX))).to_le_bytes());
        Self { raw }
    }

    /// FileReference of a directory's entry.
    pub fn reference(&self) -> u64 {
        u64_at(&self.raw, 0)
    }

    /// The key: the whole `$FILE_NAME` value in a directory.
    pub fn key(&self) -> &[u8] {
        View::Entry(&self.raw).key()
    }

    /// The data of an entry that is not of a directory; empty where it lies outside of the entry.
    pub fn data(&self) -> &[u8] {
        View::Entry(&self.raw).data()
    }

    /// Bytes in a node, without the pointer to a child.
    pub(super) fn size(&self) -> usize {
        self.raw.len()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes::le16(bytes, at).unwrap_or(0)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes::le64(bytes, at).unwrap_or(0)
}

/// One place of a node, as it stands in the node's bytes.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// An entry with a key.
    Entry(&'a [u8]),
    /// The end of the node.
    End,
}

impl<'a> View<'a> {
    fn raw(self) -> &'a [u8] {
        match self {
            Self::Entry(raw) => raw,
            Self::End => &[],
        }
    }

    /// The key; none at the end.
    pub fn key(self) -> &'a [u8] {
        let raw = self.raw();
        raw.get(ENTRY..ENTRY + usize::from(u16_at(raw, 10))).unwrap_or(&[])
    }

    /// FileReference of a directory's entry.
    pub fn reference(self) -> u64 {
        u64_at(self.raw(), 0)
    }

    /// The data of an entry that is not of a directory.
    pub fn data(self) -> &'a [u8] {
        let raw = self.raw();
        let from = usize::from(u16_at(raw, 0));
        raw.get(from..from + usize::from(u16_at(raw, 2))).unwrap_or(&[])
    }
}

/// The places of the node whose header is at byte `at` of `bytes`, each with the VCN of the child
/// before it. All lengths are checked, and either all places have a child or none has.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    at: usize,
    collation: &Collation<'_>,
) -> Result<Vec<(View<'a>, Option<Vcn>)>, String> {
    let header = bytes
        .get(at..)
        .and_then(|rest| RawIndexHeader::read_from_prefix(rest).ok())
        .ok_or_else(|| format!("{} bytes are too few for an index header", bytes.len()))?
        .0;
    let place = |field: U32| at.saturating_add(to_usize(field.get()));
    let (first, end) = (place(header.FirstIndexEntry), place(header.FirstFreeByte));
    let room = place(header.BytesAvailable);
    if first < at + HEADER || first > end || end > room || room > bytes.len() {
        return Err(format!(
            "its entries lie from byte {first} to {end} of {room}, and it has {} bytes",
            bytes.len()
        ));
    }
    let (mut out, mut at) = (Vec::new(), first);
    loop {
        if at + ENTRY > end {
            return Err("its last entry is missing".to_owned());
        }
        let (length, key) = (u16_at(bytes, at + 8), u16_at(bytes, at + 10));
        let flags = u16_at(bytes, at + 12);
        let has_child = flags & INDEX_ENTRY_NODE != 0;
        let own = usize::from(length).checked_sub(if has_child { 8 } else { 0 });
        let Some(own) = own.filter(|&own| own >= ENTRY && own.is_multiple_of(8)) else {
            return Err(format!("the entry at byte {at} has {length} bytes"));
        };
        if at + usize::from(length) > end {
            return Err(format!("the entry at byte {at} runs past the others' end"));
        }
        let child = has_child.then(|| Vcn(u64_at(bytes, at + own)));
        if let Some((_, before)) = out.first()
            && Option::<Vcn>::is_some(before) != has_child
        {
            return Err("some of its entries have children and some have not".to_owned());
        }
        if flags & INDEX_ENTRY_END != 0 {
            out.push((View::End, child));
            return Ok(out);
        }
        let view = View::Entry(&bytes[at..at + own]);
        if ENTRY + usize::from(key) > own || !collation.takes(view.key()) {
            return Err(format!("the entry at byte {at} has a key that is none of this index"));
        }
        out.push((view, child));
        at += usize::from(length);
    }
}

/// A node to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// The entries with keys, each with the child whose keys are all less.
    pub(super) entries: Vec<(Entry, Option<Vcn>)>,
    /// The child whose keys are greater than all here.
    pub(super) last: Option<Vcn>,
}

impl Node {
    pub(super) fn from_views(views: &[(View<'_>, Option<Vcn>)]) -> Self {
        let mut node = Self::default();
        for (view, child) in views {
            match view {
                View::End => node.last = *child,
                View::Entry(raw) => {
                    let mut raw = raw.to_vec();
                    let length = to_u16(raw.len());
                    raw[8..10].copy_from_slice(&length.to_le_bytes());
                    raw[12..14].fill(0);
                    node.entries.push((Entry { raw }, *child));
                }
            }
        }
        node
    }

    /// The child before place `at`.
    pub(super) fn child(&self, at: usize) -> Option<Vcn> {
        self.entries.get(at).map_or(self.last, |(_, child)| *child)
    }

    pub(super) fn set_child(&mut self, at: usize, vcn: Vcn) {
        match self.entries.get_mut(at) {
            Some((_, child)) => *child = Some(vcn),
            None => self.last = Some(vcn),
        }
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.last.is_none()
    }

    /// Bytes of one entry in this node.
    pub(super) fn size_of(&self, entry: &Entry) -> usize {
        entry.size() + if self.is_leaf() { 0 } else { 8 }
    }

    /// Bytes of all entries, with the end.
    pub(super) fn size(&self) -> usize {
        let end = ENTRY + if self.is_leaf() { 0 } else { 8 };
        self.entries.iter().map(|(entry, _)| self.size_of(entry)).sum::<usize>() + end
    }

    fn write_entries(&self, out: &mut Vec<u8>) {
        for (entry, child) in &self.entries {
            let start = out.len();
            out.extend_from_slice(&entry.raw);
            finish(out, start, 0, *child);
        }
        let start = out.len();
        out.resize(start + ENTRY, 0);
        finish(out, start, INDEX_ENTRY_END, self.last);
    }

    fn header(&self, first: usize, room: usize) -> RawIndexHeader {
        let used = to_u32(first + self.size());
        RawIndexHeader {
            FirstIndexEntry: to_u32(first).into(),
            FirstFreeByte: used.into(),
            BytesAvailable: to_u32(room).max(used).into(),
            Flags: if self.is_leaf() { 0 } else { INDEX_NODE },
            Reserved: [0; 3],
        }
    }

    /// The value of `$INDEX_ROOT`. LARGE_INDEX (the same bit as INDEX_NODE) says that the index
    /// has blocks.
    pub(super) fn to_root(&self, head: &RawIndexRoot) -> Vec<u8> {
        let mut out = head.as_bytes().to_vec();
        out.extend_from_slice(self.header(HEADER, 0).as_bytes());
        self.write_entries(&mut out);
        out
    }

    /// An INDX block of `size` bytes, its update sequence not yet applied. `old` is what the block
    /// held before: its Lsn and update sequence number go on.
    pub(super) fn to_block(&self, vcn: Vcn, size: usize, old: Option<&[u8]>) -> Vec<u8> {
        let numbers = size / STRIDE + 1;
        let first = first_entry(size);
        let mut head = RawIndexBlock {
            Signature: *b"INDX",
            UpdateSequenceArrayOffset: to_u16(BLOCK_HEADER + HEADER).into(),
            UpdateSequenceArraySize: to_u16(numbers).into(),
            Lsn: 0.into(),
            ThisBlock: vcn.0.into(),
        };
        let mut number = 0;
        if let Some((before, _)) = old.and_then(|old| RawIndexBlock::read_from_prefix(old).ok()) {
            head.Lsn = before.Lsn;
            let at = usize::from(before.UpdateSequenceArrayOffset.get());
            number = u16_at(old.unwrap_or_default(), at);
        }
        let mut out = head.as_bytes().to_vec();
        out.extend_from_slice(self.header(first, size - BLOCK_HEADER).as_bytes());
        out.resize(BLOCK_HEADER + first, 0);
        out[BLOCK_HEADER + HEADER..][..2].copy_from_slice(&number.to_le_bytes());
        self.write_entries(&mut out);
        out.resize(size, 0);
        out
    }
}

/// The offset of the entries of a block of `size` bytes, from its index header.
fn first_entry(size: usize) -> usize {
    (HEADER + 2 * (size / STRIDE + 1)).next_multiple_of(8)
}

/// Bytes that the entries of a block of `size` bytes can have.
pub(super) fn block_room(size: usize) -> usize {
    size - BLOCK_HEADER - first_entry(size)
}

/// Sets Length and Flags of the entry at `start`, the last one of `out`, and adds its child.
fn finish(out: &mut Vec<u8>, start: usize, flags: u16, child: Option<Vcn>) {
    let mut flags = flags;
    if let Some(vcn) = child {
        flags |= INDEX_ENTRY_NODE;
        out.extend_from_slice(&vcn.0.to_le_bytes());
    }
    let length = to_u16(out.len() - start);
    out[start + 8..start + 10].copy_from_slice(&length.to_le_bytes());
    out[start + 12..start + 14].copy_from_slice(&flags.to_le_bytes());
}
