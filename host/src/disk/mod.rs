//! The instance's disks: opening them, writing to them, and what is written.

pub mod buffer;
pub mod destination;
pub mod error;
pub mod fresh;
pub mod mbr;
pub mod open;
pub mod storage;
pub mod target;
mod within;
