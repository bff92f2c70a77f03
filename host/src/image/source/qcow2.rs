//! qcow2 images, versions 2 and 3, read in order. No other file is ever opened: an image that
//! names a backing file or an external data file is refused, whoever made it.
//!
//! Field names are those of QEMU's docs/interop/qcow2.txt. Only what reading needs is looked at:
//! refcounts, snapshots and bitmaps are not.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::{ImageReader, Part, SourceError};

const MAGIC: [u8; 4] = *b"QFI\xfb";
const INCOMPATIBLE_DIRTY: u64 = 1;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION_TYPE: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;
/// As QEMU: a larger level 1 table is taken for an attack.
const MAX_L1_SIZE: u64 = 32 << 20;
/// Entries of the level 1 table that are held at once.
const L1_PIECE: u64 = 8192;
/// Bits 9 to 55 of a table entry.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ALL_ZERO: u64 = 1;
/// Decompression is spread over at most this many threads.
const MAX_THREADS: usize = 4;

/// The message for a file of another format.
pub(super) const NOT_QCOW2: &str =
    "is not a qcow2 image: it does not begin with QFI\\xfb (if it is raw, say #format=raw)";

/// The size of the disk in an image that begins with `start`; `None` when that is no qcow2.
pub(super) fn virtual_size(start: &[u8]) -> Option<u64> {
    (start.len() >= 72 && start[..4] == MAGIC).then(|| be64(start, 24))
}

/// The place of one guest cluster's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cluster {
    Zero,
    Data(u64),
    Compressed { offset: u64, size: u64 },
}

/// An open qcow2 image.
pub struct Qcow2Image {
    file: File,
    name: String,
    file_size: u64,
    size: u64,
    cluster_size: u64,
    cluster_bits: u32,
    version: u32,
    zstd: bool,
    l1_offset: u64,
    /// Entries of the level 1 table that the disk's size needs.
    l1_size: u64,
    /// A piece of the level 1 table, and its first entry's number: the table of a large disk with
    /// small clusters has millions of entries.
    l1: Option<(u64, Vec<u64>)>,
    /// The level 2 table in use, and which one it is.
    l2: Option<(u64, Vec<u64>)>,
    position: u64,
    packed: Vec<u8>,
    threads: usize,
}

