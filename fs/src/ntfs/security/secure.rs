//! `$Secure`: the stream `$SDS` holds every descriptor of the volume twice, the index `$SII` finds
//! them by their number, and `$SDH` by their hash.

use super::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::ntfs::index::{self, Entry, IndexStore};
use crate::num::{to_u32, to_usize};
use crate::utf16::UpCase;

/// `$SDS` is made of pieces of this size, each followed by its copy.
const PIECE: u64 = 0x4_0000;
/// Bytes before a descriptor in `$SDS`: Hash, SecurityId, Offset, Length.
const HEADER: usize = 20;
/// The first number that Windows gives.
const FIRST_ID: u32 = 0x100;
/// The bytes after the data of an entry of `$SDH`.
const TAIL: [u8; 4] = *b"I\0I\0";
/// Most bytes of a descriptor with its header.
const MOST: usize = 0x1_0000 + HEADER;

/// The two indexes of `$Secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecureIndex {
    /// By number.
    Sii,
    /// By hash.
    Sdh,
}

/// The place of `$Secure`.
pub trait SecureStore {
    /// One of its indexes.
    type Index<'a>: IndexStore
    where
        Self: 'a;
    /// Gives one of its indexes.
    fn index(&mut self, which: SecureIndex) -> Result<Self::Index<'_>>;
    /// Reads from `$SDS`; beyond its end is an error.
    fn read_sds(&mut self, offset: u64, buf: &mut [u8]) -> Result<()>;
    /// Writes to `$SDS`, which grows, zero in between, where `offset` is beyond its end.
    fn write_sds(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
}

/// The hash of a self-relative descriptor's bytes.
pub fn hash(descriptor: &[u8]) -> u32 {
    descriptor.chunks_exact(4).fold(0u32, |sum, word| {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        word.wrapping_add(sum.rotate_left(3))
    })
}

/// An index's entry of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    hash: u32,
    id: u32,
    offset: u64,
    length: u32,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let long = |at: usize| crate::bytes::le32(bytes, at);
        let offset = u64::from(long(8)?) | u64::from(long(12)?) << 32;
        let header = Self { hash: long(0)?, id: long(4)?, offset, length: long(16)? };
        let fits = (HEADER..=MOST).contains(&to_usize(header.length));
        (fits && header.offset < 1 << 40).then_some(header)
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut out = [self.hash.to_le_bytes(), self.id.to_le_bytes()].concat();
        out.extend(self.offset.to_le_bytes());
        out.extend(self.length.to_le_bytes());
        out
    }

    fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }
}

fn corrupt(position: String, detail: &str) -> Error {
    Error::corrupt("$Secure", position, detail)
}

fn read<S: SecureStore>(store: &mut S, header: Header) -> Result<Vec<u8>> {
    let mut bytes = vec![0; to_usize(header.length)];
    store.read_sds(header.offset, &mut bytes)?;
    if Header::parse(&bytes) != Some(header) {
        let text = "$SDS has another header there than the index";
        return Err(corrupt(format!("security id {:#x}", header.id), text));
    }
    Ok(bytes.split_off(HEADER))
}

/// The bytes of the descriptor with a number; `None` when there is none.
pub fn descriptor<S: SecureStore>(
    store: &mut S,
    upcase: &UpCase,
    id: u32,
) -> Result<Option<Vec<u8>>> {
    let entry = index::lookup(&store.index(SecureIndex::Sii)?, upcase, &id.to_le_bytes())?;
    let Some(entry) = entry else { return Ok(None) };
    let header = Header::parse(entry.data()).filter(|header| header.id == id);
    let position = || format!("security id {id:#x}");
    let header = header.ok_or_else(|| corrupt(position(), "its entry in $SII is of another id"))?;
    let bytes = read(store, header)?;
    if hash(&bytes) != header.hash {
        return Err(corrupt(position(), "the descriptor has another hash"));
    }
    Ok(Some(bytes))
}

/// The number of this descriptor, which is added when the volume does not have it.
pub fn intern<S: SecureStore>(store: &mut S, upcase: &UpCase, bytes: &[u8]) -> Result<u32> {
    Descriptor::parse(bytes).map_err(Error::Invalid)?;
    let hash = hash(bytes);
    // Those of the same hash stand together in `$SDH`.
    let mut same = Vec::new();
    let from = [hash.to_le_bytes(), [0; 4]].concat();
    index::walk_from(&store.index(SecureIndex::Sdh)?, upcase, &from, &mut |view| {
        if !view.key().starts_with(&hash.to_le_bytes()) {
            return Ok(false);
        }
        same.extend(Header::parse(view.data()));
        Ok(true)
    })?;
    for header in same {
        if to_usize(header.length) == HEADER + bytes.len() && read(store, header)? == bytes {
            return Ok(header.id);
        }
    }
    let (mut last, mut end) = (FIRST_ID - 1, 0);
    index::walk(&store.index(SecureIndex::Sii)?, upcase, &mut |view| {
        if let Some(header) = Header::parse(view.data()) {
            last = last.max(header.id);
            end = end.max(header.end());
        }
        Ok(true)
    })?;
    let length = to_u32(HEADER + bytes.len());
    let id = last.checked_add(1).ok_or_else(|| Error::NoSpace("$Secure: no number".to_owned()))?;
    let mut offset = end.next_multiple_of(16);
    // Every other piece is a copy, and no descriptor lies in two pieces.
    let piece = offset / PIECE;
    if piece % 2 == 1 || (offset + u64::from(length) - 1) / PIECE != piece {
        offset = (piece / 2 + 1) * 2 * PIECE;
    }
    let header = Header { hash, id, offset, length };
    let whole = [&header.to_bytes()[..], bytes].concat();
    store.write_sds(offset, &whole)?;
    store.write_sds(offset + PIECE, &whole)?;
    let sii = Entry::view(&id.to_le_bytes(), &header.to_bytes(), &[]);
    index::insert(&mut store.index(SecureIndex::Sii)?, upcase, &sii)?;
    let key = [hash.to_le_bytes(), id.to_le_bytes()].concat();
    let sdh = Entry::view(&key, &header.to_bytes(), &TAIL);
    index::insert(&mut store.index(SecureIndex::Sdh)?, upcase, &sdh)?;
    Ok(id)
}
