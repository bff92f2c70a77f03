//! Conversions between widths of numbers, so that no `as` hides which ones can lose something.
//!
//! These conversions are for numbers whose bound is known: they never wrap. One beyond the wanted
//! type becomes the largest that there is, which no range, index or size accepts.

/// A count or offset in memory as 64 bits. No platform of Rust has larger addresses.
pub(crate) const fn to_u64(number: usize) -> u64 {
    const { assert!(usize::BITS <= u64::BITS) };
    // The line above proves that nothing is lost.
    number as u64
}

/// An index or length in memory.
pub(crate) fn to_usize(number: impl Into<u64>) -> usize {
    usize::try_from(number.into()).unwrap_or(usize::MAX)
}

/// 32 bits of a number that is known to fit.
pub(crate) fn to_u32(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
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
        assert_eq!((to_usize(7u32), to_u64(7)), (7, 7));
        assert_eq!((to_u32(7usize), to_u32(1u64 << 32)), (7, u32::MAX));
        assert_eq!(low8(0x1234u32), 0x34);
    }
}
