//! Index trees of files: what [`super::index`] wants to know of records, run lists and bitmaps.

use std::ops::Range;

use super::alloc::change_bits;
use super::attribute::{Attribute, Body, Mapping};
use super::boot::Geometry;
use super::fixup;
use super::index::{self, IndexStore};
use super::inode::Inode;
use super::layout::{BITMAP, INDEX_ALLOCATION, INDEX_ROOT, records};
use super::mft::end_of;
use super::pieces::Step;
use super::record::Record;
use super::runs::Run;
use super::save::UNNUMBERED;
use super::units::{Lcn, Vcn};
use super::volume::Volume;
use crate::error::{Error, Result, display_name};
use crate::num::{to_u64, to_usize};

/// The name of a directory's index: `$I30`.
pub const I30: [u16; 4] = [0x24, 0x49, 0x33, 0x30];

/// The index and its file in words, for errors.
pub(super) fn place(inode: &Inode, name: &[u16]) -> String {
    let name = display_name(&crate::utf16::to_utf8(name));
    format!("record {} index {name}", inode.number)
}

/// Bytes that one VCN counts in an index with blocks of `block` bytes: a cluster, or 512 bytes
/// where a block is smaller than a cluster.
pub(super) fn vcn_unit(block: usize, geometry: &Geometry) -> u64 {
    if to_u64(block) >= geometry.cluster { geometry.cluster } else { 512 }
}

/// The value of an index's root.
pub(super) fn root(inode: &Inode, name: &[u16]) -> Result<Vec<u8>> {
    let root = inode.find(INDEX_ROOT, name).and_then(Attribute::value);
    root.cloned().ok_or_else(|| {
        Error::corrupt("$INDEX_ROOT", place(inode, name), "there is none that can be read")
    })
}

/// Bytes of the blocks of an index, from its root.
pub(super) fn block_size(inode: &Inode, name: &[u16]) -> Result<usize> {
    let reader = Reader { volume: None, inode, name };
    let head = index::root_header(&reader, &root(inode, name)?)?;
    Ok(to_usize(head.BytesPerIndexBuffer.get()))
}

/// Reads a block, checks its update sequence and undoes it.
pub(super) fn read_block(
    volume: &Volume,
    inode: &Inode,
    name: &[u16],
    vcn: Vcn,
) -> Result<Vec<u8>> {
    let corrupt = |text: String| {
        Error::corrupt("INDX block", format!("{}, VCN {vcn}", place(inode, name)), text)
    };
    let size = block_size(inode, name)?;
    let Some(blocks) = inode.find(INDEX_ALLOCATION, name) else {
        return Err(corrupt("the index has no blocks".to_owned()));
    };
    let offset = vcn.checked_byte(vcn_unit(size, &volume.geometry));
    let offset = offset
        .filter(|offset| offset.checked_add(to_u64(size)).is_some_and(|end| end <= blocks.size()));
    let Some(offset) = offset else {
        return Err(corrupt(format!("the blocks have only {} bytes", blocks.size())));
    };
    let mut block = vec![0; size];
    volume.read_metadata(blocks, offset, &mut block)?;
    fixup::apply(&mut block, b"INDX").map_err(corrupt)?;
    Ok(block)
}

/// An index that is only looked at.
pub struct Reader<'a> {
    volume: Option<&'a Volume>,
    inode: &'a Inode,
    name: &'a [u16],
}

impl<'a> Reader<'a> {
    /// The index `name` of a file.
    pub fn new(volume: &'a Volume, inode: &'a Inode, name: &'a [u16]) -> Self {
        Self { volume: Some(volume), inode, name }
    }
}

fn only_read<T>() -> Result<T> {
    Err(Error::Invalid("this index is only looked at".to_owned()))
}

impl IndexStore for Reader<'_> {
    fn place(&self) -> String {
        place(self.inode, self.name)
    }
    fn root(&self) -> Result<Vec<u8>> {
        root(self.inode, self.name)
    }
    fn set_root(&mut self, _: &[u8]) -> Result<bool> {
        only_read()
    }
    fn read_block(&self, vcn: Vcn) -> Result<Vec<u8>> {
        match self.volume {
            Some(volume) => read_block(volume, self.inode, self.name, vcn),
            None => only_read(),
        }
    }
    fn write_block(&mut self, _: Vcn, _: &[u8]) -> Result<()> {
        only_read()
    }
    fn allocate_block(&mut self) -> Result<Vcn> {
        only_read()
    }
    fn free_block(&mut self, _: Vcn) -> Result<()> {
        only_read()
    }
}

/// An index that is changed. [`Editor::finish`] ends it; the file is to be saved then.
pub struct Editor<'a> {
    volume: &'a mut Volume,
    inode: &'a mut Inode,
    name: &'a [u16],
}

