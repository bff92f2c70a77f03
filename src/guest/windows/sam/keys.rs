//! The keys that password hashes are encrypted with: the boot key of SYSTEM, and the key of the
//! SAM that is encrypted with that.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, KeyInit};
use md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::super::{RegistryError, hives};
use super::Lacking;
use super::crypt::rc4;
use crate::guest::windows::registry::Hive;

/// 16 bytes that are spread over the class names of four keys.
pub struct BootKey(pub(super) Zeroizing<[u8; 16]>);

impl std::fmt::Debug for BootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BootKey(...)")
    }
}

/// The keys of `Control\Lsa` whose class names hold four bytes each.
const PARTS: [&str; 4] = ["JD", "Skew1", "GBG", "Data"];
/// The place of each of those bytes in the key.
const ORDER: [usize; 16] = [8, 5, 4, 2, 11, 9, 13, 3, 0, 6, 1, 12, 14, 10, 15, 7];

impl BootKey {
    /// Reads it from a SYSTEM hive.
    pub fn read(system: &Hive) -> Result<Self, RegistryError> {
        let hive_error = |source| RegistryError::Hive { path: "SYSTEM".into(), source };
        let lacks = |what: String| RegistryError::Lacks { hive: "SYSTEM", what };
        let select = system.key("Select").map_err(hive_error)?;
        let select = select.ok_or_else(|| lacks("key Select".into()))?;
        let number = |name: &str| system.number(select, name).ok().flatten();
        let set =
            hives::control_set(number).ok_or_else(|| lacks("value Select\\Default".into()))?;
        let mut raw = Zeroizing::new(Vec::with_capacity(16));
        for part in PARTS {
            let path = format!("{set}\\Control\\Lsa\\{part}");
            let key = system.key(&path).map_err(hive_error)?;
            let key = key.ok_or_else(|| lacks(format!("key {path}")))?;
            let class = system.class_name(key).map_err(hive_error)?;
            let bytes = class.and_then(|class| hexadecimal(&class.to_string()));
            let bytes = bytes.ok_or_else(|| lacks(format!("class name of {path}")))?;
            raw.extend_from_slice(&*bytes);
        }
        let mut key = Zeroizing::new([0; 16]);
        for (place, from) in key.iter_mut().zip(ORDER) {
            *place = raw.get(from).copied().unwrap_or_default();
        }
        Ok(Self(key))
    }
}

/// Four bytes of eight hexadecimal digits.
fn hexadecimal(text: &str) -> Option<Zeroizing<[u8; 4]>> {
    let good = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u32::from_str_radix(text, 16).ok().filter(|_| good)?;
    Some(Zeroizing::new(number.to_be_bytes()))
}

/// How the hashes of a SAM are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revision {
    /// With RC4.
    Rc4,
    /// With AES-128 in CBC mode.
    Aes,
}

/// The key of a SAM.
pub(super) struct HashedBootKey {
    pub(super) key: Zeroizing<[u8; 16]>,
    pub(super) revision: Revision,
}

/// The start of the key in the value `F` of the domain.
const KEY_DATA: usize = 0x68;
pub(super) const QWERTY: &[u8] = b"!@#$%^&*()qwertyUIOPAzxcvbnmQQQQQQQQQQQQ)(*@&%\0";
pub(super) const DIGITS: &[u8] = b"0123456789012345678901234567890123456789\0";

/// Decrypts the key of the SAM.
pub(super) fn hashed_boot_key(f: &[u8], boot: &BootKey) -> Result<HashedBootKey, Lacking> {
    let data = f.get(KEY_DATA..).ok_or(Lacking::Key)?;
    let part = |start: usize, length: usize| data.get(start..start + length).ok_or(Lacking::Key);
    let word = |start| part(start, 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    match word(0)? {
        // Revision, Length, Salt, Key, CheckSum.
        1 => {
            let (salt, key, sum) = (part(8, 16)?, part(24, 16)?, part(40, 16)?);
            let rc4_key = md5(&[salt, QWERTY, &*boot.0, DIGITS]);
            let mut decrypted = Zeroizing::new([key, sum].concat());
            rc4(&*rc4_key, &mut decrypted);
            let key = array(&decrypted[..16]);
            if *md5(&[&*key, DIGITS, &*key, QWERTY]) != decrypted[16..] {
                return Err(Lacking::FittingKey);
            }
            Ok(HashedBootKey { key, revision: Revision::Rc4 })
        }
        // Revision, Length, CheckSumLen, DataLen, Salt, Data.
        2 => {
            let (salt, data) = (part(16, 16)?, part(32, 16)?);
            let cipher = Aes128::new(&Array(*boot.0));
            let mut block = Array(*array(data));
            cipher.decrypt_block(&mut block);
            let mut key = Zeroizing::new([0; 16]);
            for ((place, byte), salt) in key.iter_mut().zip(block).zip(salt) {
                *place = byte ^ salt;
            }
            Ok(HashedBootKey { key, revision: Revision::Aes })
        }
        other => Err(Lacking::Revision(other)),
    }
}

pub(super) fn md5(parts: &[&[u8]]) -> Zeroizing<[u8; 16]> {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part));
    Zeroizing::new(hash.finalize().into())
}

/// The first 16 bytes.
pub(super) fn array(bytes: &[u8]) -> Zeroizing<[u8; 16]> {
    let mut array = Zeroizing::new([0; 16]);
    for (place, byte) in array.iter_mut().zip(bytes) {
        *place = *byte;
    }
    array
}
