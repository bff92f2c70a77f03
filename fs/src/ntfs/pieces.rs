//! Bytes that wait to be written, as pieces that do not overlap.

use crate::num::{to_u64, to_usize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// When, within a commit, a piece is written. [`super::commit`] explains the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Content of clusters that were free: files, and index blocks nobody points to yet.
    Fresh,
    /// `$Bitmap` and the MFT's bitmap.
    Bitmap,
    /// Records of the MFT, and their copies in `$MFTMirr`.
    Record,
}

/// A run of bytes.
#[derive(Clone, Debug)]
pub struct Piece {
    bytes: Arc<[u8]>,
    /// The part of `bytes` that counts: others share the rest.
    part: Range<usize>,
    /// When it is written.
    pub step: Step,
}

impl Piece {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.part.clone()]
    }

    fn len(&self) -> u64 {
        to_u64(self.part.end - self.part.start)
    }

    fn cut(&self, from: u64, to: u64) -> Self {
        let part = self.part.start + to_usize(from)..self.part.start + to_usize(to);
        Self { bytes: self.bytes.clone(), part, step: self.step }
    }
}

/// Pieces by their place on the volume.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    by_offset: BTreeMap<u64, Piece>,
}

impl Pieces {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_offset.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.by_offset.iter().map(|(&offset, piece)| (offset, piece))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.by_offset.clear();
    }

    /// The beginnings of the pieces that have bytes in a range.
    fn touching(&self, range: &Range<u64>) -> Vec<u64> {
        let before = self.by_offset.range(..range.start).next_back();
        before
            .into_iter()
            .filter(|(offset, piece)| *offset + piece.len() > range.start)
            .chain(self.by_offset.range(range.clone()))
            .map(|(&offset, _)| offset)
            .collect()
    }

    /// Lays the pieces over what the device has from `offset` on.
    pub fn lay_over(&self, offset: u64, buf: &mut [u8]) {
        if self.by_offset.is_empty() {
            return;
        }
        let range = offset..offset + to_u64(buf.len());
        let before = self.by_offset.range(..range.start).next_back();
        for (&start, piece) in before.into_iter().chain(self.by_offset.range(range.clone())) {
            let (from, to) = (start.max(range.start), (start + piece.len()).min(range.end));
            if from < to {
                buf[to_usize(from - offset)..to_usize(to - offset)]
                    .copy_from_slice(&piece.bytes()[to_usize(from - start)..to_usize(to - start)]);
            }
        }
    }

    /// Takes a range out; what was there comes back.
    pub fn remove(&mut self, range: Range<u64>) -> Vec<(u64, Piece)> {
        let mut out = Vec::new();
        if range.is_empty() {
            return out;
        }
        for start in self.touching(&range) {
            let Some(piece) = self.by_offset.remove(&start) else { continue };
            let end = start + piece.len();
            let (from, to) = (start.max(range.start), end.min(range.end));
            if start < from {
                self.by_offset.insert(start, piece.cut(0, from - start));
            }
            if to < end {
                self.by_offset.insert(to, piece.cut(to - start, end - start));
            }
            out.push((from, piece.cut(from - start, to - start)));
        }
        out
    }

    /// Puts bytes in place of what was there, which comes back.
    pub fn insert(&mut self, offset: u64, bytes: Arc<[u8]>, step: Step) -> Vec<(u64, Piece)> {
        let length = bytes.len();
        let old = self.remove(offset..offset + to_u64(length));
        if length > 0 {
            self.by_offset.insert(offset, Piece { bytes, part: 0..length, step });
        }
        old
    }

    /// Puts pieces back that [`Pieces::insert`] or [`Pieces::remove`] gave, after their range was
    /// removed.
    pub fn restore(&mut self, pieces: Vec<(u64, Piece)>) {
        self.by_offset.extend(pieces);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn as_plain_bytes_do() {
        let mut random = Random(4);
        let (mut pieces, mut plain) = (Pieces::default(), vec![0u8; 300]);
        for _ in 0..3000 {
            let at = random.below(300);
            let length = random.below(300 - at).min(40);
            let before = (pieces.clone(), plain.clone());
            let range = at as u64..(at + length) as u64;
            let old = if random.below(3) == 0 {
                plain[at..at + length].fill(0);
                pieces.remove(range.clone())
            } else {
                let byte = random.next_u64() as u8 | 1;
                plain[at..at + length].fill(byte);
                pieces.insert(at as u64, vec![byte; length].into(), Step::Fresh)
            };
            if random.below(4) == 0 {
                pieces.remove(range);
                pieces.restore(old);
                plain = before.1;
            }
            let mut seen = vec![0; 300];
            pieces.lay_over(0, &mut seen);
            assert_eq!(seen, plain);
            let from = random.below(300);
            let mut part = vec![0; random.below(300 - from)];
            pieces.lay_over(from as u64, &mut part);
            assert_eq!(part, plain[from..from + part.len()]);
        }
    }
}
