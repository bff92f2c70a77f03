//! The anti-forensic splitter (LUKS On-Disk Format 1.2, section 2.4): a key is spread over many
//! stripes, so that one lost sector loses the key.

use super::hash::Hash;
use super::kdf::{Key, empty_key};

/// The key of `length` bytes out of its stripes, which are as long each.
pub(crate) fn merge(material: &[u8], length: usize, hash: Hash) -> Key {
    let mut sum = empty_key(length);
    let mut stripes = material.chunks_exact(length).peekable();
    while let Some(stripe) = stripes.next() {
        sum.iter_mut().zip(stripe).for_each(|(sum, byte)| *sum ^= byte);
        if stripes.peek().is_some() {
            diffuse(&mut sum, hash);
        }
    }
    sum
}

/// Replaces each piece of the length of a digest by the digest of its number and itself.
fn diffuse(bytes: &mut [u8], hash: Hash) {
    for (number, piece) in (0u32..).zip(bytes.chunks_mut(hash.length())) {
        let mut digest = hash.digest(&[&number.to_be_bytes(), piece]);
        let length = piece.len();
        piece.copy_from_slice(&digest[..length]);
        zeroize::Zeroize::zeroize(&mut digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a key as the specification says, with stripes that are not random.
    fn split(key: &[u8], stripes: usize, hash: Hash) -> Vec<u8> {
        let mut out = Vec::new();
        let mut sum = vec![0; key.len()];
        for number in 1..stripes {
            let stripe: Vec<u8> = (0..key.len()).map(|at| (at * 7 + number * 13) as u8).collect();
            sum.iter_mut().zip(&stripe).for_each(|(sum, byte)| *sum ^= byte);
            diffuse(&mut sum, hash);
            out.extend(stripe);
        }
        out.extend(key.iter().zip(&sum).map(|(key, sum)| key ^ sum));
        out
    }

    #[test]
    fn what_was_split_is_merged() {
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha512] {
            for length in [16, 32, 64] {
                let key: Vec<u8> = (0..length).collect();
                let material = split(&key, 50, hash);
                assert_eq!(*merge(&material, key.len(), hash), key);
            }
        }
    }
}
