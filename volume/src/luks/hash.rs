//! Hash functions by their names in headers.

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::Refusal;

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(crate) fn parse(name: &str) -> Result<Self, Refusal> {
        match name {
            "sha1" => Ok(Self::Sha1),
            "sha256" => Ok(Self::Sha256),
            "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            other => Err(Refusal::Hash(super::printable(other))),
        }
    }

    /// Bytes of a digest.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of the chunks as if they were one piece, into the first [`Hash::length`] bytes.
    pub(crate) fn digest(self, chunks: &[&[u8]]) -> [u8; 64] {
        fn of<D: Digest>(chunks: &[&[u8]]) -> [u8; 64] {
            let mut hash = D::new();
            chunks.iter().for_each(|chunk| hash.update(chunk));
            let digest = hash.finalize();
            let mut out = [0; 64];
            out.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
            out
        }
        match self {
            Self::Sha1 => of::<Sha1>(chunks),
            Self::Sha256 => of::<Sha256>(chunks),
            Self::Sha384 => of::<Sha384>(chunks),
            Self::Sha512 => of::<Sha512>(chunks),
        }
    }

    /// PBKDF2 with HMAC of this hash.
    pub(crate) fn pbkdf2(self, secret: &[u8], salt: &[u8], rounds: u32, out: &mut [u8]) {
        match self {
            Self::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(secret, salt, rounds, out),
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(secret, salt, rounds, out),
            Self::Sha384 => pbkdf2::pbkdf2_hmac::<Sha384>(secret, salt, rounds, out),
            Self::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(secret, salt, rounds, out),
        }
    }
}