/// `$BITMAP` of an index grows by whole words.
const WORD: usize = 8;
/// Bytes of a `$BITMAP` of an index at most: 8 million blocks.
const BITMAP_MAX: u64 = 1 << 20;
/// From this number of pieces on, an index moves as a whole when a block of it changes,
const PIECES: usize = 12;
/// unless it has more bytes than this.
const WHOLE_MAX: u64 = 256 << 10;
/// Room in the record that the root leaves to the run list of the blocks, which grows as they move.
const RUN_RESERVE: usize = 32;
/// The least room for a root that is asked for: one entry that points to a block.
const LEAST_ROOT: usize = 56;

impl<'a> Editor<'a> {
    /// The index `name` of a file, to be changed.
    pub(super) fn new(volume: &'a mut Volume, inode: &'a mut Inode, name: &'a [u16]) -> Self {
        Self { volume, inode, name }
    }

    fn bits(&self) -> Result<Vec<u8>> {
        match self.inode.find(BITMAP, self.name) {
            Some(bitmap) => self.volume.whole_value(bitmap, BITMAP_MAX),
            None => Ok(Vec::new()),
        }
    }

    fn set_bits(&mut self, bits: &[u8]) -> Result<()> {
        self.volume.set_value(self.inode, BITMAP, self.name, bits)
    }

    /// The bit of a VCN in the bitmap.
    fn bit(&self, vcn: Vcn) -> Result<u64> {
        let size = block_size(self.inode, self.name)?;
        Ok(vcn.byte(vcn_unit(size, &self.volume.geometry)) / to_u64(size))
    }

    fn corrupt(&self, text: String) -> Error {
        Error::corrupt("$INDEX_ALLOCATION", place(self.inode, self.name), text)
    }

    /// The places of a block's bytes.
    fn places(&self, vcn: Vcn, length: usize) -> Result<Vec<(u64, usize)>> {
        let unit = vcn_unit(length, &self.volume.geometry);
        let blocks = self.inode.find(INDEX_ALLOCATION, self.name).and_then(Attribute::mapping);
        blocks
            .zip(vcn.checked_byte(unit))
            .and_then(|(blocks, offset)| self.volume.places(&blocks.runs, offset, length))
            .ok_or_else(|| self.corrupt(format!("VCN {vcn} has no clusters")))
    }

    /// Whether the clusters were free at the last commit.
    fn is_fresh(&self, places: &[(u64, usize)]) -> bool {
        let cluster = self.volume.geometry.cluster;
        places.iter().all(|&(place, count)| {
            let last = place + to_u64(count).saturating_sub(1);
            (place / cluster..=last / cluster).all(|lcn| self.volume.is_fresh(Lcn(lcn)))
        })
    }

    /// Gives the block at byte `offset` of `$INDEX_ALLOCATION` other clusters, which were free, so
    /// that the old block stays whole until the file's record leads to the new one. Other blocks
    /// in the same clusters move along, and the whole attribute where it is in many pieces.
    fn relocate(&mut self, offset: u64, length: usize) -> Result<()> {
        let cluster = self.volume.geometry.cluster;
        let blocks = self.inode.find(INDEX_ALLOCATION, self.name).and_then(Attribute::mapping);
        let Some(mut mapping) = blocks.cloned() else {
            return Err(self.corrupt("it is resident".to_owned()));
        };
        let block = Vcn::of_bytes(offset..offset + to_u64(length), cluster);
        let all = Vcn(0)..Vcn(mapping.runs.clusters());
        let in_pieces = mapping.runs.len() >= PIECES
            && mapping.runs.clusters().saturating_mul(cluster) <= WHOLE_MAX;
        let near = |vcns: &Range<Vcn>| mapping.runs.part(vcns.clone()).next()?.lcn;
        let whole = match in_pieces {
            true => self.volume.allocate(all.end - all.start, near(&all)).map(Some),
            false => Ok(None),
        };
        let (vcns, new) = match whole {
            Ok(Some(new)) => (all, new),
            // There may be room for the block alone.
            Ok(None) | Err(Error::NoSpace(_)) => {
                let new = self.volume.allocate(block.end - block.start, near(&block))?;
                (block, new)
            }
            Err(error) => return Err(error),
        };
        let old: Vec<Run> = mapping.runs.part(vcns.clone()).collect();
        let covered = (vcns.end - vcns.start) * cluster;
        if covered > to_u64(length) {
            let mut bytes = vec![0; to_usize(covered)];
            self.volume.read_runs(&mapping.runs, vcns.start.byte(cluster), &mut bytes)?;
            self.volume.write_runs(&new, 0, &bytes, Step::Fresh)?;
        }
        mapping.runs = mapping.runs.replaced(vcns, &new);
        match self.inode.find_mut(INDEX_ALLOCATION, self.name) {
            Some(attribute) => attribute.body = Body::Mapped(mapping),
            None => return Err(self.corrupt("it is gone".to_owned())),
        }
        self.volume.release(old)
    }

