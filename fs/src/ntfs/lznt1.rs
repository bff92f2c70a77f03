//! LZNT1: what NTFS compresses files with, a compression unit (most often 16 clusters) at a time.
//!
//! A unit that has no clusters is zero, one that has all of them is stored as it is, and one that
//! has some holds chunks, each a header of two bytes and what 4096 bytes became. Source: MS-XCA,
//! section 2.5.

/// Bytes that one chunk stands for.
const CHUNK: usize = 4096;
/// The bit of a chunk's header that says it is compressed.
const COMPRESSED: u16 = 0x8000;

/// The content of a compression unit of `out.len()` bytes whose clusters hold `stored`.
pub fn expand_unit(stored: &[u8], out: &mut [u8]) -> Result<(), String> {
    if stored.len() >= out.len() {
        out.copy_from_slice(&stored[..out.len()]);
        return Ok(());
    }
    decompress(stored, out)
}

/// Decompresses chunks until `out` is full, `input` is used up, or a header of zero ends them; the
/// rest of `out` is zero. The error says what is wrong and where in `input`.
pub fn decompress(input: &[u8], out: &mut [u8]) -> Result<(), String> {
    out.fill(0);
    let mut at = 0;
    for part in out.chunks_mut(CHUNK) {
        let Some(&[low, high]) = input.get(at..at + 2) else { return Ok(()) };
        let header = u16::from_le_bytes([low, high]);
        if header == 0 {
            return Ok(());
        }
        let start = at + 2;
        let end = start + usize::from(header & 0xfff) + 1;
        let Some(data) = input.get(start..end) else {
            return Err(format!("the chunk at byte {at} runs past the {} there are", input.len()));
        };
        if header & COMPRESSED != 0 {
            chunk(data, part).map_err(|text| format!("the chunk at byte {at}: {text}"))?;
        } else {
            let count = data.len().min(part.len());
            part[..count].copy_from_slice(&data[..count]);
        }
        at = end;
    }
    Ok(())
}

fn chunk(data: &[u8], out: &mut [u8]) -> Result<(), String> {
    let (mut at, mut done) = (0, 0);
    while let Some(&flags) = data.get(at) {
        at += 1;
        for bit in 0..8 {
            if at >= data.len() || done >= out.len() {
                // A chunk may end in the middle of a group; the rest of it is not used.
                return Ok(());
            }
            if flags >> bit & 1 == 0 {
                out[done] = data[at];
                (at, done) = (at + 1, done + 1);
                continue;
            }
            let Some(&[low, high]) = data.get(at..at + 2) else {
                return Err(format!("it ends within the reference at byte {at}"));
            };
            at += 2;
            let token = usize::from(u16::from_le_bytes([low, high]));
            let split = length_bits(done);
            let back = (token >> split) + 1;
            let length = (token & ((1 << split) - 1)) + 3;
            if back > done {
                return Err(format!("a reference {back} bytes back from byte {done}"));
            }
            let end = (done + length).min(out.len());
            // Byte by byte: a reference may run into what it makes.
            for to in done..end {
                out[to] = out[to - back];
            }
            done = end;
        }
    }
    Ok(())
}

/// Bits of a reference that are its length, the others being the distance: as many as are left when
/// the distance can reach back to the begin of the chunk.
fn length_bits(done: usize) -> u32 {
    let distance = (done.max(1) - 1).checked_ilog2().map_or(1, |log| log + 1);
    16 - distance.clamp(4, 12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// A compressor as simple as can be, whose output MS-XCA allows.
    fn compress(input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in input.chunks(CHUNK) {
            let (mut body, mut at) = (Vec::new(), 0);
            while at < part.len() {
                let flags = body.len();
                body.push(0);
                for bit in 0..8 {
                    if at >= part.len() {
                        break;
                    }
                    let most = (1 << length_bits(at)) + 2;
                    let furthest = 1usize << (16 - length_bits(at));
                    let longest = (1..=at.min(furthest).min(300))
                        .map(|back| {
                            let same = |i: &usize| part[at + i] == part[at + i - back];
                            let rest = (part.len() - at).min(most);
                            ((0..rest).take_while(same).count(), back)
                        })
                        .max();
                    match longest {
                        Some((length, back)) if length >= 3 => {
                            body[flags] |= 1 << bit;
                            let token = (back - 1) << length_bits(at) | (length - 3);
                            body.extend(crate::num::to_u16(token).to_le_bytes());
                            at += length;
                        }
                        _ => {
                            body.push(part[at]);
                            at += 1;
                        }
                    }
                }
            }
            let packed = body.len() < part.len();
            let body = if packed { &body[..] } else { part };
            let header =
                0x3000 | crate::num::to_u16(body.len() - 1) | if packed { COMPRESSED } else { 0 };
            out.extend(header.to_le_bytes());
            out.extend(body);
        }
        out
    }

    #[test]
    fn the_split_of_a_reference_follows_the_place() {
        let expected = [(0, 12), (1, 12), (16, 12), (17, 11), (32, 11), (33, 10), (64, 10)];
        for (done, bits) in expected.into_iter().chain([(2048, 5), (2049, 4), (4095, 4)]) {
            assert_eq!(length_bits(done), bits, "{done}");
        }
    }

    #[test]
    fn what_was_compressed_comes_back() {
        let mut random = Random(5);
        for round in 0..60 {
            let size = 1 + random.below(20_000);
            let kinds = 1 + random.below(if round % 3 == 0 { 256 } else { 4 });
            let mut data: Vec<u8> = (0..size).map(|_| random.below(kinds) as u8).collect();
            if round % 4 == 0 {
                data = b"the same words again. ".iter().copied().cycle().take(size).collect();
            }
            let packed = compress(&data);
            let mut out = vec![1; size];
            decompress(&packed, &mut out).unwrap();
            assert!(out == data);
            // More room than there was data: zero after it.
            let mut unit = vec![1; 65_536];
            if packed.len() < unit.len() {
                expand_unit(&packed, &mut unit).unwrap();
                assert!(unit[..size] == data && unit[size..].iter().all(|&byte| byte == 0));
            }
        }
        let mut unit = vec![1; 4096];
        expand_unit(&[], &mut unit).unwrap();
        assert!(unit.iter().all(|&byte| byte == 0));
        expand_unit(&[7; 4096], &mut unit).unwrap();
        assert_eq!(unit, [7; 4096]);
    }

    #[test]
    fn hostile_input_ends() {
        let mut random = Random(9);
        let good = compress(&b"abcabcabcabcabc and so on ".repeat(300));
        let mut errors = 0;
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bad.len());
                bad[at] = random.next_u64() as u8;
            }
            bad.truncate(random.below(bad.len()) + 1);
            let mut out = vec![0; 1 + random.below(9000)];
            errors += usize::from(decompress(&bad, &mut out).is_err());
        }
        assert!(errors > 1000);
        let mut out = [0; 10];
        // A reference at the very begin, and one cut off.
        assert!(decompress(&[0x02, 0xb0, 0x01, 0x00, 0x00], &mut out).is_err());
        assert!(decompress(&[0x02, 0xb0, 0x02, 0x41, 0x00], &mut out).is_err());
        assert!(decompress(&[0x09, 0xb0, 0x02], &mut out).is_err());
    }
}
