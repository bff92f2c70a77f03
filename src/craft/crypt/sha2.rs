//! `$5$` and `$6$`: SHA-crypt (Drepper, "Unix crypt using SHA-256 and SHA-512"), 5000 rounds.

use sha_crypt::{Params, sha256_crypt, sha512_crypt};
use zeroize::Zeroizing;

use super::base64::{push_low_first, push_triple};

// crypt(3) reads 16 characters of salt at most: a longer one would give a string that compares
// unequal with what a login computes.

pub(super) fn sha512(password: &[u8], salt: &[u8]) -> Zeroizing<String> {
    let digest = sha512_crypt(password, salt, Params::RECOMMENDED);
    let mut out = start("$6$", salt);
    // The three thirds of the digest (offsets 0, 21, 42) are interleaved, rotating by one byte
    // group at each step.
    for i in 0..21 {
        let third = [i, i + 21, i + 42];
        let turn = i % 3;
        push_triple(&mut out, &digest, [third[turn], third[(turn + 1) % 3], third[(turn + 2) % 3]]);
    }
    push_low_first(&mut out, u32::from(digest[63]), 2);
    out
}

pub(super) fn sha256(password: &[u8], salt: &[u8]) -> Zeroizing<String> {
    let digest = sha256_crypt(password, salt, Params::RECOMMENDED);
    let mut out = start("$5$", salt);
    for i in 0..10 {
        let third = [i, i + 10, i + 20];
        let turn = (3 - i % 3) % 3;
        push_triple(&mut out, &digest, [third[turn], third[(turn + 1) % 3], third[(turn + 2) % 3]]);
    }
    push_low_first(&mut out, u32::from(digest[31]) << 8 | u32::from(digest[30]), 3);
    out
}

fn start(prefix: &str, salt: &[u8]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(128));
    out.push_str(prefix);
    out.extend(salt.iter().map(|&byte| char::from(byte)));
    out.push('$');
    out
}
