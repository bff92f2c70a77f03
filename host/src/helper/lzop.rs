//! The file format of lzop, in which a kernel's payload may be packed. Field names follow lzop's
//! own description of the format (`lzop.h`, `conf.h`: facts only); all numbers are big-endian.

/// The first bytes of the file.
const MAGIC: [u8; 9] = [0x89, b'L', b'Z', b'O', 0, b'\r', b'\n', 0x1a, b'\n'];
/// The first version whose header names the version needed, the level and the upper half of mtime.
const VERSION_EXTENDED: u16 = 0x0940;
const F_ADLER32_D: u32 = 0x1;
const F_ADLER32_C: u32 = 0x2;
const F_H_EXTRA_FIELD: u32 = 0x40;
const F_CRC32_D: u32 = 0x100;
const F_CRC32_C: u32 = 0x200;
const F_MULTIPART: u32 = 0x400;
const F_H_FILTER: u32 = 0x800;
/// lzop itself writes blocks of 256 KiB and reads none above this.
const MAX_BLOCK: usize = 64 << 20;

/// Why a file cannot be unpacked.
pub(super) enum LzopError {
    /// More comes out than the limit.
    TooLarge,
    /// The defect.
    Damaged(String),
}

/// Unpacks to at most `limit` bytes. Bytes after the end mark are ignored.
pub(super) fn unpack(bytes: &[u8], limit: usize) -> Result<Vec<u8>, LzopError> {
    let mut input = Input(bytes);
    let flags = header(&mut input)?;
    let mut out = Vec::new();
    loop {
        let unpacked_size = input.u32()? as usize;
        if unpacked_size == 0 {
            return Ok(out);
        }
        let packed_size = input.u32()? as usize;
        if unpacked_size > MAX_BLOCK || packed_size > unpacked_size {
            return Err(damaged(&format!(
                "a block of {unpacked_size} bytes, packed to {packed_size}"
            )));
        }
        if out.len() + unpacked_size > limit {
            return Err(LzopError::TooLarge);
        }
        let adler32 = if flags & F_ADLER32_D != 0 { Some(input.u32()?) } else { None };
        let crc32 = if flags & F_CRC32_D != 0 { Some(input.u32()?) } else { None };
        // The checksums of the packed data are there only where something was packed. Those of
        // what comes out say the same.
        if packed_size < unpacked_size {
            for flag in [F_ADLER32_C, F_CRC32_C] {
                if flags & flag != 0 {
                    input.u32()?;
                }
            }
        }
        let block = input.take(packed_size)?;
        let start = out.len();
        if packed_size == unpacked_size {
            out.extend_from_slice(block);
        } else {
            out.resize(start + unpacked_size, 0);
            let count = lzokay::decompress::decompress(block, &mut out[start..])
                .map_err(|error| damaged(&format!("a block does not unpack ({error:?})")))?;
            if count != unpacked_size {
                return Err(damaged(&format!("a block of {unpacked_size} bytes has {count}")));
            }
        }
        let block = &out[start..];
        if adler32.is_some_and(|sum| sum != adler(block))
            || crc32.is_some_and(|sum| sum != crc(block))
        {
            return Err(damaged("a block's checksum is wrong"));
        }
    }
}

/// Reads the header and returns its flags.
fn header(input: &mut Input<'_>) -> Result<u32, LzopError> {
    if input.take(MAGIC.len())? != MAGIC {
        return Err(damaged("it does not begin as lzop's files do"));
    }
    let version = input.u16()?;
    let extended = version >= VERSION_EXTENDED;
    let _lib_version = input.u16()?;
    if extended {
        let _version_needed = input.u16()?;
    }
    let method = input.u8()?;
    if !(1..=3).contains(&method) {
        return Err(damaged(&format!("its method is {method}, known are 1 to 3 (LZO1X)")));
    }
    if extended {
        let _level = input.u8()?;
    }
    let flags = input.u32()?;
    if flags & (F_MULTIPART | F_H_FILTER) != 0 {
        return Err(damaged("it is in several parts or filtered, which no kernel is"));
    }
    let (_mode, _mtime_low) = (input.u32()?, input.u32()?);
    if extended {
        let _mtime_high = input.u32()?;
    }
    let name_length = usize::from(input.u8()?);
    input.take(name_length)?;
    let _header_checksum = input.u32()?;
    if flags & F_H_EXTRA_FIELD != 0 {
        let length = input.u32()? as usize;
        input.take(length)?;
        let _checksum = input.u32()?;
    }
    Ok(flags)
}

fn damaged(what: &str) -> LzopError {
    LzopError::Damaged(what.to_owned())
}

/// RFC 1950's checksum.
fn adler(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1_u32, 0_u32);
    // So many that the sums still fit into 32 bits.
    for piece in bytes.chunks(5552) {
        for &byte in piece {
            a += u32::from(byte);
            b += a;
        }
        (a, b) = (a % 65521, b % 65521);
    }
    b << 16 | a
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The bytes that are left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], LzopError> {
        let (piece, rest) =
            self.0.split_at_checked(count).ok_or_else(|| damaged("it ends early"))?;
        self.0 = rest;
        Ok(piece)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LzopError> {
        let (piece, rest) = self.0.split_first_chunk().ok_or_else(|| damaged("it ends early"))?;
        self.0 = rest;
        Ok(*piece)
    }

    fn u8(&mut self) -> Result<u8, LzopError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, LzopError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, LzopError> {
        Ok(u32::from_be_bytes(self.array()?))
    }
}
