//! SSH host keys: made offline, in OpenSSH's own format, by the crate `ssh-key`.

mod content;
mod line;
mod maker;
mod rsa;
mod servers;

use serde::{Deserialize, Serialize};
use snf_fs::text::is_hidden;
use ssh_key::private::{EcdsaKeypair, Ed25519Keypair, KeypairData};
use ssh_key::sec1::EncodedPoint;
use ssh_key::{HashAlg, LineEnding, PrivateKey};
use zeroize::Zeroizing;

use crate::craft::random::Entropy;
use crate::craft::secret::Secret;

pub use content::KeyContent;
pub use line::{BadKeyLine, check_line};
pub use maker::HostKeyMaker;
pub use servers::dropbear_kind;

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

/// A key could not be made. No input leads here, only a fault in the crates that make keys.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an SSH host key of type {}", .key_type.name())]
pub struct KeyError {
    /// The kind that it was to be.
    pub key_type: KeyType,
    /// Why.
    #[source]
    pub source: Refusal,
}

/// Why a key could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The key does not fit its file format.
    #[error(transparent)]
    Format(#[from] ssh_key::Error),
    /// The numbers do not make an RSA key.
    #[error(transparent)]
    Rsa(#[from] ::rsa::errors::Error),
    /// The search for primes cannot begin. (Its error is no [`std::error::Error`].)
    #[error("the search for primes: {0}")]
    Search(crypto_primes::Error),
    /// The search found no pair of primes.
    #[error("no suitable primes were found")]
    NoPrime,
}

impl From<crypto_primes::Error> for Refusal {
    fn from(error: crypto_primes::Error) -> Self {
        Self::Search(error)
    }
}

/// Makes a key. The comment is part of both files; hidden characters in it become `?`, and it is cut
/// after 1024 characters. A seeded stream gives the same key twice.
///
/// # Errors
/// [`KeyError`], which no input causes.
pub fn generate(
    key_type: KeyType,
    comment: &str,
    entropy: &mut Entropy,
) -> Result<KeyPair, KeyError> {
    make(key_type, comment, entropy).map_err(|source| KeyError { key_type, source })
}

fn make(key_type: KeyType, comment: &str, entropy: &mut Entropy) -> Result<KeyPair, Refusal> {
    let comment: String =
        comment.chars().map(|c| if is_hidden(c) { '?' } else { c }).take(1024).collect();
    let pair = match key_type {
        KeyType::Rsa => KeypairData::Rsa(rsa::generate(entropy)?),
        KeyType::Ecdsa => KeypairData::Ecdsa(ecdsa(entropy)),
        KeyType::Ed25519 => {
            let seed = Zeroizing::new(entropy.bytes::<32>());
            KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed))
        }
    };
    let key = PrivateKey::new(pair, comment)?;
    let mut public = key.public_key().to_openssh()?;
    public.push('\n');
    Ok(KeyPair {
        key_type,
        private: Secret::new(key.to_openssh(LineEnding::LF)?.as_bytes()),
        public,
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
    })
}

/// A key on P-256 with a uniform scalar: 32 random bytes, drawn again in the one case of 2^32 that
/// they are not below the order of the curve.
fn ecdsa(entropy: &mut Entropy) -> EcdsaKeypair {
    loop {
        let bytes = Zeroizing::new(entropy.bytes::<32>());
        if let Ok(secret) = p256::SecretKey::from_slice(&*bytes) {
            let public = EncodedPoint::from(secret.public_key());
            return EcdsaKeypair::NistP256 { public, private: secret.into() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_keys_twice() {
        for key_type in KeyType::ALL {
            let make = || generate(key_type, "root@vm", &mut Entropy::seeded(5)).unwrap();
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
        let mut make = |key_type| generate(key_type, "", &mut entropy).unwrap().fingerprint;
        for key_type in KeyType::ALL {
            assert_ne!(make(key_type), make(key_type));
        }
    }

    #[test]
    fn a_comment_cannot_add_a_line() {
        let key = generate(KeyType::Ed25519, "a\nssh-rsa b", &mut Entropy::seeded(1)).unwrap();
        assert_eq!(key.public.lines().count(), 1);
    }
}
