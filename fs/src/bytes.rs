//! Little-endian numbers at a place in bytes that may be too few.

/// The number of two bytes at `at`; `None` where they are not there.
pub(crate) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    number(bytes, at).map(u16::from_le_bytes)
}

/// The number of four bytes at `at`; `None` where they are not there.
pub(crate) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at).map(u32::from_le_bytes)
}

/// The number of eight bytes at `at`; `None` where they are not there.
pub(crate) fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    number(bytes, at).map(u64::from_le_bytes)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_none() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!((le16(&bytes, 7), le16(&bytes, 8)), (Some(0x0908), None));
        assert_eq!((le32(&bytes, 0), le32(&bytes, 6)), (Some(0x0403_0201), None));
        assert_eq!((le64(&bytes, 1), le64(&bytes, 2)), (Some(0x0908_0706_0504_0302), None));
        assert_eq!(le16(&bytes, usize::MAX), None);
    }
}
