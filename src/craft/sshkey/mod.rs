//! SSH host keys: made offline, in OpenSSH's own format.

mod maker;
mod rsa;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::SigningKey;
use p256::elliptic_curve::sec1::ToSec1Point;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::craft::random::Entropy;
use crate::craft::secret::Secret;
use wire::Writer;

pub use maker::HostKeyMaker;

/// A kind of SSH key that we make. (DSA keys are removed, never made: OpenSSH 7 and later do not
/// take them.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyType {
    /// RSA of 3072 bits.
    Rsa,
    /// ECDSA on the curve P-256.
    Ecdsa,
    /// Ed25519.
    Ed25519,
}

/// The facts about a kind of key.
struct Facts {
    name: &'static str,
    label: &'static str,
    algorithm: &'static str,
    file: &'static str,
    bits: u32,
}

impl KeyType {
    /// Every kind, in the order in which `ssh-keygen -A` makes them.
    pub const ALL: [Self; 3] = [Self::Rsa, Self::Ecdsa, Self::Ed25519];

    fn facts(self) -> Facts {
        match self {
            Self::Rsa => Facts {
                name: "rsa",
                label: "RSA",
                algorithm: "ssh-rsa",
                file: "ssh_host_rsa_key",
                bits: 3072,
            },
            Self::Ecdsa => Facts {
                name: "ecdsa",
                label: "ECDSA",
                algorithm: "ecdsa-sha2-nistp256",
                file: "ssh_host_ecdsa_key",
                bits: 256,
            },
            Self::Ed25519 => Facts {
                name: "ed25519",
                label: "ED25519",
                algorithm: "ssh-ed25519",
                file: "ssh_host_ed25519_key",
                bits: 256,
            },
        }
    }

    /// The name that `ssh-keygen -t` takes.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The name that `ssh-keygen -l` prints.
    pub fn label(self) -> &'static str {
        self.facts().label
    }

    /// The name of the algorithm in a public key line.
    pub fn algorithm(self) -> &'static str {
        self.facts().algorithm
    }

    /// The file of the private key in `/etc/ssh`; the public one ends with `.pub`.
    pub fn host_key_file(self) -> &'static str {
        self.facts().file
    }

    /// The size that `ssh-keygen -l` prints.
    pub fn bits(self) -> u32 {
        self.facts().bits
    }
}

/// A fresh key pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// Its kind.
    pub key_type: KeyType,
    /// The private key as OpenSSH writes it (`-----BEGIN OPENSSH PRIVATE KEY-----`), not
    /// encrypted, with a newline at the end.
    pub private: Secret,
    /// The line of the public key, with its comment and a newline.
    pub public: String,
    /// The fingerprint, `SHA256:…`.
    pub fingerprint: String,
}

/// Makes a key. The comment is part of both files; control characters in it become `?`.
pub fn generate(key_type: KeyType, comment: &str, entropy: &mut Entropy) -> KeyPair {
    let comment: String =
        comment.chars().map(|c| if c.is_control() { '?' } else { c }).take(1024).collect();
    // The two check numbers are equal when the key was decrypted well; nothing is encrypted here.
    let check: [u8; 4] = entropy.bytes();
    let mut public = Writer::default();
    let mut private = Writer::default();
    private.raw(&check);
    private.raw(&check);
    public.string(key_type.algorithm().as_bytes());
    private.string(key_type.algorithm().as_bytes());
    match key_type {
        KeyType::Rsa => {
            let key = rsa::generate(entropy);
            public.mpint(&key.e);
            public.mpint(&key.n);
            for number in [&key.n[..], &key.e, &key.d, &key.iqmp, &key.p, &key.q] {
                private.mpint(number);
            }
        }
        KeyType::Ecdsa => {
            let secret = p256_secret(entropy);
            let point = secret.public_key().to_sec1_point(false);
            for out in [&mut public, &mut private] {
                out.string(b"nistp256");
                out.string(point.as_bytes());
            }
            private.mpint(&Zeroizing::new(secret.to_bytes()));
        }
        KeyType::Ed25519 => {
            let seed = Zeroizing::new(entropy.bytes::<32>());
            let key = SigningKey::from_bytes(&seed);
            let point = key.verifying_key().to_bytes();
            public.string(&point);
            private.string(&point);
            private.string(&*Zeroizing::new(key.to_keypair_bytes()));
        }
    }
    private.string(comment.as_bytes());
    private.pad(8);

    let mut file = Writer::default();
    file.raw(b"openssh-key-v1\0");
    file.string(b"none");
    file.string(b"none");
    file.string(b"");
    file.raw(&1u32.to_be_bytes());
    file.string(public.bytes());
    file.string(private.bytes());

    KeyPair {
        key_type,
        private: Secret::new(wire::pem(file.bytes()).as_bytes()),
        public: format!("{} {} {comment}\n", key_type.algorithm(), STANDARD.encode(public.bytes())),
        fingerprint: format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(public.bytes()))),
    }
}

/// A uniform scalar: 32 random bytes, drawn again in the one case of 2^32 that they are not below
/// the order of the curve.
fn p256_secret(entropy: &mut Entropy) -> p256::SecretKey {
    loop {
        let bytes = Zeroizing::new(entropy.bytes::<32>());
        if let Ok(secret) = p256::SecretKey::from_slice(&*bytes) {
            return secret;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_keys_twice() {
        for key_type in KeyType::ALL {
            let make = || generate(key_type, "root@vm", &mut Entropy::seeded(5));
            let (a, b) = (make(), make());
            assert_eq!(a.private, b.private);
            assert_eq!(a.public, b.public);
            assert_eq!(a.fingerprint, b.fingerprint);
            assert!(a.public.starts_with(key_type.algorithm()));
            assert!(a.public.ends_with(" root@vm\n"));
        }
    }

    #[test]
    fn two_keys_of_one_stream_differ() {
        let mut entropy = Entropy::seeded(5);
        let mut make = |key_type| generate(key_type, "", &mut entropy).fingerprint;
        for key_type in KeyType::ALL {
            assert_ne!(make(key_type), make(key_type));
        }
    }

    #[test]
    fn a_comment_cannot_add_a_line() {
        let key = generate(KeyType::Ed25519, "a\nssh-rsa b", &mut Entropy::seeded(1));
        assert_eq!(key.public.lines().count(), 1);
    }
}