impl Qcow2Image {
    /// Reads the header; `name` is for messages.
    pub fn new(file: File, name: &str) -> Result<Self, SourceError> {
        let bad = |problem: String| SourceError::Bad { name: name.to_owned(), problem };
        let io_error = |offset: u64, source: io::Error| SourceError::Io {
            name: name.to_owned(),
            offset: Some(offset),
            source,
        };
        let file_size = super::size_of(&file).map_err(|e| io_error(0, e))?;
        let mut header = [0u8; 112];
        let length = header.len().min(usize::try_from(file_size).unwrap_or(usize::MAX));
        file.read_exact_at(&mut header[..length], 0).map_err(|e| io_error(0, e))?;
        if length < 72 || header[..4] != MAGIC {
            return Err(bad(NOT_QCOW2.into()));
        }
        let u32_at = |at: usize| be32(&header, at);
        let u64_at = |at: usize| be64(&header, at);
        let version = u32_at(4);
        if !matches!(version, 2 | 3) {
            return Err(bad(format!("is qcow2 of version {version}; only 2 and 3 are known")));
        }
        if u64_at(8) != 0 {
            return Err(bad(
                "has a backing file, which is never opened; flatten it with qemu-img convert -O qcow2"
                    .into(),
            ));
        }
        let cluster_bits = u32_at(20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(bad(format!("has cluster_bits {cluster_bits}; 9 to 21 are valid")));
        }
        let size = u64_at(24);
        if u32_at(32) != 0 {
            return Err(bad("is encrypted; decrypt it with qemu-img convert".into()));
        }
        let mut zstd = false;
        if version == 3 {
            let features = u64_at(72);
            if features & INCOMPATIBLE_CORRUPT != 0 {
                return Err(bad("is marked corrupt; repair it with qemu-img check -r".into()));
            }
            if features & INCOMPATIBLE_DATA_FILE != 0 {
                return Err(bad(
                    "keeps its data in another file, which is never opened; convert it with qemu-img convert"
                        .into(),
                ));
            }
            if features & INCOMPATIBLE_EXTENDED_L2 != 0 {
                return Err(bad(
                    "has extended L2 entries, which are not supported; convert it with qemu-img convert -O qcow2"
                        .into(),
                ));
            }
            let known = INCOMPATIBLE_DIRTY | INCOMPATIBLE_COMPRESSION_TYPE;
            if features & !known != 0 {
                return Err(bad(format!(
                    "needs features this program does not know (incompatible_features {features:#x})"
                )));
            }
            let header_length = u32_at(100);
            if features & INCOMPATIBLE_COMPRESSION_TYPE != 0 {
                zstd = match header[104] {
                    _ if header_length <= 104 => {
                        return Err(bad("has a compression type and no room for it".into()));
                    }
                    0 => false,
                    1 => true,
                    other => {
                        return Err(bad(format!("has the unknown compression_type {other}")));
                    }
                };
            }
        }
        let cluster_size = 1u64 << cluster_bits;
        let l2_span = cluster_size * (cluster_size / 8);
        let needed = size.div_ceil(l2_span);
        let l1_size = u64::from(u32_at(36));
        if needed > l1_size || needed * 8 > MAX_L1_SIZE {
            return Err(bad(format!(
                "has a level 1 table of {l1_size} entries for {size} bytes: {needed} are needed, and \
                 at most {} are read",
                MAX_L1_SIZE / 8
            )));
        }
        let l1_offset = u64_at(40);
        let end = l1_offset.checked_add(needed * 8).filter(|end| *end <= file_size);
        if l1_offset % cluster_size != 0 || end.is_none() {
            return Err(bad(format!("has its level 1 table at {l1_offset}, outside of the file")));
        }
        // Advice: a refusal changes nothing.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            file,
            name: name.to_owned(),
            file_size,
            size,
            cluster_size,
            cluster_bits,
            version,
            zstd,
            l1_offset,
            l1_size: needed,
            l1: None,
            l2: None,
            position: 0,
            packed: Vec::new(),
            threads: threads.min(MAX_THREADS),
        })
    }

    fn bad(&self, problem: String) -> SourceError {
        SourceError::Bad { name: self.name.clone(), problem }
    }

    /// Reads `buf` from `offset`. The file may end within the last cluster: the rest is zeros.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), SourceError> {
        let there = self.file_size.saturating_sub(offset).min(buf.len() as u64) as usize;
        if there == 0 {
            return Err(self.bad(format!(
                "refers to byte {offset} of a file of {} bytes; it is truncated or damaged",
                self.file_size
            )));
        }
        self.file.read_exact_at(&mut buf[..there], offset).map_err(|source| SourceError::Io {
            name: self.name.clone(),
            offset: Some(offset),
            source,
        })?;
        buf[there..].fill(0);
        Ok(())
    }

    /// Where guest cluster number `index` is; `None` in place of a whole unallocated table.
    fn lookup(&mut self, index: u64) -> Result<Option<Cluster>, SourceError> {
        let entries = self.cluster_size / 8;
        let (l1_index, l2_index) = (index / entries, (index % entries) as usize);
        if self.l2.as_ref().is_none_or(|(loaded, _)| *loaded != l1_index) {
            let entry = self.l1_entry(l1_index)?;
            let offset = entry & OFFSET_MASK;
            if offset == 0 {
                return Ok(None);
            }
            if !offset.is_multiple_of(self.cluster_size) || offset >= self.file_size {
                return Err(self.bad(format!(
                    "has a wrong level 1 entry {l1_index}: {entry:#018x}; it is damaged"
                )));
            }
            let mut table = vec![0u8; self.cluster_size as usize];
            self.read(offset, &mut table)?;
            self.l2 = Some((l1_index, words(&table)));
        }
        let entry = self.l2.as_ref().and_then(|(_, l2)| l2.get(l2_index)).copied().unwrap_or(0);
        self.decode(index, entry).map(Some)
    }

    fn l1_entry(&mut self, index: u64) -> Result<u64, SourceError> {
        let first = index - index % L1_PIECE;
        if self.l1.as_ref().is_none_or(|(loaded, _)| *loaded != first) {
            let count = L1_PIECE.min(self.l1_size.saturating_sub(first));
            let mut table = vec![0u8; (count * 8) as usize];
            self.read(self.l1_offset + first * 8, &mut table)?;
            self.l1 = Some((first, words(&table)));
        }
        let piece = self.l1.as_ref().map_or(&[][..], |(_, piece)| piece);
        Ok(piece.get((index - first) as usize).copied().unwrap_or(0))
    }

    fn decode(&self, index: u64, entry: u64) -> Result<Cluster, SourceError> {
        let wrong = || {
            self.bad(format!(
                "has a wrong entry for guest cluster {index}: {entry:#018x}; it is damaged"
            ))
        };
        if entry & COMPRESSED != 0 {
            let offset_bits = 62 - (self.cluster_bits - 8);
            let offset = entry & ((1 << offset_bits) - 1);
            let sectors = ((entry & !(3 << 62)) >> offset_bits) + 1;
            let size = sectors * 512 - offset % 512;
            if offset == 0 || offset >= self.file_size {
                return Err(wrong());
            }
            return Ok(Cluster::Compressed { offset, size: size.min(self.file_size - offset) });
        }
        let offset = entry & OFFSET_MASK;
        if (self.version == 3 && entry & ALL_ZERO != 0) || offset == 0 {
            return Ok(Cluster::Zero);
        }
        if !offset.is_multiple_of(self.cluster_size) || offset >= self.file_size {
            return Err(wrong());
        }
        Ok(Cluster::Data(offset))
    }

    /// Bytes of guest cluster `index`: less than a cluster at the end of the disk.
    fn length_of(&self, index: u64) -> u64 {
        self.cluster_size.min(self.size - index * self.cluster_size)
    }

    fn zeros(&mut self) -> Result<Part, SourceError> {
        let entries = self.cluster_size / 8;
        let start = self.position;
        while self.position < self.size {
            let index = self.position / self.cluster_size;
            match self.lookup(index)? {
                None => {
                    let next = (index / entries + 1) * entries;
                    self.position = next.saturating_mul(self.cluster_size).min(self.size);
                }
                Some(Cluster::Zero) => self.position += self.length_of(index),
                Some(_) => break,
            }
        }
        Ok(Part::Zero(self.position - start))
    }

    /// Neighbouring clusters that are neighbours in the file, too, are read in one go.
    fn data(&mut self, first: u64, buf: &mut [u8]) -> Result<Part, SourceError> {
        let start = self.position / self.cluster_size;
        let (mut index, mut length) = (start, 0u64);
        while length < buf.len() as u64 && index * self.cluster_size < self.size {
            let expected = first + (index - start) * self.cluster_size;
            if self.lookup(index)? != Some(Cluster::Data(expected)) {
                break;
            }
            length += self.length_of(index);
            index += 1;
        }
        self.read(first, &mut buf[..length as usize])?;
        self.position += length;
        Ok(Part::Data(length as usize))
    }

    fn compressed(&mut self, buf: &mut [u8]) -> Result<Part, SourceError> {
        let start = self.position / self.cluster_size;
        let mut jobs = Vec::new();
        let (mut index, mut length, mut packed) = (start, 0u64, 0u64);
        while length < buf.len() as u64 && index * self.cluster_size < self.size {
            let Some(Cluster::Compressed { offset, size }) = self.lookup(index)? else { break };
            jobs.push((index, offset, size));
            packed += size;
            length += self.length_of(index);
            index += 1;
        }
        // Compressed clusters share sectors: each is read by itself, from the page cache.
        let mut scratch = std::mem::take(&mut self.packed);
        if (scratch.len() as u64) < packed {
            scratch.resize(packed as usize, 0);
        }
        let mut rest = &mut scratch[..packed as usize];
        for (_, offset, size) in &jobs {
            let (now, later) = rest.split_at_mut(*size as usize);
            self.read(*offset, now)?;
            rest = later;
        }
        let mut work = Vec::with_capacity(jobs.len());
        let (mut packed_rest, mut out_rest) = (&scratch[..], &mut buf[..length as usize]);
        for (index, _, size) in &jobs {
            let (input, later) = packed_rest.split_at(*size as usize);
            let (output, out_later) = out_rest.split_at_mut(self.length_of(*index) as usize);
            work.push((*index, input, output));
            (packed_rest, out_rest) = (later, out_later);
        }
        let (zstd, cluster_size) = (self.zstd, self.cluster_size as usize);
        let share = work.len().div_ceil(self.threads).max(1);
        let failed = std::thread::scope(|scope| {
            let handles: Vec<_> = work
                .chunks_mut(share)
                .map(|part| {
                    scope.spawn(move || {
                        part.iter_mut().find_map(|(index, input, output)| {
                            let error = unpack(input, output, zstd, cluster_size).err()?;
                            Some((*index, error))
                        })
                    })
                })
                .collect();
            handles.into_iter().find_map(|handle| match handle.join() {
                Ok(failed) => failed,
                Err(_) => Some((start, io::Error::other("the decompressor broke off"))),
            })
        });
        drop(work);
        self.packed = scratch;
        if let Some((index, error)) = failed {
            return Err(self.bad(format!(
                "has a damaged compressed cluster at guest byte {}: {error}",
                index * self.cluster_size
            )));
        }
        self.position += length;
        Ok(Part::Data(length as usize))
    }
}

