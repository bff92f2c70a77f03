//! `$1$`: Poul-Henning Kamp's MD5 crypt.

use md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::base64::{push_low_first, push_triple};

pub(super) fn hash(password: &[u8], salt: &str) -> Zeroizing<String> {
    let inner: [u8; 16] = Md5::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize()
        .into();
    let mut first = Md5::new();
    first.update(password);
    first.update("$1$");
    first.update(salt);
    for chunk in password.chunks(16) {
        first.update(&inner[..chunk.len()]);
    }
    // One byte for each bit of the length: a NUL for a one, the first character for a zero.
    let mut length = password.len();
    while length > 0 {
        let byte = if length & 1 == 1 { 0 } else { password.first().copied().unwrap_or_default() };
        first.update([byte]);
        length >>= 1;
    }
    let mut digest: [u8; 16] = first.finalize().into();
    for round in 0..1000 {
        let mut hash = Md5::new();
        if round & 1 == 1 {
            hash.update(password)
        } else {
            hash.update(digest)
        }
        if round % 3 != 0 {
            hash.update(salt);
        }
        if round % 7 != 0 {
            hash.update(password);
        }
        if round & 1 == 1 {
            hash.update(digest)
        } else {
            hash.update(password)
        }
        digest = hash.finalize().into();
    }
    let mut out = Zeroizing::new(format!("$1${salt}$"));
    for i in 0..4 {
        push_triple(&mut out, &digest, [i, i + 6, i + 12]);
    }
    push_triple(&mut out, &digest, [4, 10, 5]);
    push_low_first(&mut out, u32::from(digest[11]), 2);
    out
}
