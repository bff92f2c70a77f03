//! Names in directories that ignore case (`casefold`).

use super::super::volume::Volume;
use crate::error::{Error, Result};

/// `s_encoding`: UTF-8 as of Unicode 12.1.
const ENCODING_UTF8_12_1: u16 = 1;
/// `s_encoding_flags`: names that are not valid in the encoding are refused.
const STRICT: u16 = 1;

/// The folded form of a name that is asked for or to be made.
pub fn fold(volume: &Volume, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let encoding = volume.sb.raw.s_encoding.get();
    if encoding != ENCODING_UTF8_12_1 {
        return Err(Error::unsupported(
            format!("casefold with s_encoding {encoding}"),
            "only 1 (utf8-12.1) is known; edit the files from inside the running guest",
        ));
    }
    let folded = fold_text(name);
    if folded.is_none() && volume.sb.raw.s_encoding_flags.get() & STRICT != 0 {
        return Err(Error::Invalid(format!(
            "`{}` is not UTF-8, which this file system demands of names (casefold, strict)",
            crate::error::display_name(name)
        )));
    }
    Ok(folded)
}

/// The folded form of a name; `None` when it is not UTF-8, and is then compared byte for byte.
pub fn fold_text(name: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(name).ok()?;
    Some(text.to_lowercase().into_bytes())
}
