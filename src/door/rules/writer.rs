//! Writing variables so that bash reads back the same bytes.

use zeroize::Zeroizing;

use super::{Rules, Value};
use crate::craft::secret::Secret;

pub(super) fn write(rules: &Rules) -> Secret {
    let mut out = Zeroizing::new(Vec::with_capacity(4096));
    for (name, value) in &rules.values {
        out.extend_from_slice(b"export ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        match value {
            Value::Scalar(value) => push(&mut out, value.expose()),
            Value::Array(array) => {
                out.push(b'(');
                for (position, (index, value)) in array.iter().enumerate() {
                    if position > 0 {
                        out.push(b' ');
                    }
                    out.extend_from_slice(format!("[{index}]=").as_bytes());
                    push_element(&mut out, value.expose());
                }
                out.push(b')');
            }
        }
        out.push(b'\n');
    }
    Secret::new(std::mem::take(&mut *out))
}

/// A value as bash itself would quote it: bare where nothing in it means anything to a shell,
/// `'…'` where something does, `$'…'` where there are control characters or bytes that are no
/// text. Empty is `''`.
pub fn quote(value: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(value.len() + 16));
    push(&mut out, value);
    out
}

fn push(out: &mut Vec<u8>, value: &[u8]) {
    let bare = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./:=@%+,-".contains(byte);
    if needs_escapes(value) {
        push_escaped(out, value);
    } else if !value.is_empty() && value.iter().all(bare) {
        out.extend_from_slice(value);
    } else {
        out.push(b'\'');
        for &byte in value {
            match byte {
                b'\'' => out.extend_from_slice(b"'\\''"),
                _ => out.push(byte),
            }
        }
        out.push(b'\'');
    }
}

/// Elements of arrays stand in double quotes.
fn push_element(out: &mut Vec<u8>, value: &[u8]) {
    if needs_escapes(value) {
        return push_escaped(out, value);
    }
    out.push(b'"');
    for &byte in value {
        if matches!(byte, b'$' | b'`' | b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

fn needs_escapes(value: &[u8]) -> bool {
    match std::str::from_utf8(value) {
        Ok(text) => text.chars().any(char::is_control),
        Err(_) => true,
    }
}

fn push_escaped(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(b"$'");
    for &byte in value {
        match byte {
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            11 => out.extend_from_slice(b"\\v"),
            12 => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            27 => out.extend_from_slice(b"\\E"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\'' => out.extend_from_slice(b"\\'"),
            // Always three digits, so that a digit may follow.
            0..=31 | 127..=255 => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'\'');
}
