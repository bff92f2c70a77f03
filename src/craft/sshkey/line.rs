//! Lines of an authorized_keys file, as strict as `ssh-keygen -lf` is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The smallest RSA key that OpenSSH reads, in bits.
const RSA_MIN: usize = 1024;

/// Why a line is not one of a public key. The text goes on after "line N".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyLine {
    /// No word of the line names a kind of key.
    #[error("names no kind of key that OpenSSH has (such as ssh-ed25519)")]
    Kind,
    /// Nothing comes after the kind.
    #[error("ends after the kind of key: the key itself is missing")]
    Missing,
    /// The key is not base64.
    #[error("has a key that is not whole base64: a part of it may be missing")]
    Base64,
    /// The key is of another kind than the line says, is cut, or has more in it than it should.
    #[error("has a key that is damaged, or of another kind than the line says")]
    Damaged,
    /// The key is too short to be used.
    #[error("has an RSA key of less than {RSA_MIN} bits, which OpenSSH does not take")]
    Short,
}

/// Whether a line is a public key, options before it allowed. Empty lines and comments are none, and are
/// not looked at.
///
/// # Errors
/// When `ssh-keygen -lf` would refuse it.
pub fn check_line(line: &str) -> Result<(), BadKeyLine> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let mut rest = line;
    let mut kind = word(rest);
    if fields(kind).is_none() {
        // Options: one word, in which quotes hold blanks.
        rest = after_options(rest).trim_start();
        kind = word(rest);
    }
    let fields = fields(kind).ok_or(BadKeyLine::Kind)?;
    let key = word(rest[kind.len()..].trim_start());
    if key.is_empty() {
        return Err(BadKeyLine::Missing);
    }
    let blob = STANDARD.decode(key).map_err(|_| BadKeyLine::Base64)?;
    let mut reader = Reader(&blob);
    if reader.string() != Some(kind.as_bytes()) {
        return Err(BadKeyLine::Damaged);
    }
    if kind.contains("-cert-v01@") {
        // A server that trusts the authority judges the content of a certificate.
        return if reader.0.is_empty() { Err(BadKeyLine::Damaged) } else { Ok(()) };
    }
    for field in fields {
        let value = reader.string().ok_or(BadKeyLine::Damaged)?;
        let whole = match field {
            Field::Bytes(length) => value.len() == *length,
            Field::Exactly(text) => value == text.as_bytes(),
            Field::Number => !value.is_empty() && value[0] & 0x80 == 0,
            Field::Modulus => {
                let digits = value.strip_prefix(&[0]).unwrap_or(value);
                let zeros = digits.first().map_or(8, |byte| byte.leading_zeros() as usize);
                if digits.len() * 8 - zeros.min(digits.len() * 8) < RSA_MIN {
                    return Err(BadKeyLine::Short);
                }
                true
            }
            Field::Text => !value.is_empty(),
        };
        if !whole {
            return Err(BadKeyLine::Damaged);
        }
    }
    if reader.0.is_empty() { Ok(()) } else { Err(BadKeyLine::Damaged) }
}

/// A part of a key after its kind.
enum Field {
    Bytes(usize),
    Exactly(&'static str),
    Number,
    Modulus,
    Text,
}

/// The parts of a kind of key; `None` for a word that is none.
fn fields(kind: &str) -> Option<&'static [Field]> {
    use Field::{Bytes, Exactly, Modulus, Number, Text};
    Some(match kind {
        "ssh-ed25519" => &[Bytes(32)],
        "ssh-rsa" => &[Number, Modulus],
        "ssh-dss" => &[Number, Number, Number, Number],
        "ecdsa-sha2-nistp256" => &[Exactly("nistp256"), Bytes(65)],
        "ecdsa-sha2-nistp384" => &[Exactly("nistp384"), Bytes(97)],
        "ecdsa-sha2-nistp521" => &[Exactly("nistp521"), Bytes(133)],
        "sk-ssh-ed25519@openssh.com" => &[Bytes(32), Text],
        "sk-ecdsa-sha2-nistp256@openssh.com" => &[Exactly("nistp256"), Bytes(65), Text],
        "ssh-ed25519-cert-v01@openssh.com"
        | "ssh-rsa-cert-v01@openssh.com"
        | "ssh-dss-cert-v01@openssh.com"
        | "ecdsa-sha2-nistp256-cert-v01@openssh.com"
        | "ecdsa-sha2-nistp384-cert-v01@openssh.com"
        | "ecdsa-sha2-nistp521-cert-v01@openssh.com"
        | "sk-ssh-ed25519-cert-v01@openssh.com"
        | "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com" => &[],
        _ => return None,
    })
}

fn word(text: &str) -> &str {
    text.split([' ', '\t']).next().unwrap_or_default()
}

/// The text after the first word, whose quotes may hold blanks.
fn after_options(text: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return &text[at..],
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    ""
}

/// Reads the strings of a key.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn string(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }
}
