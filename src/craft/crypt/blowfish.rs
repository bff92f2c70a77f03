//! `$2b$`: bcrypt (Provos and Mazières, "A Future-Adaptable Password Scheme").

use zeroize::Zeroizing;

/// The cost that OpenBSD chooses on a machine of ten years ago; half as much again on ours is
/// still a tenth of a second.
pub(super) const COST: u32 = 10;

/// bcrypt reads 72 bytes of key; what follows would not count, so a longer password is refused.
pub(super) const LONGEST: usize = 72;

/// bcrypt's own alphabet and bit order (high bits first).
const ALPHABET: &[u8; 64] = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// `password` has 1 to [`LONGEST`] bytes, no NUL; `cost` is below 32.
pub(super) fn hash(password: &[u8], salt: [u8; 16], cost: u32) -> Zeroizing<String> {
    // The terminating NUL belongs to the key.
    let mut key = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
    key.extend_from_slice(password);
    key.push(0);
    key.truncate(LONGEST);
    let digest = Zeroizing::new(bcrypt::bcrypt(cost, salt, &key));
    let mut out = Zeroizing::new(format!("$2b${cost:02}$"));
    push(&mut out, &salt);
    // The last byte of the cipher text is left out, for no reason but history.
    push(&mut out, &digest[..23]);
    out
}

fn push(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=chunk.len()].copy_from_slice(chunk);
        let value = u32::from_be_bytes(bits);
        for i in 0..=chunk.len() {
            out.push(char::from(ALPHABET[(value >> (18 - 6 * i)) as usize & 0x3f]));
        }
    }
}
