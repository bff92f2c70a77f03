//! Sector encryption, by the names that dm-crypt has for it.

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256};
use xts_mode::Xts128;

use super::hash::Hash;
use crate::Refusal;

/// The unit in which initialisation vectors count, whatever the sector size.
pub(crate) const IV_UNIT: u64 = 512;
const BLOCK: usize = 16;

/// How sectors are numbered for the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// 32 bits.
    Plain,
    /// 64 bits.
    Plain64,
}

/// A cipher and its mode, without a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec(Mode);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Xts(Numbers),
    Cbc(Numbers),
    CbcEssiv,
    /// Nothing is encrypted.
    Null,
}

impl Spec {
    /// From text such as `aes-xts-plain64`.
    pub(crate) fn parse(name: &str) -> Result<Self, Refusal> {
        let mode = match name {
            "aes-xts-plain64" => Mode::Xts(Numbers::Plain64),
            "aes-xts-plain" => Mode::Xts(Numbers::Plain),
            "aes-cbc-plain64" => Mode::Cbc(Numbers::Plain64),
            "aes-cbc-plain" => Mode::Cbc(Numbers::Plain),
            "aes-cbc-essiv:sha256" => Mode::CbcEssiv,
            "cipher_null-ecb" | "cipher_null" | "null" => Mode::Null,
            other => return Err(Refusal::Cipher(super::printable(other))),
        };
        Ok(Self(mode))
    }

    /// Gives it a key.
    pub(crate) fn with_key(&self, key: &[u8]) -> Result<Cipher, Refusal> {
        let length = || Refusal::Cipher(format!("aes with a key of {} bits", key.len() * 8));
        let aes = |key: &[u8]| Aes::new(key).ok_or_else(length);
        Ok(match self.0 {
            Mode::Xts(numbers) => {
                let (first, second) = key.split_at(key.len() / 2);
                match key.len() {
                    32 => Cipher::Xts128(
                        Box::new(Xts128::new(fixed(first)?, fixed(second)?)),
                        numbers,
                    ),
                    64 => Cipher::Xts256(
                        Box::new(Xts128::new(fixed(first)?, fixed(second)?)),
                        numbers,
                    ),
                    _ => return Err(length()),
                }
            }
            Mode::Cbc(numbers) => Cipher::Cbc(Box::new(aes(key)?), Vector::Plain(numbers)),
            Mode::CbcEssiv => {
                let mut digest = Hash::Sha256.digest(&[key]);
                let vector = aes(&digest[..Hash::Sha256.length()]);
                zeroize::Zeroize::zeroize(&mut digest);
                Cipher::Cbc(Box::new(aes(key)?), Vector::Essiv(Box::new(vector?)))
            }
            Mode::Null => Cipher::Null,
        })
    }
}

fn fixed<C: KeyInit>(key: &[u8]) -> Result<C, Refusal> {
    let refused = |_| Refusal::Cipher(format!("aes with a key of {} bits", key.len() * 16));
    C::new_from_slice(key).map_err(refused)
}

/// AES with any of its key lengths. The key schedules are wiped when they are dropped.
pub(crate) enum Aes {
    Of128(Aes128),
    Of192(Aes192),
    Of256(Aes256),
}

impl Aes {
    fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            16 => Aes128::new_from_slice(key).ok().map(Self::Of128),
            24 => Aes192::new_from_slice(key).ok().map(Self::Of192),
            32 => Aes256::new_from_slice(key).ok().map(Self::Of256),
            _ => None,
        }
    }

    fn encrypt(&self, block: &mut [u8; BLOCK]) {
        let mut array = Array(*block);
        match self {
            Self::Of128(aes) => aes.encrypt_block(&mut array),
            Self::Of192(aes) => aes.encrypt_block(&mut array),
            Self::Of256(aes) => aes.encrypt_block(&mut array),
        }
        *block = array.0;
    }

    fn decrypt(&self, block: &mut [u8; BLOCK]) {
        let mut array = Array(*block);
        match self {
            Self::Of128(aes) => aes.decrypt_block(&mut array),
            Self::Of192(aes) => aes.decrypt_block(&mut array),
            Self::Of256(aes) => aes.decrypt_block(&mut array),
        }
        *block = array.0;
    }
}

/// The source of a CBC sector's initialisation vector.
pub(crate) enum Vector {
    Plain(Numbers),
    Essiv(Box<Aes>),
}

/// A cipher with its key.
pub(crate) enum Cipher {
    Xts128(Box<Xts128<Aes128>>, Numbers),
    Xts256(Box<Xts128<Aes256>>, Numbers),
    Cbc(Box<Aes>, Vector),
    Null,
}

