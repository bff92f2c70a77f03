//! Large aligned buffers, as O_DIRECT wants them, and the question whether bytes are all zero.

/// Alignment of buffers, offsets and lengths that every block device and file system accepts.
pub const ALIGNMENT: usize = 4096;

/// A buffer whose first byte lies on a page boundary.
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    size: usize,
}

impl AlignedBuffer {
    /// A zeroed buffer of `size` bytes.
    pub fn new(size: usize) -> Self {
        let bytes = vec![0u8; size + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { bytes, start, size }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.size]
    }

    /// The bytes, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.size]
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // A slice that equals itself shifted by one is all of one value: the comparison is the
    // library's memcmp, as fast as memory.
    match bytes.split_first() {
        None => true,
        Some((first, rest)) => *first == 0 && rest == &bytes[..rest.len()],
    }
}

/// Rounds down to the alignment.
pub fn align_down(n: u64) -> u64 {
    n - n % ALIGNMENT as u64
}

/// Rounds up to the alignment, or to the largest number there is.
pub fn align_up(n: u64) -> u64 {
    n.checked_next_multiple_of(ALIGNMENT as u64).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_alignment() {
        let mut buffer = AlignedBuffer::new(10_000);
        assert_eq!(buffer.as_slice().as_ptr() as usize % ALIGNMENT, 0);
        assert_eq!(buffer.as_slice().len(), 10_000);
        assert!(is_zero(buffer.as_slice()) && is_zero(&[]) && is_zero(&[0]));
        for at in [0, 1, 5000, 9999] {
            buffer.as_mut_slice()[at] = 1;
            assert!(!is_zero(buffer.as_slice()), "{at}");
            buffer.as_mut_slice()[at] = 0;
        }
        assert!(!is_zero(&[7; 9]));
        assert_eq!((align_down(4097), align_up(4097), align_up(u64::MAX)), (4096, 8192, u64::MAX));
    }
}
