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
mod disk;
mod error;
#[allow(dead_code)] // until growth is planned from it
mod gpt;
mod guid;
#[allow(dead_code)] // until growth is planned from it
mod layout;
#[allow(dead_code)] // until growth is planned from it
mod mbr;
mod table;
mod types;

pub use disk::{Disk, MemoryDisk};
pub use error::{Error, Result};
pub use guid::Guid;
pub use table::{Partition, PartitionType, Role, Table, TableKind, read};
