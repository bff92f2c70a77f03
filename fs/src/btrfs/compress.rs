//! Compressed extents: zlib, LZO and zstd, read only.

use std::io::Read;

use crate::error::{Error, Result};
use crate::num::to_usize;

/// How content is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// zlib.
    Zlib,
    /// LZO1X in segments of a sector.
    Lzo,
    /// zstd.
    Zstd,
}

impl Compression {
    /// The kind with this number.
    pub fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Zlib,
            2 => Self::Lzo,
            3 => Self::Zstd,
            _ => return None,
        })
    }
}

/// The largest window that btrfs has zstd use.
const WINDOW_MAX: u64 = 128 << 10;

/// Unpacks `packed`, which may have more bytes than are needed, to at most `size` bytes; zeros
/// follow where there are fewer. `sector` is the file system's.
pub fn unpack(kind: Compression, packed: &[u8], size: usize, sector: usize) -> Result<Vec<u8>> {
    let mut out = vec![0; size];
    match kind {
        Compression::None => {
            let length = size.min(packed.len());
            out[..length].copy_from_slice(&packed[..length]);
        }
        Compression::Zlib => {
            let mut state = flate2::Decompress::new(true);
            state
                .decompress(packed, &mut out, flate2::FlushDecompress::Finish)
                .map_err(|error| damaged("zlib", &error))?;
        }
        Compression::Lzo => lzo(packed, &mut out, sector)?,
        Compression::Zstd => {
            let mut decoder = ruzstd::decoding::FrameDecoder::new();
            decoder.set_max_window_size(WINDOW_MAX);
            let mut decoder = ruzstd::decoding::StreamingDecoder::new_with_decoder(packed, decoder)
                .map_err(|error| damaged("zstd", &error))?;
            let mut at = 0;
            while at < size {
                match decoder.read(&mut out[at..]).map_err(|error| damaged("zstd", &error))? {
                    0 => break,
                    count => at += count,
                }
            }
        }
    }
    Ok(out)
}

/// A length of all, then segments: a length and a sector's content; no length is cut by the end of
/// a sector.
fn lzo(packed: &[u8], out: &mut [u8], sector: usize) -> Result<()> {
    let number = |at: usize| crate::bytes::le32(packed, at).map(to_usize);
    let total = number(0).ok_or_else(|| damaged("LZO", &"it has no length"))?;
    let end = total.min(packed.len());
    let (mut at, mut to) = (4, 0);
    while at < end && to < out.len() {
        if sector - at % sector < 4 {
            at = at.next_multiple_of(sector);
        }
        let Some(length) = number(at) else { break };
        at += 4;
        let segment = at.checked_add(length).and_then(|last| packed.get(at..last));
        let segment = segment.ok_or_else(|| damaged("LZO", &"a segment leaves the extent"))?;
        let room = sector.min(out.len() - to);
        // The last segment may hold a whole sector where less of it is wanted.
        let mut buf = vec![0; sector];
        let count = lzokay::decompress::decompress(segment, &mut buf)
            .map_err(|error| damaged("LZO", &format!("{error:?}")))?;
        let count = count.min(room);
        out[to..to + count].copy_from_slice(&buf[..count]);
        to += room;
        at += length;
    }
    Ok(())
}

fn damaged(kind: &str, why: &dyn std::fmt::Display) -> Error {
    Error::corrupt("compressed extent", kind, format!("it cannot be unpacked: {why}"))
}
