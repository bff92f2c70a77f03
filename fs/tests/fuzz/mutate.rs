//! One change of a field. The harness of registry hives uses this file, too.

use super::choices::Choices;

/// Interesting values where numbers are likely, little-endian or (as in a journal) big-endian.
pub fn mutate(bytes: &mut [u8], choices: &mut Choices<'_>) {
    let reach = [16, 64, 256, bytes.len()][choices.below(4)].min(bytes.len());
    let width = [1usize, 2, 2, 4, 4, 8][choices.below(6)];
    let at = (choices.below(reach) / width * width).min(bytes.len() - width);
    let field = &mut bytes[at..at + width];
    let mut word = [0; 8];
    word[..width].copy_from_slice(field);
    let old = u64::from_le_bytes(word);
    let new = match choices.below(11) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => old.wrapping_add(1),
        4 => old.wrapping_sub(1),
        5 => old ^ (1 << choices.below(width * 8)),
        6 => 1 << choices.below(width * 8),
        7 => old << 1,
        8 => old.swap_bytes().wrapping_add(1 << (64 - width * 8)).swap_bytes(),
        9 => old.swap_bytes() >> (64 - width * 8),
        _ => choices.number(width),
    };
    field.copy_from_slice(&new.to_le_bytes()[..width]);
}
