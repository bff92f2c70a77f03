//! Index trees of any kind: their blocks, their bitmap, and the order of their keys.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::inodes::{Files, Value};
use super::raw::{Reader, Stream, le16, le32, le64, shown, unfix, units};
use super::report::Report;
use crate::error::Result;
use crate::num::{to_u64, to_usize};

/// No tree of an honest volume is deeper.
const DEPTH: usize = 20;

/// CollationRule of directories.
const FILE_NAME: u32 = 1;
const ULONG: u32 = 0x10;
const SECURITY_HASH: u32 = 0x12;
const ULONGS: u32 = 0x13;

/// One entry with a key.
#[derive(Clone, Debug)]
pub struct Entry {
    /// FileReference of a directory's entry.
    pub reference: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The data after the key, of indexes that are no directory.
    pub data: Vec<u8>,
}

/// The volume's table of capital letters.
pub struct Upcase(pub Vec<u16>);

impl Upcase {
    fn fold(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// The order of names in a directory: without case, and with it where that is the same.
    pub fn compare(&self, a: &[u16], b: &[u16]) -> Ordering {
        let folded = |name: &[u16]| name.iter().map(|&unit| self.fold(unit)).collect::<Vec<_>>();
        folded(a).cmp(&folded(b)).then_with(|| a.cmp(b))
    }
}

/// Walks one index and checks its structure; what it holds, in the order of the tree.
pub fn walk(
    reader: &Reader<'_>,
    files: &Files,
    inode: u64,
    name: &[u16],
    upcase: &Upcase,
    report: &mut Report,
) -> Result<Vec<Entry>> {
    let place = format!("record {inode} index {}", shown(name));
    let root = match files.values.get(&(inode, 0x90, name.to_vec())) {
        Some(Value::Resident(root)) if root.len() >= 32 => root,
        _ => {
            report.error("index-root", place, "its $INDEX_ROOT cannot be read".to_owned());
            return Ok(Vec::new());
        }
    };
    let size = to_usize(le32(root, 8));
    if !size.is_power_of_two() || !(512..=65_536).contains(&size) {
        report.error("index-root", place, format!("its blocks have {size} bytes"));
        return Ok(Vec::new());
    }
    let cluster = reader.geometry.cluster;
    let empty = Stream::default();
    let blocks = match files.values.get(&(inode, 0xa0, name.to_vec())) {
        Some(Value::Mapped(stream)) => stream,
        Some(Value::Resident(_)) => {
            let text = "its $INDEX_ALLOCATION is resident".to_owned();
            report.error("index-allocation", place.clone(), text);
            &empty
        }
        None => &empty,
    };
    let mut walk = Walk {
        reader,
        report,
        place,
        blocks,
        size,
        // A VCN counts clusters, or pieces of 512 bytes where a block is smaller than a cluster.
        unit: if to_u64(size) >= cluster { cluster } else { 512 },
        seen: BTreeSet::new(),
        out: Vec::new(),
        directory: name == units(b"$\0I\x003\x000\0"),
    };
    walk.node(root, 16, 0)?;
    let Walk { report, place, seen, unit, out, .. } = walk;
    order(&out, le32(root, 4), upcase, &place, report);
    bitmap(reader, files, (inode, name), blocks, (to_u64(size), unit), &seen, (&place, report))?;
    Ok(out)
}

struct Walk<'a> {
    reader: &'a Reader<'a>,
    report: &'a mut Report,
    place: String,
    blocks: &'a Stream,
    size: usize,
    unit: u64,
    seen: BTreeSet<u64>,
    out: Vec<Entry>,
    directory: bool,
}

