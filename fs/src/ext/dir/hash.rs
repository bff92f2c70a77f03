//! The hashes that order names in an indexed directory.
//!
//! Source: the kernel's Documentation/filesystems/ext4/directory.rst (hash versions), the published
//! TEA and MD4 round functions.

use crate::num::to_u32;

/// `hash_version` of a directory root and `s_def_hash_version`.
#[allow(missing_docs)]
pub mod version {
    pub const LEGACY: u8 = 0;
    pub const HALF_MD4: u8 = 1;
    pub const TEA: u8 = 2;
    pub const SIPHASH: u8 = 6;
}

/// The largest hash plus one half: reserved to mean the end of a directory.
const HASH_EOF: u32 = 0x7FFF_FFFF;

/// How the directories of one file system hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hasher {
    /// [`version::LEGACY`], [`version::HALF_MD4`] or [`version::TEA`].
    pub version: u8,
    /// Whether bytes above 127 count as positive: `s_flags` records the choice of the first kernel.
    pub unsigned: bool,
    /// `s_hash_seed`.
    pub seed: [u32; 4],
}

impl Hasher {
    /// The hash of a name. The lowest bit is always 0: an index uses it to mark that names with one
    /// hash continue from the block before.
    pub fn hash(&self, name: &[u8]) -> u32 {
        let mut state = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];
        if self.seed.iter().any(|&word| word != 0) {
            state = self.seed;
        }
        let hash = match self.version {
            version::LEGACY => self.legacy(name),
            version::HALF_MD4 => {
                let mut rest = name;
                while !rest.is_empty() {
                    half_md4(&mut state, &self.words::<8>(rest));
                    rest = rest.get(32..).unwrap_or_default();
                }
                state[1]
            }
            _ => {
                let mut rest = name;
                while !rest.is_empty() {
                    tea(&mut state, &self.words::<4>(rest));
                    rest = rest.get(16..).unwrap_or_default();
                }
                state[0]
            }
        };
        let hash = hash & !1;
        if hash == HASH_EOF << 1 { (HASH_EOF - 1) << 1 } else { hash }
    }

    fn widen(&self, byte: u8) -> u32 {
        if self.unsigned { u32::from(byte) } else { i32::from(byte.cast_signed()).cast_unsigned() }
    }

    fn legacy(&self, name: &[u8]) -> u32 {
        let mut current: u32 = 0x12A3_FE2D;
        let mut previous: u32 = 0x37AB_E8F9;
        for &byte in name {
            let mixed = current ^ self.widen(byte).wrapping_mul(7_152_373);
            let mut next = previous.wrapping_add(mixed);
            if next & 0x8000_0000 != 0 {
                next = next.wrapping_sub(0x7FFF_FFFF);
            }
            previous = current;
            current = next;
        }
        current << 1
    }

    /// The next `N` words of a name: four bytes each, most significant first, and where the name
    /// ends, its remaining length in every byte.
    fn words<const N: usize>(&self, rest: &[u8]) -> [u32; N] {
        let length = to_u32(rest.len());
        let pad = length | length << 8;
        let pad = pad | pad << 16;
        let mut out = [pad; N];
        for (word, chunk) in out.iter_mut().zip(rest.chunks(4)) {
            for &byte in chunk {
                *word = self.widen(byte).wrapping_add(*word << 8);
            }
        }
        out
    }
}

fn tea(state: &mut [u32; 4], words: &[u32; 4]) {
    let [mut y, mut z, ..] = *state;
    let mut sum: u32 = 0;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9E37_79B9);
        y = y.wrapping_add(
            (z << 4).wrapping_add(words[0]) ^ z.wrapping_add(sum) ^ (z >> 5).wrapping_add(words[1]),
        );
        z = z.wrapping_add(
            (y << 4).wrapping_add(words[2]) ^ y.wrapping_add(sum) ^ (y >> 5).wrapping_add(words[3]),
        );
    }
    state[0] = state[0].wrapping_add(y);
    state[1] = state[1].wrapping_add(z);
}

/// MD4 with eight input words and eight steps a round.
fn half_md4(state: &mut [u32; 4], words: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    let rounds: [(Mix, u32, [u32; 4], [usize; 8]); 3] = [
        (|x, y, z| z ^ (x & (y ^ z)), 0, [3, 7, 11, 19], [0, 1, 2, 3, 4, 5, 6, 7]),
        (
            |x, y, z| (x & y).wrapping_add((x ^ y) & z),
            0x5A82_7999,
            [3, 5, 9, 13],
            [1, 3, 5, 7, 0, 2, 4, 6],
        ),
        (|x, y, z| x ^ y ^ z, 0x6ED9_EBA1, [3, 9, 11, 15], [3, 7, 2, 6, 1, 5, 0, 4]),
    ];
    let mut s = *state;
    for (mix, constant, shifts, order) in rounds {
        for (step, &index) in order.iter().enumerate() {
            // The registers take turns: a, d, c, b.
            let a = (4 - step % 4) % 4;
            let (b, c, d) = ((a + 1) % 4, (a + 2) % 4, (a + 3) % 4);
            s[a] = s[a]
                .wrapping_add(mix(s[b], s[c], s[d]))
                .wrapping_add(words[index])
                .wrapping_add(constant)
                .rotate_left(shifts[step % 4]);
        }
    }
    for (word, add) in state.iter_mut().zip(s) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// debugfs computes the same hashes.
    #[test]
    fn debugfs_agrees() {
        let long = "n".repeat(255);
        let names = [
            "a",
            "abcd",
            "hostname",
            "exactly-sixteen!",
            "thirty-two characters in a name!",
            "fußball-über-straße",
            "a longer name that takes more than one round of each of the two block hashes",
            long.as_str(),
        ];
        let seeds =
            ["00000000-0000-0000-0000-000000000000", "12345678-9abc-def0-1122-334455667788"];
        for seed in seeds {
            let mut bytes: Vec<u8> = Vec::new();
            let digits: Vec<u8> = seed.bytes().filter(|&b| b != b'-').collect();
            for pair in digits.chunks(2) {
                bytes.push(u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
            }
            let mut words = [0; 4];
            for (word, chunk) in words.iter_mut().zip(bytes.chunks(4)) {
                *word = u32::from_le_bytes(chunk.try_into().unwrap());
            }
            for (name, version, unsigned) in [
                ("0", 0, false),
                ("1", 1, false),
                ("2", 2, false),
                ("3", 0, true),
                ("4", 1, true),
                ("5", 2, true),
            ] {
                let hasher = Hasher { version, unsigned, seed: words };
                for text in names {
                    let request = format!("dx_hash -h {name} -s {seed} \"{text}\"");
                    let out = Command::new("debugfs").args(["-R", &request]).output().unwrap();
                    let out = String::from_utf8_lossy(&out.stdout).into_owned();
                    let found = out.split("is 0x").nth(1).unwrap_or_else(|| panic!("{out}"));
                    let found = found.split(' ').next().unwrap();
                    let found = u32::from_str_radix(found, 16).unwrap();
                    assert_eq!(hasher.hash(text.as_bytes()), found, "{name} of {text}: {out}");
                }
            }
        }
    }
}
