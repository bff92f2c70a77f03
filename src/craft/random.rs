//! The one place where chance and time come in, so that `--seed` and `SOURCE_DATE_EPOCH` give the
//! same bytes twice.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snf_fs::Timestamp;
use zeroize::Zeroizing;

/// A cryptographic stream of random bytes: ChaCha20 keyed by the operating system, or by a number
/// that the person gave, for runs that must be repeatable.
pub struct Entropy {
    rng: ChaCha20Rng,
    key: Zeroizing<[u8; 32]>,
    seeded: bool,
}

impl Entropy {
    /// Keyed by 32 bytes of the operating system's randomness; waits until the system has it,
    /// which in a young virtual machine can take a moment.
    pub fn from_os() -> io::Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        let mut filled = 0;
        while filled < key.len() {
            let rest = key.get_mut(filled..).unwrap_or_default();
            match rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => filled += n,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Self::keyed(key, false))
    }

    /// A repeatable stream: the same number gives the same bytes. Not for secrets that matter.
    pub fn seeded(seed: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"snf-image seed\0");
        hash.update(seed.to_le_bytes());
        Self::keyed(Zeroizing::new(hash.finalize().into()), true)
    }

    /// A stream of its own for one purpose, independent of how much was read from this one: so a
    /// task added between two others does not change what those draw, and threads can draw at
    /// once. The same label gives the same stream.
    pub fn derive(&self, label: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"snf-image derive\0");
        hash.update(*self.key);
        hash.update(label);
        Self::keyed(Zeroizing::new(hash.finalize().into()), self.seeded)
    }

    /// A stream of its own, keyed by what this one gives next: each call gives another.
    pub fn fork(&mut self) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        self.fill(&mut *key);
        Self::keyed(key, self.seeded)
    }

    /// Fills `buf`.
    pub fn fill(&mut self, buf: &mut [u8]) {
        self.rng.fill_bytes(buf);
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A number below `bound` (or 0 when that is 0), each equally likely.
    pub fn below(&mut self, bound: u32) -> u32 {
        if bound == 0 {
            return 0;
        }
        // The largest multiple of `bound` that fits: above it, draw again.
        let limit = u32::MAX - u32::MAX % bound;
        loop {
            let drawn = u32::from_le_bytes(self.bytes());
            if drawn < limit {
                return drawn % bound;
            }
        }
    }

    /// `length` characters of `alphabet` (ASCII), each equally likely.
    pub fn text(&mut self, alphabet: &[u8], length: usize) -> Zeroizing<String> {
        let count = u32::try_from(alphabet.len()).unwrap_or(u32::MAX);
        let mut text = Zeroizing::new(String::with_capacity(length));
        for _ in 0..length {
            let index = self.below(count) as usize;
            text.extend(alphabet.get(index).map(|&byte| char::from(byte)));
        }
        text
    }

    /// The generator itself, for crates that draw by its traits.
    pub(crate) fn rng(&mut self) -> &mut ChaCha20Rng {
        &mut self.rng
    }

    fn keyed(key: Zeroizing<[u8; 32]>, seeded: bool) -> Self {
        Self { rng: ChaCha20Rng::from_seed(*key), key, seeded }
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entropy(seeded: {})", self.seeded)
    }
}

/// The time, real or fixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Clock {
    fixed: Option<i64>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self { fixed: None }
    }

    /// A clock that stands still at `seconds` since 1970.
    pub fn fixed(seconds: i64) -> Self {
        Self { fixed: Some(seconds) }
    }

    /// A clock that stands at `source_date_epoch` (the value of the environment variable
    /// `SOURCE_DATE_EPOCH`) where that is given, the system's otherwise.
    pub fn from_source_date_epoch(source_date_epoch: Option<&str>) -> Result<Self, ClockError> {
        match source_date_epoch {
            None | Some("") => Ok(Self::system()),
            Some(text) => match text.parse::<i64>() {
                Ok(seconds) if (0..=MAX_SECONDS).contains(&seconds) => Ok(Self::fixed(seconds)),
                _ => Err(ClockError(text.chars().take(40).collect())),
            },
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        if let Some(seconds) = self.fixed {
            return Timestamp { seconds, nanoseconds: 0 };
        }
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Timestamp {
                seconds: i64::try_from(since.as_secs()).unwrap_or(MAX_SECONDS),
                nanoseconds: since.subsec_nanos(),
            },
            // A machine whose clock was never set.
            Err(_) => Timestamp::default(),
        }
    }

    /// Days since 1970, as the last-change field of `/etc/shadow` counts them.
    pub fn days(&self) -> i64 {
        self.now().seconds.div_euclid(86_400)
    }
}

/// The last second that ext4's time stamps can hold (the year 2446).
const MAX_SECONDS: i64 = 0x3_7fff_ffff;

/// `SOURCE_DATE_EPOCH` is not a time.
#[derive(Debug, thiserror::Error)]
#[error(
    "SOURCE_DATE_EPOCH is '{0}', which is not a number of seconds since 1970; unset it or set a number"
)]
pub struct ClockError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_bytes_twice() {
        let (mut a, mut b) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!(a.bytes::<100>(), b.bytes::<100>());
        assert_ne!(a.bytes::<32>(), Entropy::seeded(8).bytes::<32>());
    }

    #[test]
    fn derived_streams_do_not_depend_on_what_was_drawn() {
        let mut a = Entropy::seeded(7);
        let before = a.derive("x").bytes::<32>();
        a.bytes::<1000>();
        assert_eq!(a.derive("x").bytes::<32>(), before);
        assert_ne!(a.derive("y").bytes::<32>(), before);
    }

    #[test]
    fn the_operating_system_gives_different_streams() {
        let (mut a, mut b) = (Entropy::from_os().unwrap(), Entropy::from_os().unwrap());
        assert_ne!(a.bytes::<32>(), b.bytes::<32>());
    }

    #[test]
    fn below_covers_its_range() {
        let mut entropy = Entropy::seeded(1);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[entropy.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
        assert_eq!(entropy.below(0), 0);
        assert_eq!(entropy.below(1), 0);
        assert_eq!(entropy.text(b"a", 5).as_str(), "aaaaa");
        assert_eq!(entropy.text(b"", 5).as_str(), "");
    }

    #[test]
    fn clocks() {
        let clock = Clock::from_source_date_epoch(Some("1700000000")).unwrap();
        assert_eq!(clock.now().seconds, 1_700_000_000);
        assert_eq!(clock.days(), 19675);
        assert!(Clock::from_source_date_epoch(Some("yesterday")).is_err());
        assert!(Clock::from_source_date_epoch(Some("-5")).is_err());
        assert!(Clock::from_source_date_epoch(None).unwrap().days() > 19675);
    }
}
