//! `$sha1$`: NetBSD's PBKDF1 over HMAC-SHA-1.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::CryptError;
use super::base64::push_triple;

/// About three times what NetBSD uses by default.
pub(super) const ITERATIONS: u32 = 65_536;

pub(super) fn hash(
    password: &[u8],
    salt: &str,
    iterations: u32,
) -> Result<Zeroizing<String>, CryptError> {
    let keyed = Hmac::<Sha1>::new_from_slice(password).map_err(|_| CryptError::Internal("sha1"))?;
    let start = format!("{salt}$sha1${iterations}");
    let mut digest = keyed.clone().chain_update(start.as_bytes()).finalize().into_bytes();
    for _ in 1..iterations {
        digest = keyed.clone().chain_update(digest).finalize().into_bytes();
    }
    let mut out = Zeroizing::new(format!("$sha1${iterations}${salt}$"));
    for i in (0..18).step_by(3) {
        push_triple(&mut out, &digest, [i, i + 1, i + 2]);
    }
    push_triple(&mut out, &digest, [18, 19, 0]);
    Ok(out)
}
