//! Numbers of NTFS that must not be taken for each other.

use std::fmt;
use std::ops::{Add, Range, Sub};

use crate::num::{low32, to_u64};

/// A cluster of the volume, counted from its first one: a logical cluster number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lcn(pub u64);

/// A cluster of one attribute's value, counted from its first one: a virtual cluster number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vcn(pub u64);

/// A record of the MFT, counted from its first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordNumber(pub u64);

impl RecordNumber {
    /// Its first byte in the MFT, with records of `size` bytes, if a number can name it.
    pub fn byte(self, size: usize) -> Option<u64> {
        self.0.checked_mul(to_u64(size))
    }

    /// The same; the largest number where none can name it.
    pub fn saturating_byte(self, size: usize) -> u64 {
        self.byte(size).unwrap_or(u64::MAX)
    }

    /// The 32 bits of it that a record's own header has.
    pub fn low(self) -> u32 {
        low32(self.0)
    }

    /// The records of a range.
    pub fn all(range: Range<Self>) -> impl Iterator<Item = Self> {
        (range.start.0..range.end.0).map(Self)
    }
}

impl Lcn {
    /// Its first byte on a volume with clusters of `cluster` bytes.
    pub fn byte(self, cluster: u64) -> u64 {
        self.0.saturating_mul(cluster)
    }

    /// The cluster in which a byte of the volume is.
    pub fn of_byte(byte: u64, cluster: u64) -> Self {
        Self(byte / cluster)
    }
}

impl Vcn {
    /// Its first byte in the value, with clusters of `cluster` bytes.
    pub fn byte(self, cluster: u64) -> u64 {
        self.0.saturating_mul(cluster)
    }

    /// The cluster in which a byte of the value is.
    pub fn of_byte(byte: u64, cluster: u64) -> Self {
        Self(byte / cluster)
    }

    /// Its first byte in the value, with units of `unit` bytes, if a number can name it.
    pub fn checked_byte(self, unit: u64) -> Option<u64> {
        self.0.checked_mul(unit)
    }

    /// The clusters in which a range of bytes of the value is.
    pub fn of_bytes(bytes: Range<u64>, cluster: u64) -> Range<Self> {
        Self(bytes.start / cluster)..Self(bytes.end.div_ceil(cluster))
    }
}

impl Add<u64> for Lcn {
    type Output = Self;
    fn add(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl Add<u64> for Vcn {
    type Output = Self;
    fn add(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl Add<u64> for RecordNumber {
    type Output = Self;
    fn add(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl Sub for Lcn {
    type Output = u64;
    fn sub(self, other: Self) -> u64 {
        self.0 - other.0
    }
}

impl Sub for Vcn {
    type Output = u64;
    fn sub(self, other: Self) -> u64 {
        self.0 - other.0
    }
}

impl fmt::Display for Lcn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Vcn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RecordNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