impl Walk<'_> {
    fn error(&mut self, code: &'static str, detail: String) {
        self.report.error(code, self.place.clone(), detail);
    }

    /// The entries of a node whose header is at byte `at` of `bytes`.
    fn node(&mut self, bytes: &[u8], at: usize, depth: usize) -> Result<()> {
        let first = at.saturating_add(to_usize(le32(bytes, at)));
        let end = at.saturating_add(to_usize(le32(bytes, at + 4)));
        let room = at.saturating_add(to_usize(le32(bytes, at + 8)));
        if end > room || room > bytes.len() || first > end || first < at + 16 {
            self.error("index-header", format!("entries from byte {first} to {end} of {room}"));
            return Ok(());
        }
        let mut at = first;
        loop {
            let (length, key) =
                (usize::from(le16(bytes, at + 8)), usize::from(le16(bytes, at + 10)));
            let flags = le16(bytes, at + 12);
            if at + 16 > end {
                self.error("index-entry", "the last entry is missing".to_owned());
                return Ok(());
            }
            let child = flags & 1 != 0;
            let least = if child { 24 } else { 16 };
            if length < least || length % 8 != 0 || at + length > end {
                self.error("index-entry", format!("an entry has {length} bytes"));
                return Ok(());
            }
            if child {
                let vcn = le64(bytes, at + length - 8);
                self.child(vcn, depth)?;
            }
            if flags & 2 != 0 {
                if at + length != end {
                    let text = format!("{} bytes after the last entry", end - at - length);
                    self.report.warn("index-tail", self.place.clone(), text);
                }
                return Ok(());
            }
            if 16 + key > length {
                self.error("index-entry", format!("a key of {key} bytes in {length}"));
                return Ok(());
            }
            let entry = &bytes[at..at + length];
            let data = if self.directory {
                Vec::new()
            } else {
                let (from, count) = (usize::from(le16(entry, 0)), usize::from(le16(entry, 2)));
                entry.get(from..from + count).unwrap_or(&[]).to_vec()
            };
            self.out.push(Entry {
                reference: le64(entry, 0),
                key: entry[16..16 + key].to_vec(),
                data,
            });
            at += length;
        }
    }

    fn child(&mut self, vcn: u64, depth: usize) -> Result<()> {
        let offset = vcn.checked_mul(self.unit).filter(|offset| {
            offset.checked_add(to_u64(self.size)).is_some_and(|end| end <= self.blocks.size)
        });
        let Some(offset) = offset else {
            self.error(
                "index-child",
                format!("VCN {vcn} is beyond the {} bytes of its blocks", self.blocks.size),
            );
            return Ok(());
        };
        if offset % to_u64(self.size) != 0 {
            self.error("index-child", format!("VCN {vcn} is in the middle of a block"));
            return Ok(());
        }
        if depth >= DEPTH {
            self.error("index-child", format!("the tree is deeper than {DEPTH}"));
            return Ok(());
        }
        if !self.seen.insert(vcn) {
            self.error("index-child", format!("VCN {vcn} is reached twice"));
            return Ok(());
        }
        let Some(mut block) = self.reader.stream(self.blocks, offset, self.size)? else {
            self.error("index-child", format!("VCN {vcn} has no clusters"));
            return Ok(());
        };
        if let Err(text) = unfix(&mut block, b"INDX") {
            self.error("index-block", format!("VCN {vcn}: {text}"));
            return Ok(());
        }
        if le64(&block, 16) != vcn {
            self.error("index-block", format!("VCN {vcn} says it is {}", le64(&block, 16)));
        }
        self.node(&block, 24, depth + 1)
    }
}

/// A directory's entry as words, any other as bytes.
fn key_text(key: &[u8], rule: u32) -> String {
    if rule == FILE_NAME
        && let Some(name) = super::inodes::FileName::parse(key)
    {
        return shown(&name.name);
    }
    key.iter().take(32).map(|byte| format!("{byte:02x}")).collect()
}

fn order(entries: &[Entry], rule: u32, upcase: &Upcase, place: &str, report: &mut Report) {
    let name =
        |key: &[u8]| super::inodes::FileName::parse(key).map_or(Vec::new(), |name| name.name);
    let longs = |key: &[u8]| key.chunks_exact(4).map(|b| le32(b, 0)).collect::<Vec<_>>();
    for pair in entries.windows(2) {
        let (a, b) = (&pair[0].key[..], &pair[1].key[..]);
        let ordering = match rule {
            0 => a.cmp(b),
            FILE_NAME => upcase.compare(&name(a), &name(b)),
            ULONG => le32(a, 0).cmp(&le32(b, 0)),
            SECURITY_HASH => (le32(a, 0), le32(a, 4)).cmp(&(le32(b, 0), le32(b, 4))),
            ULONGS => longs(a).cmp(&longs(b)),
            // No order that is documented (security identifiers).
            _ => Ordering::Less,
        };
        if ordering != Ordering::Less {
            let text = format!("{} stands before {}", key_text(a, rule), key_text(b, rule));
            report.error("index-order", place.to_owned(), text);
        }
    }
}

/// Compares the blocks that the tree reaches with the index's `$BITMAP`.
fn bitmap(
    reader: &Reader<'_>,
    files: &Files,
    (inode, name): (u64, &[u16]),
    blocks: &Stream,
    (size, unit): (u64, u64),
    seen: &BTreeSet<u64>,
    (place, report): (&str, &mut Report),
) -> Result<()> {
    if blocks.size == 0 {
        return Ok(());
    }
    let count = blocks.size / size;
    let most = blocks.clusters().saturating_mul(reader.geometry.cluster) / size;
    if count > most || blocks.clusters() > reader.geometry.clusters {
        let text = format!("{} bytes in {} clusters", blocks.size, blocks.clusters());
        report.error("index-allocation", place.to_owned(), text);
        return Ok(());
    }
    let bits = files.read(reader, &(inode, 0xb0, name.to_vec()), count.div_ceil(8))?;
    let bits = bits.unwrap_or_default();
    for block in 0..count {
        let byte = usize::try_from(block / 8).ok().and_then(|at| bits.get(at)).copied();
        let used = byte.unwrap_or(0) >> (block % 8) & 1 == 1;
        let reached = seen.contains(&(block * size / unit));
        if used && !reached {
            let text = format!("block {block} is in use and cannot be reached");
            report.error("index-bitmap", place.to_owned(), text);
        } else if reached && !used {
            let text = format!("block {block} is reached and free in the bitmap");
            report.error("index-bitmap", place.to_owned(), text);
        }
    }
    Ok(())
}
