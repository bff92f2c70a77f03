//! Times of NTFS: 64 bits that count tenths of microseconds since 1601-01-01 00:00 UTC.

use crate::filesystem::Timestamp;
use crate::num::to_u32;

/// Tenths of microseconds in a second.
const TICKS: i128 = 10_000_000;
/// Seconds from 1601 to 1970.
const EPOCH: i128 = 11_644_473_600;

/// A time of NTFS as seconds since 1970.
pub fn from_filetime(time: u64) -> Timestamp {
    let ticks = i128::from(time) - EPOCH * TICKS;
    Timestamp {
        // 2^64 tenths of microseconds are less than 2^41 seconds.
        seconds: i64::try_from(ticks.div_euclid(TICKS)).unwrap_or(i64::MAX),
        nanoseconds: to_u32(ticks.rem_euclid(TICKS)) * 100,
    }
}

/// A time as NTFS has it; what it cannot hold becomes the nearest that it can.
pub fn to_filetime(time: Timestamp) -> u64 {
    let ticks = (i128::from(time.seconds) + EPOCH) * TICKS + i128::from(time.nanoseconds / 100);
    // Windows takes times with the highest bit set for none.
    u64::try_from(ticks.clamp(0, i128::from(i64::MAX))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        // 2009-07-25 23:00:00 UTC, from the documentation of FILETIME's converters.
        assert_eq!(from_filetime(0x01ca_0d7b_d5b3_b000).seconds / 86_400, 14_450);
        for (seconds, nanoseconds) in
            [(0, 0), (1_700_000_000, 123_456_700), (-11_644_473_600, 100), (-1, 999_999_900)]
        {
            let time = Timestamp { seconds, nanoseconds };
            assert_eq!(from_filetime(to_filetime(time)), time);
        }
        assert_eq!(to_filetime(Timestamp { seconds: i64::MIN, nanoseconds: 0 }), 0);
        assert_eq!(to_filetime(Timestamp { seconds: i64::MAX, nanoseconds: 0 }), i64::MAX as u64);
        assert_eq!(to_filetime(Timestamp::default()), 116_444_736_000_000_000);
        assert!(from_filetime(u64::MAX).seconds > 1 << 40);
    }
}