impl Numbers {
    fn vector(self, number: u64) -> [u8; BLOCK] {
        let number = match self {
            Self::Plain => number & u64::from(u32::MAX),
            Self::Plain64 => number,
        };
        u128::from(number).to_le_bytes()
    }
}

impl Cipher {
    /// Encrypts whole sectors of `sector` bytes, the first of which has the number `number` in
    /// units of 512 bytes. `sector` is a multiple of 512, and so is the length of `bytes`.
    pub(crate) fn encrypt(&self, bytes: &mut [u8], sector: usize, number: u64) {
        for (number, sector) in numbered(bytes, sector, number) {
            match self {
                Self::Xts128(xts, n) => xts.encrypt_sector(sector, Array(n.vector(number))),
                Self::Xts256(xts, n) => xts.encrypt_sector(sector, Array(n.vector(number))),
                Self::Cbc(aes, vector) => {
                    let mut last = vector.of(number);
                    for block in sector.chunks_exact_mut(BLOCK) {
                        last.iter_mut().zip(&*block).for_each(|(last, byte)| *last ^= byte);
                        aes.encrypt(&mut last);
                        block.copy_from_slice(&last);
                    }
                }
                Self::Null => {}
            }
        }
    }

    /// Decrypts whole sectors.
    pub(crate) fn decrypt(&self, bytes: &mut [u8], sector: usize, number: u64) {
        for (number, sector) in numbered(bytes, sector, number) {
            match self {
                Self::Xts128(xts, n) => xts.decrypt_sector(sector, Array(n.vector(number))),
                Self::Xts256(xts, n) => xts.decrypt_sector(sector, Array(n.vector(number))),
                Self::Cbc(aes, vector) => {
                    let mut last = vector.of(number);
                    for block in sector.chunks_exact_mut(BLOCK) {
                        let mut plain = [0; BLOCK];
                        plain.copy_from_slice(block);
                        let next = plain;
                        aes.decrypt(&mut plain);
                        block
                            .iter_mut()
                            .zip(plain.iter().zip(&last))
                            .for_each(|(block, (plain, last))| *block = plain ^ last);
                        last = next;
                    }
                }
                Self::Null => {}
            }
        }
    }
}

impl Vector {
    fn of(&self, number: u64) -> [u8; BLOCK] {
        match self {
            Self::Plain(numbers) => numbers.vector(number),
            Self::Essiv(aes) => {
                let mut vector = Numbers::Plain64.vector(number);
                aes.encrypt(&mut vector);
                vector
            }
        }
    }
}

fn numbered(bytes: &mut [u8], sector: usize, first: u64) -> impl Iterator<Item = (u64, &mut [u8])> {
    let step = sector as u64 / IV_UNIT;
    bytes
        .chunks_exact_mut(sector)
        .enumerate()
        .map(move |(index, sector)| (first.wrapping_add(index as u64 * step), sector))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_with_every_cipher() {
        let key: Vec<u8> = (0..64).collect();
        for (name, lengths) in [
            ("aes-xts-plain64", &[32, 64][..]),
            ("aes-xts-plain", &[32, 64]),
            ("aes-cbc-plain64", &[16, 24, 32]),
            ("aes-cbc-plain", &[16, 24, 32]),
            ("aes-cbc-essiv:sha256", &[16, 24, 32]),
            ("cipher_null-ecb", &[16, 32]),
        ] {
            for length in lengths {
                let cipher = Spec::parse(name).unwrap().with_key(&key[..*length]).unwrap();
                for sector in [512, 1024, 2048, 4096] {
                    let plain: Vec<u8> = (0..8192).map(|n| (n % 251) as u8).collect();
                    let mut bytes = plain.clone();
                    cipher.encrypt(&mut bytes, sector, 77);
                    assert_eq!(bytes == plain, name.starts_with("cipher_null"), "{name}");
                    // A sector does not depend on those before it.
                    let at = sector;
                    let number = 77 + sector as u64 / 512;
                    cipher.decrypt(&mut bytes[at..], sector, number);
                    assert_eq!(bytes[at..], plain[at..], "{name} {length} {sector}");
                    cipher.decrypt(&mut bytes[..at], sector, 77);
                    assert_eq!(bytes, plain);
                }
            }
        }
        for (name, length) in
            [("aes-xts-plain64", 48), ("aes-cbc-plain64", 64), ("aes-xts-plain64", 0)]
        {
            assert!(Spec::parse(name).unwrap().with_key(&key[..length]).is_err());
        }
        assert_eq!(
            Spec::parse("twofish-xts-plain64"),
            Err(Refusal::Cipher("twofish-xts-plain64".into()))
        );
    }
}
