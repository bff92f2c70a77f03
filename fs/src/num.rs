//! Conversions between widths of numbers, so that no `as` hides which ones can lose something.
//!
//! A number of an image is checked where it is read. These conversions are for numbers whose bound is
//! known: they never wrap. One beyond the wanted type becomes the largest that there is, which no
//! range, index or size accepts.

/// A count or offset in memory as 64 bits. No platform of Rust has larger addresses.
#[allow(clippy::as_conversions)]
pub(crate) const fn to_u64(number: usize) -> u64 {
    const { assert!(usize::BITS <= u64::BITS) };
    // The line above proves that nothing is lost.
    number as u64
}

/// An index or length in memory.
pub(crate) fn to_usize(number: impl Into<u64>) -> usize {
    usize::try_from(number.into()).unwrap_or(usize::MAX)
}

/// A signed number that is known to fit.
pub(crate) fn to_i64(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// 32 bits of a number that is known to fit.
pub(crate) fn to_u32(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

/// 16 bits of a number that is known to fit.
pub(crate) fn to_u16(number: impl TryInto<u16>) -> u16 {
    number.try_into().unwrap_or(u16::MAX)
}

/// 8 bits of a number that is known to fit.
pub(crate) fn to_u8(number: impl TryInto<u8>) -> u8 {
    number.try_into().unwrap_or(u8::MAX)
}

/// The low 32 bits; the others are kept elsewhere, or are not wanted.
pub(crate) fn low32(number: impl Into<u64>) -> u32 {
    let [a, b, c, d, ..] = number.into().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The low 16 bits; the others are kept elsewhere, or are not wanted.
pub(crate) fn low16(number: impl Into<u64>) -> u16 {
    let [a, b, ..] = number.into().to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// The low 8 bits; the others are kept elsewhere, or are not wanted.
pub(crate) fn low8(number: impl Into<u64>) -> u8 {
    let [a, ..] = number.into().to_le_bytes();
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_wraps() {
        assert_eq!(to_usize(7u32), 7);
        assert_eq!(to_u64(7), 7);
        assert_eq!((to_u32(7u64), to_u32(1u64 << 32)), (7, u32::MAX));
        assert_eq!((to_u16(7usize), to_u16(65_536usize), to_u16(-1)), (7, u16::MAX, u16::MAX));
        assert_eq!((to_u8(7u32), to_u8(256u32)), (7, 255));
        let number = 0x1234_5678_9abc_def0u64;
        assert_eq!(
            (low32(number), low16(number), low8(number), low32(number >> 32)),
            (0x9abc_def0, 0xdef0, 0xf0, 0x1234_5678)
        );
    }
}
