//! The hash of a password, and its encryption in SAM.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use des::Des;
use md4::{Digest, Md4};
use zeroize::Zeroizing;

use super::account::{self, Entry};
use super::keys::{HashedBootKey, Revision, array, md5};
use crate::craft::random::Entropy;
use crate::craft::secret::Secret;

/// MD4 over the password in UTF-16.
pub(super) fn nt_hash(password: &Secret) -> Zeroizing<[u8; 16]> {
    let mut hash = Md4::new();
    for c in String::from_utf8_lossy(password.expose()).chars() {
        let mut units = [0; 2];
        for unit in c.encode_utf16(&mut units) {
            hash.update(unit.to_le_bytes());
        }
    }
    Zeroizing::new(hash.finalize().into())
}

/// RC4 over `data`.
pub(super) fn rc4(key: &[u8], data: &mut [u8]) {
    use rc4::StreamCipher;
    // A key of 16 bytes always is one.
    if let Ok(mut cipher) = rc4::Rc4::new_from_slice(key) {
        cipher.apply_keystream(data);
    }
}

/// The eight bytes of a DES key from its 56 bits; nobody looks at the parity.
fn des_key(bits: [u8; 7]) -> [u8; 8] {
    let whole = bits.iter().fold(0u64, |whole, byte| whole << 8 | u64::from(*byte));
    std::array::from_fn(|index| ((whole >> (49 - 7 * index) & 0x7f) as u8) << 1)
}

/// The hash, each half encrypted by DES with a key made of the user's number.
pub(super) fn with_rid(hash: &[u8; 16], rid: u32) -> Zeroizing<[u8; 16]> {
    let r = rid.to_le_bytes();
    let keys =
        [[r[0], r[1], r[2], r[3], r[0], r[1], r[2]], [r[3], r[0], r[1], r[2], r[3], r[0], r[1]]];
    let mut out = Zeroizing::new(*hash);
    for (half, key) in out.chunks_exact_mut(8).zip(keys) {
        let cipher = Des::new(&Array(des_key(key)));
        let mut block = Array([0; 8]);
        block.copy_from_slice(half);
        cipher.encrypt_block(&mut block);
        half.copy_from_slice(&block);
    }
    out
}

/// How the hash of one user is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    revision: Revision,
    /// `PekID`.
    pek_id: [u8; 2],
}

impl Stored {
    /// As the user's record has it, or as the whole SAM has it.
    pub(super) fn of(v: &[u8], default: Revision) -> Self {
        let old = account::entry(v, Entry::NtHash).unwrap_or_default();
        let pek_id = old.get(..2).map_or([1, 0], |id| [id[0], id[1]]);
        let revision = match old.get(2) {
            Some(1) => Revision::Rc4,
            Some(2) => Revision::Aes,
            _ => default,
        };
        Self { revision, pek_id }
    }

    /// The placeholder for a missing hash.
    pub(super) fn empty(self) -> Vec<u8> {
        let mut head = self.head();
        if self.revision == Revision::Aes {
            head.extend_from_slice(&[0; 20]);
        }
        head
    }

    /// `PekID` and `Revision`.
    fn head(self) -> Vec<u8> {
        let revision = if self.revision == Revision::Rc4 { 1 } else { 2 };
        vec![self.pek_id[0], self.pek_id[1], revision, 0]
    }

    /// The hash as it is stored.
    pub(super) fn encrypt(
        self,
        hashed: &HashedBootKey,
        rid: u32,
        hash: &[u8; 16],
        entropy: &mut Entropy,
    ) -> Vec<u8> {
        let mut out = self.head();
        match self.revision {
            Revision::Rc4 => {
                let key = md5(&[&*hashed.key, &rid.to_le_bytes(), b"NTPASSWORD\0"]);
                let mut data = Zeroizing::new(*hash);
                rc4(&*key, &mut *data);
                out.extend_from_slice(&*data);
            }
            Revision::Aes => {
                let salt: [u8; 16] = entropy.bytes();
                // DataOffset: after the salt, counted from it.
                out.extend_from_slice(&16u32.to_le_bytes());
                out.extend_from_slice(&salt);
                let cipher = Aes128::new(&Array(*hashed.key));
                let mut last = salt;
                // The hash fills its block, so the padding is a block of its own.
                for block in [*array(hash), [16; 16]] {
                    let mut block = Array(block);
                    block.iter_mut().zip(last).for_each(|(byte, last)| *byte ^= last);
                    cipher.encrypt_block(&mut block);
                    last = block.0;
                    out.extend_from_slice(&block);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hexadecimal(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn nt_hashes() {
        // Published test vectors.
        for (password, hash) in [
            ("", "31d6cfe0d16ae931b73c59d7e0c089c0"),
            ("password", "8846f7eaee8fb117ad06bdd830b7586c"),
        ] {
            assert_eq!(hexadecimal(&*nt_hash(&Secret::new(password))), hash);
        }
    }

    #[test]
    fn des_keys_have_seven_bits_a_byte() {
        assert_eq!(des_key([0xff; 7]), [0xfe; 8]);
        assert_eq!(des_key([0x80, 0, 0, 0, 0, 0, 1]), [0x80, 0, 0, 0, 0, 0, 0, 2]);
    }
}
