//! RSA keys of 3072 bits: two primes of 1536 bits, each found in a thread of its own.
//!
//! The crate `rsa` looks for its primes one after the other; the same search of `crypto-primes` in two
//! threads, with numbers of a fixed size, takes half the time. All else of the key is made and checked
//! by `rsa`.

use crypto_bigint::{BoxedUint, U1536};
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use ssh_key::private::RsaKeypair;
use zeroize::{Zeroize, Zeroizing};

use super::Refusal;
use crate::craft::random::Entropy;

/// The public exponent.
const E: u64 = 65_537;

/// Bits of each prime.
const PRIME_BITS: u32 = 1536;

/// FIPS 186-5, A.1.3: the primes differ by more than this many bits can hold.
const CLOSE_BITS: u32 = PRIME_BITS - 100;

/// Pairs of primes that are tried: one in 2^98 is too close, one in 30,000 does not suit [`E`].
const TRIES: u32 = 16;

/// Makes a key.
pub(super) fn generate(entropy: &mut Entropy) -> Result<RsaKeypair, Refusal> {
    let mut refused = Refusal::NoPrime;
    for _ in 0..TRIES {
        let (mut for_p, mut for_q) = (entropy.fork(), entropy.fork());
        let (p, q) = std::thread::scope(|scope| {
            let other = std::thread::Builder::new().spawn_scoped(scope, || prime(&mut for_p));
            let q = prime(&mut for_q);
            (other.ok().and_then(|thread| thread.join().ok()), q)
        });
        // Without a second thread, do its work here: the same stream gives the same number.
        let p = Zeroizing::new(p.unwrap_or_else(|| prime(&mut for_p))?);
        let q = Zeroizing::new(q?);
        match assemble(&p, &q) {
            Ok(key) => return Ok(key),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// The key of two primes.
fn assemble(p: &U1536, q: &U1536) -> Result<RsaKeypair, Refusal> {
    let (large, small) = if p > q { (p, q) } else { (q, p) };
    let mut distance = large.wrapping_sub(small);
    let close = distance.bit_width_vartime() <= CLOSE_BITS;
    distance.zeroize();
    if close {
        return Err(Refusal::NoPrime);
    }
    let key = rsa::PrivateKey::from_p_q(large.into(), small.into(), BoxedUint::from(E))?;
    Ok(RsaKeypair::try_from(&key)?)
}

/// A prime with its two highest bits set, so that the product of two has all its bits.
fn prime(entropy: &mut Entropy) -> Result<U1536, Refusal> {
    let factory = SmallFactorsSieveFactory::new(Flavor::Any, PRIME_BITS, SetBits::TwoMsb)?;
    let found = sieve_and_find(entropy.rng(), factory, |_, n: &U1536| is_prime(Flavor::Any, n))?;
    found.ok_or(Refusal::NoPrime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_that_are_close_are_refused() {
        let mut entropy = Entropy::seeded(3);
        let p = prime(&mut entropy).unwrap();
        assert!(p.bit_vartime(PRIME_BITS - 1) && p.bit_vartime(PRIME_BITS - 2));
        let next = p.wrapping_add(&U1536::from_u32(2));
        assert!(matches!(assemble(&p, &next), Err(Refusal::NoPrime)));
        assert!(matches!(assemble(&next, &p), Err(Refusal::NoPrime)));
    }
}
