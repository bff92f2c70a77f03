//! Registry hives (REGF): reading keys, values, class names and security, and editing values and
//! keys in place, with the hive's own cell allocation, so that all that is not asked for stays byte
//! for byte.
//!
//! Everything happens on the bytes of the file in memory. [`Hive::finish`] gives them back with
//! sequence numbers, time and checksum as a writer leaves them.

mod cells;
mod edit;
mod error;
mod format;
mod hive;
mod log;
mod marvin;
mod name;
mod peek;
mod read;
mod subkeys;
#[cfg(test)]
pub(crate) mod tests;

pub use error::{HiveError, LogProblem, Result};
pub use hive::{FileTime, Hive, Key};
pub use log::{Recovery, needs_logs};
pub use name::{Name, utf16_bytes, utf16_units};
pub use peek::{Peek, PeekKey};
pub use read::Value;

/// No type.
pub const REG_NONE: u32 = 0;
/// Text, UTF-16 with a zero at its end.
pub const REG_SZ: u32 = 1;
/// Text in which `%NAME%` stands for variables.
pub const REG_EXPAND_SZ: u32 = 2;
/// Bytes.
pub const REG_BINARY: u32 = 3;
/// A number of 32 bits.
pub const REG_DWORD: u32 = 4;
/// Several texts, each with a zero at its end, and one more zero.
pub const REG_MULTI_SZ: u32 = 7;
