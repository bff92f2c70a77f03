//! Directory entries inside one block (or inside an inode): reading them, checked, and packing.
//!
//! Source: the kernel's Documentation/filesystems/ext4/directory.rst.

use super::super::checksum::crc32c;
use super::super::superblock::{Superblock, incompat};
use crate::error::{Error, Result, display_name};
use crate::ext::units::Ino;
use crate::filesystem::FileType;
use crate::num::{to_u8, to_usize};

/// Bytes of an entry before its name.
pub const HEADER: usize = 8;
/// Bytes of the checksum tail of a leaf block.
pub const TAIL: usize = 12;
/// `det_reserved_ft` of the checksum tail.
const TAIL_FILE_TYPE: u8 = 0xDE;
/// The longest name.
pub const NAME_MAX: usize = 255;

/// The form of directory blocks, from the superblock.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Bytes in a block.
    pub block_size: usize,
    /// Whether entries carry the type of the inode they name (`filetype`).
    pub filetype: bool,
    /// Whether leaf blocks end in a checksum (`metadata_csum`).
    pub checksums: bool,
    /// The highest inode number.
    pub inodes_count: u32,
}

impl Layout {
    /// The layout of a file system.
    pub fn of(sb: &Superblock) -> Self {
        Self {
            block_size: to_usize(sb.block_size()),
            filetype: sb.has_incompat(incompat::FILETYPE),
            checksums: sb.has_metadata_csum(),
            inodes_count: sb.raw.s_inodes_count.get(),
        }
    }

    /// Bytes of a leaf block that entries may use.
    pub fn usable(&self) -> usize {
        if self.checksums { self.block_size - TAIL } else { self.block_size }
    }

    fn decode_rec_len(&self, value: u16) -> usize {
        // 64 KiB does not fit into 16 bits.
        if self.block_size >= 0x1_0000 && (value == 0 || value == 0xFFFF) {
            self.block_size
        } else {
            usize::from(value)
        }
    }

    fn encode_rec_len(&self, length: usize) -> u16 {
        u16::try_from(length).unwrap_or(u16::MAX)
    }
}

/// Bytes that an entry with a name of `length` bytes takes.
pub fn entry_size(length: usize) -> usize {
    (HEADER + length).next_multiple_of(4)
}

/// The code of a file type in an entry.
pub fn type_code(file_type: FileType) -> u8 {
    match file_type {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::CharDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
    }
}

/// The file type that a code in an entry means.
pub fn type_of_code(code: u8) -> Option<FileType> {
    Some(match code {
        1 => FileType::Regular,
        2 => FileType::Directory,
        3 => FileType::CharDevice,
        4 => FileType::BlockDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        7 => FileType::Symlink,
        _ => return None,
    })
}

/// One entry as it is in its block.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// Byte in the region where it starts.
    pub offset: usize,
    /// Bytes to the next entry.
    pub rec_len: usize,
    /// The inode, 0 for an unused entry.
    pub inode: Ino,
    /// The name; empty for an unused entry.
    pub name: &'a [u8],
    /// The file type code; 0 without the feature.
    pub file_type: u8,
}

impl Raw<'_> {
    /// Bytes it needs, which may be less than it takes.
    pub fn used(&self) -> usize {
        if self.inode.is_none() { 0 } else { entry_size(self.name.len()) }
    }

    /// Whether it is `.` or `..`.
    pub fn is_dot(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }
}

/// Walks over the entries of a region: the usable part of a leaf block, or a part of an inode.
/// `place` names the region in errors.
pub fn entries<'a>(region: &'a [u8], layout: Layout, place: &'a Place) -> Entries<'a> {
    Entries { region, layout, place, at: 0, failed: false }
}

/// The place of a region of entries, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub ino: Ino,
    /// Its logical block; `None` for entries inside the inode.
    pub lblk: Option<u32>,
}

impl Place {
    fn describe(&self, at: usize) -> String {
        match self.lblk {
            Some(lblk) => format!("inode {}, block {lblk}, byte {at}", self.ino),
            None => format!("inode {}, inline data, byte {at}", self.ino),
        }
    }

    /// An error about this region.
    pub fn corrupt(&self, structure: &'static str, at: usize, detail: impl Into<String>) -> Error {
        Error::corrupt(structure, self.describe(at), detail)
    }
}

/// See [`entries`].
pub struct Entries<'a> {
    region: &'a [u8],
    layout: Layout,
    place: &'a Place,
    at: usize,
    failed: bool,
}

