//! The kind of key in a file, whatever the file is called.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ssh_key::{Algorithm, PrivateKey};

use super::KeyType;

/// The content of a file that may be an SSH key. A kind that we do not make is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyContent {
    /// A private key.
    Private(Option<KeyType>),
    /// A public key.
    Public(Option<KeyType>),
    /// A certificate of a host or a user.
    Certificate,
    /// Nothing: what a cut power left of a key.
    Empty,
    /// Something else.
    NotAKey,
}

/// Object identifiers in DER, as PKCS #8 and PEM files hold them.
const IDENTIFIERS: [(&[u8], KeyType); 3] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01], KeyType::Rsa),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01], KeyType::Ecdsa),
    (&[0x06, 0x03, 0x2b, 0x65, 0x70], KeyType::Ed25519),
];

impl KeyContent {
    /// The content of a file.
    pub fn of(text: &[u8]) -> Self {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Self::Empty;
        }
        let Ok(text) = std::str::from_utf8(text) else { return Self::NotAKey };
        if let Some(at) = text.find("-----BEGIN ")
            && let Some((label, rest)) = text[at + 11..].split_once(" KEY-----")
        {
            return of_pem(label, rest, text);
        }
        let word = text.split_whitespace().next().unwrap_or_default();
        if word.contains("-cert-v0") {
            return Self::Certificate;
        }
        match word {
            "ssh-rsa" => Self::Public(Some(KeyType::Rsa)),
            "ssh-ed25519" => Self::Public(Some(KeyType::Ed25519)),
            _ if word.starts_with("ecdsa-sha2-") => Self::Public(Some(KeyType::Ecdsa)),
            _ if ["ssh-", "sk-"].iter().any(|start| word.starts_with(start)) => Self::Public(None),
            _ => Self::NotAKey,
        }
    }
}

fn of_pem(label: &str, rest: &str, text: &str) -> KeyContent {
    let kind = match label {
        "OPENSSH PRIVATE" => {
            PrivateKey::from_openssh(text).ok().and_then(|key| match key.algorithm() {
                Algorithm::Rsa { .. } => Some(KeyType::Rsa),
                Algorithm::Ecdsa { .. } => Some(KeyType::Ecdsa),
                Algorithm::Ed25519 => Some(KeyType::Ed25519),
                _ => None,
            })
        }
        "RSA PRIVATE" => Some(KeyType::Rsa),
        "EC PRIVATE" => Some(KeyType::Ecdsa),
        "PRIVATE" => {
            let body: String = rest.lines().take_while(|line| !line.starts_with("---")).collect();
            let der = STANDARD.decode(body.replace(char::is_whitespace, "")).unwrap_or_default();
            let holds = |part: &[u8]| der.windows(part.len()).any(|window| window == part);
            IDENTIFIERS.into_iter().find(|(id, _)| holds(id)).map(|(_, kind)| kind)
        }
        _ if label.ends_with("PRIVATE") => None,
        _ => return KeyContent::NotAKey,
    };
    KeyContent::Private(kind)
}

#[cfg(test)]
mod tests {
    use super::super::generate;
    use super::*;
    use crate::craft::random::Entropy;

    #[test]
    fn keys_are_told_by_their_content() {
        for key_type in KeyType::ALL {
            let key = generate(key_type, "me", &mut Entropy::seeded(1)).unwrap();
            assert_eq!(KeyContent::of(key.private.expose()), KeyContent::Private(Some(key_type)));
            assert_eq!(KeyContent::of(key.public.as_bytes()), KeyContent::Public(Some(key_type)));
        }
        for (text, expected) in [
            ("", KeyContent::Empty),
            ("\n", KeyContent::Empty),
            ("root:x:0:0", KeyContent::NotAKey),
            ("-----BEGIN CERTIFICATE-----\nx", KeyContent::NotAKey),
            ("-----BEGIN PUBLIC KEY-----\nx", KeyContent::NotAKey),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nx", KeyContent::Private(None)),
            ("-----BEGIN DSA PRIVATE KEY-----\nx", KeyContent::Private(None)),
            ("-----BEGIN EC PRIVATE KEY-----\nx", KeyContent::Private(Some(KeyType::Ecdsa))),
            (
                "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----",
                KeyContent::Private(Some(KeyType::Ed25519)),
            ),
            ("ssh-dss AAAA", KeyContent::Public(None)),
            ("ssh-ed25519-cert-v01@openssh.com AAAA", KeyContent::Certificate),
        ] {
            assert_eq!(KeyContent::of(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(KeyContent::of(&[0xff, 0xfe]), KeyContent::NotAKey);
    }
}
