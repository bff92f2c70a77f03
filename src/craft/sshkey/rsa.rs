//! RSA keys of 3072 bits: two primes of 1536 bits, each looked for in a thread of its own.
//!
//! The search starts at a random number and walks up over the odd numbers that no small prime
//! divides, as OpenSSL's does. Its time depends on the secret, as that of every prime search
//! does; nobody but this process sees it.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{NonZero, Odd, U1536, U3072};
use zeroize::{Zeroize, Zeroizing};

use crate::craft::random::Entropy;

/// The public exponent.
const E: u32 = 65_537;

/// Small primes to sieve with are below this.
const SIEVE_LIMIT: u32 = 1 << 16;

/// How many odd numbers one sieve looks at: fifteen times the mean distance of primes of this
/// size; a start with none after it is given up for another.
const WINDOW: u32 = 8192;

/// Rounds of Miller and Rabin's test with random bases: FIPS 186-5, table B.1, asks for 4 at this
/// size for an error below 2^-128.
const ROUNDS: usize = 5;

/// The numbers of a key, big-endian.
pub(super) struct RsaKey {
    pub(super) n: Vec<u8>,
    pub(super) e: [u8; 4],
    pub(super) d: Zeroizing<Vec<u8>>,
    pub(super) iqmp: Zeroizing<Vec<u8>>,
    pub(super) p: Zeroizing<Vec<u8>>,
    pub(super) q: Zeroizing<Vec<u8>>,
}

/// Makes a key.
pub(super) fn generate(entropy: &mut Entropy) -> RsaKey {
    let small = small_primes();
    loop {
        let (mut for_p, mut for_q) = (entropy.fork(), entropy.fork());
        let (p, q) = std::thread::scope(|scope| {
            let other =
                std::thread::Builder::new().spawn_scoped(scope, || prime(&mut for_p, &small));
            let q = prime(&mut for_q, &small);
            (other.ok().and_then(|thread| thread.join().ok()), q)
        });
        // Without a second thread, do its work here: the same stream gives the same number.
        let p = p.unwrap_or_else(|| prime(&mut for_p, &small));
        if let Some(key) = assemble(p, q) {
            return key;
        }
    }
}

/// The key of two primes, or `None` in the practically impossible case that they do not suit each
/// other.
fn assemble(mut p: U1536, mut q: U1536) -> Option<RsaKey> {
    if p < q {
        std::mem::swap(&mut p, &mut q);
    }
    // FIPS 186-5, A.1.3: the primes must not be close to each other.
    if p.wrapping_sub(&q).bits_vartime() <= 1536 - 100 {
        return None;
    }
    let (mut p1, mut q1) = (p.wrapping_sub(&U1536::ONE), q.wrapping_sub(&U1536::ONE));
    let n: U3072 = p.concatenating_mul(&q);
    let gcd = NonZero::new(p1.gcd_vartime(&q1).resize::<{ U3072::LIMBS }>()).into_option()?;
    let product: U3072 = p1.concatenating_mul(&q1);
    let mut lambda = product.div_rem_vartime(&gcd).0;
    let mut d = U3072::from_u32(E)
        .invert_mod(&NonZero::new(lambda).into_option()?)
        .into_option()
        .filter(|d| d.bits_vartime() > 1536)?;
    let mut iqmp = q.invert_odd_mod(&Odd::new(p).into_option()?).into_option()?;
    let key = RsaKey {
        n: n.to_be_bytes().as_ref().to_vec(),
        e: E.to_be_bytes(),
        d: Zeroizing::new(d.to_be_bytes().as_ref().to_vec()),
        iqmp: Zeroizing::new(iqmp.to_be_bytes().as_ref().to_vec()),
        p: Zeroizing::new(p.to_be_bytes().as_ref().to_vec()),
        q: Zeroizing::new(q.to_be_bytes().as_ref().to_vec()),
    };
    for number in [&mut p, &mut q, &mut p1, &mut q1, &mut iqmp] {
        number.zeroize();
    }
    lambda.zeroize();
    d.zeroize();
    Some(key)
}

/// A random prime of 1536 bits whose two highest bits are set (so that the product of two has
/// 3072), and that is not 1 modulo the public exponent.
fn prime(entropy: &mut Entropy, small: &[u32]) -> U1536 {
    loop {
        let mut bytes = Zeroizing::new(entropy.bytes::<192>());
        bytes[0] |= 0xc0;
        bytes[191] |= 1;
        let start = U1536::from_be_slice(&*bytes);
        let composite = sieve(&bytes, small);
        for step in (0..WINDOW).zip(&composite).filter(|(_, composite)| !**composite) {
            let candidate = start.wrapping_add(&U1536::from_u32(2 * step.0));
            if candidate < start {
                // Ran over the top.
                break;
            }
            if is_prime(&candidate, entropy) {
                return candidate;
            }
        }
    }
}

/// Marks each of the odd numbers from a start (big-endian) that a small prime divides, or that is
/// 1 modulo the public exponent (a prime too).
fn sieve(start: &[u8; 192], small: &[u32]) -> Vec<bool> {
    let mut composite = vec![false; WINDOW as usize];
    let mut mark = |modulus: u32, unwanted: u32| {
        // start + 2 * step = unwanted, for step, modulo an odd number.
        let distance = (modulus + unwanted - residue(start, modulus)) % modulus;
        let half = u64::from(modulus).div_ceil(2);
        let first = u64::from(distance) * half % u64::from(modulus);
        for hit in composite.iter_mut().skip(first as usize).step_by(modulus as usize) {
            *hit = true;
        }
    };
    for &modulus in small {
        mark(modulus, 0);
    }
    mark(E, 1);
    composite
}