impl<'a> Entries<'a> {
    fn parse(&self) -> Result<Raw<'a>> {
        let offset = self.at;
        let bad = |detail: String| Err(self.place.corrupt("directory entry", offset, detail));
        let rest = &self.region[offset..];
        let Some((head, _)) = rest.split_at_checked(HEADER) else {
            return bad(format!("only {} bytes are left for an entry", rest.len()));
        };
        let inode = Ino::new(u32::from_le_bytes([head[0], head[1], head[2], head[3]]));
        let rec_len = self.layout.decode_rec_len(u16::from_le_bytes([head[4], head[5]]));
        let name_len = usize::from(head[6]);
        if rec_len < entry_size(1) || !rec_len.is_multiple_of(4) {
            return bad(format!("rec_len is {rec_len}, a multiple of 4 from 12 expected"));
        }
        if rec_len > rest.len() {
            return bad(format!("rec_len is {rec_len}, but {} bytes are left", rest.len()));
        }
        if rest.len() - rec_len != 0 && rest.len() - rec_len < entry_size(1) {
            return bad(format!("rec_len {rec_len} leaves no room for the next entry"));
        }
        if entry_size(name_len) > rec_len {
            return bad(format!("name_len is {name_len}, but rec_len {rec_len}"));
        }
        let name = &rest[HEADER..HEADER + name_len];
        if inode.is_none() {
            return Ok(Raw { offset, rec_len, inode, name: &[], file_type: 0 });
        }
        if inode.get() > self.layout.inodes_count {
            return bad(format!(
                "inode is {inode}, but there are {} inodes",
                self.layout.inodes_count
            ));
        }
        if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
            return bad(format!("the name `{}` is not a name", display_name(name)));
        }
        let file_type = if self.layout.filetype { head[7] } else { 0 };
        Ok(Raw { offset, rec_len, inode, name, file_type })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Raw<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.at >= self.region.len() {
            return None;
        }
        let entry = self.parse();
        match &entry {
            Ok(entry) => self.at += entry.rec_len,
            Err(_) => self.failed = true,
        }
        Some(entry)
    }
}

/// Writes an entry at `at`; the caller has checked that it fits.
pub fn put(
    region: &mut [u8],
    layout: Layout,
    at: usize,
    rec_len: usize,
    inode: Ino,
    name: &[u8],
    file_type: u8,
) {
    region[at..at + 4].copy_from_slice(&inode.to_le_bytes());
    region[at + 4..at + 6].copy_from_slice(&layout.encode_rec_len(rec_len).to_le_bytes());
    region[at + 6] = to_u8(name.len());
    region[at + 7] = if layout.filetype { file_type } else { 0 };
    region[at + HEADER..at + HEADER + name.len()].copy_from_slice(name);
}

fn set_rec_len(region: &mut [u8], layout: Layout, at: usize, rec_len: usize) {
    region[at + 4..at + 6].copy_from_slice(&layout.encode_rec_len(rec_len).to_le_bytes());
}

/// Puts a new entry into the first gap that holds it. `false` when there is none.
pub fn insert(
    region: &mut [u8],
    layout: Layout,
    place: &Place,
    inode: Ino,
    name: &[u8],
    file_type: u8,
) -> Result<bool> {
    let needed = entry_size(name.len());
    let mut gap = None;
    for entry in entries(region, layout, place) {
        let entry = entry?;
        if entry.rec_len - entry.used() >= needed {
            gap = Some((entry.offset, entry.rec_len, entry.used()));
            break;
        }
    }
    let Some((offset, rec_len, used)) = gap else { return Ok(false) };
    if used != 0 {
        set_rec_len(region, layout, offset, used);
    }
    put(region, layout, offset + used, rec_len - used, inode, name, file_type);
    Ok(true)
}

/// Takes out the entry that starts at `offset`: the one before it grows over it, or it becomes an
/// unused entry when it is the first.
pub fn remove(region: &mut [u8], layout: Layout, place: &Place, offset: usize) -> Result<()> {
    let mut before: Option<(usize, usize)> = None;
    let mut found = None;
    for entry in entries(region, layout, place) {
        let entry = entry?;
        if entry.offset == offset {
            found = Some(entry.rec_len);
            break;
        }
        before = Some((entry.offset, entry.rec_len));
    }
    let Some(rec_len) = found else {
        return Err(place.corrupt("directory entry", offset, "no entry starts here"));
    };
    match before {
        Some((start, length)) => {
            set_rec_len(region, layout, start, length + rec_len);
            region[offset..offset + rec_len].fill(0);
        }
        None => {
            region[offset..offset + 4].fill(0);
            region[offset + 6..offset + rec_len].fill(0);
        }
    }
    Ok(())
}

/// Points the entry at `offset` to another inode.
pub fn retarget(region: &mut [u8], layout: Layout, offset: usize, inode: Ino, file_type: u8) {
    region[offset..offset + 4].copy_from_slice(&inode.to_le_bytes());
    if layout.filetype {
        region[offset + 7] = file_type;
    }
}

/// An entry taken out of its block, to be packed into another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The inode.
    pub inode: Ino,
    /// The name.
    pub name: Vec<u8>,
    /// The file type code.
    pub file_type: u8,
}

