//! Values of SAM for tests.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};

use super::crypt::rc4;
use super::keys::{DIGITS, QWERTY, md5};

/// The boot key of the fixture's SYSTEM: 0 to 15, in the order of the permutation.
const BOOT: [u8; 16] = [8, 5, 4, 2, 11, 9, 13, 3, 0, 6, 1, 12, 14, 10, 15, 7];
const KEY: [u8; 16] = [0x5a; 16];
const SALT: [u8; 16] = [0x33; 16];

/// `F` of the domain, with a key in one of the two forms.
pub(crate) fn domain_f(aes: bool) -> Vec<u8> {
    let mut f = vec![0; 0x68];
    if aes {
        let mut block = Array(KEY);
        block.iter_mut().zip(SALT).for_each(|(byte, salt)| *byte ^= salt);
        Aes128::new(&Array(BOOT)).encrypt_block(&mut block);
        for word in [2u32, 64, 0, 16] {
            f.extend_from_slice(&word.to_le_bytes());
        }
        f.extend_from_slice(&SALT);
        f.extend_from_slice(&block);
        f.extend_from_slice(&[0; 16]);
    } else {
        let sum = md5(&[&KEY, DIGITS, &KEY, QWERTY]);
        let mut data = [KEY, *sum].concat();
        rc4(&*md5(&[&SALT, QWERTY, &BOOT, DIGITS]), &mut data);
        f.extend_from_slice(&[1, 0, 0, 0, 56, 0, 0, 0]);
        f.extend_from_slice(&SALT);
        f.extend_from_slice(&data);
        f.extend_from_slice(&[0; 8]);
    }
    f
}

/// `V` of a user without a password.
pub(crate) fn user_v(name: &str, aes: bool) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let empty: &[u8] = if aes { &[1, 0, 2, 0] } else { &[1, 0, 1, 0] };
    let mut empty = empty.to_vec();
    empty.resize(if aes { 24 } else { 4 }, 0);
    let mut v = vec![0; 17 * 12];
    for index in 0..17 {
        let content: &[u8] = match index {
            1 => &name,
            13..=16 => &empty,
            _ => &[],
        };
        let offset = (v.len() - 17 * 12) as u32;
        v.extend_from_slice(content);
        v.resize(v.len().next_multiple_of(4), 0);
        v[index * 12..index * 12 + 4].copy_from_slice(&offset.to_le_bytes());
        v[index * 12 + 4..index * 12 + 8].copy_from_slice(&(content.len() as u32).to_le_bytes());
    }
    v
}