impl ImageReader for Qcow2Image {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    fn next(&mut self, buf: &mut [u8]) -> Result<Part, SourceError> {
        if self.position >= self.size {
            return Ok(Part::End);
        }
        // The largest cluster is 2 MiB; the caller's buffer holds several.
        let whole = buf.len() - buf.len() % self.cluster_size as usize;
        if whole == 0 {
            return Err(self.bad("has clusters larger than the buffer".into()));
        }
        let buf = &mut buf[..whole];
        match self.lookup(self.position / self.cluster_size)? {
            None | Some(Cluster::Zero) => self.zeros(),
            Some(Cluster::Data(offset)) => self.data(offset, buf),
            Some(Cluster::Compressed { .. }) => self.compressed(buf),
        }
    }
}

/// Decompresses one cluster. What follows its stream in the last sector is not looked at.
fn unpack(input: &[u8], output: &mut [u8], zstd: bool, cluster_size: usize) -> io::Result<()> {
    if zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
        decoder.window_log_max(27)?;
        decoder.read_exact(output)?;
    } else {
        // Raw deflate, without zlib's header.
        let mut inflater = flate2::Decompress::new(false);
        if output.len() == cluster_size {
            inflater
                .decompress(input, output, flate2::FlushDecompress::Finish)
                .map_err(io::Error::other)?;
        } else {
            // The last cluster is stored whole, even where the disk ends within it.
            let mut whole = vec![0; cluster_size];
            inflater
                .decompress(input, &mut whole, flate2::FlushDecompress::Finish)
                .map_err(io::Error::other)?;
            output.copy_from_slice(&whole[..output.len()]);
        }
        if inflater.total_out() < output.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let (chunks, _) = bytes.as_chunks::<8>();
    chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect()
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(word)
}
