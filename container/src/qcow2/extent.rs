//! The parts of the disk that hold data, read in order: for copies that leave holes.

use super::error::Result;
use super::image::Image;
use super::read::{Piece, STEP};

/// A part of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the place that was asked for.
    pub length: u64,
    /// All of them read as zeros, and nothing needs to be read to know it.
    pub zero: bool,
}

impl Image {
    /// Reads on from `offset`: data into `buf`, up to the next zeros, or nothing where zeros are.
    pub(crate) fn read_extent(&mut self, offset: u64, buf: &mut [u8]) -> Result<Extent> {
        self.check_range(offset, 0)?;
        let rest = self.size - offset;
        let length = rest.min(buf.len().min(STEP) as u64) as usize;
        let mut pieces = self.pieces(offset, length)?;
        match pieces.iter().position(Piece::is_zero) {
            // However many there are.
            Some(0) => return self.extent(offset, rest),
            Some(first) => pieces.truncate(first),
            None => {}
        }
        let length = pieces.last().map_or(0, Piece::end);
        self.read_pieces(offset, &mut buf[..length], &pieces)?;
        Ok(Extent { length: length as u64, zero: false })
    }

    /// How far the disk is of one kind from `offset` on, within `length` bytes.
    pub(crate) fn extent(&mut self, offset: u64, length: u64) -> Result<Extent> {
        self.check_range(offset, length)?;
        let (span, end) = (self.geo.l2_span(), offset + length);
        let (mut at, mut kind) = (offset, None);
        while at < end {
            let (index, _) = self.position(at / self.geo.cluster_size());
            if self.tables.offset_of(index)?.is_none() && self.backing.is_none() {
                if kind == Some(false) {
                    break;
                }
                kind = Some(true);
                at = (index + 1).saturating_mul(span).min(end);
                continue;
            }
            let step = (end - at).min(STEP as u64).min(span - at % span);
            let pieces = self.zero_pieces(at, step as usize)?;
            for (length, zero) in pieces {
                if kind.is_some_and(|kind| kind != zero) {
                    return Ok(Extent { length: at - offset, zero: !zero });
                }
                kind = Some(zero);
                at += length;
            }
        }
        Ok(Extent { length: at - offset, zero: kind.unwrap_or(true) })
    }
}
