//! The source of the harness's decisions: a seed, or bytes that a fuzzer made up.

/// A stream of decisions. Both kinds spend the same bytes for the same decision, so that what a seed
/// decided can be given to a fuzzer to start from.
pub struct Choices<'a> {
    source: Source<'a>,
    spent: Option<Vec<u8>>,
}

enum Source<'a> {
    Seed(u64),
    /// Zeros follow the last byte.
    Bytes(&'a [u8]),
}

impl<'a> Choices<'a> {
    /// Decisions by splitmix64, the same for a seed on every machine.
    pub fn of_seed(seed: u64) -> Self {
        Self { source: Source::Seed(seed), spent: None }
    }

    /// Decisions as the bytes have them.
    pub fn of_bytes(bytes: &'a [u8]) -> Self {
        Self { source: Source::Bytes(bytes), spent: None }
    }

    /// The same, and [`Choices::spent`] gives the bytes that were used.
    pub fn recorded(mut self) -> Self {
        self.spent = Some(Vec::new());
        self
    }

    /// The bytes of all decisions since [`Choices::recorded`].
    pub fn spent(self) -> Vec<u8> {
        self.spent.unwrap_or_default()
    }

    /// A number of `width` bytes (1 to 8).
    pub fn number(&mut self, width: usize) -> u64 {
        let mut bytes = [0; 8];
        match &mut self.source {
            Source::Seed(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                let word = (z ^ (z >> 31)).to_le_bytes();
                bytes[..width].copy_from_slice(&word[..width]);
            }
            Source::Bytes(rest) => {
                let taken = width.min(rest.len());
                bytes[..taken].copy_from_slice(&rest[..taken]);
                *rest = &rest[taken..];
            }
        }
        if let Some(spent) = &mut self.spent {
            spent.extend_from_slice(&bytes[..width]);
        }
        u64::from_le_bytes(bytes)
    }

    /// A number below `limit`, which is at least 1.
    pub fn below(&mut self, limit: usize) -> usize {
        let width = match limit {
            0..=256 => 1,
            257..=65_536 => 2,
            _ => 4,
        };
        (self.number(width) % limit.max(1) as u64) as usize
    }
}
