//! `$y$`: yescrypt at libxcrypt's default cost (`j9T`: N = 4096, r = 32; 16 MiB).

use yescrypt::{Mode, Params, yescrypt};
use zeroize::Zeroizing;

use super::CryptError;
use super::base64::push_bytes;

/// The parameters in yescrypt's own notation.
pub(super) const PARAMS: &str = "j9T";

pub(super) fn hash(password: &[u8], salt: &[u8; 16]) -> Result<Zeroizing<String>, CryptError> {
    let failed = |_| CryptError::Internal("yescrypt");
    let params = Params::new(Mode::default(), 4096, 32, 1).map_err(failed)?;
    let mut digest = Zeroizing::new([0; 32]);
    yescrypt(password, salt, &params, &mut *digest).map_err(failed)?;
    let mut out = Zeroizing::new(String::with_capacity(128));
    out.push_str("$y$");
    out.push_str(PARAMS);
    out.push('$');
    push_bytes(&mut out, salt);
    out.push('$');
    push_bytes(&mut out, &*digest);
    Ok(out)
}
