//! From a passphrase to the key of a key slot.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use super::hash::Hash;
use crate::{Error, Refusal, Result};

/// The work that a header may ask of this machine. The header of an image is not trusted: it could ask
/// for all memory and for years of computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// KiB of memory for Argon2. cryptsetup never asks for more than 1 GiB unless told to.
    pub argon2_memory: u32,
    /// Passes of Argon2 over its memory, times its memory in KiB.
    pub argon2_work: u64,
    /// Rounds of PBKDF2.
    pub pbkdf2_rounds: u32,
}

impl Default for Limits {
    /// 1 GiB of memory, 64 GiB of work (a minute or so), 100 million rounds (the same).
    fn default() -> Self {
        Self { argon2_memory: 1 << 20, argon2_work: 64 << 20, pbkdf2_rounds: 100_000_000 }
    }
}

/// A function that is slow on purpose, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kdf {
    Pbkdf2 { hash: Hash, rounds: u32, salt: Vec<u8> },
    Argon2 { id: bool, time: u32, memory: u32, lanes: u32, salt: Vec<u8> },
}

/// Most lanes of Argon2; cryptsetup uses four at most.
const MAX_LANES: u32 = 64;

impl Kdf {
    /// Fills `out` with the key.
    pub(crate) fn derive(&self, secret: &[u8], limits: &Limits, out: &mut [u8]) -> Result<()> {
        let refused = |refusal| Err(Error::refused("the key slot", refusal));
        match self {
            Self::Pbkdf2 { hash, rounds, salt } => {
                if *rounds == 0 || *rounds > limits.pbkdf2_rounds {
                    return refused(Refusal::Cost(format!("{rounds} rounds of PBKDF2")));
                }
                hash.pbkdf2(secret, salt, *rounds, out);
                Ok(())
            }
            Self::Argon2 { id, time, memory, lanes, salt } => {
                let work = u64::from(*memory) * u64::from(*time);
                if *memory > limits.argon2_memory || work > limits.argon2_work {
                    let cost = format!("{time} passes of Argon2 over {memory} KiB");
                    return refused(Refusal::Cost(cost));
                }
                if *lanes > MAX_LANES {
                    return refused(Refusal::Cost(format!("{lanes} lanes of Argon2")));
                }
                argon2(secret, salt, *id, (*time, *memory, *lanes), out)
            }
        }
    }
}

fn argon2(
    secret: &[u8],
    salt: &[u8],
    id: bool,
    (time, memory, lanes): (u32, u32, u32),
    out: &mut [u8],
) -> Result<()> {
    let params = Params::new(memory, time, lanes, Some(out.len()))?;
    let mut blocks: Vec<Block> = Vec::new();
    // A failed reservation is an error here, and not the end of the process.
    if blocks.try_reserve_exact(params.block_count()).is_err() {
        let cost = format!("{memory} KiB of memory, which this machine does not give");
        return Err(Error::refused("the key slot", Refusal::Cost(cost)));
    }
    blocks.resize(params.block_count(), Block::new());
    let algorithm = if id { Algorithm::Argon2id } else { Algorithm::Argon2i };
    let argon2 = Argon2::new(algorithm, Version::V0x13, params);
    let result = argon2.hash_password_into_with_memory(secret, salt, out, &mut blocks[..]);
    blocks.iter_mut().for_each(Zeroize::zeroize);
    Ok(result?)
}

/// A key that is wiped when it is dropped.
pub(crate) type Key = Zeroizing<Vec<u8>>;

/// A key of `length` zeros, to be filled.
pub(crate) fn empty_key(length: usize) -> Key {
    Zeroizing::new(vec![0; length])
}
