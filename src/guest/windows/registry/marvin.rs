//! Marvin32, the keyed hash of log entries.

/// The key that every Windows uses for registry logs.
pub(super) const SEED: u64 = 0xc555_4e7a_884d_ef82;

/// The hash of `data` under [`SEED`].
pub(super) fn hash(data: &[u8]) -> u64 {
    keyed(SEED, data)
}

fn keyed(seed: u64, data: &[u8]) -> u64 {
    let mut low = seed as u32;
    let mut high = (seed >> 32) as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        low = low.wrapping_add(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        mix(&mut low, &mut high);
    }
    let mut last = 0x80u32;
    for byte in words.remainder().iter().rev() {
        last = last << 8 | u32::from(*byte);
    }
    low = low.wrapping_add(last);
    mix(&mut low, &mut high);
    mix(&mut low, &mut high);
    u64::from(high) << 32 | u64::from(low)
}

fn mix(low: &mut u32, high: &mut u32) {
    *high ^= *low;
    *low = low.rotate_left(20).wrapping_add(*high);
    *high = high.rotate_left(9) ^ *low;
    *low = low.rotate_left(27).wrapping_add(*high);
    *high = high.rotate_left(19);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        let seed = 0x004f_b61a_001b_dbcc;
        for (data, expected) in [
            (&[][..], 0x30ed_35c1_00cd_3c7d),
            (&[0xaf], 0x48e7_3fc7_7d75_ddc1),
            (&[0xe7, 0x0f], 0xb5f6_e1fc_485d_bff8),
            (&[0x37, 0xf4, 0x95], 0xf0b0_7c78_9b8c_f7e8),
        ] {
            assert_eq!(keyed(seed, data), expected, "{data:x?}");
        }
    }
}