/// A big-endian number modulo a small one.
fn residue(number: &[u8; 192], modulus: u32) -> u32 {
    let modulus = u64::from(modulus);
    let (words, _) = number.as_chunks::<4>();
    let rest = words
        .iter()
        .fold(0u64, |rest, word| (rest << 32 | u64::from(u32::from_be_bytes(*word))) % modulus);
    rest as u32
}

/// The odd primes below [`SIEVE_LIMIT`].
fn small_primes() -> Vec<u32> {
    let mut composite = vec![false; SIEVE_LIMIT as usize];
    let mut primes = Vec::with_capacity(6541);
    for number in (3..SIEVE_LIMIT).step_by(2) {
        if !composite[number as usize] {
            primes.push(number);
            for multiple in
                composite.iter_mut().skip((number * 3) as usize).step_by(number as usize)
            {
                *multiple = true;
            }
        }
    }
    primes
}

/// Fermat's test with base 2, which nearly every composite number fails, then Miller and Rabin's.
fn is_prime(candidate: &U1536, entropy: &mut Entropy) -> bool {
    let Some(odd) = Odd::new(*candidate).into_option() else { return false };
    let params = FixedMontyParams::new_vartime(odd);
    if !fermat_base_2(candidate, &params) {
        return false;
    }
    // The bases come from a stream of their own: how many candidates were looked at does not
    // change what follows.
    let mut bases = entropy.derive("miller-rabin");
    (0..ROUNDS).all(|_| miller_rabin(candidate, &params, &mut bases))
}

type Params = FixedMontyParams<{ U1536::LIMBS }>;

/// Whether 2^(m-1) = 1 modulo m. Doubling takes the place of multiplying by the base.
fn fermat_base_2(m: &U1536, params: &Params) -> bool {
    let one = FixedMontyForm::one(params);
    let mut power = one.double();
    // m is odd, so m-1 is m without its lowest bit.
    for bit in (0..m.bits_vartime() - 1).rev() {
        power = power.square();
        if bit > 0 && m.bit_vartime(bit) {
            power = power.double();
        }
    }
    power == one
}

fn miller_rabin(m: &U1536, params: &Params, entropy: &mut Entropy) -> bool {
    let one = FixedMontyForm::one(params);
    let minus_one = one.neg();
    let m1 = m.wrapping_sub(&U1536::ONE);
    let twos = m1.trailing_zeros_vartime();
    let odd_part = m1.shr_vartime(twos);
    let base = loop {
        // Any base from 2 to m-2; m has its two highest bits set.
        let base = U1536::from_be_slice(&entropy.bytes::<192>());
        if base > U1536::ONE && base < m1 {
            break FixedMontyForm::new(&base, params);
        }
    };
    let mut power = base.pow_vartime(&odd_part);
    if power == one || power == minus_one {
        return true;
    }
    for _ in 1..twos {
        power = power.square();
        if power == minus_one {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_primes_are_all_there() {
        let primes = small_primes();
        assert_eq!(primes.len(), 6541);
        assert_eq!(primes[..5], [3, 5, 7, 11, 13]);
        assert_eq!(primes.last(), Some(&65521));
    }

    #[test]
    fn residues() {
        let mut number = [0; 192];
        number[184..].copy_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(residue(&number, 65521), (u64::MAX % 65521) as u32);
    }

    #[test]
    fn the_sieve_marks_exactly_the_multiples() {
        let start: [u8; 192] = {
            let mut bytes = Entropy::seeded(9).bytes();
            bytes[191] |= 1;
            bytes
        };
        let composite = sieve(&start, &[3, 5, 7]);
        for (step, &marked) in composite.iter().enumerate() {
            let divides =
                |m: u32| (u64::from(residue(&start, m)) + 2 * step as u64).is_multiple_of(m.into());
            let unwanted = (u64::from(residue(&start, E)) + 2 * step as u64) % u64::from(E) == 1;
            assert_eq!(marked, divides(3) || divides(5) || divides(7) || unwanted, "step {step}");
        }
    }

    #[test]
    fn primes_and_pseudoprimes() {
        let mut entropy = Entropy::seeded(1);
        // 2^1279 - 1 is prime; 2^1277 - 1 is not; a strong pseudoprime to base 2 is found out.
        let mersenne = |bits| U1536::ONE.shl_vartime(bits).wrapping_sub(&U1536::ONE);
        // The bases are drawn from 1536 bits, so small numbers are tested by Fermat's alone.
        let fermat = |number: U1536| {
            fermat_base_2(&number, &Params::new_vartime(Odd::new(number).into_option().unwrap()))
        };
        assert!(fermat(mersenne(1279)));
        assert!(!fermat(U1536::from_u32(15)));
        assert!(fermat(U1536::from_u32(2047)));
        let prime = prime(&mut entropy, &small_primes());
        assert!(is_prime(&prime, &mut entropy));
        assert!(!is_prime(&prime.wrapping_add(&U1536::from_u32(30)), &mut entropy));
    }
}
