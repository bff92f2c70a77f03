//! The checksum of labels, area headers and texts: CRC-32 (reflected, polynomial 0xEDB88320) with a
//! start value of LVM's own and without the final inversion.

/// The start value. The usual CRC-32 would begin with all ones.
const INITIAL: u32 = 0xf597_a6cf;

/// The checksum of the chunks as if they were one piece.
pub(crate) fn checksum(chunks: &[&[u8]]) -> u32 {
    // crc32fast inverts before and after. Both inversions are undone here.
    let mut hasher = crc32fast::Hasher::new_with_initial(!INITIAL);
    for chunk in chunks {
        hasher.update(chunk);
    }
    !hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn of_nothing_and_in_pieces() {
        assert_eq!(checksum(&[]), super::INITIAL);
        assert_eq!(checksum(&[b"LABEL", b"ONE"]), checksum(&[b"LABELONE"]));
    }
}
