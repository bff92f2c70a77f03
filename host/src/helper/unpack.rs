//! Decompression in process, with a bound on what comes out: modules and kernels come from the
//! administrator, but a truncated file must not become a broken helper.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::lzop::LzopError;
use crate::limits::{XZ_MEMORY_KIB, ZSTD_WINDOW_LOG};

/// How a byte string is compressed, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// .xz
    Xz,
    /// RFC 8878.
    Zstd,
    /// The legacy frame of lz4, as kernels use it.
    Lz4Legacy,
    /// bzip2.
    Bzip2,
    /// .lzma
    Lzma,
    /// lzop.
    Lzo,
}

impl Compression {
    /// Looks at the magic bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let starts = |magic: &[u8]| bytes.starts_with(magic);
        if starts(&[0x1f, 0x8b]) {
            Some(Self::Gzip)
        } else if starts(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Some(Self::Xz)
        } else if starts(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Some(Self::Zstd)
        } else if starts(&[0x02, 0x21, 0x4c, 0x18]) {
            Some(Self::Lz4Legacy)
        } else if starts(b"BZh") {
            Some(Self::Bzip2)
        } else if starts(&[0x5d, 0, 0]) {
            Some(Self::Lzma)
        } else if starts(&[0x89, b'L', b'Z', b'O']) {
            Some(Self::Lzo)
        } else {
            None
        }
    }
}

/// Why bytes cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream is broken.
    #[error("the {0:?} data is damaged: {1}")]
    Damaged(Compression, String),
    /// More comes out than is sensible.
    #[error("more than {0} MiB come out of it")]
    TooLarge(usize),
}

/// Reads a file of at most `limit` bytes. A larger one, or a device without an end, is an error.
pub(super) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let text = format!("it has more than {} MiB", limit >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Unpacks `bytes`, which are compressed with `compression`, to at most `limit` bytes. What
/// follows the compressed stream is ignored.
pub fn unpack(
    compression: Compression,
    bytes: &[u8],
    limit: usize,
) -> Result<Vec<u8>, UnpackError> {
    let damaged = |e: &dyn std::fmt::Display| UnpackError::Damaged(compression, e.to_string());
    let reader: Box<dyn Read + '_> = match compression {
        Compression::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Compression::Xz => {
            Box::new(lzma_rust2::XzReader::new_mem_limit(bytes, false, XZ_MEMORY_KIB))
        }
        Compression::Lzma => Box::new(
            lzma_rust2::LzmaReader::new_mem_limit(bytes, XZ_MEMORY_KIB, None)
                .map_err(|e| damaged(&e))?,
        ),
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(bytes).map_err(|e| damaged(&e))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|e| damaged(&e))?;
            Box::new(decoder.single_frame())
        }
        Compression::Lz4Legacy => return lz4_legacy(bytes, limit),
        Compression::Bzip2 => Box::new(bzip2::read::BzDecoder::new(bytes)),
        Compression::Lzo => {
            return super::lzop::unpack(bytes, limit).map_err(|error| match error {
                LzopError::TooLarge => UnpackError::TooLarge(limit >> 20),
                LzopError::Damaged(what) => damaged(&what),
            });
        }
    };
    let mut out = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut out).map_err(|e| damaged(&e))?;
    if out.len() > limit {
        return Err(UnpackError::TooLarge(limit >> 20));
    }
    Ok(out)
}

/// The legacy frame: a magic number, then blocks of at most 8 MiB unpacked, each after its
/// length in 32 bits, until the input ends or a length makes no sense (the kernel appends the
/// unpacked size).
fn lz4_legacy(bytes: &[u8], limit: usize) -> Result<Vec<u8>, UnpackError> {
    const BLOCK: usize = 8 << 20;
    let damaged = |what: String| UnpackError::Damaged(Compression::Lz4Legacy, what);
    let mut out = Vec::new();
    let mut rest = bytes.get(4..).unwrap_or_default();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((block, tail)) = tail.split_at_checked(length) else {
            if tail.is_empty() {
                break;
            }
            return Err(damaged(format!("a block of {length} bytes, {} are left", tail.len())));
        };
        rest = tail;
        let unpacked =
            lz4_flex::block::decompress(block, BLOCK).map_err(|e| damaged(e.to_string()))?;
        if out.len() + unpacked.len() > limit {
            return Err(UnpackError::TooLarge(limit >> 20));
        }
        out.extend_from_slice(&unpacked);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn pack(command: &[&str], content: &[u8]) -> Vec<u8> {
        let mut child = Command::new(command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{} must be installed: {e}", command[0]));
        let mut stdin = child.stdin.take().unwrap();
        let content = content.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&content).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn unpacks_what_the_tools_pack() {
        let content: Vec<u8> = (0..750_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for (command, compression) in [
            (&["gzip", "-c"][..], Compression::Gzip),
            (&["xz", "-c", "--check=crc32", "--x86", "--lzma2=dict=1MiB"], Compression::Xz),
            (&["xz", "-c", "--format=lzma"], Compression::Lzma),
            (&["zstd", "-c", "-q"], Compression::Zstd),
            (&["lz4", "-c", "-l", "-q"], Compression::Lz4Legacy),
            (&["bzip2", "-c", "-9"], Compression::Bzip2),
            (&["lzop", "-c", "-9"], Compression::Lzo),
            // Without a checksum, with those of the packed data, with CRC instead of Adler.
            (&["lzop", "-c", "-F"], Compression::Lzo),
            (&["lzop", "-c", "--crc32", "-CC"], Compression::Lzo),
        ] {
            let packed = pack(command, &content);
            assert_eq!(Compression::of(&packed), Some(compression));
            assert!(unpack(compression, &packed, 1 << 24).unwrap() == content, "{command:?}");
            assert!(matches!(
                unpack(compression, &packed, content.len() - 1),
                Err(UnpackError::TooLarge(_))
            ));
            let cut = unpack(compression, &packed[..packed.len() / 2], 1 << 24);
            assert!(cut.is_err(), "{command:?}");
        }
    }
}
