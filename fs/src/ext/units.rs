//! Numbers that name things: a block of the device, a block of a file, an inode, a group. Each is a type of its
//! own, so that one cannot take another's place. Counts stay plain integers.

use std::fmt;
use std::ops::{Add, AddAssign, Range, Sub};

use zerocopy::little_endian::U32;

use crate::num::to_u64;

/// A block of the file system, counted from the start of its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FsBlock(u64);

impl FsBlock {
    /// Block `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether this is block 0, which on disk means "none" wherever a pointer may be absent.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The block `count` after this one, or the last that a number can name.
    pub const fn saturating_add(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The block `count` after this one, if a number can name it.
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The byte of the device where it begins.
    pub const fn byte(self, block_size: usize) -> u64 {
        self.0 * to_u64(block_size)
    }

    /// The block that a byte of the device is in, and the byte within it.
    #[allow(clippy::as_conversions)]
    pub const fn of_byte(at: u64, block_size: usize) -> (Self, usize) {
        let size = to_u64(block_size);
        // The remainder is less than the size, which is a usize.
        (Self(at / size), (at % size) as usize)
    }

    /// `count` blocks from this one on.
    pub fn run(self, count: u64) -> impl DoubleEndedIterator<Item = Self> {
        (self.0..self.0.saturating_add(count)).map(Self)
    }
}

impl fmt::Display for FsBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u32> for FsBlock {
    fn from(number: u32) -> Self {
        Self(number.into())
    }
}

impl Add<u64> for FsBlock {
    type Output = Self;

    fn add(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl AddAssign<u64> for FsBlock {
    fn add_assign(&mut self, count: u64) {
        self.0 += count;
    }
}

impl Sub<u64> for FsBlock {
    type Output = Self;

    fn sub(self, count: u64) -> Self {
        Self(self.0 - count)
    }
}

/// The number of blocks between two.
impl Sub for FsBlock {
    type Output = u64;

    fn sub(self, other: Self) -> u64 {
        self.0 - other.0
    }
}

/// A block of a file, counted from the file's start. Files have fewer than 2^32 - 1 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileBlock(u32);

impl FileBlock {
    /// Block `number` of a file.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for FileBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<FileBlock> for u64 {
    fn from(block: FileBlock) -> Self {
        block.0.into()
    }
}

impl Add<u32> for FileBlock {
    type Output = Self;

    fn add(self, count: u32) -> Self {
        Self(self.0 + count)
    }
}

/// The number of blocks between two.
impl Sub for FileBlock {
    type Output = u32;

    fn sub(self, other: Self) -> u32 {
        self.0 - other.0
    }
}

/// An inode, counted from 1. On disk 0 means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(u32);

impl Ino {
    /// Inode `number`.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether this is 0: no inode.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The four bytes as they are in an entry or under a checksum.
    pub const fn to_le_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<U32> for Ino {
    fn from(number: U32) -> Self {
        Self(number.get())
    }
}

/// A block group, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupNo(u32);

impl GroupNo {
    /// The first group of a file system.
    pub const FIRST: Self = Self(0);

    /// Group `number`.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number, which is also the number of groups before it.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The groups of a range of numbers.
    pub fn all(numbers: Range<u32>) -> impl DoubleEndedIterator<Item = Self> + Clone {
        numbers.map(Self)
    }

    /// The group `step` after this one, of `count`; after the last one comes the first.
    pub fn around(self, step: u32, count: u32) -> Self {
        let number = (u64::from(self.0) + u64::from(step)) % u64::from(count.max(1));
        // Less than `count`.
        Self(u32::try_from(number).unwrap_or(0))
    }

    /// The four bytes as they are under a checksum.
    pub const fn to_le_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }
}

impl fmt::Display for GroupNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<GroupNo> for u64 {
    fn from(group: GroupNo) -> Self {
        group.0.into()
    }
}

impl Add<u32> for GroupNo {
    type Output = Self;

    fn add(self, count: u32) -> Self {
        Self(self.0 + count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_bytes() {
        let block = FsBlock::new(3);
        assert_eq!(block.byte(1024), 3072);
        assert_eq!(FsBlock::of_byte(3100, 1024), (block, 28));
        assert_eq!(block.run(2).map(FsBlock::get).collect::<Vec<_>>(), [3, 4]);
        assert_eq!((block + 4) - block, 4);
        assert_eq!(FsBlock::new(u64::MAX).checked_add(1), None);
        assert_eq!(FileBlock::new(7) - FileBlock::new(5), 2);
    }

    #[test]
    fn groups_go_around() {
        let around: Vec<u32> = (0..4).map(|step| GroupNo::new(2).around(step, 3).get()).collect();
        assert_eq!(around, [2, 0, 1, 2]);
        assert_eq!(GroupNo::new(u32::MAX).around(u32::MAX, u32::MAX), GroupNo::FIRST);
    }
}
