//! Partition tables: MBR (with logical partitions) and GPT. Read them, plan their growth, write
//! the plan.
//!
//! [`read`] takes the whole table or gives a typed error; nothing is guessed and nothing is
//! written. [`plan_grow`] decides in memory what a larger disk's table must be, and [`Plan`] says
//! so before a byte changes, writes it in an order that a power cut cannot turn into a disk
//! without a table, or hands the bytes to a caller who keeps an overlay.
//!
//! The crate knows nothing of file systems beyond what it needs to tell a bare one from a table.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bare;
mod boot_code;
mod disk;
mod error;
mod fresh;
mod gpt;
mod gpt_fault;
mod gpt_grow;
mod grow;
mod guid;
mod layout;
mod mbr;
mod mbr_grow;
mod num;
mod plan;
mod relocate;
pub mod signature;
pub mod swap;
mod table;
mod types;

pub use disk::{Disk, MemoryDisk};
pub use error::{Error, Result};
pub use fresh::{FRESH_START, TYPE_LINUX, TYPE_NTFS, fresh_mbr};
pub use grow::{GrowRequest, SwapRequest, Target, plan_grow};
pub use guid::Guid;
pub use plan::{Change, Plan, Write};
pub use relocate::{Carry, HEAD, Move, Obstacle};
pub use table::{Partition, PartitionType, Role, Table, TableKind, read};

/// The example of the README is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
