//! Registry hives of a real Windows 8.1 that `cargo xtask setup` has fetched.

use std::fs;

/// One of them.
pub fn hive(name: &str) -> Vec<u8> {
    fs::read(super::given("SNF_TEST_CACHE").join("hives").join(name)).unwrap()
}

/// The hive as if it had been closed cleanly: two of them were copied from a running Windows.
pub fn closed(mut data: Vec<u8>) -> Vec<u8> {
    let number = data[4..8].to_vec();
    data[8..12].copy_from_slice(&number);
    let sum = data[..508].chunks_exact(4).fold([0u8; 4], |mut sum, word| {
        sum.iter_mut().zip(word).for_each(|(a, b)| *a ^= b);
        sum
    });
    data[508..512].copy_from_slice(&sum);
    data
}
