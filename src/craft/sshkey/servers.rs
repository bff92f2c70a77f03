//! Private keys in the formats of other SSH servers: dropbear's and tinyssh's.

use ssh_key::PrivateKey;
use ssh_key::private::{EcdsaKeypair, KeypairData};
use zeroize::Zeroizing;

use super::{KeyError, KeyPair, KeyType};
use crate::craft::secret::Secret;

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // No number of a key has more than some hundred bytes.
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

impl KeyPair {
    fn parsed(&self) -> Result<PrivateKey, KeyError> {
        PrivateKey::from_openssh(self.private.expose())
            .map_err(|error| KeyError { key_type: self.key_type, source: error.into() })
    }

    /// The private key as dropbear keeps it: strings and numbers of the SSH protocol (RFC 4251),
    /// the public part first.
    ///
    /// # Errors
    /// When the key does not fit, which no input causes.
    pub fn dropbear(&self) -> Result<Secret, KeyError> {
        let key = self.parsed()?;
        let mut out = Zeroizing::new(Vec::with_capacity(2048));
        put(&mut out, self.key_type.algorithm().as_bytes());
        match key.key_data() {
            KeypairData::Rsa(pair) => {
                let (public, private) = (pair.public(), pair.private());
                for number in [public.e(), public.n(), private.d(), private.p(), private.q()] {
                    put(&mut out, number.as_bytes());
                }
            }
            KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private }) => {
                put(&mut out, b"nistp256");
                put(&mut out, public.as_bytes());
                // A number: a high bit must not make it negative.
                let number = Zeroizing::new(private.as_slice().to_vec());
                let zeros = number.iter().take_while(|byte| **byte == 0).count();
                let mut number = Zeroizing::new(number[zeros..].to_vec());
                if number.first().is_some_and(|byte| byte & 0x80 != 0) {
                    number.insert(0, 0);
                }
                put(&mut out, &number);
            }
            KeypairData::Ed25519(pair) => put(&mut out, &*Zeroizing::new(pair.to_bytes())),
            _ => {
                let source = ssh_key::Error::AlgorithmUnknown.into();
                return Err(KeyError { key_type: self.key_type, source });
            }
        }
        Ok(Secret::new(out.to_vec()))
    }

    /// An Ed25519 key as tinyssh keeps it: the public file and the secret one, raw bytes; `None` for
    /// another kind.
    ///
    /// # Errors
    /// As [`KeyPair::dropbear`].
    pub fn tinyssh(&self) -> Result<Option<([u8; 32], Secret)>, KeyError> {
        let key = self.parsed()?;
        Ok(match key.key_data() {
            KeypairData::Ed25519(pair) => {
                Some((pair.public.0, Secret::new(Zeroizing::new(pair.to_bytes()).to_vec())))
            }
            _ => None,
        })
    }
}

/// The kind of a key of dropbear: its file begins with the name of the algorithm.
pub fn dropbear_kind(content: &[u8]) -> Option<KeyType> {
    let length = usize::try_from(u32::from_be_bytes(*content.first_chunk()?)).ok()?;
    let name = content.get(4..4usize.checked_add(length)?)?;
    if name.starts_with(b"ecdsa-sha2-") {
        return Some(KeyType::Ecdsa);
    }
    KeyType::ALL.into_iter().find(|key_type| key_type.algorithm().as_bytes() == name)
}
