//! Update sequences: how a FILE record or INDX block shows that all of it was written.
//!
//! The last two bytes of every 512 bytes are replaced, on disk, by a number that counts writes;
//! the bytes themselves stand in an array in the block's header. The pieces have 512 bytes
//! whatever the device's sector size is.

/// Bytes that one number of the update sequence protects.
pub const STRIDE: usize = 512;

/// The number at `at`, or 0: what is compared with it then differs.
fn le16(bytes: &[u8], at: usize) -> u16 {
    crate::bytes::le16(bytes, at).unwrap_or(0)
}

/// UpdateSequenceArrayOffset and -Size of a block, when they can be what they must be.
fn array(bytes: &[u8]) -> Result<(usize, usize), String> {
    let (at, count) = (usize::from(le16(bytes, 4)), usize::from(le16(bytes, 6)));
    let whole = !bytes.is_empty() && bytes.len().is_multiple_of(STRIDE);
    let fits = at >= 8 && at.is_multiple_of(2) && at + 2 * count <= STRIDE - 2;
    if !whole || count != bytes.len() / STRIDE + 1 || !fits {
        return Err(format!(
            "an update sequence of {count} numbers at byte {at} cannot protect {} bytes",
            bytes.len()
        ));
    }
    Ok((at, count))
}

/// Checks a block as it was read and puts the protected bytes back in their places. `magic` is
/// `FILE` or `INDX`. The error says what is wrong; the block may have changed in part then.
pub fn apply(bytes: &mut [u8], magic: &[u8; 4]) -> Result<(), String> {
    if !bytes.starts_with(magic) {
        let begin = bytes.get(..4).unwrap_or(bytes);
        if begin == b"BAAD" {
            return Err("it is marked as written in part only (BAAD)".to_owned());
        }
        let want = magic.escape_ascii();
        return Err(format!("it begins with \"{}\", not with \"{want}\"", begin.escape_ascii()));
    }
    let (at, count) = array(bytes)?;
    let number = le16(bytes, at);
    for piece in 1..count {
        let end = piece * STRIDE - 2;
        if le16(bytes, end) != number {
            return Err(format!(
                "its 512 bytes number {} are of another write ({:#06x}, not {number:#06x})",
                piece - 1,
                le16(bytes, end)
            ));
        }
        bytes.copy_within(at + 2 * piece..at + 2 * piece + 2, end);
    }
    Ok(())
}

/// Makes a block ready to be written: takes the next number of its update sequence and swaps it
/// in. The offset and size of the array must be set; the error says what is wrong with them.
pub fn protect(bytes: &mut [u8]) -> Result<(), String> {
    let (at, count) = array(bytes)?;
    // 0 is the number of a block that was never written, 0xffff is not used by Windows either.
    let number = match le16(bytes, at) {
        0xfffe.. => 1,
        number => number + 1,
    };
    bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
    for piece in 1..count {
        let end = piece * STRIDE - 2;
        bytes.copy_within(end..end + 2, at + 2 * piece);
        bytes[end..end + 2].copy_from_slice(&number.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(size: usize, at: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        bytes[..4].copy_from_slice(b"FILE");
        bytes[4..6].copy_from_slice(&(at as u16).to_le_bytes());
        bytes[6..8].copy_from_slice(&((size / STRIDE + 1) as u16).to_le_bytes());
        bytes[at..at + 2].copy_from_slice(&0xfffdu16.to_le_bytes());
        bytes
    }

    #[test]
    fn what_was_protected_comes_back() {
        for size in [512, 1024, 4096, 65_536] {
            if 40 + 2 * (size / STRIDE + 1) > STRIDE - 2 {
                continue;
            }
            let (mut bytes, mut last) = (block(size, 40), 0xfffd);
            for _ in 0..4 {
                let before = bytes.clone();
                protect(&mut bytes).unwrap();
                let number = le16(&bytes, 40);
                assert!(number != last && number != 0 && number != 0xffff);
                last = number;
                assert!(
                    (1..=size / STRIDE).all(|piece| le16(&bytes, piece * STRIDE - 2) == number)
                );
                apply(&mut bytes, b"FILE").unwrap();
                let body = 40 + 2 * (size / STRIDE + 1);
                assert_eq!(bytes[body..], before[body..]);
            }
        }
    }

    #[test]
    fn torn_and_hostile_blocks_are_refused() {
        let mut good = block(4096, 40);
        protect(&mut good).unwrap();
        for piece in 1..=8 {
            let mut torn = good.clone();
            torn[piece * STRIDE - 1] ^= 1;
            assert!(apply(&mut torn, b"FILE").unwrap_err().contains("another write"));
        }
        assert!(apply(&mut good.clone(), b"INDX").unwrap_err().contains("INDX"));
        let mut bad = good.clone();
        bad[..4].copy_from_slice(b"BAAD");
        assert!(apply(&mut bad, b"FILE").unwrap_err().contains("BAAD"));
        for (at, count) in [(40, 8), (40, 10), (41, 9), (500, 9), (0xffff, 9), (0, 9), (40, 0xffff)]
        {
            let mut bad = good.clone();
            bad[4..6].copy_from_slice(&u16::to_le_bytes(at));
            bad[6..8].copy_from_slice(&u16::to_le_bytes(count));
            assert!(apply(&mut bad, b"FILE").is_err() && protect(&mut bad).is_err());
        }
        for length in 0..600 {
            let _ = apply(&mut good[..length].to_vec(), b"FILE");
            let _ = protect(&mut good[..length].to_vec());
        }
    }
}
