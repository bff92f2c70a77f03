//! Reading: ranges of the disk become pieces, neighbours in the file are read at once, compressed
//! clusters are decompressed on several threads.

use super::compressed::Job;
use super::entry::Mapping;
use super::error::{Error, Result};
use super::image::Image;

/// Bytes that are looked up at once: bounds the list of pieces with small clusters.
pub(crate) const STEP: usize = 8 << 20;

/// The source of a piece's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Zero,
    Backing,
    /// In the file from this byte on.
    Host(u64),
    /// In the compressed cluster there, after `skip` bytes.
    Compressed {
        offset: u64,
        size: u64,
        skip: usize,
    },
}

/// A part of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// Bytes from the beginning of the request.
    at: usize,
    length: usize,
    source: Source,
}

impl Piece {
    /// Whether all of it reads as zeros, and nothing needs to be read to know it.
    pub(crate) fn is_zero(&self) -> bool {
        self.source == Source::Zero
    }

    /// Bytes from the beginning of the request to its end.
    pub(crate) fn end(&self) -> usize {
        self.at + self.length
    }
}

impl Image {
    /// Fills `buf` from `offset` of the disk.
    pub(crate) fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.check_range(offset, buf.len() as u64)?;
        self.fill(offset, buf)
    }

    /// The same; the range may end beyond the disk, within the last cluster.
    pub(crate) fn fill(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut offset = offset;
        for part in buf.chunks_mut(STEP) {
            let pieces = self.pieces(offset, part.len())?;
            self.read_pieces(offset, part, &pieces)?;
            offset += part.len() as u64;
        }
        Ok(())
    }

    /// The source of a range's bytes.
    pub(crate) fn pieces(&mut self, offset: u64, length: usize) -> Result<Vec<Piece>> {
        let cluster_size = self.geo.cluster_size();
        let part_size = self.geo.part_size();
        let mut pieces: Vec<Piece> = Vec::new();
        let mut at = 0;
        while at < length {
            let position = offset + at as u64;
            let (cluster, within) = (position / cluster_size, position % cluster_size);
            let (index, _) = self.position(cluster);
            let missing = if self.backing.is_some() { Source::Backing } else { Source::Zero };
            let (source, there) = if self.tables.offset_of(index)?.is_none() {
                // The whole table is not there.
                let span = self.geo.l2_span();
                (missing, span - position % span)
            } else {
                match self.mapping(cluster)? {
                    Mapping::Compressed { offset, size } => {
                        let skip = within as usize;
                        (Source::Compressed { offset, size, skip }, cluster_size - within)
                    }
                    Mapping::Plain(plain) => {
                        let bit = 1u32 << (within / part_size);
                        let source = match plain.host {
                            Some(host) if plain.present & bit != 0 => Source::Host(host + within),
                            _ if plain.zero & bit != 0 => Source::Zero,
                            _ => missing,
                        };
                        (source, part_size - within % part_size)
                    }
                }
            };
            let now = there.min((length - at) as u64) as usize;
            match pieces.last_mut() {
                Some(last) if joins(last, source) => last.length += now,
                _ => pieces.push(Piece { at, length: now, source }),
            }
            at += now;
        }
        Ok(pieces)
    }

    /// The pieces of a range as lengths, and whether each is known to be zeros.
    pub(crate) fn zero_pieces(&mut self, offset: u64, length: usize) -> Result<Vec<(u64, bool)>> {
        let pieces = self.pieces(offset, length)?;
        let one = |piece: &Piece| (piece.length as u64, piece.is_zero());
        Ok(pieces.iter().map(one).collect())
    }

    /// Fills `buf`, which begins at `offset` of the disk, with the bytes of its pieces.
    pub(crate) fn read_pieces(
        &mut self,
        offset: u64,
        buf: &mut [u8],
        pieces: &[Piece],
    ) -> Result<()> {
        let cluster_size = self.geo.cluster_size() as usize;
        let whole = |piece: &Piece| {
            matches!(piece.source, Source::Compressed { skip: 0, .. })
                && piece.length == cluster_size
        };
        let batch = self.decoder.threads() * (1 << 20 >> self.geo.cluster_bits).max(1);
        let mut jobs: Vec<Job<'_>> = Vec::new();
        let mut rest = &mut *buf;
        let mut done = 0;
        for piece in pieces {
            let (_, after) = rest.split_at_mut(piece.at - done);
            let (out, after) = after.split_at_mut(piece.length);
            (rest, done) = (after, piece.at + piece.length);
            match piece.source {
                Source::Zero => out.fill(0),
                Source::Backing => self.read_backing(offset + piece.at as u64, out)?,
                Source::Host(host) => super::read_padded(&*self.file, host, out, "guest cluster")?,
                Source::Compressed { offset, size, .. } if whole(piece) => {
                    let input = self.packed(offset, size)?;
                    jobs.push(Job { offset, input, output: out });
                    if jobs.len() >= batch {
                        self.decoder.run(&mut jobs)?;
                        jobs.clear();
                    }
                }
                Source::Compressed { offset, size, skip } => {
                    let cluster = match self.decoder.kept(offset) {
                        Some(cluster) => cluster,
                        None => {
                            let input = self.packed(offset, size)?;
                            self.decoder.keep(offset, input, cluster_size)?
                        }
                    };
                    out.copy_from_slice(&cluster[skip..skip + out.len()]);
                }
            }
        }
        self.decoder.run(&mut jobs)
    }

    /// The bytes of a compressed cluster; the last sector may be cut off by the file's end.
    fn packed(&self, offset: u64, size: u64) -> Result<Vec<u8>> {
        let there = size.min(self.file.len().saturating_sub(offset));
        if there == 0 {
            let detail = format!("the file has {} bytes", self.file.len());
            return Err(Error::corrupt("compressed cluster", offset, detail));
        }
        let mut input = vec![0; there as usize];
        self.file.read_at(offset, &mut input)?;
        Ok(input)
    }

    /// Bytes of the backing file; zeros follow its end.
    fn read_backing(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let size = self.backing.as_ref().map_or(0, |backing| backing.len());
        let there = size.saturating_sub(offset).min(out.len() as u64) as usize;
        if let Some(backing) = self.backing.as_ref().filter(|_| there > 0) {
            backing.read_at(offset, &mut out[..there]).map_err(|source| Error::Backing {
                name: self.header.backing_for_people(),
                source: Box::new(source),
            })?;
        }
        out[there..].fill(0);
        Ok(())
    }
}

/// Whether `source` goes on where the piece ends.
fn joins(piece: &Piece, source: Source) -> bool {
    match (piece.source, source) {
        (Source::Zero, Source::Zero) | (Source::Backing, Source::Backing) => true,
        (Source::Host(before), Source::Host(after)) => before + piece.length as u64 == after,
        _ => false,
    }
}
