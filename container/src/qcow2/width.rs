//! Refcounts of 1 to 64 bits in a refcount block.

/// The refcount number `index` in `block`, whose refcounts are `1 << order` bits wide.
pub(crate) fn get(block: &[u8], index: usize, order: u32) -> u64 {
    match order {
        0..=2 => {
            let (at, shift, mask) = position(index, order);
            u64::from((block[at] >> shift) & mask)
        }
        _ => {
            let bytes = 1usize << (order - 3);
            let field = &block[index * bytes..(index + 1) * bytes];
            field.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
        }
    }
}

/// Sets it. The value fits: callers set what they read less one, or one.
pub(crate) fn set(block: &mut [u8], index: usize, order: u32, value: u64) {
    match order {
        0..=2 => {
            let (at, shift, mask) = position(index, order);
            block[at] = (block[at] & !(mask << shift)) | ((value as u8 & mask) << shift);
        }
        _ => {
            let bytes = 1usize << (order - 3);
            let whole = value.to_be_bytes();
            block[index * bytes..(index + 1) * bytes].copy_from_slice(&whole[8 - bytes..]);
        }
    }
}

/// The bytes of the block that refcount number `index` lies in.
pub(crate) fn bytes_of(index: usize, order: u32) -> std::ops::Range<usize> {
    match order {
        0..=2 => {
            let (at, ..) = position(index, order);
            at..at + 1
        }
        _ => {
            let bytes = 1usize << (order - 3);
            index * bytes..(index + 1) * bytes
        }
    }
}

/// Byte, shift and mask of a refcount narrower than a byte. The first is in the lowest bits.
fn position(index: usize, order: u32) -> (usize, u32, u8) {
    let bits = 1u32 << order;
    let in_a_byte = (8 / bits) as usize;
    let mask = ((1u16 << bits) - 1) as u8;
    (index / in_a_byte, (index % in_a_byte) as u32 * bits, mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_keeps_its_neighbours() {
        for order in 0..=6 {
            let mut block = vec![0; 512];
            let most = if order == 6 { u64::MAX } else { (1 << (1u32 << order)) - 1 };
            let count = (512 * 8) >> order;
            for index in 0..count {
                set(&mut block, index, order, most.min(index as u64 + 1));
            }
            for index in (0..count).step_by(3) {
                set(&mut block, index, order, 0);
            }
            for index in 0..count {
                let expected = if index % 3 == 0 { 0 } else { most.min(index as u64 + 1) };
                assert_eq!(get(&block, index, order), expected, "order {order} index {index}");
                assert!(bytes_of(index, order).end <= 512);
            }
        }
    }

    #[test]
    fn bit_order_is_that_of_the_specification() {
        let mut block = vec![0; 512];
        set(&mut block, 0, 0, 1);
        set(&mut block, 9, 0, 1);
        assert_eq!(block[..2], [1, 2]);
        set(&mut block, 1, 4, 0x0102);
        assert_eq!(block[2..4], [1, 2]);
    }
}