    /// Gives back the blocks of an index that has none in use any more.
    pub(super) fn finish(self) -> Result<()> {
        if self.inode.find(BITMAP, self.name).is_none() || self.bits()?.iter().any(|&b| b != 0) {
            return Ok(());
        }
        for type_code in [INDEX_ALLOCATION, BITMAP] {
            if let Some(attribute) = self.inode.remove(type_code, self.name) {
                self.volume.release_value(&attribute)?;
            }
        }
        Ok(())
    }
}

impl IndexStore for Editor<'_> {
    fn place(&self) -> String {
        place(self.inode, self.name)
    }

    fn root(&self) -> Result<Vec<u8>> {
        root(self.inode, self.name)
    }

    fn set_root(&mut self, value: &[u8]) -> Result<bool> {
        let room = Record::new(records::MFT, &self.volume.geometry).room();
        let others =
            self.inode.attributes.iter().filter(|attribute| {
                attribute.type_code != INDEX_ROOT || attribute.name != self.name
            });
        let others: usize = others.map(Attribute::encoded_size).sum();
        let new = Attribute::resident(INDEX_ROOT, self.name, value.to_vec());
        let has_blocks = self.inode.find(INDEX_ALLOCATION, self.name).is_some();
        let reserve = if has_blocks { RUN_RESERVE } else { 0 };
        if value.len() > LEAST_ROOT && others + new.encoded_size() + reserve > room {
            return Ok(false);
        }
        match self.inode.find_mut(INDEX_ROOT, self.name) {
            Some(Attribute { body: Body::Resident(old), .. }) => *old = value.to_vec(),
            _ => return Err(self.corrupt("the index has no $INDEX_ROOT".to_owned())),
        }
        Ok(true)
    }

    fn read_block(&self, vcn: Vcn) -> Result<Vec<u8>> {
        read_block(self.volume, self.inode, self.name, vcn)
    }

    fn write_block(&mut self, vcn: Vcn, block: &[u8]) -> Result<()> {
        let unit = vcn_unit(block.len(), &self.volume.geometry);
        let mut places = self.places(vcn, block.len())?;
        if !self.is_fresh(&places) {
            // In its own place a cut would tear it, and the names in it would be lost.
            self.relocate(vcn.byte(unit), block.len())?;
            places = self.places(vcn, block.len())?;
        }
        let mut bytes = block.to_vec();
        fixup::protect(&mut bytes).map_err(|text| self.corrupt(text))?;
        self.volume.write_places(&places, &bytes, Step::Fresh)
    }

    fn allocate_block(&mut self) -> Result<Vcn> {
        let size = to_u64(block_size(self.inode, self.name)?);
        let geometry = self.volume.geometry;
        let mut blocks = match self.inode.find(INDEX_ALLOCATION, self.name) {
            Some(attribute) => attribute.clone(),
            None => {
                let mut new = Attribute::resident(INDEX_ALLOCATION, self.name, Vec::new());
                new.instance = UNNUMBERED;
                new.body = Body::Mapped(Mapping::default());
                self.inode.attributes.push(new.clone());
                new
            }
        };
        let Body::Mapped(mapping) = &mut blocks.body else {
            return Err(self.corrupt("it is resident".to_owned()));
        };
        let mut bits = self.bits()?;
        let count = mapping.size / size;
        let free = (0..count)
            .find(|&bit| bits.get(to_usize(bit / 8)).is_none_or(|byte| byte >> (bit % 8) & 1 == 0));
        let bit = match free {
            Some(bit) => bit,
            None => {
                let end = (count + 1) * size;
                let have = mapping.runs.clusters();
                let wanted = geometry.clusters_for(end).saturating_sub(have);
                let near = end_of(mapping);
                let more = self.volume.allocate(wanted, near)?;
                more.iter().for_each(|run| mapping.runs.push(run));
                mapping.size = end;
                mapping.valid = end;
                count
            }
        };
        mapping.valid = mapping.valid.max((bit + 1) * size);
        let byte = to_usize(bit / 8);
        if byte >= bits.len() {
            bits.resize((byte + 1).next_multiple_of(WORD), 0);
        }
        bits[byte] |= 1 << (bit % 8);
        if let Some(attribute) = self.inode.find_mut(INDEX_ALLOCATION, self.name) {
            *attribute = blocks;
        }
        self.set_bits(&bits)?;
        Ok(Vcn(bit * size / vcn_unit(to_usize(size), &geometry)))
    }

    fn free_block(&mut self, vcn: Vcn) -> Result<()> {
        let bit = self.bit(vcn)?;
        let mut bits = self.bits()?;
        if !change_bits(&mut bits, bit..bit + 1, false) {
            return Err(self.corrupt(format!("VCN {vcn} is free in $BITMAP already")));
        }
        self.set_bits(&bits)
    }
}
