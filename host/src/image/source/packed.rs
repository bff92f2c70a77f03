//! Compressed streams and checksums, as readers around readers.

use std::io::{self, Read};

use sha2::{Digest, Sha256, Sha512};

use super::id::{Checksum, Compression};
use crate::limits::{XZ_MEMORY_KIB, ZSTD_WINDOW_LOG};

/// The content of a compressed stream. Streams in several parts (concatenated members,
/// frames, streams) are read to their end.
pub fn decompress<R: Read + Send + 'static>(
    reader: R,
    compression: Compression,
) -> io::Result<Box<dyn Read + Send>> {
    if compression == Compression::None {
        return Ok(Box::new(reader));
    }
    let buffered = io::BufReader::with_capacity(1 << 20, reader);
    Ok(match compression {
        Compression::None => Box::new(buffered),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered)),
        Compression::Xz => {
            Box::new(lzma_rust2::XzReader::new_mem_limit(buffered, true, XZ_MEMORY_KIB))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

enum Hash {
    Sha256(Sha256, [u8; 32]),
    Sha512(Box<Sha512>, Box<[u8; 64]>),
}

/// Hashes what passes and fails at the end when the sum is wrong.
pub struct Verified<R> {
    reader: R,
    hash: Option<Hash>,
}

impl<R: Read> Verified<R> {
    /// Wraps the reader of a file as it is stored.
    pub fn new(reader: R, checksum: &Checksum) -> Self {
        let hash = match checksum {
            Checksum::Sha256(sum) => Hash::Sha256(Sha256::new(), *sum),
            Checksum::Sha512(sum) => Hash::Sha512(Box::default(), sum.clone()),
        };
        Self { reader, hash: Some(hash) }
    }

    fn finish(&mut self) -> io::Result<()> {
        let (name, found, expected) = match self.hash.take() {
            None => return Ok(()),
            Some(Hash::Sha256(hash, sum)) => ("SHA-256", hash.finalize().to_vec(), sum.to_vec()),
            Some(Hash::Sha512(hash, sum)) => ("SHA-512", hash.finalize().to_vec(), sum.to_vec()),
        };
        if found == expected {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "its {name} is {} and should be {}; it is damaged or not the image that was meant",
                hex(&found),
                hex(&expected)
            ),
        ))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buf)?;
        match &mut self.hash {
            _ if n == 0 && !buf.is_empty() => self.finish()?,
            Some(Hash::Sha256(hash, _)) => hash.update(&buf[..n]),
            Some(Hash::Sha512(hash, _)) => hash.update(&buf[..n]),
            None => {}
        }
        Ok(n)
    }
}

/// A decompressor stops at the end of its format; what follows must be read too, so that a
/// checksum covers the whole file, and rubbish after the image is found.
pub struct ToTheEnd<R> {
    outer: Box<dyn Read + Send>,
    inner: std::sync::Arc<std::sync::Mutex<R>>,
    done: bool,
}

/// A reader that is shared between the decompressor and [`ToTheEnd`].
struct Shared<R>(std::sync::Arc<std::sync::Mutex<R>>);

impl<R: Read> Read for Shared<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).read(buf)
    }
}

impl<R: Read + Send + 'static> ToTheEnd<R> {
    /// Decompresses `reader` and reads it to its own end after the last byte came out.
    pub fn new(reader: R, compression: Compression) -> io::Result<Self> {
        let inner = std::sync::Arc::new(std::sync::Mutex::new(reader));
        let outer = decompress(Shared(inner.clone()), compression)?;
        Ok(Self { outer, inner, done: false })
    }
}

impl<R: Read> Read for ToTheEnd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.outer.read(buf)?;
        if n == 0 && !buf.is_empty() && !self.done {
            self.done = true;
            let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            io::copy(&mut *inner, &mut io::sink())?;
        }
        Ok(n)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn pack(program: &[&str], bytes: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut child = Command::new(program[0])
            .args(&program[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program[0]));
        let mut input = child.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
        let mut out = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        writer.join().unwrap();
        assert!(child.wait().unwrap().success());
        out
    }

    #[test]
    fn every_format_in_one_part_and_in_two() {
        let text: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
        for (program, compression) in [
            (vec!["gzip", "-c"], Compression::Gzip),
            (vec!["xz", "-c"], Compression::Xz),
            (vec!["zstd", "-q", "-c"], Compression::Zstd),
            (vec!["bzip2", "-c"], Compression::Bzip2),
        ] {
            let one = pack(&program, &text);
            let two = [one.clone(), pack(&program, b"second")].concat();
            let unpack = |bytes: Vec<u8>| {
                let mut out = Vec::new();
                decompress(io::Cursor::new(bytes), compression)
                    .and_then(|mut reader| reader.read_to_end(&mut out))
                    .map(|_| out)
            };
            assert!(unpack(one.clone()).unwrap() == text, "{program:?}");
            assert!(unpack(two).unwrap() == [&text[..], b"second"].concat(), "{program:?}");
            // Cut short: an error, never a silent end.
            assert!(unpack(one[..one.len() / 2].to_vec()).is_err(), "{program:?}");
            assert!(unpack(one[..one.len() - 1].to_vec()).is_err(), "{program:?}");
            assert!(unpack(b"this is not compressed at all".to_vec()).is_err(), "{program:?}");
        }
    }

    #[test]
    fn a_wrong_sum_is_an_error_at_the_end() {
        let sum: [u8; 32] = Sha256::digest(b"hello").into();
        let read = |bytes: &'static [u8]| {
            let mut out = Vec::new();
            Verified::new(bytes, &Checksum::Sha256(sum)).read_to_end(&mut out)
        };
        assert_eq!(read(b"hello").unwrap(), 5);
        let error = read(b"hellO").unwrap_err().to_string();
        assert!(
            error.contains("its SHA-256 is") && error.contains("and should be 2cf24d"),
            "{error}"
        );
    }
}