/// Fills a region with entries, the last one taking the rest. The caller has checked that they
/// fit.
pub fn pack(region: &mut [u8], layout: Layout, list: &[Owned]) {
    region.fill(0);
    let total = region.len();
    let mut at = 0;
    for (index, entry) in list.iter().enumerate() {
        let size = if index + 1 == list.len() { total - at } else { entry_size(entry.name.len()) };
        put(region, layout, at, size, entry.inode, &entry.name, entry.file_type);
        at += size;
    }
    if list.is_empty() {
        set_rec_len(region, layout, 0, total);
    }
}

/// The checksum of a leaf block: everything before its tail.
fn leaf_checksum(block: &[u8], seed: u32) -> u32 {
    crc32c(seed, &block[..block.len() - TAIL])
}

/// Verifies the tail of a leaf block. `seed` is the inode's.
pub fn verify_tail(block: &[u8], layout: Layout, place: &Place, seed: u32) -> Result<()> {
    if !layout.checksums {
        return Ok(());
    }
    let at = block.len() - TAIL;
    let tail = &block[at..];
    if tail[..8] != [0, 0, 0, 0, to_u8(TAIL), 0, 0, TAIL_FILE_TYPE] {
        return Err(place.corrupt(
            "directory block",
            at,
            "there is no checksum at its end; run e2fsck -D first",
        ));
    }
    let found = u32::from_le_bytes([tail[8], tail[9], tail[10], tail[11]]);
    let expected = leaf_checksum(block, seed);
    if found != expected {
        return Err(place.corrupt(
            "directory block",
            at,
            format!("det_checksum is {found:#010x}, {expected:#010x} expected"),
        ));
    }
    Ok(())
}

/// Writes the tail of a leaf block where the file system has them.
pub fn seal_tail(block: &mut [u8], layout: Layout, seed: u32) {
    if layout.checksums {
        let at = block.len() - TAIL;
        block[at..at + 8].copy_from_slice(&[0, 0, 0, 0, to_u8(TAIL), 0, 0, TAIL_FILE_TYPE]);
        let crc = leaf_checksum(block, seed);
        block[at + 8..].copy_from_slice(&crc.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout =
        Layout { block_size: 1024, filetype: true, checksums: true, inodes_count: 100 };
    const PLACE: Place = Place { ino: Ino::new(12), lblk: Some(0) };

    fn names(region: &[u8]) -> Vec<Vec<u8>> {
        entries(region, LAYOUT, &PLACE)
            .map(|entry| entry.unwrap())
            .filter(|entry| !entry.inode.is_none())
            .map(|entry| entry.name.to_vec())
            .collect()
    }

    #[test]
    fn insert_remove_reuse() {
        let mut region = vec![0; LAYOUT.usable()];
        pack(&mut region, LAYOUT, &[]);
        for name in [b"one".as_slice(), b"two", b"three"] {
            assert!(insert(&mut region, LAYOUT, &PLACE, Ino::new(5), name, 1).unwrap());
        }
        assert_eq!(names(&region), [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
        remove(&mut region, LAYOUT, &PLACE, 0).unwrap();
        remove(&mut region, LAYOUT, &PLACE, 12).unwrap();
        assert_eq!(names(&region), [b"three".to_vec()]);
        assert!(insert(&mut region, LAYOUT, &PLACE, Ino::new(6), b"four", 1).unwrap());
        assert_eq!(names(&region), [b"four".to_vec(), b"three".to_vec()]);
        let mut count = 0;
        while insert(
            &mut region,
            LAYOUT,
            &PLACE,
            Ino::new(7),
            format!("{count:0>40}").as_bytes(),
            1,
        )
        .unwrap()
        {
            count += 1;
        }
        assert_eq!(count, (1012 - 24 - 16) / 48);
    }

    #[test]
    fn every_bad_field_is_named() {
        let good = {
            let mut region = vec![0; LAYOUT.usable()];
            pack(&mut region, LAYOUT, &[]);
            insert(&mut region, LAYOUT, &PLACE, Ino::new(5), b"name", 1).unwrap();
            insert(&mut region, LAYOUT, &PLACE, Ino::new(6), b"more", 1).unwrap();
            region
        };
        for (at, value, word) in [
            (4, 0u8, "rec_len"),
            (4, 9, "rec_len"),
            (5, 0xFF, "rec_len"),
            (3, 1, "inode"),
            (6, 0, "name"),
            (8, b'/', "name"),
            (9, 0, "name"),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            let error = entries(&bad, LAYOUT, &PLACE).find_map(|entry| entry.err()).unwrap();
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn record_length_of_64_kib() {
        let layout = Layout { block_size: 0x1_0000, checksums: false, ..LAYOUT };
        let mut region = vec![0; layout.usable()];
        pack(&mut region, layout, &[]);
        let list: Vec<_> = entries(&region, layout, &PLACE).map(|entry| entry.unwrap()).collect();
        assert_eq!(list[0].rec_len, 0x1_0000);
    }
}
